//! What the writer shows on the board: the spool's own section.

use std::path::Path;

use super::Writer;
use crate::spool::meter::View;
use crate::spool::oldest::{self, Oldest};
use crate::spool::rescue::Rescue;
use crate::spool::{directory, store};
use crate::status::Salvage;

impl Writer {
    /// Writes the spool's section of the board.
    pub(super) fn show(&mut self) {
        let trouble = self.broken.as_ref().or(self.proving.as_ref());
        let state = trouble.map(|broken| (broken.state, broken.why.clone()));
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let due = self.meter.asks_the_system(self.now) || trouble.is_some();
        let file = self.store.as_ref().filter(|_| due);
        let bytes = file.map(|_| length(&self.file) + length(&store::log_of(&self.file)));
        let space = if due { directory::space(self.directory()) } else { None };
        let (bytes_max, oldest, letters) = (self.bytes_max, self.oldest(), self.letters_kept.clone());
        let salvage = match self.rescue.as_ref().and_then(Rescue::so_far) {
            Some((found, saved, waits_for_room)) => {
                let (found, at_us) = (found.to_owned(), self.damaged_us);
                Some(Salvage { at_us, found, saved, lost: 0, searching: true, waits_for_room })
            }
            None => self.shared.lock().salvage.clone(),
        };
        self.meter
            .show(&self.shared, View { broken: state, bytes, space, bytes_max, oldest, letters, salvage });
    }

    /// Says to those who send how much memory keeps that the disk should have.
    pub(super) fn show_late(&self) {
        let late = self.shared.lock().late_readings(self.now);
        self.shared.committed.send_if_modified(|committed| {
            let before = std::mem::replace(&mut committed.late, late);
            // Others may have taken the place of those that were confirmed.
            late > 0 || before != late
        });
    }

    /// Looks how many dead letters are kept.
    pub(super) fn count_letters(&mut self) {
        if let Some(Ok(kept)) = self.store.as_ref().map(|store| store::letters(store.connection())) {
            self.letters_kept = kept;
        }
    }

    /// The oldest waiting reading.
    fn oldest(&self) -> Oldest {
        let (floor, first, untold) = {
            let inner = self.shared.lock();
            (inner.floor, oldest::first_waiting(&inner.ledger), inner.has_untold())
        };
        match &self.store {
            // Who takes a time for complete must have been told what is missing before it, or be sure to be.
            _ if untold => Oldest::UNKNOWN,
            // Of runs whose books are still to be found nobody knows what waits.
            _ if self.rescue.is_some() => Oldest::UNKNOWN,
            Some(store) => Oldest::of(store.connection(), floor, first),
            // What waits in a file that this life has not opened yet is in no books.
            None if first.is_some() || self.mark.id.is_empty() => Oldest::UNKNOWN,
            None => Oldest::NOTHING,
        }
    }
}
