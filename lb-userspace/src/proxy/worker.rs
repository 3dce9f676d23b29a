//! A worker: a thread on a core of its own, with its own runtime, listeners and connections.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
    time::{interval, sleep},
};

use super::{listener::Listener, local::Worker, snapshot::Snapshot};

/// How often connections to backends are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// How often a worker that ends looks whether it can.
const WAIT: Duration = Duration::from_millis(20);

/// After so many of them its connections look, too.
const LOOK: u32 = 50;

/// Starts a worker, which ends when the snapshots' sender is dropped. It says on `done` when it
/// has taken a snapshot over.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn spawn(
    number: usize,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    done: mpsc::Sender<()>,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = move || {
        Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
    };
    // Made on its own thread: it may not leave it. What went wrong there is told here.
    let (made, told) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(format!("l7-{number}"))
        .spawn(move || {
            pin(number);
            match runtime() {
                Ok(runtime) => {
                    drop(made.send(Ok(())));
                    runtime.block_on(run(number, snapshots, done));
                }
                Err(error) => drop(made.send(Err(error))),
            }
        })
        .context("starting a worker")?;
    let made: io::Result<()> = told.recv().context("a worker has ended")?;
    made.context("a worker's runtime")?;
    Ok(thread)
}

/// CPUs that this process may use: as many workers make sense.
pub(crate) fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

fn pin(number: usize) {
    let cpus = cpus();
    let mut own = CpuSet::new();
    let pinned = match cpus.get(number % cpus.len().max(1)) {
        Some(cpu) => (own.set(*cpu)).and_then(|()| sched_setaffinity(Pid::from_raw(0), &own)),
        None => Ok(()),
    };
    if let Err(error) = pinned {
        tracing::warn!(worker = number, "not pinned to a core: {error}");
    }
}

async fn run(number: usize, mut snapshots: watch::Receiver<Arc<Snapshot>>, done: mpsc::Sender<()>) {
    let worker = Worker::new(number);
    spawn_local(worker.timers.clone().run());
    spawn_local(sweep(worker.clone()));
    let mut listeners = BTreeMap::new();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        take_over(&worker, &mut listeners, &snapshot);
        drop(snapshot);
        let _ = done.send(());
        if snapshots.changed().await.is_err() {
            break;
        }
    }
    // The last snapshot had no listeners: what is under way ends, or is cut when its time is over.
    let mut waits: u32 = 0;
    while worker.links.get() > 0 {
        sleep(WAIT).await;
        waits += 1;
        if waits.is_multiple_of(LOOK) {
            // Those that have not asked for anything look at nothing but their own time.
            worker.timers.wake_all();
        }
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        worker.sweep();
    }
}

/// Makes the listeners be those of the snapshot. What is in both goes on, connections and all.
fn take_over(
    worker: &Rc<Worker>,
    listeners: &mut BTreeMap<SocketAddr, Rc<Listener>>,
    snapshot: &Snapshot,
) {
    listeners.retain(|address, listener| {
        let kept = snapshot.listeners.contains_key(address);
        if !kept {
            listener.close(worker);
        }
        kept
    });
    let mut known = HashMap::new();
    for listener in listeners.values() {
        for pool in &listener.service().pools {
            known.insert(Arc::as_ptr(&pool.plan), pool.clone());
        }
    }
    for (address, wanted) in &snapshot.listeners {
        let old = listeners.get(address);
        if old.is_some_and(|old| Arc::ptr_eq(&old.service().plan, &wanted.service)) {
            continue;
        }
        let service = worker.localise(&wanted.service, &known);
        for pool in &service.pools {
            known.insert(Arc::as_ptr(&pool.plan), pool.clone());
        }
        if let Some(listener) = old {
            listener.serve(service);
            continue;
        }
        let sockets = wanted.sockets.of(worker.number);
        match sockets.and_then(|sockets| Listener::open(worker, *address, sockets, service)) {
            Ok(listener) => drop(listeners.insert(*address, listener)),
            Err(error) => tracing::error!(%address, "cannot listen: {error}"),
        }
    }
    drop(known);
    worker.forget_unused();
}
