//! What connections cost that do nothing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use weir_tests::https::believing;

use super::contender::{Contender, NAME, PORT, TLS_PORT};
use crate::interrupt;

/// What comes with the first connections is not counted.
const FIRST: usize = 200;

/// Memory of a contender with many connections of a kind.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) tls: bool,
    pub(crate) connections: usize,
    /// Bytes of its memory before them.
    pub(crate) before: u64,
    /// The same with them.
    pub(crate) after: u64,
}

impl Series {
    /// Bytes that each took.
    pub(crate) fn each(&self) -> u64 {
        self.after.saturating_sub(self.before) / self.connections as u64
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Each without TLS, and with: the latter with those of two workers, as processes do not give
/// back all that they once had. Memory is looked at a `rest` after the last request: it is given
/// back now and then.
pub(crate) fn measure(
    contenders: &[Contender],
    connections: usize,
    rest: Duration,
) -> Result<Vec<Series>> {
    for contender in contenders {
        drop(open(contender, FIRST)?);
    }
    thread::sleep(rest);
    let mut all = Vec::new();
    for contender in contenders {
        interrupt::check()?;
        let tls = is_tls(contender);
        // Those are larger, and a handshake takes its time.
        let connections = if tls { connections / 10 } else { connections };
        let before = contender.memory()?;
        let mut held = open(contender, connections)?;
        thread::sleep(rest);
        all.push(Series {
            name: contender.name,
            tls,
            connections,
            before,
            after: contender.memory()?,
        });
        // They are still there.
        held.iter_mut().step_by(100).try_for_each(ask)?;
    }
    Ok(all)
}

fn is_tls(contender: &Contender) -> bool {
    contender.workers > 1
}

/// So many connections, on each of which one request was answered.
fn open(contender: &Contender, connections: usize) -> Result<Vec<Box<dyn Stream>>> {
    let tls = is_tls(contender);
    let port = if tls { TLS_PORT } else { PORT };
    let target = SocketAddr::from((contender.lab.vips()[0].v4, port));
    let config = tls.then(|| config(contender)).transpose()?;
    let all = (contender.lab.client()).run(move || {
        let all = (0..connections).map(|_| connect(target, config.as_ref()));
        all.collect::<Result<Vec<_>>>()
    });
    all?.with_context(|| format!("connections to {}", contender.name))
}

/// Believes the certificate.
fn config(contender: &Contender) -> Result<Arc<ClientConfig>> {
    let chain = contender.lab.directory().join("proxy.pem");
    Ok(Arc::new(believing(&[&chain])?))
}

fn connect(target: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect(target)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(tcp),
        Some(config) => {
            let session = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
            Box::new(StreamOwned::new(session, tcp))
        }
    };
    ask(&mut stream)?;
    Ok(stream)
}

fn ask(stream: &mut Box<dyn Stream>) -> Result<()> {
    // In one piece: the kernel holds back a second one until the first is acknowledged.
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    // The servers' names are on the last line.
    while !answer.ends_with(b"\n") || answer.ends_with(b"\r\n") {
        let count = stream.read(&mut bytes)?;
        ensure!(count > 0, "a connection was closed");
        answer.extend_from_slice(&bytes[..count]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "no answer");
    Ok(())
}
