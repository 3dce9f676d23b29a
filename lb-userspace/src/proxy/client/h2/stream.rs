//! A request on a stream of HTTP/2, and its answer.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
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
    request::{Handled, Reply, handle},
};

/// Answers a request.
pub(super) fn serve(
    link: &Rc<Link>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> impl Future<Output = ()> + use<> {
    let (parts, stream) = request.into_parts();
    let body = match stream.is_end_stream() {
        true => ClientBody::Empty,
        false => ClientBody::Two(FromStream::new(stream, &parts.headers)),
    };
    answer(link.clone(), handle(link, parts, body, Ok(())), respond)
}

/// Waits for the answer, and sends it.
async fn answer(link: Rc<Link>, mut handled: Handled, mut respond: SendResponse<Bytes>) {
    let response = poll_fn(|cx| match handled.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        // The client does not want it any more.
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let begun = (response.await).and_then(|response| begin(&link, response, respond).ok());
    drop(handled);
    if let Some((reply, Some(stream))) = begun {
        // An error: the stream is gone, and nobody is left to be told.
        let _ = send(reply, stream).await;
    }
}

/// Sends an answer's head; what is to follow it, and where.
///
/// # Errors
///
/// The stream is gone.
fn begin(
    link: &Link,
    response: Response<Reply>,
    mut respond: SendResponse<Bytes>,
) -> Result<(Reply, Option<SendStream<Bytes>>), h2::Error> {
    let (mut parts, mut reply) = response.into_parts();
    let headers = &mut parts.headers;
    if let Some(lines) = reply.take_lines() {
        lines.add_to(headers);
    }
    connection::strip_for_http2(headers);
    if !headers.contains_key(DATE) {
        headers.insert(DATE, link.worker.date.value());
    }
    let ended = reply.is_end_stream();
    if !ended
        && let Some(length) = reply.size_hint().exact()
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let stream = respond.send_response(Response::from_parts(parts, ()), ended)?;
    Ok((reply, (!ended).then_some(stream)))
}

/// Sends an answer's body.
///
/// # Errors
///
/// The stream is gone.
async fn send(mut reply: Reply, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    // The first piece waits for no room: it may be all.
    let mut begun = false;
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(gone) = gone(&mut stream, cx) {
                return Poll::Ready(Err(gone));
            }
            Pin::new(&mut reply).poll_frame(cx).map(Ok)
        });
        let frame = match frame.await? {
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(piece) => {
                if std::mem::replace(&mut begun, true) {
                    stream.reserve_capacity(piece.len());
                    poll_fn(|cx| room(&mut stream, cx)).await?;
                }
                let last = reply.is_end_stream();
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

/// Ready once there is room for some of what is to be sent.
///
/// # Errors
///
/// The stream is gone.
fn room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    while stream.capacity() == 0 {
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(more)) => drop(more?),
            Poll::Ready(None) => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            Poll::Pending => return Poll::Ready(Err(ready!(gone(stream, cx)))),
        }
    }
    Poll::Ready(Ok(()))
}

/// Ready once the client has reset the stream, or the connection is over.
fn gone(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<h2::Error> {
    let reset = ready!(stream.poll_reset(cx));
    Poll::Ready(reset.map_or_else(|error| error, Into::into))
}
