//! Addresses that several nodes share: one holds them at a time, or all announce them.

mod address;
mod health;
mod routes;
mod sync;
mod track;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    address::VirtualAddress,
    health::Health,
    routes::{Announce, Routes},
    sync::Sync,
    track::{Track, TrackKind},
};
use super::unique;

/// High availability; without groups there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ha {
    /// Groups of addresses by name.
    #[serde(deserialize_with = "unique::map")]
    pub groups: BTreeMap<String, Group>,
    /// Which other nodes are told of flows; if absent, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<Sync>,
    /// Which VIPs a routing daemon is to announce; if absent, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Routes>,
    /// Whether nodes agree on health. Without etcd each acts alone.
    #[serde(skip_serializing_if = "Health::is_default")]
    pub health: Health,
}

impl Ha {
    /// Whether an address is announced by routes, if it is a VIP.
    pub fn is_announced(&self, address: IpAddr) -> bool {
        (self.routes.as_ref()).is_some_and(|routes| match &routes.vips {
            Some(vips) => vips.contains(&address),
            None => self.group_of(address).is_none(),
        })
    }

    /// The name of a group that holds an address.
    pub fn group_of(&self, address: IpAddr) -> Option<&str> {
        let holds = |group: &Group| group.addresses.iter().any(|held| held.address == address);
        let mut groups = self.groups.iter();
        groups.find_map(|(name, group)| holds(group).then_some(name.as_str()))
    }

    /// Names of the services that priorities depend on.
    pub fn tracked_services(&self) -> impl Iterator<Item = &str> {
        let tracks = self.groups.values().flat_map(|group| group.track.values());
        tracks.filter_map(|track| track.service.as_deref())
    }
}

/// Addresses that are held together: a virtual router of VRRP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Virtual router id, 1 to 255: the same on all nodes, and no other's on the link.
    pub vrid: u8,
    /// Where the addresses are, and the other nodes.
    pub interface: String,
    /// The addresses, all of one family.
    pub addresses: Vec<VirtualAddress>,
    /// 1 to 254; 255: owns the addresses.
    #[serde(default = "priority")]
    pub priority: u8,
    /// Between advertisements, 100 ms to 40 s in hundredths of a second.
    #[serde(default = "advert_interval", with = "humantime_serde")]
    pub advert_interval: Duration,
    /// Whether to take over from an active node of lower priority.
    #[serde(default)]
    pub preempt: bool,
    /// How long to leave it active first, up to 1 h.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub preempt_delay: Duration,
    /// The other nodes' own addresses; if there are none, multicast.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unicast_peers: Vec<IpAddr>,
    /// The lowest TTL, or hop limit, of a unicast advertisement, 1 to 255. Below 255, whoever can
    /// send from a peer's address can do so from anywhere.
    #[serde(default = "unicast_min_ttl", skip_serializing_if = "is_255")]
    pub unicast_min_ttl: u8,
    /// The interface's address to send from; if absent, its first (IPv6: link-local).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// What the checksum covers over IPv4.
    #[serde(default)]
    pub ipv4_checksum: Checksum,
    /// Between announcements (gratuitous ARP, neighbour advertisements) after the first, 1 s to
    /// 1 h.
    #[serde(default = "announce_interval", with = "humantime_serde")]
    pub announce_interval: Duration,
    /// Groups with the same word here fail over together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<String>,
    /// What lowers the priority, by name.
    #[serde(
        default,
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub track: BTreeMap<String, Track>,
}

/// What the checksum of an advertisement over IPv4 covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// What that of the last one heard covers; until then a pseudo-header too, as keepalived's.
    #[default]
    Auto,
    /// The message alone.
    Rfc9568,
    /// A pseudo-header too.
    Rfc5798,
}

fn priority() -> u8 {
    100
}

fn unicast_min_ttl() -> u8 {
    255
}

fn is_255(number: &u8) -> bool {
    *number == 255
}

fn advert_interval() -> Duration {
    Duration::from_secs(1)
}

fn announce_interval() -> Duration {
    Duration::from_secs(60)
}

impl Group {
    /// Whether its addresses are IPv4's.
    pub fn is_ipv4(&self) -> bool {
        (self.addresses.first()).is_none_or(|address| address.address.is_ipv4())
    }
}
