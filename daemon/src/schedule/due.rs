//! What is to be polled now: the pure part of a bus's schedule.
//!
//! Monotonic, phase-spread and drift-free: a slot (one group of one device) keeps its own grid of due times, and a
//! poll that comes late does not move it. Polls that a busy line could not make are counted, never made up for in a
//! burst. A device that does not answer is taken out of the round and probed with growing pauses, so that all silent
//! devices of a bus together cost at most [`SILENT_SHARE`] of its time (P6); a probe starts only if its whole timeout
//! fits before the next due poll, or, where that can never be, once in [`PROBE_ANYWAY`].
//!
//! A damaged answer is no sign that a device is away while another of its groups answers: then this group has no values, and
//! nothing else. Where none does it counts as silence. (Damage ends a poll long before its timeout.) An answer counts for
//! [a minute](super::health::ANSWER_COUNTS), and ever longer, up to ten, while the damage lasts; after that the group is asked out of
//! its turn, so that an hourly one is no excuse for an hour.
//!
//! No clock is read here: every call takes `now`.

use std::time::{Duration, Instant};

use fieldspool_drivers::bus::{Address, BusSpec, Outcome};

use super::health::Health;

/// The share of a bus's time that its silent devices may cost together.
pub const SILENT_SHARE: f64 = 0.2;

/// Where no gap between polls is as long as a probe, one probe may delay a poll this often.
pub const PROBE_ANYWAY: Duration = Duration::from_secs(120);

/// Probing time is saved up to this many probes, so that a long quiet spell is not followed by a burst of them.
const PROBES_SAVED: f64 = 2.0;

/// A group that is held for so long, or for its period if that is longer, has no values meanwhile: else its last ones would stand
/// for good ones for ever, whatever it is that holds it. Of an instrument that talks by itself the driver says it: it knows how
/// long a sentence may stay away.
const HELD_MAX: Duration = Duration::from_secs(30);

/// A group that is polled more seldom than each minute is tried again after this while the line is down: it is back within a minute
/// of the line, too.
const DOWN_AGAIN: Duration = Duration::from_secs(50);

/// The longest wait, when nothing is due.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Poll a group, and give up at `deadline`.
    Poll {
        /// Index of the device.
        device: usize,
        /// Index of its group.
        group: usize,
        /// When the answer is no longer worth waiting for.
        deadline: Instant,
    },
    /// Nothing is due until then.
    Wait(Instant),
}

/// An edge in a device's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It answers (again).
    Answering,
    /// It does not answer (any more).
    Silent,
}

/// One group of one device on its own grid.
#[derive(Clone, Debug)]
struct Slot {
    device: usize,
    group: usize,
    period: Duration,
    /// Longest time one poll of it may take: its requests times the line's timeout. Only while a device answers more
    /// requests than were planned (it refused one as a whole) a poll goes on behind it.
    limit: Duration,
    due: Instant,
    /// One period after its last poll began. Of several due slots the one that has waited longest in its own measure
    /// goes first, so that an overloaded line is shared fairly.
    turn: Instant,
    /// Not before then, although it is due: the line still owes an answer of equal shape.
    held: Option<Instant>,
    /// Since when each of its polls was held.
    held_since: Option<Instant>,
    /// Of an instrument that talks by itself: `held` is that nothing new has come.
    talks: bool,
    /// It is asked now, beside its grid: its last answer counts no more.
    out_of_turn: bool,
    /// Its last poll found the line down, and its next one is far: then it is tried again, beside its grid.
    cut_off: Option<Instant>,
    /// When its last poll that said anything about the device was answered; `None` if it was not.
    answered: Option<Instant>,
}

impl Slot {
    /// When it is to be polled.
    fn at(&self, now: Instant) -> Instant {
        let due = if self.out_of_turn { now } else { self.due };
        let due = self.cut_off.map_or(due, |again| due.min(again));
        self.held.map_or(due, |held| due.max(held))
    }
}

