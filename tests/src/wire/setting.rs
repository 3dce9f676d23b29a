//! The network that packets are fed into, and what is configured on it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{Lab, Plan};
use lb_userspace::{
    dataplane::{Attach, DataPlane, Interface, Limits, Options},
    desired::{
        Algorithm, Condition, DesiredBackend, DesiredPool, DesiredService, Mode, OnDeath, OnEmpty,
        Protocol, Tracking,
    },
};

use super::{
    hosts::{
        CLIENT_MAC, FAMILIES, LB_BACKEND_MAC, LB_CLIENT_MAC, Mac, OUTSIDE, ROUTED, UNREACHABLE,
        backend,
    },
    maps::Backends,
};

/// The secret of the flow hash.
pub const HASH_KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211];

/// Room enough for nearly everything.
pub const LIMITS: Limits = Limits {
    services: 64,
    backends: 1024,
    flows: 1 << 12,
    translations: 1 << 12,
};

/// How long the resolver may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Weir's place with the NICs `client` and `be1`, clients from everywhere behind a router at the
/// first and backends on the link of the second; and a NIC `be2` that Weir is not given.
///
/// # Errors
///
/// See [`Lab::new`].
pub fn lab() -> Result<Lab> {
    let lab = Lab::new(&Plan {
        backends: 2,
        ..Plan::default()
    })?;
    let router = lab.client_addresses();
    let mut lines = vec![
        set_mac("client", LB_CLIENT_MAC),
        set_mac("be1", LB_BACKEND_MAC),
        format!("route add 10.0.0.0/8 via {}", router.v4),
        format!("route add 2001:db8:c::/48 via {}", router.v6),
        "route add 172.16.0.0/16 dev be1".to_owned(),
        "route add 2001:db8:b::/48 dev be1".to_owned(),
        "route add 172.18.0.0/16 dev be2".to_owned(),
        "route add 2001:db8:f::/48 dev be2".to_owned(),
    ];
    lines.extend(
        router
            .both()
            .map(|address| neighbour(address, CLIENT_MAC, "client")),
    );
    for family in FAMILIES {
        for number in 1..=4 {
            let host = backend(number);
            lines.push(neighbour(host.address(family), host.mac(), "be1"));
        }
        let (behind, gateway) = (ROUTED.address(family), backend(1).address(family));
        lines.push(format!("route add {behind} via {gateway}"));
        let nobody = UNREACHABLE.address(family);
        lines.push(format!("route add unreachable {nobody}"));
        lines.push(neighbour(OUTSIDE.address(family), OUTSIDE.mac(), "be2"));
    }
    for line in lines {
        let status = lab.lb().command("ip").args(line.split(' ')).status()?;
        ensure!(status.success(), "ip {line}: {status}");
    }
    Ok(lab)
}

fn set_mac(device: &str, mac: Mac) -> String {
    format!("link set dev {device} address {}", colons(mac))
}

fn neighbour(address: std::net::IpAddr, mac: Mac, device: &str) -> String {
    let mac = colons(mac);
    format!("neigh replace {address} lladdr {mac} dev {device} nud permanent")
}

fn colons(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Loads the data path in this thread's namespace, a lab's place for Weir, and attaches it.
///
/// # Errors
///
/// The kernel's.
pub fn load(limits: Limits, tell_peers: bool) -> Result<DataPlane> {
    let mut dataplane = DataPlane::load(&Options {
        interfaces: ["client", "be1"]
            .map(|name| Interface {
                name: name.to_owned(),
                attach: Attach::Native,
            })
            .into(),
        hash_key: HASH_KEY,
        limits,
        pin: None,
        tell_peers,
    })?;
    dataplane.attach()?;
    Ok(dataplane)
}

/// Waits until the agent's resolver has found the way to this many backends.
///
/// # Errors
///
/// It has not in time.
pub fn resolved(dataplane: &DataPlane, backends: usize) -> Result<()> {
    let table = Backends::open(dataplane)?;
    let limit = Instant::now() + PATIENCE;
    loop {
        let entries = table.all()?;
        let there = entries.iter().filter(|entry| entry.family != 0);
        let found = there
            .filter(|entry| entry.next_hop.destination != 0)
            .count();
        if found >= backends {
            return Ok(());
        }
        ensure!(
            Instant::now() < limit,
            "{found} of {backends} have a next hop"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A service as it is where nothing is said.
pub fn service(vip: SocketAddr, protocol: Protocol, mode: Mode, pool: &str) -> DesiredService {
    DesiredService {
        address: vip.ip(),
        port: vip.port(),
        protocol,
        mode,
        pool: pool.to_owned(),
        other_pools: Vec::new(),
        idle_timeout: Duration::from_secs(3600),
        algorithm: Algorithm::Maglev,
        affinity: None,
        tracking: Tracking::Hash,
        on_death: OnDeath::Reset,
        on_empty: OnEmpty::Reset,
    }
}

/// A backend in use.
pub fn member(at: SocketAddr) -> DesiredBackend {
    DesiredBackend {
        address: at.ip(),
        port: at.port(),
        weight: 100,
        condition: Condition::InUse,
    }
}

/// A pool's backends, in use, by their place in the list: `0`, `1` and so on.
pub fn backends(at: &[SocketAddr]) -> Arc<DesiredPool> {
    let numbered = at.iter().enumerate();
    let named = numbered.map(|(number, &at)| (number.to_string(), member(at)));
    Arc::new(named.collect())
}
