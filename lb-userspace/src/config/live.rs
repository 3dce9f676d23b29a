//! The configuration in force: it keeps its rules, and a change costs what it changes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Backend, Config, Pool, Problems, Service, check::may_break, index::Index};

/// A configuration that keeps its rules.
pub struct Live {
    config: Config,
    index: Index,
}

/// What a change touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services by name.
    pub services: BTreeSet<String>,
    /// Pools by name, with their touched backends; `None`: all of it.
    pub pools: BTreeMap<String, Option<BTreeSet<String>>>,
}

/// A change that was made, or undone: what was there before, in the order in which it went.
#[derive(Default)]
pub struct Changed {
    before: Vec<Part>,
    touched: Touched,
}

/// A part of a configuration; `None` where there is none.
enum Part {
    Service(String, Option<Box<Service>>),
    Pool(String, Option<Box<Pool>>),
    Backend(String, String, Option<Backend>),
}

/// A configuration while it is being changed; it may break rules meanwhile.
pub struct Draft<'a> {
    live: &'a mut Live,
    changed: Changed,
}

impl Live {
    /// Takes a configuration.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn new(config: Config) -> Result<Self, Problems> {
        config.check()?;
        let mut index = Index::default();
        for (name, pool) in &config.pools {
            index.add_pool(name, pool);
        }
        for (name, service) in &config.services {
            index.add_service(name, service);
        }
        Ok(Self { config, index })
    }

    /// As it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Names of the services that name a pool.
    pub fn users(&self, pool: &str) -> impl Iterator<Item = &str> {
        self.index.users(pool).map(|(name, _)| name)
    }

    /// Changes it, or leaves it as it is.
    ///
    /// # Errors
    ///
    /// What `edit` returned; or all that would be wrong.
    pub fn change<R, E: From<Problems>>(
        &mut self,
        edit: impl FnOnce(&mut Draft<'_>) -> Result<R, E>,
    ) -> Result<(R, Changed), E> {
        let mut draft = Draft {
            live: self,
            changed: Changed::default(),
        };
        let edited = edit(&mut draft);
        let changed = draft.changed;
        let result = edited.and_then(|result| {
            if may_break(&self.config, &self.index, &changed.touched) {
                self.config.check()?;
            }
            Ok(result)
        });
        match result {
            Ok(result) => Ok((result, changed)),
            Err(error) => {
                self.undo(changed);
                Err(error)
            }
        }
    }

    /// Undoes the last change that is not undone; returns what makes it again.
    pub fn undo(&mut self, changed: Changed) -> Changed {
        let before = changed.before.into_iter().rev().map(|part| self.put(part));
        Changed {
            before: before.collect(),
            touched: changed.touched,
        }
    }

    /// Puts a part in place; returns what was there.
    fn put(&mut self, part: Part) -> Part {
        let Self { config, index } = self;
        match part {
            Part::Service(name, new) => {
                let old = config.services.remove(&name);
                if let Some(old) = &old {
                    index.remove_service(&name, old);
                }
                if let Some(new) = new {
                    index.add_service(&name, &new);
                    config.services.insert(name.clone(), *new);
                }
                Part::Service(name, old.map(Box::new))
            }
            Part::Pool(name, new) => {
                let old = config.pools.remove(&name);
                if let Some(old) = &old {
                    index.remove_pool(&name, old);
                }
                if let Some(new) = new {
                    index.add_pool(&name, &new);
                    config.pools.insert(name.clone(), *new);
                }
                Part::Pool(name, old.map(Box::new))
            }
            Part::Backend(pool, name, new) => {
                let Some(Pool { backends, .. }) = config.pools.get_mut(&pool) else {
                    return Part::Backend(pool, name, None);
                };
                let old = backends.remove(&name);
                if let Some(old) = &old {
                    index.remove_backend(&pool, old.address);
                }
                if let Some(new) = new {
                    index.add_backend(&pool, new.address);
                    backends.insert(name.clone(), new);
                }
                Part::Backend(pool, name, old)
            }
        }
    }
}

impl Changed {
    /// What it touched.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }
}

impl Touched {
    /// Adds what another change touched.
    pub fn add(&mut self, other: &Touched) {
        self.services.extend(other.services.iter().cloned());
        for (pool, touched) in &other.pools {
            let all = self.pools.entry(pool.clone());
            let all = all.or_insert_with(|| Some(BTreeSet::new()));
            match (&mut *all, touched) {
                (Some(all), Some(touched)) => all.extend(touched.iter().cloned()),
                _ => *all = None,
            }
        }
    }
}

impl Draft<'_> {
    /// As it is by now.
    pub fn config(&self) -> &Config {
        &self.live.config
    }

    /// Puts a service in place, or takes it out; whether there was one.
    pub fn set_service(&mut self, name: String, service: Option<Service>) -> bool {
        self.changed.touched.services.insert(name.clone());
        let before = self.live.put(Part::Service(name, service.map(Box::new)));
        let there = matches!(before, Part::Service(_, Some(_)));
        self.changed.before.push(before);
        there
    }

    /// Puts a pool in place, or takes it out; whether there was one.
    pub fn set_pool(&mut self, name: String, pool: Option<Pool>) -> bool {
        self.changed.touched.pools.insert(name.clone(), None);
        let before = self.live.put(Part::Pool(name, pool.map(Box::new)));
        let there = matches!(before, Part::Pool(_, Some(_)));
        self.changed.before.push(before);
        there
    }

    /// Puts a backend in place, or takes it out; whether there was one. Nothing happens where
    /// there is no such pool.
    pub fn set_backend(&mut self, pool: &str, name: String, backend: Option<Backend>) -> bool {
        let pools = &mut self.changed.touched.pools;
        let touched = pools.entry(pool.to_owned());
        if let Some(backends) = touched.or_insert_with(|| Some(BTreeSet::new())) {
            backends.insert(name.clone());
        }
        let before = Part::Backend(pool.to_owned(), name, backend);
        let before = self.live.put(before);
        let there = matches!(before, Part::Backend(.., Some(_)));
        self.changed.before.push(before);
        there
    }

    /// Makes all pools and services those of another configuration. The agent's own settings
    /// stay.
    pub fn replace(&mut self, pools: BTreeMap<String, Pool>, services: BTreeMap<String, Service>) {
        let gone = |name: &String| !services.contains_key(name);
        let gone: Vec<String> = (self.config().services.keys())
            .filter(|name| gone(name))
            .cloned()
            .collect();
        for name in gone {
            self.set_service(name, None);
        }
        let gone = |name: &String| !pools.contains_key(name);
        let gone: Vec<String> = (self.config().pools.keys())
            .filter(|name| gone(name))
            .cloned()
            .collect();
        for name in gone {
            self.set_pool(name, None);
        }
        for (name, pool) in pools {
            if self.config().pools.get(&name) != Some(&pool) {
                self.set_pool(name, Some(pool));
            }
        }
        for (name, service) in services {
            if self.config().services.get(&name) != Some(&service) {
                self.set_service(name, Some(service));
            }
        }
    }
}
