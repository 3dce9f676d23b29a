//! What is known of each backend's health, by pool and backend: what this node's checks say, and
//! what is acted on, which is the majority's word where nodes agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    agreement::Agreement,
    handover::KnownHealth,
    view::{HealthView, HereView},
};
use crate::{
    config::{Config, Pool},
    dataplane::DataPlane,
    desired::Condition,
    events::{self, Kind},
    health::{
        Change, Health,
        vote::{Candidate, Tally},
    },
    shared::Counted,
};

/// What is known of each backend of which anything is.
#[derive(Default)]
pub(super) struct Verdicts {
    all: BTreeMap<String, BTreeMap<String, Verdict>>,
    /// Where nodes agree: then there is a verdict on every backend that is checked.
    pub(super) agreement: Option<Agreement>,
}

struct Verdict {
    address: SocketAddr,
    /// What this node's checks said last.
    here: Option<Here>,
    /// What is acted on.
    health: Health,
    since: SystemTime,
    /// Whether it has ever been taken for healthy.
    lived: bool,
}

struct Here {
    health: Health,
    reason: String,
    since: SystemTime,
}

impl Verdict {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            here: None,
            health: Health::Unknown,
            since: SystemTime::now(),
            lived: false,
        }
    }

    /// Whether `health` is another than what was acted on.
    fn act_on(&mut self, health: Health) -> bool {
        self.lived |= health == Health::Healthy;
        let news = std::mem::replace(&mut self.health, health) != health;
        if news {
            self.since = SystemTime::now();
        }
        news
    }

    fn here(&self) -> Health {
        self.here
            .as_ref()
            .map_or(Health::Unknown, |here| here.health)
    }
}

impl Verdicts {
    /// Notes a verdict of this node's checks on the backend that is at an address now.
    pub(super) fn note(&mut self, change: Change, address: SocketAddr) {
        if let Some(agreement) = &self.agreement {
            let candidate = Candidate::new(&change.pool, &change.backend, address);
            agreement.cast(candidate, Some(change.health == Health::Healthy));
        }
        self.know(change, address);
    }

    fn know(&mut self, change: Change, address: SocketAddr) {
        let pool = self.all.entry(change.pool).or_default();
        let verdict = pool.entry(change.backend);
        let verdict = verdict.or_insert_with(|| Verdict::new(address));
        verdict.address = address;
        let here = Here {
            health: change.health,
            reason: change.reason,
            since: SystemTime::now(),
        };
        verdict.here = Some(here);
        // Where nodes agree, it counts when it has come back from etcd.
        if !self.agreement.as_ref().is_some_and(Agreement::in_force) {
            verdict.act_on(change.health);
        }
    }

    /// Begins with what an earlier agent has seen last, until the first checks have ended: so
    /// that what has failed is not used again meanwhile, and what works is used on.
    pub(super) fn inherit(&mut self, config: &Config, dataplane: &DataPlane) {
        let pools = config.pools.iter();
        for (name, pool) in pools.filter(|(_, pool)| pool.health_check.is_some()) {
            for (backend, config) in &pool.backends {
                let at = (config.address.ip(), config.address.port());
                let health = match dataplane.inherited(name, backend, at) {
                    Some(Condition::InUse) => Health::Healthy,
                    Some(Condition::Dead | Condition::Absent) => Health::Unhealthy,
                    Some(Condition::Draining) | None => continue,
                };
                let change = Change {
                    pool: name.clone(),
                    backend: backend.clone(),
                    health,
                    reason: "as the agent before this one saw it".to_owned(),
                };
                // No vote: it is not what this node sees now.
                self.know(change, config.address);
                let verdicts = self.all.get_mut(name);
                if let Some(verdict) = verdicts.and_then(|all| all.get_mut(backend)) {
                    verdict.act_on(health);
                    // It may have had connections then.
                    verdict.lived = true;
                }
            }
        }
    }

