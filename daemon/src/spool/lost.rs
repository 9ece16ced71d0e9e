//! What of a run was lost: how many readings of which cause, and where. Pure.
//!
//! Where and why is known of at most [`LOST_MAX`] stretches, and of twice as many while something waits before them. One device whose topic the broker
//! refuses makes a stretch with each poll: of more, the older ones are **forgotten**: they are counted by cause below a limit, and no longer named one by one.
//! They may be told as one ([`Body::Gaps`](crate::model::event::Body::Gaps)). Who asks for places gets only those that are known, never a guess: a guess
//! would call a reading lost that was delivered. What waits is not told by this: the settled stretches say it, and lost ones stay in them, forgotten or not.

use std::collections::BTreeMap;

use super::ledger::Intervals;
use crate::model::event::GapCause;

/// Lost stretches of a run that are known by their place; twice as many while something waits before them. Of older ones only the number stays.
pub const LOST_MAX: usize = 1024;

/// How many readings of a run were lost, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Dropped to make room at the cap.
    pub evicted: u64,
    /// Dropped because they were older than may be kept.
    pub expired: u64,
    /// Dropped from memory while the disk was failing.
    pub dropped: u64,
    /// Numbered and not stored when the process or the power went.
    pub unstored: u64,
    /// Damage found on disk.
    pub damaged: u64,
    /// In dead letters, or dropped from there.
    pub dead_lettered: u64,
}

impl Losses {
    /// Of one cause.
    pub fn of(&mut self, cause: GapCause) -> &mut u64 {
        match cause {
            GapCause::Evicted => &mut self.evicted,
            GapCause::Expired => &mut self.expired,
            GapCause::Overflow => &mut self.dropped,
            GapCause::Unstored => &mut self.unstored,
            GapCause::Damaged => &mut self.damaged,
            GapCause::DeadLetter => &mut self.dead_lettered,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.evicted + self.expired + self.dropped + self.unstored + self.damaged + self.dead_lettered
    }

    /// Sum, field by field.
    pub fn add(&mut self, other: &Self) {
        self.evicted += other.evicted;
        self.expired += other.expired;
        self.dropped += other.dropped;
        self.unstored += other.unstored;
        self.damaged += other.damaged;
        self.dead_lettered += other.dead_lettered;
    }

    /// Difference, field by field.
    pub fn less(&mut self, other: &Self) {
        for cause in GapCause::ALL {
            *self.of(cause) -= (*self).at(cause).min(other.at(cause));
        }
    }

    /// Of one cause.
    pub fn at(mut self, cause: GapCause) -> u64 {
        *self.of(cause)
    }

    /// The only cause, if there is one.
    pub fn only(self) -> Option<GapCause> {
        let mut causes = GapCause::ALL.into_iter().filter(|cause| self.at(*cause) > 0);
        causes.next().filter(|_| causes.next().is_none())
    }
}

/// The lost readings of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Known by place; none below `limit`.
    known: BTreeMap<GapCause, Intervals>,
    limit: u64,
    /// Of those below it only the number is known.
    forgotten: Losses,
}

impl Lost {
    /// Of which so many below a limit are known by number only.
    pub fn with_forgotten(limit: u64, forgotten: Losses) -> Self {
        Self { limit, forgotten, ..Self::default() }
    }

    /// Adds `first..next`, which are not in.
    pub fn insert(&mut self, first: u64, next: u64, cause: GapCause) {
        let from = first.max(self.limit).min(next);
        *self.forgotten.of(cause) += from - first.min(from);
        self.known.entry(cause).or_default().insert(from, next);
    }

    /// Forgets the places of the oldest stretches that lie below `limit`, until `keep` are known.
    pub fn forget_places(&mut self, keep: usize, limit: u64) {
        while self.count() > keep {
            let firsts = self.known.iter().filter_map(|(cause, known)| Some((known.iter().next()?, *cause)));
            let Some(((first, next), cause)) = firsts.min().filter(|((_, next), _)| *next <= limit) else {
                return;
            };
            *self.forgotten.of(cause) += self.known.entry(cause).or_default().remove(first, next);
            self.limit = self.limit.max(next);
        }
    }

    /// Below it no place is known.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many were lost below the limit.
    pub fn forgotten(&self) -> Losses {
        self.forgotten
    }

    /// No more than `left` are settled below the limit: as many of the forgotten are lost still, and the others wait again. Gives these.
    pub fn keep_forgotten(&mut self, left: u64) -> Losses {
        let (mut over, mut again) = (self.forgotten.total().saturating_sub(left), Losses::default());
        // What was refused is in the ring as long as its neighbours; what was lost in another way seldom is.
        let refused = std::iter::once(GapCause::DeadLetter);
        for cause in refused.chain(GapCause::ALL) {
            let some = self.forgotten.at(cause).min(over);
            *self.forgotten.of(cause) -= some;
            *again.of(cause) += some;
            over -= some;
        }
        again
    }

    /// Adds what others know; gives what is new of it.
    pub fn take(&mut self, others: &Self) -> Losses {
        let before = self.counted();
        if others.limit > self.limit {
            let known: Vec<_> = self.stretches();
            self.known.clear();
            self.limit = others.limit;
            for (first, next, cause) in known {
                self.insert(first, next, cause);
            }
        }
        self.forgotten.add(&others.forgotten);
        let mut mine = Intervals::default();
        for (first, next, _) in self.stretches() {
            mine.insert(first, next);
        }
        for (first, next, cause) in others.stretches() {
            for (first, next) in mine.missing(first, next) {
                self.insert(first, next, cause);
            }
        }
        let mut new = self.counted();
        new.less(&before);
        new
    }

    fn counted(&self) -> Losses {
        let mut all = self.forgotten;
        for (cause, known) in &self.known {
            *all.of(*cause) += known.total();
        }
        all
    }

    /// How many, known by place or not.
    pub fn total(&self) -> u64 {
        self.counted().total()
    }

    /// How many of them lie below `durable`, where all forgotten ones do.
    pub fn below(&self, durable: u64) -> u64 {
        self.forgotten.total() + self.known.values().map(|known| known.below(durable)).sum::<u64>()
    }

    /// How many of `first..next` are known to be lost.
    pub fn within(&self, first: u64, next: u64) -> u64 {
        self.known.values().map(|known| known.within(first, next)).sum()
    }

    /// ... for this cause.
    pub fn within_of(&self, first: u64, next: u64, cause: GapCause) -> u64 {
        self.known.get(&cause).map_or(0, |known| known.within(first, next))
    }

    /// Whether any of `first..next` is known to be lost.
    pub fn touches(&self, first: u64, next: u64) -> bool {
        self.within(first, next) > 0
    }

    /// Whether any of `first..next` is lost, or may be.
    pub fn may_hold(&self, first: u64, next: u64) -> bool {
        (first < self.limit && self.forgotten.total() > 0) || self.touches(first, next)
    }

    /// The stretches whose places are known, ascending.
    pub fn stretches(&self) -> Vec<(u64, u64, GapCause)> {
        let of = |(cause, known): (&GapCause, &Intervals)| {
            known.iter().map(|(first, next)| (first, next, *cause)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.known.iter().flat_map(of).collect();
        all.sort_unstable();
        all
    }

    /// How many stretches are known by place.
    pub fn count(&self) -> usize {
        self.known.values().map(Intervals::count).sum()
    }
}
