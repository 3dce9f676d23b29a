//! The head of a request to a backend, and how its body is framed (RFC 9112, sections 3 and 6).

use bytes::{BufMut as _, BytesMut};
use http::{
    HeaderValue, Method,
    header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING},
};
use hyper::body::Body as _;

use crate::proxy::{
    h1::{Framing, Outgoing, announced, put, put_length},
    request::{RequestBody, RequestHead},
};

/// What a head takes, mostly.
const HEAD: usize = 1024;

/// A request as it is written. Its framing is what its body is, whatever the headers say.
pub(super) fn request(asked: &RequestHead, body: RequestBody) -> Outgoing<RequestBody> {
    let mut head = BytesMut::with_capacity(HEAD);
    head.put(asked.method.as_str().as_bytes());
    head.put(&b" "[..]);
    let path = asked.uri.path_and_query();
    head.put(path.map_or("/", |path| path.as_str()).as_bytes());
    head.put(&b" HTTP/1.1\r\n"[..]);
    // Whether a request without a body says that it has none (RFC 9110, section 8.6).
    let mut has_length = [Method::POST, Method::PUT, Method::PATCH].contains(&asked.method);
    for (name, value) in &asked.headers {
        match *name {
            CONTENT_LENGTH => has_length = true,
            TRANSFER_ENCODING => {}
            _ => put(&mut head, name, value),
        }
    }
    for (name, value) in asked.beside() {
        put(&mut head, name, value);
    }
    let body = match (body.is_end_stream(), body.size_hint().exact()) {
        (true, _) | (_, Some(0)) => {
            if has_length {
                put_length(&mut head, 0);
            }
            None
        }
        (_, Some(bytes)) => {
            put_length(&mut head, bytes);
            Some((body, Framing::Length(bytes)))
        }
        (_, None) => {
            let announces = asked.headers.get_all(TRAILER).iter();
            put(&mut head, TRANSFER_ENCODING, "chunked");
            Some((
                body,
                Framing::Chunks(announced(announces.map(HeaderValue::as_bytes))),
            ))
        }
    };
    head.put(&b"\r\n"[..]);
    Outgoing::new(head, body)
}
