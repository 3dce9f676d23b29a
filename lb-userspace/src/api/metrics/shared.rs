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
    )
}
