//! What has been said of runs and need not be said again, and what must be: the receiver needs an end and the gaps of each run
//! for its proof, and nothing that contradicts them.

use std::collections::BTreeMap;

use crate::model::event::{Body, GapCause};
use crate::model::{RunId, Stamp};
use crate::spool::gaps::{Gap, Gaps};
use crate::spool::inner::Inner;
use crate::spool::ledger::{End, Intervals, Losses, Lost, RunBooks, UNFOLDED};

/// What records that were found say: it need not be said again.
#[derive(Debug, Default)]
pub(in crate::spool) struct Said {
    /// Runs that have an end record, and where it says that they end.
    ended: BTreeMap<RunId, u64>,
    gaps: BTreeMap<RunId, Intervals>,
    /// Those of them that name each reading, and why.
    causes: BTreeMap<RunId, Lost>,
    /// How many losses below a limit.
    forgotten: BTreeMap<RunId, Losses>,
    /// Of a run and a cause: stretches of which only a number is lost.
    parts: BTreeMap<(RunId, GapCause), Vec<Gap>>,
}

impl Said {
    /// This run was said to end there.
    pub(super) fn end(&mut self, run: RunId, next_seq: u64) {
        let end = self.ended.entry(run).or_default();
        *end = (*end).max(next_seq);
    }

    /// This need not be said again.
    pub(in crate::spool) fn hear(&mut self, body: &Body) {
        match *body {
            Body::RunEnd { ended, next_seq, .. } => self.end(ended, next_seq),
            Body::Gap { of, first, next, cause } => {
                self.gaps.entry(of).or_default().insert(first, next);
                self.causes.entry(of).or_default().insert(first, next, cause);
            }
            // In a stretch of gaps it does not matter any more which are lost: they are counted there.
            Body::Gaps { .. } => self.parts_of(body),
            _ => {}
        }
    }

    /// A record may be heard again, and one that stands for many after those.
    fn parts_of(&mut self, body: &Body) {
        let Some(gap) = Gap::told_by(body) else { return };
        let parts = self.parts.entry((gap.of, gap.cause)).or_default();
        parts.retain(|known| known.first < gap.first || gap.next < known.next);
        if !parts.iter().any(|known| known.first <= gap.first && gap.next <= known.next) {
            parts.push(gap);
        }
    }

    /// A whole file has these books of a run that ended: what they tell has been recorded with them, and may have been sent long ago.
    pub(super) fn whole(&mut self, run: RunId, books: &RunBooks) {
        self.end(run, books.durable);
        self.losses(run, books);
    }

    /// So it is with the losses of a run that has no end yet.
    pub(super) fn losses(&mut self, run: RunId, books: &RunBooks) {
        let gaps = self.gaps.entry(run).or_default();
        for (first, next, _) in books.lost.stretches() {
            gaps.insert(first, next);
        }
        let (said, forgotten) = (self.forgotten.entry(run).or_default(), books.lost.forgotten());
        for cause in GapCause::ALL {
            *said.of(cause) = said.at(cause).max(forgotten.at(cause));
        }
    }

    /// What was said to be lost of a run, reading by reading, and why.
    pub(super) fn causes(&self, run: RunId) -> Vec<(u64, u64, GapCause)> {
        self.causes.get(&run).map_or(Vec::new(), Lost::stretches)
    }

    /// Losses that must be told, of which the places are known, and of which the number.
    fn untold(&self, run: RunId, books: &RunBooks, unrecorded: &Gaps) -> Vec<Body> {
        let mut told = self.gaps.get(&run).cloned().unwrap_or_default();
        let heard = self.parts.iter().filter(|((of, _), _)| *of == run);
        let mut parts: Vec<Gap> = heard.flat_map(|(_, parts)| parts.iter().copied()).collect();
        for gap in unrecorded.iter().filter(|gap| gap.of == run) {
            if gap.is_whole() {
                told.insert(gap.first, gap.next);
            } else {
                parts.push(*gap);
            }
        }
        let mut untold = Vec::new();
        let stretches = books.lost.stretches();
        for cause in GapCause::ALL {
            // A number stands for all of its own cause.
            let mut told = told.clone();
            for gap in parts.iter().filter(|gap| gap.cause == cause) {
                told.insert(gap.first, gap.next);
            }
            for (first, next, _) in stretches.iter().filter(|(.., why)| *why == cause) {
                let gap = |(first, next)| Body::Gap { of: run, first, next, cause };
                untold.extend(told.missing(*first, *next).into_iter().map(gap));
            }
        }
        let said = self.forgotten.get(&run).copied().unwrap_or_default();
        let forgotten = books.lost.forgotten();
        for cause in GapCause::ALL {
            let forgotten = forgotten.at(cause);
            if forgotten > said.at(cause) {
                let limit = books.lost.limit();
                let next = self.reach((run, cause), limit, unrecorded);
                let lost = forgotten + books.lost.within_of(limit, next, cause);
                untold.push(Body::Gaps { of: run, first: 0, next, lost, cause });
            }
        }
        untold
    }

    /// A stretch of which a number is told stands for all gaps within it. It ends at `limit`, or where another ends that would reach beyond:
    /// what two tell in part would be counted twice.
    fn reach(&self, (run, cause): (RunId, GapCause), limit: u64, unrecorded: &Gaps) -> u64 {
        let unrecorded = unrecorded.iter().filter(|gap| (gap.of, gap.cause) == (run, cause));
        let parts: Vec<&Gap> =
            self.parts.get(&(run, cause)).into_iter().flatten().chain(unrecorded).collect();
        let mut reach = limit;
        while let Some(over) = parts.iter().find(|gap| gap.first < reach && reach < gap.next) {
            reach = over.next;
        }
        reach
    }
}

/// Run ends and gaps that may have waited in a file that is gone are recorded again: the receiver needs them for its proof.
/// What is only booked yet, and not recorded, is recorded by the next commit and not here.
pub(in crate::spool) fn say_again(
    inner: &mut Inner,
    last_wall_us: &BTreeMap<RunId, i64>,
    said: &Said,
    stamp: Stamp,
) {
    let (mut again, mut ends) = (Vec::new(), Vec::new());
    for (run, books) in &inner.ledger.runs {
        again.extend(said.untold(*run, books, &inner.gaps));
        // The end of a run that had been folded was sent, and is not known any more.
        // One that was said before everything was found falls short.
        let told = said.ended.get(run).is_some_and(|end| *end >= books.durable);
        if *run != inner.run && books.durable < UNFOLDED && !told {
            let unproved = End { clean: false, last_wall_us: last_wall_us.get(run).copied() };
            let end = books.end.unwrap_or(unproved);
            ends.push((*run, end));
            again.push(end.body(*run, books.durable));
        }
    }
    for (run, end) in ends {
        if let Some(books) = inner.ledger.runs.get_mut(&run) {
            books.end = Some(end);
        }
    }
    for body in again {
        inner.must_record(body, stamp);
    }
}
