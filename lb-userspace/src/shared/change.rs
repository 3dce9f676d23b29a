//! Making a change: here, and in etcd, if nobody else has changed the same meanwhile.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    NotShared, Request,
    node::Node,
    store::{Store, StoreError},
};
use crate::config::{Changed, Config, Shared, Touched, join};

/// How often a change is made again on top of others' changes.
const ATTEMPTS: u32 = 20;
/// The longest wait before the second attempt; it doubles a few times. By chance, so that two
/// nodes with much to change do not keep losing to each other.
const PAUSE: Duration = Duration::from_millis(5);

impl Request {
    pub(super) fn refuse(self, why: NotShared) {
        // Who asked may have left.
        drop(self.reply.send(Err(why.into())));
    }
}

impl Node {
    /// Makes a change and answers. An error is etcd's, and ends the connection.
    pub(super) async fn change(
        &mut self,
        store: &mut Store,
        mut request: Request,
    ) -> Result<(), StoreError> {
        // What this change was first made on.
        let mut first: Option<Config> = None;
        for attempt in 0..ATTEMPTS {
            let found = match store.get(&self.location.key).await {
                Ok((found, _)) => found,
                Err(error) => {
                    request.refuse(NotShared::Unreachable(error.to_string()));
                    return Err(error);
                }
            };
            let revision = found.as_ref().map_or(0, |found| found.revision);
            if revision != self.seen {
                self.take(found).await;
            }
            let Some(live) = &mut self.live else {
                let why = self.why_not();
                request.refuse(why);
                return Ok(());
            };
            let base = first.as_ref().map(|_| live.config().clone());
            let changed = match live.change(&mut request.edit) {
                Ok(((), changed)) => changed,
                Err(refused) => {
                    drop(request.reply.send(Err(refused)));
                    return Ok(());
                }
            };
            if let (Some(first), Some(base)) = (&first, &base)
                && let Some(what) = both(changed.touched(), first, base)
            {
                live.undo(changed);
                request.refuse(NotShared::Conflict(what));
                return Ok(());
            }
            let new = live.config().clone();
            // First here: what this node cannot do never gets to the others.
            if let Err(refused) = self.tell(&new).await {
                self.undo(changed);
                drop(request.reply.send(Err(refused)));
                return Ok(());
            }
            let put = match Shared::of(&new).to_json() {
                Ok(text) => store.replace(&self.location.key, self.seen, text).await,
                Err(error) => {
                    self.back(changed).await;
                    request.refuse(NotShared::Rejected(error.to_string()));
                    return Ok(());
                }
            };
            match put {
                Ok(Some(revision)) => {
                    self.seen = revision;
                    self.in_force().await;
                    drop(request.reply.send(Ok(())));
                    return Ok(());
                }
                Ok(None) => {
                    self.back(changed).await;
                    first = first.or_else(|| Some(self.live.as_ref()?.config().clone()));
                    sleep(PAUSE.mul_f64(fastrand::f64()) * 2u32.pow(attempt.min(5))).await;
                }
                Err(error) if error.is_refusal() => {
                    self.back(changed).await;
                    request.refuse(NotShared::Rejected(error.to_string()));
                    return Ok(());
                }
                Err(error) => {
                    self.back(changed).await;
                    request.refuse(NotShared::Unknown(error.to_string()));
                    return Err(error);
                }
            }
        }
        request.refuse(NotShared::Overtaken(ATTEMPTS));
        Ok(())
    }

    fn why_not(&self) -> NotShared {
        let view = self.view.borrow();
        let why = view.not_in_force.as_ref();
        match self.seen {
            0 => NotShared::Missing(self.location.key.clone()),
            _ => NotShared::Unusable(why.map_or_else(String::new, |why| why.error.clone())),
        }
    }

    fn undo(&mut self, changed: Changed) {
        if let Some(live) = &mut self.live {
            live.undo(changed);
        }
    }

    /// Undoes a change that is in the data path.
    async fn back(&mut self, changed: Changed) {
        self.undo(changed);
        let Some(live) = &self.live else { return };
        if let Err(error) = self.tell(live.config()).await {
            tracing::error!("undoing a change that etcd did not take: {error}");
        }
    }
}

/// Something that a change touches and others have changed since it was first made.
fn both(touched: &Touched, first: &Config, base: &Config) -> Option<String> {
    let services = touched.services.iter();
    let mut services =
        services.filter(|name| first.services.get(*name) != base.services.get(*name));
    if let Some(name) = services.next() {
        return Some(join("services", name));
    }
    touched.pools.iter().find_map(|(name, backends)| {
        let path = join("pools", name);
        let (old, new) = (first.pools.get(name), base.pools.get(name));
        let (Some(backends), Some(old), Some(new)) = (backends, old, new) else {
            return (old != new).then_some(path);
        };
        let mut backends = backends.iter();
        let changed = backends.find(|name| old.backends.get(*name) != new.backends.get(*name));
        changed.map(|name| join(&join(&path, "backends"), name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::from_toml;

    fn config(text: &str) -> Config {
        from_toml(text.as_bytes()).unwrap()
    }

    fn touched(pool: &str, backends: Option<&[&str]>) -> Touched {
        let backends = backends.map(|all| all.iter().map(|name| (*name).to_owned()).collect());
        Touched {
            services: BTreeSet::new(),
            pools: [(pool.to_owned(), backends)].into(),
        }
    }

    #[test]
    fn only_what_both_have_changed_is_a_conflict() {
        let first = config(
            "[pools.p.backends]\na = { address = \"10.0.0.1:80\" }\nb = { address = \"10.0.0.2:80\" }\n[pools.q]",
        );
        let base = config(
            "[pools.p.backends]\na = { address = \"10.0.0.1:80\", weight = 1 }\nb = { address = \"10.0.0.2:80\" }\n[pools.q]",
        );
        let said = |touched| both(&touched, &first, &base);
        assert_eq!(
            said(touched("p", Some(&["a"]))).as_deref(),
            Some("pools.p.backends.a")
        );
        assert_eq!(said(touched("p", Some(&["b"]))), None);
        assert_eq!(said(touched("p", Some(&["c"]))), None);
        assert_eq!(said(touched("p", None)).as_deref(), Some("pools.p"));
        assert_eq!(said(touched("q", None)), None);
        // The pool that a backend was to be put into is gone.
        let gone = config("[pools.q]");
        let found = both(&touched("p", Some(&["b"])), &first, &gone);
        assert_eq!(found.as_deref(), Some("pools.p"));
    }
}
