//! What the metrics say of a shared configuration.

use std::fmt;

use super::families::Families;
use crate::shared::{Origin, SharedView};

pub(super) fn metrics(view: &SharedView, families: &mut Families<'_>) -> fmt::Result {
    families.gauge(
        "weir_shared_connected",
        "1 while etcd, which has the shared configuration, answers",
        [([], u64::from(view.connected))],
    )?;
    families.gauge(
        "weir_shared_revision",
        "etcd's revision in which the configuration that is in force was written",
        [([], u64::try_from(view.revision).unwrap_or_default())],
    )?;
    families.gauge(
        "weir_shared_from_disk",
        "1 while the configuration in force is the copy on disk",
        [([], u64::from(view.origin == Origin::Disk))],
    )?;
    families.gauge(
        "weir_shared_not_in_force",
        "1 while the document in etcd cannot be used here, and an older one is in force",
        [([], u64::from(view.not_in_force.is_some()))],
    )?;
    let Some(health) = &view.health else {
        return Ok(());
    };
    families.gauge(
        "weir_health_agreed",
        "1 while this node acts on what the majority of the nodes says of backends, 0 while on its \
         own checks alone",
        [([], u64::from(health.agreed))],
    )?;
    families.gauge(
        "weir_health_nodes",
        "Nodes that vote on backends, this one among them, when that was last heard",
        [([], health.nodes.len() as u64)],
    )
}
