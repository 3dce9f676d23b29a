//! What would become of a client's packet, and why: answered from the live maps.

use std::net::SocketAddr;

use lb_common::{
    abi::{Flow, NatForward, mode},
    selection::{Owner, is_live, owner},
};
use serde::{Deserialize, Serialize};

use super::{
    address::{flow_key, protocol_number, service_key},
    apply::Applied,
    batch, clock,
    janitor::Janitor,
    loader::Maps,
};
use crate::desired::Protocol;

/// A packet's flow, as its client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// The address and port that it speaks to.
    pub vip: SocketAddr,
}

/// What would become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The service; absent: no service has that address, protocol and port, so the packet is
    /// the kernel's.
    pub service: Option<String>,
    /// Slots of its ring.
    pub slots: usize,
    /// The flow's slot.
    pub slot: Option<usize>,
    /// The slot's owner before the last change that has not settled yet.
    pub base: Option<String>,
    /// The slot's owner of new flows.
    pub current: Option<String>,
    /// Whether flows of the slot are remembered.
    pub tracked: bool,
    /// The remembered flow's backend, if it is remembered.
    pub remembered: Option<String>,
    /// Where a packet of a connection that is open goes; absent: nowhere.
    pub backend: Option<String>,
    /// Where a packet that opens a connection goes; absent where that is not known before.
    pub new_flows: Option<String>,
    /// Why, in words.
    pub why: String,
}

/// Answers from the maps.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn explain(
    applied: &Applied,
    maps: &Maps,
    janitor: &Janitor,
    question: &Question,
) -> anyhow::Result<Explanation> {
    let Question {
        protocol,
        client,
        vip,
    } = *question;
    let key = service_key(vip.ip(), vip.port(), protocol);
    let Some((name, found)) = applied.services.find(&key) else {
        return Ok(Explanation {
            why: format!("no service is {protocol} {vip}: the packet is the kernel's"),
            ..Explanation::default()
        });
    };
    let service = maps.services.read(found.index);
    let flow = flow_key(client, vip, protocol_number(protocol));
    let hash = janitor.hash_key.of(&flow, service.hashed_ports);
    let named = |id: u32| {
        applied
            .backends
            .find(id)
            .map(|key| format!("{}/{}", key.pool, key.name))
    };
    let mut explanation = Explanation {
        service: Some(name.to_owned()),
        ..Explanation::default()
    };
    let Some(ring) = applied.rings.get(name) else {
        explanation.why = "the service has no ring: its pool is empty".into();
        return Ok(explanation);
    };
    let (index, slot) = ring.slot_of(hash);
    explanation.slots = ring.counts().0;
    explanation.slot = Some(index);
    explanation.base = named(slot.base());
    explanation.current = named(slot.current());
    explanation.tracked = slot.track();
    if service.affinity_ticks == 0 && service.algorithm == lb_common::abi::algorithm::HASH {
        explanation.new_flows = named(slot.current());
    }
    if service.mode == mode::FULL_NAT {
        let known: Option<NatForward> = batch::lookup(janitor.nat_forward.fd(), &flow)?;
        explanation.remembered = known.and_then(|flow| named(flow.backend));
        let dead = known.is_some_and(|flow| applied.backends.is_dead(flow.backend));
        explanation.backend = explanation.remembered.clone().filter(|_| !dead);
        explanation.why = match (known, dead) {
            (Some(_), false) => "full-nat remembers every flow, and this one",
            (Some(_), true) => "the flow is remembered; but its backend is dead",
            (None, _) => {
                "full-nat remembers every flow, but not this one: only a new one is let in"
            }
        }
        .into();
        return Ok(explanation);
    }
    let known: Option<Flow> = match slot.track() {
        true => batch::lookup(janitor.flows.fd(), &flow)?,
        false => None,
    };
    let now = clock::tick()?;
    let known = known.filter(|flow| is_live(flow, &service, found.index, now));
    // Until all must have spoken after a change of the hash, the old one finds it.
    let old = || ring.slot_of(janitor.hash_key.of(&flow, service.base_hashed_ports));
    let known = known.map(|flow| flow.backend);
    let (backend, why) = match owner(flow.protocol, slot, known, || old().1.base()) {
        Owner::Slot(id) => (id, "the slot is stable: its owner has all its flows"),
        Owner::Remembered(id) => (id, "the flow is remembered, and goes where it went"),
        Owner::Nobody => {
            explanation.backend = explanation.new_flows.clone();
            explanation.why = "the flow is not remembered: it is a new one".into();
            return Ok(explanation);
        }
        Owner::Base(id) => (
            id,
            "the slot is tracked and the flow is not remembered: it belongs to the slot's base",
        ),
    };
    explanation.remembered = known.and_then(named);
    explanation.backend = named(backend).filter(|_| !applied.backends.is_dead(backend));
    explanation.why = match (backend, applied.backends.is_dead(backend)) {
        (0, _) => "no backend is left".into(),
        (_, true) => format!("{why}; but that backend is dead"),
        (_, false) => why.into(),
    };
    Ok(explanation)
}
