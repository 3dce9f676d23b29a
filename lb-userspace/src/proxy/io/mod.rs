//! Bytes between sockets and who speaks HTTP on them.

mod frames;
mod http2_io;
mod stream;
mod traffic;

pub(crate) use self::{
    frames::Frames,
    http2_io::Http2Io,
    stream::{Stream, UpstreamIo},
    traffic::Traffic,
};
