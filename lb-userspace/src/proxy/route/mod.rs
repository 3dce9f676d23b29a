//! Which route a request takes, and what that means for it. Everything is compiled once from the
//! configuration, is never changed, and may be shared by all workers.

use std::collections::HashMap;

use http::{HeaderMap, Method};

use crate::config::http::{Balance, Http, Key, Mirror, Retries, Route as Config, Sticky, Timeouts};

mod action;
mod change;
mod conditions;
mod index;
mod key;
mod order;
mod path;
#[cfg(test)]
mod tests;

pub use action::{Action, FixedAnswer, Redirect, Rewrite, Unlocatable};
pub use change::HeaderChanges;
pub use conditions::Conditions;
pub use path::{BadPath, normalize};

use index::Index;

/// A request, as routes see it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a Method,
    /// The host asked for, with or without port, in any case; empty if none was given.
    pub host: &'a str,
    /// The path, [normalized](normalize) where the service says so.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// A route, compiled: what is not its own is the service's.
#[derive(Debug)]
pub struct Route {
    /// Its place in [`Table::routes`].
    pub number: usize,
    /// Its name; empty for what no route fits.
    pub name: String,
    /// Which requests.
    pub conditions: Conditions,
    /// What becomes of them.
    pub action: Action,
    /// What the backend is asked instead.
    pub rewrite: Option<Rewrite>,
    /// Changes to the request's headers, the service's first.
    pub request_headers: HeaderChanges,
    /// Changes to the answer's headers, the service's first.
    pub response_headers: HeaderChanges,
    /// Who gets copies.
    pub mirror: Option<Mirror>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// `consistent-hash`: what is hashed.
    pub hash_on: Key,
    /// Sessions that stay with a backend.
    pub sticky: Option<Sticky>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retries: Retries,
    /// Bytes of a request's body at most.
    pub body_size: Option<u64>,
}

/// A service's routes.
#[derive(Debug)]
pub struct Table {
    /// By number.
    routes: Vec<Route>,
    /// By host, all that fit it: those of wildcards and of any host too.
    exact: HashMap<Box<str>, Index>,
    /// By what follows `*.`, likewise.
    wildcards: HashMap<Box<str>, Index>,
    any: Index,
}

impl Table {
    /// Compiles a service's routes.
    ///
    /// # Errors
    ///
    /// An expression or header that the configuration's check would have refused.
    pub fn new(http: &Http) -> anyhow::Result<Table> {
        let rest = Config::default();
        let routes = std::iter::once(("", &rest))
            .chain(
                http.routes
                    .iter()
                    .map(|(name, route)| (name.as_str(), route)),
            )
            .enumerate()
            .map(|(number, (name, route))| compile(http, number, name, route))
            .collect::<anyhow::Result<Vec<Route>>>()?;
        let mut exact = HashMap::new();
        let mut wildcards = HashMap::new();
        for host in http.routes.values().flat_map(|route| &route.hosts) {
            let host = host.to_ascii_lowercase();
            let index = Index::new(&order::of_host(&http.routes, Some(&host)))?;
            match host.strip_prefix("*.") {
                Some(name) => wildcards.insert(name.into(), index),
                None => exact.insert(host.into(), index),
            };
        }
        Ok(Table {
            routes,
            exact,
            wildcards,
            any: Index::new(&order::of_host(&http.routes, None))?,
        })
    }

    /// The route that a request takes; the one without a name if none fits.
    pub fn find(&self, request: &Request<'_>) -> &Route {
        let found = self.index(request.host).find(request.path, |number| {
            self.routes[number].conditions.hold(request)
        });
        &self.routes[found.unwrap_or(0)]
    }

    /// All routes by their number: the one without a name, then the others by name.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn index(&self, host: &str) -> &Index {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return &self.any;
        }
        let lower;
        let mut host = without_port(host);
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            host = &lower;
        }
        if let Some(index) = self.exact.get(host) {
            return index;
        }
        if !self.wildcards.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(index) = self.wildcards.get(parent) {
                    return index;
                }
                rest = parent;
            }
        }
        &self.any
    }
}

/// A host without its port, and without the dot that may end a name.
pub fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        // Not the colons of an IPv6 address.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn compile(http: &Http, number: usize, name: &str, route: &Config) -> anyhow::Result<Route> {
    let mut timeouts = http.timeouts.clone();
    let own = &route.timeouts;
    timeouts.response = own.response.unwrap_or(timeouts.response);
    timeouts.idle = own.idle.unwrap_or(timeouts.idle);
    timeouts.tunnel = own.tunnel.unwrap_or(timeouts.tunnel);
    timeouts.total = own.total.or(timeouts.total);
    let body_size = route.body_size.or(http.limits.body_size);
    Ok(Route {
        number,
        name: name.to_owned(),
        conditions: Conditions::new(route)?,
        action: Action::new(route)?,
        rewrite: route
            .rewrite
            .as_ref()
            .map(|r| Rewrite::new(route, r))
            .transpose()?,
        request_headers: HeaderChanges::new([&http.request_headers, &route.request_headers])?,
        response_headers: HeaderChanges::new([&http.response_headers, &route.response_headers])?,
        mirror: route.mirror.clone(),
        balance: route.balance.unwrap_or(http.balance),
        hash_on: route.hash_on.as_ref().unwrap_or(&http.hash_on).clone(),
        sticky: (route.sticky.as_ref().or(http.sticky.as_ref()))
            .filter(|sticky| sticky.enabled)
            .cloned(),
        timeouts,
        retries: route.retries.as_ref().unwrap_or(&http.retries).clone(),
        body_size: body_size.map(|size| size.0),
    })
}
