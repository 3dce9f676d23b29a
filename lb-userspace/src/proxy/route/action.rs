//! What becomes of a request: pools, redirects, answers, rewrites.

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    uri::{Authority, PathAndQuery},
};
use regex::Regex;
use thiserror::Error;

use super::without_port;
use crate::config::http::{
    Answer, Redirect as RedirectConfig, Rewrite as RewriteConfig, Route, Scheme,
};

/// What becomes of a request.
#[derive(Debug)]
pub enum Action {
    /// It goes to the service's own pool.
    Service,
    /// It goes to one of these pools, by name, each with its weight; the sum is not 0.
    Pools(Vec<(String, u16)>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered.
    Respond(FixedAnswer),
}

impl Action {
    pub(super) fn new(route: &Route) -> anyhow::Result<Action> {
        if let Some(redirect) = &route.redirect {
            return Ok(Action::Redirect(Redirect::new(route, redirect)?));
        }
        if let Some(answer) = &route.respond {
            return Ok(Action::Respond(FixedAnswer::new(answer)?));
        }
        if let Some(pool) = &route.pool {
            return Ok(Action::Pools(vec![(pool.clone(), 1)]));
        }
        if route.pools.is_empty() {
            return Ok(Action::Service);
        }
        let pools = route
            .pools
            .iter()
            .map(|(pool, weight)| (pool.clone(), *weight));
        Ok(Action::Pools(pools.collect()))
    }
}

/// An answer of the operator's, ready to be sent.
#[derive(Clone, Debug)]
pub struct FixedAnswer {
    /// Status.
    pub status: StatusCode,
    /// Body; may be empty.
    pub body: Bytes,
    /// `Content-Type` of a body.
    pub content_type: HeaderValue,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<HeaderValue>,
}

impl FixedAnswer {
    /// Compiles one.
    ///
    /// # Errors
    ///
    /// What the configuration's check would have refused.
    pub fn new(answer: &Answer) -> anyhow::Result<FixedAnswer> {
        Ok(FixedAnswer {
            status: StatusCode::from_u16(answer.status)?,
            body: Bytes::from(answer.body.clone()),
            content_type: answer.content_type.parse()?,
            retry_after: answer.retry_after.map(|after| after.as_secs().into()),
        })
    }
}

/// A path in the place of a request's.
#[derive(Debug)]
enum NewPath {
    Same,
    /// Whole; with a query of its own or without.
    Whole(String),
    /// In the place of a prefix of so many bytes.
    Prefix(usize, String),
    /// What the groups of an expression make.
    Regex(Regex, String),
}

impl NewPath {
    fn new(route: &Route, whole: Option<&String>, prefix: Option<&String>) -> NewPath {
        let trim = |prefix: &str| prefix.trim_end_matches('/').to_owned();
        match (whole, prefix, &route.path_prefix) {
            (Some(path), _, _) => NewPath::Whole(path.clone()),
            (None, Some(to), Some(from)) => NewPath::Prefix(trim(from).len(), trim(to)),
            _ => NewPath::Same,
        }
    }

    /// Path and query of a request that took the route; `None`: those that it has.
    fn of(&self, path: &str, query: Option<&str>) -> Option<String> {
        let mut new = match self {
            NewPath::Same => return None,
            NewPath::Whole(whole) => whole.clone(),
            NewPath::Prefix(len, to) => {
                let rest = path.get(*len..).unwrap_or_default();
                let slash = if to.is_empty() && rest.is_empty() {
                    "/"
                } else {
                    ""
                };
                format!("{to}{slash}{rest}")
            }
            NewPath::Regex(regex, template) => regex.replace(path, template).into_owned(),
        };
        if let Some(query) = query
            && !new.contains('?')
        {
            new.push('?');
            new.push_str(query);
        }
        Some(new)
    }
}

/// What a backend is asked instead, compiled.
#[derive(Debug)]
pub struct Rewrite {
    path: NewPath,
    /// The host in the place of the client's.
    pub host: Option<Authority>,
}

impl Rewrite {
    pub(super) fn new(route: &Route, rewrite: &RewriteConfig) -> anyhow::Result<Rewrite> {
        let path = match (&rewrite.path_regex, &route.path_regex) {
            (Some(template), Some(regex)) => {
                NewPath::Regex(crate::proxy::regex(regex)?, template.clone())
            }
            _ => NewPath::new(route, rewrite.path.as_ref(), rewrite.path_prefix.as_ref()),
        };
        let host = rewrite.host.as_ref().map(|host| host.parse()).transpose()?;
        Ok(Rewrite { path, host })
    }

    /// The path and query in the place of a request's; `None`: they stay. What would be none (as
    /// a group may match anything) stays too.
    pub fn path(&self, path: &str, query: Option<&str>) -> Option<PathAndQuery> {
        let new = self.path.of(path, query)?;
        PathAndQuery::try_from(new)
            .ok()
            .filter(|new| new.path().starts_with('/'))
    }
}

/// Where a client is sent, compiled.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
    path: NewPath,
}

/// A request that names no host cannot be sent to another place on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a request without a host")]
pub struct Unlocatable;

impl Redirect {
    pub(super) fn new(route: &Route, redirect: &RedirectConfig) -> anyhow::Result<Redirect> {
        Ok(Redirect {
            status: StatusCode::from_u16(redirect.status)?,
            scheme: redirect.scheme,
            host: redirect.host.clone(),
            port: redirect.port,
            path: NewPath::new(route, redirect.path.as_ref(), redirect.path_prefix.as_ref()),
        })
    }

    /// The `Location` for a request that came by `scheme` for `host` (with or without port).
    ///
    /// # Errors
    ///
    /// The request names no host, and neither does the route.
    pub fn location(
        &self,
        scheme: Scheme,
        host: &str,
        path: &str,
        query: Option<&str>,
    ) -> Result<HeaderValue, Unlocatable> {
        let bare = without_port(host);
        let port = match (self.port, self.scheme) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => None,
            (None, None) => host[bare.len()..]
                .trim_start_matches(['.', ':'])
                .parse()
                .ok(),
        };
        let scheme = self.scheme.unwrap_or(scheme);
        let (name, usual) = match scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        let host = self.host.as_deref().unwrap_or(bare);
        if host.is_empty() {
            return Err(Unlocatable);
        }
        let mut location = format!("{name}://{host}");
        if let Some(port) = port.filter(|port| *port != usual) {
            location += &format!(":{port}");
        }
        match self.path.of(path, query) {
            Some(new) => location += &new,
            None => {
                location += path;
                if let Some(query) = query {
                    location += &format!("?{query}");
                }
            }
        }
        HeaderValue::try_from(location).map_err(|_| Unlocatable)
    }
}
