//! Which targets are checked.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt as _,
    future::{AbortHandle, abortable},
    stream::FuturesUnordered,
};
use tokio::{
    select,
    sync::{mpsc, watch as latest},
};

use super::{Change, Target, watch::watch};

/// First checks start this far apart,
const APART: Duration = Duration::from_millis(1);
/// but all within this time.
const FIRST_CHECKS: Duration = Duration::from_secs(1);

/// Checks the latest `targets` until either channel loses its other end.
///
/// All in one task, so that a target that was stopped cannot get another word in, and all of
/// them end with the task.
pub(super) async fn run(
    mut targets: latest::Receiver<Arc<Vec<Target>>>,
    changes: mpsc::Sender<Change>,
) {
    let mut running: HashMap<Target, AbortHandle> = HashMap::new();
    let mut checks = FuturesUnordered::new();
    targets.mark_changed();
    loop {
        select! {
            changed = targets.changed() => if changed.is_err() {
                return;
            },
            () = changes.closed() => return,
            // One that was stopped.
            Some(_) = checks.next() => continue,
        }
        let wanted = Arc::clone(&targets.borrow_and_update());
        for (target, delay) in update(&mut running, &wanted) {
            let (check, stop) = abortable(watch(target.clone(), delay, changes.clone()));
            running.insert(target, stop);
            checks.push(check);
        }
    }
}

/// Stops what is not wanted any more, and returns what is new and when to check it first.
fn update(
    running: &mut HashMap<Target, AbortHandle>,
    wanted: &[Target],
) -> Vec<(Target, Duration)> {
    let wanted: HashSet<&Target> = wanted.iter().collect();
    running.retain(|target, stop| {
        let stays = wanted.contains(target);
        if !stays {
            stop.abort();
        }
        stays
    });
    let new: Vec<&Target> = wanted
        .into_iter()
        .filter(|target| !running.contains_key(target))
        .collect();
    let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
    let within = FIRST_CHECKS.min(APART * count);
    (0..)
        .zip(new)
        .map(|(index, target)| {
            let delay = within.min(target.check.interval) / count * index;
            (target.clone(), delay)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Check, Kind};

    fn targets(count: usize, interval: Duration) -> Vec<Target> {
        let target = |index: usize| Target {
            pool: "pool".into(),
            backend: index.to_string(),
            address: ([127, 0, 0, 1], 9).into(),
            check: Check {
                kind: Kind::Tcp,
                interval,
                jitter: 0,
                timeout: interval,
                rise: 1,
                fall: 1,
            },
        };
        (0..count).map(target).collect()
    }

    fn last_first_check(count: usize, interval: Duration) -> Duration {
        let new = update(&mut HashMap::new(), &targets(count, interval));
        assert_eq!(new.len(), count);
        let mut delays: Vec<_> = new.into_iter().map(|(_, delay)| delay).collect();
        delays.sort();
        delays.dedup();
        assert_eq!(delays.len(), count, "two checks start together");
        assert_eq!(delays[0], Duration::ZERO);
        delays[count - 1]
    }

    #[test]
    fn first_checks_are_spread_and_soon() {
        let minute = Duration::from_secs(60);
        assert_eq!(last_first_check(1, minute), Duration::ZERO);
        assert_eq!(last_first_check(10, minute), Duration::from_millis(9));
        let last = last_first_check(10_000, minute);
        assert!(last > FIRST_CHECKS * 9 / 10 && last < FIRST_CHECKS);
        let tenth = Duration::from_millis(100);
        assert!(last_first_check(10_000, tenth) < tenth);
    }

    #[test]
    fn only_what_is_new_starts_and_only_what_is_gone_stops() {
        let all = targets(3, FIRST_CHECKS);
        let mut running: HashMap<_, _> = all[..2]
            .iter()
            .map(|target| (target.clone(), AbortHandle::new_pair().0))
            .collect();
        let (gone, stays) = (running[&all[0]].clone(), running[&all[1]].clone());
        let new = update(&mut running, &all[1..]);
        assert_eq!(new, [(all[2].clone(), Duration::ZERO)]);
        assert!(gone.is_aborted() && !stays.is_aborted());
        assert_eq!(running.keys().collect::<Vec<_>>(), [&all[1]]);
    }
}
