//! Backends whose MAC address nobody has told yet, or never will.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use lb_userspace::events::EventView;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::{
    agent::PATIENCE,
    scene::{ECHO, Scene, Setup, in_every_mode},
};

const CONNECTIONS: usize = 60;

/// An address in the first backend's subnet that nobody has.
fn ghost(scene: &Scene) -> SocketAddr {
    let mut octets = scene.lab.backends()[0].addresses.v4.octets();
    octets[3] = 99;
    SocketAddr::new(octets.into(), ECHO)
}

/// Opens connections, which must succeed at the first SYN: none of its packets is dropped. How many
/// `backend` got.
fn all_get_through(scene: &Scene, backend: &str) -> Result<usize> {
    let held = scene.hold(CONNECTIONS)?;
    ensure!(held.0.len() == CONNECTIONS);
    let drops = scene.agent.drops()?;
    ensure!(drops.is_empty(), "dropped: {drops:?}");
    Ok(held.of(backend))
}

/// Whether `weir` says that a backend is out, and why.
fn says_why(scene: &Scene, backend: &str, why: &str) -> Result<()> {
    let output = scene.agent.weir(&["backend", "list"])?;
    let text = String::from_utf8(output.stdout)?;
    let mut rows = text.lines();
    let row = rows.find(|row| row.starts_with("echo") && row.contains(backend));
    let row = row.with_context(|| format!("no {backend} in {text}"))?;
    ensure!(row.contains(" out ") && row.contains(why), "{row}");
    Ok(())
}

fn arp(scene: &Scene, place: usize, state: &str) -> Result<()> {
    let namespace = &scene.lab.backends()[place].namespace;
    namespace.ip(&format!("link set dev eth0 arp {state}\n"))
}

/// A newcomer gets connections when it answers ARP, and not before; nobody waits for it.
#[test]
fn a_newcomer_gets_nothing_until_it_is_found() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            members: 2,
            ..Setup::default()
        })?;
        arp(&scene, 2, "off")?;
        scene.add("echo", 2)?;
        let view = scene.view("be3")?;
        ensure!(!view.in_use && view.unreachable.is_some(), "{view:?}");
        assert_eq!(all_get_through(&scene, "be3")?, 0, "{mode}: not known yet");
        retry(PATIENCE, || {
            says_why(&scene, "be3", "unreachable: no answer from")
        })?;
        assert_eq!(all_get_through(&scene, "be3")?, 0, "{mode}: given up");
        arp(&scene, 2, "on")?;
        // The longest pause between two questions is half a minute.
        retry(PATIENCE * 3, || {
            let view = scene.view("be3")?;
            ensure!(view.in_use && view.unreachable.is_none(), "{view:?}");
            Ok(())
        })?;
        ensure!(all_get_through(&scene, "be3")? > 0, "{mode}: it is back");
        Ok(())
    })
}

/// A pool's backends are all replaced by others at once: the first connection after that, to one
/// that nobody has ever sent anything to, loses nothing.
#[test]
fn newcomers_alone_are_waited_for() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            backends: 4,
            members: 2,
            ..Setup::default()
        })?;
        scene
            .agent
            .change("PUT", "/v1/pools/echo", &scene.pool(2..4))?;
        ensure!(all_get_through(&scene, "be3")? > 0);
        Ok(())
    })
}

/// An address that nobody has: the others get all connections, from the first packet that an agent
/// takes, and `weir` says why. Where there are none, the floor holds.
#[test]
fn who_has_an_address_that_nobody_answers_for_gets_nothing() -> Result<()> {
    in_every_mode(|mode| {
        let mut scene = Scene::new(&Setup {
            mode,
            ..Setup::default()
        })?;
        let ghost = ghost(&scene);
        let body = json!({ "address": ghost });
        scene.change(&["echo"], "PUT", "ghost", "", &body)?;
        assert_eq!(all_get_through(&scene, "ghost")?, 0, "{mode}");
        let why = format!("unreachable: no answer from {}", ghost.ip());
        retry(PATIENCE, || says_why(&scene, "ghost", &why))?;
        let events: Vec<EventView> = scene.agent.get("/v1/events")?;
        let told = |event: &EventView| {
            let of_ghost = event.subject == "echo/ghost" && event.warning;
            of_ghost && event.text.contains("cannot be reached: no answer from")
        };
        ensure!(events.iter().any(told), "{events:?}");
        assert_eq!(all_get_through(&scene, "ghost")?, 0, "{mode}");

        // An agent that begins with it.
        scene.agent.stop(Signal::SIGTERM)?;
        scene.agent.configure(|document| {
            document["pools"]["echo"]["backends"]["ghost"] = json!({ "address": ghost });
        })?;
        scene.agent.start_again()?;
        assert_eq!(all_get_through(&scene, "ghost")?, 0, "{mode}: new agent");

        // Nobody else is left: it is used all the same, and comes as soon as somebody has it.
        for name in ["be1", "be2", "be3"] {
            scene.change(&["echo"], "DELETE", name, "", &Value::Null)?;
        }
        scene.agent.wait_for("echo", &["ghost"])?;
        let first = &scene.lab.backends()[0].namespace;
        first.ip(&format!("addr add {}/24 dev eth0\n", ghost.ip()))?;
        retry(PATIENCE * 3, || scene.hold(1).map(drop))
    })
}

/// One that loses its neighbour gets nothing new, and its connections go on when it is back: also
/// where agents come and go meanwhile.
#[test]
fn who_is_not_found_any_more_keeps_its_connections() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    for setting in [
        "base_reachable_time_ms=500",
        "delay_first_probe_time=1",
        "retrans_time_ms=100",
    ] {
        let sysctl = format!("net.ipv4.neigh.be3.{setting}");
        let mut command = scene.lab.lb().command("sysctl");
        ensure!(command.args(["-qw", &sysctl]).status()?.success());
    }
    let mut held = scene.hold(CONNECTIONS)?;
    ensure!(held.of("be3") > 0);
    arp(&scene, 2, "off")?;
    retry(PATIENCE * 4, || says_why(&scene, "be3", "no answer from"))?;
    let others = scene.hold(CONNECTIONS)?;
    assert_eq!(others.of("be3"), 0);
    let _old = scene.agent.take_over()?;
    arp(&scene, 2, "on")?;
    retry(PATIENCE * 3, || {
        let view = scene.view("be3")?;
        ensure!(view.in_use, "{view:?}");
        Ok(())
    })?;
    held.all_say()?;
    ensure!(scene.hold(CONNECTIONS)?.of("be3") > 0);
    Ok(())
}

/// An agent that takes over, or comes after one that was killed, uses all backends at once, though
/// the kernel has forgotten their neighbours.
#[test]
fn agents_that_come_later_take_nobody_out() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    let mut held = scene.hold(CONNECTIONS)?;
    for killed in [false, true] {
        // Entries that failed would be asked for again too late.
        scene.lab.lb().ip("neigh flush all\n")?;
        match killed {
            true => {
                scene.agent.stop(Signal::SIGKILL)?;
                scene.agent.start_again()?;
            }
            false => drop(scene.agent.take_over()?),
        }
        let used = scene.agent.pools()?;
        let used = used["echo"].backends.values().filter(|view| view.in_use);
        assert_eq!(used.count(), 3, "killed: {killed}");
        held.all_say()?;
        std::thread::sleep(Duration::from_millis(100));
        ensure!(scene.hold(CONNECTIONS)?.of("be3") > 0);
    }
    Ok(())
}
