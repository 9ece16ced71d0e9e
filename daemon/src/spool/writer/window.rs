//! One commit: what it takes out of memory, the room it needs, the books and gap records it carries, and what is booked
//! when it is on the disk, or put back when it failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Writer;
use super::audit::proved;
use crate::model::event::{Body, Event, GapCause};
use crate::model::{Batch, RunId};
use crate::spool::api::Keep;
use crate::spool::block::Header;
use crate::spool::inner::{Inner, Kept, WINDOW_BYTES, WINDOW_READINGS};
use crate::spool::ledger::End;
use crate::spool::records::Mark;
use crate::spool::ring::{self, Spot};
use crate::spool::schema;
use crate::spool::store::{self, DeadLetter, RunUpdate, Store, StoreError, Victims, Work, Written};

/// Confirmations reach the disk with a commit at most this late.
pub(super) const BOOKS_EVERY: Duration = Duration::from_secs(10);

/// ... and in a young life this late: a gateway that dies every few seconds must not send all of its backlog again each time.
pub(super) const BOOKS_FIRST: Duration = Duration::from_secs(1);

/// With `keep = "unsent"` next to nothing is written; the run still leaves a mark this often.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// The floor moves over this many headings in one statement, and by this many statements in one commit: some milliseconds.
const FLOOR_STEP: usize = 256;
const FLOOR_STEPS: usize = 8;

/// What is written if everything is at its longest, for the room it needs: bytes a reading, a batch, a block.
const ROOM_FOR: (u64, u64, u64) = (18, 48, 256);

/// What one commit takes out of memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    kept: Vec<Kept>,
    batches: Vec<Arc<Batch>>,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) grown: Vec<(i64, Arc<Event>)>,
    /// Rows of records that new ones stand for.
    pub(super) gone: Vec<i64>,
    sent: Vec<(RunId, u64)>,
    runs: Vec<RunUpdate>,
    /// Runs of which nothing is left.
    pub(super) folded: Vec<RunId>,
    mark: Option<Mark>,
    dead: Vec<DeadLetter>,
    /// Runs whose sent records wait again.
    again: Vec<RunId>,
    /// Damaged blocks.
    empty: Vec<Spot>,
    /// The gap record that may still grow after this commit: its place in `events`.
    pub(super) open_gap: Option<usize>,
    /// Confirmations are written too.
    books: bool,
}

impl Writer {
    /// Commits one window. `false`: it failed, and everything is back in memory.
    pub(super) fn commit_window(&mut self, now: Instant, ended: Option<u8>) -> bool {
        if self.store.is_none() {
            return false;
        }
        if let Err(error) = self.move_floor() {
            self.fail(error.trouble(), &error.to_string(), None);
            return false;
        }
        if let Err(error) = self.expire() {
            self.fail(error.trouble(), &error.to_string(), None);
            return false;
        }
        #[cfg(test)]
        let shared = self.shared.clone();
        #[cfg(test)]
        let _committing = shared.committing.lock();
        let grows = self.shared.handed_out.begin(self.open_gap.as_ref().map(|(id, _)| *id));
        let mut window = self.take(now);
        let Some(mut store) = self.store.take() else { return false };
        let next = store.next();
        let mut done = Err(StoreError::NoRoom);
        // The room is estimated before anything is encoded; long texts need more.
        for factor in [1, 4, 16, 64, 256] {
            done = self.make_room(&store, &mut window, (grows, factor), ended).and_then(|()| {
                let floor = window.mark.as_ref().map_or(self.mark.floor, |mark| mark.floor);
                // Nothing that waits again may go, although the disk does not know yet that it waits.
                let floor = floor.min(self.shared.lock().floor);
                self.write(&mut store, &window, floor)
            });
            if !matches!(done, Err(StoreError::NoRoom)) {
                break;
            }
        }
        match done {
            Err(StoreError::Unencodable(error)) => {
                // Intake's rules are checked on append: this is a bug, and would fail for ever.
                tracing::error!(%error, "a window cannot be stored; it is dropped and recorded");
                let kept = std::mem::take(&mut window.kept);
                self.put_back(window);
                self.shared.handed_out.end();
                let mut inner = self.shared.lock();
                for kept in kept {
                    inner.bytes -= kept.bytes;
                    inner.lose(kept.batch.run, kept.batch.seq, kept.batch.end(), GapCause::Overflow);
                }
                self.store = Some(store);
                true
            }
            Ok(written) => {
                let undone = self.undo_from().is_some();
                let found = if undone { store::found(store.connection()).ok() } else { None };
                self.store = Some(store);
                self.proved();
                self.committed(window, &written);
                if let Some(found) = found {
                    // Which records the failed commit had marked as sent, the file knows.
                    self.shared.lock().events_waiting = found.events_waiting;
                }
                self.shared.handed_out.end();
                // Who waited may read at once, and finds every record.
                self.answer_flushes();
                self.bound_log()
            }
            Err(error) => {
                let error = if self.full && matches!(error, StoreError::NoRoom) {
                    StoreError::NoSpace
                } else {
                    error
                };
                // Whether the record has grown is known when the file is open again: until the next commit nobody gets it.
                self.put_back(window);
                store.forsake();
                self.fail(error.trouble(), &error.to_string(), Some(next));
                false
            }
        }
    }

