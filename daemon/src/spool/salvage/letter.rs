//! Dead letters among the pages of a damaged file. One is believed if its batch is: the batch proves itself by the checksum of its block, and must
//! be the one that the row names. A refused record, or a letter without its batch, has no such proof and stays in the folder.
//!
//! Pages hold them in any order, so they are given when all pages were looked at: newest first, by their row, as many as a spool keeps, and
//! no more than [`BYTES_MAX`] of them. What is older stays in the folder.

use std::sync::Arc;

use super::record::{Column, Record};
use super::{RECORDS_MAX, Salvage};
use crate::model::Batch;
use crate::spool::records::run_of;
use crate::spool::store::{DEAD_LETTERS_MAX, DeadLetter, letter};

/// The broker's words may be damaged; no broker says more.
const REASON_MAX: usize = 1024;

/// What they may take in memory.
const BYTES_MAX: usize = 8 * 1024 * 1024;

impl Salvage {
    /// A row of `dead`. Free pages hold copies, and older ones that had to go.
    pub(super) fn letter(&mut self, record: &Record) {
        let [
            Column::Null,
            Column::Number(at_us),
            Column::Other(reason),
            Column::Number(run),
            Column::Number(seq),
            Column::Number(n),
            Column::Other(head),
            Column::Other(body),
            ..,
        ] = &*record.columns
        else {
            return;
        };
        let name = (run_of(*run), seq.cast_unsigned(), n.cast_unsigned());
        let bytes = [&head[..], &body[..]].concat();
        let batch = letter(&bytes, &self.dictionary, name).or_else(|| letter(&bytes, &self.others, name));
        if batch.is_some() && self.lettered.len() < RECORDS_MAX && self.lettered.insert((name.0, name.1)) {
            let reason = String::from_utf8_lossy(&reason[..reason.len().min(REASON_MAX)]).into_owned();
            self.letters_bytes += weight(batch.as_ref());
            let letter = DeadLetter { at_us: *at_us, reason, name, batch };
            self.letters.insert((record.rowid, *run, *seq), letter);
        }
        let most = usize::try_from(DEAD_LETTERS_MAX).unwrap_or_default();
        while self.letters.len() > most || self.letters_bytes > BYTES_MAX {
            let Some((_, oldest)) = self.letters.pop_first() else { break };
            self.letters_bytes -= weight(oldest.batch.as_ref());
        }
    }

    /// All that were found, newest first.
    pub fn take_letters(&mut self) -> Vec<DeadLetter> {
        self.letters_bytes = 0;
        std::mem::take(&mut self.letters).into_values().rev().collect()
    }
}

fn weight(batch: Option<&Arc<Batch>>) -> usize {
    batch.map_or(0, |batch| batch.weight())
}
