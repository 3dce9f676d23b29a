//! Agents that are killed, and those that come after them: connections notice neither.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::{
    agent::PATIENCE,
    held::{Datagrams, Held},
    scene::{Scene, Setup},
};

/// Modes and algorithms, each in a lab of its own at the same time: most of it is waiting.
fn in_every_way(test: impl Fn(&Setup<'_>) -> Result<()> + Sync) -> Result<()> {
    let test = &test;
    thread::scope(|scope| {
        let ways = [
            ("nat", json!({})),
            ("nat", json!({ "algorithm": "least-connections" })),
            ("full-nat", json!({})),
            ("dsr", json!({ "algorithm": "round-robin" })),
            ("dsr", json!({})),
        ];
        let ways = ways.map(|(mode, service)| {
            let name = format!("{mode} {service}");
            let run = move || {
                test(&Setup {
                    mode,
                    service,
                    backends: 4,
                    check: "tcp",
                    udp: json!({ "tracking": "flow" }),
                    ..Setup::default()
                })
            };
            (name, scope.spawn(run))
        });
        for (name, run) in ways {
            match run.join() {
                Ok(result) => result.context(name)?,
                Err(_) => panic!("{name}: see above"),
            }
        }
        Ok(())
    })
}

fn open_connections(scene: &Scene) -> Result<u64> {
    let pools = scene.agent.pools()?;
    let backends = pools["echo"].backends.values();
    Ok(backends.map(|view| view.counters.open_connections).sum())
}

fn ask_all(flows: &[Datagrams]) -> Result<Vec<String>> {
    Ok(flows.iter().map(Datagrams::ask).collect::<Result<_, _>>()?)
}

/// Connections that were opened before and after a change that moves slots, while an agent dies,
/// while none is there, and while the next one comes, whose configuration knows nothing of the
/// change: all go on, with the backends that they had.
#[test]
fn connections_survive_the_agent() -> Result<()> {
    in_every_way(|setup| {
        let mut scene = Scene::new(setup)?;
        let mut held = scene.hold(60)?;
        let flows = scene.datagrams(20)?;
        let talks = scene.talk(20)?;
        scene.add("echo", 3)?;
        scene
            .agent
            .wait_for("echo", &["be1", "be2", "be3", "be4"])?;
        held.0.extend(scene.hold(60)?.0);
        ensure!(held.of("be4") > 0, "{:?}", held.by_partner());
        // Of the others some have spoken since the change, and are remembered.
        say_some(&mut held)?;
        let asked = ask_all(&flows)?;
        let forwarded = scene.agent.services()?["echo"].counters.traffic.packets;
        let counts = setup.service["algorithm"] == "least-connections";
        let open = if counts { open_connections(&scene)? } else { 0 };

        scene.agent.stop(Signal::SIGKILL)?;
        held.all_say().context("while no agent is there")?;
        ensure!(ask_all(&flows)? == asked, "while no agent is there");
        held.0.extend(scene.hold(20)?.0);
        scene.agent.start_again()?;
        held.all_say().context("with the next agent")?;
        ensure!(ask_all(&flows)? == asked, "with the next agent");
        let log = scene.agent.log();
        ensure!(log.contains("going on with what an earlier agent"), "{log}");
        // It does not wait for checks to know what works.
        scene.agent.wait_for("echo", &["be1", "be2", "be3"])?;
        let counted = scene.agent.services()?["echo"].counters.traffic.packets;
        ensure!(counted > forwarded, "{counted} packets after {forwarded}");
        if counts {
            let now = open_connections(&scene)?;
            println!("{open} connections were open, of the remaining backends {now} are");
            let gone = held.of("be4") as u64;
            ensure!(now + gone >= open, "{now} of {open}, {gone} elsewhere");
        }
        let new = scene.hold(20)?;
        ensure!(
            new.of("be4") == 0,
            "it is not configured: {:?}",
            new.by_partner()
        );
        // The janitor has looked, and forgotten nothing that lives.
        pass(&scene)?;
        held.all_say().context("after the janitor")?;
        let report = talks.finish()?;
        ensure!(report.failures.is_empty(), "{:?}", report.failures);
        println!(
            "{} {}: the slowest answer took {:?}",
            setup.mode, setup.service, report.longest
        );

        scene.agent.stop(Signal::SIGTERM)?;
        ensure!(!scene.agent.pins().exists(), "something stays pinned");
        Ok(())
    })
}

fn say_some(held: &mut Held) -> Result<()> {
    for connection in held.0.iter_mut().step_by(3) {
        connection.say()?;
    }
    Ok(())
}

/// Waits for the janitor to have passed.
fn pass(scene: &Scene) -> Result<()> {
    let tracked = || Ok::<_, anyhow::Error>(scene.agent.status()?.flows);
    let limit = Duration::from_secs(15);
    retry(limit, || {
        let flows = tracked()?;
        ensure!(flows.tracked + flows.full_nat > 0, "{flows:?}");
        Ok(())
    })
}

/// A dead agent's links and maps are another's to end; a live one's are nobody's.
#[test]
fn what_is_left_can_be_ended() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    let pins = scene.agent.pins().to_owned();
    let detach = |scene: &Scene| -> Result<(bool, String)> {
        let output = (scene.lab.lb().command(weir_tests::agent::binary()))
            .args(["detach", "--pin"])
            .arg(&pins)
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(text)?))
    };
    let (success, text) = detach(&scene)?;
    ensure!(
        !success && text.contains("an agent that runs has it"),
        "{text}"
    );
    // Nor does a second agent take them.
    let config = scene.lab.directory().join("second.json");
    let first = fs::read(scene.lab.directory().join("weir.json"))?;
    let mut document: Value = serde_json::from_slice(&first)?;
    document["agent"]["admin"]["socket"] = json!(scene.lab.directory().join("second.sock"));
    fs::write(&config, document.to_string())?;
    let second = (scene.lab.lb().command(weir_tests::agent::binary()))
        .args(["agent", "--config"])
        .arg(&config)
        .output()?;
    let text = String::from_utf8(second.stderr)?;
    ensure!(
        !second.status.success() && text.contains("an agent that runs has it"),
        "{text}"
    );
    let mut held = scene.hold(10)?;
    scene.agent.stop(Signal::SIGKILL)?;
    held.all_say()?;
    let (success, text) = detach(&scene)?;
    ensure!(success && text.contains("detached (native)"), "{text}");
    ensure!(!pins.exists());
    let (success, text) = detach(&scene)?;
    ensure!(success && text.contains("nothing was left"), "{text}");
    scene.agent.start_again()?;
    scene.hold(10).map(drop)
}

/// An agent with other tables does not understand the earlier one's: it says so, and puts its
/// own in their place all the same.
#[test]
fn other_tables_begin_anew() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    let mut held = scene.hold(20)?;
    scene.agent.stop(Signal::SIGKILL)?;
    scene.agent.configure(|document| {
        document["agent"]["limits"] = json!({ "flows": 5000 });
    })?;
    scene.agent.start_again()?;
    let log = scene.agent.log();
    ensure!(log.contains("made with other `agent.limits`"), "{log}");
    // Those of stable slots need nothing that is remembered.
    held.all_say()?;
    retry(PATIENCE, || {
        let left = fs::read_dir(scene.agent.pins())?.count();
        // A link for each interface, and one directory of maps.
        ensure!(left == scene.lab.lb_devices().len() + 1, "{left}");
        Ok(())
    })
}
