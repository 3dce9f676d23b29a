//! Datagrams of real hosts that are longer than a packet can be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    agent::PATIENCE,
    scene::{Scene, Setup, in_every_mode},
};

/// Of three to six packets.
const LENGTHS: [usize; 4] = [4000, 5000, 6543, 8000];
/// Datagrams of each length; as many flows.
const FLOWS: usize = 20;

fn long_datagrams_are_answered(mode: &str, ipv6: bool) -> Result<()> {
    let scene = Scene::new(&Setup {
        mode,
        ipv6,
        ..Setup::default()
    })?;
    for flow in scene.datagrams(FLOWS)? {
        flow.wait_for(Duration::from_secs(1))?;
        for length in LENGTHS {
            let datagram: Vec<u8> = (0..length).map(|at| (at / 7 + at) as u8).collect();
            // The first may get lost while neighbours look for each other.
            let answer = lab::retry(PATIENCE, || Ok(flow.exchange(&datagram)?));
            let answer = answer.with_context(|| format!("{mode}, {length} bytes"))?;
            let name = scene.name(0).len() + 1;
            ensure!(
                answer[name..] == datagram,
                "{mode}: {length} bytes, answered by {} others",
                answer.len()
            );
        }
    }
    let drops = scene.agent.drops()?;
    let lost = drops.iter().filter(|drop| drop.contains("fragment"));
    let lost: Vec<_> = lost.collect();
    ensure!(lost.is_empty(), "{mode}: {lost:?}");
    Ok(())
}

#[test]
fn long_datagrams_over_ipv4() -> Result<()> {
    in_every_mode(|mode| long_datagrams_are_answered(mode, false))
}

#[test]
fn long_datagrams_over_ipv6() -> Result<()> {
    in_every_mode(|mode| long_datagrams_are_answered(mode, true))
}
