//! The network that frames go through: clients behind a router, the balancer with a NIC on
//! either side, and sixteen backends on its link.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use frames::{End, Generator, Sources, Template};
use lab::{Lab, Plan};

use crate::pinned::run;

/// Backends, at one NIC's other end.
pub(crate) const BACKENDS: u8 = 16;
/// First client.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// Few flows, over and over.
pub(crate) const STEADY: Sources = Sources {
    addresses: 64,
    ports: 16,
};
/// More flows than are ever sent in a run: every frame is another's.
pub(crate) const NEW: Sources = Sources {
    addresses: 1 << 14,
    ports: 1 << 14,
};

pub(crate) fn lab() -> Result<Lab> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    // Its frames come as XDP sent them, so the NIC needs NAPI, which GRO brings.
    run(lab.lb(), "ethtool -K client gro on")?;
    run(lab.lb(), "ip route add 172.16.0.0/16 dev be1")?;
    for number in 1..=BACKENDS {
        let neighbour = format!(
            "ip neigh replace {} lladdr 02:00:00:00:01:{number:02x} dev be1 nud permanent",
            backend(number)
        );
        run(lab.lb(), &neighbour)?;
    }
    Ok(lab)
}

pub(crate) fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, number)
}

/// A generator at the client, towards a VIP.
pub(crate) fn generator(lab: &Lab, vip: SocketAddr, sources: Sources) -> Result<Generator> {
    let source = End {
        mac: frames::mac(lab.client(), "eth0")?,
        address: (CLIENTS, 32_768).into(),
    };
    let destination = End {
        mac: frames::mac(lab.lb(), "client")?,
        address: vip,
    };
    let template = Template::udp(source, destination)?;
    Generator::new(lab.client(), "eth0", template, sources)
}
