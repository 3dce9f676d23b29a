//! The checks of one target, one after the other.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    Change, Check, Target,
    failure::Failure,
    judge::Judge,
    probe::{Pass, probe},
};

/// Checks `target`, for the first time at `start`, until nobody receives the changes; each
/// check waits for one of the `turns`.
pub(super) async fn watch(
    target: Target,
    mut start: Instant,
    turns: Arc<Semaphore>,
    changes: mpsc::Sender<Change>,
) {
    let Target {
        pool,
        backend,
        address,
        check,
    } = target;
    let mut judge = Judge::new(check.rise, check.fall);
    let mut able = true;
    // First checks come close together; the second ones take places all over the interval.
    let mut wait = check.interval.mul_f64(fastrand::f64());
    loop {
        sleep_until(start).await;
        let result = {
            let _turn = turns.acquire().await;
            // Boxed: between checks it takes no memory.
            Box::pin(probe(address, &check)).await
        };
        if let Err(Failure::Local(_)) = result {
            if able {
                warn!(pool, backend, reason = %words(&result), "health is not checked");
            }
            able = false;
        } else {
            able = true;
            debug!(pool, backend, result = %words(&result), "checked");
            if let Some(health) = judge.hear(result.is_ok()) {
                let change = Change {
                    pool: pool.clone(),
                    backend: backend.clone(),
                    health,
                    reason: words(&result),
                };
                if changes.send(change).await.is_err() {
                    return;
                }
            }
        }
        start = Instant::now().max(start + wait);
        wait = jittered(&check);
    }
}

fn words(result: &Result<Pass, Failure>) -> String {
    match result {
        Ok(pass) => pass.to_string(),
        Err(failure) => failure.to_string(),
    }
}

fn jittered(check: &Check) -> Duration {
    let part = f64::from(check.jitter.min(100)) / 100.0;
    let factor = 1.0 - part + 2.0 * part * fastrand::f64();
    check.interval.mul_f64(factor)
}
