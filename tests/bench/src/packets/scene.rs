//! The network and the services that are measured.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Plan};
use lb_userspace::{
    dataplane::{Attach, DataPlane, Interface, Limits, Options},
    desired::{
        Algorithm, Condition, Desired, DesiredBackend, DesiredService, Mode, OnDeath, OnEmpty,
        Protocol, Tracking,
    },
};

use super::feeder::Feeder;

/// The VIPs' port.
pub(crate) const VIP_PORT: u16 = 80;
/// The backend's port, but for `dsr`.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// First source port of `full-nat`.
pub(crate) const FIRST_PORT: u16 = 1024;
/// Source addresses of `full-nat`: a power of two.
pub(crate) const SOURCES: u32 = 64;

/// A service under test.
pub(crate) struct Service {
    pub(crate) vip: IpAddr,
    pub(crate) backend: IpAddr,
}

/// The data path, and what is on it.
pub(crate) struct Scene {
    pub(crate) dataplane: DataPlane,
    /// By mode and family.
    pub(crate) services: BTreeMap<(&'static str, u8), Service>,
    /// Where clients' packets come in, and where backends' do.
    pub(crate) client_side: u32,
    pub(crate) backend_side: u32,
    /// First source address by family.
    pub(crate) sources: BTreeMap<u8, IpAddr>,
    /// The CPU that runs the program, and the number of CPUs.
    pub(crate) cpu: u32,
    pub(crate) cpus: u32,
}

/// A client and a backend, and Weir between them.
pub(crate) fn lab() -> Result<Lab> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    // Clients from everywhere, behind a router; backends on their link.
    let client = lab.client_addresses();
    let run = |arguments: String| -> Result<()> {
        let status = lab.lb().command("ip").args(arguments.split(' ')).status()?;
        ensure!(status.success(), "ip {arguments}: {status}");
        Ok(())
    };
    run(format!("route add 10.0.0.0/8 via {}", client.v4))?;
    run(format!("route add 2001:db8:c::/48 via {}", client.v6))?;
    run("route add 172.16.0.0/16 dev be1".into())?;
    run("route add 2001:db8:b::/48 dev be1".into())?;
    for address in client.both() {
        run(format!(
            "neigh replace {address} lladdr 02:00:00:00:00:01 dev client nud permanent"
        ))?;
    }
    for number in 1..=4 {
        for address in [backend(4, number), backend(6, number)] {
            run(format!(
                "neigh replace {address} lladdr 02:00:00:00:00:02 dev be1 nud permanent"
            ))?;
        }
    }
    Ok(lab)
}

fn backend(family: u8, number: u8) -> IpAddr {
    match family {
        4 => Ipv4Addr::new(172, 16, 0, number).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, number.into()).into(),
    }
}

fn vip(family: u8, number: u8) -> IpAddr {
    match family {
        4 => Ipv4Addr::new(203, 0, 113, number).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, number.into()).into(),
    }
}

fn source(family: u8, number: u32) -> IpAddr {
    match family {
        4 => Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + number).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, number as u16).into(),
    }
}

const SERVICES: [(&str, Mode, Algorithm); 4] = [
    ("dsr", Mode::Dsr, Algorithm::Maglev),
    ("nat", Mode::Nat, Algorithm::Maglev),
    ("full-nat", Mode::FullNat, Algorithm::Maglev),
    ("least-connections", Mode::Dsr, Algorithm::LeastConnections),
];

impl Scene {
    /// Loads the data path in this thread's namespace, as the agent does.
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let interfaces = lab.lb_devices().iter().map(|name| Interface {
            name: name.clone(),
            attach: Attach::Native,
        });
        let options = Options {
            interfaces: interfaces.collect(),
            hash_key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211],
            limits: Limits {
                services: 64,
                backends: 64,
                flows: 4 << 20,
            },
        };
        let cpus =
            aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        let cpus = cpus as u32;
        ensure!(
            cpus.is_power_of_two() && cpus <= SOURCES,
            "the benchmark knows how ports are shared among a power of two of CPUs, not {cpus}"
        );
        let mut dataplane = DataPlane::load(&options)?;
        let mut desired = Desired {
            source_ports: (FIRST_PORT, u16::MAX),
            ..Desired::default()
        };
        let mut services = BTreeMap::new();
        for family in [4, 6] {
            for ((name, mode, algorithm), number) in SERVICES.into_iter().zip(1..) {
                let key = format!("{name}-{family}");
                let (vip, backend) = (vip(family, number), backend(family, number));
                let service = DesiredService {
                    address: vip,
                    port: VIP_PORT,
                    protocol: Protocol::Tcp,
                    mode,
                    pool: key.clone(),
                    other_pools: Vec::new(),
                    idle_timeout: Duration::from_secs(3600),
                    algorithm,
                    affinity: None,
                    tracking: Tracking::Hash,
                    on_death: OnDeath::Reset,
                    on_empty: OnEmpty::Reset,
                };
                let member = DesiredBackend {
                    address: backend,
                    port: if mode == Mode::Dsr {
                        VIP_PORT
                    } else {
                        BACKEND_PORT
                    },
                    weight: 100,
                    condition: Condition::InUse,
                };
                let members = BTreeMap::from([("one".to_owned(), member)]);
                desired.pools.insert(key.clone(), members);
                desired.services.insert(key, service);
                services.insert((name, family), Service { vip, backend });
            }
            desired
                .source_addresses
                .extend((0..SOURCES).map(|number| source(family, number)));
        }
        dataplane.apply(&desired)?;
        // The resolver's answers, and the second writing of the backends.
        std::thread::sleep(Duration::from_secs(2));
        let index = |name: &str| nix::net::if_::if_nametoindex(name).context("a device of the lab");
        Ok(Self {
            dataplane,
            services,
            client_side: index("client")?,
            backend_side: index("be1")?,
            cpu: nix::sched::sched_getcpu()? as u32,
            cpus,
            sources: BTreeMap::from([(4, source(4, 0)), (6, source(6, 0))]),
        })
    }

    /// What feeds the program under test.
    pub(crate) fn feeder(&self) -> Result<Feeder> {
        Feeder::new(self)
    }
}
