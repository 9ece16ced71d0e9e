//! How often the same thing may be said: the first five times at once, then once a minute with a count of what was
//! held back, and [`LINES_A_MINUTE`] lines a minute in all.
//!
//! Pure: it is told the time and answers whether to speak. A *cause* is a number that the caller makes of a log
//! line's place in the code and the bus or device it speaks of. A cause that stays quiet for [`FORGET_AFTER`] is new again.
//!
//! Of the minute's lines the last [`KEPT_FOR_ERRORS`] are for errors: data lost is said even in a storm of warnings.
//! Bounded: at most [`CAUSES_MAX`] causes are told apart; the rest share one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often one cause is said without pause.
const FREE_LINES: u32 = 5;
/// After that, the shortest time between two lines of one cause.
const PAUSE: Duration = Duration::from_secs(60);
/// Lines a minute in all.
pub const LINES_A_MINUTE: u32 = 60;
/// The last lines of a minute, which only errors may use.
const KEPT_FOR_ERRORS: u32 = 15;
/// A cause that was quiet for so long gets its free lines back.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Causes told apart; 1 024 entries of 48 bytes.
const CAUSES_MAX: usize = 1024;
/// Stands for all causes beyond [`CAUSES_MAX`].
const OTHERS: u64 = u64::MAX;

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Say it. So many lines of the same cause were held back since the last one.
    Say(u64),
    /// Hold it back; it is counted.
    Hold,
}

#[derive(Debug)]
struct Cause {
    said: u32,
    held: u64,
    last_said: Option<Instant>,
    last_seen: Instant,
}

/// The memory of what was said.
#[derive(Debug, Default)]
pub struct Limiter {
    causes: HashMap<u64, Cause>,
    minute_began: Option<Instant>,
    said_this_minute: u32,
}

impl Limiter {
    /// Whether a line of this cause may be said now. `error`: it may use the lines kept for errors.
    pub fn admit(&mut self, cause: u64, error: bool, now: Instant) -> Verdict {
        let budget = if error { LINES_A_MINUTE } else { LINES_A_MINUTE - KEPT_FOR_ERRORS };
        let room = self.said_in_minute(now) < budget;
        let known = self.cause(cause, now);
        if now.saturating_duration_since(known.last_seen) >= FORGET_AFTER {
            known.said = 0;
        }
        known.last_seen = now;
        let its_turn =
            known.said < FREE_LINES || known.last_said.is_none_or(|said| now.duration_since(said) >= PAUSE);
        if !(room && its_turn) {
            known.held += 1;
            return Verdict::Hold;
        }
        known.said = known.said.saturating_add(1);
        known.last_said = Some(now);
        let held = std::mem::take(&mut known.held);
        self.said_this_minute += 1;
        Verdict::Say(held)
    }

    /// Called about once a minute: how many held-back lines will get no line of their own any more, because their
    /// cause has been quiet for a minute. They are counted once. Also forgets old causes.
    pub fn settle(&mut self, now: Instant) -> u64 {
        let mut unsaid = 0;
        for cause in self.causes.values_mut() {
            if now.saturating_duration_since(cause.last_seen) >= PAUSE {
                unsaid += std::mem::take(&mut cause.held);
            }
        }
        self.causes.retain(|_, cause| now.saturating_duration_since(cause.last_seen) < FORGET_AFTER);
        unsaid
    }

    fn said_in_minute(&mut self, now: Instant) -> u32 {
        if self.minute_began.is_none_or(|began| now.saturating_duration_since(began) >= PAUSE) {
            self.minute_began = Some(now);
            self.said_this_minute = 0;
        }
        self.said_this_minute
    }

    fn cause(&mut self, cause: u64, now: Instant) -> &mut Cause {
        let full = self.causes.len() >= CAUSES_MAX && !self.causes.contains_key(&cause);
        let key = if full { OTHERS } else { cause };
        self.causes.entry(key).or_insert(Cause { said: 0, held: 0, last_said: None, last_seen: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_cause_is_said_five_times_then_once_a_minute_with_a_count() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        let mut said = Vec::new();
        for second in 0..300 {
            if let Verdict::Say(held) = limiter.admit(1, false, after(start, second)) {
                said.push((second, held));
            }
        }
        assert_eq!(said, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (64, 59), (124, 59), (184, 59), (244, 59)]);
    }

    #[test]
    fn all_causes_together_say_sixty_lines_a_minute() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for minute in 0..10 {
            let now = after(start, minute * 60);
            let says = |limiter: &mut Limiter, error, base| {
                (0..100_u64).filter(|n| limiter.admit(base + n, error, now) != Verdict::Hold).count()
            };
            let warnings = says(&mut limiter, false, 0);
            let errors = says(&mut limiter, true, 5_000);
            assert_eq!(warnings, 45, "the last fifteen are kept for errors");
            assert_eq!(errors, 15);
        }
    }

    #[test]
    fn a_cause_that_was_quiet_is_new_again() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for _ in 0..7 {
            limiter.admit(1, false, start);
        }
        assert_eq!(limiter.admit(1, false, after(start, 30)), Verdict::Hold);
        let later = after(start, 700);
        assert_eq!(limiter.admit(1, false, later), Verdict::Say(3));
        assert_eq!(limiter.admit(1, false, later), Verdict::Say(0), "its free lines are back");
    }

    #[test]
    fn what_was_held_back_is_counted_once_even_if_the_cause_goes_quiet() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for _ in 0..105 {
            limiter.admit(1, false, start);
        }
        assert_eq!(limiter.settle(after(start, 30)), 0, "the cause may still speak");
        assert_eq!(limiter.settle(after(start, 61)), 100);
        assert_eq!(limiter.settle(after(start, 122)), 0);
    }

    #[test]
    fn a_thousand_causes_do_not_grow_the_memory() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for cause in 0..50_000 {
            limiter.admit(cause, false, start);
        }
        assert!(limiter.causes.len() <= CAUSES_MAX + 1);
        limiter.settle(after(start, 601));
        assert!(limiter.causes.is_empty());
    }
}
