//! Real clients and servers through every mode, family and protocol.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Result, ensure};
use lab::{
    Lab, Plan, Wiring,
    load::{Load, Results, Work},
    servers,
};
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE, pool};

const REQUESTS: u64 = 100_000;
const BACKENDS: [&str; 3] = ["be1", "be2", "be3"];

/// A service a mode, family and protocol, each on a port of its own: a `nat` backend serves
/// one service.
struct Service {
    name: String,
    mode: &'static str,
    protocol: &'static str,
    vip: SocketAddr,
}

fn services(lab: &Lab, modes: &[&'static str]) -> Vec<Service> {
    let mut services = Vec::new();
    let mut port = 8000;
    for &mode in modes {
        for protocol in ["tcp", "udp"] {
            port += 1;
            for vip in lab.vips()[0].both() {
                let family = if vip.is_ipv4() { "v4" } else { "v6" };
                services.push(Service {
                    name: format!("{mode}-{protocol}-{family}"),
                    mode,
                    protocol,
                    vip: SocketAddr::new(vip, port),
                });
            }
        }
    }
    services
}

fn document(lab: &Lab, services: &[Service]) -> Value {
    let mut document = json!({
        "agent": { "full_nat": { "addresses": lab.lb_addresses().both() } },
        "pools": {},
        "services": {},
    });
    for service in services {
        let ipv6 = usize::from(service.vip.is_ipv6());
        let address = |backend: &lab::Backend| -> IpAddr { backend.addresses.both()[ipv6] };
        let backends = lab.backends().iter().map(|backend| {
            let address = SocketAddr::new(address(backend), service.vip.port());
            (backend.name.as_str(), address)
        });
        let check = if service.protocol == "tcp" {
            "http"
        } else {
            ""
        };
        document["pools"][&service.name] = pool(backends, check);
        document["services"][&service.name] = json!({
            "address": service.vip.ip(), "port": service.vip.port(), "mode": service.mode,
            "protocol": service.protocol, "pool": service.name,
        });
    }
    document
}

/// A hundred thousand requests through each service, none of them lost.
fn every_request_is_answered(plan: &Plan, modes: &[&'static str]) -> Result<()> {
    let lab = Lab::new(plan)?;
    let services = services(&lab, modes);
    let mut ports: Vec<(u16, &str)> = services
        .iter()
        .map(|s| (s.vip.port(), s.protocol))
        .collect();
    ports.dedup();
    let (mut web, mut echo) = (Vec::new(), Vec::new());
    for backend in lab.backends() {
        for &(port, protocol) in &ports {
            match protocol {
                "tcp" => web.push(servers::nginx(backend, port)?),
                _ => echo.push(servers::echo(backend, port)?),
            }
        }
    }
    let agent = Agent::start(&lab, &document(&lab, &services))?;
    for service in &services {
        agent.wait_for(&service.name, &BACKENDS)?;
        if service.protocol == "tcp" {
            curl(&lab, service)?;
        }
        let work = Work::new(service.vip, REQUESTS);
        let results = match service.protocol {
            "tcp" => Load::http(lab.client(), work)?.finish()?,
            _ => Load::udp(lab.client(), work)?.finish()?,
        };
        println!("{}: {results:?}", service.name);
        fair(&service.name, &results);
    }
    for (name, service) in agent.services()? {
        assert_eq!(service.counters.drops, BTreeMap::new(), "{name}");
        assert!(service.counters.traffic.packets >= REQUESTS, "{name}");
    }
    let status = agent.status()?;
    assert_eq!(status.drops, BTreeMap::new());
    assert!(
        status
            .interfaces
            .iter()
            .all(|interface| interface.mode == "native")
    );
    Ok(())
}

/// None failed, and every backend had its third, give or take a tenth of it: ten thousand
/// connections spread by a hash stray by a fiftieth.
fn fair(name: &str, results: &Results) {
    assert_eq!(
        (results.requests, results.failed),
        (REQUESTS, 0),
        "{name}: {results:?}"
    );
    assert_eq!(
        results.by_backend.len(),
        BACKENDS.len(),
        "{name}: {results:?}"
    );
    for (backend, &share) in &results.by_backend {
        let fair = REQUESTS / 3;
        assert!(
            share.abs_diff(fair) < fair / 10,
            "{name}: {backend} had {share}"
        );
    }
}

fn curl(lab: &Lab, service: &Service) -> Result<()> {
    let url = format!("http://{}/", service.vip);
    let output = lab
        .client()
        .command("curl")
        .args(["--silent", "--show-error", "--max-time", "5", &url])
        .output()?;
    let body = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && BACKENDS.contains(&body.trim()),
        "curl {url}: {} {body} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn routed() -> Result<()> {
    every_request_is_answered(&Plan::default(), &["nat", "full-nat"])
}

#[test]
fn on_one_segment() -> Result<()> {
    let plan = Plan {
        wiring: Wiring::Segment,
        backends_hold_vips: true,
        ..Plan::default()
    };
    every_request_is_answered(&plan, &["dsr", "nat", "full-nat"])
}

/// A database behind `full-nat`, which needs no route of its own.
#[test]
fn pgbench_through_full_nat() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let _database = servers::postgres(&lab.backends()[0], 5432)?;
    let vip = lab.vips()[0];
    let addresses = lab.backends()[0].addresses;
    let document = json!({
        "agent": { "full_nat": { "addresses": lab.lb_addresses().both() } },
        "pools": { "db": pool([("be1", SocketAddr::new(addresses.v4.into(), 5432))], "tcp") },
        "services": { "db": {
            "address": vip.v4, "port": 5432, "protocol": "tcp", "mode": "full-nat", "pool": "db",
        } },
    });
    let agent = Agent::start(&lab, &document)?;
    agent.wait_for("db", &["be1"])?;
    let vip = vip.v4.to_string();
    let pgbench = |arguments: &[&str]| -> Result<String> {
        let program = glob::glob("/usr/lib/postgresql/*/bin/pgbench")?
            .flatten()
            .next();
        let program = program.expect("`cargo xtask setup` installs PostgreSQL");
        let output = lab
            .client()
            .command(program)
            .args(["-h", &vip, "-U", "postgres"])
            .args(arguments)
            .arg("postgres")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "pgbench {arguments:?}: {said}{errors}"
        );
        Ok(said)
    };
    pgbench(&["-i", "-q"])?;
    let said = pgbench(&["-c", "8", "-j", "2", "-t", "200"])?;
    ensure!(
        said.contains("transactions actually processed: 1600/1600"),
        "{said}"
    );
    // A connection for each transaction.
    let said = pgbench(&["-c", "4", "-C", "-S", "-t", "100"])?;
    ensure!(
        said.contains("transactions actually processed: 400/400"),
        "{said}"
    );
    let counters = &agent.services()?["db"].counters;
    assert!(counters.traffic.connections >= 400, "{counters:?}");
    assert_eq!(counters.drops, BTreeMap::new());
    Ok(())
}

