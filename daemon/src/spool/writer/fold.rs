//! Folding: a run of which nothing is left goes out of the books, and only its sums stay, so that starts do not add up for ever.
//!
//! Nothing is left of a run when it has ended, all its readings are settled, and its run end and its gaps were sent. Blocks
//! of it may stay in the ring as history: the ledger remembers which runs were folded, and counts them as settled.
//!
//! So there is at most one row for each run of which readings or records wait, one for the present run, and those of
//! the last minute.

use std::time::Duration;

use super::Writer;
use super::window::Window;
use crate::model::RunId;
use crate::spool::ledger::RunBooks;
use crate::spool::shared::Inner;
use crate::spool::store::{Store, StoreError, told_of};

/// Old runs are looked at this often.
const FOLD_EVERY: Duration = Duration::from_secs(60);

impl Writer {
    /// Chooses the runs that this commit folds.
    pub(super) fn fold(
        &mut self,
        store: &Store,
        inner: &Inner,
        window: &mut Window,
    ) -> Result<(), StoreError> {
        window.folded.clear();
        if self.now < self.fold_due || self.rescue.is_some() {
            return Ok(());
        }
        let done = |(run, books): &(&RunId, &RunBooks)| **run != inner.run && books.waiting() == 0;
        window.folded = inner.ledger.runs.iter().filter(done).map(|(run, _)| *run).collect();
        if window.folded.is_empty() {
            return Ok(());
        }
        self.fold_due = self.now + FOLD_EVERY;
        let mut told = told_of(store.connection())?;
        told.extend(window.events.iter().filter_map(|event| event.body.about()));
        window.folded.retain(|run| !told.contains(run));
        Ok(())
    }
}
