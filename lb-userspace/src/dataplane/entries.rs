//! What packets have put into the tables that remember.

use std::io;

use lb_common::abi::{Affinity, AffinityKey, Flow, FlowKey, NatReturn};

use super::{batch, janitor::Janitor};

/// Entries read at a time.
const CHUNK: usize = 4096;

/// An entry of one of the tables.
pub(crate) enum Entry {
    /// Of `FLOWS`.
    Flow(FlowKey, Flow),
    /// Of `NAT_RETURN`, which has all of `NAT_FORWARD`.
    Translation(FlowKey, NatReturn),
    /// Of `AFFINITIES`.
    Affinity(AffinityKey, Affinity),
}

/// Gives all entries of all tables to `visit`. What changes meanwhile may be seen or not.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn visit(janitor: &Janitor, mut visit: impl FnMut(Entry)) -> io::Result<()> {
    batch::visit(janitor.flows.fd(), CHUNK, |key, flow| {
        visit(Entry::Flow(*key, *flow));
    })?;
    batch::visit(janitor.nat_return.fd(), CHUNK, |key, flow| {
        visit(Entry::Translation(*key, *flow));
    })?;
    batch::visit(janitor.affinities.fd(), CHUNK, |key, affinity| {
        visit(Entry::Affinity(*key, *affinity));
    })
}
