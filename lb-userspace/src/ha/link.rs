//! A group's link: its socket, its addresses at the interface, and who else is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    time::Instant,
};

use super::{
    announce::Mac,
    interfaces::Interfaces,
    keeper::Tools,
    rules::Rules,
    view::{GroupCounters, PeerView},
    vrrp::{Advert, Coverage, GROUP_V4, GROUP_V6, Interval, TTL},
    wire::{Received, Wire},
};
use crate::config::ha::{Checksum, Group};

/// Other nodes that are remembered, and faults that are told of.
const REMEMBERED: usize = 32;

/// A group's link.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) rules: Rules,
    pub(super) counters: GroupCounters,
    /// What it sends from.
    pub(super) local: Option<IpAddr>,
    /// Why it cannot speak.
    pub(super) problem: Option<String>,
    wire: Option<Wire>,
    ifindex: u32,
    mac: Option<Mac>,
    coverage: Coverage,
    peers: BTreeMap<IpAddr, Peer>,
    told: BTreeSet<(IpAddr, String)>,
}

struct Peer {
    priority: u8,
    interval: Interval,
    heard: Instant,
}

impl Link {
    pub(super) fn new(name: &str, group: &Group) -> Self {
        Self {
            name: name.to_owned(),
            rules: Rules::new(group),
            counters: GroupCounters::default(),
            local: None,
            problem: Some("not looked at yet".to_owned()),
            wire: None,
            ifindex: 0,
            mac: None,
            coverage: match group.ipv4_checksum {
                Checksum::Rfc9568 => Coverage::Rfc9568,
                _ => Coverage::Rfc5798,
            },
            peers: BTreeMap::new(),
            told: BTreeSet::new(),
            group: group.clone(),
        }
    }

    pub(super) fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// Follows the interface. The addresses that move between nodes are not sent from.
    pub(super) fn follow(&mut self, tools: &Tools<'_>, moving: &BTreeSet<IpAddr>) {
        let found = self.find(tools.interfaces, moving);
        self.local = found.as_ref().ok().copied();
        let problem = found.err();
        if self.problem != problem {
            match &problem {
                Some(problem) => tools.log.warn(&self.name, problem),
                None => tools.log.info(&self.name, "the link is up"),
            }
            self.problem = problem;
        }
    }

