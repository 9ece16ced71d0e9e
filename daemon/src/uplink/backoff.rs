//! How long to wait before the next connection. Pure: time and chance are given.
//!
//! Two kinds of failure, two ceilings. A broker that cannot be reached costs nobody anything: 1 to 30 s, drawn evenly
//! (full jitter), so that a fleet that lost its broker at one moment does not come back at one moment. A broker that
//! was reached and did not keep us (TLS, CONNACK, take-over, closed before the first PUBACK) is spared: 1 s to 5 min and
//! at most 12 such connections in 10 min. Full jitter cannot hold both of these bounds, so a refused wait is drawn from
//! the upper half of its turn: any twelve in a row then take at least 855 s.
//!
//! A connection that was accepted proves nothing (a broker may accept and close for ever): the ceilings fall back only
//! after a minute with at least one PUBACK.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Why the last connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Name, route or TCP: nobody took the connection, or a connection that had worked was lost.
    Unreachable,
    /// TCP was accepted and we were not, or not for long.
    Refused,
}

/// Shortest wait.
pub const FLOOR: Duration = Duration::from_secs(1);
/// Longest wait for a broker that cannot be reached.
pub const UNREACHABLE_CEILING: Duration = Duration::from_secs(30);
/// Longest wait for a broker that refused us.
pub const REFUSED_CEILING: Duration = Duration::from_secs(300);
/// At most this many refused connections ...
pub const REFUSED_MAX: usize = 12;
/// ... in this time.
pub const REFUSED_WINDOW: Duration = Duration::from_secs(600);
/// With so many refusals in the window nothing cuts a wait short any more: the waits of the turns that are left, at
/// least 32, 64, 128 and 3 x 150 s, then keep to the limit by themselves.
const KICKS_MAX: usize = REFUSED_MAX / 2;
/// A connection this old, with a PUBACK, is stable.
pub const STABLE: Duration = Duration::from_secs(60);

/// The waits so far.
#[derive(Debug, Default)]
pub struct Backoff {
    unreachable: u32,
    refused: u32,
    /// When the last refusals were, at most [`KICKS_MAX`].
    refusals: VecDeque<Instant>,
}

impl Backoff {
    /// The wait after a failure at `now`; `chance` is drawn evenly from 0 to 1.
    pub fn after(&mut self, failure: Failure, now: Instant, chance: f64) -> Duration {
        let (turn, ceiling) = match failure {
            Failure::Unreachable => (&mut self.unreachable, UNREACHABLE_CEILING),
            Failure::Refused => (&mut self.refused, REFUSED_CEILING),
        };
        *turn = turn.saturating_add(1);
        // 2 s, 4 s, 8 s, ... to the ceiling: the first wait lies between 1 and 2 s.
        let top = FLOOR.saturating_mul(2_u32.saturating_pow((*turn).min(16))).min(ceiling);
        let bottom = match failure {
            Failure::Unreachable => FLOOR,
            Failure::Refused => top / 2,
        };
        if failure == Failure::Refused {
            if self.refusals.len() >= KICKS_MAX {
                self.refusals.pop_front();
            }
            self.refusals.push_back(now);
        }
        bottom + top.saturating_sub(bottom).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// Whether a wait may be cut short at `now` (link up, clock set, new certificate, reload).
    pub fn may_kick(&self, now: Instant) -> bool {
        self.refusals.len() < KICKS_MAX
            || self
                .refusals
                .front()
                .is_none_or(|first| now.saturating_duration_since(*first) >= REFUSED_WINDOW)
    }

    /// The connection has been stable for a minute, with a PUBACK.
    pub fn stable(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ceilings_are_those_of_the_two_kinds() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let waits: Vec<u64> =
            (0..7).map(|_| backoff.after(Failure::Unreachable, now, 1.0).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        let waits: Vec<u64> = (0..10).map(|_| backoff.after(Failure::Refused, now, 1.0).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.after(Failure::Refused, now, 0.0), REFUSED_CEILING / 2);
        assert_eq!(backoff.after(Failure::Unreachable, now, 0.0), FLOOR);
    }

    #[test]
    fn a_stable_connection_starts_anew() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for _ in 0..8 {
            backoff.after(Failure::Unreachable, now, 1.0);
        }
        backoff.stable();
        assert_eq!(backoff.after(Failure::Unreachable, now, 1.0), Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn a_broker_that_refuses_sees_at_most_twelve_connections_in_ten_minutes_even_when_kicked(
            turns in proptest::collection::vec((0.0..1.0, any::<bool>()), 100),
        ) {
            let mut backoff = Backoff::default();
            let mut now = Instant::now();
            let mut at = Vec::new();
            for (chance, kick) in turns {
                at.push(now);
                let wait = backoff.after(Failure::Refused, now, chance);
                prop_assert!(wait >= FLOOR && wait <= REFUSED_CEILING);
                now += if kick && backoff.may_kick(now) { Duration::ZERO } else { wait };
            }
            for window in at.windows(REFUSED_MAX + 1) {
                prop_assert!(window[REFUSED_MAX].duration_since(window[0]) >= REFUSED_WINDOW);
            }
        }
    }
}
