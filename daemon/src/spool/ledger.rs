//! The ledger: which numbered readings are settled, run by run, and how. Pure: no disk, no clock.
//!
//! A reading is **settled** when it need not be sent any more: confirmed, or lost in a counted way. Per run the settled
//! stretches of `seq` are kept as intervals, so the books balance by construction:
//! `durable = waiting + confirmed + lost`, where only `lost` is counted by cause and the rest follows.
//!
//! Bounded: of intervals that were confirmed whole at most [`EXCEPTIONS_MAX`] a run on disk, and about [`INTERVALS_MAX`] in memory. When
//! there are more, the shortest is forgotten: its readings are sent once more, which the receiver drops.
//! Intervals that hold a loss are never forgotten, because what was lost cannot be sent, nor those that hold what the spool has no block of
//! ([`Blockless`]). Which of their readings were lost matters
//! less, and beyond [`LOST_MAX`] only the number is kept, see [`Lost`]. Below the limit of those any interval may hold one: there all stay,
//! and only what waits between them, in the spool or in a file that was set aside, bounds how many they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::blockless::Blockless;
pub use super::intervals::Intervals;
pub use super::lost::{LOST_MAX, Losses, Lost};
use crate::model::RunId;
use crate::model::event::{Body, GapCause};

/// Intervals above the floor of a run that are kept on disk, beside those that may hold a loss.
///
/// Each costs some 15 bytes a commit of books. A link that flaps while an old backlog drains leaves one each time; beyond this
/// number the shortest are sent once more after a restart.
pub const EXCEPTIONS_MAX: usize = 1024;

/// ... and in memory.
pub const INTERVALS_MAX: usize = 4096;

/// So many go when there are more, and so many more there are before they are looked at again: it takes time, and some have to stay.
const FORGOTTEN_AT_ONCE: usize = INTERVALS_MAX / 16;

/// Stretches of folded runs that are remembered. The oldest goes: if a damaged file still holds its blocks, they are sent
/// once more.
pub const FOLDED_MAX: usize = 16;

/// The length of a run that was folded, as its new books have it: how long it was is not known any more.
pub const UNFOLDED: u64 = 1 << 62;

/// How a run was said to end. Whoever says it again says the same: a receiver takes a second, other end for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// In order.
    pub clean: bool,
    /// Wall clock of its last durable batch, if known.
    pub last_wall_us: Option<i64>,
}

impl End {
    /// As the row of a run tells it: 1 without warning, 2 in order; 0, nothing was said.
    pub fn of_row(ended: i64, last_wall_us: Option<i64>) -> Option<Self> {
        (ended > 0).then_some(Self { clean: ended == 2, last_wall_us })
    }

    /// For the row of the run.
    pub fn row(self) -> u8 {
        1 + u8::from(self.clean)
    }

    /// The record.
    pub fn body(self, ended: RunId, next_seq: u64) -> Body {
        let Self { clean, last_wall_us } = self;
        Body::RunEnd { ended, next_seq, clean, last_wall_us }
    }
}

/// The books of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunBooks {
    /// One past the last reading that is durable or settled.
    pub durable: u64,
    /// Settled readings; may reach beyond `durable` (a live confirmation before its commit).
    pub settled: Intervals,
    /// Those of them that were lost.
    pub lost: Lost,
    /// ... by cause.
    pub losses: Losses,
    /// Settled readings that cannot be sent once more.
    pub blockless: Blockless,
    /// Settled readings that are counted in the sums of folded runs: of a run that was folded, and of which some wait again.
    pub folded: Intervals,
    /// How often settled readings of it were let wait again. Only grows: of two copies of its books with the same `durable` the one with
    /// more is newer, though less is settled in it.
    pub resends: u64,
    /// How it was said to end, if it was.
    pub end: Option<End>,
    /// It was folded in this life: its row is gone, and a new one must say that the run has ended.
    pub unfolded: bool,
    /// Begun in a rescue that has not found its books: of what was settled before they know nothing.
    pub unfound: bool,
    /// Up to so many settled stretches it need not be looked again which of them can be forgotten.
    pub looked_at: usize,
}

impl RunBooks {
    /// Durable readings that wait to be sent.
    pub fn waiting(&self) -> u64 {
        self.durable.saturating_sub(self.settled.below(self.durable))
    }

    /// Durable readings that were confirmed.
    pub fn confirmed(&self) -> u64 {
        let elsewhere = self.lost.below(self.durable) + self.folded.below(self.durable);
        self.settled.below(self.durable).saturating_sub(elsewhere)
    }

