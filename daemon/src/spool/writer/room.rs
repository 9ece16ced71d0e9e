//! What a commit needs and carries besides readings: room, for which the oldest blocks go, with a record of each loss; the books of
//! the runs; and the spool's own row.

use std::time::Duration;

use super::Writer;
use super::audit::proved;
use super::window::Window;
use crate::spool::api::Keep;
use crate::spool::inner::Inner;
use crate::spool::store::{RunUpdate, Store, StoreError, Victims};

/// Confirmations reach the disk with a commit at most this late.
pub(super) const BOOKS_EVERY: Duration = Duration::from_secs(10);

/// ... and in a young life this late: a gateway that dies every few seconds must not send all of its backlog again each time.
pub(super) const BOOKS_FIRST: Duration = Duration::from_secs(1);

/// With `keep = "unsent"` next to nothing is written; the run still leaves a mark this often.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// What is written if everything is at its longest, for the room it needs: bytes a reading, a batch, a block.
const ROOM_FOR: (u64, u64, u64) = (18, 48, 256);

impl Writer {
    /// Gives up unconfirmed blocks if the cap demands it, records all losses, and adds the books if they are due.
    pub(super) fn make_room(
        &mut self,
        store: &Store,
        window: &mut Window,
        (grows, factor): (bool, u64),
        ended: Option<u8>,
    ) -> Result<(), StoreError> {
        let readings: u64 = window.batches.iter().map(|batch| batch.n()).sum();
        let (reading, batch, block) = ROOM_FOR;
        let bytes =
            if readings == 0 { 0 } else { readings * reading + window.batches.len() as u64 * batch + block };
        // Texts are stored as they are. Estimated too small, room is made in bigger and bigger steps, over more than need be.
        let texts: usize = window.batches.iter().map(|batch| batch.readings.text_bytes()).sum();
        let bytes = (bytes + texts as u64) * factor;
        let now = self.now;
        let now_due = now >= self.books_due || ended.is_some();
        let floor = self.shared.lock().floor;
        let mut victims = if bytes == 0 { Victims::default() } else { store.victims(bytes, floor)? };
        // What a failed commit has left is taken out first, and comes again: nothing is given up with it.
        let undone = self.undone();
        victims.unsettled.retain(|heading| heading.spot.number < undone);
        if self.full && !victims.unsettled.is_empty() {
            // A full disk is not the spool's cap: the new readings wait in memory, the stored ones stay.
            return Err(StoreError::NoSpace);
        }
        // What takes the disk's time, or anybody's, comes before the lock.
        let (going, unread) = proved(store, &victims.unsettled)?;
        self.unread |= unread;
        let told = self.told(store, now_due)?;
        let losing = !going.is_empty() || !self.shared.lock().gaps.is_empty();
        let many = if losing { self.many_gaps(store, window)? } else { Vec::new() };
        let stamp = (self.shared.now)();
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        self.give_up(&mut inner, going, ended.is_some())?;
        let gaps = inner.gaps.take();
        let lost = !gaps.is_empty();
        self.gap_records(&mut inner, gaps, window, (grows, stamp));
        self.bound_gaps(many, &mut inner, window, stamp);
        let every = if inner.settings.keep == Keep::Unsent { MARK_EVERY } else { BOOKS_EVERY };
        // A row may be taken only when the disk knows that its readings are settled.
        let unknown = victims.reach > self.mark.floor;
        // A block behind readings that were never written would make them look as if they waited, after a crash.
        let hole = (inner.left_out || inner.has_break(&window.kept)) && !window.batches.is_empty();
        let undoes = self.undo_from().is_some();
        if now_due || lost || unknown || hole || undoes || window.books || !window.dead.is_empty() {
            self.books(&mut inner, window, ended);
            self.fold(told, &inner, window);
            self.mark(store, &inner, window);
            self.books_due = now + every;
        }
        Ok(())
    }

    fn books(&mut self, inner: &mut Inner, window: &mut Window, ended: Option<u8>) {
        // The rows tell the state after this commit.
        window.books = true;
        inner.left_out = false;
        // Room is made anew: what the attempt before took is still to be written.
        inner.dirty.extend(window.runs.drain(..).map(|update| update.run));
        window.sent = inner.sent.iter().copied().collect();
        let own = inner.run;
        let end = window.kept.last().map(|kept| kept.batch.end());
        inner.dirty.insert(own);
        for run in std::mem::take(&mut inner.dirty) {
            let Some(books) = inner.ledger.runs.get(&run) else { continue };
            let mut books = books.clone();
            // The end of what a rescue found is said when all of it is found; all others have one.
            let ended_before = books.ended(self.rescue.is_none());
            let last_wall_us = books.end.and_then(|end| end.last_wall_us);
            let mut update = RunUpdate { run, ended: ended_before, last_wall_us, books: books.for_disk() };
            if run == own {
                books.durable = books.durable.max(end.unwrap_or_default());
                let last = window.batches.last().map(|batch| batch.stamp.wall_us);
                update = RunUpdate {
                    run,
                    // Said is said, also by a commit that came after the one that failed to.
                    ended: if self.run_ended { 2 } else { ended.unwrap_or_default() },
                    last_wall_us: last.or(self.last_wall_us),
                    books: books.for_disk(),
                };
            }
            window.runs.push(update);
        }
    }

    /// The spool's own row as it is after this commit.
    fn mark(&self, store: &Store, inner: &Inner, window: &mut Window) {
        let mut mark = self.mark.clone();
        mark.floor = inner.floor;
        self.note_age(store, inner, &mut mark);
        if window.folded.is_empty() {
            mark.take_folded(&inner.ledger);
        } else {
            let mut ledger = inner.ledger.clone();
            window.folded.iter().for_each(|run| ledger.fold(*run));
            mark.take_folded(&ledger);
        }
        if mark != self.mark {
            window.mark = Some(mark);
        }
    }
}
