//! A set of numbers, kept as stretches: what of a run is settled, lost, on the wire. Pure.
//!
//! Promises: stretches are disjoint and do not touch, so that two sets of the same numbers are equal; every question costs a search in
//! a tree and a walk over the stretches it touches. Not bounded by itself: who keeps one bounds it.

use std::collections::BTreeMap;

/// Disjoint, not touching stretches of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    by_first: BTreeMap<u64, u64>,
    total: u64,
}

impl Intervals {
    /// Adds `first..next`; gives how many of them are new.
    pub fn insert(&mut self, first: u64, next: u64) -> u64 {
        if first >= next {
            return 0;
        }
        let before = self.total;
        let (mut from, mut to) = (first, next);
        // The only one that can begin before and touch is the last one that begins at or before `first`.
        if let Some((&start, &end)) = self.by_first.range(..=first).next_back()
            && end >= first
        {
            from = start;
        }
        while let Some((&start, &end)) = self.by_first.range(from..=to).next() {
            self.by_first.remove(&start);
            self.total -= end - start;
            to = to.max(end);
        }
        self.by_first.insert(from, to);
        self.total += to - from;
        self.total - before
    }

    /// Takes `first..next` out; gives how many of them were in.
    pub fn remove(&mut self, first: u64, next: u64) -> u64 {
        let before = self.total;
        let last = |by: &BTreeMap<u64, u64>| by.range(..next).next_back().map(|(&start, &end)| (start, end));
        while let Some((start, end)) = last(&self.by_first).filter(|(_, end)| *end > first && first < next) {
            self.by_first.remove(&start);
            self.total -= end - start;
            self.insert(next, end);
            self.insert(start, first);
        }
        before - self.total
    }

    /// Whether all of `first..next` is in.
    pub fn covers(&self, first: u64, next: u64) -> bool {
        first >= next || self.by_first.range(..=first).next_back().is_some_and(|(_, &end)| end >= next)
    }

    /// Whether any of `first..next` is in.
    pub fn touches(&self, first: u64, next: u64) -> bool {
        self.within(first, next) > 0
    }

    /// Whether taking `first..next` out would leave one stretch more.
    pub fn splits(&self, first: u64, next: u64) -> bool {
        self.by_first.range(..first).next_back().is_some_and(|(_, &end)| end > next)
    }

    /// The stretches of `first..next` that are not in.
    pub fn missing(&self, first: u64, next: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        if first >= next {
            return missing;
        }
        let mut at = first;
        let covered = self.by_first.range(..=first).next_back().map(|(_, &end)| end);
        at = at.max(covered.unwrap_or(at).min(next.max(at)));
        for (&start, &end) in self.by_first.range(first..next) {
            if start > at {
                missing.push((at, start));
            }
            at = at.max(end);
        }
        if at < next {
            missing.push((at, next));
        }
        missing
    }

    /// From `at` on over what is in.
    pub fn on_from(&self, at: u64) -> u64 {
        self.by_first.range(..=at).next_back().map_or(at, |(_, &end)| end.max(at))
    }

    /// How many numbers are in.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of them lie below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.by_first.range(..limit).map(|(&start, &end)| end.min(limit) - start).sum()
    }

    /// How many of `first..next` are in.
    pub fn within(&self, first: u64, next: u64) -> u64 {
        if first >= next {
            return 0;
        }
        let into = self
            .by_first
            .range(..first)
            .next_back()
            .map_or(0, |(_, &end)| end.min(next).saturating_sub(first));
        into + self.by_first.range(first..next).map(|(&start, &end)| end.min(next) - start).sum::<u64>()
    }

    /// The stretches, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_first.iter().map(|(&first, &next)| (first, next))
    }

    /// How many stretches.
    pub fn count(&self) -> usize {
        self.by_first.len()
    }

    /// Of the stretches that do not begin at 0 and need not stay keeps the `keep` longest.
    pub(super) fn forget_shortest(&mut self, keep: usize, stays: impl Fn(u64, u64) -> bool) {
        let own = self.by_first.range(1..).filter(|&(&first, &next)| !stays(first, next));
        let mut own: Vec<_> = own.map(|(&first, &next)| (next - first, first)).collect();
        own.sort_unstable();
        own.truncate(own.len().saturating_sub(keep));
        for (length, first) in own {
            self.by_first.remove(&first);
            self.total -= length;
        }
    }
}
