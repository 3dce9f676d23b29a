//! What real hosts learn from ICMP errors: a path's MTU, and that a port is closed.

use std::{
    fmt::Display,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Namespace, Plan, Wiring, servers};
use serde_json::{Value, json};
use weir_tests::{
    agent::{Agent, PATIENCE, pool},
    held::Datagrams,
};

/// What the link to the far client takes: less than every other.
const NARROW: u32 = 1400;
/// Far more than fits into a few packets.
const BYTES: usize = 1 << 20;
/// The far client's addresses.
const FAR: [&str; 2] = ["198.18.200.2", "2001:db8:0:c8::2"];
/// Its router's on the same link.
const NEAR: [&str; 2] = ["198.18.200.1", "2001:db8:0:c8::1"];
/// What of them is the link's.
const LENGTHS: [&str; 2] = ["24", "64 nodad"];

/// A host behind the lab's client, which is its router. The client's side of their link is
/// narrower than the host's own, so that the host does not tell anybody of it by its TCP.
fn far_client(lab: &Lab) -> Result<Namespace> {
    let name = format!("{}far", lab.namespace_prefix());
    run(lab.client(), "ip", &["netns", "add", &name])?;
    let far = Namespace::open(&name)?;
    let mut router = format!("link add far mtu {NARROW} type veth peer name eth0 netns {name}\n");
    let mut host = "link set lo up\n".to_owned();
    for ((far, near), length) in FAR.into_iter().zip(NEAR).zip(LENGTHS) {
        router += &format!("addr add dev far {near}/{length}\n");
        host += &format!("addr add dev eth0 {far}/{length}\n");
    }
    lab.client().ip(&(router + "link set far up\n"))?;
    host += &format!(
        "link set eth0 mtu 1500 up\n{}",
        routes(["0.0.0.0/0", "::/0"], NEAR)
    );
    far.ip(&host)?;
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        run(lab.client(), "sysctl", &["-qw", setting])?;
    }
    let there = routes(FAR, lab.client_addresses().both());
    lab.lb().ip(&there)?;
    // What backends send from a VIP goes past the balancer.
    let past = there.replace('\n', " dev eth0 onlink table 100\n");
    let holding = lab.backends().iter().filter(|one| !one.vips.is_empty());
    for backend in holding {
        backend.namespace.ip(&past)?;
    }
    Ok(far)
}

/// Lines for `ip`: a route of each family.
fn routes(to: [&str; 2], via: [impl Display; 2]) -> String {
    let routes = to.into_iter().zip(via);
    routes
        .map(|(to, via)| format!("route add {to} via {via}\n"))
        .collect()
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    let output = namespace.command(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A service for each of these modes, protocols and families, whose only backend is `be1`, on a
/// port of its own.
fn document(lab: &Lab, protocol: &str, modes: &[&str]) -> (Value, Vec<(String, SocketAddr)>) {
    let mut document = json!({
        "agent": { "full_nat": { "addresses": lab.lb_addresses().both() } },
    });
    let mut services = Vec::new();
    let ports = 8001u16..;
    for (mode, port) in modes.iter().zip(ports) {
        let backend = lab.backends()[0].addresses.both();
        for (vip, backend) in lab.vips()[0].both().into_iter().zip(backend) {
            let family = if vip.is_ipv4() { 4 } else { 6 };
            let name = format!("{mode}-{family}");
            document["pools"][&name] = pool([("be1", (backend, port).into())], "");
            document["services"][&name] = json!({
                "address": vip, "port": port, "protocol": protocol, "mode": mode, "pool": name,
            });
            services.push((name, (vip, port).into()));
        }
    }
    (document, services)
}

/// A long answer to a client behind a link that takes smaller packets than its server and itself
/// know of.
fn a_long_answer_finds_its_way(plan: &Plan, modes: &[&str]) -> Result<()> {
    let lab = Lab::new(plan)?;
    let far = far_client(&lab)?;
    let (document, services) = document(&lab, "tcp", modes);
    let directory = lab.directory();
    std::fs::write(directory.join("long"), vec![b'.'; BYTES])?;
    let root = directory.display();
    let serve = |&(_, vip): &(String, SocketAddr)| {
        let port = vip.port();
        let listen = format!("listen {port}; listen [::]:{port} ipv6only=on;");
        let server = format!("server {{ {listen} root {root}; }}");
        servers::nginx_with(&lab.backends()[0], port, &server)
    };
    let each = services.iter().step_by(2).map(serve);
    let _servers = each.collect::<Result<Vec<_>>>()?;
    let agent = Agent::start(&lab, &document)?;
    for (name, vip) in &services {
        agent.wait_for(name, &["be1"])?;
        let url = format!("http://{vip}/long");
        let limits = ["--connect-timeout", "10", "--max-time", "20"];
        let quiet = ["-sS", "-o", "/dev/null", "-w", "%{size_download}", &url];
        let loaded = run(&far, "curl", &[&limits[..], &quiet].concat());
        let loaded = loaded.with_context(|| name.clone())?;
        ensure!(loaded == BYTES.to_string(), "{name}: {loaded} bytes");
    }
    Ok(())
}

#[test]
fn path_mtu_through_nat() -> Result<()> {
    let plan = Plan {
        backends: 1,
        ..Plan::default()
    };
    a_long_answer_finds_its_way(&plan, &["nat", "full-nat"])
}

#[test]
fn path_mtu_through_dsr() -> Result<()> {
    let plan = Plan {
        wiring: Wiring::Segment,
        backends: 1,
        backends_hold_vips: true,
        ..Plan::default()
    };
    a_long_answer_finds_its_way(&plan, &["dsr"])
}

/// A datagram to a backend on which nobody has the port.
#[test]
fn a_closed_port_is_told() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let (document, services) = document(&lab, "udp", &["nat", "full-nat"]);
    let agent = Agent::start(&lab, &document)?;
    for (name, vip) in services {
        agent.wait_for(&name, &["be1"])?;
        let flow = Datagrams::new(lab.client(), vip)?;
        flow.wait_for(Duration::from_secs(1))?;
        // The first may get lost while neighbours look for each other.
        lab::retry(PATIENCE, || {
            let told = flow.ask();
            let kind = told.as_ref().map_err(io::Error::kind);
            ensure!(
                kind == Err(ErrorKind::ConnectionRefused),
                "{name}: {told:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}
