//! Taking a document that is in etcd.

use tokio::task::spawn_blocking;

use super::{
    NotInForce, NotShared, Origin, SharedView, copy::Copy, node::Node, one_line, store::Stored,
};
use crate::{
    config::{Config, Draft, Live, Problem, Problems, Shared},
    events::{self, Kind},
    state::Refused,
};

impl Node {
    /// Has this node do what the document says; or reports why it does not.
    pub(super) async fn take(&mut self, found: Option<Stored>) {
        self.seen = found.as_ref().map_or(0, |found| found.revision);
        let result = match &found {
            Some(found) => self.put_in_force(found).await,
            None => Err(Refused::Shared(NotShared::Missing(
                self.location.key.clone(),
            ))),
        };
        match result {
            Ok(live) => {
                self.live = Some(live);
                self.in_force().await;
            }
            Err(refused) => {
                self.live = None;
                self.report(&refused);
            }
        }
    }

    async fn put_in_force(&self, found: &Stored) -> Result<Live, Refused> {
        let one = |problem| Problems(vec![problem]);
        let shared = Shared::parse(&found.text).map_err(one)?;
        let config = self.local.with(shared);
        let running = self.state.config().await?;
        if config.agent.hash_key != running.agent.hash_key {
            let expected = "the key that this agent started with: restart it to change it";
            return Err(one(Problem::new("agent.hash_key", "another key", expected)).into());
        }
        let live = Live::new(config)?;
        self.tell(live.config()).await?;
        Ok(live)
    }

    /// Has the data path do what a configuration says.
    pub(super) async fn tell(&self, config: &Config) -> Result<(), Refused> {
        let (pools, services) = (config.pools.clone(), config.services.clone());
        let replace = move |draft: &mut Draft<'_>| {
            draft.replace(pools, services);
            Ok(())
        };
        self.state.change_here(replace).await
    }

    /// The document that was seen last is in force.
    pub(super) async fn in_force(&mut self) {
        let Some(live) = &self.live else { return };
        let copy = Copy {
            key: self.location.key.clone(),
            revision: self.seen,
            document: Shared::of(live.config()),
        };
        let path = self.copy.clone();
        let written = spawn_blocking(move || copy.write(&path)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let error = error.map(|error| format!("{}: {error}", self.copy.display()));
        let revision = self.seen;
        if let Some(error) = &error {
            let text = format!("the copy on disk is not up to date: {error}");
            events::warn(Kind::Configuration, &self.location, text);
        }
        self.view.send_modify(|view| {
            if (view.revision, view.origin) != (revision, Origin::Etcd)
                || view.not_in_force.is_some()
            {
                let text = format!("revision {revision} is in force");
                events::info(Kind::Configuration, &self.location, text);
            }
            *view = SharedView {
                origin: Origin::Etcd,
                revision,
                not_in_force: None,
                copy_error: error,
                ..view.clone()
            };
        });
    }

    fn report(&self, refused: &Refused) {
        let (error, problems) = match refused {
            Refused::Invalid(problems) => (one_line(problems), problems.0.clone()),
            other => (other.to_string(), Vec::new()),
        };
        let new = NotInForce {
            revision: self.seen,
            error,
            problems,
        };
        self.view.send_if_modified(|view| {
            let news = view.not_in_force.as_ref() != Some(&new);
            if news {
                let NotInForce {
                    revision, error, ..
                } = &new;
                let in_force = view.revision;
                let text =
                    format!("revision {revision} is not put in force, {in_force} stays: {error}");
                events::warn(Kind::Configuration, &self.location, text);
            }
            view.not_in_force = Some(new.clone());
            news
        });
    }
}