/// A backend that answers from another MAC address is found again, without a word to Weir.
#[test]
fn a_changed_mac_address_is_followed() -> Result<()> {
    let lab = Lab::new(&Plan::default())?;
    for device in &lab.lb_devices()[1..] {
        // The kernel trusts what it knows for about half a minute; the test will not wait.
        let setting = format!("net.ipv4.neigh.{device}.base_reachable_time_ms=1000");
        ensure!(
            lab.lb()
                .command("sysctl")
                .args(["-qw", &setting])
                .status()?
                .success()
        );
    }
    let services = services(&lab, &["nat"]);
    let web = lab
        .backends()
        .iter()
        .map(|backend| servers::nginx(backend, services[0].vip.port()));
    let _web = web.collect::<Result<Vec<_>>>()?;
    let agent = Agent::start(&lab, &document(&lab, &services[..1]))?;
    agent.wait_for(&services[0].name, &BACKENDS)?;
    for backend in lab.backends() {
        let change = ["link", "set", "eth0", "address", "02:77:65:69:72:01"];
        ensure!(
            backend
                .namespace
                .command("ip")
                .args(change)
                .status()?
                .success()
        );
    }
    lab::retry(PATIENCE, || {
        let work = Work {
            timeout: std::time::Duration::from_secs(1),
            ..Work::new(services[0].vip, 300)
        };
        let results = Load::http(lab.client(), work)?.finish()?;
        ensure!(
            results.failed == 0 && results.by_backend.len() == 3,
            "{results:?}"
        );
        Ok(())
    })
}
