//! Which targets are checked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    future::{AbortHandle, abortable},
    stream::FuturesUnordered,
};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    select,
    sync::{Semaphore, mpsc},
    task::unconstrained,
    time::Instant,
};

use super::{Change, Retarget, Target, watch::watch};

/// First checks of what comes at once start this far apart,
const APART: Duration = Duration::from_millis(1);
/// but all within this time,
const FIRST_CHECKS: Duration = Duration::from_secs(1);
/// unless there are more than this host makes in time without being late: any two first checks are at
/// least so far apart.
const LEAST_APART: Duration = Duration::from_micros(100);

/// What is checked, by pool and backend.
type Running = HashMap<String, HashMap<String, (Target, AbortHandle)>>;

/// Checks what it is told to until either channel loses its other end.
///
/// All in one task, so that a target that was stopped cannot get another word in, and all of
/// them end with the task.
pub(super) async fn run(
    mut targets: mpsc::UnboundedReceiver<Retarget>,
    changes: mpsc::Sender<Change>,
) {
    let turns = Arc::new(Semaphore::new(at_once()));
    let mut running = Running::new();
    let mut checks = FuturesUnordered::new();
    let mut news = Vec::new();
    let mut next = Instant::now();
    loop {
        select! {
            count = targets.recv_many(&mut news, usize::MAX) => if count == 0 {
                return;
            },
            () = changes.closed() => return,
            // One that was stopped.
            Some(_) = checks.next() => continue,
        }
        let new = news.drain(..).flat_map(|news| update(&mut running, news));
        for (target, start) in starts(&mut next, Instant::now(), new.collect()) {
            let check = watch(target.clone(), start, turns.clone(), changes.clone());
            let (check, stop) = abortable(check);
            let of_pool = running.entry(target.pool.clone()).or_default();
            let old = of_pool.insert(target.backend.clone(), (target, stop));
            if let Some((_, stop)) = old {
                // It was told of twice at once.
                stop.abort();
            }
            // With no budget of polls (tokio::task::coop): they would share one, and once there are
            // more due than it allows, all the others are polled in vain each time.
            checks.push(unconstrained(check));
        }
    }
}

/// How many checks may be made at a time.
fn at_once() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    limit.map_or(256, |(files, _)| files as usize / 4).max(16)
}

/// Stops what is not wanted any more, and returns what is new.
fn update(running: &mut Running, news: Retarget) -> Vec<Target> {
    let Retarget {
        pool,
        backend,
        targets,
    } = news;
    let of_pool = running.entry(pool.clone()).or_default();
    let wanted: HashMap<&str, &Target> = targets
        .iter()
        .map(|target| (target.backend.as_str(), target))
        .collect();
    let check = |name: &str, of_pool: &mut HashMap<String, (Target, AbortHandle)>| {
        let stays = |(target, _): &(Target, AbortHandle)| wanted.get(name) == Some(&target);
        if let Some((_, stop)) = of_pool.get(name).filter(|running| !stays(running)) {
            stop.abort();
            of_pool.remove(name);
        }
    };
    match &backend {
        Some(backend) => check(backend, of_pool),
        None => {
            for name in of_pool.keys().cloned().collect::<Vec<_>>() {
                check(&name, of_pool);
            }
        }
    }
    let new = (targets.iter())
        .filter(|target| !of_pool.contains_key(&target.backend))
        .cloned()
        .collect();
    if of_pool.is_empty() {
        running.remove(&pool);
    }
    new
}

/// When to check each for the first time; `next`: when another may be at the earliest.
fn starts(
    next: &mut Instant,
    now: Instant,
    new: Vec<Target>,
) -> impl Iterator<Item = (Target, Instant)> {
    spread(new).map(move |(target, delay)| {
        let start = (now + delay).max(*next);
        *next = start + LEAST_APART;
        (target, start)
    })
}

