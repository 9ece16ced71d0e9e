//! What a search has learned, given to those who keep the books, and what of its readings and records goes back into the spool.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::search::Learned;
use super::{Piece, Present, Rescue, unfound};
use crate::model::event::Event;
use crate::model::{Batch, RunId};
use crate::spool::inner::Inner;
use crate::spool::ledger::{Intervals, holds};

/// Records taken back in one commit.
const RECORDS_A_TURN: usize = 256;

/// ... and dead letters, each as long as a batch.
const LETTERS_A_TURN: usize = 32;

impl Rescue {
    /// What lies in the spool's own file. Runs that have readings there and no books yet begin theirs: until they are
    /// found, what waits must be known to wait.
    pub(in crate::spool) fn know_present(&mut self, present: Present, inner: &mut Inner) {
        let Present { readings, rows, records } = present;
        for (run, held) in readings.iter().filter(|(run, _)| **run != self.own) {
            if self.is_folded(*run, inner) {
                continue;
            }
            let end = held.iter().map(|(_, next)| next).max().unwrap_or_default();
            let books = inner.ledger.runs.entry(*run).or_insert_with(unfound);
            books.durable = books.durable.max(end);
            let at_risk = self.at_risk.entry(*run).or_default();
            *at_risk = (*at_risk).max(end);
        }
        self.present = Some(readings);
        for row in rows.iter().filter(|row| row.run != self.own && row.ended) {
            // The records of what a life had lost before it set a file aside lie in that file, and nowhere else.
            match &self.lives {
                Some(lives) if !lives.contains(&row.run) => self.said.whole(row.run, &row.books),
                _ => self.said.end(row.run, row.books.durable),
            }
        }
        self.taken.extend(records.iter().map(|event| (event.run, event.number)));
        self.hear(&records);
    }

    /// These records lie in the spool's own file.
    pub(in crate::spool) fn hear(&mut self, records: &[Event]) {
        for event in records {
            self.said.hear(&event.body);
        }
    }

    /// Nothing was left of a run: what turns up of it is history.
    pub(super) fn is_folded(&self, run: RunId, inner: &Inner) -> bool {
        let folded = self.folded.iter().any(|stretch| holds(stretch, run));
        (folded && !inner.ledger.runs.contains_key(&run)) || inner.ledger.is_folded(run)
    }

    pub(super) fn is_present(&self, run: RunId, first: u64, next: u64) -> bool {
        let present = self.present.as_ref().and_then(|present| present.get(&run));
        present.is_some_and(|present| present.covers(first, next))
    }

    /// What the search has learned of books and records, given to those who keep them.
    pub(super) fn take_books(&mut self, inner: &mut Inner) {
        let Learned { books, mark, settled, above, records, letters, whole } =
            std::mem::take(&mut self.learned);
        let folded = mark.ledger();
        if inner.ledger.folded.is_empty() {
            // A file that has just begun: the sums of the one before go on.
            inner.ledger.folded_confirmed += folded.folded_confirmed;
            inner.ledger.folded_losses.add(&folded.folded_losses);
            inner.ledger.folded = folded.folded;
        } else {
            self.folded.extend(folded.folded);
        }
        for (run, books) in books {
            // A counter that two runs have: a file that is whole knows what of its own waits, and is removed when it was taken back.
            let by_name = inner.ledger.folded.iter().any(|(first, last)| run == *first || run == *last);
            let another = whole && books.waiting() > 0 && !by_name;
            if inner.ledger.is_folded(run) && !another {
                if books.waiting() > 0 && !by_name {
                    tracing::warn!(%run, count = books.waiting(), "a damaged file says that these wait: a run with this counter was confirmed, and is taken for it");
                }
                continue;
            }
            if run != self.own {
                let at_risk = self.at_risk.entry(run).or_insert(books.durable);
                *at_risk = (*at_risk).max(books.durable);
            }
            if inner.ledger.runs.get(&run).is_none_or(|known| known.unfound) {
                let meanwhile = inner.ledger.runs.insert(run, books).unwrap_or_default();
                let known = inner.ledger.runs.entry(run).or_default();
                known.take(&meanwhile);
                known.blockless.all_below(known.durable);
                inner.dirty.insert(run);
            }
        }
        self.floors.learn(settled, above);
        for (event, sent) in records {
            self.said.hear(&event.body);
            if !self.taken.insert((event.run, event.number)) {
                continue;
            }
            if sent {
                self.clocks.learn(event);
            } else {
                inner.hear_clock(event.body.correction());
                self.records.push(Arc::new(event));
            }
        }
        self.letters.extend(letters);
    }

