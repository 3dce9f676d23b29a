//! Random packets through the pipeline on the host and through the loaded program: the same
//! verdict, the same bytes, the same counters.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use fastrand::Rng;
use lb_common::{
    abi::{Address, IPV4, NextHop, Service, ServiceKey, Settings, mac_word, ring_of},
    answer::answer,
    aside::aside,
    fragment::{lead, remember},
    hash::HashKey,
    icmp::pass_on,
    memory::Memory,
    packet::{TCP, ipv4_address},
    reason::Reason,
    steer::{Verdict, open, steer},
    tables::Route,
};
use lb_userspace::desired::Mode;
use weir_tests::{
    cpu,
    wire::{
        Backends, CLIENT_MAC, FAMILIES, HASH_KEY, IcmpError, LB_BACKEND_MAC, LB_CLIENT_MAC, Map,
        Packet, Rings, Side, World, backend, client, same, tcp, udp, went_out,
    },
};

use crate::scene::{Kind, kinds, several};

const SEED: u64 = 0x0057_6569_7200;
const PACKETS: usize = 30_000;
const CLIENTS: u8 = 4;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What the program does around the pipeline.
fn on_the_host(frame: &mut Vec<u8>, memory: &Memory, ingress: u32) -> u32 {
    let mut verdict = steer(frame, memory);
    // A fragment that opens a flow is handed on most often.
    for _ in 0..4 {
        verdict = match verdict {
            Verdict::Open => open(frame, memory),
            Verdict::Icmp => pass_on(frame, memory),
            Verdict::Aside => aside(frame, memory),
            Verdict::FirstFragment => lead_others(frame, memory),
            _ => break,
        };
    }
    match verdict {
        Verdict::Pass => XDP_PASS,
        Verdict::Send(exit) if exit.ifindex == ingress => XDP_TX,
        Verdict::Send(_) => XDP_REDIRECT,
        Verdict::Answer if answer(frame, memory) => XDP_TX,
        Verdict::Answer | Verdict::Drop(_) => XDP_DROP,
        handed_on => panic!("{handed_on:?} for ever"),
    }
}

fn lead_others(frame: &mut Vec<u8>, memory: &Memory) -> Verdict {
    let verdict = lead(frame, memory);
    if let Verdict::Send(_) = verdict {
        remember(frame, memory);
    }
    verdict
}

/// What the agent wrote into the maps, and the kernel's routes to the clients.
fn memory(world: &World) -> Result<Memory> {
    let open = |name| Map::open(&world.dataplane, name);
    let mut memory = Memory::new(HashKey(HASH_KEY));
    memory.features = open("SETTINGS")?.values::<Settings>()?[0].features;
    memory.keys = open("SERVICES_BY_KEY")?
        .entries::<ServiceKey, u32>()?
        .into_iter()
        .collect();
    memory.returns = open("RETURNS")?
        .entries::<ServiceKey, u32>()?
        .into_iter()
        .collect();
    memory.services = (0..).zip(open("SERVICES")?.values::<Service>()?).collect();
    memory.backends = (0..)
        .zip(Backends::open(&world.dataplane)?.all()?)
        .collect();
    memory.sources = open("SOURCES")?.values::<Address>()?;
    let rings = Rings::open(&world.dataplane)?;
    for service in memory.services.values().filter(|service| service.ring != 0) {
        let (first, _) = ring_of(service.ring);
        memory.rings.insert(first, rings.slots(service.ring)?);
    }
    let hop = NextHop {
        destination: mac_word(CLIENT_MAC),
        source: mac_word(LB_CLIENT_MAC),
        ifindex: world.interface(Side::Client),
        mtu: 1500,
        device: 0,
    };
    let via = Route::Via {
        hop,
        on_link: false,
    };
    for number in 1..=CLIENTS {
        for family in FAMILIES {
            memory
                .routes
                .insert(words(client(number).address(family)), via);
        }
    }
    Ok(memory)
}

