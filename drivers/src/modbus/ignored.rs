//! Which requests a device ignores although it answers others, and when they are tried again.
//!
//! Many meters keep silent where others answer exception 2. Each such request would cost its whole timeout in each
//! poll, and all neighbours on the line would wait for it (P6). So after [`IGNORED_AFTER`] silences, each followed by an
//! answer of the device to something else, it is left out, and tried again with growing pauses; all retries of a bus
//! together cost at most one part in [`SHARE`] of its time. Groups polled more rarely than each [`OLDEST_WAITS`] are not
//! counted in that: each of their requests is tried again in each poll. It is back with its first answer.
//!
//! Pure: every call takes `now`. It says nothing about a device that is silent as a whole: that is the schedule's. Of
//! each device one request at least is never left out, the one that answered last.

use std::time::{Duration, Instant};

use crate::value::Cause;

/// So many silences in a row, and a request counts as ignored.
const IGNORED_AFTER: u8 = 3;

/// Pauses between two retries of a request grow from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// After a retry the bus has none for so many times as long as that one took, itself counted.
const SHARE: u32 = 50;

/// The retry that has waited longest goes first. If it does not come for so long, another may: so one that comes more
/// rarely would never find its turn, and needs none.
const OLDEST_WAITS: Duration = Duration::from_secs(60);

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
}

/// The retries of one bus.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries {
    free_at: Option<Instant>,
    /// Since when the one that has waited longest is due, of those that came since the last.
    oldest: Option<Instant>,
}

/// What a poll does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is asked.
    Ask,
    /// It is asked although it was ignored. Its silence is expected, and says nothing about the device.
    Retry,
    /// It is not asked; its points are bad for the reason that they had.
    LeaveOut(Cause),
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
    /// What to do with it now. `retries`: of [`Retries::of_group`].
    pub(super) fn turn(&mut self, presence: Presence, retries: Option<&mut Retries>, now: Instant) -> Turn {
        self.settle(presence, now);
        let Some(out) = &self.left_out else { return Turn::Ask };
        let due = !presence.is_in_doubt() && now >= out.again_at;
        if due && retries.is_none_or(|retries| retries.grant(out.again_at, now)) {
            Turn::Retry
        } else {
            Turn::LeaveOut(out.cause)
        }
    }

    /// The device has answered something else since it was silent: that silence counts.
    fn settle(&mut self, presence: Presence, now: Instant) {
        let Some((_, cause)) = self.open.take_if(|(then, _)| presence.answers > *then) else { return };
        self.times = self.times.saturating_add(1);
        if self.times >= IGNORED_AFTER && self.left_out.is_none() {
            let (pause, again_at) = (PAUSE.0, now + PAUSE.0);
            self.left_out = Some(LeftOut { pause, again_at, cause });
        }
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.left_out.is_some()
    }

    /// It was asked, and nothing came, or a gateway's word that nothing came.
    pub(super) fn silent(&mut self, presence: Presence, cause: Cause, now: Instant) {
        match &mut self.left_out {
            Some(out) => {
                out.pause = (out.pause * 2).min(PAUSE.1);
                out.again_at = now + out.pause;
                out.cause = cause;
            }
            None => {
                self.open.get_or_insert((presence.answers, cause));
            }
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
    /// Where the retries of a group of this period have to wait for their turn; `None`: nowhere, for they cost at most
    /// one timeout in a period.
    pub(super) fn of_group(&mut self, period: Duration) -> Option<&mut Self> {
        (period <= OLDEST_WAITS).then_some(self)
    }

    /// Whether a retry that is due since `due` may be made now.
    fn grant(&mut self, due: Instant, now: Instant) -> bool {
        let Some(free_at) = self.free_at else { return true };
        let first = self.oldest.is_none_or(|oldest| due <= oldest) || now >= free_at + OLDEST_WAITS;
        if now >= free_at && first {
            return true;
        }
        self.oldest = Some(self.oldest.map_or(due, |oldest| oldest.min(due)));
        false
    }

    /// A retry was made.
    pub(super) fn made(&mut self, began: Instant, now: Instant) {
        let cost = now.saturating_duration_since(began);
        *self = Self { free_at: Some(now + cost * (SHARE - 1)), oldest: None };
    }
}

#[cfg(test)]
#[path = "ignored_tests.rs"]
mod tests;
