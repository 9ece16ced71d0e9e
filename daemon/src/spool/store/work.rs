//! What one commit is told to write, and what it answers.

use std::sync::Arc;

use crate::model::event::Event;
use crate::model::{Batch, RunId};
use crate::spool::block::Header;
use crate::spool::ledger::RunBooks;
use crate::spool::records::Mark;
use crate::spool::ring::Spot;

/// A change of a run's row.
#[derive(Clone, Debug)]
pub struct RunUpdate {
    /// Which.
    pub run: RunId,
    /// 0 runs, 1 ended without warning, 2 ended in order.
    pub ended: u8,
    /// Wall clock of its last durable batch, if known.
    pub last_wall_us: Option<i64>,
    /// Its books, as they go to disk.
    pub books: RunBooks,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// When, µs.
    pub at_us: i64,
    /// Why, in the broker's words.
    pub reason: String,
    /// Its name: run, first seq, n. A record has n 0 and its number for seq.
    pub name: (RunId, u64, u64),
    /// The batch, if it was still there.
    pub batch: Option<Arc<Batch>>,
}

impl DeadLetter {
    /// What it takes in the file, at most.
    pub fn bytes_at_most(&self) -> u64 {
        let values = |batch: &Arc<Batch>| batch.readings.text_bytes() as u64 + batch.n() * 18;
        self.batch.as_ref().map_or(0, values) * 5 / 4 + self.reason.len() as u64 + 256
    }
}

/// What one commit writes.
#[derive(Debug, Default)]
pub struct Work<'a> {
    /// Batches, ascending within each run.
    pub batches: &'a [Arc<Batch>],
    /// What lies between them waits elsewhere, or may: a block ends where the next batch does not follow. Else it is settled, and
    /// never waits again, because it was never written.
    pub apart: bool,
    /// New records.
    pub events: &'a [Arc<Event>],
    /// Records in place of a row's text: a gap that grew.
    pub grown: &'a [(i64, Arc<Event>)],
    /// Rows of waiting records that new ones stand for.
    pub gone: &'a [i64],
    /// Records that were sent, by run and number.
    pub sent: &'a [(RunId, u64)],
    /// Sent records about these runs wait again, see [`again`](super::again).
    pub again: &'a [RunId],
    /// Damaged blocks are made empty, so that nobody believes what they say of themselves. Their numbers stay.
    pub empty: &'a [Spot],
    /// Rows of runs.
    pub runs: &'a [RunUpdate],
    /// Runs of which nothing is left.
    pub folded: &'a [RunId],
    /// The spool's own row.
    pub mark: Option<&'a Mark>,
    /// Dead letters.
    pub dead: &'a [DeadLetter],
    /// Those of another file, newest first: older than all that are here.
    pub dead_before: &'a [DeadLetter],
    /// Blocks with a smaller number may be overwritten.
    pub floor: u64,
    /// Blocks with a smaller number that may be overwritten go, a few at once; the newest block stays.
    pub expired: u64,
    /// Blocks and record rows from these numbers on are of a commit that failed, or seemed to: take them out first.
    pub undo_from: Option<(u64, i64)>,
}

/// What a commit did.
#[derive(Debug, Default)]
pub struct Written {
    /// The new blocks.
    pub blocks: Vec<(Spot, Header)>,
    /// Bytes of the new blocks.
    pub bytes: u64,
    /// Row ids of the new records, in order.
    pub event_ids: Vec<i64>,
    /// Records that were taken for sent now and were not before.
    pub sent: u64,
    /// Old records that prove nothing and were given up unsent.
    pub dropped: u64,
    /// Records that had been sent and wait again.
    pub again: u64,
    /// Dead letters that had to go.
    pub letters_gone: u64,
}

impl Written {
    /// How many records on disk wait after this commit, of so many before it.
    pub fn records_waiting(&self, before: u64) -> u64 {
        let more = before + self.event_ids.len() as u64 + self.again;
        more.saturating_sub(self.sent + self.dropped)
    }
}
