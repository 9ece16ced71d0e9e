//! What the floors of files tell of runs whose books nobody has found. Pure.
//!
//! A block below the floor of its file was settled: it is not taken back. What came before the furthest of them and lay nowhere was settled
//! too, most likely: a guess, which only the end of all searches allows, and which books that turn up later need not fear. What lay above a
//! floor is never guessed: a rescue stores older readings behind newer ones.

use std::collections::BTreeMap;

use crate::model::RunId;
use crate::spool::ledger::Intervals;

/// By run.
#[derive(Debug, Default)]
pub(super) struct Floors {
    below: BTreeMap<RunId, Intervals>,
    above: BTreeMap<RunId, Intervals>,
    /// What was passed over because it lay below, and no books were there to ask.
    passed: BTreeMap<RunId, Intervals>,
}

impl Floors {
    /// This lay below the floor of its file, and that above.
    pub(super) fn learn(&mut self, below: BTreeMap<RunId, Intervals>, above: BTreeMap<RunId, Intervals>) {
        for (known, found) in [(&mut self.below, below), (&mut self.above, above)] {
            for (run, found) in found {
                let known = known.entry(run).or_default();
                for (first, next) in found.iter() {
                    known.insert(first, next);
                }
            }
        }
    }

    /// Whether these readings are passed over. `unfound`: there are no books to ask.
    pub(super) fn pass(&mut self, run: RunId, (first, next): (u64, u64), unfound: bool) -> bool {
        let covers = |known: &BTreeMap<RunId, Intervals>| {
            known.get(&run).is_some_and(|known| known.covers(first, next))
        };
        if unfound && covers(&self.below) {
            self.passed.entry(run).or_default().insert(first, next);
        }
        covers(&self.passed)
    }

    /// What was settled of a run, as far as floors can tell in the end.
    pub(super) fn settled(&self, run: RunId, unfound: bool) -> Vec<(u64, u64)> {
        let none = Intervals::default();
        let mut settled: Vec<_> = self.passed.get(&run).unwrap_or(&none).iter().collect();
        if unfound {
            let below = self.below.get(&run).unwrap_or(&none);
            let end = below.iter().map(|(_, next)| next).max().unwrap_or_default();
            settled.extend(self.above.get(&run).unwrap_or(&none).missing(0, end));
        }
        settled
    }
}
