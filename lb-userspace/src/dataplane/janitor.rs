//! Forgetting `full-nat` flows that have ended or gone quiet, so that their ports and memory
//! come back.

use std::{io, sync::Arc};

use aya::maps::MapData;
use lb_common::{
    abi::{FlowKey, NatReturn, Service, TICK_NS},
    full_nat::{forgettable, forward_key},
};
use nix::time::{ClockId, clock_gettime};

use super::{batch, mapped::MappedArray};

/// Flows read at a time.
const CHUNK: usize = 4096;

/// The flow tables, apart from everything that an apply locks.
pub(crate) struct Janitor {
    pub(crate) services: Arc<MappedArray<Service>>,
    pub(crate) nat_forward: MapData,
    pub(crate) nat_return: MapData,
}

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Flows that stay.
    pub(crate) kept: usize,
    /// Flows that were forgotten.
    pub(crate) forgotten: usize,
}

impl Janitor {
    /// Forgets every flow that may be.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn pass(&self) -> io::Result<Pass> {
        let now = tick()?;
        let mut pass = Pass::default();
        let mut over = Vec::new();
        batch::visit(
            self.nat_return.fd(),
            CHUNK,
            |key: &FlowKey, flow: &NatReturn| {
                let service = (flow.service < self.services.entries())
                    .then(|| self.services.read(flow.service));
                let idle_ticks = service.map_or(0, |service| service.idle_ticks);
                if forgettable(flow, idle_ticks, now) {
                    over.push((
                        *key,
                        service.map(|service| forward_key(&service, key, flow)),
                    ));
                } else {
                    pass.kept += 1;
                }
            },
        )?;
        pass.forgotten = over.len();
        for (key, forward) in over {
            if let Some(forward) = forward {
                remove(&self.nat_forward, &forward)?;
            }
            remove(&self.nat_return, &key)?;
        }
        Ok(pass)
    }
}

/// Removes a flow; the packet path may have been faster.
fn remove(map: &MapData, key: &FlowKey) -> io::Result<()> {
    match batch::delete(map.fd(), key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The packet path's clock.
fn tick() -> io::Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    Ok((nanoseconds / TICK_NS) as u32)
}
