//! Up to which `seq` this run is settled: confirmed, or known to be in a gap record or a dead letter. Pure.
//!
//! A lower bound, never too high: when too many pieces lie above a hole, the topmost are forgotten, and the books of
//! the spool fill the holes that no acknowledgement will.

use std::collections::BTreeMap;

/// Pieces above the first hole that are remembered.
const PIECES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Settled {
    below: u64,
    /// First to one past the last, not overlapping, above `below`.
    above: BTreeMap<u64, u64>,
}

impl Settled {
    /// Every reading with a lower `seq` is settled.
    pub(super) fn below(&self) -> u64 {
        self.below
    }

    /// Something above a hole is settled.
    pub(super) fn has_hole(&self) -> bool {
        !self.above.is_empty()
    }

    /// The readings `seq..seq + n` are settled.
    pub(super) fn add(&mut self, seq: u64, n: u64) {
        let end = seq.saturating_add(n);
        if seq <= self.below {
            self.jump(end);
            return;
        }
        let extended = self.above.range_mut(..=seq).next_back().filter(|(_, last)| **last >= seq);
        match extended {
            Some((_, last)) => *last = (*last).max(end),
            None => {
                self.above.insert(seq, end);
            }
        }
        if self.above.len() > PIECES_MAX {
            self.above.pop_last();
        }
    }

    /// Every reading below `seq` is settled.
    pub(super) fn jump(&mut self, seq: u64) {
        self.below = self.below.max(seq);
        while let Some((&first, &last)) = self.above.first_key_value() {
            if first > self.below {
                break;
            }
            self.below = self.below.max(last);
            self.above.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_bound_is_exact_while_few_pieces_lie_above_it(order in Just((0_u64..200).collect::<Vec<_>>()).prop_shuffle()) {
            let mut settled = Settled::default();
            let mut done = std::collections::BTreeSet::new();
            for piece in order {
                settled.add(piece * 3, 3);
                done.insert(piece);
                let first_missing = (0..=200).find(|piece| !done.contains(piece)).unwrap_or(0);
                prop_assert_eq!(settled.below(), first_missing * 3);
            }
            prop_assert!(!settled.has_hole());
        }
    }

    #[test]
    fn too_many_pieces_only_lower_the_bound() {
        let mut settled = Settled::default();
        for piece in 1..5000 {
            settled.add(piece * 10, 5);
        }
        assert_eq!((settled.below(), settled.above.len()), (0, PIECES_MAX));
        settled.jump(60_000);
        assert!(!settled.has_hole());
        assert_eq!(settled.below(), 60_000);
    }
}
