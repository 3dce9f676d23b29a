//! Watching services and running commands; what was found is told to the thread that keeps the
//! addresses. Interfaces it watches itself.

use std::{process::Stdio, time::Duration};

use tokio::{
    process,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Orders, Serving, keeper::Command};
use crate::config::ha::{Ha, Track, TrackKind};

/// Bytes of a command's complaint that are shown.
const SHOWN: usize = 200;

/// Starts a task for each rule.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    config: &Ha,
    serving: watch::Receiver<Serving>,
    orders: &Orders,
) {
    for (name, group) in &config.groups {
        for (rule, track) in &group.track {
            let teller = Teller {
                orders: orders.clone(),
                group: name.clone(),
                rule: rule.clone(),
            };
            match track.kind {
                // The thread itself.
                TrackKind::Interface | TrackKind::Xdp => {}
                TrackKind::Service => {
                    let service = track.service.clone().unwrap_or_default();
                    tasks.spawn(follow(service, serving.clone(), teller));
                }
                TrackKind::Command => drop(tasks.spawn(repeat(track.clone(), teller))),
            }
        }
    }
}

struct Teller {
    orders: Orders,
    group: String,
    rule: String,
}

impl Teller {
    /// Whether anybody listens.
    fn tell(&self, passes: bool, reason: String) -> bool {
        self.orders.give(Command::Verdict {
            group: self.group.clone(),
            rule: self.rule.clone(),
            passes,
            reason,
        })
    }
}

async fn follow(service: String, mut serving: watch::Receiver<Serving>, teller: Teller) {
    loop {
        let passes = {
            let serving = serving.borrow_and_update();
            serving.get(&service).is_some_and(|served| served.usable)
        };
        let reason = match passes {
            true => format!("{service} has a healthy backend"),
            false => format!("{service} has no healthy backend"),
        };
        if !teller.tell(passes, reason) || serving.changed().await.is_err() {
            return;
        }
    }
}

async fn repeat(track: Track, teller: Teller) {
    let mut ticks = interval(track.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut passing, mut row, mut known) = (false, 0, false);
    loop {
        ticks.tick().await;
        let result = run(&track.command, track.timeout).await;
        row = match known && result.is_ok() == passing {
            true => 0,
            false => row + 1,
        };
        let needed = if result.is_ok() {
            track.rise
        } else {
            track.fall
        };
        if row >= needed || !known && result.is_err() {
            (passing, row, known) = (result.is_ok(), 0, true);
        }
        let reason = match &result {
            Ok(()) => "it ended with status 0".to_owned(),
            Err(reason) => reason.clone(),
        };
        if known && passing == result.is_ok() && !teller.tell(passing, reason) {
            return;
        }
    }
}

/// One run; else why it failed.
async fn run(command: &[String], patience: Duration) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("there is no command".to_owned());
    };
    let mut command = process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(patience, command.output()).await {
        Err(_) => return Err(format!("{program} takes longer than {patience:?}")),
        Ok(Err(error)) => return Err(format!("{program} cannot be run: {error}")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint: String = complaint.trim().chars().take(SHOWN).collect();
    let separator = if complaint.is_empty() { "" } else { ": " };
    Err(format!(
        "{program}: {}{separator}{complaint}",
        output.status
    ))
}
