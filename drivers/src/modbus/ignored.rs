//! Which requests a device ignores although it answers others, and when they are tried again.
//!
//! Many meters keep silent where others answer exception 2. Each such request would cost its whole timeout in each
//! poll, and all neighbours on the line would wait for it (P6). So after [`IGNORED_AFTER`] silences, each followed by an
//! answer of the device to something else, it is left out, and tried again with growing pauses. It is back with its
//! first answer.
//!
//! A retry in vain books the time of the next one on its bus: these times lie so far apart that all retries together
//! cost at most one part in [`SHARE`] of the bus's time (but for the first of each request). The poll that comes next
//! after that time makes it, so a request of a group that is polled seldom does not compete with those of groups that
//! are polled often, and none is starved. What is late does not wait for others: retries of groups that are polled
//! seldom may follow each other, one in the poll of each.
//! A poll makes one retry at most, the one that has waited longest, after everything else: see
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
    /// That it is left out has been said.
    said: bool,
}

#[derive(Clone, Debug)]
struct LeftOut {
    pause: Duration,
    again_at: Instant,
    cause: Cause,
    /// What its last retry cost.
    cost: Duration,
}

/// The retries of one bus.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries {
    /// The end of what is booked.
    booked: Option<Instant>,
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

    /// Since when it waits for its retry.
    pub(super) fn due_since(&self, now: Instant) -> Option<Instant> {
        self.left_out.as_ref().map(|out| out.again_at).filter(|&at| at <= now)
    }

    /// The device has answered something else since it was silent: that silence counts.
    fn settle(&mut self, presence: Presence, now: Instant) {
        let Some((_, cause)) = self.open.take_if(|(then, _)| presence.answers > *then) else { return };
        self.times = self.times.saturating_add(1);
        if self.times >= IGNORED_AFTER && self.left_out.is_none() {
            let (pause, cost) = (PAUSE.0, Duration::ZERO);
            self.left_out = Some(LeftOut { pause, again_at: now + pause, cause, cost });
        }
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.left_out.is_some()
    }

    /// It was asked, and nothing came, or a gateway's word that nothing came.
    pub(super) fn silent(&mut self, presence: Presence, cause: Cause) {
        self.open.get_or_insert((presence.answers, cause));
    }

    /// It was tried again since `began`, in vain. `cause`: for its points; `None`: the one that they had.
    pub(super) fn retried(
        &mut self,
        cause: Option<Cause>,
        began: Instant,
        retries: &mut Retries,
        now: Instant,
    ) {
        let Some(out) = &mut self.left_out else { return };
        out.cause = cause.unwrap_or(out.cause);
        out.cost = now.saturating_duration_since(began);
        out.pause = (out.pause * 2).min(PAUSE.1);
        out.again_at = retries.book(out.cost, out.pause, now);
    }

    /// It may not be sent until then.
    pub(super) fn held(&mut self, until: Instant) {
        if let Some(out) = &mut self.left_out {
            out.again_at = out.again_at.max(until);
        }
    }

    /// A retry that falls into a time in which the device or the line is not there is put off like one in vain: else
    /// all of a bus would be due together when that is over.
    pub(super) fn put_off(&mut self, retries: &mut Retries, now: Instant) {
        if let Some(out) = self.left_out.as_mut().filter(|out| out.again_at <= now) {
            out.again_at = retries.book(out.cost, out.pause, now);
        }
    }

    /// It was answered.
    pub(super) fn answered(&mut self) {
        *self = Self { said: self.said, ..Self::default() };
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

    /// What is thought of a request that stands in for it: if this one was ignored, one more silence is enough.
    pub(super) fn successor(&self) -> Self {
        let doubted = self.times > 0 || self.open.is_some() || self.is_left_out();
        Self { times: if doubted { IGNORED_AFTER - 1 } else { 0 }, said: self.said, ..Self::default() }
    }
}

impl Retries {
    /// When a request is tried again whose retry has cost so much; not before `pause` has passed.
    ///
    /// Every call moves the end of what is booked on by [`SHARE`] times the cost, and returns no time before it. So the
    /// booked retries cost one part of the bus's time in the long run. And a request waits for one retry of each other
    /// request at most, for none books again before its own time has come.
    fn book(&mut self, cost: Duration, pause: Duration, now: Instant) -> Instant {
        let booked = self.booked.map_or(now, |booked| booked.max(now)) + cost * SHARE;
        self.booked = Some(booked);
        booked.max(now + pause)
    }
}

#[cfg(test)]
#[path = "ignored_tests.rs"]
mod tests;
