//! Spans of traced requests, for a collector of OpenTelemetry's. Workers only put them into a
//! queue; whoever takes them out runs on the agent's own threads.

mod export;
mod span;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::SpanData;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{access_log::Entry, headers::trace::Span};
use crate::config::Traces as Config;

/// Where spans are put; all are on their way when the last of these is dropped and the task has
/// ended.
pub struct Traces {
    queue: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
    scope: InstrumentationScope,
}

#[derive(Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What has become of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracesView {
    /// The collector has them.
    pub exported: u64,
    /// Too many waited.
    pub dropped: u64,
    /// The collector did not take them.
    pub failed: u64,
}

impl Traces {
    /// Starts the task that sends them on. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The endpoint cannot be used.
    pub fn start(config: &Config) -> anyhow::Result<(Arc<Traces>, JoinHandle<()>)> {
        let (queue, spans) = mpsc::channel(config.queue as usize);
        let counts = Arc::<Counts>::default();
        let exporter = export::exporter(config)?;
        let task = tokio::spawn(export::run(exporter, spans, counts.clone()));
        let scope = InstrumentationScope::builder("weir")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let traces = Traces {
            queue,
            counts,
            scope,
        };
        Ok((Arc::new(traces), task))
    }

    /// Takes the span of a request that has ended, or drops it where too many wait.
    pub(crate) fn record(&self, span: &Span, entry: &Entry<'_>) {
        match self.queue.try_reserve() {
            Ok(place) => place.send(span::data(span, entry, &self.scope)),
            Err(_) => _ = self.counts.dropped.fetch_add(1, Relaxed),
        }
    }

    /// What has become of them so far.
    pub fn view(&self) -> TracesView {
        TracesView {
            exported: self.counts.exported.load(Relaxed),
            dropped: self.counts.dropped.load(Relaxed),
            failed: self.counts.failed.load(Relaxed),
        }
    }
}
