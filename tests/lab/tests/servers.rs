//! The lab's servers serve, stop, start and pause.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Backend, Lab, Plan, Wiring,
    load::{Load, Work},
    servers,
};

const LIMIT: Duration = Duration::from_secs(10);

fn lab(backends: u8) -> Result<Lab> {
    Lab::new(&Plan {
        backends,
        ..Plan::default()
    })
}

fn both(backend: &Backend, port: u16) -> [SocketAddr; 2] {
    backend
        .addresses
        .both()
        .map(|address: IpAddr| (address, port).into())
}

#[test]
fn nginx_answers_a_thousand_requests() -> Result<()> {
    for wiring in [Wiring::Routed, Wiring::Segment] {
        let lab = Lab::new(&Plan {
            wiring,
            backends: 2,
            ..Plan::default()
        })?;
        let backends = lab.backends();
        let _servers = (
            servers::nginx(&backends[0], 80)?,
            servers::nginx(&backends[1], 80)?,
        );
        for backend in backends {
            for target in both(backend, 80) {
                for per_connection in [1, 100] {
                    let work = Work {
                        per_connection,
                        ..Work::new(target, 1000)
                    };
                    let results = Load::http(lab.client(), work)?.finish()?;
                    assert_eq!(results.failed, 0, "{:?}", results.failures);
                    assert_eq!(results.requests, 1000);
                    assert_eq!(results.by_backend, [(backend.name.clone(), 1000)].into());
                }
            }
        }
        let health = format!("http://{}/healthz", backends[0].addresses.v4);
        let curl = lab
            .client()
            .command("curl")
            .args(["-sf", &health])
            .output()?;
        assert_eq!(curl.stdout, b"ok");
    }
    Ok(())
}

#[test]
fn nginx_stops_starts_and_pauses() -> Result<()> {
    let lab = lab(1)?;
    let mut nginx = servers::nginx(&lab.backends()[0], 80)?;
    let work = Work {
        clients: 1,
        timeout: Duration::from_millis(500),
        ..Work::new(both(&lab.backends()[0], 80)[0], 3)
    };
    let failed = || anyhow::Ok(Load::http(lab.client(), work.clone())?.finish()?.failed);
    assert_eq!(failed()?, 0);
    nginx.stop()?;
    assert!(!nginx.is_running());
    assert_eq!(failed()?, 3);
    nginx.start()?;
    assert!(nginx.is_running());
    assert_eq!(failed()?, 0);
    nginx.pause()?;
    assert_eq!(failed()?, 3);
    nginx.resume()?;
    assert_eq!(failed()?, 0);
    nginx.pause()?;
    nginx.stop()?;
    assert_eq!(failed()?, 3);
    Ok(())
}

#[test]
fn a_server_that_cannot_start_says_why() -> Result<()> {
    let lab = lab(1)?;
    let _nginx = servers::nginx(&lab.backends()[0], 80)?;
    let Err(error) = servers::nginx(&lab.backends()[0], 80) else {
        panic!("two servers on one port");
    };
    let error = format!("{error:#}");
    assert!(error.contains("Address already in use"), "{error}");
    Ok(())
}

#[test]
fn echo_over_udp() -> Result<()> {
    let lab = lab(2)?;
    let mut echo = servers::echo(&lab.backends()[1], 7)?;
    for target in both(&lab.backends()[1], 7) {
        let results = Load::udp(lab.client(), Work::new(target, 5000))?.finish()?;
        assert_eq!(results.failed, 0, "{:?}", results.failures);
        assert_eq!(results.by_backend, [("be2".to_owned(), 5000)].into());
    }
    let timeout = Duration::from_millis(200);
    let target = both(&lab.backends()[1], 7)[0];
    let lost = || {
        let work = Work {
            timeout,
            clients: 5,
            ..Work::new(target, 5)
        };
        anyhow::Ok(Load::udp(lab.client(), work)?.finish()?.failed)
    };
    echo.pause();
    assert_eq!(lost()?, 5);
    echo.resume();
    assert_eq!(lost()?, 0);
    echo.stop();
    assert_eq!(lost()?, 5);
    echo.start()?;
    assert_eq!(lost()?, 0);
    Ok(())
}

#[test]
fn echo_over_tcp() -> Result<()> {
    let lab = lab(1)?;
    let mut echo = servers::echo(&lab.backends()[0], 7)?;
    for target in both(&lab.backends()[0], 7) {
        let stream = lab
            .client()
            .run(|| TcpStream::connect_timeout(&target, LIMIT))??;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut lines = BufReader::new(&stream).lines();
        for word in ["one\n", "two\n"] {
            (&stream).write_all(word.as_bytes())?;
            let line = lines.next().context("closed")??;
            assert_eq!(line, format!("be1 {}", word.trim()));
        }
        echo.stop();
        ensure!(
            lines.next().is_none_or(|line| line.is_err()),
            "it is not closed"
        );
        ensure!(
            lab.client()
                .run(|| TcpStream::connect_timeout(&target, LIMIT))?
                .is_err()
        );
        echo.start()?;
    }
    Ok(())
}

/// A socket that was made in a namespace stays there.
#[test]
fn sockets_stay_in_their_namespace() -> Result<()> {
    let lab = lab(1)?;
    let _echo = servers::echo(&lab.backends()[0], 7)?;
    let socket = lab.client().run(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send_to(b"hello", (lab.backends()[0].addresses.v4, 7))?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    assert_eq!(&answer[..length], b"be1 hello");
    Ok(())
}

#[test]
fn postgres_answers_queries() -> Result<()> {
    let lab = lab(1)?;
    let mut postgres = servers::postgres(&lab.backends()[0], 5432)?;
    let ask = |host: IpAddr, query: &str| {
        let mut psql = lab.client().command("psql");
        psql.args(["-h", &host.to_string(), "-U", "postgres", "-XAtc", query]);
        anyhow::Ok(psql.env("PGCONNECT_TIMEOUT", "5").output()?)
    };
    for host in lab.backends()[0].addresses.both() {
        let one = ask(host, "select 1")?;
        assert_eq!(String::from_utf8_lossy(&one.stdout), "1\n", "{one:?}");
        let name = ask(host, "show cluster_name")?;
        assert_eq!(String::from_utf8_lossy(&name.stdout), "be1\n", "{name:?}");
    }
    let host = lab.backends()[0].addresses.v4.into();
    postgres.stop()?;
    assert!(!ask(host, "select 1")?.status.success());
    postgres.start()?;
    assert!(ask(host, "select 1")?.status.success());
    Ok(())
}
