//! Targets that come, go and change, and how it all ends.

use std::{sync::Arc, time::Duration};

use lb_userspace::health::{Health, Kind, Target};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

use crate::support::{Checker, Server, get, gone, soon, status, target};

/// A server that never answers, and hears of every client that has left.
async fn silent() -> (Server, mpsc::UnboundedReceiver<()>) {
    let (left, leavers) = mpsc::unbounded_channel();
    let server = Server::on("127.0.0.1:0", move |_, mut stream| {
        let left = left.clone();
        async move {
            gone(&mut stream).await;
            let _ = left.send(());
        }
    })
    .await;
    (server, leavers)
}

fn named(backend: &str, target: &Target) -> Target {
    Target {
        backend: backend.into(),
        ..target.clone()
    }
}

#[tokio::test]
async fn a_check_in_flight_ends_with_its_target() {
    let (mut server, mut leavers) = silent().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut checker = Checker::start(vec![target(server.address, get())]);
    server.request().await;
    let other = target(listener.local_addr().unwrap(), Kind::Tcp);
    checker.set(vec![named("b", &other)]);
    soon("the check's end", leavers.recv()).await;
    let change = checker.change().await;
    assert_eq!((&*change.backend, change.health), ("b", Health::Healthy));
}

#[tokio::test]
async fn no_target_is_checked_after_the_last_went() {
    let mut server = Server::answering(vec![status(200).into()]).await;
    let mut checker = Checker::start(vec![target(server.address, get())]);
    assert_eq!(checker.verdict().await.0, Health::Healthy);
    checker.set(vec![]);
    // What was under way.
    while tokio::time::timeout(Duration::from_millis(100), server.requests.recv())
        .await
        .is_ok()
    {}
    assert!(checker.changes.try_recv().is_err());
    // It is a new target when it comes back.
    checker.set(vec![target(server.address, get())]);
    assert_eq!(checker.verdict().await.0, Health::Healthy);
}

#[tokio::test]
async fn a_target_that_stays_is_not_started_again() {
    let mut server = Server::answering(vec![status(200).into()]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stays = target(server.address, get());
    let other = target(listener.local_addr().unwrap(), Kind::Tcp);
    let mut checker = Checker::start(vec![stays.clone()]);
    assert_eq!(checker.change().await.backend, "a");
    for other in ["b", "c"].map(|name| named(name, &other)) {
        checker.set(vec![other.clone(), stays.clone()]);
        assert_eq!(checker.change().await.backend, other.backend);
    }
    while server.requests.try_recv().is_ok() {}
    for _ in 0..5 {
        server.request().await;
    }
    assert!(checker.changes.try_recv().is_err());
}

#[tokio::test]
async fn a_verdict_holds_until_the_new_check_has_a_result() {
    let may_answer = Arc::new(Semaphore::new(1));
    let permits = Arc::clone(&may_answer);
    let mut server = Server::on("127.0.0.1:0", move |_, mut stream| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            let _ = stream.write_all(status(200).as_bytes()).await;
        }
    })
    .await;
    let mut target = target(server.address, get());
    Arc::make_mut(&mut target.check).interval = Duration::from_secs(3600);
    Arc::make_mut(&mut target.check).fall = 3;
    let mut checker = Checker::start(vec![target.clone()]);
    assert_eq!(checker.verdict().await.0, Health::Healthy);
    server.request().await;

    for (expected, health) in [
        (204..=204, Health::Unhealthy),
        (200..=204, Health::Healthy),
        // The verdict is the same: sent all the same.
        (200..=200, Health::Healthy),
    ] {
        Arc::make_mut(&mut target.check).kind = Kind::Http {
            path: "/".into(),
            host: None,
            status: expected,
            body_contains: None,
        };
        checker.set(vec![target.clone()]);
        server.request().await;
        assert!(checker.changes.try_recv().is_err());
        may_answer.add_permits(1);
        assert_eq!(checker.verdict().await.0, health);
    }
}

#[tokio::test]
async fn another_address_is_another_target() {
    let server = Server::answering(vec![status(200).into()]).await;
    let other = Server::answering(vec![status(503).into()]).await;
    let mut checker = Checker::start(vec![target(server.address, get())]);
    assert_eq!(checker.verdict().await.0, Health::Healthy);
    checker.set(vec![target(other.address, get())]);
    assert_eq!(checker.verdict().await.0, Health::Unhealthy);
}

#[tokio::test]
async fn ends_when_nobody_receives() {
    let (mut server, mut leavers) = silent().await;
    let Checker { targets, changes } = Checker::start(vec![target(server.address, get())]);
    server.request().await;
    drop(changes);
    soon("the check's end", leavers.recv()).await;
    soon("the checker's end", targets.closed()).await;
}

#[tokio::test]
async fn ends_when_nobody_can_set_targets() {
    let (mut server, mut leavers) = silent().await;
    let Checker {
        targets,
        mut changes,
    } = Checker::start(vec![target(server.address, get())]);
    server.request().await;
    drop(targets);
    soon("the check's end", leavers.recv()).await;
    assert_eq!(soon("the checker's end", changes.recv()).await, None);
}
