//! Links, addresses and routes.

use std::fmt::Write as _;

use anyhow::Result;

use crate::{
    Backend, Lab, Namespace, Pair, Wiring,
    address::CLIENT_SUBNET,
    namespace::run,
    pass::{Attached, Pass},
};

/// The NIC of the client and of every backend.
const NIC: &str = "eth0";
/// The first segment's bridge.
const BRIDGE: &str = "bridge";
/// The router's NIC on the client's side.
const CLIENT: &str = "client";
/// The balancer's NIC on a segment, and the router's.
const LAN: &str = "lan";
/// The balancer's NIC on the backends' segment, and its bridge, where that is another.
const BACK: &str = "back";
/// The routing table for what a backend sends from a VIP, on a segment.
const FROM_VIP: &str = "100";

/// What wiring a lab yields.
pub(crate) struct Wired {
    pub(crate) lb_devices: Vec<String>,
    /// The passing programs.
    pub(crate) passing: Vec<Attached>,
}

/// Everyone at a NIC of the balancer.
pub(crate) fn routed(lab: &Lab) -> Result<Wired> {
    prepare(lab)?;
    let pass = Pass::load()?;
    let mut wired = Wired {
        lb_devices: Vec::new(),
        passing: Vec::new(),
    };
    let client = (
        "client",
        lab.client(),
        lab.client_addresses(),
        lab.lb_addresses(),
    );
    let backends = lab.backends().iter();
    let backends = backends.map(|be| (&*be.name, &be.namespace, be.addresses, be.gateway));
    for (device, host, addresses, gateway) in std::iter::once(client).chain(backends) {
        veth(lab.lb(), device, host, NIC)?;
        lab.lb().ip(&up(device, &[gateway]))?;
        join(host, addresses, gateway)?;
        wired.passing.push(pass.attach(host, NIC)?);
        wired.lb_devices.push(device.to_owned());
    }
    hold_vips(lab)?;
    Ok(wired)
}

/// Everyone at a bridge in the namespace `lan`, or at one of two.
pub(crate) fn segment(lab: &Lab, lan: &Namespace, wiring: Wiring) -> Result<Wired> {
    prepare(lab)?;
    let nics: &[&str] = match wiring {
        Wiring::PairBetween => &[LAN, BACK],
        _ => &[LAN],
    };
    let bridge_of = |nic: &str| if nic == LAN { BRIDGE } else { BACK };
    for nic in nics {
        let bridge = bridge_of(nic);
        lan.ip(&format!(
            "link add {bridge} type bridge\nlink set {bridge} up\n"
        ))?;
    }
    let port = |bridge: &str, host: &Namespace, nic: &str, name: &str| {
        veth(lan, name, host, nic)?;
        lan.ip(&format!(
            "link set {name} master {bridge}\nlink set {name} up\n"
        ))
    };
    let pass = Pass::load()?;
    let mut passing = Vec::new();
    for balancer in lab.balancers() {
        for &nic in nics {
            let name = match nic {
                BACK => format!("{}-{BACK}", balancer.name),
                _ => balancer.name.clone(),
            };
            port(bridge_of(nic), &balancer.namespace, nic, &name)?;
            // All backends are in one subnet.
            let mut addresses = vec![balancer.addresses, balancer.backend_addresses];
            addresses.dedup();
            let addresses = match (nic, nics.len()) {
                (_, 1) => &addresses[..],
                (BACK, _) => &addresses[1..],
                _ => &addresses[..1],
            };
            balancer.namespace.ip(&up(nic, addresses))?;
            // As a NIC's filter would: XDP on a veth sees what is for others too, while the bridge
            // does not know where they are. One alone must be found before it has spoken.
            if lab.balancers().len() > 1 {
                lan.ip(&format!("link set {name} type bridge_slave flood off\n"))?;
            }
            passing.push(pass.attach(lan, &name)?);
        }
    }
    match lab.router() {
        Some(router) => {
            port(BRIDGE, router, LAN, "router")?;
            router.ip(&up(LAN, &[lab.router_addresses()]))?;
            whole_checksums(router, LAN)?;
            veth(router, CLIENT, lab.client(), NIC)?;
            router.ip(&up(CLIENT, &[lab.lb_addresses()]))?;
            for balancer in lab.balancers() {
                balancer
                    .namespace
                    .ip(&default_route(lab.router_addresses()))?;
            }
        }
        None => port(BRIDGE, lab.client(), NIC, "client")?,
    }
    join(lab.client(), lab.client_addresses(), lab.lb_addresses())?;
    if wiring.is_pair() {
        let Pair { v4, v6 } = Pair::vip(0);
        let lines = format!("route add {v4}/24 dev {NIC}\nroute add {v6}/64 dev {NIC}\n");
        lab.client().ip(&lines)?;
    }
    let last = bridge_of(nics[nics.len() - 1]);
    for backend in lab.backends() {
        port(last, &backend.namespace, NIC, &backend.name)?;
        join(&backend.namespace, backend.addresses, backend.gateway)?;
    }
    hold_vips(lab)?;
    for backend in lab.backends() {
        answer_directly(lab, backend)?;
    }
    Ok(Wired {
        lb_devices: nics.iter().map(|nic| (*nic).to_owned()).collect(),
        passing,
    })
}

