//! The addresses to resolve, and which of them a notification concerns: a pass looks at those alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::{Bound, RangeInclusive},
};

use super::{
    Resolution, Told,
    links::Links,
    neighbours::{Key, Neighbours},
    resolve::resolve,
    routes::Route,
};

/// All targets.
#[derive(Default)]
pub(super) struct Targets {
    all: BTreeMap<IpAddr, Target>,
    /// By the neighbour that they depend on, usable or not.
    by_neighbour: HashMap<Key, BTreeSet<IpAddr>>,
    /// Those whose routes are to be looked up.
    unknown: BTreeSet<IpAddr>,
    /// Those whose resolution may be another now.
    stale: BTreeSet<IpAddr>,
    /// Those that are none any more, of which that was not told.
    gone: BTreeSet<IpAddr>,
    /// The last one whose route was looked up again.
    checked: Option<IpAddr>,
}

#[derive(Default)]
struct Target {
    route: Option<Route>,
    needs: Option<Key>,
    /// As it was told.
    resolution: Option<Resolution>,
}

/// What a pass has changed.
#[derive(Default)]
pub(super) struct Outcome {
    /// Targets that are resolved otherwise now.
    pub(super) told: Told,
    /// Whether one of them was resolved before.
    pub(super) moved: bool,
    /// Neighbours that targets have begun to depend on.
    pub(super) needed: Vec<Key>,
    /// Neighbours that none depends on any more.
    pub(super) unneeded: Vec<Key>,
}

impl Targets {
    pub(super) fn add(&mut self, address: IpAddr) {
        if self.gone.remove(&address) || !self.all.contains_key(&address) {
            self.all.entry(address).or_default();
            self.unknown.insert(address);
            self.stale.insert(address);
        }
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        if self.all.contains_key(&address) {
            self.unknown.remove(&address);
            self.stale.remove(&address);
            self.gone.insert(address);
        }
    }

    pub(super) fn needs(&self, key: &Key) -> bool {
        self.by_neighbour.contains_key(key)
    }

    /// A neighbour's MAC address is another now.
    pub(super) fn neighbour_changed(&mut self, key: &Key) {
        if let Some(targets) = self.by_neighbour.get(key) {
            self.stale.extend(targets);
        }
    }

    /// The routes of these may be others now.
    pub(super) fn forget_routes(&mut self, range: RangeInclusive<IpAddr>) {
        let covered = self.all.range(range).map(|(address, _)| *address);
        self.unknown.extend(covered);
    }

    /// All may be otherwise now.
    pub(super) fn forget_all(&mut self) {
        self.unknown.extend(self.all.keys());
        self.stale.extend(self.all.keys());
    }

    /// Those whose routes are to be looked up now.
    pub(super) fn unknown(&self) -> Vec<IpAddr> {
        self.unknown.difference(&self.gone).copied().collect()
    }

    /// The next ones, in turn, whose routes are looked up again although nothing speaks for it.
    pub(super) fn check(&mut self, rounds: usize, most: usize) -> Vec<IpAddr> {
        let count = self.all.len().div_ceil(rounds.max(1)).min(most);
        let after = self.checked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.all.range((after, Bound::Unbounded)).take(count);
        let next: Vec<IpAddr> = next.map(|(address, _)| *address).collect();
        // Fewer are left: it begins anew.
        self.checked = next.last().copied().filter(|_| next.len() == count);
        next
    }

    /// Takes the kernel's answer; whether it is another than before.
    pub(super) fn found(&mut self, address: IpAddr, route: Route) -> bool {
        self.unknown.remove(&address);
        let Some(target) = self.all.get_mut(&address) else {
            return false;
        };
        let new = Some(route);
        if target.route == new {
            return false;
        }
        target.route = new;
        self.stale.insert(address);
        true
    }

    /// Resolves what may be otherwise now.
    pub(super) fn resolve(&mut self, links: &Links, neighbours: &Neighbours) -> Outcome {
        let mut outcome = Outcome::default();
        for address in std::mem::take(&mut self.gone) {
            if let Some(target) = self.all.remove(&address) {
                self.depend(address, target.needs, None, &mut outcome);
                if target.resolution.is_some() {
                    outcome.told.push((address, None));
                }
            }
        }
        for address in std::mem::take(&mut self.stale) {
            let Some(target) = self.all.get_mut(&address) else {
                continue;
            };
            let Some(route) = &target.route else {
                continue;
            };
            let (needs, resolution) = resolve(address, route, links, neighbours);
            let before = std::mem::replace(&mut target.needs, needs);
            if target.resolution.as_ref() != Some(&resolution) {
                outcome.moved |= target.resolution.is_some();
                target.resolution = Some(resolution.clone());
                outcome.told.push((address, Some(resolution)));
            }
            self.depend(address, before, needs, &mut outcome);
        }
        outcome
    }

    fn depend(
        &mut self,
        address: IpAddr,
        old: Option<Key>,
        new: Option<Key>,
        outcome: &mut Outcome,
    ) {
        if old == new {
            return;
        }
        if let Some(key) = old
            && let Some(targets) = self.by_neighbour.get_mut(&key)
        {
            targets.remove(&address);
            if targets.is_empty() {
                self.by_neighbour.remove(&key);
                outcome.unneeded.push(key);
            }
        }
        if let Some(key) = new {
            let targets = self.by_neighbour.entry(key).or_default();
            if targets.is_empty() {
                outcome.needed.push(key);
            }
            targets.insert(address);
        }
    }

    /// How many the next pass looks at.
    #[cfg(test)]
    pub(super) fn work(&self) -> usize {
        self.stale
            .union(&self.unknown)
            .chain(&self.gone)
            .collect::<BTreeSet<_>>()
            .len()
    }
}
