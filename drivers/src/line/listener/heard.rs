//! The groups of an instrument that talks by itself: until when one waits for the rest of its sentences, and what it takes then.

use std::time::{Duration, Instant};

use super::{Listener, Taken};
use crate::value::Cause;

impl Listener {
    /// How long what has come of a group may wait for its rest: less than until its next is due, or where its sentences have
    /// rhythms of their own the quicker one would be overwritten meanwhile.
    pub fn rest(&self, group: usize, timeout: Duration) -> Duration {
        let period = self.groups.get(group).map_or(Duration::ZERO, |wanted| wanted.period);
        timeout.min(period / 2)
    }

    /// What had come is too old by now.
    pub fn waits_no_more(&mut self, group: usize) {
        if let Some(wanted) = self.groups.get_mut(group) {
            wanted.waits = None;
        }
    }

    /// Until when the group, of which something has come, waits: since a poll has found that. For what it lacks; and if it has all, but far apart,
    /// for the rest of the newer round: a line that was left over would make pairs of two rounds, for ever.
    pub fn waits_until(&mut self, group: usize, timeout: Duration, now: Instant) -> Instant {
        let rest = self.rest(group, timeout);
        let complete = self.is_complete(group, now);
        let arrivals = self.arrivals(group, now);
        let Some(wanted) = self.groups.get_mut(group) else { return now };
        let ends = *wanted.waits.get_or_insert(now) + rest;
        match arrivals.filter(|_| complete) {
            None => ends,
            Some((oldest, newest)) if newest.saturating_duration_since(oldest) > rest / 2 => {
                (newest + rest / 2).min(ends + rest / 2)
            }
            Some(_) => now,
        }
    }

    /// When the oldest and the newest of what the group can take came.
    fn arrivals(&self, group: usize, now: Instant) -> Option<(Instant, Instant)> {
        let wanted = self.groups.get(group)?;
        let came = || wanted.points.iter().filter_map(|(_, s)| Some(self.fresh(wanted, *s, now)?.began));
        came().min().zip(came().max())
    }

    /// What the group of an instrument that talks by itself can take now. Of a sentence that is not missing yet nothing is said
    /// but that a line of it was damaged: it is slower than the group's period.
    pub fn take_heard(&mut self, group: usize, now: Instant) -> Taken {
        let said =
            |s: usize| self.sentences.get(s).is_some_and(|sentence| sentence.missing || sentence.damaged);
        let wanted = self.groups.get(group).into_iter().flat_map(|wanted| {
            let is_said = |s| said(s) || self.fresh(wanted, s, now).is_some();
            wanted.points.iter().map(move |(_, s)| is_said(*s))
        });
        let is_said: Vec<bool> = wanted.collect();
        let mut taken = self.take(group, now, Cause::Silent);
        let mut is_said = is_said.into_iter();
        taken.samples.retain(|_| is_said.next().unwrap_or(true));
        taken
    }
}
