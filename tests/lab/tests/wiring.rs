//! Both wirings reach everyone, and are wired as XDP needs it.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Namespace, Plan, Wiring, ping, retry, servers};

/// Some kernels need a moment after a link is up.
fn reaches(from: &Namespace, to: [IpAddr; 2]) -> Result<()> {
    for to in to {
        retry(Duration::from_secs(5), || ping(from, to))
            .with_context(|| format!("from {} to {to}", from.name()))?;
    }
    Ok(())
}

fn everyone_reaches_everyone(lab: &Lab) -> Result<()> {
    reaches(lab.client(), lab.lb_addresses().both())?;
    for backend in lab.backends() {
        reaches(lab.lb(), backend.addresses.both())?;
        reaches(lab.client(), backend.addresses.both())?;
        reaches(&backend.namespace, lab.client_addresses().both())?;
    }
    // Nobody but a balancer's program takes what is for a VIP.
    for vip in lab.vips().iter().flat_map(|vip| vip.both()) {
        ensure!(ping(lab.client(), vip).is_err(), "{vip} answers");
    }
    Ok(())
}

/// What `program` prints in a namespace.
fn output(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    let output = namespace.command(program).args(arguments).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A native program, and no checksums left to the device.
fn is_ready_for_xdp(host: &Namespace) -> Result<()> {
    has_native_program(host, "eth0")?;
    sends_whole_checksums(host)
}

fn has_native_program(host: &Namespace, device: &str) -> Result<()> {
    let link = output(host, "ip", &["-details", "link", "show", "dev", device])?;
    // In generic mode it says `xdpgeneric`.
    ensure!(link.contains(" xdp "), "no native program: {link}");
    Ok(())
}

fn sends_whole_checksums(host: &Namespace) -> Result<()> {
    let offloads = output(host, "ethtool", &["-k", "eth0"])?;
    ensure!(offloads.contains("tx-checksumming: off"), "{offloads}");
    ensure!(
        offloads.contains("generic-receive-offload: on"),
        "{offloads}"
    );
    Ok(())
}

#[test]
fn routed() -> Result<()> {
    let lab = Lab::new(&Plan {
        vips: 2,
        ..Plan::default()
    })?;
    assert_eq!(lab.backends().len(), 3);
    assert_eq!(lab.lb_devices(), ["client", "be1", "be2", "be3"]);
    everyone_reaches_everyone(&lab)?;
    is_ready_for_xdp(lab.client())?;
    for backend in lab.backends() {
        is_ready_for_xdp(&backend.namespace)?;
    }
    Ok(())
}

#[test]
fn segment() -> Result<()> {
    let lab = Lab::new(&Plan {
        wiring: Wiring::Segment,
        ..Plan::default()
    })?;
    assert_eq!(lab.lb_devices(), ["lan"]);
    everyone_reaches_everyone(&lab)?;
    let lan = Namespace::open(&format!("{}lan", lab.namespace_prefix()))?;
    has_native_program(&lan, "lb")?;
    sends_whole_checksums(lab.client())?;
    lab.backends()
        .iter()
        .try_for_each(|backend| sends_whole_checksums(&backend.namespace))
}

/// The client is given a route past the balancer, as DSR's rewriting of the MAC address would
/// take a packet; the answers come from the VIP, and straight from the backend.
#[test]
fn backends_answer_from_their_vips() -> Result<()> {
    let plan = Plan {
        wiring: Wiring::Segment,
        backends: 2,
        vips: 1,
        backends_hold_vips: true,
    };
    let lab = Lab::new(&plan)?;
    let backend = &lab.backends()[1];
    let _echo = servers::echo(backend, 7)?;
    let address = mac_address(&backend.namespace)?;
    for vip in lab.vips()[0].both() {
        let (family, via) = if vip.is_ipv4() {
            ("-4", "198.18.0.99")
        } else {
            ("-6", "2001:db8::99")
        };
        let vip_route = vip.to_string();
        output(
            lab.client(),
            "ip",
            &[
                family, "neigh", "replace", via, "lladdr", &address, "dev", "eth0",
            ],
        )?;
        output(
            lab.client(),
            "ip",
            &[
                family, "route", "replace", &vip_route, "via", via, "dev", "eth0",
            ],
        )?;
        let before = forwarded(lab.lb())?;
        let work = lab::load::Work::new((vip, 7).into(), 20);
        let results = lab::load::Load::udp(lab.client(), work)?.finish()?;
        assert_eq!(results.failed, 0, "{:?}", results.failures);
        assert_eq!(results.by_backend["be2"], 20);
        assert_eq!(forwarded(lab.lb())?, before);
    }
    Ok(())
}

fn mac_address(host: &Namespace) -> Result<String> {
    let link = output(host, "ip", &["-brief", "link", "show", "dev", "eth0"])?;
    Ok(link
        .split_whitespace()
        .nth(2)
        .context("no MAC address")?
        .to_owned())
}

/// How many packets of both families a host has forwarded.
fn forwarded(host: &Namespace) -> Result<u64> {
    let (v4, v6) = host.run(|| {
        (
            fs::read_to_string("/proc/thread-self/net/snmp"),
            fs::read_to_string("/proc/thread-self/net/snmp6"),
        )
    })?;
    let (v4, v6) = (v4?, v6?);
    // Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams
    let v4 = v4.lines().filter(|line| line.starts_with("Ip:")).nth(1);
    let v4 = v4
        .and_then(|line| line.split_whitespace().nth(6))
        .context("no IPv4 count")?;
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
    Ok(v4.parse::<u64>()? + v6.context("no IPv6 count")?.trim().parse::<u64>()?)
}
