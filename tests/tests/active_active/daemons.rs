//! BIRD on the router and the nodes, and the files in examples/ with the lab's addresses.

use std::{net::IpAddr, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use lab::{Lab, Namespace, Process};
use nix::sys::signal::Signal;

/// A file of examples/active-active, with the lab's addresses in the place of its own. `node`:
/// whose it is, where it is a node's; else the first one's.
pub(crate) fn example(lab: &Lab, node: usize, file: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/active-active");
    let path = path.join(file);
    let mut text = std::fs::read_to_string(&path).context(path.display().to_string())?;
    for (from, to) in hosts(lab, node) {
        text = text.replace(&from, &to);
    }
    Ok(text)
}

/// Addresses of the examples and what they are in the lab, those first that begin with others.
fn hosts(lab: &Lab, node: usize) -> Vec<(String, String)> {
    let mut hosts = vec![(1, lab.router_addresses().both()), (2, gateway(lab))];
    for place in 0..3 {
        let of = (node + place) % 3;
        hosts.push((11 + place, lab.balancers()[of].addresses.both()));
        hosts.push((21 + place, source(lab, of)));
    }
    hosts.sort_by_key(|(host, _)| std::cmp::Reverse(*host));
    let mut all = Vec::new();
    for (host, [v4, v6]) in hosts {
        all.push((format!("192.0.2.{host}"), v4.to_string()));
        all.push((format!("2001:db8:1::{host}"), v6.to_string()));
    }
    let vip = lab.vips()[0];
    all.push(("192.0.2.0/24".to_owned(), subnet(lab)));
    all.push(("203.0.113.0/24".to_owned(), format!("{}/32", vip.v4)));
    all.push(("2001:db8:ffff::/64".to_owned(), format!("{}/128", vip.v6)));
    all.push(("\"eth0\"".to_owned(), "\"lan\"".to_owned()));
    all
}

fn subnet(lab: &Lab) -> String {
    let [a, b, c, _] = lab.router_addresses().v4.octets();
    format!("{a}.{b}.{c}.0/24")
}

fn gateway(lab: &Lab) -> [IpAddr; 2] {
    lab.backends()[0].gateway.both()
}

/// What a node's `full-nat` services send from.
fn source(lab: &Lab, node: usize) -> [IpAddr; 2] {
    let node = 20 + node as u8;
    let at = lab.balancers()[0].addresses;
    let [a, b, c, d] = at.v4.octets();
    let mut v6 = at.v6.octets();
    v6[15] -= node;
    [[a, b, c, d - node].into(), v6.into()]
}

/// Starts BIRD there.
pub(crate) fn bird(lab: &Lab, place: &Namespace, name: &str, config: &str) -> Result<Process> {
    let file = |kind: &str| lab.directory().join(format!("bird-{name}.{kind}"));
    std::fs::write(file("conf"), config)?;
    let mut command = place.command("bird");
    command.arg("-f").arg("-c").arg(file("conf"));
    command
        .arg("-s")
        .arg(file("ctl"))
        .arg("-P")
        .arg(file("pid"));
    let log = std::fs::File::create(file("log"))?;
    command.stdout(log.try_clone()?).stderr(log);
    Process::spawn_ended_by(Signal::SIGTERM, command)
}

/// What a BIRD has logged, and how its protocols are.
pub(crate) fn routing(lab: &Lab, name: &str) -> Result<String> {
    let file = |kind: &str| lab.directory().join(format!("bird-{name}.{kind}"));
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(file("ctl")).args(["show", "protocols"]);
    let shown = String::from_utf8(birdc.output()?.stdout)?;
    Ok(std::fs::read_to_string(file("log"))? + &shown)
}
