//! How old stored blocks are, by running time: seconds that the daemon ran, added up over boots. A gateway that lay in a store
//! room for a year has not aged, and a clock that is set by fifty years ages nothing.
//!
//! Nothing is kept per block. Now and then, with a commit that writes the spool's own row anyway, a pair is noted: blocks
//! with a smaller number were stored by then. What a pair says is never too old, so nothing goes too early; it goes at
//! most one step (a 64th of `max_age`) late. A kill forgets the running time since the row was last written.

use serde::{Deserialize, Serialize};

/// Pairs that are kept; with more, every second one goes.
const PAIRS_MAX: usize = 160;

/// Steps that `max_age` is divided into.
const STEPS: u64 = 64;

/// Without `max_age`, for the day when there is one.
const STEP_DEFAULT_S: u64 = 3600;

/// Pairs of block number and running time: blocks with a smaller number were stored by then. Ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ages(Vec<(u64, u64)>);

impl Ages {
    /// Notes that blocks below `next` are stored at `running_s`; `oldest` is the oldest block there is.
    pub fn note(&mut self, (oldest, next): (u64, u64), running_s: u64, max_age_s: Option<u64>) {
        let step = max_age_s.map_or(STEP_DEFAULT_S, |age| age / STEPS).max(1);
        if self.0.last().is_some_and(|(_, noted)| running_s < noted.saturating_add(step)) {
            return;
        }
        self.0.retain(|(number, _)| *number > oldest);
        self.0.push((next, running_s));
        if self.0.len() > PAIRS_MAX {
            let mut at = 0;
            self.0.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
    }

    /// Blocks with a smaller number are older than `max_age_s`.
    pub fn expired(&self, running_s: u64, max_age_s: u64) -> u64 {
        let old = |(_, noted): &&(u64, u64)| noted.saturating_add(max_age_s) <= running_s;
        self.0.iter().rev().find(old).map_or(0, |(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_expires_early_and_everything_within_a_step() {
        for max_age in [64, 1_000, 86_400, 90 * 86_400] {
            let mut ages = Ages::default();
            let (mut stored_at, mut oldest) = (Vec::new(), 0);
            let tick = (max_age / 500).max(1);
            for at in (0..6 * max_age).step_by(usize::try_from(tick).expect("small")) {
                ages.note((oldest, stored_at.len() as u64), at, Some(max_age));
                stored_at.push(at);
                oldest = ages.expired(at, max_age).max(oldest);
                let age = |number: u64| at - stored_at[usize::try_from(number).expect("small")];
                if oldest > 0 {
                    assert!(age(oldest - 1) >= max_age, "never early");
                }
                assert!(age(oldest) <= max_age + max_age / STEPS + 2 * tick, "{} late", age(oldest));
            }
            assert!(ages.0.len() <= 70, "{} pairs", ages.0.len());
        }
    }

    #[test]
    fn without_a_limit_the_pairs_stay_few() {
        let mut ages = Ages::default();
        for hour in 0..50_000 {
            ages.note((0, hour), hour * 3600, None);
        }
        assert!(ages.0.len() <= PAIRS_MAX);
        assert_eq!(ages.expired(50_000 * 3600, 60_000 * 3600), 0);
        assert!(ages.expired(50_000 * 3600, 10_000 * 3600) <= 40_000);
    }
}
