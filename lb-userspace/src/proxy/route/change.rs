//! The operator's changes to headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::http::HeaderChanges as Config;

/// Changes to headers, compiled.
#[derive(Debug, Default)]
pub struct HeaderChanges {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Remove(HeaderName),
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
}

impl HeaderChanges {
    /// Of several sets of changes one after the other.
    pub(super) fn new(sets: [&Config; 2]) -> anyhow::Result<HeaderChanges> {
        let mut steps = Vec::new();
        for changes in sets {
            for name in &changes.remove {
                steps.push(Step::Remove(name.parse()?));
            }
            for (name, value) in &changes.set {
                steps.push(Step::Set(name.parse()?, value.parse()?));
            }
            for (name, value) in &changes.add {
                steps.push(Step::Add(name.parse()?, value.parse()?));
            }
        }
        Ok(HeaderChanges { steps })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for step in &self.steps {
            match step {
                Step::Remove(name) => {
                    headers.remove(name);
                }
                Step::Set(name, value) => {
                    headers.insert(name, value.clone());
                }
                Step::Add(name, value) => {
                    headers.append(name, value.clone());
                }
            }
        }
    }
}
