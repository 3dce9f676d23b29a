//! What is known of the flow tables, since the janitor looked last.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::janitor::Pass;

/// The flow tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounters {
    /// Remembered flows of slots that a change has moved, and of services that remember all.
    pub tracked: u64,
    /// Flows of `full-nat` services.
    pub full_nat: u64,
    /// How often a flow was put into the table of tracked flows.
    pub remembered: u64,
    /// Tracked flows that were evicted, because the table was full, before the agent saw them
    /// end; raise `agent.limits.flows` where it grows.
    pub evicted: u64,
    /// Room for flows, in each table.
    pub limit: u64,
}

/// What the janitor's last pass saw.
pub(crate) struct Flows {
    counters: FlowCounters,
    by_backend: HashMap<u32, u64>,
    forgotten: u64,
    /// Passes so far.
    passes: u64,
}

impl Flows {
    /// Nothing seen yet of tables with so much room.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            counters: FlowCounters {
                limit: u64::from(limit),
                ..FlowCounters::default()
            },
            by_backend: HashMap::new(),
            forgotten: 0,
            passes: 0,
        }
    }

    /// Takes the next pass.
    pub(crate) fn update(&mut self, pass: Pass) {
        self.forgotten += pass.forgotten;
        self.passes += 1;
        // What was put in and is neither there nor was taken out by the agent. Flows that came
        // in during the pass hide as many for the moment.
        let evicted = pass
            .remembered
            .saturating_sub(self.forgotten + pass.tracked);
        self.counters = FlowCounters {
            tracked: pass.tracked,
            full_nat: pass.translated,
            remembered: pass.remembered,
            evicted: evicted.max(self.counters.evicted),
            limit: self.counters.limit,
        };
        self.by_backend = pass.by_backend;
    }

    /// The whole tables.
    pub(crate) fn counters(&self) -> FlowCounters {
        self.counters
    }

    /// Live flows of a backend, by id.
    pub(crate) fn of(&self, backend: u32) -> u64 {
        self.by_backend.get(&backend).copied().unwrap_or(0)
    }

    /// Passes so far.
    pub(crate) fn passes(&self) -> u64 {
        self.passes
    }
}
