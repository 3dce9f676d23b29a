//! A service of every kind.

use std::net::SocketAddr;

use anyhow::Result;
use lb_common::abi::{Backend, NextHop};
use lb_userspace::desired::{Desired, Mode, Protocol};
use weir_tests::wire::{
    CLIENT, CLIENT_MAC, FAMILIES, LB_BACKEND_MAC, LB_CLIENT_MAC, Mac, Map, Packet, SOURCE, VIP,
    World, backend, backends, service, tcp, udp,
};

/// The client's port.
pub(crate) const CLIENT_PORT: u16 = 40_000;
/// The only source port of `full-nat`: one flow at a time to each backend's endpoint.
pub(crate) const SOURCE_PORT: u16 = 61_000;

/// A change of a plain packet.
pub(crate) type Shape = fn(Packet) -> Packet;

/// A kind of service, and the packets between its client and its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) mode: Mode,
    pub(crate) protocol: Protocol,
    pub(crate) family: u8,
}

/// Every mode with every protocol and family.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    let of_mode = |mode| {
        [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .flat_map(move |protocol| {
                FAMILIES.map(|family| Kind {
                    mode,
                    protocol,
                    family,
                })
            })
    };
    [Mode::Nat, Mode::FullNat, Mode::Dsr]
        .into_iter()
        .flat_map(of_mode)
}

/// A service of each kind with one backend of its own.
pub(crate) fn everything() -> Desired {
    let mut desired = empty();
    for kind in kinds() {
        kind.add(&mut desired, &[kind.backend()]);
    }
    desired
}

/// No service yet.
pub(crate) fn empty() -> Desired {
    Desired {
        source_addresses: FAMILIES.map(|family| SOURCE.address(family)).into(),
        source_ports: (SOURCE_PORT, SOURCE_PORT),
        ..Desired::default()
    }
}

/// The only service of a configuration, with these numbers of backends.
pub(crate) fn alone(kind: Kind, numbers: &[u8]) -> Desired {
    several([kind], numbers)
}

/// A service of each of these kinds, with these numbers of backends.
pub(crate) fn several(kinds: impl IntoIterator<Item = Kind>, numbers: &[u8]) -> Desired {
    let mut desired = empty();
    for kind in kinds {
        let at = numbers.iter().map(|&number| kind.numbered(number));
        kind.add(&mut desired, &at.collect::<Vec<_>>());
    }
    desired
}

impl Kind {
    pub(crate) fn new(mode: Mode, protocol: Protocol, family: u8) -> Self {
        Self {
            mode,
            protocol,
            family,
        }
    }

    /// The name of its service and of that's pool.
    pub(crate) fn name(self) -> String {
        format!("{}-{}-{}", self.mode, self.protocol, self.family)
    }

    /// Adds its service, with backends at these places.
    pub(crate) fn add(self, desired: &mut Desired, at: &[SocketAddr]) {
        let name = self.name();
        let service = service(self.vip(), self.protocol, self.mode, &name);
        desired.services.insert(name.clone(), service);
        desired.pools.insert(name, backends(at));
    }

    fn number(self) -> u8 {
        match self.mode {
            Mode::Nat => 1,
            Mode::FullNat => 2,
            _ => 3,
        }
    }

    pub(crate) fn client(self) -> SocketAddr {
        CLIENT.at(self.family, CLIENT_PORT)
    }

    pub(crate) fn vip(self) -> SocketAddr {
        VIP.at(self.family, 80 + u16::from(self.number()))
    }

    /// The Ethernet address of its service's first backend.
    pub(crate) fn backend_mac(self) -> Mac {
        backend(self.number()).mac()
    }

    /// Its service's first backend.
    pub(crate) fn backend(self) -> SocketAddr {
        self.numbered(self.number())
    }

    /// Where a backend of its listens.
    pub(crate) fn numbered(self, number: u8) -> SocketAddr {
        let port = match self.mode {
            Mode::Dsr => self.vip().port(),
            _ => 8080,
        };
        backend(number).at(self.family, port)
    }

    /// What the backend sees as the client.
    pub(crate) fn source(self) -> SocketAddr {
        match self.mode {
            Mode::FullNat => SOURCE.at(self.family, SOURCE_PORT),
            _ => self.client(),
        }
    }

    /// A packet of its protocol.
    pub(crate) fn packet(self, from: SocketAddr, to: SocketAddr) -> Packet {
        match self.protocol {
            Protocol::Tcp => tcp(from, to),
            Protocol::Udp => udp(from, to),
        }
    }

    /// From the client.
    pub(crate) fn request(self) -> Packet {
        self.packet(self.client(), self.vip())
    }

    /// What a request becomes.
    pub(crate) fn forwarded(self, request: Packet) -> Packet {
        self.forwarded_to(self.number(), request)
    }

    /// What a request to another backend of its becomes.
    pub(crate) fn forwarded_to(self, number: u8, request: Packet) -> Packet {
        let request = request.macs(LB_BACKEND_MAC, backend(number).mac());
        let (client, ttl) = (request.source, request.ttl);
        match self.mode {
            Mode::Nat => request.between(client, self.numbered(number)).ttl(ttl - 1),
            Mode::FullNat => request
                .between(self.source(), self.numbered(number))
                .ttl(ttl - 1),
            _ => request,
        }
    }

    /// From the backend.
    pub(crate) fn answer(self) -> Packet {
        self.packet(self.backend(), self.source())
            .macs(backend(self.number()).mac(), LB_BACKEND_MAC)
    }

    /// What an answer becomes.
    pub(crate) fn answered(self, answer: Packet) -> Packet {
        let ttl = answer.ttl;
        answer
            .macs(LB_CLIENT_MAC, CLIENT_MAC)
            .between(self.vip(), self.client())
            .ttl(ttl - 1)
    }
}

/// Takes the agent's next hops away: packets ask the kernel.
pub(crate) fn forget_next_hops(world: &World) -> Result<()> {
    change_next_hops(world, |hop| *hop = NextHop::default())
}

/// Writes other next hops than the agent did.
pub(crate) fn change_next_hops(world: &World, change: impl Fn(&mut NextHop)) -> Result<()> {
    let mut map = Map::open(&world.dataplane, "BACKENDS")?;
    for (id, mut backend) in (0..).zip(map.values::<Backend>()?) {
        if backend.family != 0 {
            change(&mut backend.next_hop);
            map.set(id, backend)?;
        }
    }
    Ok(())
}
