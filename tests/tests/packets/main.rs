//! Packets into the loaded program and out of it, by BPF_PROG_TEST_RUN: exact bytes, verdicts
//! and counters.

mod modes;
mod refusals;
mod scene;
