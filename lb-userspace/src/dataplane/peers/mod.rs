//! The flow tables as other nodes know them: what this node has remembered is told by
//! addresses, and what others tell is remembered under this node's own ids.

mod learn;
mod tell;
mod untaken;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use lb_common::abi::Told;

use self::{learn::Learner, tell::Teller, untaken::Untaken};
use super::{State, clock, entries, janitor::Janitor, lock};
use crate::ha::sync::{Tables, record::Record};

/// Calls of [`Tables::news`] between two looks at what did not fit.
const LOOK: u32 = 16;

/// The tables of a data path that was loaded to tell of them.
pub(crate) struct Peers {
    state: Arc<Mutex<State>>,
    janitor: Arc<Janitor>,
    news: Mutex<News>,
    untaken: Mutex<Untaken>,
}

/// What the packet path tells of.
pub(crate) struct News {
    pub(crate) told: RingBuf<MapData>,
    pub(crate) untold: PerCpuArray<MapData, u64>,
    pub(crate) seen: u64,
    pub(crate) calls: u32,
}

impl Peers {
    pub(crate) fn new(state: Arc<Mutex<State>>, janitor: Arc<Janitor>, news: News) -> Self {
        Self {
            state,
            janitor,
            news: Mutex::new(news),
            untaken: Mutex::default(),
        }
    }

    /// Takes what could not be taken before the last change.
    fn retry(&self) {
        let mut untaken = self.untaken();
        if untaken.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        let Ok(now) = clock::tick() else {
            return;
        };
        let changes = state.applied.changes();
        let mut learner = Learner::new(&mut state, &self.janitor, now);
        untaken.retry(changes, |record| learner.take(record).unwrap_or(false));
    }

    fn untaken(&self) -> MutexGuard<'_, Untaken> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    /// Whether something did not fit into the ring buffer since the last look.
    fn overflowed(&mut self) -> bool {
        self.calls = self.calls.wrapping_add(1);
        if !self.calls.is_multiple_of(LOOK) {
            return false;
        }
        let untold = self.untold.get(&0, 0).map_or(0, |cpus| cpus.iter().sum());
        std::mem::replace(&mut self.seen, untold) != untold
    }
}

impl Tables for Peers {
    fn news(&self) -> (Vec<Record>, bool) {
        self.retry();
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        while let Some(item) = news.told.next() {
            if let Ok(bytes) = <[u8; size_of::<Told>()]>::try_from(&*item) {
                // SAFETY: the program writes nothing else, and any bits are a value.
                told.push(unsafe { std::mem::transmute::<[u8; size_of::<Told>()], Told>(bytes) });
            }
        }
        let lost = news.overflowed();
        if told.is_empty() {
            return (Vec::new(), lost);
        }
        let state = lock(&self.state);
        let teller = Teller::new(&state, &self.janitor);
        let records = told.iter().filter_map(|told| teller.told(told)).collect();
        (records, lost)
    }

    fn snapshot(&self) -> io::Result<Vec<Record>> {
        let now = clock::tick()?;
        let mut records = {
            let state = lock(&self.state);
            Teller::new(&state, &self.janitor).slots(now)
        };
        // The tables are read while applies go on, and named in pieces.
        let mut entries = Vec::new();
        entries::visit(&self.janitor, |entry| entries.push(entry))?;
        for found in entries.chunks(4096) {
            let state = lock(&self.state);
            let teller = Teller::new(&state, &self.janitor);
            records.extend(found.iter().filter_map(|entry| teller.entry(entry, now)));
        }
        Ok(records)
    }

    fn take(&self, records: &[Record]) {
        let mut untaken = self.untaken();
        let mut state = lock(&self.state);
        let changes = state.applied.changes();
        let taken = clock::tick().and_then(|now| {
            let mut learner = Learner::new(&mut state, &self.janitor, now);
            records.iter().try_for_each(|record| {
                if !learner.take(record)? {
                    untaken.keep(*record, changes);
                }
                Ok(())
            })
        });
        if let Err(error) = taken {
            tracing::warn!("remembering what another node has told: {error}");
        }
    }
}
