//! The body of a client's request, over whichever version of HTTP.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::{h1::FromClient, h2::FromStream};
use crate::proxy::request::BodyError;

/// The body.
pub(crate) enum ClientBody {
    /// None.
    Empty,
    /// HTTP/1.
    One(FromClient),
    /// HTTP/2.
    Two(FromStream),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            ClientBody::Empty => Poll::Ready(None),
            ClientBody::One(body) => body.poll_frame(cx),
            ClientBody::Two(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Empty => true,
            ClientBody::One(body) => body.body().has_ended(),
            ClientBody::Two(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Empty => SizeHint::with_exact(0),
            ClientBody::One(body) => body.body().size_hint(),
            ClientBody::Two(body) => body.size_hint(),
        }
    }
}
