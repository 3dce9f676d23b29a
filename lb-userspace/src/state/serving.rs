//! Which services can be served: for those who decide whether this node holds their addresses.

use std::{collections::BTreeSet, sync::Arc};

use super::owner::Owner;
use crate::ha::Served;

impl Owner {
    /// These services and those of these pools; none where nobody depends on any.
    pub(super) fn depended_on(
        &self,
        services: &BTreeSet<String>,
        pools: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let ha = &self.live.config().ha;
        if ha.routes.is_none() && ha.groups.is_empty() {
            return BTreeSet::new();
        }
        let of_pools = pools.iter().flat_map(|pool| self.live.users(pool));
        let all = services.iter().map(String::as_str).chain(of_pools);
        all.map(str::to_owned).collect()
    }

    /// Tells how it stands with these services, as far as anybody depends on them.
    pub(super) fn tell_of_service(&self, touched: BTreeSet<String>) {
        let ha = &self.live.config().ha;
        let tracked: BTreeSet<&str> = ha.tracked_services().collect();
        let mut news = Vec::new();
        {
            let known = self.serving.borrow();
            for name in touched {
                let new = self.served(&name, tracked.contains(name.as_str()));
                if known.get(&name) != new.as_ref() {
                    news.push((name, new));
                }
            }
        }
        if news.is_empty() {
            return;
        }
        self.serving.send_modify(|known| {
            let known = Arc::make_mut(known);
            for (name, new) in news {
                match new {
                    Some(new) => known.insert(name, new),
                    None => known.remove(&name),
                };
            }
        });
    }

    /// `None` where there is no such service, or nobody depends on it.
    fn served(&self, name: &str, tracked: bool) -> Option<Served> {
        let config = self.live.config();
        let service = config.services.get(name)?;
        if !tracked && !config.ha.is_announced(service.address) {
            return None;
        }
        let conditions = |pool: &str| self.conditions.get(pool);
        let takes_flows = |pool: &str| {
            let up = conditions(pool).is_some_and(|pool| !pool.cut_off);
            let backends = self.desired.pools.get(pool).filter(|_| up);
            backends.is_some_and(|all| all.values().any(|backend| backend.takes_flows()))
        };
        Some(Served {
            address: service.address,
            usable: service.pools().any(takes_flows),
            checked: service
                .pools()
                .all(|pool| conditions(pool).is_some_and(|is| is.checked)),
            healthy: (service.pools()).any(|pool| conditions(pool).is_some_and(|is| is.healthy)),
        })
    }
}
