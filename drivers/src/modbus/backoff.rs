//! When to try again to open a port or a connection. Pure but for the jitter.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Pauses that double from the first to the longest. With `jitter`, each is cut by up to a half, so that many
/// gateways behind one switch do not come back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    jitter: bool,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration, jitter: bool) -> Self {
        Self { first, longest, jitter, pause: first, not_before: None }
    }

    /// Whether an attempt may be made now.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        let pause = if self.jitter {
            let random =
                u32::try_from(RandomState::new().build_hasher().finish() & 0xffff).unwrap_or_default();
            self.pause.saturating_sub(self.pause / 2 * random / 0x1_0000)
        } else {
            self.pause
        };
        self.not_before = Some(now + pause);
        self.pause = (self.pause * 2).min(self.longest);
    }

    /// It works: the next failure is a first one.
    pub(crate) fn succeeded(&mut self) {
        self.pause = self.first;
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again_after_a_success() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5), false);
        for pause in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            assert!(backoff.is_over(now));
            backoff.failed(now);
            assert!(!backoff.is_over(now + Duration::from_millis(pause - 1)));
            now += Duration::from_millis(pause);
        }
        backoff.succeeded();
        backoff.failed(now);
        assert!(backoff.is_over(now + Duration::from_millis(500)));
    }

    #[test]
    fn jitter_cuts_at_most_a_half() {
        let now = Instant::now();
        for _ in 0..100 {
            let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30), true);
            backoff.failed(now);
            assert!(!backoff.is_over(now + Duration::from_millis(999)));
            assert!(backoff.is_over(now + Duration::from_secs(2)));
        }
    }
}
