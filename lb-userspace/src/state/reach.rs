//! Which addresses of backends packets can be sent to: as the kernel's routes and neighbours say.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    health::Health,
    next_hop::{Resolution, Told, Why},
};

/// For how long an address may have no next hop before that is believed: the kernel asks for a
/// neighbour three times in as many seconds.
const DOUBT: Duration = Duration::from_secs(3);

/// What is known of addresses; of one that is not here, nothing yet.
#[derive(Default)]
pub(super) struct Reach(HashMap<IpAddr, Way>);

enum Way {
    /// It is taken for good until it is known.
    Assumed,
    /// It has a next hop.
    Known,
    /// It has none now, and had one, or was assumed to have one.
    Doubted(Instant, Why),
    /// It has none yet.
    Awaited(Instant, Why),
    /// It has had none for too long.
    Lost(Why),
}

/// An address that is taken for something else now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Packets can be sent to it for the first time.
    Found,
    /// They can again.
    Back,
    /// They cannot, for this reason.
    Lost(Why),
}

impl Reach {
    /// Takes an address of which nothing is known for good until it is known.
    pub(super) fn assume(&mut self, address: IpAddr) {
        self.0.entry(address).or_insert(Way::Assumed);
    }

    /// Takes all of this; what is taken for something else by that.
    pub(super) fn hear_all(&mut self, told: Told) -> Vec<(IpAddr, News)> {
        let told = told.into_iter();
        told.filter_map(|(address, resolution)| Some((address, self.hear(address, resolution)?)))
            .collect()
    }

    /// Takes what the resolver says now: `None` where nobody asks for the address any more.
    pub(super) fn hear(&mut self, address: IpAddr, resolution: Option<Resolution>) -> Option<News> {
        let Some(resolution) = resolution else {
            self.0.remove(&address);
            return None;
        };
        let old = self.0.remove(&address);
        let (new, news) = match (resolution, old) {
            (Resolution::Resolved(_), None | Some(Way::Awaited(..))) => {
                (Way::Known, Some(News::Found))
            }
            (Resolution::Resolved(_), Some(Way::Lost(_))) => (Way::Known, Some(News::Back)),
            (Resolution::Resolved(_), Some(Way::Assumed | Way::Known | Way::Doubted(..))) => {
                (Way::Known, None)
            }
            (Resolution::Unresolved(why), old) => {
                let new = match old {
                    None => Way::Awaited(Instant::now(), why),
                    Some(Way::Awaited(since, _)) => Way::Awaited(since, why),
                    Some(Way::Assumed | Way::Known) => Way::Doubted(Instant::now(), why),
                    Some(Way::Doubted(since, _)) => Way::Doubted(since, why),
                    Some(Way::Lost(_)) => Way::Lost(why),
                };
                (new, None)
            }
        };
        self.0.insert(address, new);
        news
    }

    /// Believes what has been so for long enough.
    pub(super) fn step(&mut self, now: Instant) -> Vec<(IpAddr, News)> {
        let mut lost = Vec::new();
        for (address, way) in &mut self.0 {
            if let Way::Doubted(since, why) | Way::Awaited(since, why) = way
                && now.saturating_duration_since(*since) >= DOUBT
            {
                lost.push((*address, News::Lost(why.clone())));
                *way = Way::Lost(why.clone());
            }
        }
        lost
    }

    /// Whether it is known, or not expected any more, that packets can be sent to an address.
    pub(super) fn is_settled(&self, address: IpAddr) -> bool {
        matches!(self.0.get(&address), Some(Way::Known | Way::Lost(_)))
    }

    /// What an address is taken for, in the words of health.
    pub(super) fn health(&self, address: IpAddr) -> Health {
        match self.0.get(&address) {
            Some(Way::Assumed | Way::Known | Way::Doubted(..)) => Health::Healthy,
            None | Some(Way::Awaited(..)) => Health::Unknown,
            Some(Way::Lost(_)) => Health::Unhealthy,
        }
    }

    /// Why no packets are to be sent to an address, for people.
    pub(super) fn view(&self, address: IpAddr) -> Option<String> {
        match self.0.get(&address) {
            Some(Way::Assumed | Way::Known | Way::Doubted(..)) => None,
            None => Some("its next hop is not known yet".to_owned()),
            Some(Way::Awaited(_, why)) => Some(format!("its next hop is not known yet: {why}")),
            Some(Way::Lost(why)) => Some(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::next_hop::NextHop;

    const AT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn known() -> Option<Resolution> {
        Some(Resolution::Resolved(NextHop {
            ifindex: 1,
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            vlan: None,
            mtu: 1500,
            on_link: true,
        }))
    }

    fn nobody() -> Why {
        Why::NoNeighbour {
            gateway: AT,
            interface: "eth0".into(),
        }
    }

    fn silent() -> Option<Resolution> {
        Some(Resolution::Unresolved(nobody()))
    }

    #[test]
    fn a_newcomer_is_awaited_and_then_given_up() {
        let mut reach = Reach::default();
        assert_eq!(reach.health(AT), Health::Unknown);
        let began = Instant::now();
        assert_eq!(reach.hear(AT, silent()), None);
        assert_eq!(reach.health(AT), Health::Unknown);
        assert!(!reach.is_settled(AT));
        assert!(reach.step(began + DOUBT / 2).is_empty());
        // Another word of the same does not begin anew.
        assert_eq!(reach.hear(AT, silent()), None);
        let later = Instant::now() + DOUBT;
        assert_eq!(reach.step(later), [(AT, News::Lost(nobody()))]);
        assert_eq!(reach.health(AT), Health::Unhealthy);
        assert_eq!(reach.view(AT).unwrap(), "no answer from 192.0.2.2 on eth0");
        assert!(reach.step(later + DOUBT).is_empty(), "once");
        assert_eq!(reach.hear(AT, known()), Some(News::Back));
        assert_eq!(reach.health(AT), Health::Healthy);
    }

    #[test]
    fn who_was_reached_is_not_doubted_at_once() {
        let mut reach = Reach::default();
        assert_eq!(reach.hear(AT, known()), Some(News::Found));
        assert_eq!(reach.hear(AT, silent()), None);
        assert_eq!(reach.health(AT), Health::Healthy);
        assert_eq!(reach.hear(AT, known()), None);
        assert!(reach.step(Instant::now() + DOUBT).is_empty());
        // Nobody asks any more: a later backend there begins anew.
        assert_eq!(reach.hear(AT, None), None);
        assert_eq!(reach.health(AT), Health::Unknown);
    }

    #[test]
    fn who_is_taken_for_good_has_as_much_time_to_be_found() {
        let mut reach = Reach::default();
        reach.assume(AT);
        assert_eq!(reach.health(AT), Health::Healthy);
        assert!(!reach.is_settled(AT));
        assert_eq!(reach.hear(AT, silent()), None);
        assert_eq!(reach.health(AT), Health::Healthy);
        let later = Instant::now() + DOUBT;
        assert_eq!(reach.step(later), [(AT, News::Lost(nobody()))]);
        assert!(reach.is_settled(AT));
    }
}
