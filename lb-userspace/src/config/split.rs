//! The document in two parts: what all nodes share, and what is each node's own.

use std::{collections::BTreeMap, path::Path};

use lb_common::hash::HashKey;
use serde::{Deserialize, Serialize};

use super::{
    Agent, Config, ConfigError, Ha, Pool, Problem, Problems, Service, from_json, from_toml,
    hash_key, load, unique,
};

/// What all nodes share: `pools`, `services` and `agent.hash_key`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shared {
    agent: SharedAgent,
    #[serde(deserialize_with = "unique::map")]
    pools: BTreeMap<String, Pool>,
    #[serde(deserialize_with = "unique::map")]
    services: BTreeMap<String, Service>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SharedAgent {
    #[serde(with = "hash_key")]
    hash_key: HashKey,
}

impl Default for SharedAgent {
    fn default() -> Self {
        Self {
            hash_key: hash_key::DEFAULT,
        }
    }
}

/// What is each node's own: `agent`, without its `hash_key`, and `ha`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    agent: Agent,
    ha: Ha,
}

impl Shared {
    /// Reads it: JSON if it begins with a brace, else TOML.
    ///
    /// # Errors
    ///
    /// The first fault of syntax or type; or a field that is a node's own.
    pub fn parse(text: &[u8]) -> Result<Self, Problem> {
        let json = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let parsed = match json {
            true => from_json(text, ""),
            false => from_toml(text),
        };
        parsed.map_err(|problem| {
            let own = problem.field == "ha" || is_agents(&problem.field);
            let expected = "nothing here: it is each node's own, so put it into the file that \
                            the agent is given with --local";
            misplaced(problem, own, expected)
        })
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    ///
    /// As [`Shared::parse`] and [`Shared::check`]; or that the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = load::bytes(path)?;
        let parsed = Self::parse(&text).map_err(|problem| Problems(vec![problem]));
        parsed
            .and_then(|shared| shared.check().map(|()| shared))
            .map_err(|problems| ConfigError::Invalid {
                file: path.to_owned(),
                problems,
            })
    }

    /// The shared part of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            agent: SharedAgent {
                hash_key: config.agent.hash_key,
            },
            pools: config.pools.clone(),
            services: config.services.clone(),
        }
    }

    /// As it is kept: without spaces, as etcd takes small values alone.
    ///
    /// # Errors
    ///
    /// A path that is no UTF-8.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// What can be said of it without a node: all rules but those of what is a node's own.
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn check(&self) -> Result<(), Problems> {
        let mut local = Local::default();
        (local.agent.limits.services, local.agent.limits.backends) = (65_535, 1_000_000);
        let checked = local.with(self.clone()).check();
        let shared = |problem: &Problem| !problem.field.starts_with("agent.");
        match checked {
            Err(Problems(problems)) if problems.iter().any(shared) => Err(Problems(
                problems
                    .into_iter()
                    .filter(|problem| shared(problem))
                    .collect(),
            )),
            _ => Ok(()),
        }
    }
}

impl Local {
    /// Reads a file: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    ///
    /// It cannot be read; or the first fault of syntax or type; or a field that is shared.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let invalid = |problem| ConfigError::Invalid {
            file: path.to_owned(),
            problems: Problems(vec![problem]),
        };
        let local: Self = load::read(path)?.map_err(|problem| {
            let shared = ["pools", "services"].contains(&&*problem.field);
            invalid(misplaced(problem, shared, SHARED))
        })?;
        if local.agent.hash_key != hash_key::DEFAULT {
            return Err(invalid(Problem::new("agent.hash_key", "a key", SHARED)));
        }
        Ok(local)
    }

    /// The whole that it makes with what is shared.
    pub fn with(&self, shared: Shared) -> Config {
        let mut agent = self.agent.clone();
        agent.hash_key = shared.agent.hash_key;
        Config {
            agent,
            pools: shared.pools,
            services: shared.services,
            ha: self.ha.clone(),
        }
    }
}

const SHARED: &str = "nothing here: it is shared by all nodes, so put it into the document in etcd";

/// Whether it is a field of `agent` that is no field of [`SharedAgent`].
fn is_agents(field: &str) -> bool {
    let name = field.strip_prefix("agent.");
    name.is_some_and(|name| name != "hash_key")
}

/// An unknown field that belongs into the other part.
fn misplaced(problem: Problem, belongs_there: bool, expected: &str) -> Problem {
    match belongs_there && problem.expected.starts_with("one of the fields") {
        true => Problem {
            expected: expected.to_owned(),
            ..problem
        },
        false => problem,
    }
}
