//! Planned changes by chance, and long conversations through them.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fastrand::Rng;
use lab::{
    load::{Load, Work},
    servers,
};
use serde_json::{Map, Value, json};
use weir_tests::{
    conversations::Conversations,
    scene::{ECHO, Scene, Setup, WEB, in_every_mode},
};

const POOLS: [&str; 2] = ["echo", "web"];
/// Servers that there are.
const SERVERS: usize = 6;
/// Not one of the service's: what speaks to it shows how slow the machine is by itself.
const CONTROL: u16 = 8;
const CHANGES: u32 = 30;
const A_MINUTE: Duration = Duration::from_secs(60);

/// The pools as they are configured.
struct Pools<'a> {
    scene: &'a Scene,
    random: Rng,
    /// By place: the weight of those that are in them.
    weights: [Option<u16>; SERVERS],
    draining: [bool; SERVERS],
    slow_start: bool,
}

impl Pools<'_> {
    /// Makes one planned change of any kind; says which.
    fn change(&mut self) -> Result<String> {
        loop {
            let place = self.random.usize(..SERVERS);
            let name = self.scene.name(place);
            let member = self.weights[place].is_some();
            let weight = self.random.u16(1..300);
            let others = (0..SERVERS).any(|other| other != place && self.is_used(other));
            match (self.random.u8(..7), member) {
                (0, false) => {
                    self.weights[place] = Some(100);
                    self.draining[place] = false;
                    POOLS
                        .iter()
                        .try_for_each(|pool| self.scene.add(pool, place))?;
                    return Ok(format!("add {name}"));
                }
                (1, true) if others => {
                    self.weights[place] = None;
                    self.put("DELETE", &name, "", &Value::Null)?;
                    return Ok(format!("remove {name}"));
                }
                (2, true) => {
                    self.weights[place] = Some(weight);
                    self.put("PUT", &name, "/weight", &json!({ "weight": weight }))?;
                    return Ok(format!("weigh {name} {weight}"));
                }
                (3, true) if others && !self.draining[place] => {
                    self.draining[place] = true;
                    self.put("PUT", &name, "/drain", &json!({ "deadline": "10m" }))?;
                    return Ok(format!("drain {name}"));
                }
                (4, true) if self.draining[place] => {
                    self.draining[place] = false;
                    self.put("DELETE", &name, "/drain", &Value::Null)?;
                    return Ok(format!("undrain {name}"));
                }
                (5, _) => return self.replace(),
                (6, _) => {
                    self.slow_start = !self.slow_start;
                    self.put_pools()?;
                    return Ok(format!("slow start: {}", self.slow_start));
                }
                _ => {}
            }
        }
    }

    /// Takes several in and out at once.
    fn replace(&mut self) -> Result<String> {
        let old = (self.weights, self.draining);
        for (weight, draining) in self.weights.iter_mut().zip(&mut self.draining) {
            if self.random.bool() {
                *weight = weight.is_none().then_some(100);
                *draining &= weight.is_some();
            }
        }
        let found = (0..SERVERS).find(|&place| self.is_used(place));
        if found.is_none() {
            (self.weights, self.draining) = old;
            return self.change();
        }
        self.put_pools()?;
        let places = (0..SERVERS).filter(|&place| self.weights[place].is_some());
        Ok(format!("replace by {:?}", places.collect::<Vec<_>>()))
    }

    fn is_used(&self, place: usize) -> bool {
        self.weights[place].is_some() && !self.draining[place]
    }

    fn put(&self, method: &str, backend: &str, suffix: &str, body: &Value) -> Result<()> {
        self.scene.change(&POOLS, method, backend, suffix, body)
    }

    fn put_pools(&self) -> Result<()> {
        for (pool, port) in [("echo", ECHO), ("web", WEB)] {
            let members = (0..SERVERS).filter_map(|place| {
                let weight = self.weights[place]?;
                let member =
                    json!({ "address": self.scene.address(place, port), "weight": weight });
                Some((self.scene.name(place), member))
            });
            let mut body = json!({ "backends": members.collect::<Map<_, _>>() });
            if self.slow_start {
                body["slow_start"] = json!("3s");
            }
            let path = format!("/v1/pools/{pool}");
            self.scene.agent.change("PUT", &path, &body)?;
        }
        Ok(())
    }
}

/// Two hundred connections that go on for a minute, and short ones all the time, through
/// thirty planned changes by chance, most of them before the last has settled.
#[test]
fn planned_changes_lose_nothing() -> Result<()> {
    let seed = match std::env::var("WEIR_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => fastrand::u64(..),
    };
    println!("to make the same changes again: WEIR_SEED={seed}");
    in_every_mode(|mode| through_changes(mode, seed))
}

