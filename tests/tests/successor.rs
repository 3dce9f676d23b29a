//! Agents that are killed, and those that come after them: connections notice neither.

use std::{fs, io::ErrorKind, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use lab::{Balancer, Lab, Plan, Wiring, retry};
use lb_userspace::{
    dataplane::{Attach, DataPlane, Interface, Limits, Options, Pin},
    desired::Desired,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::{
    agent::Agent,
    held::{Datagrams, Held},
    probe::Probe,
    scene::{ECHO, Scene, Setup},
};

/// A mode and an algorithm.
type Way = (&'static str, &'static str);

const EVERY_WAY: [Way; 5] = [
    ("nat", "maglev"),
    ("nat", "least-connections"),
    ("full-nat", "maglev"),
    ("dsr", "round-robin"),
    ("dsr", "maglev"),
];

/// Each in a lab of its own at the same time: most of it is waiting.
fn in_ways(ways: &[Way], test: impl Fn(&Setup<'_>) -> Result<()> + Sync) -> Result<()> {
    let test = &test;
    thread::scope(|scope| {
        let run = |&(mode, algorithm): &Way| {
            let run = move || {
                test(&Setup {
                    mode,
                    service: json!({ "algorithm": algorithm }),
                    backends: 4,
                    check: "tcp",
                    udp: json!({ "tracking": "flow" }),
                    ..Setup::default()
                })
            };
            (format!("{mode}, {algorithm}"), scope.spawn(run))
        };
        let runs: Vec<_> = ways.iter().map(run).collect();
        for (name, run) in runs {
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

/// Connections that were opened before and after a change that moves slots, while an agent dies,
/// while none is there, and while the next one comes, whose configuration knows nothing of the
/// change: all go on, with the backends that they had.
fn survive(setup: &Setup<'_>, configure: impl FnOnce(&mut Value)) -> Result<()> {
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
    let asked = Datagrams::ask_all(&flows)?;
    let counts = setup.service["algorithm"] == "least-connections";
    let open = if counts { open_connections(&scene)? } else { 0 };

    scene.agent.stop(Signal::SIGKILL)?;
    scene.agent.configure(configure)?;
    held.all_say().context("while no agent is there")?;
    ensure!(
        Datagrams::ask_all(&flows)? == asked,
        "while no agent is there"
    );
    held.0.extend(scene.hold(20)?.0);
    scene.agent.start_again()?;
    held.all_say().context("with the next agent")?;
    ensure!(Datagrams::ask_all(&flows)? == asked, "with the next agent");
    let log = scene.agent.log();
    ensure!(log.contains("going on with what an earlier agent"), "{log}");
    // It does not wait for checks to know what works.
    scene.agent.wait_for("echo", &["be1", "be2", "be3"])?;
    let new = scene.hold(20)?;
    ensure!(
        new.of("be4") == 0,
        "it is not configured: {:?}",
        new.by_partner()
    );
    // The janitor has looked, and forgotten nothing that lives.
    pass(&scene)?;
    held.all_say().context("after the janitor")?;
    if counts {
        let now = open_connections(&scene)?;
        println!("{open} connections were open, of the remaining backends {now} are");
        let gone = held.of("be4") as u64;
        ensure!(now + gone >= open, "{now} of {open}, {gone} elsewhere");
    }
    let report = talks.finish()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    println!(
        "{} {}: the slowest answer took {:?}",
        setup.mode, setup.service, report.longest
    );

    scene.agent.stop(Signal::SIGTERM)?;
    ensure!(!scene.agent.pins().exists(), "something stays pinned");
    Ok(())
}

#[test]
fn connections_survive_the_agent() -> Result<()> {
    in_ways(&EVERY_WAY, |setup| survive(setup, |_| {}))
}

/// The next agent's tables are of other sizes, and its sources have other indexes.
#[test]
fn connections_survive_other_limits() -> Result<()> {
    in_ways(&EVERY_WAY[1..4], |setup| {
        survive(setup, |document| {
            let agent = &mut document["agent"];
            agent["limits"] = json!({ "services": 100, "backends": 200, "flows": 5000 });
            let sources = agent["full_nat"]["addresses"].as_array_mut();
            // Before the others.
            sources
                .into_iter()
                .for_each(|all| all.push(json!("10.99.0.1")));
        })
    })
}

/// A backend that had died is dead to the next agent too, before its first check: its clients are
/// told at once, as they would have been.
#[test]
fn the_dead_stay_dead() -> Result<()> {
    in_ways(&[("nat", "maglev"), ("dsr", "round-robin")], |setup| {
        let mut scene = Scene::new(setup)?;
        let mut held = scene.hold(40)?;
        let of_dead = held.of("be1");
        ensure!(of_dead > 0, "{:?}", held.by_partner());
        scene.cut(0)?;
        scene.agent.wait_for("echo", &["be2", "be3"])?;
        scene.agent.stop(Signal::SIGKILL)?;
        scene.agent.start_again()?;
        scene.agent.wait_for("echo", &["be2", "be3"])?;
        for (partner, said) in held.say() {
            let kind = said.map(drop).map_err(|error| error.kind());
            let expected = match partner.as_str() {
                "be1" => Err(ErrorKind::ConnectionReset),
                _ => Ok(()),
            };
            ensure!(kind == expected, "{partner}: {kind:?}");
        }
        let drops = &scene.agent.services()?["echo"].counters.drops;
        ensure!(
            drops.get("backend_dead") == Some(&(of_dead as u64)),
            "{drops:?}"
        );
        Ok(())
    })
}

/// Counters go on where they ended.
#[test]
fn counters_survive_the_agent() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    scene.hold(20)?;
    let count = |scene: &Scene| -> Result<(u64, u64)> {
        let metric = |name: &str| scene.agent.metric(name);
        Ok((
            metric(r#"weir_service_connections_total{service="echo"}"#)?,
            metric(r#"weir_backend_connections_total{pool="echo",backend="be1"}"#)?,
        ))
    };
    let before = count(&scene)?;
    ensure!(before.0 == 20 && before.1 > 0, "{before:?}");
    scene.agent.stop(Signal::SIGKILL)?;
    scene.hold(10)?;
    scene.agent.start_again()?;
    let after = count(&scene)?;
    ensure!(after.0 == 30 && after.1 >= before.1, "{after:?}");
    Ok(())
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
    let lb = scene.lab.lb().clone();
    let refused = || -> Result<String> {
        let mut second = lb.command(weir_tests::agent::binary());
        let second = second.args(["agent", "--config"]).arg(&config).output()?;
        ensure!(!second.status.success());
        Ok(String::from_utf8(second.stderr)?)
    };
    let text = refused()?;
    ensure!(text.contains("an agent that runs has it"), "{text}");
    let mut held = scene.hold(10)?;
    scene.agent.stop(Signal::SIGKILL)?;
    held.all_say()?;
    // One that pins nothing finds the place taken, and is told how to free it.
    document["agent"]["pin"] = json!("");
    fs::write(&config, document.to_string())?;
    let text = refused()?;
    ensure!(text.contains("`weir detach` ends it"), "{text}");
    held.all_say()?;
    let (success, text) = detach(&scene)?;
    ensure!(success && text.contains("detached (native)"), "{text}");
    ensure!(!pins.exists());
    let (success, text) = detach(&scene)?;
    ensure!(success && text.contains("nothing was left"), "{text}");
    scene.agent.start_again()?;
    scene.hold(10).map(drop)
}

/// Agents that are killed while they start, at any moment: what was in force is, and somebody's
/// whole data path is there for every packet.
#[test]
fn agents_that_die_young_harm_nobody() -> Result<()> {
    let mut scene = Scene::new(&Setup {
        mode: "full-nat",
        ..Setup::default()
    })?;
    let talks = scene.talk(20)?;
    let target = scene.target(ECHO);
    let probe = Probe::start(scene.lab.client(), target, Duration::from_millis(2))?;
    scene.agent.stop(Signal::SIGKILL)?;
    for millis in (60..600).step_by(60) {
        scene.agent.launch_again()?;
        thread::sleep(Duration::from_millis(millis));
        scene.agent.stop(Signal::SIGKILL)?;
    }
    scene.agent.start_again()?;
    let report = talks.finish()?;
    let outage = probe.finish()?;
    println!(
        "the slowest answer took {:?}; {} of {} datagrams were lost",
        report.longest, outage.lost, outage.sent
    );
    ensure!(outage.lost == 0, "{outage:?}");
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    one_data_path(&scene)
}

/// An interface that the next agent does not have is left to the kernel.
#[test]
fn interfaces_go_and_come() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    let all = scene.lab.lb_devices().len();
    let programs = |scene: &Scene| -> Result<usize> {
        let output = scene
            .lab
            .lb()
            .command("ip")
            .args(["-details", "link"])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.matches("prog/xdp").count())
    };
    scene.agent.stop(Signal::SIGKILL)?;
    let mut last = Value::Null;
    scene.agent.configure(|document| {
        let interfaces = document["agent"]["interfaces"].as_array_mut();
        last = interfaces.and_then(Vec::pop).unwrap_or_default();
    })?;
    scene.agent.start_again()?;
    assert_eq!(programs(&scene)?, all - 1);
    scene.agent.stop(Signal::SIGKILL)?;
    scene.agent.configure(|document| {
        let interfaces = document["agent"]["interfaces"].as_array_mut();
        interfaces.into_iter().for_each(|all| {
            // In another mode than the link was, which takes it down for a moment.
            all[0]["xdp"] = json!("generic");
            all.push(last.clone());
        });
    })?;
    scene.agent.start_again()?;
    assert_eq!(programs(&scene)?, all);
    let modes = scene.agent.status()?.interfaces;
    assert_eq!(
        (&*modes[0].mode, &*modes[all - 1].mode),
        ("generic", "native")
    );
    one_data_path(&scene)
}

/// An interface's index means another one in another network namespace: what was left there is
/// ended, and not taken for this one's.
#[test]
fn another_namespace_is_another_place() -> Result<()> {
    let lab = Lab::new(&Plan {
        wiring: Wiring::Pair,
        ..Plan::default()
    })?;
    let [here, there] = lab.balancers() else {
        bail!("a pair is two");
    };
    let attached = |balancer: &Balancer| -> Result<bool> {
        let mut ip = balancer.namespace.command("ip");
        let output = ip.args(["-details", "link", "show", "lan"]).output()?;
        Ok(String::from_utf8(output.stdout)?.contains("prog/xdp"))
    };
    let mut first = Agent::start_at(&lab, here, &json!({}))?;
    first.stop(Signal::SIGKILL)?;
    let mut second = Agent::start_at(&lab, there, &json!({}))?;
    second.stop(Signal::SIGTERM)?;
    second.configure(|document| document["agent"]["pin"] = json!(first.pins()))?;
    ensure!(attached(here)? && !attached(there)?);
    second.start_again()?;
    ensure!(!attached(here)? && attached(there)?, "{}", second.log());
    Ok(())
}

/// A link for each interface is pinned, and the maps of one program.
fn one_data_path(scene: &Scene) -> Result<()> {
    let left = fs::read_dir(scene.agent.pins())?.count();
    ensure!(left == scene.lab.lb_devices().len() + 1, "{left}");
    Ok(())
}

/// An agent does not understand what one of another version has left: it says so, and puts its own
/// in the place all the same.
#[test]
fn another_layout_begins_anew() -> Result<()> {
    let mut scene = Scene::new(&Setup::default())?;
    let mut held = scene.hold(20)?;
    scene.agent.stop(Signal::SIGKILL)?;
    let mut pins = fs::read_dir(scene.agent.pins())?.map(|entry| Ok(entry?.path()));
    let maps = pins.find_map(|path: Result<PathBuf>| path.ok().filter(|path| path.is_dir()));
    let stamp = MapData::from_pin(maps.context("no maps are pinned")?.join("STAMP"))?;
    let mut stamp: Array<MapData, u64> = Map::from_map_data(stamp)?.try_into()?;
    stamp.set(0, u64::MAX, 0)?;
    scene.agent.start_again()?;
    let log = scene.agent.log();
    ensure!(log.contains("its maps are of layout"), "{log}");
    // Those of stable slots need nothing that is remembered.
    held.all_say()?;
    one_data_path(&scene)
}

/// One that lets another take its data path goes on with its own program where that one has put
/// its own in the place of it, and died.
#[test]
fn takes_back_what_a_newcomer_had_that_died() -> Result<()> {
    let lab = Lab::new(&Plan::default())?;
    let device = lab.lb_devices()[0].clone();
    let options = Options {
        interfaces: vec![Interface {
            name: device.clone(),
            attach: Attach::Native,
        }],
        hash_key: [1, 2],
        limits: Limits {
            services: 10,
            backends: 10,
            flows: 1000,
            translations: 0,
        },
        pin: Some(Pin {
            directory: lab.pins(),
            source_addresses: Vec::new(),
            peer_source_addresses: Vec::new(),
        }),
        tell_peers: false,
    };
    let here = lab.lb().clone();
    lab.lb().run(move || {
        let runtime = tokio::runtime::Runtime::new()?;
        let _within = runtime.enter();
        let begin = || {
            let mut dataplane = DataPlane::load(&options)?;
            dataplane.apply(&Desired::default())?;
            dataplane.attach()?;
            anyhow::Ok(dataplane)
        };
        let runs = |dataplane: &DataPlane| {
            let program = dataplane.with_program(|program| program.info())??.id();
            let shown = here
                .command("ip")
                .args(["link", "show", &device])
                .output()?;
            let shown = String::from_utf8(shown.stdout)?;
            Ok::<_, anyhow::Error>(shown.contains(&format!("xdp id {program} ")))
        };
        let mut old = begin()?;
        ensure!(begin().is_err(), "it is locked");
        old.offer()?;
        let new = begin()?;
        ensure!(runs(&new)? && !runs(&old)?, "the new one is not there");
        ensure!(old.keep().is_err(), "the new one has it");
        new.let_go();
        old.keep()?;
        ensure!(runs(&old)?, "the old one is not there");
        ensure!(begin().is_err(), "it is locked again");
        // It is as whole as ever: the next one can have it, and it ends.
        old.offer()?;
        let new = begin()?;
        old.let_go();
        ensure!(runs(&new)?, "the next one is not there");
        Ok(())
    })?
}
