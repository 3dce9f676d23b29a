//! Connections that are held open, and say something when they are told to.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections to echo servers.
#[derive(Default)]
pub struct Held(pub Vec<Connection>);

/// One of them.
pub struct Connection {
    stream: BufReader<TcpStream>,
    /// Who answers on it.
    pub partner: String,
    lines: u64,
}

impl Held {
    /// Opens them, and has each say a line.
    ///
    /// # Errors
    ///
    /// One could not be opened, or was not answered.
    pub fn open(from: &Namespace, target: SocketAddr, count: usize) -> Result<Self> {
        from.run(|| {
            let opened = (0..count).map(|_| Connection::open(None, target));
            opened.collect::<Result<Vec<_>>>().map(Self)
        })?
    }

    /// Has each say a line. What happened to those to whose partners it happened, and how long
    /// it took them to know.
    pub fn say(&mut self) -> Vec<(String, io::Result<Duration>)> {
        let said = self.0.iter_mut().map(|connection| {
            let started = Instant::now();
            let said = connection.say().map(|()| started.elapsed());
            (connection.partner.clone(), said)
        });
        said.collect()
    }

    /// Has each say a line, which must be answered by the same as ever.
    ///
    /// # Errors
    ///
    /// One was not.
    pub fn all_say(&mut self) -> Result<()> {
        for connection in &mut self.0 {
            let from = connection.stream.get_ref().local_addr()?;
            let said = connection.say();
            said.with_context(|| format!("from {from} to {}", connection.partner))?;
        }
        Ok(())
    }

    /// How many each has.
    pub fn by_partner(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for connection in &self.0 {
            *counts.entry(connection.partner.clone()).or_default() += 1;
        }
        counts
    }

    /// How many one has.
    pub fn of(&self, partner: &str) -> usize {
        self.by_partner().get(partner).copied().unwrap_or(0)
    }
}

impl Connection {
    /// Opens it, from a certain address and port if that matters (0: any), and says a line.
    /// In the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// It could not be opened, or was not answered.
    pub fn open(from: Option<SocketAddr>, target: SocketAddr) -> Result<Self> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if let Some(from) = from {
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&target.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_tcp_nodelay(true)?;
        let mut connection = Self {
            stream: BufReader::new(socket.into()),
            partner: String::new(),
            lines: 0,
        };
        connection.say().context("the first line")?;
        Ok(connection)
    }

    /// Says a line, and hears it from its partner.
    ///
    /// # Errors
    ///
    /// The socket's; or it was answered by another, or otherwise.
    pub fn say(&mut self) -> io::Result<()> {
        self.lines += 1;
        let said = format!("{}\n", self.lines);
        self.stream.get_mut().write_all(said.as_bytes())?;
        let mut heard = String::new();
        if self.stream.read_line(&mut heard)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (name, echoed) = heard.split_once(' ').unwrap_or_default();
        if self.partner.is_empty() {
            name.clone_into(&mut self.partner);
        }
        match name == self.partner && echoed == said {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} said {heard:?}", self.partner))),
        }
    }

    /// Where it comes from.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn from(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    /// Ends it with a RST.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn reset(self) -> io::Result<()> {
        let stream = self.stream.into_inner();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    }
}

/// A flow of datagrams to an echo server.
pub struct Datagrams(std::net::UdpSocket);

impl Datagrams {
    /// A socket in the namespace, connected to the target.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new(from: &Namespace, target: SocketAddr) -> Result<Self> {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        from.run(move || {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Self(socket))
        })?
    }

    /// How long an answer may take, instead of five seconds.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn wait_for(&self, time: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(time))
    }

    /// Where they come from.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn from(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Sends one of each flow, and returns who answers each.
    ///
    /// # Errors
    ///
    /// As [`Datagrams::ask`].
    pub fn ask_all(flows: &[Self]) -> io::Result<Vec<String>> {
        flows.iter().map(Self::ask).collect()
    }

    /// Sends one, and returns who answers.
    ///
    /// # Errors
    ///
    /// The socket's: `ConnectionRefused` where an ICMP error came.
    pub fn ask(&self) -> io::Result<String> {
        let answer = self.exchange(b"hello")?;
        let answer = String::from_utf8_lossy(&answer);
        let (name, _) = answer.split_once(' ').unwrap_or_default();
        Ok(name.to_owned())
    }

    /// Sends this, and returns the answer.
    ///
    /// # Errors
    ///
    /// As [`Datagrams::ask`].
    pub fn exchange(&self, datagram: &[u8]) -> io::Result<Vec<u8>> {
        self.0.send(datagram)?;
        let mut answer = vec![0; 1 << 16];
        let length = self.0.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// A counter of the namespace's from /proc/net/snmp, such as `Tcp`, `RetransSegs`.
///
/// # Errors
///
/// There is none of that name.
pub fn counter(namespace: &Namespace, protocol: &str, name: &str) -> Result<u64> {
    // Not /proc/net: that is the process's first thread's.
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let prefix = format!("{protocol}:");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = (names.unwrap_or_default(), values.unwrap_or_default());
    let found = names.split_whitespace().zip(values.split_whitespace());
    let found = found.into_iter().find(|(its, _)| *its == name);
    ensure!(found.is_some(), "no {protocol} {name}");
    Ok(found.map_or("0", |(_, value)| value).parse()?)
}