    /// Takes the window out of the shared state.
    fn take(&mut self, now: Instant) -> Window {
        let (dead, again) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.again));
        let empty = std::mem::take(&mut self.emptying);
        let grown = std::mem::take(&mut self.growing);
        let mut window = Window { grown, dead, again, empty, ..Window::default() };
        let mut inner = self.shared.lock();
        let unsent = inner.settings.keep == Keep::Unsent;
        if inner.due(now) || !self.flushes.is_empty() || inner.closed {
            let (mut readings, mut bytes) = (0, 0);
            while let Some(kept) = inner.ring.front() {
                let n = kept.batch.readings.len();
                if readings > 0 && (readings + n > WINDOW_READINGS || bytes + kept.bytes > WINDOW_BYTES) {
                    break;
                }
                readings += n;
                bytes += kept.bytes;
                let Some(kept) = inner.ring.pop_front() else { break };
                inner.readings -= n;
                let (run, first, next) = (kept.batch.run, kept.batch.seq, kept.batch.end());
                if unsent && inner.ledger.settled(run, first, next) {
                    inner.left_out = true;
                } else {
                    window.batches.push(kept.batch.clone());
                }
                window.kept.push(kept);
            }
            inner.in_hand = window.kept.first().map(|kept| kept.at);
        }
        window.events = inner.events.drain(..).collect();
        window
    }

    /// Gives up unconfirmed blocks if the cap demands it, records all losses, and adds the books if they are due.
    fn make_room(
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
        let undone = self.undo_from().map_or(u64::MAX, |(block, _)| block);
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
        for (number, held) in going {
            for (run, first, next) in held {
                inner.lose(run, first, next, GapCause::Evicted);
            }
            inner.floor = inner.floor.max(number + 1);
        }
        let gaps = std::mem::take(&mut inner.gaps);
        let lost = !gaps.is_empty();
        self.gap_records(&mut inner, gaps, window, (grows, stamp));
        self.bound_gaps(many, &mut inner, window, stamp);
        let every = if inner.settings.keep == Keep::Unsent { MARK_EVERY } else { BOOKS_EVERY };
        // A row may be taken only when the disk knows that its readings are settled.
        let unknown = victims.reach > self.mark.floor;
        // A block behind readings that were never written would make them look as if they waited, after a crash.
        let hole = inner.left_out && !window.batches.is_empty();
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

    fn write(&mut self, store: &mut Store, window: &Window, floor: u64) -> Result<Written, StoreError> {
        let nothing = window.batches.is_empty()
            && window.events.is_empty()
            && window.grown.is_empty()
            && window.runs.is_empty()
            && window.dead.is_empty()
            && window.again.is_empty()
            && window.empty.is_empty()
            && window.mark.is_none()
            && !self.expires(store)
            && window.sent.is_empty()
            && self.undo_from().is_none();
        if nothing {
            return Ok(Written::default());
        }
        let work = Work {
            batches: &window.batches,
            apart: false,
            events: &window.events,
            grown: &window.grown,
            gone: &window.gone,
            sent: &window.sent,
            again: &window.again,
            empty: &window.empty,
            runs: &window.runs,
            folded: &window.folded,
            mark: window.mark.as_ref(),
            dead: &window.dead,
            floor,
            expired: self.expired.0,
            undo_from: self.undo_from(),
        };
        let written = store.commit(&work)?;
        self.meter.wrote(window.batches.iter().map(|batch| batch.n()).sum(), written.bytes);
        Ok(written)
    }

    /// Empties a log that readers have let grow too long. `false`: the disk failed, after the commit.
    fn bound_log(&mut self) -> bool {
        match self.store.as_ref().map_or(Ok(()), bound_log) {
            Ok(()) => true,
            Err(error) => {
                self.fail(error.trouble(), &error.to_string(), None);
                false
            }
        }
    }

    /// Books a commit that is on the disk.
    fn committed(&mut self, window: Window, written: &Written) {
        if let Some(mark) = window.mark {
            self.mark = mark;
        }
        for reply in self.letters.drain(..) {
            // Who asked may have given up; the letter is stored all the same.
            let _ = reply.send(Ok(()));
        }
        if !window.dead.is_empty() {
            self.count_letters();
        }
        if let Some(batch) = window.batches.last() {
            self.last_wall_us = Some(batch.stamp.wall_us);
        }
        if let Some(id) = window.open_gap.and_then(|at| written.event_ids.get(at)) {
            self.open_gap =
                window.open_gap.and_then(|at| window.events.get(at)).map(|event| (*id, event.clone()));
        }
        if let Some(newest) = written.event_ids.last() {
            self.shared.newest_event.store(*newest, Ordering::Release);
        }
        if let Some(first) = window.kept.first() {
            self.meter.stored(self.now, self.now.saturating_duration_since(first.at));
        }
        let mut inner = self.shared.lock();
        inner.bytes -= window.kept.iter().map(|kept| kept.bytes).sum::<usize>();
        inner.in_hand = None;
        inner.events_waiting += written.event_ids.len() as u64 + written.again;
        self.resent_records += written.again;
        inner.events_waiting = inner.events_waiting.saturating_sub(written.sent + written.dropped);
        for name in &window.sent {
            inner.sent.remove(name);
        }
        let gaps = |event: &&Arc<Event>| matches!(event.body, Body::Gap { .. } | Body::Gaps { .. });
        self.gaps_waiting += window.events.iter().filter(gaps).count();
        self.gaps_waiting = self.gaps_waiting.saturating_sub(window.gone.len());
        for run in &window.folded {
            inner.ledger.fold(*run);
        }
        let end = window.kept.last().map(|kept| kept.batch.end());
        let run = inner.run;
        let books = inner.ledger.runs.entry(run).or_default();
        if let Some(update) = window.runs.iter().find(|update| update.run == run) {
            books.end = End::of_row(update.ended.into(), update.last_wall_us).or(books.end);
        }
        let before = books.settled.below(books.durable);
        books.durable = books.settled_on(books.durable.max(end.unwrap_or_default()));
        let next_seq = books.durable;
        // What was confirmed before it was stored was no business of the disk until now.
        if books.settled.below(next_seq) > before {
            inner.dirty.insert(run);
        }
        let (waiting, records) = inner.waiting();
        drop(inner);
        self.shared.committed.send_modify(|committed| {
            committed.commits += 1;
            (committed.next_seq, committed.waiting, committed.records) = (next_seq, waiting, records);
        });
    }

    /// A commit failed: its window goes back to the front of the memory ring.
    fn put_back(&mut self, window: Window) {
        let mut inner = self.shared.lock();
        for kept in window.kept.into_iter().rev() {
            inner.readings += kept.batch.readings.len();
            inner.ring.push_front(kept);
        }
        inner.in_hand = None;
        for event in window.events.into_iter().rev() {
            inner.events.push_front(event);
        }
        // Whether the row has grown nobody knows; grown once more it is the same. As a record of its own it would tell the loss twice.
        if window.grown.is_empty() {
            self.open_gap = None;
        }
        self.growing = window.grown;
        inner.dirty.extend(window.runs.iter().map(|update| update.run));
        inner.left_out |= window.books;
        if window.books {
            self.books_due = self.now;
        }
        self.dead = window.dead;
        self.again = window.again;
        self.emptying = window.empty;
        inner.bound();
    }

    /// Moves the floor over settled blocks.
    fn move_floor(&mut self) -> Result<(), StoreError> {
        if self.undo_from().is_some() {
            // Blocks that go first leave their numbers to those that come in their place, and these wait.
            return Ok(());
        }
        let Some(store) = &self.store else { return Ok(()) };
        let Some(extent) = store.ring() else { return Ok(()) };
        let (mut floor, waiting) = {
            let inner = self.shared.lock();
            (inner.floor, inner.ledger.sums().waiting)
        };
        // What a rescue that was cut off has stored may wait, and have no books yet.
        if waiting == 0 && self.rescue.is_none() {
            self.shared.lock().floor = extent.newest.number + 1;
            return Ok(());
        }
        if floor > extent.newest.number {
            return Ok(());
        }
        let mut stopped = false;
        for _ in 0..FLOOR_STEPS {
            if stopped {
                break;
            }
            let Some(spot) = ring::locate(store.connection(), floor)? else { break };
            let headings = ring::headings(store.connection(), spot, FLOOR_STEP)?;
            let inner = self.shared.lock();
            let waits = |header: Header| !inner.ledger.settled(header.run, header.first, header.next);
            for heading in headings {
                stopped = heading.header.is_some_and(waits);
                if stopped {
                    break;
                }
                floor = heading.spot.number + 1;
            }
        }
        let mut inner = self.shared.lock();
        inner.floor = inner.floor.max(floor);
        Ok(())
    }
}

/// Empties a log that readers have let grow too long; they are cut after 100 ms, so this waits no longer.
pub(super) fn bound_log(store: &Store) -> Result<(), StoreError> {
    if store.log_bytes() < schema::LOG_BYTES_FORCED {
        return Ok(());
    }
    // `false`: a reader was in the way all the same. The next commit tries again.
    store.empty_log().map(drop)
}
