//! What goes on beside applying: following next hops, asking for neighbours, tidying up.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::NeighbourRequest;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{State, address::from_abi, janitor::Janitor, lock, readable::readable};
use crate::next_hop::{self, Asker, News, Resolver, Told, Wanted};

/// Addresses whose backends are written before others get a turn.
const AT_ONCE: usize = 1024;

/// For how long the janitor looks at rings while an apply may wait,
const TURN: Duration = Duration::from_millis(2);
/// and the pause in which that gets its turn.
const PAUSE: Duration = Duration::from_micros(200);

/// Between two passes over the flow table.
const JANITOR_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the tasks; they end when the set is dropped.
pub(super) fn spawn(
    state: &Arc<Mutex<State>>,
    wanted: mpsc::UnboundedReceiver<Wanted>,
    told: mpsc::UnboundedSender<Told>,
    requests: RingBuf<MapData>,
) -> anyhow::Result<JoinSet<()>> {
    let Resolver { news, asker } = next_hop::spawn(wanted)?;
    let requests = readable(requests)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(state.clone(), news, told));
    tasks.spawn(request(requests, asker));
    Ok(tasks)
}

/// Starts the janitor. Not before everything is applied: it forgets flows of what is not there.
/// What it works on, and whether it may.
pub(super) fn tidy_up(
    tasks: &mut JoinSet<()>,
    (state, janitor, may): (&Arc<Mutex<State>>, &Arc<Janitor>, &Arc<Mutex<bool>>),
) {
    tasks.spawn(tidy(state.clone(), janitor.clone(), may.clone()));
}

/// Writes each new answer of the resolver into the backends, and tells of it.
async fn follow(
    state: Arc<Mutex<State>>,
    mut news: mpsc::UnboundedReceiver<News>,
    told: mpsc::UnboundedSender<Told>,
) {
    while let Some(News {
        told: changed,
        epoch,
    }) = news.recv().await
    {
        lock(&state).next_hops.update(&changed);
        for changed in changed.chunks(AT_ONCE) {
            let state = lock(&state);
            for &(address, _) in changed {
                for &id in state.applied.backends.ids_at(address) {
                    let mut backend = state.maps.backends.read(id);
                    state.next_hops.put(address, &mut backend);
                    state.maps.backends.write(id, &backend);
                }
            }
        }
        let state = lock(&state);
        let mut settings = state.maps.settings.read(0);
        settings.route_epoch = epoch;
        state.maps.settings.write(0, &settings);
        drop(state);
        // Nobody may want to know.
        let _ = told.send(changed);
    }
}

/// Has the kernel resolve the neighbours that packets wait for.
async fn request(mut requests: AsyncFd<RingBuf<MapData>>, asker: Asker) {
    while let Ok(mut ready) = requests.readable_mut().await {
        let mut wanted = BTreeSet::new();
        while let Some(item) = ready.get_inner_mut().next() {
            if let Ok(bytes) = <[u8; size_of::<NeighbourRequest>()]>::try_from(&*item) {
                // SAFETY: the program writes nothing else, and any bits are a value.
                let request: NeighbourRequest = unsafe { std::mem::transmute(bytes) };
                let address = from_abi(request.address, request.family);
                wanted.insert((address, request.ifindex));
            }
        }
        ready.clear_ready();
        for (address, ifindex) in wanted {
            asker.request(address, ifindex);
        }
    }
}

/// Frees what nothing needs any more, and settles slots.
async fn tidy(state: Arc<Mutex<State>>, janitor: Arc<Janitor>, may: Arc<Mutex<bool>>) {
    let mut passes = interval(JANITOR_INTERVAL);
    passes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        passes.tick().await;
        let (janitor, state, may) = (janitor.clone(), state.clone(), may.clone());
        let pass = move || {
            let may = lock(&may);
            if *may {
                pass(&state, &janitor)?;
            }
            Ok(())
        };
        match tokio::task::spawn_blocking(pass).await {
            Ok(Ok(())) => {}
            Ok(Err::<(), std::io::Error>(error)) => {
                tracing::warn!("reading the flow tables: {error}");
            }
            Err(error) => tracing::warn!("the janitor: {error}"),
        }
    }
}

/// One pass of the janitor's. The flow tables are read while applies go on, and rings are
/// looked at a few at a time, so that an apply need not wait for all.
fn pass(state: &Mutex<State>, janitor: &Janitor) -> std::io::Result<()> {
    let dead: BTreeSet<u32> = {
        let applied = &mut lock(state).applied;
        for ring in applied.rings.iter_mut() {
            ring.begin_pass();
        }
        applied.backends.dead().collect()
    };
    let pass = janitor.pass(|id| dead.contains(&id))?;
    let services: Vec<_> = {
        let state = lock(state);
        let services = state.applied.services.iter();
        services
            .map(|(name, service)| (name.to_owned(), service))
            .collect()
    };
    let mut turn = Instant::now();
    for (name, service) in services {
        if turn.elapsed() > TURN {
            // Who waits for the lock must wake up before it is taken again.
            std::thread::sleep(PAUSE);
            turn = Instant::now();
        }
        let State { maps, applied, .. } = &mut *lock(state);
        if let Some(ring) = applied.rings.get_mut(&name) {
            let live = pass.by_service.get(&service.index);
            ring.end_pass(
                live.map_or(&[], Vec::as_slice),
                service.idle_ticks,
                pass.tick,
            );
            let mut entry = maps.services.read(service.index);
            if let Some(ports) = applied.rings.base_hashed_ports(&name)
                && entry.base_hashed_ports != ports
            {
                entry.base_hashed_ports = ports;
                maps.services.write(service.index, &entry);
            }
        }
    }
    let mut state = lock(state);
    let State {
        maps,
        applied,
        flows,
        ..
    } = &mut *state;
    applied.tidy(maps, pass.started, |id| pass.by_backend.contains_key(&id));
    flows.update(pass);
    Ok(())
}
