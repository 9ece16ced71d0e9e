//! What waiting in vain for sentences may cost a line.
//!
//! An instrument that answers a query, but without a sentence that is waited for, costs its neighbours the wait and the
//! rest after it: two time-outs. All such waits of a line together cost at most one part in [`SHARE`] of its time (half as much again where sentences come and go), and
//! [`SAVED`] at once, whatever the number of instruments (P6); but for the first of each sentence. A wait in vain books the turn of the next one for the same
//! sentence behind what is booked already: nobody competes for a turn, so none is starved by those that are asked more
//! often.
//!
//! A sentence that comes in its turn does not need what it had booked. While others stand behind each other for their turns
//! that is a spare one: any of them may be tried before its time. It is spent only in vain, so after a fault that took many
//! sentences away the first that is back brings the others. Pure.

use std::time::{Duration, Instant};

/// Waits in vain take at most this part of a line's time: with a timeout of one second each minute one.
const SHARE: u32 = 30;

/// So much of the line's time is saved up for them.
const SAVED: Duration = Duration::from_secs(30);

/// So many turns that are not needed any more are kept for others.
const SPARE_MAX: u32 = 10;

/// The account of one line.
#[derive(Clone, Debug)]
pub struct Patience {
    /// What a wait in vain costs the line.
    cost: Duration,
    /// The end of what is booked; the past while something is saved.
    booked: Option<Instant>,
    /// Turns that are not needed any more.
    spare: u32,
}

impl Patience {
    /// Of a line that waits `timeout` for an answer, and rests as long without one.
    pub fn new(timeout: Duration) -> Self {
        Self { cost: timeout.saturating_mul(2), booked: None, spare: 0 }
    }

    /// Nothing is saved any more.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.booked.is_some_and(|booked| booked > now)
    }

    pub(super) fn has_spare_turn(&self) -> bool {
        self.spare > 0
    }

    /// A wait was in vain. When the next one for the same sentence may be. It takes a spare turn along: what comes and goes
    /// must not live on them.
    pub(super) fn charge(&mut self, now: Instant) -> Instant {
        self.spend();
        let saved = now.checked_sub(SAVED * SHARE).unwrap_or(now);
        let booked = self.booked.map_or(saved, |booked| booked.max(saved)) + self.cost * SHARE;
        self.booked = Some(booked);
        booked
    }

    /// A spare turn was in vain.
    pub(super) fn spend(&mut self) {
        self.spare = self.spare.saturating_sub(1);
    }

    /// A sentence came in its turn.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.is_spent(now) {
            self.spare = (self.spare + 1).min(SPARE_MAX);
        }
    }
}