/// The schedule of one bus.
#[derive(Clone, Debug)]
pub struct Due {
    slots: Vec<Slot>,
    health: Vec<Health>,
    timeout: Duration,
    /// Probing time that silent devices may still use; grows with time, at [`SILENT_SHARE`].
    saved: Duration,
    saved_at: Instant,
    probed_anyway: Instant,
}

impl Due {
    /// Spreads the polls of a bus. `requests(device, group)` is how many requests a poll takes, `timeout` how long
    /// each may wait.
    pub fn new(
        spec: &BusSpec,
        requests: impl Fn(usize, usize) -> u32,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        let mut slots = Vec::new();
        for (device, d) in spec.devices.iter().enumerate() {
            let talks = matches!(&d.address, Address::Line(instrument) if instrument.query.is_none());
            for (group, g) in d.groups.iter().enumerate() {
                let limit = timeout * requests(device, group).max(1);
                let (period, held, answered) = (g.period, None, None);
                let (due, turn, out_of_turn, held_since, cut_off) = (now, now, false, None, None);
                slots.push(Slot {
                    device,
                    group,
                    period,
                    limit,
                    due,
                    turn,
                    held,
                    held_since,
                    talks,
                    out_of_turn,
                    cut_off,
                    answered,
                });
            }
        }
        spread(&mut slots, timeout, now);
        let health = Health::new(now);
        let health = vec![health; spec.devices.len()];
        Self { slots, health, timeout, saved: timeout, saved_at: now, probed_anyway: now }
    }

    /// What to do at `now`. Counts what was missed on the way.
    pub fn next(&mut self, now: Instant) -> Next {
        self.skip_missed(now);
        let mut wake = now + WAIT_MAX;
        let mut best: Option<&Slot> = None;
        let mut next_due = None;
        for slot in &self.slots {
            if self.is_silent(slot.device) {
                continue;
            }
            let at = slot.at(now);
            if at <= now {
                if best.is_none_or(|best| slot.turn < best.turn) {
                    best = Some(slot);
                }
            } else {
                next_due = Some(next_due.map_or(at, |n: Instant| n.min(at)));
            }
        }
        if let Some(poll) = best.map(|slot| self.poll(slot, now)) {
            // On a line without a free moment nothing ever fits: the one probe that may delay a poll is made all the same.
            return self.probe(now, Some(now)).unwrap_or(poll);
        }
        wake = next_due.map_or(wake, |due| due.min(wake));
        match self.probe(now, next_due) {
            Ok(poll) => poll,
            Err(None) => Next::Wait(wake),
            Err(Some(later)) => Next::Wait(wake.min(later)),
        }
    }

    /// The poll of a slot. An instrument that talks by itself is listened to only as long as nothing else is due: what it says
    /// between polls is heard, too.
    fn poll(&self, slot: &Slot, now: Instant) -> Next {
        let (device, group) = (slot.device, slot.group);
        let is_other = |other: &&Slot| (other.device, other.group) != (device, group);
        let others = self.slots.iter().filter(|other| slot.talks && !self.is_silent(other.device));
        let next = others.filter(is_other).map(|other| other.at(now).max(now)).min();
        let deadline = now + slot.limit;
        Next::Poll { device, group, deadline: next.map_or(deadline, |next| next.min(deadline)) }
    }

