//! Taking back: reads a spool file that an older program had set aside, in order, now that this program knows its schema.
//!
//! The file was made by a newer program (an update), and set aside untouched when the update was rolled back. Opened now, it is
//! migrated if that is needed, like any other. What waits in it is read in bounded steps, and then its dead letters; what was confirmed
//! in it is not, but for records of the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::api::{Cursor, Item};
use super::enter;
use super::ledger::{Intervals, Ledger, RunBooks};
use super::records::Mark;
use super::schema::Schema;
use super::source::Source;
use super::store::{self, DeadLetter, Store, StoreError};
use crate::model::event::Event;
use crate::model::{Batch, RunId};

/// A whole spool file, being read.
#[derive(Debug)]
pub(super) struct TakenBack {
    source: Source,
    ledger: Ledger,
    at: Cursor,
    /// Its own row.
    pub(super) mark: Mark,
    /// Books of its runs.
    pub(super) books: BTreeMap<RunId, RunBooks>,
    /// Runs of which it holds, or has sent, an end record.
    pub(super) ended: BTreeSet<RunId>,
    /// Records that were read and not yet taken.
    pub(super) records: Vec<(Event, bool)>,
    /// Dead letters that were read and not yet taken, newest first.
    pub(super) letters: Vec<DeadLetter>,
    letters_before: i64,
    /// Blocks that could not be read.
    pub(super) damaged: u64,
    covered: BTreeMap<RunId, Intervals>,
}

impl TakenBack {
    /// Opens the file, and migrates it if need be.
    pub(super) fn open(file: &Path, schema: &Schema) -> Result<Self, StoreError> {
        let (store, found) = Store::open_as(file, u64::MAX, "", schema)?;
        let mut ledger = found.mark.ledger();
        let mut ended = BTreeSet::new();
        for mut row in found.runs {
            if row.ended {
                ended.insert(row.run);
            } else {
                let (next, _) = enter::last_of(store.connection(), (row.run, row.books.durable))?;
                row.books.durable = row.books.settled_on(next);
            }
            ledger.runs.insert(row.run, row.books);
        }
        Ok(Self {
            source: Source::open(file)?,
            books: ledger.runs.clone(),
            ledger,
            mark: found.mark,
            at: Cursor::START,
            ended,
            // What was sent is not needed any more, but for this.
            records: store::sent_clocks(store.connection())?.into_iter().map(|event| (event, true)).collect(),
            letters: Vec::new(),
            letters_before: i64::MAX,
            damaged: 0,
            covered: BTreeMap::new(),
        })
    }

    /// Reads on. `None`: that was all.
    pub(super) fn step(&mut self) -> Result<Option<Vec<Batch>>, StoreError> {
        let records = self.source.records(self.at.event)?;
        if let Some((newest, _)) = records.last() {
            self.at.event = *newest;
            self.records.extend(records.into_iter().map(|(_, event)| (event, false)));
            return Ok(Some(Vec::new()));
        }
        let ledger = &self.ledger;
        let settled = |run, first, next| ledger.settled(run, first, next);
        let (items, at) = self.source.waiting(self.at, (self.mark.floor, u64::MAX), &settled)?;
        self.at.block = at;
        self.damaged += self.source.damaged.drain(..).count() as u64;
        let batch = |item| match item {
            Item::Batch(batch) => Some(Batch::clone(&batch)),
            Item::Event(_) => None,
        };
        let ended = items.is_empty();
        let batches: Vec<_> = items.into_iter().filter_map(batch).collect();
        for batch in &batches {
            self.covered.entry(batch.run).or_default().insert(batch.seq, batch.end());
        }
        if ended {
            // Last: readings that wait come first.
            let (letters, before) = store::dead_letters(self.source.connection(), self.letters_before)?;
            (self.letters, self.letters_before) = (letters, before);
            return Ok((!self.letters.is_empty()).then(Vec::new));
        }
        Ok(Some(batches))
    }

    /// Books of its runs.
    pub(super) fn runs(&self) -> &BTreeMap<RunId, RunBooks> {
        &self.ledger.runs
    }

    /// Readings that wait by the books and did not turn up. SQLite does not notice blocks that no page points to any more, and heads are
    /// believed without a checksum.
    pub(super) fn missing(&self) -> u64 {
        let none = Intervals::default();
        let missing = |(run, books): (&RunId, &RunBooks)| {
            let covered = self.covered.get(run).unwrap_or(&none);
            let waiting = books.settled.missing(0, books.durable).into_iter();
            let missing = waiting.flat_map(|(first, next)| covered.missing(first, next));
            missing.map(|(first, next)| next - first).sum::<u64>()
        };
        self.ledger.runs.iter().map(missing).sum()
    }
}