    /// What floors tell, but for what is in the spool's own file: that waits, or its books know that it does not.
    pub(super) fn settled_by_floors(&self, run: RunId, unfound: bool) -> Vec<(u64, u64)> {
        let none = Intervals::default();
        let saved = self.saved.get(&run).unwrap_or(&none);
        let present = self.present.as_ref().and_then(|present| present.get(&run)).unwrap_or(&none);
        let settled = self.floors.settled(run, unfound).into_iter();
        let settled = settled.flat_map(|(first, next)| saved.missing(first, next));
        settled.flat_map(|(first, next)| present.missing(first, next)).collect()
    }

    /// Of what the search found, what is to be stored again.
    pub(in crate::spool) fn take_back(&mut self, batches: Vec<Batch>, inner: &mut Inner) -> Piece {
        self.take_books(inner);
        let mut back = Vec::new();
        let mut fresh: BTreeMap<RunId, Intervals> = BTreeMap::new();
        for batch in batches {
            let (run, first, next) = (batch.run, batch.seq, batch.end());
            if self.is_folded(run, inner) {
                continue;
            }
            // Of this life: memory has what was not on the disk for certain, and stores it by itself.
            if run == self.own && first >= self.at_risk.get(&run).copied().unwrap_or_default() {
                continue;
            }
            let wall_us = self.last_wall_us.entry(run).or_insert(batch.stamp.wall_us);
            *wall_us = (*wall_us).max(batch.stamp.wall_us);
            if run != self.own {
                let books = inner.ledger.runs.entry(run).or_insert_with(unfound);
                books.durable = books.durable.max(next);
                let at_risk = self.at_risk.entry(run).or_insert(next);
                *at_risk = (*at_risk).max(next);
            }
            let saved = self.saved.get(&run).is_some_and(|saved| saved.covers(first, next));
            let fresh = fresh.entry(run).or_default();
            if inner.ledger.settled(run, first, next) || saved || fresh.covers(first, next) {
                continue;
            }
            let unfound = inner.ledger.runs.get(&run).is_some_and(|books| books.unfound);
            if self.floors.pass(run, (first, next), unfound) {
                continue;
            }
            self.clocks.need(batch.stamp);
            if self.is_present(run, first, next) {
                self.saved.entry(run).or_default().insert(first, next);
                continue;
            }
            fresh.insert(first, next);
            inner.dirty.insert(run);
            back.push(Arc::new(batch));
        }
        back.sort_by_key(|batch| (batch.run, batch.seq));
        self.say_clocks(inner);
        let events = self.records.drain(..self.records.len().min(RECORDS_A_TURN)).collect();
        let letters = self.letters.drain(..self.letters.len().min(LETTERS_A_TURN)).collect();
        Piece { batches: back, events, letters }
    }

    /// What a clock lacked is said once more if something comes back that needs it, the newest first, as long as there is place beside those that
    /// are known: of the present boot above all.
    pub(super) fn say_clocks(&mut self, inner: &mut Inner) {
        let mut needed = self.clocks.take_needed();
        needed.retain(|event| inner.hear_clock(event.body.correction()));
        // Before what needs it.
        self.records.splice(..0, needed.into_iter().rev().map(Arc::new));
    }
}
