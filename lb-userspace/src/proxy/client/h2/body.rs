//! The body of a request that comes on a stream of HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use hyper::body::{Frame, SizeHint};

use crate::proxy::{h1::length, request::BodyError};

/// The body, whose windows grow as it is taken.
pub(crate) struct FromStream {
    stream: RecvStream,
    /// How long it is, where the client has said so; h2 holds it to that.
    length: Option<u64>,
}

impl FromStream {
    /// What comes behind these headers.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        let said = lengths.next().and_then(|said| length(said.as_bytes()));
        Self {
            stream,
            length: said.filter(|_| lengths.next().is_none()),
        }
    }

    /// The next piece. A stream that the client resets has no end, whichever reason it gives.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let broken = |_| BodyError::Client;
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            let data = data.map_err(broken)?;
            // It fails where the stream is gone, which the next piece tells.
            let _ = self.stream.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(broken)?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// How much comes.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
