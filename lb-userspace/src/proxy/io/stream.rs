//! A connection's bytes, encrypted or not.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

/// A connection.
pub(crate) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// TLS with a client.
    Server(Box<server::TlsStream<TcpStream>>),
    /// TLS with a backend.
    Client(Box<client::TlsStream<TcpStream>>),
}

/// Bytes of pieces that are joined before they are sent: a head, and a small body.
const JOINED: usize = 1024;

/// Copies pieces one behind the other; how many bytes that is. None: they do not fit.
fn join(pieces: &[IoSlice<'_>], into: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    for piece in pieces {
        let end = length + piece.len();
        into.get_mut(length..end)?.copy_from_slice(piece);
        length = end;
    }
    Some(length)
}

/// The same for every kind.
macro_rules! each {
    ($stream:expr, $io:ident => $do:expr) => {
        match $stream {
            Stream::Plain($io) => $do,
            Stream::Server($io) => {
                let $io = &mut **$io;
                $do
            }
            Stream::Client($io) => {
                let $io = &mut **$io;
                $do
            }
        }
    };
}

impl Stream {
    /// Reads into a plain buffer.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buffer))
    }

    /// Reads what fits behind what a buffer has; how many bytes that is.
    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        each!(self, io => pin!(io.read_buf(buffer)).poll(cx))
    }

    /// Writes what it can.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    /// Writes what it can of several pieces.
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = pieces.iter().filter(|piece| !piece.is_empty());
        if let (Some(only), None) = (full.next(), full.next()) {
            return self.poll_write(cx, only);
        }
        // One small piece goes by send(2), which costs less than writev(2), by more than copying.
        if let Stream::Plain(tcp) = self {
            let mut joined = [0; JOINED];
            if let Some(length) = join(pieces, &mut joined) {
                return Pin::new(tcp).poll_write(cx, &joined[..length]);
            }
        }
        each!(self, io => Pin::new(io).poll_write_vectored(cx, pieces))
    }

    /// Writes what it can of several pieces that are the last: [`Stream::poll_shutdown`] is to
    /// follow at once, or the close, as they may be kept until then, for the end to go in the same
    /// packet.
    pub(crate) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Stream::Plain(tcp) = self else {
            return self.poll_write_vectored(cx, pieces);
        };
        let mut joined = [0; JOINED];
        let joined = join(pieces, &mut joined).map(|length| &joined[..length]);
        let send = || match joined {
            Some(piece) => SockRef::from(&*tcp).send_with_flags(piece, libc::MSG_MORE),
            None => SockRef::from(&*tcp).send_vectored_with_flags(pieces, libc::MSG_MORE),
        };
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Whether several pieces cost no more than one.
    pub(crate) fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Server(tls) => tls.is_write_vectored(),
            Stream::Client(tls) => tls.is_write_vectored(),
        }
    }

    /// Writes what was kept back.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    /// Has the other end see a break, and no end, when this is closed.
    pub(crate) fn reset(self) {
        let tcp = match &self {
            Stream::Plain(tcp) => tcp,
            Stream::Server(tls) => tls.get_ref().0,
            Stream::Client(tls) => tls.get_ref().0,
        };
        // Where it fails the connection is gone already.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

/// A connection to a backend, for hyper.
pub(crate) struct UpstreamIo(pub(crate) Stream);

impl Read for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: the slice is written to through ReadBuf only, which never uninitialises.
        let mut buffer = ReadBuf::uninit(unsafe { cursor.as_mut() });
        ready!(self.0.poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        // SAFETY: ReadBuf says that so many bytes are initialised.
        unsafe { cursor.advance(count) };
        Poll::Ready(Ok(()))
    }
}

impl Write for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Read as _};

    use tokio::net::TcpListener;

    use super::*;

    /// Small and large, as these go different ways.
    #[tokio::test]
    async fn the_end_of_the_last_goes_with_what_says_so() {
        for (length, closes) in [
            (5, false),
            (JOINED + 1, false),
            (5, true),
            (JOINED + 1, true),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            let mut stream = Stream::Plain(listener.accept().await.unwrap().0);
            let bytes = vec![1; length];
            let written = poll_fn(|cx| stream.poll_write_last(cx, &[IoSlice::new(&bytes)])).await;
            assert_eq!(written.unwrap(), length);
            let early = client.read(&mut [0; 1]).map_err(|error| error.kind());
            assert_eq!(early, Err(io::ErrorKind::WouldBlock));
            match closes {
                false => poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap(),
                true => drop(stream),
            }
            client.set_nonblocking(false).unwrap();
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            assert_eq!(all, bytes);
        }
    }

    #[test]
    fn joins_what_fits() {
        let pieces = [&b"head"[..], b"", b"body"].map(IoSlice::new);
        let mut exact = [0; 8];
        assert_eq!(join(&pieces, &mut exact), Some(8));
        assert_eq!(&exact, b"headbody");
        assert_eq!(join(&pieces, &mut [0; 7]), None);
        assert_eq!(join(&[], &mut []), Some(0));
    }
}
