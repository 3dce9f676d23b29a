//! A lease in etcd: keys that are put there under it go when it is not renewed.

use std::{collections::VecDeque, time::Duration};

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::store::{Store, StoreError, soon};

/// A lease, and the connection that renews it.
pub(super) struct Lease {
    pub(super) id: i64,
    /// For how long it lasts from each renewal on, as etcd has it.
    pub(super) length: Duration,
    /// When it was renewed last, at the latest: when that was asked for.
    pub(super) renewed: Instant,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    asked: VecDeque<Instant>,
    ticks: Interval,
}

impl Lease {
    /// Renews an old one, if there is one and it still lasts; else begins one.
    pub(super) async fn begin(
        store: &Store,
        old: Option<i64>,
        length: Duration,
    ) -> Result<Self, StoreError> {
        if let Some(old) = old
            && let Ok(lease) = Self::renew(store, old, length).await
        {
            return Ok(lease);
        }
        let mut client = store.client.lease_client();
        let seconds = length.as_secs().try_into().unwrap_or(i64::MAX);
        let granted = soon(client.grant(seconds, None)).await?;
        // etcd has a shortest length of its own.
        let length = Duration::from_secs(granted.ttl().try_into().unwrap_or_default());
        Self::renew(store, granted.id(), length).await
    }

    async fn renew(store: &Store, id: i64, length: Duration) -> Result<Self, StoreError> {
        let mut client = store.client.lease_client();
        let renewed = Instant::now();
        let (keeper, answers) = soon(client.keep_alive(id)).await?;
        let mut ticks = interval(length / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            id,
            length,
            renewed,
            keeper,
            answers,
            asked: VecDeque::new(),
            ticks,
        })
    }

    /// Renews it again and again; returns after each time.
    pub(super) async fn renewed(&mut self) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                _ = self.ticks.tick() => {
                    self.asked.push_back(Instant::now());
                    self.keeper.keep_alive().await?;
                }
                answer = self.answers.message() => {
                    let lasts = answer?.is_some_and(|answer| answer.ttl() > 0);
                    if !lasts {
                        return Err(StoreError::LeaseLost);
                    }
                    // Answers come in order.
                    self.renewed = self.asked.pop_front().unwrap_or(self.renewed);
                    return Ok(());
                }
            }
        }
    }

    /// Ends it now, and all keys with it.
    pub(super) async fn end(id: i64, store: &Store) -> Result<(), StoreError> {
        let mut client = store.client.lease_client();
        soon(client.revoke(id)).await.map(drop)
    }
}