/// The same, were there no others.
fn spread(new: Vec<Target>) -> impl Iterator<Item = (Target, Duration)> {
    let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
    let within = FIRST_CHECKS.min(APART * count);
    (0..).zip(new).map(move |(index, target)| {
        let delay = within.min(target.check.interval) / count * index;
        (target, delay)
    })
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::health::{Check, Health, Kind};

    fn targets(count: usize, interval: Duration) -> Vec<Target> {
        let target = |index: usize| Target {
            pool: "pool".into(),
            backend: index.to_string(),
            address: ([127, 0, 0, 1], 9).into(),
            check: Arc::new(Check {
                kind: Kind::Tcp,
                interval,
                jitter: 0,
                timeout: interval,
                proxy_protocol: None,
                rise: 1,
                fall: 1,
            }),
        };
        (0..count).map(target).collect()
    }

    fn last_first_check(count: usize, interval: Duration) -> Duration {
        let new = spread(targets(count, interval));
        let mut delays: Vec<_> = new.map(|(_, delay)| delay).collect();
        assert_eq!(delays.len(), count);
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

    /// Many pools that come one by one are no burst.
    #[test]
    fn first_checks_of_many_pools_are_spread_too() {
        let now = Instant::now();
        let mut next = now;
        let mut all = Vec::new();
        for _ in 0..1000 {
            let pool = targets(100, Duration::from_secs(2));
            all.extend(starts(&mut next, now, pool).map(|(_, start)| start - now));
        }
        let last = all.iter().max().unwrap();
        assert!(*last >= LEAST_APART * 99_999 && *last < LEAST_APART * 101_000);
        all.sort();
        assert!(all.windows(2).all(|two| two[1] - two[0] >= LEAST_APART));
        // One that comes later, when these are over, does not wait.
        let later = now + Duration::from_secs(60);
        let (_, start) = starts(&mut next, later, targets(1, FIRST_CHECKS))
            .next()
            .unwrap();
        assert_eq!(start, later);
    }

    /// Late once must not be late for ever: all that are due are checked, not a few at a time while
    /// all others are looked at in vain.
    #[tokio::test]
    async fn a_backlog_is_worked_off_in_one_go() {
        const COUNT: usize = 5000;
        let mut due = targets(COUNT, FIRST_CHECKS);
        for target in &mut due {
            // TCP has no multicast: it fails at once, and nothing is sent.
            target.address = ([224, 0, 0, 1], 9).into();
        }
        let (targets, told) = mpsc::unbounded_channel();
        let news = Retarget {
            pool: "pool".into(),
            backend: None,
            targets: due,
        };
        targets.send(news).unwrap();
        let (changes, mut judged) = mpsc::channel(COUNT);
        let polls = Arc::new(AtomicUsize::new(0));
        let mut checker = Box::pin(run(told, changes));
        let counted = polls.clone();
        tokio::spawn(poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            checker.as_mut().poll(context)
        }));
        tokio::task::yield_now().await;
        // The agent has no CPU meanwhile.
        std::thread::sleep(FIRST_CHECKS);
        for _ in 0..COUNT {
            let change = judged.recv().await.unwrap();
            assert_eq!(change.health, Health::Unhealthy);
        }
        let polls = polls.load(Ordering::Relaxed);
        assert!(polls < 20, "the checker was woken {polls} times");
    }

    #[test]
    fn only_what_is_new_starts_and_only_what_is_gone_stops() {
        let all = targets(3, FIRST_CHECKS);
        let of_pool: HashMap<_, _> = all[..2]
            .iter()
            .map(|target| {
                (
                    target.backend.clone(),
                    (target.clone(), AbortHandle::new_pair().0),
                )
            })
            .collect();
        let (gone, stays) = (of_pool["0"].1.clone(), of_pool["1"].1.clone());
        let mut running = HashMap::from([("pool".to_owned(), of_pool)]);
        let news = |backend: Option<&str>, targets: &[Target]| Retarget {
            pool: "pool".into(),
            backend: backend.map(str::to_owned),
            targets: targets.to_vec(),
        };
        let new = update(&mut running, news(None, &all[1..]));
        assert_eq!(new, [all[2].clone()]);
        assert!(gone.is_aborted() && !stays.is_aborted());
        assert_eq!(running["pool"].keys().collect::<Vec<_>>(), ["1"]);
        assert_eq!(
            update(&mut running, news(Some("2"), &all[2..])),
            [all[2].clone()]
        );
        assert!(!stays.is_aborted(), "only backend 2 was spoken of");
        assert_eq!(update(&mut running, news(Some("1"), &[])), []);
        assert!(stays.is_aborted() && running.is_empty());
    }
}
