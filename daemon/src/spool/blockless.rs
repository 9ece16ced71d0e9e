//! Which settled readings of a run the spool has no block of: confirmed before they were stored, and then left out (`keep = "unsent"`) or
//! dropped from a full memory; or lost with a damaged file, of which a rescue took back what waits. Pure.
//!
//! The books may forget that a reading was confirmed only if it can be sent once more ([`Intervals`], `forget_shortest`). What has no block
//! cannot: it would count as waiting, be found nowhere, and be told as damaged although it was delivered. So settled stretches that hold some
//! of these are kept. They are known by place above a limit; below it any settled reading may be one.

use super::ledger::Intervals;

/// Stretches known by place, beyond which confirmed readings are stored rather than left out: each keeps a settled stretch in the books.
pub(super) const BLOCKLESS_MAX: usize = 512;

/// Settled readings without a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blockless {
    limit: u64,
    known: Intervals,
}

impl Blockless {
    /// As a row tells it.
    pub fn of_row(limit: u64, known: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut blockless = Self { limit, ..Self::default() };
        known.into_iter().for_each(|(first, next)| blockless.insert(first, next));
        blockless
    }

    /// Below it any settled reading may be one.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Those known by place, ascending.
    pub fn known(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.known.iter()
    }

    /// Adds `first..next`. Beyond twice [`BLOCKLESS_MAX`] the places of the oldest are forgotten.
    pub fn insert(&mut self, first: u64, next: u64) {
        self.known.insert(first.max(self.limit).min(next), next);
        while self.known.count() > 2 * BLOCKLESS_MAX {
            let Some((_, next)) = self.known.iter().next() else { return };
            self.all_below(next);
        }
    }

    /// Any settled reading below `limit` may be one.
    pub fn all_below(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
        self.known.remove(0, self.limit);
    }

    /// All below `floor` is one stretch, and never forgotten; if some of it waits again, what is beside that may be one of these.
    pub fn settled_below(&mut self, floor: u64) {
        let reached =
            self.known.iter().take_while(|(first, _)| *first < floor).map(|(_, next)| next.min(floor));
        if let Some(limit) = reached.last() {
            self.all_below(limit);
        }
    }

    /// Whether one more may be left out.
    pub fn has_room(&self) -> bool {
        self.known.count() < BLOCKLESS_MAX
    }

    /// Whether any settled reading of `first..next` is one, or may be.
    pub fn may_hold(&self, first: u64, next: u64) -> bool {
        first < self.limit || self.known.touches(first, next)
    }

    /// Adds what others know.
    pub fn take(&mut self, others: &Self) {
        others.known.iter().for_each(|(first, next)| self.insert(first, next));
        self.all_below(others.limit);
    }

    /// Those below `durable`.
    #[must_use]
    pub fn below(&self, durable: u64) -> Self {
        let known = self.known.iter().take_while(|(first, _)| *first < durable);
        Self::of_row(self.limit.min(durable), known.map(|(first, next)| (first, next.min(durable))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_floor_needs_no_place_and_is_still_one() {
        let mut blockless = Blockless::of_row(0, [(10, 20), (30, 40), (50, 60)]);
        blockless.settled_below(5);
        assert_eq!(blockless, Blockless::of_row(0, [(10, 20), (30, 40), (50, 60)]));
        blockless.settled_below(45);
        assert_eq!((blockless.limit(), blockless.known().collect()), (40, vec![(50, 60)]));
        assert!(blockless.may_hold(0, 1) && blockless.may_hold(39, 45) && blockless.may_hold(55, 70));
        assert!(!blockless.may_hold(40, 50) && !blockless.may_hold(60, 70));
        blockless.settled_below(55);
        assert_eq!((blockless.limit(), blockless.known().collect()), (55, vec![(55, 60)]));
    }

    #[test]
    fn of_too_many_the_oldest_lose_their_places_and_none_is_forgotten() {
        let mut blockless = Blockless::default();
        let last = 3 * BLOCKLESS_MAX as u64;
        for at in 0..last {
            assert_eq!(blockless.has_room(), at < BLOCKLESS_MAX as u64);
            blockless.insert(at * 10, at * 10 + 5);
        }
        assert_eq!(blockless.known().count(), 2 * BLOCKLESS_MAX);
        assert!((0..last).all(|at| blockless.may_hold(at * 10, at * 10 + 1)));
        assert!(!blockless.may_hold(last * 10 - 5, last * 10));
    }

    #[test]
    fn two_copies_of_books_know_together_what_each_knows_and_a_row_says_it_again() {
        let mut one = Blockless::of_row(15, [(20, 30)]);
        one.take(&Blockless::of_row(5, [(10, 20), (40, 50)]));
        assert_eq!((one.limit(), one.known().collect()), (15, vec![(15, 30), (40, 50)]));
        let row = one.below(45);
        assert_eq!((row.limit(), row.known().collect::<Vec<_>>()), (15, vec![(15, 30), (40, 45)]));
        assert_eq!(Blockless::of_row(row.limit(), row.known()), row);
    }
}
