//! Which requests a device ignores although it answers others, and when they are tried again.
//!
//! Many meters keep silent where others answer exception 2. Each such request would cost its whole timeout in each
//! poll, and all neighbours on the line would wait for it (P6). So after [`IGNORED_AFTER`] silences, each followed by an
//! answer of the device to something else, it is left out, and tried again with growing pauses. It is back with its
//! first answer.
//!
//! A retry in vain books the time of the next one on its bus: these times lie so far apart that all booked retries
//! together cost at most one part in [`SHARE`] of the bus's time (but for the first each time that a request is left
//! out). The poll that comes next after that time makes it, so a request of a group that is polled seldom does not
//! compete with those of groups that are polled often, and none is starved. What is late does not wait for others:
//! retries of groups that are polled seldom may follow each other, one in the poll of each.
//!
//! So booked turns alone bring back what was ignored for some seconds only after one of each request that is always ignored.
//! Therefore as much again is saved for what is left out newly: its first [`SAVED_MAX`] retries in vain need not wait
//! for their booked times, only for the pause and for what is saved. The newest goes first; what was never answered leaves half
//! to the others. So retries cost two parts in [`SHARE`] at most, and one where nothing is new.
//!
//! A request that is back does not need what it had booked. That becomes a spare turn: any other may be tried before its
//! time, once the pause since its last retry is over. Such a turn, and what is saved, is spent only in vain, so after a
//! disturbance that many requests fell victim to, the first answer brings back the others with their next polls (as long as
//! more of them answer than do not: else in their booked turns).
//!
//! A poll makes one retry at most, the first in the order of [`Turn`], after everything else: see
//! [`reading`](super::reading).
//!
//! Pure: every call takes `now`. It says nothing about a device that is silent as a whole: that is the schedule's. Of
//! each device one request at least is never left out, the one that answered last.

use std::time::{Duration, Instant};

use crate::value::Cause;

/// So many silences in a row, and a request counts as ignored.
const IGNORED_AFTER: u8 = 3;

/// Pauses between two retries of a request grow from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A retry in vain takes so many times as long as it took from what the bus has for all of them.
const SHARE: u32 = 50;

/// So many turns that are not needed any more are kept for others.
const SPARE_MAX: u32 = 10;

/// So many turns are saved for what is left out newly, and so many retries in vain make it old.
const SAVED_MAX: u32 = 10;

/// What is known of a device as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Presence {
    /// Believed answers so far.
    answers: u64,
    /// Polls since its last answer that brought none.
    silences: u32,
}

/// What is known of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignored {
    /// Silences in a row, each followed by an answer of the device to something else.
    times: u8,
    /// It was silent for this reason, and the device had answered so often until then: whether that counts shows the
    /// device's next answer.
    open: Option<(u64, Cause)>,
    left_out: Option<LeftOut>,
    /// It was answered once.
    known: bool,
    /// Retries in vain, less the answers since it is back.
    tries: u32,
    /// That it is left out has been said.
    said: bool,
}

#[derive(Clone, Debug)]
struct LeftOut {
    pause: Duration,
    /// When the pause since its last retry is over: not before, even in a spare turn.
    rested_at: Instant,
    /// The time that it has booked.
    again_at: Instant,
    cause: Cause,
    /// What its last retry cost, and so what it has booked.
    cost: Duration,
    /// It was left out before, and has not been answered since as often as it had been tried in vain.
    comes_and_goes: bool,
}

/// In which turn a request may be tried again. The least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// In its own, since this time.
    Booked(Instant),
    /// In a spare or saved one, after so many retries in vain: what was always ignored does not go before what is new.
    Spare(u32),
}

/// The retries of one bus.
#[derive(Clone, Debug)]
pub(super) struct Retries {
    /// The longest time that a request of this bus can take, so the most that a retry can cost.
    longest: Duration,
    /// The end of what is booked.
    booked: Option<Instant>,
    /// What retries in vain may cost before their time.
    spare: Duration,
    /// When all is saved again that retries of what is left out newly may cost besides; `None` or past: it is.
    saved_at: Option<Instant>,
}

impl Presence {
    /// The device answered something.
    pub(super) fn answered(&mut self) {
        self.answers += 1;
        self.silences = 0;
    }

    /// A poll brought nothing.
    pub(super) fn silent(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }

    /// Whether the last poll brought nothing.
    pub(super) fn is_in_doubt(self) -> bool {
        self.silences > 0
    }

    /// Polls in a row that brought nothing.
    pub(super) fn silences(self) -> u32 {
        self.silences
    }
}

impl Ignored {
    /// `Some`: it is not asked now, and its points are bad for the reason that they had.
    pub(super) fn leave_out(&mut self, presence: Presence, now: Instant) -> Option<Cause> {
        self.settle(presence, now);
        self.left_out.as_ref().map(|out| out.cause)
    }

    /// `Some`: it may be tried again now.
    pub(super) fn due(&self, retries: &Retries, now: Instant) -> Option<Turn> {
        let out = self.left_out.as_ref()?;
        if out.again_at <= now {
            return Some(Turn::Booked(out.again_at));
        }
        let may = out.cost <= retries.spare || retries.has_saved(self.known, self.tries, now);
        (may && out.rested_at <= now).then_some(Turn::Spare(self.tries))
    }

    /// The device has answered something else since it was silent: that silence counts.
    fn settle(&mut self, presence: Presence, now: Instant) {
        let Some((_, cause)) = self.open.take_if(|(then, _)| presence.answers > *then) else { return };
        self.times = self.times.saturating_add(1);
        if self.times >= IGNORED_AFTER && self.left_out.is_none() {
            let (pause, cost, at) = (PAUSE.0, Duration::ZERO, now + PAUSE.0);
            let comes_and_goes = self.tries > 0;
            self.left_out = Some(LeftOut { pause, rested_at: at, again_at: at, cause, cost, comes_and_goes });
        }
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.left_out.is_some()
    }

