//! One fails, or gives way, and the other takes over: how long does a client see it?

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_userspace::ha::Role;
use nix::sys::signal::Signal;
use weir_tests::{agent::Agent, conversations::Conversations, probe::Probe};

use crate::{
    capture::Capture,
    scene::{Scene, bound, every, groups, wait_for_role},
};

/// What happens to the active one.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Kill,
    PowerOff,
    Cut,
    /// Of two links.
    CutFront,
    CutBack,
    HandOver,
    Terminate,
}

/// A client asks without a pause while the active balancer fails. Prints what it saw.
fn fails(failure: Failure, millis: u64) -> Result<()> {
    let scene = match failure {
        Failure::CutFront | Failure::CutBack => Scene::between()?,
        _ => Scene::new()?,
    };
    let vips: Vec<IpAddr> = [scene.shared(true), scene.shared(false)].concat();
    let mut first = scene.start(0, &every(millis))?;
    wait_for_role(&first, Role::Active)?;
    let second = scene.start(1, &every(millis))?;
    wait_for_role(&second, Role::Backup)?;
    let capture = Capture::start(&scene.lab)?;
    let pause = Duration::from_millis(10);
    let client = scene.lab.client();
    let held = [true, false].map(|v4| Conversations::start(client, scene.vip(v4), 5, pause));
    let probes = [true, false].map(|v4| Probe::start(client, scene.vip(v4), pause));

    std::thread::sleep(Duration::from_millis(millis * 2));
    match failure {
        Failure::Kill => first.process().signal(Signal::SIGKILL)?,
        Failure::PowerOff => {
            // No carrier, and nobody there.
            first.process().signal(Signal::SIGKILL)?;
            scene.switch("link set lb down")?;
        }
        Failure::Cut | Failure::CutFront => scene.switch("link set lb down")?,
        Failure::CutBack => scene.switch("link set lb-back down")?,
        Failure::HandOver => {
            first.change("POST", "/v1/ha/v4/hand-over", &serde_json::Value::Null)?
        }
        Failure::Terminate => first.process().signal(Signal::SIGTERM)?,
    }
    wait_for_role(&second, Role::Active)?;
    scene.wait_for_holder(1)?;
    std::thread::sleep(Duration::from_millis(500));
    for (family, (probe, talk)) in ["v4", "v6"].into_iter().zip(probes.into_iter().zip(held)) {
        let outage = probe?.finish()?;
        let report = talk?.finish()?;
        println!(
            "{failure:?}, {millis} ms adverts, {family}: outage {:?} ({} of {} datagrams lost), \
             the longest answer over TCP {:?}; by arithmetic {:?}",
            outage.longest,
            outage.lost,
            outage.sent,
            report.longest,
            bound(millis)
        );
        ensure!(report.failures.is_empty(), "{:?}", report.failures);
        ensure!(
            outage.longest < bound(millis) + Duration::from_secs(5),
            "{outage:?}"
        );
    }
    for vip in vips {
        let told = capture.announcements("lb2", vip, start_of(&capture));
        ensure!(told >= 3, "{vip} was announced {told} times");
    }
    let group = &groups(&second)?["v4"];
    ensure!(group.transitions[0].to == Role::Active, "{group:#?}");
    println!("  because {}", group.transitions[0].reason);
    Ok(())
}

fn start_of(capture: &Capture) -> std::time::Instant {
    capture.said()[0].at
}

#[test]
fn kill_with_1_s() -> Result<()> {
    fails(Failure::Kill, 1000)
}

#[test]
fn kill_with_100_ms() -> Result<()> {
    fails(Failure::Kill, 100)
}

#[test]
fn power_off_with_1_s() -> Result<()> {
    fails(Failure::PowerOff, 1000)
}

#[test]
fn power_off_with_100_ms() -> Result<()> {
    fails(Failure::PowerOff, 100)
}

#[test]
fn cut_with_1_s() -> Result<()> {
    fails(Failure::Cut, 1000)
}

#[test]
fn cut_with_100_ms() -> Result<()> {
    fails(Failure::Cut, 100)
}

#[test]
fn cut_from_clients_with_1_s() -> Result<()> {
    fails(Failure::CutFront, 1000)
}

#[test]
fn cut_from_backends_with_1_s() -> Result<()> {
    fails(Failure::CutBack, 1000)
}

#[test]
fn hand_over_with_1_s() -> Result<()> {
    fails(Failure::HandOver, 1000)
}

#[test]
fn hand_over_with_100_ms() -> Result<()> {
    fails(Failure::HandOver, 100)
}

#[test]
fn terminate_with_1_s() -> Result<()> {
    fails(Failure::Terminate, 1000)
}

/// What one that was killed has left is removed by the next one, which does not take over.
#[test]
fn a_restarted_agent_waits_and_cleans_up() -> Result<()> {
    let scene = Scene::new()?;
    // So long that the kernel has not taken the addresses yet.
    let mut first = scene.start(0, &every(10_000))?;
    first.process().signal(Signal::SIGKILL)?;
    drop(first);
    let namespace = &scene.balancer(0).namespace;
    let left = format!("addr add {} dev lan", scene.vip(true).ip());
    ensure!(
        namespace
            .command("ip")
            .args(left.split(' '))
            .status()?
            .success()
    );
    ensure!(scene.held(0)?.len() == 1);
    let again = scene.start(0, &every(10_000))?;
    wait_for_role(&again, Role::Backup)?;
    ensure!(scene.held(0)?.is_empty());
    drop::<Agent>(again);
    Ok(())
}
