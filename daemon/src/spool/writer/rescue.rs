//! The rescue, as the writer takes its turns in it: a piece each turn, beside sampling, and only into room that is free.
//!
//! What was set aside lies safe where it is. So it waits while nothing can be stored, and while it could be stored only in the place
//! of something that waits to be sent, or of what comes next. Its records need next to no room and do not wait; dead letters do. On a full disk it
//! goes on, in small pieces, into the rows of what was confirmed: what was set aside may be what the disk is full of.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Writer;
use super::floor::bound_log;
use crate::model::Batch;
use crate::spool::inner::WINDOW_READINGS;
use crate::spool::rescue::{self, Memory, Piece, Present, Rescue, Searched};
use crate::spool::store::{self, Store, StoreError, Trouble, Work};
use crate::spool::{directory, schema};

/// Pages looked at in a turn, at most, and the share of the cap that they are in a small spool.
const PAGES_A_TURN: u64 = 1024;
const SHARE_A_TURN: u64 = 64;

/// Readings stored at once on a full disk: the log has to find its room in what is its own.
const READINGS_ON_A_FULL_DISK: u64 = WINDOW_READINGS as u64 / 8;

/// A full disk that did not take even these is asked again after this.
const FULL_AGAIN: Duration = Duration::from_secs(30);

impl Writer {
    /// Searches what was set aside and not searched to its end; `found`: what was wrong with the newest.
    pub(in crate::spool) fn begin_rescue(&mut self, found: Option<String>) {
        // One that runs begins anew, with its reason; what was not marked yet is searched once more.
        self.searched.clear();
        let found = self.rescue.take().and_then(Rescue::reason).or(found);
        let known = self.shared.schema;
        let memory = Memory::of(&self.shared.lock());
        self.rescue = Rescue::begin(self.directory(), found, known, memory);
        if self.rescue.is_some() {
            self.damaged_us = (self.shared.now)().wall_us;
            self.auditing = None;
            self.shared.lock().ledger.lacks_blocks();
        }
    }

    /// One piece of the rescue.
    pub(super) fn rescue(&mut self) {
        // It waits while something has to be taken out first: that is everything from a number on.
        if self.store.is_none() || self.now < self.rescue_due || self.undo_from().is_some() {
            return;
        }
        let Some(mut rescue) = self.rescue.take() else { return };
        match self.rescue_on(&mut rescue) {
            Ok(true) => {
                self.searched = rescue.finish(&mut self.shared.lock(), (self.shared.now)());
                (self.outcome, self.books_due) = (true, self.now);
            }
            Ok(false) => self.rescue = Some(rescue),
            Err((error, undo_from)) => {
                self.rescue = Some(rescue);
                self.fail(error.trouble(), &error.to_string(), undo_from);
                if self.full {
                    // What comes from the plant may still find room: it must not be held up by this again and again.
                    self.rescue_due = self.now + FULL_AGAIN;
                }
            }
        }
    }

    /// The outcome of a search is on the disk. What was searched needs no second search, and is no longer the only copy.
    pub(super) fn mark_searched(&mut self) {
        let searched: Vec<Searched> = std::mem::take(&mut self.searched);
        if searched.is_empty() {
            return;
        }
        rescue::mark(searched);
        if self.full {
            directory::give_searched(self.directory(), directory::is_full);
        }
        let given_up = directory::bound_quarantines(self.directory());
        self.shared.lock().give_up(given_up, (self.shared.now)());
    }

    /// Whether there is something to search that need not wait: for the disk to read, for room, or on a full disk for its time.
    pub(super) fn searches(&self) -> bool {
        let waits = |rescue: &Rescue| rescue.rests() || rescue.waits_for_room() || self.now < self.rescue_due;
        self.rescue.as_ref().is_some_and(|rescue| !waits(rescue))
    }

    /// `true`: everything was looked at, and what was found is stored. An error of a commit comes with what it may have left.
    fn rescue_on(&mut self, rescue: &mut Rescue) -> Result<bool, (StoreError, Option<(u64, i64)>)> {
        let read = |error: StoreError| (error, None);
        if !rescue.knows_present() {
            // A walk that fails has said so.
            let Some(readings) = self.walk() else { return Ok(false) };
            let Some(store) = &self.store else { return Ok(false) };
            let rows = store::found(store.connection()).map_err(read)?.runs;
            let records = store::records(store.connection()).map_err(read)?;
            rescue.know_present(Present { readings, rows, records }, &mut self.shared.lock());
        }
        if rescue.wait_for_the_disk(self.now) {
            return Ok(false);
        }
        let piece = if let Some(piece) = rescue.take_unstored() {
            piece
        } else if let Some(found) = rescue.search(self.pages_a_turn()) {
            rescue.take_back(found, &mut self.shared.lock())
        } else if let Some(store) = &self.store {
            // What was given up meanwhile has been said.
            let records = store::records(store.connection()).map_err(read)?;
            rescue.hear(&records);
            return Ok(true);
        } else {
            return Ok(false);
        };
        self.store_piece(rescue, piece)?;
        Ok(false)
    }

