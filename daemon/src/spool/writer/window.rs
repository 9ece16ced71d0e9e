//! One commit: what it takes out of memory, what it writes, and what is booked when it is on the disk, or put back when it failed.
//! The room that it needs, and the books that it carries, are in `room`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Writer;
use super::floor::bound_log;
use crate::model::event::{Body, Event, GapCause};
use crate::model::{Batch, RunId};
use crate::spool::api::Keep;
use crate::spool::gaps::Gap;
use crate::spool::inner::{Kept, WINDOW_BYTES, WINDOW_READINGS};
use crate::spool::ledger::End;
use crate::spool::records::Mark;
use crate::spool::ring::{self, Spot};
use crate::spool::store::{self, DeadLetter, RunUpdate, Store, StoreError, Work, Written};

/// A commit takes at most this share of what the file may get.
const WINDOW_SHARE: u64 = 8;

/// Bytes of letters. Few, also while nobody knows yet that the disk is full: they have to fit into the log, and into what is free in a file in which
/// all else waits.
const LETTERS_BYTES: u64 = 32 * 1024;

/// ... and those that have to go together keep so much of their content on a full disk.
const CONTENT_BYTES: u64 = 192 * 1024;

/// On a full disk, bytes of readings in memory, and records.
const BYTES_ON_A_FULL_DISK: usize = 128 * 1024;
const RECORDS_ON_A_FULL_DISK: usize = 64;

/// What one commit takes out of memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) kept: Vec<Kept>,
    pub(super) batches: Vec<Arc<Batch>>,
    pub(super) events: Vec<Arc<Event>>,
    /// So many of them came out of memory. The others are made by this commit: of losses, and of many records few.
    pub(super) came: usize,
    /// The losses of which it makes records of their own.
    pub(super) gaps: Vec<Gap>,
    pub(super) grown: Vec<(i64, Arc<Event>)>,
    /// Rows of records that new ones stand for.
    pub(super) gone: Vec<i64>,
    pub(super) sent: Vec<(RunId, u64)>,
    pub(super) runs: Vec<RunUpdate>,
    /// Runs of which nothing is left.
    pub(super) folded: Vec<RunId>,
    pub(super) mark: Option<Mark>,
    pub(super) dead: Vec<DeadLetter>,
    /// Runs whose sent records wait again.
    pub(super) again: Vec<RunId>,
    /// Damaged blocks.
    pub(super) empty: Vec<Spot>,
    /// The gap record that may still grow after this commit: its place in `events`.
    pub(super) open_gap: Option<usize>,
    /// Confirmations are written too.
    pub(super) books: bool,
}

impl Writer {
    /// Commits one window. `false`: it failed, and everything is back in memory.
    pub(super) fn commit_window(&mut self, now: Instant, ended: Option<u8>) -> bool {
        if self.store.is_none() {
            return false;
        }
        // Before the floor moves: over what they were, too.
        self.book_letters();
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
                self.drop_window(window);
                self.store = Some(store);
                true
            }
            Ok(written) => {
                let undone = self.undo_from().is_some();
                let found = if undone { store::found(store.connection()).ok() } else { None };
                self.store = Some(store);
                self.proved();
                self.committed(window, &written);
                self.regain_patience();
                if let Some(found) = found {
                    // Which records the failed commit had marked as sent, the file knows.
                    self.shared.lock().events_waiting = found.events_waiting;
                }
                self.shared.handed_out.end();
                // Who waited may read at once, and finds every record.
                self.answer_flushes();
                self.bound_log()
            }
            Err(StoreError::OnTheWire) => {
                self.put_off(window, store);
                false
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
                // What found no room was taken back before it was on the disk.
                let undo_from = (!matches!(error, StoreError::NoSpace | StoreError::NoRoom)).then_some(next);
                self.fail(error.trouble(), &error.to_string(), undo_from);
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
        // The end of the run, and what a rescue has found out, go with the books that tell them.
        let bounded = self.full && !self.run_ended && !self.outcome;
        let records = if bounded { RECORDS_ON_A_FULL_DISK } else { usize::MAX };
        let mut inner = self.shared.lock();
        let unsent = inner.settings.keep == Keep::Unsent;
        // Of long texts a window is one block nearly as long, and in a small spool others must fit beside it.
        let length = self.store.as_ref().map_or(self.bytes_max, Store::bytes_max);
        let most = if self.full { BYTES_ON_A_FULL_DISK } else { WINDOW_BYTES };
        let most = most.min(usize::try_from(length / WINDOW_SHARE).unwrap_or(usize::MAX));
        // Letters make room on a full disk: readings that find none must not hold them up.
        let letters_only = self.full && !window.dead.is_empty();
        if !letters_only && (inner.due(now) || !self.flushes.is_empty() || inner.closed) {
            let (mut readings, mut bytes) = (0, 0);
            while let Some(kept) = inner.ring.front() {
                let n = kept.batch.readings.len();
                if readings > 0 && (readings + n > WINDOW_READINGS || bytes + kept.bytes > most) {
                    break;
                }
                readings += n;
                bytes += kept.bytes;
                let Some(kept) = inner.ring.pop_front() else { break };
                inner.readings -= n;
                let (run, first, next) = (kept.batch.run, kept.batch.seq, kept.batch.end());
                if !unsent || !inner.leave_out(run, first, next) {
                    window.batches.push(kept.batch.clone());
                }
                window.kept.push(kept);
            }
            inner.in_hand = window.kept.first().map(|kept| kept.at);
        }
        let records = records.min(inner.events.len());
        window.events = inner.events.drain(..records).collect();
        window.came = window.events.len();
        window
    }

