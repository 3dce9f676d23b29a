//! From configuration and desired state to a snapshot. What is counted lives on from one to the
//! next.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use lb_common::maglev::{self, log2_slots};

use super::{
    access_log::Writers,
    backend::Backend,
    headers::{request_id::RequestIds, via::Via},
    lasting,
    listen::Listeners,
    route::{Action, FixedAnswer, Table},
    snapshot::{Listener, Member, Pool, Service, ServiceTls, Snapshot},
    stats::ServiceStats,
    sticky::{Cookie, SessionKey},
    tls::{self, BadFile, IdentityHeaders, Passthrough, Reload as _},
    traces::Traces,
};
use crate::{
    config::{self, Config, Tls},
    dataplane::identity_at,
    desired::{Desired, DesiredPool},
};

/// A backend by pool, name and address.
type Key = (String, String, SocketAddr);

/// Why a configuration cannot be used here and now.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file of a service's TLS.
    #[error("services.{0}.tls.{field}: {1}", field = .1.field)]
    Tls(String, BadFile),
    /// A file of a pool's TLS.
    #[error("pools.{0}.http.tls.{field}: {1}", field = .1.field)]
    Pool(String, BadFile),
    /// Something else of a service.
    #[error("services.{0}: {1:#}")]
    Service(String, anyhow::Error),
}

fn service_tls(name: &str, config: &Tls) -> Result<ServiceTls, Unusable> {
    let server = tls::Server::new(config);
    let auth = config.client_auth.as_ref();
    let identity = auth.map(|auth| IdentityHeaders::new(&auth.headers));
    Ok(ServiceTls {
        config: config.clone(),
        server: server.map_err(|error| Unusable::Tls(name.to_owned(), error))?,
        passthrough: Passthrough::new(&config.passthrough),
        identity: (identity.transpose())
            .map_err(|error| Unusable::Service(name.to_owned(), error))?,
    })
}

/// What outlives a snapshot.
pub(crate) struct Registry {
    workers: usize,
    backends: HashMap<Key, Arc<Backend>>,
    stats: HashMap<String, Arc<ServiceStats>>,
    /// As they were compiled last, with what they were made of.
    pools: HashMap<String, (Arc<DesiredPool>, Arc<Pool>)>,
    services: HashMap<String, Arc<Service>>,
    writers: Writers,
    /// Where the spans of traced requests go.
    pub(super) traces: Option<Arc<Traces>>,
}

