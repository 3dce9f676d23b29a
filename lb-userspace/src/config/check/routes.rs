//! Rules of announced VIPs.

use std::collections::BTreeSet;

use super::Problems;
use crate::config::{
    ha::{Ha, Routes},
    problem::join,
};

pub(super) fn check(problems: &mut Problems, ha: &Ha, routes: &Routes) {
    let path = "ha.routes";
    problems.check_interface(join(path, "interface"), &routes.interface);
    problems.check_duration(path, "grace", routes.grace);
    problems.check_lease(path, routes.lease);
    let vips = routes.vips.as_deref();
    if vips.is_some_and(<[_]>::is_empty) {
        let expected = "at least one VIP; leave it out to announce those of all services";
        problems.add(join(path, "vips"), "[]", expected);
    }
    let mut seen = BTreeSet::new();
    for (index, &vip) in vips.unwrap_or_default().iter().enumerate() {
        let field = format!("{path}.vips[{index}]");
        problems.check_host(field.clone(), vip, vip);
        if !seen.insert(vip) {
            problems.add(&field, vip, "each address only once");
        }
        if let Some(group) = ha.group_of(vip) {
            let group = join("ha.groups", group);
            let expected = format!("an address that no group holds: {group} has it");
            problems.add(field, vip, expected);
        }
    }
}
