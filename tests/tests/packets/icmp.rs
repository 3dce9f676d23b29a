//! ICMP errors about flows, in every mode and in both directions; and which are the kernel's.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::desired::{Condition, Mode, Protocol};
use weir_tests::{
    cpu,
    wire::{
        CLIENT_MAC, Case, IcmpError, LB_BACKEND_MAC, LB_CLIENT_MAC, Packet, Side, Transport,
        UNREACHABLE, VIP, Verdict, World, backend, check_sums, client, dropped, forwarded, same,
        tcp, went_out,
    },
};

use crate::{
    passing::passes,
    scene::{Kind, Shape, everything, kinds},
};

const XDP_DROP: u32 = 1;
const XDP_REDIRECT: u32 = 4;

/// Bytes that any error quotes of what is above IP.
const QUOTED: usize = 8;

/// A change of an error, before and after.
type Dress = fn(IcmpError) -> IcmpError;

/// What the packets are that errors are about.
const SHAPES: &[(&str, Shape)] = &[
    ("data", |packet| packet),
    ("no data", |packet| packet.carrying(0)),
    ("no UDP checksum", |packet| match packet.family() {
        4 if packet.transport == Transport::Udp(true) => packet.without_checksum(),
        _ => packet,
    }),
    ("IPv4 options", |packet| match packet.family() {
        4 => packet.options(&[1; 40]),
        _ => packet,
    }),
    ("a SYN", |packet| packet.opening()),
];

/// How errors come.
const DRESSES: &[(&str, Dress)] = &[
    ("a whole quote", |error| error),
    ("as little as may be quoted", shortest),
    ("a tag that the way out does not have", |error| {
        error.vlan(7)
    }),
    ("the last TTL that can be routed", |error| error.ttl(2)),
    ("IPv4 options", |error| IcmpError {
        options: match error.source {
            IpAddr::V4(_) => vec![1; 12],
            IpAddr::V6(_) => Vec::new(),
        },
        ..error
    }),
];

/// Destination unreachable, time exceeded and the rest, as the families number them.
fn errors(family: u8) -> &'static [(u8, u8)] {
    match family {
        4 => &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)],
        _ => &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)],
    }
}

/// Cuts the quote to what there must be.
fn shortest(mut error: IcmpError) -> IcmpError {
    let header = match error.source {
        IpAddr::V4(_) => usize::from(error.quote[0] & 15) * 4,
        IpAddr::V6(_) => 40,
    };
    error.quote.truncate(header + QUOTED);
    error
}

/// The same error about another packet.
fn instead(error: &IcmpError, packet: &Packet) -> IcmpError {
    let mut quote = packet.bytes()[packet.l3()..].to_vec();
    quote.truncate(error.quote.len());
    IcmpError {
        quote,
        ..error.clone()
    }
}

/// A router on the way.
fn router(kind: Kind) -> IpAddr {
    UNREACHABLE.address(kind.family)
}

fn packet_too_big(kind: Kind) -> (u8, u8) {
    match kind.family {
        4 => (3, 4),
        _ => (2, 0),
    }
}

/// What the client's side cannot pass on of an answer, and what that becomes.
fn from_outside(kind: Kind, shape: Shape, dress: Dress, what: (u8, u8)) -> (IcmpError, IcmpError) {
    let answer = shape(kind.answer());
    let seen = match kind.mode {
        Mode::Dsr => answer.clone().between(kind.vip(), kind.client()),
        _ => kind.answered(answer.clone()),
    };
    let mut error = IcmpError::about(&seen, router(kind), what);
    if what == packet_too_big(kind) {
        error.rest = [0, 0, 5, 0x78];
    }
    let error = dress(error);
    let out = error.clone().vlan(None);
    let out = out.macs(LB_BACKEND_MAC, kind.backend_mac());
    if kind.mode == Mode::Dsr {
        return (error, out);
    }
    let known = answer.ttl(seen.ttl);
    let source = match kind.mode {
        Mode::FullNat => kind.source().ip(),
        _ => router(kind),
    };
    let out = instead(&out, &known).between(source, kind.backend().ip());
    (error.clone(), out.ttl(error.ttl - 1))
}

/// What a backend, or a router before it, cannot take of a request, and what that becomes.
fn from_inside(
    kind: Kind,
    shape: Shape,
    dress: Dress,
    (sender, what): (IpAddr, (u8, u8)),
) -> (IcmpError, IcmpError) {
    let request = shape(kind.request());
    let seen = kind.forwarded(request.clone());
    let error = IcmpError::about(&seen, sender, what);
    let error = dress(error.macs(kind.backend_mac(), LB_BACKEND_MAC));
    let out = error.clone().vlan(None).macs(LB_CLIENT_MAC, CLIENT_MAC);
    let out = instead(&out, &request.ttl(seen.ttl));
    let out = out.between(kind.vip().ip(), kind.client().ip());
    (error.clone(), out.ttl(error.ttl - 1))
}