    /// It was asked, and nothing came, or a gateway's word that nothing came.
    pub(super) fn silent(&mut self, presence: Presence, cause: Cause) {
        self.open.get_or_insert((presence.answers, cause));
    }

    /// It was tried again since `began`, in vain. `cause`: for its points; `None`: the line went down with it, and they
    /// keep the one that they had.
    pub(super) fn retried(
        &mut self,
        cause: Option<Cause>,
        began: Instant,
        retries: &mut Retries,
        now: Instant,
    ) {
        let Some(out) = &mut self.left_out else { return };
        // A process that was stopped meanwhile was not on the line; a line that went down is not there for others.
        let took = now.saturating_duration_since(began).min(retries.longest);
        let cost = if cause.is_some() { took } else { retries.longest };
        out.cause = cause.unwrap_or(out.cause);
        (out.pause, self.tries) = ((out.pause * 2).min(PAUSE.1), self.tries.saturating_add(1));
        out.rested_at = now + out.pause;
        if began < out.again_at {
            retries.spend(cost, now);
            out.again_at = out.again_at.max(out.rested_at);
        } else {
            out.cost = cost;
            out.again_at = retries.book(cost, now).max(out.rested_at);
        }
    }

    /// It may not be sent until then.
    pub(super) fn held(&mut self, until: Instant) {
        if let Some(out) = &mut self.left_out {
            out.rested_at = out.rested_at.max(until);
            out.again_at = out.again_at.max(until);
        }
    }

    /// A retry that falls into a time in which the device or the line is not there is put off like one in vain: else
    /// all of a bus would be due together when that is over.
    pub(super) fn put_off(&mut self, retries: &mut Retries, now: Instant) {
        if let Some(out) = self.left_out.as_mut().filter(|out| out.again_at <= now) {
            if out.cost.is_zero() {
                out.cost = retries.longest; // never tried yet
            }
            out.rested_at = now + out.pause;
            out.again_at = retries.book(out.cost, now).max(out.rested_at);
        }
    }

    /// It was answered.
    pub(super) fn answered(&mut self, retries: &mut Retries) {
        let tries = match &self.left_out {
            Some(out) => {
                retries.give_back(out.cost, !out.comes_and_goes);
                self.tries
            }
            None => self.tries.saturating_sub(1),
        };
        *self = Self { said: self.said, known: true, tries, ..Self::default() };
    }

    /// `Some(true)`: that it is left out is to be said now; `Some(false)`: that it is back. What answers the first
    /// retry was lost on the line three times, and nothing is said.
    pub(super) fn edge(&mut self) -> Option<bool> {
        let known = self.left_out.as_ref().map_or(self.times == 0, |out| out.pause > PAUSE.0);
        (known && self.said != self.is_left_out()).then(|| {
            self.said = !self.said;
            self.said
        })
    }

    /// What is thought of a request that stands in for it: if this one was ignored, one more silence is enough. A silence that
    /// does not count yet may be that of a device that is away.
    pub(super) fn successor(&self) -> Self {
        let ignored = self.times > 0 || self.is_left_out();
        Self { times: if ignored { IGNORED_AFTER - 1 } else { 0 }, said: self.said, ..Self::default() }
    }
}

impl Retries {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, booked: None, spare: Duration::ZERO, saved_at: None }
    }

    /// The longest time that a request of this bus can take.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// The time of the next retry of a request whose last one has cost so much.
    ///
    /// Every call moves the end of what is booked on by [`SHARE`] times the cost, and returns no time before it. So the
    /// booked retries cost one part of the bus's time in the long run. And a request waits for one retry of each other
    /// request at most, for none books again before its own time has come.
    fn book(&mut self, cost: Duration, now: Instant) -> Instant {
        let booked = self.booked.map_or(now, |booked| booked.max(now)) + cost * SHARE;
        self.booked = Some(booked);
        booked
    }

    /// Whether enough is saved for a request that was tried in vain so often: one turn, and somewhat more with each try. So
    /// the newest goes first, of whichever device, and none needs to know of the others. `known`: it was answered once; one
    /// that was not may have been ignored for ever, and leaves half of it to others.
    fn has_saved(&self, known: bool, tries: u32, now: Instant) -> bool {
        if tries > SAVED_MAX {
            return false;
        }
        let left = if known { SAVED_MAX - 1 } else { SAVED_MAX / 2 - 1 };
        let spent = self.saved_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let more = self.longest * tries / (SAVED_MAX * 2);
        spent + more * SHARE <= self.longest * left * SHARE
    }

    /// A retry before its time was in vain.
    fn spend(&mut self, cost: Duration, now: Instant) {
        let spare = cost.min(self.spare);
        self.spare = self.spare.saturating_sub(spare);
        if cost > spare {
            let saved_at = self.saved_at.map_or(now, |at| at.max(now));
            self.saved_at = Some(saved_at + cost.saturating_sub(spare) * SHARE);
        }
    }

    /// A request that had booked the time for this cost does not need it. `to_others`: they may have it; but beyond a few turns
    /// of that kind, and what comes and goes again and again has booked, nobody waits for.
    fn give_back(&mut self, cost: Duration, to_others: bool) {
        if to_others && self.spare + cost <= self.longest * SPARE_MAX {
            self.spare += cost;
        } else {
            self.booked = self.booked.and_then(|booked| booked.checked_sub(cost * SHARE));
        }
    }
}

#[cfg(test)]
#[path = "ignored_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "ignored_newly_tests.rs"]
mod newly_tests;