    /// The last verdict of this node's checks on a backend, for the agent that takes over.
    pub(super) fn known(&self, pool: &str, backend: &str) -> Option<KnownHealth> {
        let verdict = self.get(pool, backend)?;
        let here = verdict.here.as_ref()?;
        Some(KnownHealth {
            address: verdict.address,
            health: here.health,
            lived: verdict.lived,
            reason: here.reason.clone(),
            since: here.since,
        })
    }

    /// Notes what [`Verdicts::known`] said at the agent before this one.
    pub(super) fn learn(&mut self, pool: String, backend: String, known: KnownHealth) {
        let change = Change {
            pool: pool.clone(),
            backend: backend.clone(),
            health: known.health,
            reason: known.reason,
        };
        self.note(change, known.address);
        let verdicts = self.all.get_mut(&pool);
        if let Some(verdict) = verdicts.and_then(|all| all.get_mut(&backend)) {
            verdict.lived = known.lived;
            verdict.since = known.since;
            if let Some(here) = &mut verdict.here {
                here.since = known.since;
            }
        }
    }

    /// Where nodes agree: looks for votes on a pool's touched backends (`None`: on all) that
    /// are new; whether any of them is acted on now.
    pub(super) fn find_votes(
        &mut self,
        name: &str,
        pool: Option<&Pool>,
        touched: Option<&BTreeSet<String>>,
    ) -> bool {
        let checked = pool.filter(|pool| pool.health_check.is_some());
        let (Some(agreement), Some(pool)) = (&mut self.agreement, checked) else {
            return false;
        };
        let of_pool = self.all.entry(name.to_owned()).or_default();
        let mut news = false;
        let mut find = |backend: &String| {
            let Some(config) = pool.backends.get(backend) else {
                return;
            };
            let verdict = of_pool.entry(backend.clone());
            let verdict = verdict.or_insert_with(|| Verdict::new(config.address));
            let candidate = Candidate::new(name, backend, verdict.address);
            agreement.know(candidate, name, backend);
            if let Some(health) = agreement.verdict(candidate) {
                news |= verdict.act_on(health);
            }
        };
        match touched {
            None => pool.backends.keys().for_each(&mut find),
            Some(touched) => touched.iter().for_each(&mut find),
        }
        news
    }

    /// Takes what was counted; pools with a backend that is taken for something else by that.
    pub(super) fn count(&mut self, counted: Counted) -> BTreeSet<String> {
        match counted {
            Counted::Votes(votes) => (votes.into_iter())
                .filter_map(|(candidate, tally)| self.tally(candidate, tally))
                .collect(),
            Counted::Agreed(agreed) => self.set_in_force(agreed),
        }
    }

    /// Takes the votes on a candidate; its pool, if it is taken for something else by them.
    fn tally(&mut self, candidate: Candidate, tally: Tally) -> Option<String> {
        let agreement = self.agreement.as_mut()?;
        agreement.set(candidate, tally);
        let (pool, backend) = agreement.name(candidate)?;
        let verdict = self.all.get_mut(pool)?.get_mut(backend)?;
        let health = agreement.verdict(candidate)?;
        if !verdict.act_on(health) {
            return None;
        }
        let Tally { healthy, .. } = tally;
        events::info(
            Kind::Health,
            format_args!("{pool}/{backend}"),
            format_args!(
                "agreed {health}: healthy for {healthy} of {} nodes",
                tally.total()
            ),
        );
        Some(pool.clone())
    }

    /// Acts on what nodes agree on from now on, or on this one's own checks; pools with a backend
    /// that is taken for something else by that.
    fn set_in_force(&mut self, agreed: bool) -> BTreeSet<String> {
        let mut pools = BTreeSet::new();
        let Some(agreement) = &mut self.agreement else {
            return pools;
        };
        agreement.set_in_force(agreed);
        for (pool, verdicts) in &mut self.all {
            for (backend, verdict) in verdicts {
                let health = match agreed {
                    true => agreement.verdict(Candidate::new(pool, backend, verdict.address)),
                    false => verdict.here.as_ref().map(|here| here.health),
                };
                if health.is_some_and(|health| verdict.act_on(health)) {
                    pools.insert(pool.clone());
                }
            }
        }
        pools
    }

