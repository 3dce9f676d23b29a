//! What one link of a [`Machine`](super::Machine) knows of the others.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Advert, Interval, Reason};

/// A link, and who is active there.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// What this node sends from; `None`: it cannot.
    pub(super) local: Option<IpAddr>,
    /// The interval of whoever is active.
    pub(super) interval: Interval,
    /// When whoever is active counts as gone.
    pub(super) gone_at: Instant,
    /// Why it will be gone then.
    pub(super) cause: Option<Reason>,
    /// Last heard of it.
    pub(super) heard_at: Instant,
    rival: Option<Rival>,
    /// Another of the same priority is active as well: when first and last heard.
    tied: Option<(Instant, Instant)>,
    /// When this node has last told another that it is outranked.
    pub(super) asserted_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Rival {
    source: IpAddr,
    /// The highest priority that it has had.
    best: u8,
    /// From when on it may be taken over from, if it is of lower priority.
    spared_until: Option<Instant>,
}

impl Link {
    pub(super) fn new(interval: Interval, now: Instant) -> Self {
        Self {
            local: None,
            interval,
            gone_at: now,
            cause: None,
            heard_at: now,
            rival: None,
            tied: None,
            asserted_at: None,
        }
    }

    /// Begins to wait for whoever is active, at this interval to begin with.
    pub(super) fn wait(&mut self, now: Instant, interval: Interval, priority: u8) {
        self.interval = interval;
        self.heard_at = now;
        self.tied = None;
        self.rival = None;
        self.spare(now, priority);
    }

    /// Begins to be active.
    pub(super) fn take(&mut self) {
        self.tied = None;
        self.asserted_at = None;
    }

    /// Takes note of another that is active as well, and of the same priority.
    pub(super) fn tie(&mut self, now: Instant) {
        let since = self.tied_for(now).map_or(now, |time| now - time);
        self.tied = Some((since, now));
    }

    /// For how long another of the same priority has been active as well, if it still is.
    pub(super) fn tied_for(&self, now: Instant) -> Option<Duration> {
        let (first, last) = self.tied?;
        (now < last + self.interval.duration() * 4).then(|| now - first)
    }

    /// Gives whoever is active its full time again.
    fn spare(&mut self, now: Instant, priority: u8) {
        self.gone_at = now + down_interval(self.interval, priority);
        self.cause = None;
    }

    /// Counts whoever is active as gone in a moment, the shorter the higher the priority.
    pub(super) fn doubt(&mut self, now: Instant, priority: u8, cause: Reason) {
        let soon = now + skew(self.interval, priority);
        if soon < self.gone_at {
            self.gone_at = soon;
            self.cause = Some(cause);
        }
    }

    /// Takes note of an advertisement of one that is active, while this node is not.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        source: IpAddr,
        advert: &Advert,
        priority: u8,
        takes: Takes,
    ) {
        self.heard_at = now;
        self.interval = advert.interval;
        let rival = match &mut self.rival {
            Some(rival) if rival.source == source => rival,
            other => other.insert(Rival {
                source,
                best: 0,
                spared_until: None,
            }),
        };
        rival.best = rival.best.max(advert.priority);
        if advert.priority >= priority {
            rival.spared_until = None;
            return self.spare(now, priority);
        }
        // Its tracking has lowered it: this node is to help out, and need not preempt for it.
        let weakened = advert.priority < rival.best;
        let from = match takes {
            Takes::Nothing => None,
            _ if weakened => Some(now),
            Takes::Weakened => None,
            Takes::Lower(delay) => Some(*rival.spared_until.get_or_insert(now + delay)),
        };
        match from {
            Some(from) if from <= now => {
                self.doubt(now, priority, Reason::Preempts(source, advert.priority));
            }
            _ => self.spare(now, priority),
        }
    }
}

/// From whom a node takes over while they are active.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// From nobody.
    Nothing,
    /// From those whose priority has fallen below its own.
    Weakened,
    /// From all whose priority is lower, once they have been heard for so long.
    Lower(Duration),
}

/// RFC 9568, 6.1: the higher the priority, the sooner.
pub(super) fn skew(interval: Interval, priority: u8) -> Duration {
    interval.duration() * (256 - u32::from(priority)) / 256
}

/// RFC 9568, 6.1: `Active_Down_Interval`.
pub(super) fn down_interval(interval: Interval, priority: u8) -> Duration {
    interval.duration() * 3 + skew(interval, priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_arithmetic() {
        let bound = |millis| {
            let interval = Interval::new(Duration::from_millis(millis)).expect("it is valid");
            down_interval(interval, 100).as_micros()
        };
        assert_eq!(bound(1000), 3_609_375);
        assert_eq!(bound(100), 360_937);
    }
}
