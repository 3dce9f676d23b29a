//! The name that a client asks for, read without answering.

use std::io::Cursor;

use rustls::server::Acceptor;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Not yet a whole ClientHello.
    More,
    /// A ClientHello, with the name (SNI) in it, in lower case.
    Hello(Option<String>),
    /// Not TLS, or no ClientHello that can be understood.
    NotTls,
}

/// Bytes that a ClientHello may have: more than any client sends, post-quantum keys and all.
pub const LARGEST_HELLO: usize = 64 << 10;

/// Looks at all bytes that a connection has brought so far, and takes none.
pub fn peek(bytes: &[u8]) -> Peek {
    let mut acceptor = Acceptor::default();
    let mut rest = Cursor::new(bytes);
    while (rest.position() as usize) < bytes.len() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => return Peek::NotTls,
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted
                    .client_hello()
                    .server_name()
                    .map(str::to_ascii_lowercase);
                return Peek::Hello(name);
            }
            Err(_) => return Peek::NotTls,
        }
    }
    match bytes.len() < LARGEST_HELLO {
        true => Peek::More,
        false => Peek::NotTls,
    }
}
