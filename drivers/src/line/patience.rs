//! What waiting in vain for sentences may cost a line.
//!
//! An instrument that answers a query, but without a sentence that is waited for, costs its neighbours the wait and the
//! rest after it: two time-outs. All such waits of a line together cost one part in thirty of its time, whatever the
//! number of instruments (P6); but for what is saved, [`SAVED`], and the first two or three waits for each. A wait in vain
//! books the turn of the next one for the same sentence behind what is booked already: nobody competes for a turn, so none
//! is starved by those that are asked more often.
//!
//! Half of that is for the turns of what is given up, half for what is not given up yet. A sentence that never comes has its
//! next turn booked at all times, which says nothing about those that come: so the waits for what is not given up are also
//! booked on an account of their own, and only when that one is spent a single lost line is enough to give a sentence up.
//!
//! After a fault that took many sentences away the first that comes in its own turn brings the others: they may be tried
//! before theirs, until [`EARLY`] waits were in vain. These are booked too, so nothing is to be had by coming and going. Pure.

use std::time::{Duration, Instant};

/// Either account gives at most this part of a line's time: with a timeout of one second one wait in two minutes.
const SHARE: u32 = 60;

/// So much of the line's time is saved up on each.
const SAVED: Duration = Duration::from_secs(15);

/// So many waits in vain, and nobody is tried before its turn any more.
const EARLY: u32 = 3;

/// The accounts of one line.
#[derive(Clone, Debug)]
pub struct Patience {
    /// What a wait in vain costs the line.
    cost: Duration,
    /// The end of what is booked, for all waits, and so the last turn; the past while something is saved.
    booked: Option<Instant>,
    /// The same, for the waits for what was not given up only.
    doubted: Option<Instant>,
    /// So many waits in vain may be before their turn.
    early: u32,
}

impl Patience {
    /// Of a line that waits `timeout` for an answer, and rests as long without one.
    pub fn new(timeout: Duration) -> Self {
        Self { cost: timeout.saturating_mul(2), booked: None, doubted: None, early: 0 }
    }

    /// No time is left for what is not given up.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.doubted.is_some_and(|doubted| doubted > now)
    }

    /// Whether a sentence may be tried before its turn.
    pub(super) fn allows_early(&self) -> bool {
        self.early > 0
    }

    /// A wait was in vain, `trying` what is given up or not. When the next one for the same sentence may be.
    pub(super) fn charge(&mut self, trying: bool, now: Instant) -> Instant {
        let saved = now.checked_sub(SAVED * SHARE).unwrap_or(now);
        let book = |account: &mut Option<Instant>| {
            *account.insert(account.map_or(saved, |end| end.max(saved)) + self.cost * SHARE)
        };
        if !trying {
            book(&mut self.doubted);
        }
        self.early = self.early.saturating_sub(1);
        book(&mut self.booked)
    }

    /// A sentence came in its own turn: so may others.
    pub(super) fn came(&mut self) {
        self.early = EARLY;
    }
}
