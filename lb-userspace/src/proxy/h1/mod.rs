//! HTTP/1 as it is spoken with clients and with backends alike: fields, bodies, and messages on
//! their way out. What a head's first line says is each side's own. Weir's own and not hyper's,
//! whose channels between the two sides of a connection, and copies of each head, took much of the
//! CPU time of a request (docs/benchmarks-l7.md).

mod body;
mod fields;
mod inbox;
mod lines;
#[cfg(test)]
pub(crate) mod messages;
mod outgoing;

pub(crate) use self::{
    body::Body,
    fields::{announced, length, put, put_length, value},
    inbox::{Desk, Inbox},
    lines::{Lines, is},
    outgoing::{Broken, Framing, Outgoing, Sink},
};

/// Most bytes of a backend's head, and of trailers.
pub(crate) const MAX_HEAD: usize = 256 * 1024;

/// Most headers of a backend's answer, and most trailers.
pub(crate) const MAX_HEADERS: usize = 100;

/// Why what is read is no HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nonsense {
    /// It is not HTTP.
    #[error("no HTTP/1: {0}")]
    Syntax(#[from] httparse::Error),
    /// A name, value or status that is none.
    #[error("a status or header that is none")]
    Header,
    /// It is too long.
    #[error("a head or trailers of more than {MAX_HEAD} bytes")]
    TooLarge,
    /// It has lengths that are none, or not the same.
    #[error("a Content-Length that is none, or several")]
    Length,
    /// HTTP/1.0 has no codings.
    #[error("a Transfer-Encoding in HTTP/1.0")]
    Coding,
    /// The body is not in chunks.
    #[error("a chunk that is none")]
    Chunk,
}