    /// Forgets verdicts on what of a pool's touched backends (`None`: of all) is not checked any
    /// more, or is another server now; whether there were any.
    pub(super) fn keep(
        &mut self,
        name: &str,
        pool: Option<&Pool>,
        touched: Option<&BTreeSet<String>>,
    ) -> bool {
        let Some(verdicts) = self.all.get_mut(name) else {
            return false;
        };
        let agreement = &mut self.agreement;
        let mut forgot = false;
        let checked = pool.filter(|pool| pool.health_check.is_some());
        let mut same = |backend: &str, verdict: &Verdict| {
            let config = checked.and_then(|pool| pool.backends.get(backend));
            let same = config.is_some_and(|config| config.address == verdict.address);
            if !same {
                forgot |= verdict.health != Health::Unknown;
                if let Some(agreement) = agreement {
                    agreement.forget(Candidate::new(name, backend, verdict.address));
                }
            }
            same
        };
        match touched {
            None => verdicts.retain(|backend, verdict| same(backend, verdict)),
            Some(touched) => {
                for backend in touched {
                    if verdicts
                        .get(backend)
                        .is_some_and(|verdict| !same(backend, verdict))
                    {
                        verdicts.remove(backend);
                    }
                }
            }
        }
        if verdicts.is_empty() {
            self.all.remove(name);
        }
        forgot
    }

    fn get(&self, pool: &str, backend: &str) -> Option<&Verdict> {
        self.all.get(pool)?.get(backend)
    }

    /// What a pool's backend is taken for by its checks, and what this node's own say of it; where
    /// there are none, it is healthy.
    pub(super) fn checks(&self, name: &str, pool: &Pool, backend: &str) -> (Health, Health) {
        if pool.health_check.is_none() {
            return (Health::Healthy, Health::Healthy);
        }
        let verdict = self.get(name, backend);
        verdict.map_or((Health::Unknown, Health::Unknown), |verdict| {
            (verdict.health, verdict.here())
        })
    }

    /// Whether a backend has ever been taken for healthy.
    pub(super) fn lived(&self, pool: &str, backend: &str) -> bool {
        self.get(pool, backend).is_some_and(|verdict| verdict.lived)
    }

    /// For people.
    pub(super) fn view(&self, pool: &str, backend: &str, checked: bool) -> HealthView {
        if !checked {
            return HealthView::new(word(None), "the pool has no health check".to_owned(), None);
        }
        const NO_CHECK: &str = "no check has ended yet";
        let verdict = self.get(pool, backend);
        let here = verdict.and_then(|verdict| verdict.here.as_ref());
        let here = HereView {
            status: word(Some(here.map_or(Health::Unknown, |here| here.health))),
            reason: here.map_or_else(|| NO_CHECK.to_owned(), |here| here.reason.clone()),
            since: here.map(|here| seconds(here.since)),
        };
        let agreement = self.agreement.as_ref();
        let agreed = verdict.zip(agreement.filter(|agreement| agreement.in_force()));
        let Some((verdict, agreement)) = agreed else {
            return HealthView::new(here.status, here.reason, here.since);
        };
        let votes = agreement.tally(Candidate::new(pool, backend, verdict.address));
        let reason = match (verdict.here() == verdict.health, votes.total()) {
            (true, _) | (_, 0) => here.reason.clone(),
            (false, all) => format!("healthy for {} of {all} nodes", votes.healthy),
        };
        let since = (verdict.health != Health::Unknown).then(|| seconds(verdict.since));
        HealthView {
            here: Some(here),
            votes: Some(votes),
            ..HealthView::new(word(Some(verdict.health)), reason, since)
        }
    }
}

fn word(health: Option<Health>) -> String {
    health.map_or_else(|| "unchecked".to_owned(), |health| health.to_string())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