    /// Below it everything is settled.
    pub fn floor(&self) -> u64 {
        self.settled.iter().next().filter(|(first, _)| *first == 0).map_or(0, |(_, next)| next)
    }

    /// From `at` on over what is settled.
    pub fn settled_on(&self, at: u64) -> u64 {
        self.settled.on_from(at)
    }

    /// Confirms `first..next`.
    pub fn confirm(&mut self, first: u64, next: u64) {
        self.settled.insert(first, next);
        if self.settled.count() > INTERVALS_MAX.max(self.looked_at) {
            // What is still in memory would be sent from there again, and confirmed, and forgotten, without end.
            let kept = INTERVALS_MAX - FORGOTTEN_AT_ONCE;
            forget_shortest(&mut self.settled, kept, self.durable, (&self.lost, &self.blockless));
            self.looked_at = self.settled.count() + FORGOTTEN_AT_ONCE;
        }
    }

    /// Whether settled readings may go without being stored. Not where that would keep too many stretches.
    pub fn may_leave_out(&mut self) -> bool {
        self.blockless.settled_below(self.floor());
        self.blockless.has_room()
    }

    /// The settled readings `first..next` go without being stored.
    pub fn leave_out(&mut self, first: u64, next: u64) {
        self.blockless.insert(first, next);
    }

    /// What a row of another run than the present one says of its end; an older row that says more is right. `said`: the file has a
    /// record of it, or had.
    pub fn ended(&self, said: bool) -> u8 {
        if said { self.end.map_or(1, End::row) } else { u8::from(self.unfolded) }
    }

    /// Counts as lost what of `first..next` is not settled yet; gives those stretches, for the gap records.
    pub fn lose(&mut self, first: u64, next: u64, cause: GapCause) -> Vec<(u64, u64)> {
        let missing = self.settled.missing(first, next);
        for &(first, next) in &missing {
            self.settled.insert(first, next);
            self.lost.insert(first, next, cause);
            *self.losses.of(cause) += next - first;
        }
        self.lost.forget_places(LOST_MAX, self.floor().min(self.durable));
        // Something may wait at the floor for days.
        self.lost.forget_places(2 * LOST_MAX, self.durable);
        missing
    }

    /// What other books of the same run know, begun while these were not at hand.
    pub fn take(&mut self, others: &Self) {
        self.durable = self.durable.max(others.durable);
        for (first, next) in others.settled.iter() {
            self.settled.insert(first, next);
        }
        self.losses.add(&self.lost.take(&others.lost));
        self.blockless.take(&others.blockless);
        self.end = self.end.or(others.end);
    }

    /// Lets the settled readings `first..next` wait again; gives how many. Where only the number of losses is known, the confirmed ones are taken
    /// to go first: what waits beyond them are losses that wait again.
    fn wait_again(&mut self, first: u64, next: u64) -> u64 {
        let again = self.settled.remove(first, next);
        self.resends += u64::from(again > 0);
        let limit = self.lost.limit();
        let left = self.settled.below(limit).saturating_sub(self.folded.below(limit));
        self.losses.less(&self.lost.keep_forgotten(left));
        again
    }

    /// What is written to disk: nothing beyond `durable`, at most [`EXCEPTIONS_MAX`] intervals above the floor, those
    /// that may hold losses apart.
    #[must_use]
    pub fn for_disk(&self) -> Self {
        let (durable, losses, resends, end) = (self.durable, self.losses, self.resends, self.end);
        let (lost, folded) = (self.lost.clone(), self.folded.clone());
        let mut kept =
            Self { durable, lost, losses, folded, resends, end, unfound: self.unfound, ..Self::default() };
        for (first, next) in self.settled.iter().filter(|(first, _)| *first < self.durable) {
            kept.settled.insert(first, next.min(self.durable));
        }
        for (first, next, _) in self.lost.stretches() {
            kept.settled.insert(first, next);
        }
        kept.blockless = self.blockless.below(durable);
        kept.blockless.settled_below(kept.floor());
        if kept.settled.count() > EXCEPTIONS_MAX {
            forget_shortest(&mut kept.settled, EXCEPTIONS_MAX, durable, (&kept.lost, &kept.blockless));
        }
        kept
    }
}