/// What must be set before there are devices, which take it over.
fn prepare(lab: &Lab) -> Result<()> {
    // A path may lead through the balancer in one direction only; nobody is to learn a shorter
    // one; and duplicate address detection would make everyone wait.
    const EVERYWHERE: &[(&str, &str)] = &[
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv6/conf/all/accept_redirects", "0"),
        ("net/ipv6/conf/default/accept_redirects", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ];
    const FORWARD: &[(&str, &str)] = &[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/forwarding", "1"),
    ];
    // A router with several ways chooses by addresses and ports, not by addresses alone.
    const BY_FLOW: &[(&str, &str)] = &[
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
    ];
    // Load opens many connections to one address.
    const OPENS_MANY: &[(&str, &str)] = &[
        ("net/ipv4/ip_local_port_range", "1024 65535"),
        ("net/ipv4/tcp_tw_reuse", "1"),
    ];
    // A VIP on lo is not to be told to the neighbours.
    const BACKEND: &[(&str, &str)] = &[
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
    ];
    let backends = lab.backends().iter().map(|backend| &backend.namespace);
    let balancers = lab.balancers().iter().map(|balancer| &balancer.namespace);
    let both = balancers
        .clone()
        .chain(backends.clone())
        .chain(lab.router());
    for host in std::iter::once(lab.client()).chain(both) {
        host.sysctl(EVERYWHERE)?;
        host.ip("link set lo up\n")?;
    }
    balancers
        .into_iter()
        .try_for_each(|host| host.sysctl(FORWARD))?;
    if let Some(router) = lab.router() {
        router.sysctl(FORWARD)?;
        router.sysctl(BY_FLOW)?;
    }
    lab.client().sysctl(OPENS_MANY)?;
    backends
        .into_iter()
        .try_for_each(|host| host.sysctl(BACKEND))
}

fn veth(a: &Namespace, a_device: &str, b: &Namespace, b_device: &str) -> Result<()> {
    a.ip(&format!(
        "link add {a_device} type veth peer name {b_device} netns {}\n",
        b.name()
    ))
}

/// Lines for `ip` that give a device addresses and start it.
fn up(device: &str, addresses: &[Pair]) -> String {
    let mut lines = String::new();
    for Pair { v4, v6 } in addresses {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "addr add {v4}/24 dev {device}");
        let _ = writeln!(lines, "addr add {v6}/64 dev {device} nodad");
    }
    lines + &format!("link set {device} up\n")
}

/// Starts the NIC of the client or of a backend, with the balancer as its default route.
fn join(host: &Namespace, addresses: Pair, gateway: Pair) -> Result<()> {
    host.ip(&(up(NIC, &[addresses]) + &default_route(gateway)))?;
    whole_checksums(host, NIC)
}

fn default_route(Pair { v4, v6 }: Pair) -> String {
    format!("route add 0.0.0.0/0 via {v4}\nroute add ::/0 via {v6}\n")
}

/// XDP sends frames on without their unfinished checksums, so the sender finishes them.
fn whole_checksums(host: &Namespace, nic: &str) -> Result<()> {
    run(host
        .command("ethtool")
        .args(["-K", nic, "tx", "off", "gro", "on"]))
}

fn hold_vips(lab: &Lab) -> Result<()> {
    for backend in lab.backends() {
        for Pair { v4, v6 } in &backend.vips {
            let lines = format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n");
            backend.namespace.ip(&lines)?;
        }
    }
    Ok(())
}

/// What the backend sends from a VIP does not go by way of the balancer. What it sends from
/// its own address does: NAT undoes its rewriting there.
fn answer_directly(lab: &Lab, backend: &Backend) -> Result<()> {
    if backend.vips.is_empty() {
        return Ok(());
    }
    let Pair { v4, v6 } = Pair::new(CLIENT_SUBNET, 0);
    let via = lab.router().map(|_| lab.router_addresses().both());
    let via = via.map_or_else(Default::default, |both| both.map(|at| format!("via {at} ")));
    backend.namespace.ip(&format!(
        "route add {v4}/24 {}dev {NIC} table {FROM_VIP}\nroute add {v6}/64 {}dev {NIC} table {FROM_VIP}\n",
        via[0], via[1]
    ))?;
    for vip in &backend.vips {
        for address in vip.both() {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            run(backend.namespace.command("ip").args([
                family,
                "rule",
                "add",
                "from",
                &address.to_string(),
                "lookup",
                FROM_VIP,
            ]))?;
        }
    }
    Ok(())
}