    fn pages_a_turn(&self) -> u32 {
        let share = self.bytes_max / schema::PAGE_SIZE / SHARE_A_TURN;
        u32::try_from(share.clamp(1, PAGES_A_TURN)).unwrap_or(1)
    }

    /// Stores what was found, as far as there is room for it, and keeps the rest.
    fn store_piece(
        &mut self,
        rescue: &mut Rescue,
        piece: Piece,
    ) -> Result<(), (StoreError, Option<(u64, i64)>)> {
        let floor = self.mark.floor.min(self.shared.lock().floor);
        let Some(store) = self.store.as_mut() else {
            rescue.keep_unstored(piece, false);
            return Ok(());
        };
        let Piece { mut batches, events, mut letters } = piece;
        // On a full disk they stay where they are: what waits goes on.
        if self.full {
            rescue.left_letters(std::mem::take(&mut letters).len());
        }
        let mut later = Vec::new();
        let next = store.next();
        let mut many = if self.full { a_few(&batches) } else { batches.len() };
        let mut no_room = false;
        let written = loop {
            let work = Work {
                batches: &batches[..many],
                apart: true,
                events: &events,
                dead_before: &letters,
                floor,
                ..Work::default()
            };
            if many == 0 && events.is_empty() && letters.is_empty() {
                break Ok(None);
            }
            match commit(store, &work) {
                Err(StoreError::NoRoom) if many > 0 => {
                    many /= 2;
                    no_room = many == 0;
                }
                // Records need none.
                Err(StoreError::NoRoom) if !letters.is_empty() => {
                    later = std::mem::take(&mut letters);
                    no_room = true;
                }
                Err(StoreError::Unencodable(_)) if many > 1 => many /= 2,
                Err(error @ StoreError::Unencodable(_)) if many == 1 => {
                    tracing::warn!(%error, "salvaged readings cannot be stored");
                    batches.remove(0);
                    many = 0;
                }
                done => break done.map(Some),
            }
        };
        match written {
            Ok(written) => {
                let rest = batches.split_off(many);
                rescue.stored(&batches);
                if !rest.is_empty() || !later.is_empty() {
                    let rest = Piece { batches: rest, letters: later, ..Piece::default() };
                    rescue.keep_unstored(rest, no_room);
                }
                let Some(written) = written else { return Ok(()) };
                if !letters.is_empty() || written.letters_gone > 0 {
                    self.count_letters();
                }
                self.count_records(&written);
                if let Some(newest) = written.event_ids.last() {
                    self.shared.newest_event.store(*newest, Ordering::Release);
                }
                if let Some((newest, _)) = written.blocks.last() {
                    self.shared.newest_block.store(newest.number, Ordering::Release);
                }
                // The piece is on the disk, whatever becomes of the log: nothing has to be undone.
                self.store.as_ref().map_or(Ok(()), bound_log).map_err(|error| (error, None))
            }
            Err(error) => {
                letters.extend(later);
                rescue.keep_unstored(Piece { batches, events, letters }, false);
                Err((error, Some(next)))
            }
        }
    }

    fn count_records(&self, written: &store::Written) {
        let mut inner = self.shared.lock();
        inner.events_waiting = written.records_waiting(inner.events_waiting);
    }

    /// A block that waits is damaged while the rescue waits for room: nothing but this could keep it waiting for ever.
    pub(super) fn damaged_in_rescue(&mut self, what: &str) {
        if self.store.is_some() && self.rescue.as_ref().is_some_and(Rescue::waits_for_room) {
            self.fail(Trouble::Damage, what, None);
        }
    }
}

/// How many of these are stored at once on a full disk.
fn a_few(batches: &[Arc<Batch>]) -> usize {
    let mut readings = 0;
    let fits = |batch: &&Arc<Batch>| {
        readings += batch.n();
        readings <= READINGS_ON_A_FULL_DISK
    };
    batches.iter().take_while(fits).count().max(batches.len().min(1))
}

/// Readings, and dead letters, only where there is room to spare.
fn commit(store: &mut Store, work: &Work<'_>) -> Result<store::Written, StoreError> {
    let needs_room = !work.batches.is_empty() || !work.dead_before.is_empty();
    if needs_room && !store.has_room(work.floor)? {
        return Err(StoreError::NoRoom);
    }
    store.commit(work)
}
