//! What results in a row mean.

use super::Health;

/// The verdict on one target.
#[derive(Debug)]
pub(super) struct Judge {
    rise: u32,
    fall: u32,
    health: Health,
    /// Results in a row that speak against the verdict.
    against: u32,
}

impl Judge {
    pub(super) fn new(rise: u32, fall: u32) -> Self {
        Self {
            rise,
            fall,
            health: Health::Unknown,
            against: 0,
        }
    }

    /// Takes the next result, and returns the verdict if that changed it.
    pub(super) fn hear(&mut self, passed: bool) -> Option<Health> {
        let (says, needed) = if passed {
            (Health::Healthy, self.rise)
        } else {
            (Health::Unhealthy, self.fall)
        };
        if says == self.health {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.health != Health::Unknown && self.against < needed {
            return None;
        }
        self.against = 0;
        self.health = says;
        Some(says)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn verdicts(rise: u32, fall: u32, results: &[bool]) -> Vec<Option<Health>> {
        let mut judge = Judge::new(rise, fall);
        results.iter().map(|&passed| judge.hear(passed)).collect()
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(verdicts(5, 5, &[true]), [Some(Health::Healthy)]);
        assert_eq!(verdicts(5, 5, &[false]), [Some(Health::Unhealthy)]);
    }

    #[test]
    fn falls_and_rises_after_as_many_in_a_row() {
        let results = [true, false, false, true, false, false, false, true, true];
        let mut expected = [None; 9];
        expected[0] = Some(Health::Healthy);
        expected[6] = Some(Health::Unhealthy);
        expected[8] = Some(Health::Healthy);
        assert_eq!(verdicts(2, 3, &results), expected);
    }

    #[test]
    fn zero_counts_as_one() {
        assert_eq!(
            verdicts(0, 0, &[true, false, true]),
            [Health::Healthy, Health::Unhealthy, Health::Healthy].map(Some)
        );
    }

    proptest! {
        /// The verdict is that of the last run of equal results which was long enough; the
        /// first run always is.
        #[test]
        fn follows_the_last_run_that_was_long_enough(
            rise in 1u32..6,
            fall in 1u32..6,
            results in vec(any::<bool>(), 1..60),
        ) {
            let mut judge = Judge::new(rise, fall);
            let mut health = Health::Unknown;
            for (index, &passed) in results.iter().enumerate() {
                let change = judge.hear(passed);
                prop_assert_ne!(change, Some(health));
                health = change.unwrap_or(health);

                let mut end = 0;
                let mut expected = Health::Unknown;
                for run in results[..=index].chunk_by(|a, b| a == b) {
                    let (says, needed) = if run[0] { (Health::Healthy, rise) } else { (Health::Unhealthy, fall) };
                    if end == 0 || run.len() >= needed as usize {
                        expected = says;
                    }
                    end += run.len();
                }
                prop_assert_eq!(health, expected);
            }
        }
    }
}