fn through_changes(mode: &str, seed: u64) -> Result<()> {
    let scene = Scene::new(&Setup {
        mode,
        ipv6: mode == "full-nat",
        backends: SERVERS as u8,
        members: 4,
        web: true,
        ..Setup::default()
    })?;
    let _control = servers::echo(&scene.lab.backends()[0], CONTROL)?;
    let pause = Duration::from_millis(100);
    let control = scene.address(0, CONTROL);
    let control = Conversations::start(scene.lab.client(), control, 5, pause)?;
    let talks = scene.talk(200)?;
    let short = Work {
        clients: 4,
        ..Work::endless(scene.target(WEB))
    };
    let short = Load::short(scene.lab.client(), short)?;
    let mut pools = Pools {
        scene: &scene,
        random: Rng::with_seed(seed),
        weights: [Some(100), Some(100), Some(100), Some(100), None, None],
        draining: [false; SERVERS],
        slow_start: false,
    };
    let started = Instant::now();
    for number in 0..CHANGES {
        let change = pools.change()?;
        println!(
            "{mode} {:>5.1} s: {change}",
            started.elapsed().as_secs_f64()
        );
        // Some follow each other at once.
        let next = A_MINUTE * (number + 1) / CHANGES;
        let early = Duration::from_millis(pools.random.u64(..2000));
        sleep(next.saturating_sub(started.elapsed() + early));
    }
    sleep(A_MINUTE.saturating_sub(started.elapsed()));
    let results = short.stop();
    let dropped = scene.agent.drops()?;
    let report = talks.finish()?;
    let control = control.finish()?;
    println!(
        "{mode}: {} exchanges, the longest {:?} (past Weir: {:?}); {} short connections, {} a second",
        report.exchanges,
        report.longest,
        control.longest,
        results.requests,
        results.requests / A_MINUTE.as_secs()
    );
    assert_eq!(report.failures, Vec::<String>::new(), "{mode}, seed {seed}");
    assert_eq!(
        (results.failed, results.failures, dropped),
        (0, vec![], vec![]),
        "{mode}, seed {seed}"
    );
    ensure!(report.exchanges > 200 * 200, "{mode}: {report:?}");
    ensure!(
        results.requests > 10_000,
        "{mode}: {} short ones",
        results.requests
    );
    ensure!(
        report.longest < Duration::from_secs(1) + control.longest,
        "{mode}, seed {seed}: one stalled for {:?}",
        report.longest
    );
    Ok(())
}

/// Connections that are silent for almost as long as they may be, while backends come and go,
/// go on where they were. When they have ended, everything settles.
#[test]
fn idle_connections_survive_changes() -> Result<()> {
    in_every_mode(|mode| {
        let idle = Duration::from_secs(8);
        let scene = Scene::new(&Setup {
            mode,
            backends: 5,
            service: json!({ "idle_timeout": "8s" }),
            ..Setup::default()
        })?;
        let mut held = scene.hold(60)?;
        for round in 0..3 {
            held.all_say()?;
            let spoke = Instant::now();
            let change = |method, backend, suffix, body| {
                scene.change(&["echo"], method, backend, suffix, &body)
            };
            match round {
                0 => change("PUT", "be1", "/drain", Value::Null)?,
                1 => {
                    change("DELETE", "be2", "", Value::Null)?;
                    change("DELETE", "be1", "/drain", Value::Null)?;
                }
                _ => change("PUT", "be3", "/weight", json!({ "weight": 1 }))?,
            }
            scene.add("echo", 3 + round % 2)?;
            // The fastest way that leaves no doubt: the last second is for this machine.
            sleep((idle - Duration::from_secs(1)).saturating_sub(spoke.elapsed()));
            held.all_say()?;
        }
        drop(held);
        lab::retry(Duration::from_secs(60), || {
            let slots = scene.agent.services()?["echo"].counters.tracked_slots;
            let flows = scene.agent.status()?.flows;
            let left = flows.tracked + flows.full_nat;
            ensure!(
                (slots, left) == (0, 0),
                "{slots} slots are tracked, {left} flows remembered"
            );
            Ok(())
        })
    })
}

/// The algorithm of a live service changes, and its affinity, while backends come and go.
#[test]
fn algorithms_change_and_lose_nothing() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            backends: 4,
            ..Setup::default()
        })?;
        let talks = scene.talk(60)?;
        let mut silent = scene.hold(100)?;
        for (algorithm, affinity) in [
            ("source-hash", false),
            ("maglev", false),
            ("round-robin", false),
            ("source-hash", true),
            ("least-connections", false),
            ("random", true),
            ("maglev", true),
            ("maglev", false),
            ("source-hash", false),
        ] {
            let mut settings = json!({ "algorithm": algorithm });
            if affinity {
                settings["affinity"] = json!("1m");
            }
            scene.set_service("echo", &settings)?;
            sleep(Duration::from_millis(500));
            match scene.view("be4") {
                Ok(_) => scene.change(&["echo"], "DELETE", "be4", "", &Value::Null)?,
                Err(_) => scene.add("echo", 3)?,
            }
            sleep(Duration::from_millis(500));
            // Half of them have said nothing since they were opened.
            let half = silent.0.len() / 2;
            for connection in &mut silent.0[..half] {
                connection.say()?;
            }
        }
        silent.all_say()?;
        assert_eq!(talks.finish()?.failures, Vec::<String>::new(), "{mode}");
        Ok(())
    })
}

/// A live service moves to another pool, and its old one goes: connections stay where they were.
#[test]
fn moving_to_another_pool_loses_nothing() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            backends: 4,
            members: 2,
            ..Setup::default()
        })?;
        let talks = scene.talk(50)?;
        scene
            .agent
            .change("PUT", "/v1/pools/others", &scene.pool(2..4))?;
        scene.set_service("echo", &json!({ "pool": "others" }))?;
        sleep(Duration::from_secs(1));
        scene
            .agent
            .change("DELETE", "/v1/pools/echo", &Value::Null)?;
        sleep(Duration::from_secs(1));
        assert_eq!(talks.finish()?.failures, Vec::<String>::new(), "{mode}");
        Ok(())
    })
}
