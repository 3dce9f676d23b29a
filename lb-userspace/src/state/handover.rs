//! What the owner gives to the agent that takes over from this one, and what it begins with there.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    task::block_in_place,
    time::sleep,
};

use super::owner::Owner;
use crate::{config::Pool, health::Health, proxy::Listening};

/// Between two attempts to take the data path back.
const AGAIN: Duration = Duration::from_millis(50);
/// Of which there are so many: an agent that dies may hold it for a moment more.
const ATTEMPTS: u32 = 200;

/// What is known of a backend that the configuration does not say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Its pool's name.
    pub pool: String,
    /// Its own.
    pub backend: String,
    /// What the health checks said last.
    pub verdict: Option<KnownHealth>,
    /// How it is drained, if it is.
    pub drain: Option<KnownDrain>,
}

/// What the health checks said last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownHealth {
    /// Of a backend at this address.
    pub address: SocketAddr,
    /// The verdict.
    pub health: Health,
    /// Whether it has ever been healthy.
    pub lived: bool,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: SystemTime,
}

/// How a backend is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDrain {
    /// How long until it is out with whatever is left, if that was said.
    pub deadline: Option<Duration>,
}

/// What another agent is to go on with, and the way to say how it went.
pub struct Offer {
    /// The proxy's sockets.
    pub listening: Listening,
    /// What is known of backends.
    pub known: Vec<Known>,
    /// Where to say how it goes; this agent goes on where it is dropped.
    pub news: mpsc::Sender<News>,
}

/// How it goes with another agent that was offered the data path.
pub enum News {
    /// It has taken over; whom to tell when this one accepts no connections any more.
    Taken(oneshot::Sender<()>),
    /// It says nothing; whom to tell whether this one goes on. It does where it has the data path
    /// back, which the other has not begun to take then, and cannot take any more.
    Silent(oneshot::Sender<bool>),
}

impl Owner {
    /// Lets another agent take the data path, and waits for it to; whom to tell when it has, and
    /// this one accepts no connections any more. Nothing is changed meanwhile.
    pub(super) async fn offer(
        &mut self,
        reply: oneshot::Sender<anyhow::Result<Offer>>,
    ) -> Option<oneshot::Sender<()>> {
        let (news, mut heard) = mpsc::channel(1);
        let offer = block_in_place(|| {
            let listening = self.proxy.share()?;
            self.dataplane.offer()?;
            Ok(Offer {
                listening,
                known: self.known(),
                news,
            })
        });
        let offered = offer.is_ok();
        // Where nobody waits for it, it is not taken.
        drop(reply.send(offer));
        while let Some(news) = heard.recv().await {
            match news {
                News::Taken(done) => return Some(done),
                News::Silent(whether) => {
                    let back = block_in_place(|| self.dataplane.keep());
                    // Who asks may be gone: then it goes on in any case.
                    let _ = whether.send(back.is_ok());
                    if back.is_ok() {
                        return None;
                    }
                }
            }
        }
        if offered {
            self.keep().await;
        }
        None
    }

    async fn keep(&mut self) {
        let mut left = ATTEMPTS;
        while let Err(error) = block_in_place(|| self.dataplane.keep()) {
            left -= 1;
            if left == 0 {
                tracing::error!("the data path cannot be taken back: {error:#}");
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Lets the data path go and accepts no more, tells so, and ends when what is under way has.
    pub(super) fn hand_over(mut self, done: oneshot::Sender<()>) {
        self.proxy.close();
        let Self {
            proxy, dataplane, ..
        } = self;
        dataplane.let_go();
        // The other agent may have died meanwhile.
        let _ = done.send(());
        drop(proxy);
    }

    fn known(&self) -> Vec<Known> {
        let pools = self.live.config().pools.iter();
        let backends = pools.flat_map(|(pool, config)| {
            let names = config.backends.keys();
            names.map(move |backend| (pool, backend))
        });
        let known = backends.map(|(pool, backend)| Known {
            pool: pool.clone(),
            backend: backend.clone(),
            verdict: self.verdicts.known(pool, backend),
            drain: self.drains.known(pool, backend),
        });
        known
            .filter(|known| known.verdict.is_some() || known.drain.is_some())
            .collect()
    }

    /// Begins with what the agent before this one knew.
    pub(super) fn learn(&mut self, known: Vec<Known>) {
        let config = self.live.config();
        for known in known {
            let Some(pool) = config.pools.get(&known.pool) else {
                continue;
            };
            let Some(address) = address(pool, &known.backend) else {
                continue;
            };
            if let Some(drain) = known.drain {
                let name = (known.pool.clone(), known.backend.clone());
                self.drains.start(name, drain.deadline, 0);
            }
            let same = |verdict: &KnownHealth| verdict.address == address;
            if let Some(verdict) = known.verdict.filter(same)
                && pool.health_check.is_some()
            {
                self.verdicts.learn(known.pool, known.backend, verdict);
            }
        }
    }
}

fn address(pool: &Pool, backend: &str) -> Option<SocketAddr> {
    Some(pool.backends.get(backend)?.address)
}
