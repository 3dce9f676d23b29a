//! Backends that die, and what their clients are told.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{Lab, Plan, Wiring};
use serde_json::{Value, json};
use weir_tests::{
    agent::Agent,
    held::{Datagrams, counter},
    scene::{Scene, Setup, in_every_mode},
};

const ALL: [&str; 3] = ["be1", "be2", "be3"];

/// A scene in which be1 dies: it is cut off, so that only others can speak for it.
fn after_a_death(
    mode: &str,
    ipv6: bool,
    service: Value,
    test: impl FnOnce(&Scene, weir_tests::held::Held) -> Result<()>,
) -> Result<()> {
    let scene = Scene::new(&Setup {
        mode,
        ipv6,
        check: "tcp",
        service,
        ..Setup::default()
    })?;
    let held = scene.hold(60)?;
    ensure!((1..60).contains(&held.of("be1")), "{:?}", held.by_partner());
    scene.cut(0)?;
    scene.agent.wait_for("echo", &ALL[1..])?;
    test(&scene, held)
}

/// With `reset`, the next packet of a dead backend's client is answered by a RST: nothing is
/// sent a second time.
#[test]
fn the_dead_backends_clients_are_reset_at_once() -> Result<()> {
    in_every_mode(|mode| {
        after_a_death(mode, mode == "dsr", json!({}), |scene, mut held| {
            let client = scene.lab.client();
            let of_dead = held.of("be1");
            let repeated = counter(client, "Tcp", "RetransSegs")?;
            let mut longest = Duration::ZERO;
            for connection in &mut held.0 {
                let started = std::time::Instant::now();
                let said = connection.say();
                match connection.partner.as_str() {
                    "be1" => {
                        longest = longest.max(started.elapsed());
                        let kind = said.map_err(|error| error.kind());
                        assert_eq!(kind, Err(ErrorKind::ConnectionReset), "{mode}");
                    }
                    _ => said?,
                }
            }
            println!("{mode}: {of_dead} were reset, the slowest within {longest:?}");
            assert_eq!(counter(client, "Tcp", "RetransSegs")?, repeated, "{mode}");
            let drops = &scene.agent.services()?["echo"].counters.drops;
            assert_eq!(
                drops.get("backend_dead"),
                Some(&(of_dead as u64)),
                "{mode}: {drops:?}"
            );
            // They connect again, to those that live.
            let again = scene.hold(of_dead)?;
            assert_eq!(again.of("be1"), 0);
            Ok(())
        })
    })
}

/// With `silent`, they go on to another backend, which resets them itself.
#[test]
fn the_dead_backends_clients_go_on_elsewhere() -> Result<()> {
    in_every_mode(|mode| {
        let silent = json!({ "on_backend_death": "silent" });
        after_a_death(mode, false, silent, |scene, mut held| {
            let resets = || -> Result<u64> {
                let backends = &scene.lab.backends()[1..];
                let resets = backends
                    .iter()
                    .map(|backend| counter(&backend.namespace, "Tcp", "OutRsts"));
                resets.sum()
            };
            let before = resets()?;
            let of_dead = held.of("be1");
            for (partner, said) in held.say() {
                match partner.as_str() {
                    "be1" => {
                        let kind = said.map_err(|error| error.kind());
                        assert_eq!(kind.err(), Some(ErrorKind::ConnectionReset), "{mode}");
                    }
                    _ => ensure!(said.is_ok(), "{mode}: {partner}: {said:?}"),
                }
            }
            assert_eq!(resets()? - before, of_dead as u64, "{mode}");
            let drops = &scene.agent.services()?["echo"].counters.drops;
            assert!(drops.is_empty(), "{mode}: {drops:?}");
            Ok(())
        })
    })
}

/// Datagrams of remembered flows go on to another backend, whatever the policy.
#[test]
fn datagrams_go_on_elsewhere() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            check: "tcp",
            udp: json!({ "tracking": "flow" }),
            ..Setup::default()
        })?;
        let flows = scene.datagrams(30)?;
        let ask = || Datagrams::ask_all(&flows);
        let before = ask()?;
        ensure!(before.iter().any(|name| name == "be1"), "{before:?}");
        scene.cut(0)?;
        scene.agent.wait_for("udp", &ALL[1..])?;
        let after = ask()?;
        for (before, after) in before.iter().zip(&after) {
            match before.as_str() {
                "be1" => ensure!(after != "be1", "{mode}"),
                _ => ensure!(before == after, "{mode}: {before} became {after}"),
            }
        }
        Ok(())
    })
}

/// Where nobody is left, clients are refused, or dropped where that is wanted; TCP and UDP, IPv4
/// and IPv6.
#[test]
fn nobody_is_left() -> Result<()> {
    in_every_mode(|mode| {
        let dsr = mode == "dsr";
        let lab = Lab::new(&Plan {
            wiring: if dsr { Wiring::Segment } else { Wiring::Routed },
            backends: 1,
            vips: 1,
            backends_hold_vips: dsr,
        })?;
        let mut document = json!({
            "agent": { "full_nat": { "addresses": lab.lb_addresses().both() } },
            "pools": { "empty": { "backends": {} } },
        });
        for (number, vip) in lab.vips()[0].both().into_iter().enumerate() {
            for (protocol, policy, port) in [
                ("tcp", "reset", 1001),
                ("tcp", "drop", 1002),
                ("udp", "reset", 1003),
                ("udp", "drop", 1004),
            ] {
                document["services"][format!("{protocol}-{policy}-{number}")] = json!({
                    "address": vip, "port": port, "protocol": protocol, "mode": mode,
                    "pool": "empty", "on_no_backend": policy,
                });
            }
        }
        let agent = Agent::start(&lab, &document)?;
        let short = Duration::from_millis(500);
        for vip in lab.vips()[0].both() {
            let connect = |port: u16, time: Duration| -> Result<ErrorKind> {
                let target = SocketAddr::new(vip, port);
                let connected = lab
                    .client()
                    .run(move || TcpStream::connect_timeout(&target, time))?;
                Ok(connected.expect_err("nobody is there").kind())
            };
            let refused = connect(1001, Duration::from_secs(5))?;
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{mode} {vip}");
            assert_eq!(connect(1002, short)?, ErrorKind::TimedOut, "{mode} {vip}");
            assert_eq!(
                ask(&lab, vip, 1003, Duration::from_secs(5))?,
                ErrorKind::ConnectionRefused
            );
            assert_eq!(
                ask(&lab, vip, 1004, short)?,
                ErrorKind::WouldBlock,
                "{mode} {vip}"
            );
        }
        for (name, view) in agent.services()? {
            assert!(view.counters.drops["no_backend"] >= 1, "{mode}: {name}");
        }
        Ok(())
    })
}

fn ask(lab: &Lab, vip: IpAddr, port: u16, time: Duration) -> Result<ErrorKind> {
    let flow = Datagrams::new(lab.client(), SocketAddr::new(vip, port))?;
    flow.wait_for(time)?;
    Ok(flow.ask().expect_err("nobody is there").kind())
}
