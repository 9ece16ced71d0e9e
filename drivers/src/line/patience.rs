//! What waiting in vain for sentences may cost a line.
//!
//! An instrument that answers a query, but without a sentence that is waited for, costs its neighbours the wait and the
//! rest after it: two time-outs. The line pays for that from two accounts, so that what never comes takes nothing from what
//! was only away. What was heard within the last hour has a thirtieth of the line's time; what was not heard for an hour,
//! or never, has a sixtieth. So all waits in vain together cost a twentieth, whatever the number of instruments (P6), but
//! for what is saved ([`SAVED`]) and one to three waits for each when many go at once.
//!
//! On either account: a wait in vain books the turn of the next one for the same sentence behind what is booked already.
//! Nobody competes for a turn, so none is starved by those that are asked more often. While more is booked than was saved
//! the account is spent, and a single lost line is enough to give a sentence up. The first that comes in its own turn after
//! a fault brings the others: those whose turns are booked on the same account may be tried before them, until [`EARLY`]
//! such waits were in vain. These are booked too, so nothing is to be had by coming and going.
//!
//! So, with a time-out of one second: of what is away for less than an hour one is tried each minute, and the first that
//! comes brings the rest, however many others never come (P10). What was away for longer, or has not come since the start,
//! stands in line with these, and each of them may delay it by two minutes. With a time-out of ten seconds that is ten
//! minutes and twenty, but for the first tries. What comes seldom is on the account of what was heard, and may spend it. Pure.

use std::time::{Duration, Instant};

/// This part of a line's time is for what was heard within the last hour: with a time-out of one second one wait a minute.
const HEARD_SHARE: u32 = 30;

/// This part is for what was not: with a time-out of one second one wait in two minutes.
const LOST_SHARE: u32 = 60;

/// So much of the line's time is saved up on each account, and at least [`WAITS_SAVED`].
const SAVED: Duration = Duration::from_secs(15);

/// So many waits are saved whatever they cost: else one alone would be given up sooner where the time-out is long.
pub(super) const WAITS_SAVED: u8 = 3;

/// So many waits in vain, and nobody is tried before its turn any more.
const EARLY: u32 = 3;

/// On which account a sentence is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Heard within the last hour.
    Heard,
    /// Not for an hour, or never.
    Lost,
}

/// The accounts of one line.
#[derive(Clone, Debug)]
pub struct Patience {
    heard: Account,
    lost: Account,
}

impl Patience {
    /// Of a line that waits `timeout` for an answer, and rests as long without one.
    pub fn new(timeout: Duration) -> Self {
        let cost = timeout.saturating_mul(2);
        Self { heard: Account::new(cost, HEARD_SHARE), lost: Account::new(cost, LOST_SHARE) }
    }

    /// More is booked on the account of `kind` than was saved.
    pub(super) fn is_spent(&self, kind: Kind, now: Instant) -> bool {
        self.of(kind).booked.is_some_and(|booked| booked > now)
    }

    /// Whether a sentence may be tried before its turn, which is booked on the account of `kind`.
    pub(super) fn allows_early(&self, kind: Kind) -> bool {
        self.of(kind).early > 0
    }

    /// A wait on the account of `kind` was in vain. When the next one for the same sentence may be.
    pub(super) fn charge(&mut self, kind: Kind, now: Instant) -> Instant {
        self.of_mut(kind).book(now)
    }

    /// A sentence came in its own turn, which was booked on the account of `kind`: so may others.
    pub(super) fn came(&mut self, kind: Kind) {
        self.of_mut(kind).early = EARLY;
    }

    fn of(&self, kind: Kind) -> &Account {
        match kind {
            Kind::Heard => &self.heard,
            Kind::Lost => &self.lost,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Account {
        match kind {
            Kind::Heard => &mut self.heard,
            Kind::Lost => &mut self.lost,
        }
    }
}

/// What is booked for the sentences of one kind.
#[derive(Clone, Debug)]
struct Account {
    /// A wait in vain books so long.
    price: Duration,
    /// So long may the end of what is booked lie back.
    saved: Duration,
    /// The end of what is booked, and so the last turn; the past while something is saved.
    booked: Option<Instant>,
    /// So many waits in vain may be before their turn.
    early: u32,
}

impl Account {
    /// Gives one part in `share` of the time for waits that take `cost`.
    fn new(cost: Duration, share: u32) -> Self {
        let price = cost.saturating_mul(share);
        let saved = (SAVED * share).max(price.saturating_mul(WAITS_SAVED.into()));
        Self { price, saved, booked: None, early: 0 }
    }

    /// Books a wait; the end of what is booked then.
    fn book(&mut self, now: Instant) -> Instant {
        self.early = self.early.saturating_sub(1);
        let saved = now.checked_sub(self.saved).unwrap_or(now);
        *self.booked.insert(self.booked.map_or(saved, |booked| booked.max(saved)) + self.price)
    }
}
