//! The network and the services that are measured.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::{
    dataplane::DataPlane,
    desired::{Algorithm, Desired, DesiredService, Mode, Protocol},
};
use weir_tests::wire::{FAMILIES, backend, backends, load, resolved, service, source, vip};

use super::feeder::Feeder;

/// The VIPs' port.
pub(crate) const VIP_PORT: u16 = 80;
/// The backend's port, but for `dsr`.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// First source port of `full-nat`.
pub(crate) const FIRST_PORT: u16 = 1024;
/// Source addresses of `full-nat`: a power of two.
pub(crate) const SOURCES: u8 = 64;

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

const SERVICES: [(&str, Mode, Algorithm); 4] = [
    ("dsr", Mode::Dsr, Algorithm::Maglev),
    ("nat", Mode::Nat, Algorithm::Maglev),
    ("full-nat", Mode::FullNat, Algorithm::Maglev),
    ("least-connections", Mode::Dsr, Algorithm::LeastConnections),
];

impl Scene {
    /// Loads the data path in this thread's namespace, as the agent does.
    pub(crate) fn new() -> Result<Self> {
        let cpus =
            aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        let cpus = cpus as u32;
        ensure!(
            cpus.is_power_of_two() && cpus <= SOURCES.into(),
            "the benchmark knows how ports are shared among a power of two of CPUs, not {cpus}"
        );
        let mut dataplane = load(4 << 20)?;
        let mut desired = Desired {
            source_ports: (FIRST_PORT, u16::MAX),
            ..Desired::default()
        };
        let mut services = BTreeMap::new();
        for family in FAMILIES {
            for ((name, mode, algorithm), number) in SERVICES.into_iter().zip(1..) {
                let key = format!("{name}-{family}");
                let port = match mode {
                    Mode::Dsr => VIP_PORT,
                    _ => BACKEND_PORT,
                };
                let (vip, backend) = (vip(number), backend(number).at(family, port));
                let service = DesiredService {
                    algorithm,
                    ..service(vip.at(family, VIP_PORT), Protocol::Tcp, mode, &key)
                };
                desired.pools.insert(key.clone(), backends(&[backend]));
                desired.services.insert(key, service);
                let (vip, backend) = (vip.address(family), backend.ip());
                services.insert((name, family), Service { vip, backend });
            }
            let sources = (0..SOURCES).map(|number| source(number).address(family));
            desired.source_addresses.extend(sources);
        }
        dataplane.apply(&desired)?;
        resolved(&dataplane, services.len())?;
        let index = |name: &str| nix::net::if_::if_nametoindex(name).context("a device of the lab");
        Ok(Self {
            dataplane,
            services,
            client_side: index("client")?,
            backend_side: index("be1")?,
            cpu: nix::sched::sched_getcpu()? as u32,
            cpus,
            sources: FAMILIES
                .map(|family| (family, source(0).address(family)))
                .into(),
        })
    }

    /// What feeds the program under test.
    pub(crate) fn feeder(&self) -> Result<Feeder> {
        Feeder::new(self)
    }
}
