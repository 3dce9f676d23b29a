//! Two that cannot hear each other, and then can.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::retry;
use lb_userspace::ha::Role;
use serde_json::json;
use weir_tests::agent::PATIENCE;

use crate::{
    capture::{Capture, pause},
    scene::{Scene, every, wait_for_role},
};

/// Noisy machines may need this much longer than arithmetic says.
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn after_a_split_one_drops_at_once_and_the_other_tells_again() -> Result<()> {
    let scene = Scene::new()?;
    let vips: Vec<IpAddr> = [scene.shared(true), scene.shared(false)].concat();
    let capture = Capture::start(&scene.lab)?;
    let mut strong = every(200);
    strong["priority"] = json!(150);
    let first = scene.start(0, &strong)?;
    let second = scene.start(1, &every(200))?;
    wait_for_role(&first, Role::Active)?;
    wait_for_role(&second, Role::Backup)?;
    scene.wait_for_holder(0)?;

    scene.part(0)?;
    wait_for_role(&second, Role::Active)?;
    wait_for_role(&first, Role::Active)?;
    ensure!(scene.held(0)?.len() == 6 && scene.held(1)?.len() == 6);

    let healed = Instant::now();
    scene.heal(0)?;
    scene.wait_for_holder(0)?;
    wait_for_role(&second, Role::Backup)?;
    let dropped = capture.last_claim("lb2", &vips).expect("it was active");
    println!(
        "a split with 200 ms adverts: {:?} after it healed the loser spoke last",
        dropped.saturating_duration_since(healed)
    );
    ensure!(dropped <= healed + Duration::from_millis(200) + SLACK);
    // The winner tells everybody after the loser was last heard.
    retry(PATIENCE, || {
        for vip in &vips {
            let told = capture.announcements("lb", *vip, dropped);
            ensure!(told >= 3, "{vip} was announced {told} times");
        }
        Ok(())
    })?;
    // And from then on nobody else says a word.
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(2) {
        pause();
    }
    let since = dropped + Duration::from_millis(1);
    assert_eq!(capture.claimants(&vips, since), ["lb"]);
    Ok(())
}

/// An agent that is stopped, not ended: nobody prolongs its addresses, so the kernel takes them.
#[test]
fn an_agent_that_hangs_holds_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let vips: Vec<IpAddr> = [scene.shared(true), scene.shared(false)].concat();
    let capture = Capture::start(&scene.lab)?;
    let mut strong = every(1000);
    strong["priority"] = json!(150);
    let mut first = scene.start(0, &strong)?;
    let second = scene.start(1, &every(1000))?;
    wait_for_role(&first, Role::Active)?;
    first.process().pause()?;
    wait_for_role(&second, Role::Active)?;
    scene.wait_for_holder(1)?;
    let resumed = Instant::now();
    first.process().resume()?;
    // Of higher priority, but a newcomer now.
    wait_for_role(&first, Role::Backup)?;
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(2) {
        pause();
    }
    assert_eq!(capture.claimants(&vips, resumed), ["lb2"]);
    scene.wait_for_holder(1)
}