    fn find(
        &mut self,
        interfaces: &Interfaces,
        moving: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, String> {
        let name = &self.group.interface;
        let interface = interfaces
            .get(name)
            .ok_or_else(|| format!("there is no interface {name}"))?;
        (self.ifindex, self.mac) = (interface.index, interface.mac);
        if !interface.up {
            return Err(format!("{name} is down"));
        }
        let usable = |address: &&IpAddr| {
            address.is_ipv4() == self.group.is_ipv4()
                && !moving.contains(address)
                && self.group.source.is_none_or(|source| source == **address)
        };
        let mut usable = interfaces.addresses(interface.index).iter().filter(usable);
        let local = match self.group.is_ipv4() {
            true => usable.next(),
            false => {
                let link_local = self.speaks_link_local();
                usable.find(|address| is_link_local(address) == link_local)
            }
        };
        let local = *local.ok_or_else(|| match self.group.source {
            Some(source) => format!("{name} does not have the address {source}"),
            None => format!("{name} has no address of its own to send from"),
        })?;
        if self.wire.as_ref().map(Wire::ifindex) != Some(interface.index) {
            let multicast = self.group.unicast_peers.is_empty();
            let opened = Wire::open(interface.index, self.group.is_ipv4(), multicast);
            self.wire = Some(opened.map_err(|error| format!("a socket at {name}: {error}"))?);
        }
        Ok(local)
    }

    /// IPv6: whether it sends from a link-local address, as RFC 9568 says of multicast.
    fn speaks_link_local(&self) -> bool {
        match (self.group.source, self.group.unicast_peers.first()) {
            (Some(source), _) => is_link_local(&source),
            (None, Some(peer)) => is_link_local(peer),
            (None, None) => true,
        }
    }

    /// Sends an advertisement to the others.
    pub(super) fn advertise(&mut self, tools: &Tools<'_>, priority: u8, interval: Interval) {
        let (Some(wire), Some(source)) = (&self.wire, self.local) else {
            return;
        };
        let advert = Advert {
            vrid: self.group.vrid,
            priority,
            interval,
            addresses: self.group.addresses.iter().map(|a| a.address).collect(),
        };
        let everybody = [match self.group.is_ipv4() {
            true => IpAddr::from(GROUP_V4),
            false => GROUP_V6.into(),
        }];
        let to = match self.group.unicast_peers.as_slice() {
            [] => everybody.as_slice(),
            peers => peers,
        };
        let mut failed = None;
        for destination in to {
            let bytes = advert.encode(source, *destination, self.coverage);
            match wire.send(&bytes, source, *destination) {
                Ok(()) => self.counters.adverts_sent += 1,
                Err(error) => failed = Some((*destination, error)),
            }
        }
        if let Some((destination, error)) = failed {
            self.fail(tools, "sending to", destination, &error);
        }
    }

    /// Adds the addresses, or lets them go on, for so many seconds.
    pub(super) fn hold(&mut self, tools: &mut Tools<'_>, seconds: u32) {
        for address in self.group.addresses.clone() {
            if let Err(error) = tools.kernel.hold(self.ifindex, &address, seconds) {
                self.fail(tools, "adding", address.address, &error);
            }
        }
    }

    pub(super) fn release(&mut self, tools: &mut Tools<'_>) {
        // An interface that is not there has no addresses.
        if self.ifindex == 0 {
            return;
        }
        for address in self.group.addresses.clone() {
            if let Err(error) = tools.kernel.release(self.ifindex, &address) {
                self.fail(tools, "removing", address.address, &error);
            }
        }
    }

    /// Tells the neighbours where the addresses are.
    pub(super) fn announce(&mut self, tools: &Tools<'_>) {
        let Some(mac) = self.mac else {
            return;
        };
        let name = &self.group.interface;
        let forwarding = format!("/proc/sys/net/ipv6/conf/{name}/forwarding");
        let router = fs::read_to_string(forwarding).is_ok_and(|value| value.trim() == "1");
        for address in self.group.addresses.clone() {
            let address = address.address;
            let sent = tools.announcer.announce(self.ifindex, mac, address, router);
            if let Err(error) = sent {
                self.fail(tools, "announcing", address, &error);
            }
        }
    }

    /// The next advertisement for this group that waits, and who sent it.
    pub(super) fn receive(&mut self, tools: &Tools<'_>, now: Instant) -> Option<(IpAddr, Advert)> {
        loop {
            // An error is that of an interface which went down: netlink tells.
            let received = self.wire.as_ref()?.receive().ok()??;
            let for_us = received.bytes.get(1) == Some(&self.group.vrid);
            if !for_us || Some(received.source) == self.local {
                continue;
            }
            match self.read(&received) {
                Ok(advert) => {
                    self.note(tools, now, received.source, &advert);
                    return Some((received.source, advert));
                }
                Err(fault) => {
                    self.counters.adverts_discarded += 1;
                    self.tell_once(tools, received.source, fault);
                }
            }
        }
    }

    fn read(&mut self, received: &Received) -> Result<Advert, String> {
        let (source, destination) = (received.source, received.destination);
        let peers = &self.group.unicast_peers;
        let lowest = if peers.is_empty() {
            TTL
        } else {
            self.group.unicast_min_ttl
        };
        if received.ttl < lowest {
            return Err(format!(
                "its TTL is {}, not {lowest}: have it send {TTL} (keepalived: `unicast_ttl {TTL}`), \
                 or lower `unicast_min_ttl`",
                received.ttl
            ));
        }
        match (peers.is_empty(), destination.is_multicast()) {
            (true, false) => return Err("it is unicast, and `unicast_peers` is empty".to_owned()),
            (false, _) if !peers.contains(&source) => {
                return Err("it is not one of `unicast_peers`".to_owned());
            }
            _ => {}
        }
        let (advert, coverage) = Advert::decode(&received.bytes, source, destination)
            .map_err(|fault| fault.to_string())?;
        if self.group.ipv4_checksum == Checksum::Auto {
            self.coverage = coverage;
        }
        Ok(advert)
    }

    fn note(&mut self, tools: &Tools<'_>, now: Instant, source: IpAddr, advert: &Advert) {
        self.counters.adverts_received += 1;
        if self.peers.len() < REMEMBERED || self.peers.contains_key(&source) {
            let peer = Peer {
                priority: advert.priority,
                interval: advert.interval,
                heard: now,
            };
            self.peers.insert(source, peer);
        }
        let ours: BTreeSet<IpAddr> = self.group.addresses.iter().map(|a| a.address).collect();
        let theirs: BTreeSet<IpAddr> = advert.addresses.iter().copied().collect();
        if ours != theirs {
            self.tell_once(
                tools,
                source,
                "it has other addresses in this group".to_owned(),
            );
        }
        if advert.interval.duration() != self.group.advert_interval {
            self.tell_once(tools, source, "it has another `advert_interval`".to_owned());
        }
    }

    /// Warns of another node's fault, the first time.
    fn tell_once(&mut self, tools: &Tools<'_>, source: IpAddr, fault: String) {
        let fault = (source, fault);
        if self.told.len() < REMEMBERED && !self.told.contains(&fault) {
            tools.log.warn(
                &self.name,
                format!("an advertisement of {source}: {}", fault.1),
            );
            self.told.insert(fault);
        }
    }

    fn fail(&mut self, tools: &Tools<'_>, what: &str, address: IpAddr, error: &io::Error) {
        self.counters.errors += 1;
        let message = format!("{what} {address}: {error}");
        if self.told.len() < REMEMBERED && self.told.insert((address, message.clone())) {
            tools.log.warn(&self.name, message);
        }
    }

    pub(super) fn peers(&self, now: Instant) -> BTreeMap<IpAddr, PeerView> {
        let view = |(address, peer): (&IpAddr, &Peer)| {
            let view = PeerView {
                priority: peer.priority,
                advert_interval: peer.interval.duration().as_secs_f64(),
                heard_seconds_ago: (now - peer.heard).as_millis() as f64 / 1000.0,
            };
            (*address, view)
        };
        self.peers.iter().map(view).collect()
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
