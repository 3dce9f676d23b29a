//! Three balancers behind a router that announce the same VIPs: connections go on, whichever of
//! them they land on.

mod daemons;
mod events;
mod scene;
mod talks;
