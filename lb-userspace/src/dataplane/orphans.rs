//! Backends of an earlier agent's that no configuration names any more, and that may still have
//! connections: they become removed ones of this agent's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    apply::{Applied, ApplyError},
    entries::{self, Entry},
    janitor::Janitor,
    loader::Maps,
    next_hops::NextHops,
    pins::{Inherited, mark},
};
use crate::desired::{Delta, DesiredBackend};

/// Pools by the id of a backend that nobody has taken, and that a service of theirs knows.
type Orphans = BTreeMap<u32, String>;

/// Ends what was left of an earlier agent's: what has connections is kept for them.
///
/// # Errors
///
/// See [`ApplyError`].
pub(super) fn adopt(
    applied: &mut Applied,
    maps: &mut Maps,
    next_hops: &NextHops,
    (inherited, janitor): (&Inherited, &Janitor),
) -> Result<(), ApplyError> {
    let orphans = find(applied, inherited, janitor)?;
    let mut pools: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (id, pool) in orphans {
        pools.entry(pool).or_default().push(id);
    }
    for (pool, ids) in pools {
        let now = applied.pool(&pool);
        let mut with = now.as_deref().cloned().unwrap_or_default();
        for id in ids {
            let Some(((address, port), condition)) = inherited.backend(id) else {
                continue;
            };
            // No configuration has such a name.
            let name = format!("~{id}");
            let mark = mark(&pool, &name, address, port);
            applied.backends.bequeath(mark, id);
            let backend = DesiredBackend {
                address,
                port,
                weight: 0,
                condition,
            };
            with.insert(name, backend);
        }
        // They come, and are removed as any other is.
        for state in [Some(Arc::new(with)), now] {
            let pools = BTreeMap::from([(pool.clone(), state)]);
            let delta = Delta {
                pools,
                ..Delta::default()
            };
            applied.change(maps, next_hops, delta)?;
        }
    }
    applied.leave_inherited();
    Ok(())
}

fn find(applied: &Applied, inherited: &Inherited, janitor: &Janitor) -> anyhow::Result<Orphans> {
    let left = applied.backends.not_inherited();
    let mut orphans = Orphans::new();
    if left.is_empty() {
        return Ok(orphans);
    }
    let mut pools = HashMap::new();
    for (name, service) in applied.services.iter() {
        let Some(pool) = applied.pool_of(name) else {
            continue;
        };
        pools.insert(service.index, pool);
        let ring = inherited.ring(&service.key)?;
        for slot in ring.iter().flat_map(|ring| &ring.slots) {
            for id in [slot.base(), slot.current()] {
                if left.contains(&id) {
                    orphans.entry(id).or_insert_with(|| pool.to_owned());
                }
            }
        }
    }
    let mut see = |service: u32, id: u32| {
        if let Some(pool) = pools.get(&service).filter(|_| left.contains(&id)) {
            orphans.entry(id).or_insert_with(|| (*pool).to_owned());
        }
    };
    entries::visit(janitor, |entry| match entry {
        Entry::Flow(_, flow) => see(flow.service, flow.backend),
        Entry::Translation(_, flow) => see(flow.service, flow.backend),
        Entry::Affinity(key, kept) => see(key.service, kept.backend),
    })?;
    Ok(orphans)
}
