//! The files of examples/shared-sessions: sessions that any server can go on with.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Plan, retry,
    servers::{self, Daemon},
};
use lb_userspace::{
    config::{Config, from_toml},
    state::BackendView,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

const PORT: u16 = 8000;
const REDIS: u16 = 6379;

#[test]
fn sessions_in_redis_outlive_their_servers() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shared-sessions");
    let lab = Lab::new(&Plan {
        backends: 3,
        ..Plan::default()
    })?;
    let vip = lab.vips()[0].v4;
    lab.lb().ip(&format!("address add {vip}/32 dev lo\n"))?;
    let store = lab.backends()[0].addresses.v4.to_string();
    let _redis = servers::program(
        &lab.backends()[0],
        REDIS,
        Signal::SIGTERM,
        |place, directory| {
            let mut command = place.command("redis-server");
            command.args(["--port", &REDIS.to_string(), "--protected-mode", "no"]);
            command.args(["--save", "", "--dir"]).arg(directory);
            command
        },
    )?;
    let program = example.join("app.py");
    let apps = (1..).zip(lab.backends()).map(|(number, backend)| {
        let arguments = [format!("app{number}"), PORT.to_string(), store.clone()];
        let program = program.clone();
        servers::program(backend, PORT, Signal::SIGTERM, move |place, _| {
            let mut command = place.command("/usr/bin/python3");
            command.arg(&program).args(&arguments);
            command
        })
    });
    let mut apps = apps.collect::<Result<Vec<Daemon>>>()?;
    let mut text = std::fs::read_to_string(example.join("weir.toml"))?;
    text = text.replace("203.0.113.1", &vip.to_string());
    for (number, backend) in (11..).zip(lab.backends()) {
        text = text.replace(
            &format!("10.0.0.{number}:"),
            &format!("{}:", backend.addresses.v4),
        );
    }
    let config: Config = from_toml(text.as_bytes())?;
    let agent = Agent::start(&lab, &serde_json::to_value(&config)?)?;
    agent.wait_for("app", &["app1", "app2", "app3"])?;

    let jar = lab.directory().join("jar");
    let mut visits = 0;
    // Asks so often; who answered. Each visit must be counted where the last one was.
    let mut visit = |times: usize| -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for _ in 0..times {
            let output = lab
                .client()
                .command("curl")
                .args([
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--max-time",
                    "10",
                    "-b",
                ])
                .args([&jar, Path::new("-c"), &jar])
                .arg(format!("http://{vip}/"))
                .output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            let (name, count) = said.trim().split_once(' ').context(errors.into_owned())?;
            visits += 1;
            ensure!(
                count == visits.to_string(),
                "{said}, not the {visits}th visit"
            );
            names.insert(name.to_owned());
        }
        Ok(names)
    };
    let all = BTreeSet::from(["app1", "app2", "app3"].map(str::to_owned));
    ensure!(visit(30)? == all, "not all serve the session");

    apps[0].kill()?;
    let others = visit(30)?;
    ensure!(!others.contains("app1"), "the dead answers: {others:?}");
    let drain = "/v1/pools/app/backends/app2/drain";
    agent.change("PUT", drain, &json!({ "deadline": "10m" }))?;
    // Long before the deadline: it has no sessions of its own.
    retry(PATIENCE, || {
        let app2: BackendView = agent.get("/v1/pools/app/backends/app2")?;
        let drain = app2.drain.context("not drained")?;
        ensure!(drain.status == "drained", "{drain:?}");
        Ok(())
    })?;
    ensure!(visit(10)? == BTreeSet::from(["app3".to_owned()]));
    agent.change("DELETE", drain, &Value::Null)?;
    apps[0].start()?;
    agent.wait_for("app", &["app1", "app2", "app3"])?;
    ensure!(visit(30)? == all, "not all serve the session again");
    Ok(())
}