    /// Takes note of a poll that `next` asked for: `started` is the `now` it was asked with.
    /// Returns the edge in the device's health, if there is one.
    pub fn polled(
        &mut self,
        poll: (usize, usize),
        outcome: &Outcome,
        started: Instant,
        now: Instant,
    ) -> Option<Edge> {
        let (device, group) = poll;
        let was_silent = self.is_silent(device);
        if let Some(slot) = self.slots.iter_mut().find(|s| s.device == device && s.group == group) {
            if let Outcome::Held { until } = outcome {
                slot.held = Some(*until);
                slot.held_since.get_or_insert(started);
                if let Some(health) = self.health.get_mut(device) {
                    health.probe_at = health.probe_at.max(*until);
                    // What was not asked must not keep the next group from being asked.
                    health.probes = health.probes.wrapping_add(usize::from(was_silent));
                }
                return None;
            }
            (slot.held, slot.held_since) = (None, None);
            if *outcome != Outcome::LinkDown {
                slot.answered = matches!(outcome, Outcome::Answered { .. }).then_some(now);
            }
            slot.turn = started + slot.period;
            slot.cut_off = None;
            if *outcome == Outcome::LinkDown && slot.period > Duration::from_secs(60) {
                // Where others leave room, or else a little later: many such would keep the quick ones waiting.
                let again = started + DOWN_AGAIN;
                (slot.cut_off, slot.turn) = (Some(again), again + DOWN_AGAIN);
            }
            let out_of_turn = std::mem::take(&mut slot.out_of_turn);
            if !was_silent && !out_of_turn && slot.due <= started {
                slot.due += slot.period;
            }
            // One that talks by itself was listened to: its own poll made none of its polls late.
            while slot.talks && slot.due + slot.period <= now {
                slot.due += slot.period;
            }
        }
        if was_silent {
            self.saved = self.saved.saturating_sub(now.saturating_duration_since(started));
        }
        if *outcome == Outcome::Damaged && !was_silent && self.is_excused(poll, now) {
            return None;
        }
        let edge = self.health.get_mut(device)?.note(outcome, now);
        match edge {
            Some(Edge::Answering) if was_silent => self.rejoin(poll, now),
            Some(Edge::Silent) => {
                for slot in self.slots.iter_mut().filter(|s| s.device == device) {
                    (slot.answered, slot.out_of_turn) = (None, false);
                }
            }
            _ => {}
        }
        edge
    }

    /// Whether damage in one group says nothing about its device, because of the newest answer of another. One that is too old is
    /// sought anew, and decides.
    fn is_excused(&mut self, (device, group): (usize, usize), now: Instant) -> bool {
        let others = self.slots.iter_mut().filter(|s| s.device == device && s.group != group);
        let Some(newest) = others.filter(|s| s.answered.is_some()).max_by_key(|s| s.answered) else {
            return false;
        };
        let Some(health) = self.health.get_mut(device) else { return false };
        let age = newest.answered.map(|at| now.saturating_duration_since(at));
        if age >= Some(health.answer_counts(now)) && !newest.out_of_turn {
            (newest.out_of_turn, newest.turn) = (true, newest.turn.min(now));
            health.seek(now);
        }
        true
    }

    /// Whether a group is held for so long that its points have no values any more. Those of a silent device are said to have
    /// none anyway.
    pub fn is_held_too_long(&self, (device, group): (usize, usize), now: Instant) -> bool {
        let slot = self.slots.iter().find(|s| s.device == device && s.group == group);
        let since = |slot: &Slot| Some((slot.held_since?, slot.period.max(HELD_MAX)));
        let too_long = |(since, most)| now.saturating_duration_since(since) >= most;
        !self.is_silent(device) && slot.filter(|slot| !slot.talks).and_then(since).is_some_and(too_long)
    }

    /// Polls of a device that were due and not made, since the last call.
    pub fn take_missed(&mut self, device: usize) -> u64 {
        self.health.get_mut(device).map_or(0, |h| std::mem::take(&mut h.missed))
    }

    /// Whether a device is out of the round.
    pub fn is_silent(&self, device: usize) -> bool {
        self.health.get(device).is_some_and(|h| h.answering == Some(false))
    }

