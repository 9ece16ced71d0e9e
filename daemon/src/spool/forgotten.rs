//! What the file has forgotten and the copy beside it still knows: a card that calls a write done, and has lost it after a power
//! cut, takes whole commits back with it, runs and all, and what is left is a sound file of an earlier time.
//!
//! On a disk that keeps its word the copy never knows more than the file: it is written after the commits that it tells of. So a run
//! that the copy names and the file does not is forgotten, and readings that the copy calls durable are too, unless the blocks say so
//! as well. They are put into the books before the ends of old runs are written: the end then says where the run had come
//! to, and the [audit](super::writer) finds what is missing.
//!
//! What was lost since the copy was written, nobody here can know.

use super::copy::Copy;
use super::ledger::RunBooks;
use super::store::{Found, RunRow};
use crate::model::RunId;

/// Adds to what was found in a file what its own copy knows beyond it. Gives the runs that the file does not know at all.
pub(super) fn recall(found: &mut Found, copy: Copy) -> Vec<RunId> {
    let newest = found.runs.last().map(|row| row.run);
    if copy.mark.is_none_or(|mark| mark.id != found.mark.id) {
        return Vec::new();
    }
    let mut forgotten = Vec::new();
    for (run, books) in copy.books {
        if let Some(row) = found.runs.iter_mut().find(|row| row.run == run) {
            if !row.ended {
                raise(&mut row.books, &books);
            }
        } else if newest.is_none_or(|newest| run > newest) {
            // Older ones were folded away meanwhile.
            let mut row = RunRow { run, ended: false, last_wall_us: None, books: RunBooks::default() };
            raise(&mut row.books, &books);
            found.runs.push(row);
            forgotten.push(run);
        }
    }
    found.runs.sort_by_key(|row| row.run);
    forgotten
}

/// What was confirmed beyond the file's knowledge stays confirmed. What was given up is left to the audit: its record may be gone.
fn raise(known: &mut RunBooks, books: &RunBooks) {
    if books.durable <= known.durable {
        return;
    }
    let mut confirmed = books.settled.clone();
    for (first, next) in books.lost.iter() {
        confirmed.remove(first, next);
    }
    for (first, next) in confirmed.iter().filter(|(_, next)| *next > known.durable) {
        known.settled.insert(first.max(known.durable), next);
    }
    known.durable = books.durable;
}
