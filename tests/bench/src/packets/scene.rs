//! The network and the services that are measured.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::{
    dataplane::{DataPlane, Limits},
    desired::{Algorithm, Desired, DesiredService, Mode, Protocol},
};
use weir_tests::wire::{FAMILIES, LIMITS, backend, backends, load, resolved, service, source, vip};

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
    /// The first of its backends.
    pub(crate) backend: IpAddr,
}

/// Flows of the remembering services that are remembered at most.
pub(crate) const FLOWS: u32 = 4 << 20;

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

/// Name, mode, algorithm and number of backends. A hundred have a ring of 16,384 slots.
const SERVICES: [(&str, Mode, Algorithm, u8); 7] = [
    ("dsr", Mode::Dsr, Algorithm::Maglev, 1),
    ("nat", Mode::Nat, Algorithm::Maglev, 1),
    ("full-nat", Mode::FullNat, Algorithm::Maglev, 1),
    (
        "least-connections",
        Mode::Dsr,
        Algorithm::LeastConnections,
        1,
    ),
    ("dsr-100", Mode::Dsr, Algorithm::Maglev, 100),
    ("nat-100", Mode::Nat, Algorithm::Maglev, 100),
    ("tracked", Mode::Dsr, Algorithm::RoundRobin, 100),
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
        let limits = Limits {
            flows: FLOWS,
            translations: FLOWS,
            ..LIMITS
        };
        let mut dataplane = load(limits, false)?;
        let mut desired = Desired {
            source_ports: (FIRST_PORT, u16::MAX),
            ..Desired::default()
        };
        let mut services = BTreeMap::new();
        let mut members = 0;
        neighbours()?;
        for family in FAMILIES {
            // Each has backends of its own.
            let mut first = 1;
            for ((name, mode, algorithm, count), number) in SERVICES.into_iter().zip(1..) {
                let key = format!("{name}-{family}");
                let port = match mode {
                    Mode::Dsr => VIP_PORT,
                    _ => BACKEND_PORT,
                };
                let vip = vip(number);
                // Those of the large pools differ by their port.
                let port = port + u16::from(count > 1 && mode == Mode::Nat);
                let numbers = if count > 1 {
                    1..count + 1
                } else {
                    first..first + 1
                };
                first += u8::from(count == 1);
                let pool: Vec<_> = numbers
                    .map(|number| backend(number).at(family, port))
                    .collect();
                let backend = pool[0];
                members += pool.len();
                let service = DesiredService {
                    algorithm,
                    ..service(vip.at(family, VIP_PORT), Protocol::Tcp, mode, &key)
                };
                desired.pools.insert(key.clone(), backends(&pool));
                desired.services.insert(key, service);
                let (vip, backend) = (vip.address(family), backend.ip());
                services.insert((name, family), Service { vip, backend });
            }
            let sources = (0..SOURCES).map(|number| source(number).address(family));
            desired.source_addresses.extend(sources);
        }
        dataplane.apply(&desired)?;
        resolved(&dataplane, members)?;
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
        Feeder::new(&self.dataplane)
    }
}

/// Tells the kernel the backends' Ethernet addresses.
fn neighbours() -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut lines = String::new();
    for (number, family) in (1..=100).flat_map(|number| FAMILIES.map(|family| (number, family))) {
        let address = backend(number).address(family);
        lines += &format!(
            "neigh replace {address} lladdr 02:00:00:00:02:{number:02x} dev be1 nud permanent\n"
        );
    }
    let mut input = ip.stdin.take().context("no standard input")?;
    input.write_all(lines.as_bytes())?;
    drop(input);
    ensure!(ip.wait()?.success(), "ip refuses the backends' neighbours");
    Ok(())
}