    /// Moves every overdue slot to the newest of its due times and counts those it passed. The newest is still
    /// polled: late is better than not at all.
    fn skip_missed(&mut self, now: Instant) {
        for slot in &mut self.slots {
            let late = now.saturating_duration_since(slot.due);
            if late < slot.period {
                continue;
            }
            let passed = late.as_nanos() / slot.period.as_nanos().max(1);
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            slot.due += slot.period * passed;
            // What is held had nothing to ask: the line had time for it.
            if let Some(health) = self.health.get_mut(slot.device)
                && health.answering != Some(false)
                && slot.held.is_none_or(|until| now.saturating_duration_since(until) >= slot.period)
            {
                health.missed += u64::from(passed);
            }
        }
    }

    /// A probe to make now, or when it is worth asking again.
    fn probe(&mut self, now: Instant, next_due: Option<Instant>) -> Result<Next, Option<Instant>> {
        self.save(now);
        let candidate = self.health.iter().enumerate().filter(|(_, h)| h.answering == Some(false));
        let Some((device, health)) = candidate.min_by_key(|(_, h)| h.probe_at) else {
            return Err(None);
        };
        if health.probe_at > now {
            return Err(Some(health.probe_at));
        }
        if self.saved < self.timeout {
            let short = self.timeout.saturating_sub(self.saved).as_secs_f64() / SILENT_SHARE;
            return Err(Some(now + Duration::from_secs_f64(short)));
        }
        // What an instrument that talks by itself has said was heard already: to look takes no time.
        let talks = self.slots.iter().any(|slot| slot.device == device && slot.talks);
        let fits = talks || next_due.is_none_or(|due| now + self.timeout <= due);
        if !fits {
            if now.saturating_duration_since(self.probed_anyway) < PROBE_ANYWAY {
                return Err(None);
            }
            self.probed_anyway = now;
        } else if next_due.is_some() && !talks {
            // A bus that has room for probes does not also get those that delay a poll.
            self.probed_anyway = now;
        }
        // Each group in turn: one of them may be what the device ignores.
        let mut groups = self.slots.iter().filter(|s| s.device == device);
        let turn = health.probes % groups.clone().count().max(1);
        let slot = groups.nth(turn).ok_or(None)?;
        let deadline = now + self.timeout;
        // One that has begun to talk again is listened to as in `poll`.
        let next = next_due.filter(|_| talks).map_or(deadline, |due| due.max(now));
        Ok(Next::Poll { device, group: slot.group, deadline: next.min(deadline) })
    }

    /// Lets the silent devices' account grow.
    fn save(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.saved_at);
        self.saved_at = now;
        let most = self.timeout.mul_f64(PROBES_SAVED);
        self.saved = (self.saved + passed.mul_f64(SILENT_SHARE)).min(most);
    }

    /// Puts a device that answers again back on its grid, which went on. The probe was a poll of one group. The points of the others
    /// are bad since it fell silent, and are due at once: of a group that is polled each hour the last due time counts.
    fn rejoin(&mut self, (device, probed): (usize, usize), now: Instant) {
        for slot in self.slots.iter_mut().filter(|s| s.device == device) {
            while slot.due <= now {
                slot.due += slot.period;
            }
            // A probe has the time of one request.
            if slot.group != probed || slot.limit > self.timeout {
                slot.due = slot.due.checked_sub(slot.period).unwrap_or(slot.due);
            }
        }
    }
}

/// Gives each slot its phase. Where periods leave room for it, the polls stand in the first part of the shortest
/// period and leave a gap of one timeout at its end, in which a probe fits.
fn spread(slots: &mut [Slot], timeout: Duration, now: Instant) {
    let Some(shortest) = slots.iter().map(|s| s.period).min() else { return };
    let gap = timeout.mul_f64(1.1);
    let room = if gap * 2 <= shortest { shortest.saturating_sub(gap) } else { shortest };
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX).max(1);
    for (i, slot) in slots.iter_mut().enumerate() {
        let i = u32::try_from(i).unwrap_or(0);
        let rounds = u32::try_from(slot.period.as_nanos() / shortest.as_nanos().max(1)).unwrap_or(1).max(1);
        slot.due = now + room / count * i + shortest * (i % rounds);
        slot.turn = slot.due;
    }
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
