//! Folding: a run of which nothing is left goes out of the books, and only its sums stay, so that starts do not add up for ever.
//!
//! Nothing is left of a run when it has ended, all its readings are settled, and its run end and its gaps were sent. Blocks
//! of it may stay in the ring as history: the ledger remembers which runs were folded, and counts them as settled.
//!
//! So there is at most one row for each run of which readings or records wait, one for the present run, and those of
//! the last minute.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Writer;
use super::window::Window;
use crate::model::RunId;
use crate::spool::inner::Inner;
use crate::spool::ledger::RunBooks;
use crate::spool::store::{Store, StoreError, told_of};

/// Old runs are looked at this often.
const FOLD_EVERY: Duration = Duration::from_secs(60);

impl Writer {
    /// The runs of which records wait, if it is time to fold and there is something to fold: a look at all records on the disk.
    pub(super) fn told(&self, store: &Store, books: bool) -> Result<Option<BTreeSet<RunId>>, StoreError> {
        let due = books && self.now >= self.fold_due && self.rescue.is_none();
        if !due || done(&self.shared.lock()).next().is_none() {
            return Ok(None);
        }
        told_of(store.connection()).map(Some)
    }

    /// Chooses the runs that this commit folds; `told`: of these a record waits on the disk.
    pub(super) fn fold(&mut self, told: Option<BTreeSet<RunId>>, inner: &Inner, window: &mut Window) {
        window.folded.clear();
        let Some(mut told) = told else { return };
        self.fold_due = self.now + FOLD_EVERY;
        told.extend(window.events.iter().chain(&inner.events).filter_map(|event| event.body.about()));
        window.folded = done(inner).filter(|run| !told.contains(run)).collect();
    }
}

/// Runs that are over, with nothing of them waiting.
fn done(inner: &Inner) -> impl Iterator<Item = RunId> {
    let over = |(run, books): &(&RunId, &RunBooks)| **run != inner.run && books.waiting() == 0;
    inner.ledger.runs.iter().filter(over).map(|(run, _)| *run)
}
