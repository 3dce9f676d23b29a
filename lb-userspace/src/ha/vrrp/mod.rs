//! VRRPv3 (RFC 9568) without IO: what is on the wire, and who holds the addresses when.

mod machine;
mod packet;
mod reason;
mod repeat;
mod rival;

pub use self::{
    machine::{Machine, Output, Role, Settings},
    packet::{Advert, Coverage, Fault, GROUP_V4, GROUP_V6, Interval, PROTOCOL, TTL},
    reason::Reason,
};
