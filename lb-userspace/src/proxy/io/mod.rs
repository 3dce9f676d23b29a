//! Bytes between sockets and hyper.

mod client_io;
mod frames;
mod guard;
mod http2_io;
mod stream;

pub(crate) use self::{
    client_io::{ClientIo, Traffic},
    frames::Frames,
    guard::Guard,
    http2_io::Http2Io,
    stream::{Stream, UpstreamIo},
};
