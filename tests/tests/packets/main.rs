//! Packets into the loaded program and out of it, by BPF_PROG_TEST_RUN: exact bytes, verdicts
//! and counters.

mod choices;
mod drops;
mod equivalence;
mod fragments;
mod icmp;
mod malformed;
mod modes;
mod passing;
mod peers;
mod refusals;
mod rings;
mod scene;
mod tracked;
mod vlan;
