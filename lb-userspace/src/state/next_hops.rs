//! What the owner does about backends' next hops: it waits for them where nobody else could serve,
//! and follows them.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::block_in_place, time::timeout};

use super::{apply::is_forwarded, owner::Owner, reach::News};
use crate::{
    config::Touched,
    desired::Condition,
    events::{self, Kind},
    health::Health,
};

/// Longest wait for next hops before packets are taken.
const AT_START: Duration = Duration::from_secs(1);
/// Longest wait before a change that leaves a pool to newcomers.
const BEFORE_A_CHANGE: Duration = Duration::from_millis(300);
/// After such a wait in vain, none for as long: many changes with addresses that nobody has are not
/// to take a wait each.
const REST: Duration = Duration::from_secs(10);

impl Owner {
    /// Learns the next hops of all that packets are to be forwarded to, for a while. What an
    /// earlier agent forwarded to is taken for good until it is known, and so is what the
    /// resolver has not come to.
    pub(super) fn wait_at_start(&mut self) {
        let mut addresses = BTreeSet::new();
        let pools = self.live.config().pools.iter();
        for (name, pool) in pools.filter(|(name, _)| is_forwarded(&self.live, name)) {
            for (backend, config) in &pool.backends {
                let at = (config.address.ip(), config.address.port());
                addresses.insert(at.0);
                let inherited = self.dataplane.inherited(name, backend, at);
                if matches!(inherited, Some(Condition::InUse | Condition::Draining)) {
                    self.reach.assume(at.0);
                }
            }
        }
        self.dataplane.expect(addresses.clone());
        self.wait_for(addresses.clone(), AT_START);
        for address in addresses {
            self.reach.assume(address);
        }
    }

    /// Waits where a change that is about to be made leaves a pool to backends whose next hops are
    /// not known yet: packets to them would be dropped until they are.
    pub(super) fn wait_for_newcomers(&mut self, touched: &Touched) {
        if self.in_vain.is_some_and(|last| last.elapsed() < REST) {
            return;
        }
        let services = touched.services.iter();
        let services = services.filter_map(|name| self.live.config().services.get(name));
        let mut pools: BTreeSet<&str> = services.flat_map(|service| service.pools()).collect();
        pools.extend(touched.pools.keys().map(String::as_str));
        let newcomers = pools
            .into_iter()
            .flat_map(|pool| self.newcomers_alone(pool));
        let newcomers: BTreeSet<IpAddr> = newcomers.collect();
        if newcomers.is_empty() {
            return;
        }
        self.dataplane.expect(newcomers.clone());
        if !self.wait_for(newcomers, BEFORE_A_CHANGE) {
            self.in_vain = Some(Instant::now());
        }
    }

    /// Addresses of a pool's backends that nothing is known of yet, if nobody of it is better.
    fn newcomers_alone(&self, name: &str) -> BTreeSet<IpAddr> {
        let mut newcomers = BTreeSet::new();
        let pool = self.live.config().pools.get(name);
        let Some(pool) = pool.filter(|_| is_forwarded(&self.live, name)) else {
            return newcomers;
        };
        for (backend, config) in &pool.backends {
            if config.weight == 0 || self.drains.stage(name, backend).is_some() {
                continue;
            }
            let (checks, _) = self.verdicts.checks(name, pool, backend);
            match (checks, self.reach.health(config.address.ip())) {
                (Health::Healthy, Health::Healthy) => return BTreeSet::new(),
                (Health::Healthy | Health::Unknown, Health::Unknown) => {
                    newcomers.insert(config.address.ip());
                }
                _ => {}
            }
        }
        newcomers
    }

    /// Whether all of these have a next hop, or are known to have none, in time.
    fn wait_for(&mut self, mut addresses: BTreeSet<IpAddr>, patience: Duration) -> bool {
        let Self {
            reach,
            resolutions,
            heard,
            ..
        } = self;
        let settled = async {
            loop {
                addresses.retain(|address| !reach.is_settled(*address));
                if addresses.is_empty() {
                    return;
                }
                let Some(told) = resolutions.recv().await else {
                    return;
                };
                heard.extend(reach.hear_all(told));
            }
        };
        block_in_place(|| {
            Handle::current().block_on(async { timeout(patience, settled).await.is_ok() })
        })
    }

    /// Once a second: what has had no next hop for long enough gets no new flows.
    pub(super) fn give_up(&mut self) {
        self.heard.extend(self.reach.step(Instant::now()));
        self.follow_heard();
    }

    /// Has the data path follow what was heard of next hops.
    pub(super) fn follow_heard(&mut self) {
        let mut pools = BTreeSet::new();
        for (address, news) in std::mem::take(&mut self.heard) {
            for (pool, backend) in self.dataplane.backends_at(address) {
                if !is_forwarded(&self.live, &pool) {
                    continue;
                }
                let subject = format_args!("{pool}/{backend}");
                match &news {
                    News::Found => {}
                    News::Back => events::info(Kind::Health, subject, "can be reached again"),
                    News::Lost(why) => {
                        let text = format_args!("cannot be reached: {why}");
                        events::warn(Kind::Health, subject, text);
                    }
                }
                pools.insert(pool.to_string());
            }
        }
        if !pools.is_empty() {
            self.follow(pools);
        }
    }
}
