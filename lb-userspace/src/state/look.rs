//! What the owner shows, for the price of what is asked for.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Refused,
    owner::Owner,
    view::{BackendView, PoolView, ServiceView, StatusView},
};
use crate::config::{Backend, Pool, Service};

impl Owner {
    pub(super) fn status(&self) -> anyhow::Result<StatusView> {
        let config = self.live.config();
        let pools = self.desired.pools.values();
        let in_use = pools.flat_map(|pool| pool.values());
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: (Instant::now() - self.started).as_secs(),
            interfaces: self.dataplane.attachments().to_vec(),
            services: config.services.len(),
            pools: config.pools.len(),
            backends: config.pools.values().map(|pool| pool.backends.len()).sum(),
            backends_in_use: in_use.filter(|backend| backend.takes_flows()).count(),
            drops: self.dataplane.unmatched_drops()?,
            flows: self.dataplane.flow_counters(),
            traces: self.proxy.traces(),
        })
    }

    pub(super) fn services(&self) -> anyhow::Result<BTreeMap<String, ServiceView>> {
        let services = self.live.config().services.iter();
        services
            .map(|(name, service)| Ok((name.clone(), self.service_view(name, service)?)))
            .collect()
    }

    pub(super) fn service(&self, name: &str) -> anyhow::Result<Option<ServiceView>> {
        let service = self.live.config().services.get(name);
        service
            .map(|service| self.service_view(name, service))
            .transpose()
    }

    fn service_view(&self, name: &str, service: &Service) -> anyhow::Result<ServiceView> {
        let packets = self.desired.services.get(name);
        let local = self.desired.local.get(name).map(|local| &local.pool);
        let served_by = packets.map(|packets| &packets.pool).or(local);
        Ok(ServiceView {
            config: service.clone(),
            served_by: served_by.unwrap_or(&service.pool).clone(),
            counters: self.dataplane.service_counters(name)?,
            http: self.proxy.service_counters(name),
            certificates: self.proxy.certificates(name),
            log_dropped: self.proxy.log_dropped(name),
        })
    }

    pub(super) fn pools(&self) -> anyhow::Result<BTreeMap<String, PoolView>> {
        let pools = self.live.config().pools.iter();
        pools
            .map(|(name, pool)| Ok((name.clone(), self.pool_view(name, pool)?)))
            .collect()
    }

    pub(super) fn pool(&self, name: &str) -> anyhow::Result<Option<PoolView>> {
        let pool = self.live.config().pools.get(name);
        pool.map(|pool| self.pool_view(name, pool)).transpose()
    }

    fn pool_view(&self, name: &str, pool: &Pool) -> anyhow::Result<PoolView> {
        let backends = pool.backends.iter().map(|(backend, config)| {
            let view = self.backend_view((name, pool), (backend, config))?;
            Ok((backend.clone(), view))
        });
        let conditions = self.conditions.get(name);
        Ok(PoolView {
            config: pool.clone(),
            below_health_floor: conditions.is_some_and(|pool| pool.below_floor),
            backends: backends.collect::<anyhow::Result<_>>()?,
        })
    }

    pub(super) fn backend(
        &self,
        pool_name: &str,
        name: &str,
    ) -> anyhow::Result<Result<BackendView, Refused>> {
        let Some(pool) = self.live.config().pools.get(pool_name) else {
            return Ok(Err(Refused::not_found("pool", pool_name)));
        };
        match pool.backends.get(name) {
            Some(config) => Ok(Ok(self.backend_view((pool_name, pool), (name, config))?)),
            None => Ok(Err(Refused::not_found("backend", name))),
        }
    }

    fn backend_view(
        &self,
        (pool_name, pool): (&str, &Pool),
        (name, config): (&str, &Backend),
    ) -> anyhow::Result<BackendView> {
        let checked = pool.health_check.is_some();
        let desired = self.desired.pools.get(pool_name);
        let desired = desired.and_then(|pool| pool.get(name));
        let forwarded = self
            .conditions
            .get(pool_name)
            .is_some_and(|is| is.forwarded);
        let unreachable = forwarded.then(|| self.reach.view(config.address.ip()));
        Ok(BackendView {
            config: config.clone(),
            health: self.verdicts.view(pool_name, name, checked),
            unreachable: unreachable.flatten(),
            in_use: desired.is_some_and(|backend| backend.takes_flows()),
            drain: self.drains.view(pool_name, name),
            counters: self.dataplane.backend_counters(pool_name, name)?,
            http: self.proxy.backend_counters(pool_name, name),
        })
    }
}
