//! What the demo knows at one moment.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Result;
use lab::load::{Load, Results};

use super::{
    admin::{Admin, Backend, Drops},
    front::FRONTS,
};

/// Everything at one moment, since the start.
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) services: Vec<Service>,
    /// Dropped packets of all services and of none, by reason.
    pub(super) drops: Drops,
}

/// A service as its clients and the agent see it.
pub(super) struct Service {
    pub(super) name: &'static str,
    /// The port that its backends serve it on.
    pub(super) port: u16,
    pub(super) results: Results,
    pub(super) backends: BTreeMap<String, Backend>,
}

impl Sample {
    /// `loads` are those of the services, in their order.
    pub(super) async fn take(loads: &[Load], admin: &Admin) -> Result<Self> {
        let mut drops = admin.status().await?.drops;
        for service in admin.services().await?.into_values() {
            for (reason, packets) in service.counters.drops {
                *drops.entry(reason).or_default() += packets;
            }
        }
        let mut pools = admin.pools().await?;
        let services = FRONTS.iter().zip(loads).map(|(front, load)| Service {
            name: front.name,
            port: front.port,
            results: load.results(),
            // Whoever tries things out may have removed it.
            backends: pools
                .remove(front.name)
                .map_or_else(BTreeMap::new, |pool| pool.backends),
        });
        Ok(Self {
            services: services.collect(),
            at: Instant::now(),
            drops,
        })
    }

    /// What became of all requests.
    pub(super) fn total(&self) -> Results {
        total(self.services.iter().map(|service| &service.results))
    }
}

/// The sum of several loads' results.
pub(super) fn total<'a>(results: impl IntoIterator<Item = &'a Results>) -> Results {
    let mut total = Results::default();
    for one in results {
        total.requests += one.requests;
        total.failed += one.failed;
        total.retried += one.retried;
        total.failures.extend_from_slice(&one.failures);
        for (backend, answered) in &one.by_backend {
            *total.by_backend.entry(backend.clone()).or_default() += answered;
        }
    }
    total
}

/// What came to the results since then; without the reasons of failures.
pub(super) fn since(before: &Results, now: &Results) -> Results {
    let by_backend = now.by_backend.iter().map(|(backend, answered)| {
        let before = before.by_backend.get(backend).unwrap_or(&0);
        (backend.clone(), answered - before)
    });
    Results {
        requests: now.requests - before.requests,
        failed: now.failed - before.failed,
        retried: now.retried - before.retried,
        failures: Vec::new(),
        by_backend: by_backend.collect(),
    }
}
