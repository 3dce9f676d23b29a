//! What of a service lives on when it is compiled anew: who has asked how often, who is connected,
//! the log.

use std::sync::Arc;

use super::{
    access_log::{AccessLog, Writers},
    limits::{ClientConnections, RateLimiter},
    route::Table,
    snapshot::Service,
};
use crate::config::http::{Http, RateLimit};

/// A rate limit of a route.
#[derive(Clone)]
pub(crate) struct Rate {
    /// What it is.
    pub(crate) config: RateLimit,
    /// Whether it is the route's own, and not the service's.
    own: bool,
    /// Who has asked how often.
    pub(crate) limiter: Arc<RateLimiter>,
}

/// The limits of each route, by its number; those that are as they were go on.
pub(crate) fn rates(http: &Http, routes: &Table, old: Option<&Service>) -> Vec<Vec<Rate>> {
    let was = |name: &str| {
        let old = old?;
        let route = old
            .routes
            .routes()
            .iter()
            .find(|route| route.name == name)?;
        old.rates.get(route.number)
    };
    let rate = |config: &RateLimit, own: bool, name: &str| {
        let same = |old: &&Rate| old.own == own && old.config == *config;
        let limiter = match was(name).and_then(|rates| rates.iter().find(same)) {
            Some(old) => old.limiter.clone(),
            None => Arc::new(RateLimiter::new(config)),
        };
        Rate {
            config: config.clone(),
            own,
            limiter,
        }
    };
    let shared: Vec<Rate> = http
        .rate_limits
        .iter()
        .map(|limit| rate(limit, false, ""))
        .collect();
    let of_route = |name: &str| {
        let own = http.routes.get(name).map(|route| &*route.rate_limits);
        let own = own
            .unwrap_or_default()
            .iter()
            .map(|limit| rate(limit, true, name));
        shared.iter().cloned().chain(own).collect()
    };
    routes
        .routes()
        .iter()
        .map(|route| of_route(&route.name))
        .collect()
}

/// Who is connected.
pub(crate) fn clients(old: Option<&Service>) -> Arc<ClientConnections> {
    old.map(|old| old.clients.clone()).unwrap_or_default()
}

/// The log.
pub(crate) fn log(
    http: &Http,
    old: Option<&Service>,
    writers: &mut Writers,
) -> anyhow::Result<Option<Arc<AccessLog>>> {
    let Some(config) = &http.access_log else {
        return Ok(None);
    };
    if let Some(old) = old.filter(|old| old.http.access_log.as_ref() == Some(config)) {
        return Ok(old.log.clone());
    }
    let log = AccessLog::new(config, writers)
        .map_err(|error| anyhow::anyhow!("the access log {}: {error}", config.to))?;
    Ok(Some(Arc::new(log)))
}
