//! The demo: a network of namespaces with real servers, load, and the agent between them.

use std::{
    collections::BTreeSet,
    future,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{Lab, Plan, load::Load};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::{
    front::FRONTS,
    guide,
    sample::{Sample, total},
    screen::{Screen, summary},
    signals::Signals,
    web::Web,
    weir::Weir,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs it until a signal comes or the time is over, and removes everything.
///
/// # Errors
///
/// What could not be made; that the agent has ended; that no request succeeded.
pub(super) async fn run(agent: &Path, time: Option<Duration>) -> Result<()> {
    // Before there is anything to remove. What follows is dropped in the opposite order.
    let mut signals = Signals::catch()?;
    let lab = Lab::new(&Plan::default())?;
    let mut webs = Vec::new();
    let ports: BTreeSet<_> = FRONTS.iter().map(|front| front.port).collect();
    for backend in lab.backends() {
        for &port in &ports {
            webs.push(Web::start(backend, port)?);
        }
    }
    let mut weir = Weir::start(agent, &lab)?;
    tokio::select! {
        biased;
        () = signals.received() => return Ok(()),
        ready = weir.ready() => ready?,
    }
    guide::print(agent, &lab, &weir, &webs).await?;
    let loads = FRONTS
        .iter()
        .map(|front| front.load(&lab))
        .collect::<Result<Vec<_>>>()?;
    tokio::select! {
        biased;
        () = signals.received() => {}
        () = over(time) => {}
        failed = watch(&mut weir, &mut webs, &loads) => failed?,
    }
    let results: Vec<_> = loads.into_iter().map(Load::stop).collect();
    weir.ensure_running()?;
    let total = total(&results);
    writeln!(io::stdout(), "\n{}", summary(&total))?;
    if let Some(failure) = total.failures.first() {
        writeln!(io::stdout(), "the first failure: {failure}")?;
    }
    ensure!(total.requests > total.failed, "no request succeeded");
    Ok(())
}

async fn over(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => future::pending().await,
    }
}

/// Shows what happens, and starts servers again, for as long as the agent runs.
async fn watch(weir: &mut Weir, webs: &mut [Web], loads: &[Load]) -> Result<()> {
    let mut screen = Screen::new();
    let mut seconds = interval_at(Instant::now() + SECOND, SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Sample::take(loads, weir.admin()).await?;
    loop {
        seconds.tick().await;
        for web in &mut *webs {
            web.tend()?;
        }
        let now = Sample::take(loads, weir.admin()).await;
        // That it has ended says more than that it does not answer.
        weir.ensure_running()?;
        let now = now?;
        screen.show(&before, &now, webs)?;
        before = now;
    }
}
