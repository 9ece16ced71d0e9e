//! What waiting in vain for sentences may cost a line.
//!
//! An instrument that answers a query, but without a sentence that is waited for, costs its neighbours the wait and the
//! rest after it: two time-outs. All such waits of a line together cost one part in [`SHARE`] of its time, whatever the
//! number of instruments (P6); but for what is saved, [`SAVED`], and the first two or three waits for each. A wait in vain
//! books the turn of the next one for the same sentence behind what is booked already: nobody competes for a turn, so none
//! is starved by those that are asked more often.
//!
//! After a fault that took many sentences away the first that comes in its own turn brings the others: they may be tried
//! before theirs, until [`EARLY`] waits were in vain. These are booked too, so nothing is to be had by coming and going. Pure.

use std::time::{Duration, Instant};

/// Waits in vain take at most this part of a line's time: with a timeout of one second each minute one.
const SHARE: u32 = 30;

/// So much of the line's time is saved up for them.
const SAVED: Duration = Duration::from_secs(30);

/// So many waits in vain, and nobody is tried before its turn any more.
const EARLY: u32 = 3;

/// The account of one line.
#[derive(Clone, Debug)]
pub struct Patience {
    /// What a wait in vain costs the line.
    cost: Duration,
    /// The end of what is booked; the past while something is saved.
    booked: Option<Instant>,
    /// So many waits in vain may be before their turn.
    early: u32,
}

impl Patience {
    /// Of a line that waits `timeout` for an answer, and rests as long without one.
    pub fn new(timeout: Duration) -> Self {
        Self { cost: timeout.saturating_mul(2), booked: None, early: 0 }
    }

    /// Nothing is saved any more.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.booked.is_some_and(|booked| booked > now)
    }

    /// Whether a sentence may be tried before its turn.
    pub(super) fn allows_early(&self) -> bool {
        self.early > 0
    }

    /// A wait was in vain. When the next one for the same sentence may be.
    pub(super) fn charge(&mut self, now: Instant) -> Instant {
        self.early = self.early.saturating_sub(1);
        let saved = now.checked_sub(SAVED * SHARE).unwrap_or(now);
        let booked = self.booked.map_or(saved, |booked| booked.max(saved)) + self.cost * SHARE;
        self.booked = Some(booked);
        booked
    }

    /// A sentence came in its own turn: so may others.
    pub(super) fn came(&mut self) {
        self.early = EARLY;
    }
}
