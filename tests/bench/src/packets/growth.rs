//! What a packet costs by the number of services and of backends that there are.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
};

use anyhow::{Result, ensure};
use lab::Lab;
use lb_common::abi::bench::Feed;
use lb_userspace::{
    dataplane::{DataPlane, Limits},
    desired::{Desired, DesiredService, Mode, Protocol},
};
use weir_tests::wire::{backend, backends, load, resolved, service};

use super::{
    cases::{Case, client, floors_of},
    feed::{End, Flags, feed},
    feeder::{Feeder, Target},
};

/// Flows of each case.
pub(crate) const FLOWS: u32 = 1 << 16;
const LOG2_FLOWS: u32 = FLOWS.trailing_zeros();
/// Services that there are, and how many of them packets are for.
const SERVICES: u32 = 4096;
const SERVED: [u32; 4] = [1, 16, 256, SERVICES];
/// Backends that a service has.
const OF_ONE: [u32; 4] = [1, 100, 1000, 10_000];
/// Backends of all services, in the scene where there are as many as there may be.
const MOST: u32 = 100_000;
const VIP_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

/// A data path that is full in one way.
pub(crate) struct Scene {
    dataplane: DataPlane,
    ingress: u32,
    cases: Vec<(String, Range<u32>)>,
}

/// Every service has one backend.
pub(crate) fn services() -> Result<Scene> {
    let all = (0..SERVICES).map(|_| 1);
    let served = SERVED.map(|served| (format!("{served} of {SERVICES} services"), 0..served));
    Scene::new(all.collect(), served.into())
}

/// Services of ever more backends, and as many of both as there may be.
pub(crate) fn backends_of_services() -> Result<Scene> {
    let others = SERVICES - OF_ONE.len() as u32;
    let left = MOST - OF_ONE.iter().sum::<u32>();
    let others_have = (0..others).map(|number| {
        let up_to = |number: u32| u64::from(number) * u64::from(left) / u64::from(others);
        (up_to(number + 1) - up_to(number)) as u32
    });
    let all = OF_ONE.into_iter().chain(others_have).collect();
    let one = (0..).zip(OF_ONE);
    let one = one.map(|(number, count)| (format!("a service of {count}"), number..number + 1));
    let many = (format!("all {SERVICES}, with {MOST}"), 0..SERVICES);
    Scene::new(all, one.chain([many]).collect())
}

impl Scene {
    /// Services with so many backends each, and the names of what is measured with those that
    /// packets are for.
    fn new(services: Vec<u32>, cases: Vec<(String, Range<u32>)>) -> Result<Self> {
        let members: u32 = services.iter().sum();
        let limits = Limits {
            services: SERVICES,
            backends: members,
            flows: 1 << 16,
            translations: 0,
        };
        let mut dataplane = load(limits, false)?;
        let mut desired = Desired::default();
        let mut first = 0;
        for (number, count) in (0..).zip(services) {
            let name = number.to_string();
            let pool: Vec<_> = (first..first + count).map(member).collect();
            first += count;
            let vip = SocketAddr::new(vip(number), VIP_PORT);
            let service: DesiredService = service(vip, Protocol::Tcp, Mode::Nat, &name);
            desired.pools.insert(name.clone(), backends(&pool));
            desired.services.insert(name, service);
        }
        dataplane.apply(&desired)?;
        resolved(&dataplane, members as usize)?;
        let ingress = nix::net::if_::if_nametoindex("client")?;
        Ok(Self {
            dataplane,
            ingress,
            cases,
        })
    }

    /// What feeds it.
    pub(crate) fn feeder(&self) -> Result<Feeder> {
        Feeder::new(&self.dataplane)
    }

    /// The cases, and their floors.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let floors = floors_of(self.packets(&(0..1)), FLOWS, self.ingress);
        let measured = self.cases.iter().map(|(name, served)| {
            let (feed, length) = self.packets(served);
            Case {
                name: name.clone(),
                flows: FLOWS,
                target: Target::Weir,
                ingress: self.ingress,
                feed,
                length,
                opening: None,
            }
        });
        floors.into_iter().chain(measured).collect()
    }

    /// Of many clients of one service, or of one client of many.
    fn packets(&self, served: &Range<u32>) -> (Feed, usize) {
        let ends = ((client(4), 1024), (vip(served.start), VIP_PORT));
        let (address, low_bits) = match served.len() as u32 {
            1 => (End::Source, 4),
            many => (End::Destination, LOG2_FLOWS - many.trailing_zeros()),
        };
        feed(ends, Flags::Ack, (address, End::Source), FLOWS, low_bits)
    }
}

fn vip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number).into()
}

/// Behind a gateway, so that they need no neighbours.
fn member(number: u32) -> SocketAddr {
    let first = Ipv4Addr::new(172, 24, 0, 1).to_bits();
    SocketAddr::new(Ipv4Addr::from_bits(first + number).into(), BACKEND_PORT)
}

/// The way to the backends, in a lab's place for Weir.
pub(crate) fn route(lab: &Lab) -> Result<()> {
    let gateway = backend(1).address(4).to_string();
    let arguments = ["route", "add", "172.24.0.0/14", "via", &gateway];
    let status = lab.lb().command("ip").args(arguments).status()?;
    ensure!(status.success(), "ip {arguments:?}: {status}");
    Ok(())
}
