//! TCP checks.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use lb_userspace::health::{Health, Kind};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{AMPLE, Checker, Server, first_verdict, get, status, target};

#[tokio::test]
async fn a_listener_is_healthy() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(
            first_verdict(target(address, Kind::Tcp)).await,
            (Health::Healthy, "connected".into()),
            "{address}"
        );
    }
}

#[tokio::test]
async fn a_closed_port_is_unhealthy() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        // Bound, so that nobody else gets the port, but not listening.
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
        .unwrap();
        socket.bind(address).unwrap();
        let address = socket.local_addr().unwrap();
        for kind in [Kind::Tcp, get()] {
            assert_eq!(
                first_verdict(target(address, kind)).await,
                (Health::Unhealthy, "connect: connection refused".into()),
                "{address}"
            );
        }
    }
}

#[tokio::test]
async fn a_port_that_never_answers_is_unhealthy() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // Fills the backlog: further SYNs are dropped.
    let _waiting = TcpStream::connect(address).await.unwrap();
    for kind in [Kind::Tcp, get()] {
        let mut target = target(address, kind);
        Arc::make_mut(&mut target.check).timeout = Duration::from_millis(100);
        assert_eq!(
            first_verdict(target).await,
            (
                Health::Unhealthy,
                "timed out after 100ms waiting for the connection".into()
            )
        );
    }
}

#[tokio::test]
async fn follows_a_listener_that_comes_and_goes() {
    // An address that no other test binds to.
    let listener = TcpListener::bind("127.0.77.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut target = target(address, Kind::Tcp);
    let check = Arc::make_mut(&mut target.check);
    (check.rise, check.fall) = (2, 3);
    let mut checker = Checker::start(vec![target]);
    assert_eq!(checker.verdict().await.0, Health::Healthy);
    drop(listener);
    assert_eq!(
        checker.verdict().await,
        (Health::Unhealthy, "connect: connection refused".into())
    );
    let _listener = TcpListener::bind(address).await.unwrap();
    assert_eq!(checker.verdict().await.0, Health::Healthy);
}

#[tokio::test]
async fn checks_leave_no_port_in_time_wait() {
    const CHECKS: usize = 200;
    let server = Server::answering(vec![status(204).into()]).await;
    // Connections of others, who had the port before the server.
    let others = in_time_wait(server.address.port());
    for kind in [Kind::Tcp, get()] {
        let mut targets = vec![target(server.address, kind); CHECKS];
        for (index, target) in targets.iter_mut().enumerate() {
            target.backend = index.to_string();
            Arc::make_mut(&mut target.check).interval = AMPLE;
        }
        let mut checker = Checker::start(targets);
        for _ in 0..CHECKS {
            assert_eq!(checker.verdict().await.0, Health::Healthy);
        }
    }
    let mut waiting = in_time_wait(server.address.port());
    waiting.retain(|ends| !others.contains(ends));
    assert!(waiting.is_empty(), "{waiting:?}");
}

/// Both ends of the IPv4 sockets in TIME_WAIT to or from `port`.
fn in_time_wait(port: u16) -> Vec<[String; 2]> {
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    assert!(table.contains(&port), "the listener is not listed");
    let waiting = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let ends = [fields.next()?, fields.next()?];
        let ours = ends.iter().any(|end| end.ends_with(&port));
        (ours && fields.next() == Some("06")).then(|| ends.map(str::to_owned))
    };
    table.lines().filter_map(waiting).collect()
}