    /// Books what becomes dead letters with this commit, the oldest first: as many as fit, and at least one. Not before, so that the books
    /// never tell of a letter that is not there. What may keep the floor from moving goes in any case: batches older than what a
    /// failed commit has left, and on a full disk all of the block at the floor, what the log may not take of them without its content.
    fn book_letters(&mut self) {
        let mut bytes: u64 = self.dead.iter().map(DeadLetter::bytes_at_most).sum();
        let left = self.dead.iter().map(|letter| letter.name).filter(|(_, _, n)| *n > 0).min();
        let block = if self.dying.is_empty() { None } else { self.block_at_the_floor() };
        let in_block =
            |(run, seq, n): (RunId, u64, u64)| n > 0 && block.is_some_and(|(of, end)| run == of && seq < end);
        // A rescue may have brought older ones behind that block, and records keep nobody from making room.
        let order = |letter: &DeadLetter| (!in_block(letter.name), letter.name.2 == 0, letter.name);
        self.dying.make_contiguous().sort_by_key(order);
        while let Some(next) = self.dying.front() {
            bytes += next.bytes_at_most();
            let older = next.name.2 > 0 && left.is_some_and(|left| next.name < left);
            if !self.dead.is_empty() && !older && !in_block(next.name) && bytes > LETTERS_BYTES {
                break;
            }
            let Some(mut letter) = self.dying.pop_front() else { break };
            if self.full && !self.dead.is_empty() && bytes > CONTENT_BYTES {
                letter.batch = None;
            }
            self.shared.lock().die(letter.name);
            self.dead.push(letter);
        }
    }

    /// On a full disk: the run of the block at the floor, and where it ends.
    fn block_at_the_floor(&self) -> Option<(RunId, u64)> {
        let store = self.store.as_ref().filter(|_| self.full)?;
        let floor = self.shared.lock().floor;
        let spot = ring::locate(store.connection(), floor).ok()??;
        let header = ring::headings(store.connection(), spot, 1).ok()?.first()?.header?;
        Some((header.run, header.next))
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
            dead_before: &[],
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
        self.outcome = false;
        if self.dying.is_empty() {
            for reply in self.letters.drain(..) {
                // Who asked may have given up; the letter is stored all the same.
                let _ = reply.send(Ok(()));
            }
        }
        if !window.dead.is_empty() || written.letters_gone > 0 {
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
        if let Some((newest, _)) = written.blocks.last() {
            self.shared.newest_block.store(newest.number, Ordering::Release);
        }
        if let Some(first) = window.kept.first() {
            self.meter.stored(self.now, self.now.saturating_duration_since(first.at));
        }
        let mut inner = self.shared.lock();
        inner.bytes -= window.kept.iter().map(|kept| kept.bytes).sum::<usize>();
        (inner.in_hand, inner.passed) = (None, false);
        inner.recorded();
        inner.events_waiting = written.records_waiting(inner.events_waiting);
        self.resent_records += written.again;
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
        inner.taken_to = inner.taken_to.max(end.unwrap_or_default());
        let (waiting, records) = inner.waiting();
        drop(inner);
        self.shared.committed.send_modify(|committed| {
            committed.commits += 1;
            (committed.next_seq, committed.waiting, committed.records) = (next_seq, waiting, records);
        });
    }

    /// Nothing of a window can be stored, ever.
    fn drop_window(&mut self, mut window: Window) {
        let kept = std::mem::take(&mut window.kept);
        // The letters go with the next commit, but for their content.
        window.dead.iter_mut().for_each(|letter| letter.batch = None);
        self.put_back(window);
        self.end_without_commit();
        let mut inner = self.shared.lock();
        for kept in kept {
            inner.bytes -= kept.bytes;
            inner.lose(kept.batch.run, kept.batch.seq, kept.batch.end(), GapCause::Overflow);
        }
    }

    /// A commit failed: its window goes back to the front of the memory ring.
    pub(super) fn put_back(&mut self, window: Window) {
        let mut inner = self.shared.lock();
        inner.confirmed += window.kept.len();
        for kept in window.kept.into_iter().rev() {
            inner.readings += kept.batch.readings.len();
            inner.ring.push_front(kept);
        }
        inner.in_hand = None;
        // What this commit has made of losses and of records is made anew: a disk that fails for days would pile it up, and tell records
        // twice that are still there.
        for event in window.events.into_iter().take(window.came).rev() {
            inner.events.push_front(event);
        }
        inner.gaps.put_back(window.gaps);
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
        let passed = std::mem::take(&mut inner.passed);
        drop(inner);
        if passed {
            self.shared.committed.send_modify(|committed| committed.resends += 1);
        }
    }
}
