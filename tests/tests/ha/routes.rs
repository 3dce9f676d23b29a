//! A VIP is on an interface for as long as this node can serve it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::{Lab, Plan, retry, servers};
use lb_userspace::ha::routes::{RouteState, RoutesView};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::{
    agent::{Agent, PATIENCE, pool},
    conversations::Conversations,
};

use crate::takeover::{Removals, take_over};

const PORT: u16 = 7000;

struct Scene {
    lab: Lab,
    echo: Vec<servers::Echo>,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::new(&Plan {
            backends: 1,
            vips: 2,
            ..Plan::default()
        })?;
        let echo = lab.backends().iter().map(|be| servers::echo(be, PORT));
        let echo = echo.collect::<Result<_>>()?;
        Ok(Self { lab, echo })
    }

    /// The first VIP's addresses, then the second's.
    fn vips(&self) -> Vec<IpAddr> {
        self.lab.vips().iter().flat_map(|vip| vip.both()).collect()
    }

    /// A service for the first VIP, which is checked, and one for the second, of another pool.
    fn start(&self, routes: &Value) -> Result<Agent> {
        let be = &self.lab.backends()[0];
        let mut document = json!({ "ha": { "routes": routes } });
        for (number, vip) in self.vips().into_iter().enumerate() {
            let name = format!("s{number}");
            let address = be.addresses.both()[usize::from(vip.is_ipv6())];
            let check = if number < 2 { "tcp" } else { "" };
            // A backend of a `nat` service has but one.
            let port = if number < 2 { PORT } else { PORT + 1 };
            document["pools"][&name] = pool([("be1", (address, port).into())], check);
            document["services"][&name] = json!({
                "address": vip, "port": PORT, "protocol": "tcp", "mode": "nat", "pool": name,
            });
        }
        Agent::start(&self.lab, &document)
    }

    /// The VIPs that are on lo.
    fn held(&self) -> Result<Vec<IpAddr>> {
        let mut ip = self.lab.lb().command("ip");
        let listed = ip.args(["-o", "addr", "show", "dev", "lo"]).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let words = listed.split_whitespace();
        let addresses = words.filter_map(|word| word.split('/').next()?.parse().ok());
        let vips = self.vips();
        let mut held: Vec<IpAddr> = addresses.filter(|found| vips.contains(found)).collect();
        held.sort_by_key(|found| vips.iter().position(|vip| vip == found));
        Ok(held)
    }

    fn wait_until_held(&self, agent: &Agent, vips: &[IpAddr]) -> Result<()> {
        retry(PATIENCE, || {
            let held = self.held()?;
            ensure!(held == vips, "on lo: {held:?}\n{}", agent.log());
            Ok(())
        })
    }
}

#[test]
fn a_vip_is_there_while_it_is_served() -> Result<()> {
    let mut scene = Scene::new()?;
    let vips = scene.vips();
    // Somebody else's is nobody's business.
    let foreign = format!("addr add {}/32 dev lo\n", vips[2]);
    scene.lab.lb().ip(&foreign)?;
    let agent = scene.start(&json!({ "grace": "3s" }))?;
    scene.wait_until_held(&agent, &vips)?;
    let target = (vips[0], PORT).into();
    let pause = Duration::from_millis(50);
    let talk = Conversations::start(scene.lab.client(), target, 5, pause)?;

    // Its backend fails; the other VIP's is not checked.
    let report = {
        scene.echo.clear();
        scene.wait_until_held(&agent, &vips[2..])?;
        talk.finish()?
    };
    ensure!(report.failures.len() == 5, "their server has ended");
    let routes: RoutesView = agent.get("/v1/routes")?;
    let state = |number: usize| (routes[&vips[number]].state, &*routes[&vips[number]].reason);
    ensure!(
        state(0) == (RouteState::Withheld, "no healthy backend: s0"),
        "{routes:?}"
    );
    ensure!(
        state(1) == (RouteState::Withheld, "no healthy backend: s1"),
        "{routes:?}"
    );
    ensure!(
        state(2) == (RouteState::Foreign, "it was there, for ever"),
        "{routes:?}"
    );
    ensure!(
        state(3) == (RouteState::Announced, "healthy backends: s3"),
        "{routes:?}"
    );
    for (vip, announced) in vips.iter().zip([0, 0, 0, 1]) {
        let metric = format!("weir_route_announced{{vip=\"{vip}\"}}");
        ensure!(agent.metric(&metric)? == announced, "{metric}");
    }
    let shown = String::from_utf8(agent.weir(&["ha", "status"])?.stdout)?;
    ensure!(
        shown.contains("withheld") && shown.contains("no healthy backend: s0"),
        "{shown}"
    );

    // It comes back.
    let be = &scene.lab.backends()[0];
    scene.echo.push(servers::echo(be, PORT)?);
    scene.wait_until_held(&agent, &vips)?;

    // A service that is added or removed takes its address along.
    let config = json!(agent.services()?["s3"].config);
    agent.change("DELETE", "/v1/services/s3", &Value::Null)?;
    scene.wait_until_held(&agent, &vips[..3])?;
    agent.change("PUT", "/v1/services/s3", &config)?;
    scene.wait_until_held(&agent, &vips)?;
    agent.change("DELETE", "/v1/services/s3", &Value::Null)?;
    scene.wait_until_held(&agent, &vips[..3])?;

    // Told to end, it removes them, and goes on forwarding.
    let talk = Conversations::start(scene.lab.client(), target, 5, pause)?;
    let mut agent = agent;
    agent.process().signal(Signal::SIGTERM)?;
    scene.wait_until_held(&agent, &vips[2..3])?;
    let before = talk.exchanges();
    retry(PATIENCE, || {
        ensure!(
            talk.exchanges() > before + 50,
            "{} exchanges",
            talk.exchanges()
        );
        Ok(())
    })?;
    ensure!(agent.process().is_running(), "{}", agent.log());
    let report = talk.finish()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    Ok(())
}