/// Of the stretches that do not begin at 0, end before `durable`, and can be sent once more, keeps the `keep` longest. Where one reaches
/// `durable`, its end may still be in memory only.
fn forget_shortest(
    settled: &mut Intervals,
    keep: usize,
    durable: u64,
    (lost, blockless): (&Lost, &Blockless),
) {
    settled.forget_shortest(keep, |first, next| {
        next >= durable || lost.may_hold(first, next) || blockless.may_hold(first, next)
    });
}

/// The books of all runs.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By run, oldest first.
    pub runs: BTreeMap<RunId, RunBooks>,
    /// Of runs that are folded away because nothing of them is left.
    pub folded_confirmed: u64,
    /// Their losses.
    pub folded_losses: Losses,
    /// Which: stretches of runs, first and last, whose counters follow each other, see [`holds`]; at most [`FOLDED_MAX`], ascending.
    pub folded: Vec<(RunId, RunId)>,
}

/// The sums that the board shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Durable and not settled.
    pub waiting: u64,
    /// Confirmed.
    pub confirmed: u64,
    /// Lost, by cause.
    pub losses: Losses,
}

/// Whether a stretch of folded runs has this one. Of its first and its last the whole name is known, of those between the counter alone.
pub fn holds(&(first, last): &(RunId, RunId), run: RunId) -> bool {
    run == first || run == last || (first.counter < run.counter && run.counter < last.counter)
}

impl Ledger {
    /// Whether nothing of these readings needs to be sent.
    pub fn settled(&self, run: RunId, first: u64, next: u64) -> bool {
        match self.runs.get(&run) {
            Some(books) => books.settled.covers(first, next),
            None => self.is_folded(run),
        }
    }

    /// Whether a run was folded away. What turns up of it later, as history or in a damaged file, neither waits nor is lost.
    pub fn is_folded(&self, run: RunId) -> bool {
        self.folded.iter().any(|stretch| holds(stretch, run)) && !self.runs.contains_key(&run)
    }

    /// Folds a run of which nothing waits: its sums stay, its books go.
    pub fn fold(&mut self, run: RunId) {
        let Some(books) = self.runs.remove(&run) else { return };
        self.folded_confirmed += books.confirmed();
        self.folded_losses.add(&books.losses);
        if !self.folded.iter().any(|stretch| holds(stretch, run)) {
            let at = self.folded.partition_point(|(first, _)| *first < run);
            self.folded.insert(at, (run, run));
        }
        // A counter that is missing between two stretches may be that of a run nobody here has heard of. And an end of which another run
        // has the counter stays one: inside nobody could tell the two apart.
        let same = |end: RunId| (RunId { random: 0, ..end })..=(RunId { random: u32::MAX, ..end });
        let alone = |end: RunId| !self.runs.range(same(end)).any(|(run, _)| *run != end);
        self.folded.dedup_by(|next, before| {
            let follows = before.1.counter.checked_add(1) == Some(next.0.counter)
                && (before.0 == before.1 || alone(before.1))
                && (next.0 == next.1 || alone(next.0));
            before.1 = if follows { next.1 } else { before.1 };
            follows
        });
        if self.folded.len() > FOLDED_MAX {
            self.folded.remove(0);
        }
    }

    /// Lets the confirmed readings `first..next` of a run wait again; gives how many. A folded run gets its books back: all of
    /// it is settled and counted in the sums, whatever its length was.
    pub fn wait_again(&mut self, run: RunId, first: u64, next: u64) -> u64 {
        if self.is_folded(run) {
            let mut books = RunBooks { durable: UNFOLDED, unfolded: true, ..RunBooks::default() };
            books.settled.insert(0, UNFOLDED);
            books.folded.insert(0, UNFOLDED);
            books.blockless.all_below(UNFOLDED);
            self.runs.insert(run, books);
        }
        let Some(books) = self.runs.get_mut(&run) else { return 0 };
        self.folded_confirmed = self.folded_confirmed.saturating_sub(books.folded.remove(first, next));
        books.wait_again(first, next)
    }

    /// Of what is settled so far the file that is gone had blocks, and the new one may not.
    pub fn lacks_blocks(&mut self) {
        for books in self.runs.values_mut() {
            books.blockless.all_below(books.durable);
        }
    }

    /// Over all runs.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums { waiting: 0, confirmed: self.folded_confirmed, losses: self.folded_losses };
        for books in self.runs.values() {
            sums.waiting += books.waiting();
            sums.confirmed += books.confirmed();
            sums.losses.add(&books.losses);
        }
        sums
    }
}
