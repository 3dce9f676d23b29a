//! Names whose connections go to a pool as they are.

use std::collections::{BTreeMap, HashMap};

/// Pools by name asked for, compiled.
#[derive(Debug, Default)]
pub struct Passthrough {
    exact: HashMap<String, String>,
    /// By what follows `*.`.
    wildcards: HashMap<String, String>,
    any: Option<String>,
}

impl Passthrough {
    /// Of `tls.passthrough`.
    pub fn new(names: &BTreeMap<String, String>) -> Passthrough {
        let mut passthrough = Passthrough::default();
        for (name, pool) in names {
            let name = name.to_ascii_lowercase();
            let pool = pool.clone();
            if name == "*" {
                passthrough.any = Some(pool);
            } else if let Some(parent) = name.strip_prefix("*.") {
                passthrough.wildcards.insert(parent.to_owned(), pool);
            } else {
                passthrough.exact.insert(name, pool);
            }
        }
        passthrough
    }

    /// Whether every connection is Weir's to answer, so that none need be looked at.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty() && self.any.is_none()
    }

    /// The pool that gets a connection for a name in lower case, or for none: by the exact name,
    /// the longest wildcard, `*`. `None`: it is Weir's to answer.
    pub fn pool(&self, name: Option<&str>) -> Option<&str> {
        let named = name.and_then(|name| {
            let mut rest = name;
            let mut found = self.exact.get(name);
            while let (None, Some((_, parent))) = (found, rest.split_once('.')) {
                found = self.wildcards.get(parent);
                rest = parent;
            }
            found
        });
        named.or(self.any.as_ref()).map(String::as_str)
    }
}