/// An address as the data path holds it.
fn words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => ipv4_address(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            let [low, high] = [0, 8].map(|at| {
                let half = address.octets()[at..at + 8]
                    .try_into()
                    .expect("eight bytes");
                u64::from_ne_bytes(half)
            });
            [low, high]
        }
    }
}

/// The reverse.
fn address(words: Address, family: u8) -> IpAddr {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match family {
        IPV4 => IpAddr::from(<[u8; 4]>::try_from(&bytes[..4]).expect("four bytes")),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes")),
    }
}

fn some_client(rng: &mut Rng, family: u8) -> SocketAddr {
    client(rng.u8(1..=CLIENTS)).at(family, rng.u16(20_000..20_012))
}

/// From a client to a service, or to its address.
fn request(rng: &mut Rng, kind: Kind) -> Packet {
    let mut to = kind.vip();
    if rng.u8(..) < 10 {
        to.set_port(rng.u16(..));
    }
    kind.packet(some_client(rng, kind.family), to)
}

/// From a backend to a client, where there is a flow.
fn reply(rng: &mut Rng, kind: Kind, memory: &Memory) -> Packet {
    let on_link = |packet: Packet| packet.macs(backend(1).mac(), LB_BACKEND_MAC);
    if kind.mode != Mode::FullNat {
        let from = kind.numbered(rng.choice([1, 4]).expect("two"));
        return on_link(kind.packet(from, some_client(rng, kind.family)));
    }
    let flows = memory.nat_return.borrow();
    let known = flows
        .iter()
        .filter(|(_, flow)| memory.routes.contains_key(&flow.client));
    let Some((key, _)) = rng.choice(known.collect::<Vec<_>>()) else {
        return request(rng, kind);
    };
    let at = |words, port: u16| (address(words, key.family), u16::from_be(port)).into();
    let from = at(key.source, key.source_port);
    let to = at(key.destination, key.destination_port);
    on_link(match key.protocol {
        TCP => tcp(from, to),
        _ => udp(from, to),
    })
}

/// An ICMP error, or what looks like one, about what this packet is or answers.
fn error(rng: &mut Rng, packet: Packet) -> IcmpError {
    let (source, destination) = (packet.source, packet.destination);
    let about = match rng.bool() {
        true => packet.between(destination, source),
        false => packet,
    };
    let kinds: &[u8] = match about.family() {
        4 => &[0, 3, 3, 3, 8, 11, 12],
        _ => &[0, 1, 2, 2, 3, 4, 128, 135],
    };
    let kind = *rng.choice(kinds).expect("there are some");
    let sender = client(rng.u8(..)).address(about.family());
    let mut error = IcmpError::about(&about.vlan(None), sender, (kind, rng.u8(0..5)));
    if rng.bool() {
        error.quote.truncate(rng.usize(0..=error.quote.len()));
    }
    error.ttl(rng.choice([0, 1, 2, 64, 64, 64]).expect("some"))
}

/// Whatever may stand in a packet.
fn dress(rng: &mut Rng, packet: Packet) -> Packet {
    let often = |rng: &mut Rng| rng.u8(..) < 40;
    let mut packet = packet.carrying(rng.usize(0..80)).header(|tcp| {
        let flags = rng.u8(..);
        if flags < 90 {
            (tcp.syn, tcp.ack, tcp.acknowledgment_number) = (true, false, 0);
        }
        (tcp.fin, tcp.rst) = (flags > 230, flags > 240);
    });
    if often(rng) {
        packet = packet.vlan(rng.u16(0..4096));
    }
    if often(rng) {
        packet = packet.ttl(rng.u8(0..4));
    }
    if often(rng) && packet.family() == 4 {
        packet = packet.options(&vec![1; rng.usize(0..=10) * 4]);
    }
    if rng.u8(..) < 30 {
        let offsets = [0, 0, 0, 1, 2, 3, 100];
        packet = packet.fragment(rng.choice(offsets).expect("some"), rng.bool());
    }
    if rng.bool() {
        packet = packet.trailed(rng.usize(0..10));
    }
    packet
}