impl Registry {
    /// Nothing yet.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            backends: HashMap::new(),
            stats: HashMap::new(),
            pools: HashMap::new(),
            services: HashMap::new(),
            writers: Writers::default(),
            traces: None,
        }
    }

    /// A service as it is served.
    pub(crate) fn compiled(&self, name: &str) -> Option<&Service> {
        self.services.get(name).map(|service| &**service)
    }

    /// A service's counters.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<ServiceStats>> {
        self.stats.get(name)
    }

    /// A pool's backends of this name: more than one while requests to its old address last.
    pub(crate) fn backends<'a>(
        &'a self,
        pool: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Backend>> {
        let all = self.backends.values();
        all.filter(move |backend| backend.pool == pool && backend.name == name)
    }

    /// What the workers are to work by.
    ///
    /// # Errors
    ///
    /// Certificates that cannot be used; or what the configuration's checks would have refused.
    pub(crate) fn snapshot(
        &mut self,
        config: &Config,
        desired: &Desired,
        listeners: &Listeners,
    ) -> Result<Snapshot, Unusable> {
        let mut pools = HashMap::new();
        let mut services = HashMap::new();
        let mut snapshot = BTreeMap::new();
        for (name, local) in &desired.local {
            let Some(service) = config.services.get(name) else {
                continue;
            };
            let address = SocketAddr::new(local.address, local.port);
            let Some(sockets) = listeners.get(&address) else {
                continue;
            };
            let passed = service.tls.iter().flat_map(|tls| tls.passthrough.values());
            let names = std::iter::once(local.pool.as_str())
                .chain(service.http.pools())
                .chain(passed.map(String::as_str));
            let mut of_service: Vec<Arc<Pool>> = Vec::new();
            for pool in names {
                if of_service.iter().all(|known| known.name != pool) {
                    of_service.push(self.pool(config, desired, pool, &mut pools)?);
                }
            }
            let compiled = self.compile(name, service, of_service)?;
            services.insert(name.clone(), compiled.clone());
            let listener = Listener {
                sockets: sockets.clone(),
                service: compiled,
            };
            snapshot.insert(address, listener);
        }
        self.pools = pools;
        self.services = services;
        self.stats
            .retain(|name, _| self.services.contains_key(name));
        let used: HashSet<*const Backend> = (self.pools.values())
            .flat_map(|(_, pool)| &pool.members)
            .map(|member| Arc::as_ptr(&member.backend))
            .collect();
        // Requests that are under way hold theirs.
        self.backends
            .retain(|_, backend| used.contains(&Arc::as_ptr(backend)) || backend.in_flight() > 0);
        Ok(Snapshot {
            listeners: snapshot,
        })
    }

    /// Reads certificates again that have changed.
    pub(crate) fn refresh(&self) {
        for (name, service) in &self.services {
            let server = service.tls.as_ref().and_then(|tls| tls.server.as_ref());
            if let Some(server) = server {
                let refreshed = server.refresh();
                let anew = refreshed == Ok(true);
                report("service", name, refreshed);
                if anew {
                    warn_of_ends(name, server);
                }
            }
        }
        for (name, (_, pool)) in &self.pools {
            if let Some(tls) = &pool.tls {
                report("pool", name, tls.refresh());
            }
        }
    }

    /// A service as it was, if nothing of it has changed.
    fn compile(
        &mut self,
        name: &str,
        config: &config::Service,
        pools: Vec<Arc<Pool>>,
    ) -> Result<Arc<Service>, Unusable> {
        let http = &config.http;
        let old = self.services.get(name).cloned();
        let old = old.as_deref();
        // Sessions and tickets live on with it.
        let old_tls = old.and_then(|old| old.tls.clone());
        let same_tls = old_tls.as_ref().map(|old| &old.config) == config.tls.as_ref();
        if let Some(old) = old {
            let same = old.pools.len() == pools.len()
                && (old.pools.iter().zip(&pools)).all(|(old, new)| Arc::ptr_eq(old, new));
            if same && same_tls && *old.http == *http {
                return Ok(self.services[name].clone());
            }
        }
        let tls = match &config.tls {
            _ if same_tls => old_tls,
            Some(tls) => {
                let tls = service_tls(name, tls)?;
                if let Some(server) = &tls.server {
                    warn_of_ends(name, server);
                }
                Some(Arc::new(tls))
            }
            None => None,
        };
        let unusable = |error: anyhow::Error| Unusable::Service(name.to_owned(), error);
        let stats = self.stats.entry(name.to_owned());
        let stats = stats.or_insert_with(|| Arc::new(ServiceStats::new(self.workers)));
        let routes = Table::new(http).map_err(unusable)?;
        let place = |name: &str| pools.iter().position(|pool| pool.name == name).unwrap_or(0);
        let cookies = routes
            .routes()
            .iter()
            .map(|route| route.sticky.as_ref().map(Cookie::new));
        let targets = routes.routes().iter().map(|route| match &route.action {
            Action::Pools(pools) => (pools.iter())
                .map(|(name, weight)| (place(name), *weight))
                .collect(),
            _ => Vec::new(),
        });
        let mirrors = routes.routes().iter().map(|route| {
            let mirror = route.mirror.as_ref()?;
            Some((place(&mirror.pool), mirror.percent))
        });
        Ok(Arc::new(Service {
            name: name.to_owned(),
            targets: targets.collect(),
            mirrors: mirrors.collect(),
            cookies: cookies.collect(),
            rates: lasting::rates(http, &routes, old),
            clients: lasting::clients(old),
            log: lasting::log(http, old, &mut self.writers).map_err(unusable)?,
            traces: self.traces.clone().filter(|_| http.trace.one_in.is_some()),
            unavailable: FixedAnswer::new(&http.unavailable).map_err(unusable)?,
            via: (http.via.as_deref())
                .map(Via::new)
                .transpose()
                .map_err(unusable)?,
            request_ids: RequestIds::new(&http.request_id).map_err(unusable)?,
            tls,
            routes,
            http: Arc::new(http.clone()),
            pools,
            stats: stats.clone(),
        }))
    }

    /// A pool as it was, if nothing of it has changed.
    fn pool(
        &mut self,
        config: &Config,
        desired: &Desired,
        name: &str,
        made: &mut HashMap<String, (Arc<DesiredPool>, Arc<Pool>)>,
    ) -> Result<Arc<Pool>, Unusable> {
        if let Some((_, pool)) = made.get(name) {
            return Ok(pool.clone());
        }
        let settings = config.pools.get(name);
        let http = settings.map(|pool| pool.http.clone()).unwrap_or_default();
        let floor_percent = settings.map_or(0, |pool| pool.health_floor_percent);
        let backends = desired.pools.get(name).cloned().unwrap_or_default();
        if let Some((old, pool)) = self.pools.get(name)
            && **old == *backends
            && *pool.http == http
            && pool.floor_percent == floor_percent
        {
            let pool = pool.clone();
            made.insert(name.to_owned(), (backends, pool.clone()));
            return Ok(pool);
        }
        let old = self.pools.get(name).map(|(_, pool)| pool);
        let old = old.filter(|old| old.http.tls == http.tls && old.http.version == http.version);
        let tls = match (&http.tls, old) {
            (Some(_), Some(old)) => old.tls.clone(),
            (Some(tls), None) => {
                let made = tls::Backend::new(tls, http.version);
                let made = made.map_err(|error| Unusable::Pool(name.to_owned(), error))?;
                Some(Arc::new(made))
            }
            (None, _) => None,
        };
        let key_of_sessions = SessionKey::new(config.agent.hash_key);
        let members: Vec<Member> = backends
            .iter()
            .map(|(backend, desired)| {
                let address = SocketAddr::new(desired.address, desired.port);
                let key = (name.to_owned(), backend.clone(), address);
                let workers = self.workers;
                let shared = self.backends.entry(key).or_insert_with(|| {
                    let token = key_of_sessions.token(name, backend);
                    Arc::new(Backend::new(name, backend, address, workers, token))
                });
                Member {
                    backend: shared.clone(),
                    condition: desired.condition,
                    weight: desired.weight,
                }
            })
            .collect();
        let (turns, slots) = tables(&members);
        let pool = Arc::new(Pool {
            name: name.to_owned(),
            http: Arc::new(http),
            tls,
            floor_percent,
            members,
            turns,
            slots,
        });
        made.insert(name.to_owned(), (backends, pool.clone()));
        Ok(pool)
    }
}