/// Opens the flow that errors are about.
fn open(world: &World, kind: Kind) -> Result<()> {
    let request = kind.request().opening();
    Case {
        what: "the flow".to_owned(),
        side: Side::Client,
        verdict: Verdict::Redirect(kind.forwarded(request.clone())),
        packet: request,
        service: kind.name(),
    }
    .check(world)
}

/// Whether an error goes out as it should, at the other side than it came in by; and is counted as
/// what it is, a packet from outside or none.
fn goes_out(
    world: &World,
    side: Side,
    error: &IcmpError,
    out: &IcmpError,
    kind: Kind,
) -> Result<()> {
    let frame = error.bytes();
    let (ran, counted) = world.observe(side, &frame)?;
    ensure!(
        ran.action == XDP_REDIRECT,
        "action {}; counted: {counted:?}",
        ran.action
    );
    same(&ran.frame, &out.bytes())?;
    check_sums(&ran.frame)?;
    let expected = match side {
        Side::Client => forwarded(&kind.name(), frame.len() as u64),
        Side::Backend => Default::default(),
    };
    ensure!(counted == expected, "counted {counted:?}, not {expected:?}");
    Ok(())
}

#[test]
fn about_answers_to_the_backend() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for kind in kinds() {
            open(world, kind)?;
            for (packet, shape) in SHAPES {
                for (how, dress) in DRESSES {
                    for &what in errors(kind.family) {
                        let (error, out) = from_outside(kind, *shape, *dress, what);
                        goes_out(world, Side::Client, &error, &out, kind).with_context(|| {
                            format!("{}: {what:?} about {packet}, {how}", kind.name())
                        })?;
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn about_requests_to_the_client() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for kind in kinds().filter(|kind| kind.mode != Mode::Dsr) {
            open(world, kind)?;
            for (packet, shape) in SHAPES {
                for (how, dress) in DRESSES {
                    for &what in errors(kind.family) {
                        for sender in [kind.backend().ip(), router(kind)] {
                            let sent = (sender, what);
                            let (error, out) = from_inside(kind, *shape, *dress, sent);
                            goes_out(world, Side::Backend, &error, &out, kind).with_context(
                                || {
                                    let name = kind.name();
                                    format!("{name}: {sent:?} about {packet}, {how}")
                                },
                            )?;
                        }
                    }
                }
            }
        }
        Ok(())
    })
}

/// An error from each side that there may be one from, about whole packets.
fn both(kind: Kind) -> Vec<(Side, IcmpError)> {
    let shape: Shape = |packet| packet;
    let outside = from_outside(kind, shape, |error| error, packet_too_big(kind));
    let mut both = vec![(Side::Client, outside.0)];
    if kind.mode != Mode::Dsr {
        let sent = (router(kind), packet_too_big(kind));
        let inside = from_inside(kind, shape, |error| error, sent);
        both.push((Side::Backend, inside.0));
    }
    both
}

/// Every error of a flow that is open, to be spoilt.
fn with_errors(check: impl Fn(&World, Side, &IcmpError, Kind) -> Result<()> + Sync) -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for kind in kinds() {
            open(world, kind)?;
            for (side, error) in both(kind) {
                let ran = world.feed(side, &error.bytes())?;
                ensure!(went_out(ran.action), "as it was: {error:?}");
                check(world, side, &error, kind).with_context(|| format!("{error:?}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn what_is_about_no_flow_is_the_kernels() -> Result<()> {
    with_errors(|world, side, error, kind| {
        let is_the_kernels = |what: &str, error: IcmpError| {
            passes(world, side, &error.bytes()).with_context(|| what.to_owned())
        };
        // Echo both ways, redirects, and what IPv6 finds its neighbours by.
        let others: &[u8] = match kind.family {
            4 => &[0, 4, 5, 8, 13],
            _ => &[0, 5, 100, 127, 128, 129, 133, 134, 135, 136, 137],
        };
        for &number in others {
            let kind = (number, 0);
            is_the_kernels(
                "no error",
                IcmpError {
                    kind,
                    ..error.clone()
                },
            )?;
        }
        let (header, source_end, protocol, icmp) = match kind.family {
            4 => (20, 16, 9, 1),
            _ => (40, 24, 6, 58),
        };
        let spoilt = |at: usize, value: u8| {
            let mut error = error.clone();
            error.quote[at] = value;
            error
        };
        is_the_kernels("of another version", spoilt(0, 0x55))?;
        is_the_kernels("about ICMP", spoilt(protocol, icmp))?;
        is_the_kernels(
            "about a fragment",
            match kind.family {
                4 => spoilt(7, 1),
                _ => spoilt(6, 44),
            },
        )?;
        is_the_kernels("not to the sender", spoilt(source_end - 1, 99))?;
        // Of a service's or backend's port, and the flow's other.
        let (ours, theirs) = match side {
            Side::Client => (header, header + 2),
            Side::Backend => (header + 2, header),
        };
        is_the_kernels("about another port", spoilt(ours, 0xff))?;
        if kind.mode == Mode::FullNat {
            is_the_kernels("about another flow", spoilt(theirs, 0xff))?;
        }
        Ok(())
    })
}

/// Errors that quote less than they must, or of which not all arrives, are the kernel's.
#[test]
fn cut_short_at_every_length() -> Result<()> {
    with_errors(|world, side, error, _| {
        let least = shortest(error.clone());
        for length in 0..least.quote.len() {
            let mut shorter = error.clone();
            shorter.quote.truncate(length);
            passes(world, side, &shorter.bytes())
                .with_context(|| format!("{length} bytes are quoted"))?;
            // The same where there would be more behind the packet's end.
            let mut frame = shorter.bytes();
            frame.extend(&error.quote[length..]);
            passes(world, side, &frame).with_context(|| format!("{length} bytes belong to it"))?;
        }
        let whole = error.bytes();
        for length in 14..whole.len() {
            passes(world, side, &whole[..length]).with_context(|| format!("{length} arrive"))?;
        }
        Ok(())
    })
}

/// What is behind the packet's end is not a quoted TCP checksum.
#[test]
fn a_trailer_is_no_quote() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for kind in kinds() {
            open(world, kind)?;
            let (error, out) = from_outside(kind, |packet| packet, shortest, packet_too_big(kind));
            let trailed = |error: &IcmpError| [error.bytes(), vec![0xee; 30]].concat();
            let ran = world.feed(Side::Client, &trailed(&error))?;
            same(&ran.frame, &trailed(&out)).with_context(|| kind.name())?;
        }
        Ok(())
    })
}

#[test]
fn nobody_is_told_of_an_error_that_goes_nowhere() -> Result<()> {
    with_errors(|world, side, error, kind| {
        if kind.mode == Mode::Dsr {
            return Ok(());
        }
        for ttl in [0, 1] {
            let (ran, counted) = world.observe(side, &error.clone().ttl(ttl).bytes())?;
            ensure!(ran.action == XDP_DROP, "TTL {ttl}: action {}", ran.action);
            let expected = dropped(&kind.name(), Reason::TtlExceeded);
            ensure!(counted == expected, "TTL {ttl}: counted {counted:?}");
        }
        Ok(())
    })?;
    World::with(everything(), |world| {
        let is_dropped = |world: &World, kind: Kind, reason| {
            let [(side, error), ..] = &both(kind)[..] else {
                anyhow::bail!("there is one");
            };
            let (ran, counted) = world.observe(*side, &error.bytes())?;
            ensure!(
                ran.action == XDP_DROP,
                "{}: action {}",
                kind.name(),
                ran.action
            );
            let expected = dropped(&kind.name(), reason);
            ensure!(counted == expected, "{}: counted {counted:?}", kind.name());
            anyhow::Ok(())
        };
        for kind in kinds() {
            open(world, kind)?;
        }
        world.apply(|desired| {
            for pool in desired.pools.values_mut() {
                let pool = Arc::make_mut(pool).values_mut();
                pool.for_each(|backend| backend.condition = Condition::Dead);
            }
        })?;
        for kind in kinds() {
            // The slot of a datagram's flow is nobody's at once.
            let reason = match (kind.mode, kind.protocol) {
                (Mode::FullNat, _) | (_, Protocol::Tcp) => Reason::BackendDead,
                _ => Reason::NoBackend,
            };
            is_dropped(world, kind, reason)?;
        }
        Ok(())
    })
}

/// Unlike those that Weir sends itself.
#[test]
fn errors_that_are_passed_on_are_not_limited() -> Result<()> {
    // More than a CPU sends of its own in two of the program's seconds.
    const ERRORS: usize = 1100;
    let kind = Kind::new(Mode::Nat, Protocol::Udp, 4);
    World::with(everything(), |world| {
        world.resolved()?;
        cpu::pin(cpu::last()?)?;
        for (side, error) in both(kind) {
            let frame = error.bytes();
            for _ in 0..ERRORS {
                ensure!(went_out(world.feed(side, &frame)?.action), "{side:?}");
            }
        }
        Ok(())
    })
}

/// An error about a packet to the VIP is its sender's: it came here by routes alone.
#[test]
fn about_packets_to_the_vip() -> Result<()> {
    World::with(everything(), |world| {
        for kind in kinds() {
            open(world, kind)?;
            let error = IcmpError::about(&kind.request(), router(kind), packet_too_big(kind));
            passes(world, Side::Backend, &error.bytes()).with_context(|| kind.name())?;
        }
        let other = client(9).at(4, 1);
        let nobodys = tcp(VIP.at(4, 1), other);
        let error = IcmpError::about(&nobodys, backend(1).address(4), (3, 4));
        passes(world, Side::Client, &error.bytes())
    })
}
