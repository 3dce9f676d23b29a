//! When checks are made, and how many decide.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lb_userspace::health::Health;
use tokio::{io::AsyncWriteExt as _, time::sleep};

use crate::support::{Checker, Server, get, status, target};

#[tokio::test]
async fn as_many_results_in_a_row_decide_as_rise_and_fall_say() {
    // Each with its own status: the reason tells which result decided.
    let answers = [200, 500, 501, 201, 502, 503, 504, 202, 505, 203, 204];
    let server = Server::answering(answers.map(|answer| status(answer).into()).into()).await;
    let mut target = target(server.address, get());
    let check = Arc::make_mut(&mut target.check);
    (check.rise, check.fall) = (2, 3);
    let mut checker = Checker::start(vec![target]);
    for (health, reason) in [
        (Health::Healthy, "status 200"),
        (Health::Unhealthy, "status 504, expected 200-299"),
        (Health::Healthy, "status 204"),
    ] {
        assert_eq!(checker.verdict().await, (health, reason.into()));
    }
}

#[tokio::test]
async fn the_first_failure_decides_too() {
    let server =
        Server::answering([500, 200, 201].map(|answer| status(answer).into()).into()).await;
    let mut target = target(server.address, get());
    let check = Arc::make_mut(&mut target.check);
    (check.rise, check.fall) = (2, 3);
    let mut checker = Checker::start(vec![target]);
    for (health, reason) in [
        (Health::Unhealthy, "status 500, expected 200-299"),
        (Health::Healthy, "status 201"),
    ] {
        assert_eq!(checker.verdict().await, (health, reason.into()));
    }
}

#[tokio::test]
async fn checks_of_a_target_do_not_overlap() {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&open), Arc::clone(&most));
    let mut server = Server::on("127.0.0.1:0", move |_, mut stream| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Many times the interval.
            sleep(Duration::from_millis(50)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(status(200).as_bytes()).await;
        }
    })
    .await;
    let _checker = Checker::start(vec![target(server.address, get())]);
    for _ in 0..5 {
        server.request().await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
}
