//! Packets in and out of the loaded program, by BPF_PROG_TEST_RUN.

mod case;
mod counts;
mod error;
mod fragments;
mod hosts;
mod maps;
mod packet;
mod program;
mod setting;
mod world;

pub use case::{Case, Side, Verdict, check_sums, same, went_out};
pub use counts::{Counts, dropped, forwarded};
pub use error::IcmpError;
pub use fragments::{fragment_id, fragments};
pub use hosts::{
    CLIENT, CLIENT_MAC, FAMILIES, Host, LB_BACKEND_MAC, LB_CLIENT_MAC, Mac, NOWHERE, OUTSIDE,
    ROUTED, SOURCE, UNREACHABLE, VIP, backend, client, source, vip,
};
pub use maps::{Backends, Map, Rings};
pub use packet::{Packet, Transport, tcp, udp};
pub use program::{Input, Ran, run};
pub use setting::{HASH_KEY, LIMITS, backends, lab, load, member, resolved, service};
pub use world::World;
