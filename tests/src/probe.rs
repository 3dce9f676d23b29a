//! What a client sees of a failure: a datagram each few milliseconds, answered or not.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::Namespace;

/// A client that goes on asking.
pub struct Probe {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<Vec<usize>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outage {
    /// The longest time between two datagrams that were answered, less the usual.
    pub longest: Duration,
    /// Datagrams that were not answered.
    pub lost: usize,
    /// All datagrams.
    pub sent: usize,
}

impl Probe {
    /// From one port, to an echo server behind the target, one each time that `every` has passed.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn start(from: &Namespace, target: SocketAddr, every: Duration) -> Result<Self> {
        let socket = from.run(|| {
            let any: SocketAddr = if target.is_ipv4() {
                ([0; 4], 0).into()
            } else {
                ([0u16; 8], 0).into()
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            anyhow::Ok(socket)
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let (answers, stopped) = (socket.try_clone()?, Arc::clone(&stop));
        let receiver = std::thread::spawn(move || receive(&answers, &stopped));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let mut sent = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // While there is no way, the kernel says so: as good as a loss.
                let _ = socket.send(sent.len().to_string().as_bytes());
                sent.push(Instant::now());
                std::thread::sleep(every);
            }
            sent
        });
        Ok(Self {
            stop,
            sender,
            receiver,
        })
    }

    /// Stops, once late answers have come.
    ///
    /// # Errors
    ///
    /// A thread panicked.
    pub fn finish(self) -> Result<Outage> {
        std::thread::sleep(Duration::from_millis(200));
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().ok().context("the sender panicked")?;
        let mut answered = self.receiver.join().ok().context("the receiver panicked")?;
        answered.sort_unstable();
        answered.dedup();
        let gaps = answered.windows(2).map(|pair| {
            let (before, after) = (sent[pair[0]], sent[pair[1]]);
            match pair[1] - pair[0] {
                1 => Duration::ZERO,
                _ => after - before,
            }
        });
        Ok(Outage {
            longest: gaps.max().unwrap_or(Duration::MAX),
            lost: sent.len() - answered.len(),
            sent: sent.len(),
        })
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<usize> {
    let mut answered = Vec::new();
    let mut answer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        // The name of the backend, a space, and what it was sent.
        let length = socket.recv(&mut answer).unwrap_or(0);
        let words = std::str::from_utf8(&answer[..length]).unwrap_or_default();
        let number = words
            .split_once(' ')
            .and_then(|(_, number)| number.parse::<usize>().ok());
        answered.extend(number);
    }
    answered
}
