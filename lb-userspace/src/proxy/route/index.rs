//! The routes of a host by path, so that a request looks at few of them.

use std::collections::HashMap;

use regex::Regex;

use super::order::Fitting;

/// A route's place in the order, and its number.
type Place = (usize, usize);

/// The routes of a host. Each list is in order.
#[derive(Debug, Default)]
pub(super) struct Index {
    paths: HashMap<Box<str>, Vec<Place>>,
    /// Without the `/` that may end them.
    prefixes: HashMap<Box<str>, Vec<Place>>,
    regexes: Vec<(Regex, Place)>,
    any: Vec<Place>,
}

impl Index {
    /// Of routes in their order.
    pub(super) fn new(fitting: &[Fitting<'_>]) -> Result<Index, regex::Error> {
        let mut index = Index::default();
        for (rank, Fitting { number, route }) in fitting.iter().enumerate() {
            let place = (rank, *number);
            if let Some(path) = &route.path {
                index
                    .paths
                    .entry(path.as_str().into())
                    .or_default()
                    .push(place);
            } else if let Some(prefix) = &route.path_prefix {
                let prefix = prefix.trim_end_matches('/');
                index.prefixes.entry(prefix.into()).or_default().push(place);
            } else if let Some(regex) = &route.path_regex {
                index.regexes.push((crate::proxy::regex(regex)?, place));
            } else {
                index.any.push(place);
            }
        }
        Ok(index)
    }

    /// The number of the first route whose path fits and whose other conditions hold.
    pub(super) fn find(&self, path: &str, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<Place> = None;
        let comes_first =
            |best: Option<Place>, rank: usize| best.is_none_or(|(found, _)| rank < found);
        let mut look = |places: &[Place]| {
            let ahead = places
                .iter()
                .take_while(|(rank, _)| comes_first(best, *rank));
            if let Some(place) = ahead.copied().find(|(_, number)| holds(*number)) {
                best = Some(place);
            }
        };
        if let Some(places) = self.paths.get(path) {
            look(places);
        }
        if !self.prefixes.is_empty() {
            for prefix in prefixes(path) {
                if let Some(places) = self.prefixes.get(prefix) {
                    look(places);
                }
            }
        }
        look(&self.any);
        for (regex, (rank, number)) in &self.regexes {
            if !comes_first(best, *rank) {
                break;
            }
            if holds(*number) && regex.is_match(path) {
                best = Some((*rank, *number));
            }
        }
        best.map(|(_, number)| number)
    }
}

/// A path and all that begin it and end before a `/`, the longest first: `/a/b`, `/a` and the
/// empty one. One that ends in `/` does not count the last.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path
        .starts_with('/')
        .then(|| path.strip_suffix('/').unwrap_or(path));
    std::iter::successors(whole, |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    })
}
