//! Reading the per-CPU counters.

use std::{borrow::Cow, collections::BTreeMap};

use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lb_common::{
    abi,
    reason::{Reason, drop_index},
};
use serde::{Deserialize, Serialize};

use super::{flows::FlowCounters, loader::Maps, raw::Raw};

/// What was forwarded from clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
    /// TCP connections opened: SYNs without ACK, repeated ones too.
    pub connections: u64,
}

/// Dropped packets by the name of their reason; reasons that never occurred are left out.
pub type Drops = BTreeMap<Cow<'static, str>, u64>;

/// What a backend was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendCounters {
    /// What was forwarded to it.
    #[serde(flatten)]
    pub traffic: TrafficCounters,
    /// Its remembered flows that live, as of a few seconds ago.
    pub flows: u64,
    /// Connections that it has by the count of least-connections services.
    pub open_connections: u64,
}

/// What a service forwarded and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCounters {
    /// What was forwarded.
    #[serde(flatten)]
    pub traffic: TrafficCounters,
    /// What was dropped.
    pub drops: Drops,
    /// Slots of its ring.
    pub slots: usize,
    /// Of them, those whose flows are remembered.
    pub tracked_slots: usize,
    /// Hash over its ring's owners: equal on all nodes that send the same flow to the same
    /// backend.
    pub digest: String,
}

/// All counters, since the data path was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// By service.
    pub services: BTreeMap<String, ServiceCounters>,
    /// By pool and backend.
    pub backends: BTreeMap<String, BTreeMap<String, BackendCounters>>,
    /// The flow tables.
    pub flows: FlowCounters,
    /// Drops that no one service can be blamed for.
    pub unmatched_drops: Drops,
}

impl Maps {
    /// A service's counters, by index.
    pub(super) fn service_counters(&self, index: u32) -> Result<ServiceCounters, MapError> {
        Ok(ServiceCounters {
            traffic: sum(&self.service_counters.get(&index, 0)?),
            drops: self.drops(index)?,
            ..ServiceCounters::default()
        })
    }

    /// A backend's counters, by id.
    pub(super) fn backend_counters(&self, id: u32) -> Result<TrafficCounters, MapError> {
        Ok(sum(&self.backend_counters.get(&id, 0)?))
    }

    /// Zeroes a service's counters, by index.
    pub(super) fn reset_service_counters(&mut self, index: u32) -> anyhow::Result<()> {
        reset(&mut self.service_counters, index)?;
        for &reason in Reason::ALL {
            reset(&mut self.drops, drop_index(index, reason))?;
        }
        Ok(())
    }

    /// Zeroes a backend's counters, by id.
    pub(super) fn reset_backend_counters(&mut self, id: u32) -> anyhow::Result<()> {
        reset(&mut self.backend_counters, id)
    }

    /// Drops of a service, by index; 0: of none.
    pub(super) fn drops(&self, service: u32) -> Result<Drops, MapError> {
        let mut drops = BTreeMap::new();
        for &reason in Reason::ALL {
            let count: u64 = self
                .drops
                .get(&drop_index(service, reason), 0)?
                .iter()
                .sum();
            if count > 0 {
                drops.insert(Cow::Borrowed(reason.name()), count);
            }
        }
        Ok(drops)
    }
}

fn reset<T: aya::Pod + Default>(
    counters: &mut PerCpuArray<MapData, T>,
    index: u32,
) -> anyhow::Result<()> {
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
    let zeroes = PerCpuValues::try_from(vec![T::default(); cpus])?;
    Ok(counters.set(index, zeroes, 0)?)
}

fn sum(cpus: &[Raw<abi::Counters>]) -> TrafficCounters {
    cpus.iter()
        .fold(TrafficCounters::default(), |sum, Raw(cpu)| {
            TrafficCounters {
                packets: sum.packets + cpu.packets,
                bytes: sum.bytes + cpu.bytes,
                connections: sum.connections + cpu.connections,
            }
        })
}