/// Turns and hash slots: places of members, as in the packet path's rings.
fn tables(members: &[Member]) -> (Vec<u32>, Vec<u32>) {
    let taking: Vec<maglev::Member> = (1..)
        .zip(members)
        .filter(|(_, member)| member.takes_requests())
        .map(|(id, member)| maglev::Member {
            key: identity_at(member.backend.address.ip(), member.backend.address.port()),
            id,
            weight: member.weight,
        })
        .collect();
    if taking.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let size = log2_slots(taking.len());
    let places = |ids: Vec<u32>| ids.into_iter().map(|id| id - 1).collect();
    (
        places(maglev::in_turns(&taking, size)),
        places(maglev::build(&taking, size)),
    )
}

/// Says which of a service's certificates, which were just read, have ended or soon will.
fn warn_of_ends(service: &str, server: &tls::Server) {
    let now = SystemTime::now();
    for expiry in server.expiries() {
        if let Some(warning) = expiry.warning(now) {
            let names = expiry.names.join(",");
            tracing::warn!(service, names, "a certificate ends: {warning}");
        }
    }
}

fn report(what: &str, name: &str, refreshed: Result<bool, BadFile>) {
    match refreshed {
        Ok(false) => {}
        Ok(true) => tracing::info!(what, name, "certificates were read again"),
        Err(error) => tracing::error!(what, name, "the old certificates stay: {error}"),
    }
}
