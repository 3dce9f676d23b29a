//! A line a request.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::config::http::{AccessLog as Config, LogFormat};

mod line;
mod writer;

pub use line::{Entry, Seen};
pub use writer::{Writer, reopen};

/// A service's access log, shared by all workers.
pub struct AccessLog {
    format: LogFormat,
    one_in: u32,
    requests: AtomicU32,
    writer: Arc<Writer>,
}

impl AccessLog {
    /// A log by its configuration; services that log to the same place share a writer.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn new(config: &Config, writers: &mut Writers) -> io::Result<AccessLog> {
        Ok(AccessLog {
            format: config.format,
            one_in: config.one_in.max(1),
            requests: AtomicU32::new(0),
            writer: writers.get(&config.to)?,
        })
    }

    /// Logs a request, or not: one in so many is, and errors always are. Never waits: where the
    /// disk is slower than the requests, lines are dropped and counted.
    pub fn record(&self, entry: &Entry<'_>) {
        let chosen = self.one_in == 1
            || entry.status >= 500
            || self
                .requests
                .fetch_add(1, Relaxed)
                .is_multiple_of(self.one_in);
        if chosen {
            let mut line = Vec::with_capacity(512);
            match self.format {
                LogFormat::Json => line::json(entry, &mut line),
                LogFormat::Combined => line::combined(entry, &mut line),
            }
            self.writer.write(line);
        }
    }

    /// Lines that were dropped because the writer could not keep up, by all that share it.
    pub fn dropped(&self) -> u64 {
        self.writer.dropped()
    }
}

/// The writers in use, by where they write to.
#[derive(Default)]
pub struct Writers(HashMap<String, Arc<Writer>>);

impl Writers {
    fn get(&mut self, to: &str) -> io::Result<Arc<Writer>> {
        // Those that no log has any more end with their last line.
        self.0.retain(|_, writer| Arc::strong_count(writer) > 1);
        if let Some(writer) = self.0.get(to) {
            return Ok(writer.clone());
        }
        let writer = Arc::new(Writer::open(to)?);
        self.0.insert(to.to_owned(), writer.clone());
        Ok(writer)
    }
}
