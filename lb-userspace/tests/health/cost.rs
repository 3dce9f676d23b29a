//! What checks cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use lb_userspace::health::{Health, Kind};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Builder,
    sync::oneshot,
};

use crate::support::{Checker, get, status, target};

const TARGETS: usize = 1000;
const SECONDS: u32 = 10;

/// Prints the CPU time of a thousand checks a second: of the thread that makes them, with
/// everything that the kernel does in its name, the server's interrupts among it.
#[test]
#[ignore = "measurement"]
fn a_thousand_checks_a_second() {
    for kind in [Kind::Tcp, get()] {
        let (address, server) = oneshot::channel();
        let served = &AtomicUsize::new(0);
        thread::scope(|scope| {
            let (stop, stopped) = oneshot::channel::<()>();
            scope.spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    address.send(listener.local_addr().unwrap()).unwrap();
                    tokio::select! {
                        () = serve(&listener, served) => (),
                        _ = stopped => (),
                    }
                });
            });
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let spent = runtime.block_on(async {
                let mut targets = vec![target(server.await.unwrap(), kind.clone()); TARGETS];
                for (index, target) in targets.iter_mut().enumerate() {
                    target.backend = index.to_string();
                    Arc::make_mut(&mut target.check).interval = Duration::from_secs(1);
                }
                let mut checker = Checker::start(targets);
                for _ in 0..TARGETS {
                    assert_eq!(checker.verdict().await.0, Health::Healthy);
                }
                let before = cpu_time();
                tokio::time::sleep(Duration::from_secs(1) * SECONDS).await;
                cpu_time() - before
            });
            println!(
                "{kind:?}: {:.1} % of a core, {} connections accepted since the start",
                spent.as_secs_f64() / f64::from(SECONDS) * 100.0,
                served.load(Ordering::SeqCst),
            );
            drop(stop);
        });
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

async fn serve(listener: &TcpListener, served: &AtomicUsize) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        served.fetch_add(1, Ordering::SeqCst);
        let mut request = [0; 1024];
        if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            let _ = stream.write_all(status(200).as_bytes()).await;
        }
    }
}
