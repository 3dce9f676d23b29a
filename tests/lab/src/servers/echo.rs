//! Servers that say who they are and send back what they get.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{Backend, gate::Gate, task::Task};

/// In bytes, of which the kernel counts at least 768 for each waiting datagram.
const RECEIVE_BUFFER: usize = 16 << 20;

/// An echo server on a backend. It is stopped when this is dropped.
pub struct Echo {
    backend: Backend,
    port: u16,
    gate: Arc<Gate>,
    task: Option<Task>,
}

/// An echo server on all the backend's addresses, the VIPs included that it holds. It answers
/// each UDP datagram and each line of a TCP connection with the backend's name, a space and what
/// it got.
///
/// # Errors
/// The port is taken.
pub fn echo(backend: &Backend, port: u16) -> Result<Echo> {
    let mut echo = Echo {
        backend: backend.clone(),
        port,
        gate: Arc::default(),
        task: None,
    };
    echo.start()?;
    Ok(echo)
}

impl Echo {
    /// Starts it again after [`Echo::stop`]. Does nothing if it runs.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(&mut self) -> Result<()> {
        if self.task.is_some() {
            return Ok(());
        }
        let port = self.port;
        let vips = self.backend.vips.iter().chain([&self.backend.addresses]);
        // A socket for each address: one for all would answer from whichever the route prefers.
        let addresses: Vec<IpAddr> = vips.flat_map(|pair| pair.both()).collect();
        let (listener, sockets) = self
            .backend
            .namespace
            .run(|| {
                let listener = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
                listener.set_nonblocking(true)?;
                let bind = |address| {
                    let socket = std::net::UdpSocket::bind(SocketAddr::new(address, port))?;
                    socket.set_nonblocking(true)?;
                    // All of a burst is to be answered.
                    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
                    Ok(socket)
                };
                let sockets: Result<Vec<_>> = addresses.into_iter().map(bind).collect();
                anyhow::Ok((listener, sockets?))
            })?
            .with_context(|| format!("cannot listen on port {port} of {}", self.backend.name))?;
        let me = Me {
            name: format!("{} ", self.backend.name).into_bytes().into(),
            gate: Arc::clone(&self.gate),
        };
        let serve = async move || {
            if let Err(error) = serve(listener, sockets, me).await {
                eprintln!("lab: an echo server: {error:#}");
            }
        };
        self.task = Some(Task::start(&self.backend.namespace, serve)?);
        Ok(())
    }

    /// Closes its sockets and connections.
    pub fn stop(&mut self) {
        self.gate.set_closed(false);
        self.task = None;
    }

    /// Leaves everything open, and answers nothing.
    pub fn pause(&mut self) {
        self.gate.set_closed(true);
    }

    /// Answers again after [`Echo::pause`], also what came meanwhile.
    pub fn resume(&mut self) {
        self.gate.set_closed(false);
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What every answer needs.
#[derive(Clone)]
struct Me {
    name: Arc<[u8]>,
    gate: Arc<Gate>,
}

impl Me {
    fn answer(&self, got: &[u8]) -> Vec<u8> {
        // All answers are given by one thread, so one that waits here stands for a paused process.
        self.gate.pass();
        [&self.name, got].concat()
    }
}

async fn serve(
    listener: std::net::TcpListener,
    sockets: Vec<std::net::UdpSocket>,
    me: Me,
) -> Result<()> {
    for socket in sockets {
        tokio::spawn(datagrams(UdpSocket::from_std(socket)?, me.clone()));
    }
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(lines(stream, me.clone()));
    }
}

async fn datagrams(socket: UdpSocket, me: Me) {
    let mut datagram = vec![0; 1 << 16];
    loop {
        // An error is about an earlier answer that did not arrive: its sender's business.
        if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&me.answer(&datagram[..length]), from).await;
        }
    }
}

async fn lines(mut stream: TcpStream, me: Me) {
    let (input, mut output) = stream.split();
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    while input
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|length| length > 0)
    {
        if output.write_all(&me.answer(&line)).await.is_err() {
            break;
        }
        line.clear();
    }
}
