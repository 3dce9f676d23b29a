//! Long-lived connections that go on talking to an echo server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::Namespace;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long an answer may take before the connection counts as lost: TCP's fifth repetition comes
/// after more than six seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Conversations that are being held.
pub struct Conversations {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Report>>,
}

/// What the client's thread is told, and tells.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    exchanges: AtomicU64,
    /// Conversations that have been answered once.
    answered: AtomicU64,
    broken: AtomicU64,
}

/// What became of them.
#[derive(Debug)]
pub struct Report {
    /// Lines that were answered.
    pub exchanges: u64,
    /// Why conversations ended before they were to.
    pub failures: Vec<String>,
    /// The longest that an answer took.
    pub longest: Duration,
}

impl Conversations {
    /// Opens `count` connections to `target`, each of which says a line every `pause`, and
    /// returns when all have been answered once.
    ///
    /// # Errors
    ///
    /// They could not be opened.
    pub fn start(
        from: &Namespace,
        target: SocketAddr,
        count: u64,
        pause: Duration,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (from, told) = (from.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            from.run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                Ok(runtime.block_on(hold(target, count, pause, told)))
            })?
        });
        let conversations = Self { shared, thread };
        lab::retry(Duration::from_secs(20), || {
            let answered = conversations.shared.answered.load(Ordering::Relaxed);
            ensure!(answered == count, "{answered} of {count} were answered");
            Ok(())
        })?;
        Ok(conversations)
    }

    /// Lines that were answered so far.
    pub fn exchanges(&self) -> u64 {
        self.shared.exchanges.load(Ordering::Relaxed)
    }

    /// Conversations that have ended before they were to, so far.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// Ends all that still go on.
    ///
    /// # Errors
    ///
    /// They were never opened.
    pub fn finish(self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let report = self.thread.join();
        report.map_err(|_| anyhow::anyhow!("the client panicked"))?
    }
}

async fn hold(target: SocketAddr, count: u64, pause: Duration, shared: Arc<Shared>) -> Report {
    let talks = (0..count).map(|number| {
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            let talked = talk(target, number, pause, &shared, &mut longest).await;
            (shared.broken).fetch_add(u64::from(talked.is_err()), Ordering::Relaxed);
            (talked, longest)
        })
    });
    let talks: Vec<_> = talks.collect();
    let mut report = Report {
        exchanges: 0,
        failures: Vec::new(),
        longest: Duration::ZERO,
    };
    for talk in talks {
        match talk.await {
            Ok((talked, longest)) => {
                report.longest = report.longest.max(longest);
                if let Err(error) = talked {
                    report.failures.push(format!("{error:#}"));
                }
            }
            Err(error) => report.failures.push(error.to_string()),
        }
    }
    report.exchanges = shared.exchanges.load(Ordering::Relaxed);
    report
}

/// One conversation: always the same backend answers.
async fn talk(
    target: SocketAddr,
    number: u64,
    pause: Duration,
    shared: &Shared,
    longest: &mut Duration,
) -> Result<()> {
    let connected = timeout(PATIENCE, TcpStream::connect(target)).await;
    let mut stream = connected.context("connecting takes too long")??;
    let (input, mut output) = stream.split();
    let mut input = BufReader::new(input);
    let mut partner = String::new();
    let mut turn = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let said = format!("{number}.{turn}\n");
        let started = Instant::now();
        output.write_all(said.as_bytes()).await?;
        let mut heard = String::new();
        timeout(PATIENCE, input.read_line(&mut heard))
            .await
            .with_context(|| format!("{partner} does not answer {said:?}"))??;
        *longest = started.elapsed().max(*longest);
        let (name, echoed) = heard.split_once(' ').context("the connection was closed")?;
        ensure!(echoed == said, "said {said:?}, heard {heard:?}");
        if partner.is_empty() {
            name.clone_into(&mut partner);
            shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        ensure!(name == partner, "{partner} was answering, now {name} is");
        shared.exchanges.fetch_add(1, Ordering::Relaxed);
        turn += 1;
        sleep(pause).await;
    }
    Ok(())
}
