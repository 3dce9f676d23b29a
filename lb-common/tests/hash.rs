//! The flow hash: keyed, deterministic, and even over slots.

use lb_common::{
    abi::{Address, IPV4, IPV6},
    hash::HashKey,
};
use proptest::prelude::*;

const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
const VIP: Address = [0x0100_7b0a, 0];

/// Pearson's chi-squared of the counts in `slots` equally likely slots.
fn chi_squared(slots: usize, hashes: impl Iterator<Item = u64>) -> f64 {
    let mut counts = vec![0u32; slots];
    let mut all = 0u32;
    for hash in hashes {
        counts[hash as usize & (slots - 1)] += 1;
        all += 1;
    }
    let expected = f64::from(all) / slots as f64;
    counts
        .iter()
        .map(|&count| (f64::from(count) - expected).powi(2) / expected)
        .sum()
}

/// For n slots the statistic has mean n - 1 and variance 2(n - 1): six deviations are a
/// chance of one in a billion, and these flows are always the same.
fn assert_even(slots: usize, hashes: impl Iterator<Item = u64>) {
    let freedom = slots as f64 - 1.0;
    let found = chi_squared(slots, hashes);
    let most = freedom + 6.0 * (2.0 * freedom).sqrt();
    assert!(
        found < most,
        "chi-squared {found} over {slots} slots, at most {most}"
    );
}

fn ipv4(source: u32, port: u16) -> u64 {
    let ports = u32::from(port.to_be()) | (u32::from(80u16.to_be()) << 16);
    KEY.flow(IPV4, &[u64::from(source.to_be()), 0], &VIP, ports, 6)
}

#[test]
fn one_clients_ports_spread_evenly() {
    assert_even(256, (1024..=65535).map(|port| ipv4(0xc633_6401, port)));
}

#[test]
fn even_ports_alone_spread_evenly() {
    // Linux's connect() prefers ports of one parity.
    assert_even(
        256,
        (1024..=65535)
            .step_by(2)
            .map(|port| ipv4(0xc633_6401, port)),
    );
}

#[test]
fn neighbouring_addresses_spread_evenly() {
    assert_even(256, (0..65536).map(|host| ipv4(0x0a00_0000 + host, 40000)));
    assert_even(
        65536,
        (0..1 << 21).map(|host| ipv4(0x0a00_0000 + host, 40000)),
    );
}

#[test]
fn ipv6_hosts_and_networks_spread_evenly() {
    let flow = |network: u64, host: u64| {
        KEY.flow(
            IPV6,
            &[network.to_be(), host.to_be()],
            &VIP,
            0x5000_401f,
            17,
        )
    };
    assert_even(
        256,
        (0..65536).map(|host| flow(0x2001_0db8_0000_0000, host)),
    );
    assert_even(
        256,
        (0..65536).map(|network| flow(0x2001_0db8_0000_0000 + network, 1)),
    );
}

proptest! {
    #[test]
    fn every_part_of_the_flow_and_the_key_matters(
        source: [u64; 2],
        destination: [u64; 2],
        ports: u32,
        bit in 0u32..64,
    ) {
        let hash = KEY.flow(IPV6, &source, &destination, ports, 6);
        let flip = 1u64 << bit;
        let [a, b] = source;
        let [c, d] = destination;
        prop_assert_ne!(hash, KEY.flow(IPV6, &[a ^ flip, b], &destination, ports, 6));
        prop_assert_ne!(hash, KEY.flow(IPV6, &[a, b ^ flip], &destination, ports, 6));
        prop_assert_ne!(hash, KEY.flow(IPV6, &source, &[c ^ flip, d], ports, 6));
        prop_assert_ne!(hash, KEY.flow(IPV6, &source, &[c, d ^ flip], ports, 6));
        prop_assert_ne!(hash, KEY.flow(IPV6, &source, &destination, ports ^ (1 << (bit % 32)), 6));
        prop_assert_ne!(hash, KEY.flow(IPV6, &source, &destination, ports, 17));
        let other = HashKey([KEY.0[0] ^ flip, KEY.0[1]]);
        prop_assert_ne!(hash, other.flow(IPV6, &source, &destination, ports, 6));
    }
}
