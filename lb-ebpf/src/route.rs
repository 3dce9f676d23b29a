//! Asking the kernel's routing tables, and remembering the answer for a second.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
    },
    helpers::generated::bpf_fib_lookup,
    programs::XdpContext,
};
use lb_common::{
    abi::{Address, CachedRoute, IPV4, IPV6, NeighbourRequest, NextHop, mac_word},
    packet::ipv4_address,
    reason::Reason,
    tables::{Route, RouteQuery},
};

use crate::maps;

/// Destinations remembered per CPU: a power of two.
pub(crate) const CACHE_ENTRIES: u32 = 4096;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The way to an address, at most two ticks old and of the present epoch. A function of its
/// own, for a stack frame of its own.
#[inline(never)]
pub(crate) fn lookup(context: &XdpContext, tick: u32, query: &RouteQuery) -> Route {
    let epoch = maps::SETTINGS
        .get(0)
        .map_or(0, |settings| settings.route_epoch);
    let Some(entry) = maps::ROUTE_CACHE.get_ptr_mut(cache_index(query)) else {
        return Route::None(Reason::Inconsistent);
    };
    // SAFETY: a live entry of this CPU's, and nothing interrupts the program on it.
    let entry = unsafe { &mut *entry };
    if entry.family == query.family
        && entry.destination == query.destination
        && entry.epoch == epoch
        && tick.wrapping_sub(entry.tick) <= 1
    {
        return match entry.local {
            0 => Route::Via {
                hop: entry.hop,
                on_link: entry.on_link != 0,
            },
            _ => Route::Local,
        };
    }
    let route = ask(context, query);
    let (hop, local, on_link) = match route {
        Route::Via { hop, on_link } => (hop, 0, u8::from(on_link)),
        Route::Local => (NextHop::default(), 1, 0),
        Route::None(_) => return route,
    };
    *entry = CachedRoute {
        hop,
        destination: query.destination,
        epoch,
        tick,
        family: query.family,
        local,
        on_link,
        reserved: [0; 13],
    };
    route
}

#[inline(always)]
fn cache_index(query: &RouteQuery) -> u32 {
    let [high, low] = query.destination;
    ((high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CACHE_ENTRIES.trailing_zeros()))
        as u32
}

/// `bpf_fib_lookup`.
#[inline(always)]
fn ask(context: &XdpContext, query: &RouteQuery) -> Route {
    // SAFETY: integers and unions of integers, for which zero is a value.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.l4_protocol = query.protocol;
    fib.ifindex = context.ingress_ifindex() as u32;
    if query.family == IPV4 {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = query.source[0] as u32;
        fib.__bindgen_anon_4.ipv4_dst = query.destination[0] as u32;
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = words(query.source);
        fib.__bindgen_anon_4.ipv6_dst = words(query.destination);
    }
    // SAFETY: the kernel reads and writes `fib`, of the size given.
    let result = unsafe {
        bpf_fib_lookup(
            context.ctx.cast(),
            &raw mut fib,
            size_of::<FibLookup>() as i32,
            0,
        )
    };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => via(&fib, query),
        BPF_FIB_LKUP_RET_NOT_FWDED => Route::Local,
        BPF_FIB_LKUP_RET_FWD_DISABLED => Route::None(Reason::ForwardingDisabled),
        BPF_FIB_LKUP_RET_NO_NEIGH => {
            request_neighbour(&fib);
            Route::None(Reason::NoNeighbour)
        }
        _ => Route::None(Reason::NoRoute),
    }
}

/// An IPv6 address in the kernel's words.
#[inline(always)]
fn words([first, second]: Address) -> [u32; 4] {
    [
        first as u32,
        (first >> 32) as u32,
        second as u32,
        (second >> 32) as u32,
    ]
}

/// The next hop's address, which the kernel has put in the destination's place.
#[inline(always)]
fn next_hop_address(fib: &FibLookup) -> (u8, Address) {
    // SAFETY: both members are integers, for which any bits are a value.
    unsafe {
        match fib.family {
            AF_INET => (IPV4, ipv4_address(fib.__bindgen_anon_4.ipv4_dst)),
            _ => {
                let [a, b, c, d] = fib.__bindgen_anon_4.ipv6_dst.map(u64::from);
                (IPV6, [a | (b << 32), c | (d << 32)])
            }
        }
    }
}

#[inline(always)]
fn via(fib: &FibLookup, query: &RouteQuery) -> Route {
    // SAFETY: one aligned word, copied at once.
    let Some(egress) = (unsafe { maps::EGRESS.get(fib.ifindex) }).copied() else {
        return Route::None(Reason::EgressUnknown);
    };
    let (vlan, device) = (egress >> 32 & 0xffff, (egress >> 48) as u16);
    // SAFETY: both members are integers; after a look-up it is the MTU (Linux 5.12).
    let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
    Route::Via {
        hop: NextHop {
            destination: mac_word(fib.dmac) | (vlan << 48),
            source: mac_word(fib.smac),
            ifindex: egress as u32,
            mtu,
            device,
        },
        on_link: next_hop_address(fib) == (query.family, query.destination),
    }
}

#[inline(always)]
fn request_neighbour(fib: &FibLookup) {
    let (family, address) = next_hop_address(fib);
    // A full ring buffer is read by an agent that is busy with as many requests.
    let _ = maps::NEIGHBOUR_REQUESTS.output(
        NeighbourRequest {
            address,
            ifindex: fib.ifindex,
            family,
            reserved: [0; 3],
        },
        0,
    );
}
