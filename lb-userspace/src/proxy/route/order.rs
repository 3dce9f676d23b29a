//! Which of the routes that fit a request comes first.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::config::http::Route;

/// A route that may fit requests for a host.
pub(super) struct Fitting<'a> {
    /// Its place in [`Table::routes`](super::Table::routes).
    pub(super) number: usize,
    /// The route.
    pub(super) route: &'a Route,
}

/// The routes that may fit requests for a host, the first that does being the one that counts. The
/// host is one that routes name, in lower case: an exact one, a wildcard for those below it that
/// no other names, or none for all that no route names.
pub(super) fn of_host<'a>(
    routes: &'a BTreeMap<String, Route>,
    host: Option<&str>,
) -> Vec<Fitting<'a>> {
    let mut fitting: Vec<_> = (1..)
        .zip(routes)
        .filter_map(|(number, (name, route))| {
            let rank = (
                Reverse(route.priority),
                Reverse(host_fit(route, host)?),
                Reverse(path_rank(route)),
                route.methods.is_empty(),
                Reverse(route.headers.len()),
                Reverse(route.cookies.len()),
                Reverse(route.query.len()),
                name,
            );
            Some((rank, Fitting { number, route }))
        })
        .collect();
    fitting.sort_by_key(|(rank, _)| *rank);
    fitting.into_iter().map(|(_, fitting)| fitting).collect()
}

/// How closely a route's hosts fit one; `None`: not at all.
fn host_fit(route: &Route, host: Option<&str>) -> Option<usize> {
    if route.hosts.is_empty() {
        return Some(0);
    }
    let host = host?;
    let fits = route.hosts.iter().filter_map(|pattern| {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('*') {
            Some(end) => host.ends_with(end).then_some(end.len()),
            None => (pattern == host).then_some(usize::MAX),
        }
    });
    fits.max()
}

fn path_rank(route: &Route) -> (u8, usize) {
    if route.path.is_some() {
        (3, 0)
    } else if let Some(regex) = &route.path_regex {
        (2, regex.len())
    } else if let Some(prefix) = &route.path_prefix {
        (1, prefix.trim_end_matches('/').len())
    } else {
        (0, 0)
    }
}
