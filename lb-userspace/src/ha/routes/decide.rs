//! Which VIPs this node announces, and why not the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::super::Serving;
use crate::config::{
    Ha,
    ha::{Announce, Routes},
};

/// What is to be done about a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) announce: bool,
    pub(super) reason: String,
}

/// Decides about every VIP. `obstacle`: why this node can serve nothing. `begun`: VIPs whose
/// backends have all been checked once; newcomers are added.
pub(super) fn decide(
    ha: &Ha,
    routes: &Routes,
    serving: &Serving,
    obstacle: Option<&str>,
    begun: &mut BTreeSet<IpAddr>,
) -> BTreeMap<IpAddr, Decision> {
    let mut services: BTreeMap<IpAddr, Vec<(&str, bool)>> = BTreeMap::new();
    for vip in routes.vips.iter().flatten() {
        services.entry(*vip).or_default();
    }
    let mut unchecked: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, service) in serving.iter() {
        if ha.is_announced(service.address) {
            if !service.checked {
                unchecked.insert(service.address, name);
            }
            let of_vip = services.entry(service.address).or_default();
            of_vip.push((name, service.healthy));
        }
    }
    let mut decide = |(vip, services): (IpAddr, Vec<(&str, bool)>)| {
        let waits = unchecked.get(&vip).filter(|_| !begun.contains(&vip));
        if waits.is_none() && !services.is_empty() {
            begun.insert(vip);
        }
        let (announce, reason) = match (obstacle, waits) {
            (Some(obstacle), _) => (false, obstacle.to_owned()),
            (_, Some(name)) => (false, format!("not all backends are checked yet: {name}")),
            _ => judge(routes.announce, &services),
        };
        (vip, Decision { announce, reason })
    };
    services.into_iter().map(&mut decide).collect()
}

fn judge(policy: Announce, services: &[(&str, bool)]) -> (bool, String) {
    let names = |healthy| {
        let names = services.iter().filter(|(_, is)| *is == healthy);
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let healthy = services.iter().filter(|(_, healthy)| *healthy).count();
    match policy {
        _ if services.is_empty() => (false, "no service has this address".to_owned()),
        Announce::Always => (true, "the data path is attached".to_owned()),
        Announce::Any if healthy > 0 => (true, format!("healthy backends: {}", names(true))),
        Announce::Every if healthy == services.len() => {
            (true, format!("healthy backends: {}", names(true)))
        }
        _ => (false, format!("no healthy backend: {}", names(false))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{config::from_toml, ha::Served};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));

    fn decisions(
        ha: &str,
        serving: &[(&str, IpAddr, bool)],
        obstacle: Option<&str>,
    ) -> BTreeMap<IpAddr, Decision> {
        let ha: Ha = from_toml(ha.as_bytes()).expect("it is right");
        let routes = ha.routes.clone().expect("there are routes");
        let serving = serving.iter().map(|(name, address, healthy)| {
            let served = Served {
                address: *address,
                // What has not been checked may be used, and is not yet healthy.
                usable: true,
                healthy: *healthy,
                checked: true,
            };
            ((*name).to_owned(), served)
        });
        let serving = Arc::new(serving.collect());
        decide(&ha, &routes, &serving, obstacle, &mut BTreeSet::new())
    }

    fn announced(ha: &str, serving: &[(&str, IpAddr, bool)]) -> Vec<IpAddr> {
        let all = decisions(ha, serving, None).into_iter();
        all.filter_map(|(vip, decision)| decision.announce.then_some(vip))
            .collect()
    }

    #[test]
    fn policies_differ_where_one_of_two_services_is_down() {
        let serving = [("web", VIP, true), ("db", VIP, false)];
        assert_eq!(announced("[routes]", &serving), [VIP]);
        assert!(announced("[routes]\nannounce = \"every\"", &serving).is_empty());
        assert_eq!(
            announced("[routes]\nannounce = \"always\"", &serving),
            [VIP]
        );
    }

    #[test]
    fn nothing_healthy_is_announced_only_where_wanted() {
        let serving = [("web", VIP, false), ("db", VIP, false)];
        let decided = &decisions("[routes]", &serving, None)[&VIP];
        assert_eq!(decided.reason, "no healthy backend: db, web");
        assert!(!decided.announce);
        assert!(announced("[routes]\nannounce = \"every\"", &serving).is_empty());
        assert_eq!(
            announced("[routes]\nannounce = \"always\"", &serving),
            [VIP]
        );
    }

    #[test]
    fn an_obstacle_beats_every_policy() {
        let serving = [("web", VIP, true)];
        let ha = "[routes]\nannounce = \"always\"";
        let decided = &decisions(ha, &serving, Some("eth0 has no XDP program"))[&VIP];
        assert!(!decided.announce);
        assert_eq!(decided.reason, "eth0 has no XDP program");
    }

    /// On a node that starts; later a backend that is added need not wait.
    #[test]
    fn every_backend_is_checked_first() {
        let ha: Ha = from_toml(b"[routes]\nannounce = \"always\"").expect("it is right");
        let routes = ha.routes.clone().expect("there are routes");
        let mut begun = BTreeSet::new();
        let mut announces = |checked| {
            let served = Served {
                address: VIP,
                usable: true,
                healthy: true,
                checked,
            };
            let serving = Arc::new(BTreeMap::from([("web".to_owned(), served)]));
            decide(&ha, &routes, &serving, None, &mut begun)[&VIP].announce
        };
        assert_eq!(
            [false, true, false].map(&mut announces),
            [false, true, true]
        );
    }

    #[test]
    fn vips_are_those_listed_or_those_that_no_group_holds() {
        let serving = [("web", VIP, true), ("dns", OTHER, true)];
        let group = "[groups.front]\nvrid = 1\ninterface = \"eth0\"\naddresses = [\"203.0.113.2\"]";
        assert_eq!(announced(&format!("{group}\n[routes]"), &serving), [VIP]);
        let listed = "[routes]\nvips = [\"203.0.113.2\", \"203.0.113.3\"]";
        assert_eq!(announced(listed, &serving), [OTHER]);
        let all = decisions(listed, &serving, None);
        let unused: IpAddr = [203, 0, 113, 3].into();
        assert_eq!(all[&unused].reason, "no service has this address");
        assert!(!all.contains_key(&VIP));
    }
}
