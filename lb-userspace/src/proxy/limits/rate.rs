//! Token buckets, many of them in little memory.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config::http::RateLimit;

const SHARDS: usize = 64;
const SETS: usize = 128;
/// Buckets that share a place.
const WAYS: usize = 8;

/// A bucket: whose it is, and when it will be full (GCRA's theoretical arrival time), in
/// nanoseconds since the limiter was made. One that is full says nothing, and is free.
#[derive(Clone, Copy, Default)]
struct Bucket {
    tag: u64,
    full_at: u64,
}

type Set = [Bucket; WAYS];

/// A rate limit for each of many keys: 65,536 that have asked lately, in 1 MiB. Where more come at
/// a time than fit, the one whose bucket will be full first is forgotten: it may ask as if it were
/// new.
pub struct RateLimiter {
    /// Nobody outside can choose keys that meet.
    hasher: RandomState,
    start: Instant,
    /// Nanoseconds for a token.
    per_token: u64,
    /// How far ahead of now a bucket's `full_at` may get.
    depth: u64,
    shards: Box<[Mutex<Box<[Set; SETS]>>]>,
}

impl RateLimiter {
    /// Full buckets for everyone.
    pub fn new(limit: &RateLimit) -> RateLimiter {
        let nanos = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        let per_token = (nanos / u64::from(limit.requests.max(1))).max(1);
        RateLimiter {
            hasher: RandomState::new(),
            start: Instant::now(),
            per_token,
            depth: per_token.saturating_mul(u64::from(limit.burst().max(1))),
            shards: (0..SHARDS)
                .map(|_| Mutex::new(Box::new([[Bucket::default(); WAYS]; SETS])))
                .collect(),
        }
    }

    /// Takes a token of a key's bucket.
    ///
    /// # Errors
    ///
    /// It has none: how long until it has.
    pub fn take(&self, key: &[u8], now: Instant) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(key);
        let now = now.saturating_duration_since(self.start).as_nanos() as u64;
        let shard = &self.shards[hash as usize % SHARDS];
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let set = &mut sets[(hash >> 6) as usize % SETS];
        let bucket = match set.iter_mut().position(|bucket| bucket.tag == hash) {
            Some(at) => &mut set[at],
            None => {
                let soonest = (0..WAYS).min_by_key(|at| set[*at].full_at).unwrap_or(0);
                set[soonest] = Bucket {
                    tag: hash,
                    full_at: 0,
                };
                &mut set[soonest]
            }
        };
        let full_at = bucket.full_at.max(now) + self.per_token;
        match full_at.checked_sub(now + self.depth) {
            None | Some(0) => {
                bucket.full_at = full_at;
                Ok(())
            }
            Some(early) => Err(Duration::from_nanos(early)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::http::Key;
    use proptest::prelude::*;

    fn limiter(requests: u32, per: u64, burst: Option<u32>) -> RateLimiter {
        let per = Duration::from_secs(per);
        RateLimiter::new(&RateLimit {
            key: Key::Address,
            requests,
            per,
            burst,
        })
    }

    #[test]
    fn buckets_empty_and_fill() {
        let limiter = limiter(10, 1, Some(3));
        let at = |millis| limiter.start + Duration::from_millis(millis);
        let allowed = |key: &str, millis| limiter.take(key.as_bytes(), at(millis));
        assert_eq!([0, 0, 0].map(|t| allowed("a", t)), [Ok(()); 3]);
        assert_eq!(allowed("a", 0), Err(Duration::from_millis(100)));
        assert_eq!(allowed("b", 0), Ok(()));
        assert_eq!(allowed("a", 60), Err(Duration::from_millis(40)));
        assert_eq!(allowed("a", 100), Ok(()));
        assert_eq!(allowed("a", 100), Err(Duration::from_millis(100)));
        assert_eq!([1000, 1000, 1000].map(|t| allowed("a", t)), [Ok(()); 3]);
        assert!(allowed("a", 1000).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = limiter(1, 3600, None);
        let now = limiter.start;
        for n in 0..200_000u32 {
            assert_eq!(limiter.take(&n.to_be_bytes(), now), Ok(()));
        }
        // The last is remembered, whatever came before.
        assert!(limiter.take(&199_999u32.to_be_bytes(), now).is_err());
    }

    proptest! {
        /// In no stretch of time are there more than the burst and what that time gives.
        #[test]
        fn never_too_many(
            requests in 1..50u32,
            burst in 1..20u32,
            gaps in prop::collection::vec(0..200u64, 1..200),
        ) {
            let limiter = limiter(requests, 1, Some(burst));
            let mut now = 0;
            let mut taken = Vec::new();
            for gap in gaps {
                now += gap;
                if limiter.take(b"k", limiter.start + Duration::from_millis(now)).is_ok() {
                    taken.push(now);
                }
            }
            prop_assert!(!taken.is_empty());
            for (n, from) in taken.iter().enumerate() {
                for (m, to) in taken.iter().enumerate().skip(n) {
                    let most = f64::from(burst) + (to - from) as f64 * f64::from(requests) / 1000.0;
                    prop_assert!((m - n + 1) as f64 <= most + 1e-3, "{} in {}", m - n + 1, to - from);
                }
            }
        }
    }
}