/// Breaks a frame. What is from a backend keeps its addresses: where else to is the kernel's
/// matter.
fn damage(rng: &mut Rng, (family, l3): (u8, usize), side: Side, frame: &mut Vec<u8>) {
    let addresses = match family {
        4 => l3 + 12..l3 + 20,
        _ => l3 + 8..l3 + 40,
    };
    for _ in 0..rng.usize(0..4) {
        let at = rng.usize(0..frame.len().min(90));
        if side == Side::Client || !addresses.contains(&at) {
            frame[at] = rng.u8(..);
        }
    }
    if rng.u8(..) < 60 {
        frame.truncate(rng.usize(14..=frame.len()));
    }
}

#[test]
fn the_kernel_does_what_the_host_does() -> Result<()> {
    let mut desired = several(kinds(), &[1, 4]);
    desired.source_ports = (1024, 65535);
    World::with_room_for(1 << 16, desired, |world| {
        world.resolved()?;
        let cpu = cpu::last()?;
        cpu::pin(cpu)?;
        let mut memory = memory(world)?;
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"));
        memory.cpu = (cpu as u32, cpus? as u32);
        let mut rng = Rng::with_seed(SEED);
        let kinds: Vec<Kind> = kinds().collect();
        let mut actions = [0; 5];
        for number in 0..PACKETS {
            let kind = *rng.choice(&kinds).expect("there are some");
            let (side, packet) = match rng.u8(0..3) {
                0 => (Side::Backend, reply(&mut rng, kind, &memory)),
                _ => (Side::Client, request(&mut rng, kind)),
            };
            let packet = dress(&mut rng, packet);
            let (mut frame, l3) = match rng.u8(..) < 60 {
                true => (error(&mut rng, packet.clone()).bytes(), 14),
                false => (packet.bytes(), packet.l3()),
            };
            if rng.bool() {
                damage(&mut rng, (packet.family(), l3), side, &mut frame);
            }
            let ran = world.feed(side, &frame)?;
            let mut here = frame.clone();
            let action = on_the_host(&mut here, &memory, world.interface(side));
            let what = || format!("packet {number}, {side:?}, {packet:?}\n{frame:02x?}");
            ensure!(
                ran.action == action,
                "action {}, here {action}: {}",
                ran.action,
                what()
            );
            if action != XDP_DROP {
                same(&ran.frame, &here).map_err(|error| error.context(what()))?;
            }
            actions[action as usize] += 1;
        }
        // Else the packets would show nothing.
        let common = [XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT];
        ensure!(
            common.iter().all(|&action| actions[action as usize] > 100),
            "{actions:?}"
        );
        let drops = world.dataplane.counters()?;
        let all = drops.services.values().map(|service| &service.drops);
        for &reason in Reason::ALL {
            let count = |drops: &lb_userspace::dataplane::Drops| {
                drops.get(reason.name()).copied().unwrap_or(0)
            };
            let there: u64 = all.clone().chain([&drops.unmatched_drops]).map(count).sum();
            let dropped = memory.dropped.borrow();
            let here: u64 = dropped
                .iter()
                .filter(|((_, why), _)| *why == reason)
                .map(|(_, n)| n)
                .sum();
            ensure!(there == here, "{}: {there}, here {here}", reason.name());
        }
        Ok(())
    })
}

/// What BPF_PROG_TEST_RUN does not take.
#[test]
fn frames_shorter_than_their_header_pass() {
    let memory = Memory::new(HashKey(HASH_KEY));
    for kind in kinds() {
        let whole = kind.request().bytes();
        for length in 0..14 {
            let mut frame = whole[..length].to_vec();
            let action = on_the_host(&mut frame, &memory, 1);
            assert!(!went_out(action) && frame == whole[..length], "{length}");
        }
    }
}
