//! What a request must be beside its host and path.

use http::{HeaderName, Method};
use regex::Regex;

use super::Request;
use crate::{
    config::http::{Route, TextMatch},
    proxy::cookies::cookies,
};

/// What a request must be beside its host and path, compiled.
#[derive(Debug)]
pub struct Conditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Text)>,
    cookies: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
}

#[derive(Debug)]
enum Text {
    Exact(String),
    Prefix(String),
    Regex(Regex),
    Present,
    Absent,
}

impl Text {
    fn new(text: &TextMatch) -> Result<Text, regex::Error> {
        Ok(match text {
            TextMatch::Exact(text) => Text::Exact(text.clone()),
            TextMatch::Prefix(text) => Text::Prefix(text.clone()),
            TextMatch::Regex(text) => Text::Regex(crate::proxy::regex(text)?),
            TextMatch::Present(true) => Text::Present,
            TextMatch::Present(false) => Text::Absent,
        })
    }

    /// Whether one of the values is what it must be.
    fn holds<'a, T: AsRef<[u8]> + 'a>(&self, mut values: impl Iterator<Item = T>) -> bool {
        match self {
            Text::Absent => values.next().is_none(),
            Text::Present => values.next().is_some(),
            Text::Exact(text) => values.any(|value| value.as_ref() == text.as_bytes()),
            Text::Prefix(text) => values.any(|value| value.as_ref().starts_with(text.as_bytes())),
            Text::Regex(regex) => values
                .any(|value| str::from_utf8(value.as_ref()).is_ok_and(|text| regex.is_match(text))),
        }
    }
}

impl Conditions {
    pub(super) fn new(route: &Route) -> anyhow::Result<Conditions> {
        let texts = |texts: &std::collections::BTreeMap<String, TextMatch>| {
            (texts.iter())
                .map(|(name, text)| Ok((name.clone(), Text::new(text)?)))
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let headers = texts(&route.headers)?.into_iter();
        Ok(Conditions {
            methods: (route.methods.iter())
                .map(|method| method.parse())
                .collect::<Result<_, _>>()?,
            headers: headers
                .map(|(name, text)| Ok((name.parse()?, text)))
                .collect::<anyhow::Result<_>>()?,
            cookies: texts(&route.cookies)?,
            query: texts(&route.query)?,
        })
    }

    /// Whether a request is what it must be.
    pub fn hold(&self, request: &Request<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(request.method))
            && (self.headers.iter())
                .all(|(name, text)| text.holds(request.headers.get_all(name).iter()))
            && (self.cookies.iter()).all(|(name, text)| {
                let all = cookies(request.headers);
                text.holds(
                    all.filter(|(other, _)| other == name)
                        .map(|(_, value)| value),
                )
            })
            && (self.query.iter()).all(|(name, text)| {
                text.holds(parameters(request.query, name).map(|value| value.into_owned()))
            })
    }
}

/// The values of a query's parameter, decoded.
pub(super) fn parameters<'a>(
    query: Option<&'a str>,
    name: &'a str,
) -> impl Iterator<Item = std::borrow::Cow<'a, str>> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(move |(other, _)| other == name)
        .map(|(_, value)| value)
}
