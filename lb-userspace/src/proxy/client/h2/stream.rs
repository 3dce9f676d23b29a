//! A request on a stream of HTTP/2, and its answer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    Request, Response,
    header::{CONTENT_LENGTH, DATE},
};
use hyper::body::Body as _;

use super::FromStream;
use crate::proxy::{
    client::{ClientBody, Link},
    headers::connection,
    request::{Reply, handle},
};

/// Answers a request.
pub(super) async fn serve(
    link: Rc<Link>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, stream) = request.into_parts();
    let body = match stream.is_end_stream() {
        true => ClientBody::Empty,
        false => ClientBody::Two(FromStream::new(stream, &parts.headers)),
    };
    let response = {
        let mut handled = pin!(handle(&link, parts, body, Ok(())));
        poll_fn(|cx| match handled.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            // The client does not want it any more.
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await
    };
    if let Some(response) = response {
        // An error: the stream is gone, and nobody to be told.
        let _ = answer(&link, response, respond).await;
    }
}

/// Sends an answer to its end.
///
/// # Errors
///
/// The stream is gone.
async fn answer(
    link: &Link,
    response: Response<Reply>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (mut parts, mut reply) = response.into_parts();
    let headers = &mut parts.headers;
    if let Some(lines) = reply.take_lines() {
        lines.add_to(headers);
    }
    connection::strip_for_http2(headers);
    if !headers.contains_key(DATE)
        && let Some(date) = link.worker.date.value()
    {
        headers.insert(DATE, date);
    }
    let ended = reply.is_end_stream();
    if let (false, Some(length)) = (ended, reply.size_hint().exact())
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let mut stream = respond.send_response(Response::from_parts(parts, ()), ended)?;
    if ended {
        return Ok(());
    }
    // The first piece waits for no room: it may be all.
    let mut begun = false;
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or_else(|error| error, Into::into)));
            }
            Pin::new(&mut reply).poll_frame(cx).map(Ok)
        })
        .await?;
        let frame = match frame {
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(piece) => {
                let last = reply.is_end_stream();
                if begun {
                    room(&mut stream, piece.len()).await?;
                }
                begun = true;
                stream.send_data(piece, last)?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return stream.send_trailers(trailers);
            }
        }
    }
}

/// Waits until the client takes some of so many bytes.
///
/// # Errors
///
/// The stream is gone.
async fn room(stream: &mut SendStream<Bytes>, bytes: usize) -> Result<(), h2::Error> {
    stream.reserve_capacity(bytes);
    poll_fn(|cx| {
        while stream.capacity() == 0 {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                Poll::Pending => match stream.poll_reset(cx) {
                    Poll::Ready(reset) => {
                        return Poll::Ready(Err(reset.map_or_else(|error| error, Into::into)));
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
