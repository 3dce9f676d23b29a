//! Draining: what is new goes elsewhere, and what is left is counted down.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    load::{Load, Work},
    retry,
};
use lb_userspace::state::BackendView;
use serde_json::{Value, json};
use weir_tests::{
    agent::PATIENCE,
    scene::{Scene, Setup, WEB, in_every_mode},
};

const BE1: &str = "be1";

fn drain(scene: &Scene, method: &str, body: &Value) -> Result<()> {
    scene.change(&["echo", "web"], method, BE1, "/drain", body)
}

/// How far its drain has come, and flows that are left.
fn progress(view: BackendView) -> (Option<String>, u64) {
    (view.drain.map(|drain| drain.status), view.counters.flows)
}

/// A drained backend gets nothing new, its flows are counted down to zero, and then it is out.
#[test]
fn flows_are_counted_down_to_zero() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            web: true,
            service: json!({ "idle_timeout": "6s" }),
            ..Setup::default()
        })?;
        let mut held = scene.hold(40)?;
        let its = held.of(BE1);
        ensure!(its > 2, "{its}");
        drain(&scene, "PUT", &Value::Null)?;
        let work = Work {
            per_connection: 1,
            ..Work::new(scene.target(WEB), 1000)
        };
        let new = Load::http(scene.lab.client(), work)?.finish()?;
        assert_eq!(
            (new.failed, new.by_backend.get(BE1)),
            (0, None),
            "{mode}: {new:?}"
        );
        let mut left = its;
        loop {
            // All that there are speak, and are counted; then one after the other leaves.
            let mut seen = None;
            retry(Duration::from_secs(60), || {
                held.all_say()?;
                sleep(Duration::from_millis(500));
                let (status, flows) = progress(scene.view(BE1)?);
                if let Some(seen) = seen {
                    ensure!(flows <= seen, "{mode}: there were {seen}, now {flows}");
                }
                seen = (flows as usize >= left).then_some(flows);
                let wanted = if left == 0 { "drained" } else { "draining" };
                ensure!(
                    (status.as_deref(), flows as usize) == (Some(wanted), left),
                    "{mode}: {status:?}, {flows} flows, {left} connections"
                );
                Ok(())
            })?;
            if left == 0 {
                break;
            }
            let leaves = if left > its / 2 { left - its / 2 } else { left };
            for _ in 0..leaves {
                let place = held.0.iter().position(|one| one.partner == BE1);
                place.map(|place| held.0.swap_remove(place));
            }
            left -= leaves;
        }
        // Back again.
        drain(&scene, "DELETE", &Value::Null)?;
        scene.agent.wait_for("echo", &["be1", "be2", "be3"])?;
        ensure!(scene.hold(30)?.of(BE1) > 0, "{mode}: nothing new after all");
        held.all_say()
    })
}

/// Undone at any moment: old connections stay, and new ones come.
#[test]
fn a_drain_is_undone() -> Result<()> {
    let scene = Scene::new(&Setup {
        web: true,
        ..Setup::default()
    })?;
    let mut held = scene.hold(40)?;
    for round in 0..4u64 {
        drain(&scene, "PUT", &json!({ "deadline": "10m" }))?;
        sleep(Duration::from_millis(300 * round));
        held.all_say()?;
        ensure!(scene.hold(20)?.of(BE1) == 0, "round {round}: a new one");
        drain(&scene, "DELETE", &Value::Null)?;
        held.all_say()?;
        let new = scene.hold(40)?;
        ensure!(new.of(BE1) > 0, "round {round}: no new one");
        held.0.extend(new.0);
    }
    held.all_say()
}

/// At the deadline what is left is reset, and nothing else.
#[test]
fn a_deadline_ends_what_is_left() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            web: true,
            ..Setup::default()
        })?;
        let mut held = scene.hold(40)?;
        ensure!(held.of(BE1) > 0, "{mode}");
        drain(&scene, "PUT", &json!({ "deadline": "3s" }))?;
        held.all_say()?;
        retry(PATIENCE, || {
            let (status, _) = progress(scene.view(BE1)?);
            ensure!(status.as_deref() == Some("drained"), "{status:?}");
            Ok(())
        })?;
        for (partner, said) in held.say() {
            match partner.as_str() {
                BE1 => {
                    let kind = said.map_err(|error| error.kind()).err();
                    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionReset), "{mode}");
                }
                _ => ensure!(said.is_ok(), "{mode}: {partner}: {said:?}"),
            }
        }
        Ok(())
    })
}