/// The kernel takes away what a dead agent has left, unless the next one needs it.
#[test]
fn what_a_dead_agent_leaves_goes_or_is_adopted() -> Result<()> {
    let scene = Scene::new()?;
    let vips = scene.vips();
    let routes = json!({ "vips": &vips[..2], "lease": "2s" });
    let mut agent = scene.start(&routes)?;
    scene.wait_until_held(&agent, &vips[..2])?;
    agent.process().signal(Signal::SIGKILL)?;
    scene.wait_until_held(&agent, &[])?;
    drop(agent);

    let lasting = json!({ "vips": &vips[..2], "lease": "60s", "grace": "0s" });
    let mut agent = scene.start(&lasting)?;
    scene.wait_until_held(&agent, &vips[..2])?;
    agent.process().signal(Signal::SIGKILL)?;
    drop(agent);
    ensure!(scene.held()? == vips[..2], "they last");
    let agent = scene.start(&lasting)?;
    retry(PATIENCE, || {
        let routes: RoutesView = agent.get("/v1/routes")?;
        let adopted = routes
            .values()
            .all(|vip| vip.state == RouteState::Announced);
        ensure!(adopted && routes.len() == 2, "{routes:?}");
        Ok(())
    })?;
    agent.end(Signal::SIGTERM)?;
    ensure!(scene.held()?.is_empty(), "they were adopted");
    Ok(())
}

/// Without the data path the kernel would answer for the VIP.
#[test]
fn a_vip_goes_with_the_program() -> Result<()> {
    let scene = Scene::new()?;
    let vips = scene.vips();
    let agent = scene.start(&json!({ "announce": "always", "vips": &vips[..1] }))?;
    scene.wait_until_held(&agent, &vips[..1])?;
    scene.lab.lb().ip("link del client\n")?;
    scene.wait_until_held(&agent, &[])?;
    let routes: RoutesView = agent.get("/v1/routes")?;
    ensure!(
        routes[&vips[0]].reason == "client has no XDP program",
        "{routes:?}"
    );
    Ok(())
}

#[test]
fn vips_stay_when_another_agent_takes_over() -> Result<()> {
    let scene = Scene::new()?;
    let vips = scene.vips();
    let mut agent = scene.start(&json!({ "grace": "3s" }))?;
    scene.wait_until_held(&agent, &vips)?;
    let log = scene.lab.directory().join("removals");
    let removals = Removals::watch(scene.lab.lb(), log)?;
    for _ in 0..3 {
        take_over(&mut agent)?;
        scene.wait_until_held(&agent, &vips)?;
    }
    // Past the last agent's lease.
    std::thread::sleep(Duration::from_secs(4));
    scene.wait_until_held(&agent, &vips)?;
    removals.spare(&vips)
}
