//! Bytes between sockets and hyper.

mod client_io;
mod guard;
mod stream;

pub(crate) use self::{
    client_io::{ClientIo, Traffic},
    guard::Guard,
    stream::{Stream, UpstreamIo},
};
