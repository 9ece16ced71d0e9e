//! What the file has forgotten and the copy beside it still knows: a card that calls a write done, and has lost it after a power
//! cut, takes whole commits back with it, runs and all, and what is left is a sound file of an earlier time.
//!
//! On a disk that keeps its word the copy never knows more than the file: it is written after the commits that it tells of. So a run
//! that the copy names and the file does not is forgotten, and readings that the copy calls durable are too, unless the blocks say so
//! as well. They are put into the books before the ends of old runs are written: the end then says where the run had come
//! to, and the [audit](super::writer) finds what is missing.
//!
//! What was lost since the copy was written, nobody here can know.

use std::path::Path;

use super::copy::Copy;
use super::ledger::RunBooks;
use super::store::{Found, RunRow};
use crate::model::event::Body;

/// Adds to what was found in a file what its own copy knows beyond it. Gives what is to be recorded of that, with the books: until they
/// are committed the copy must stay.
pub(super) fn recall(found: &mut Found, file: &Path, log_is_missing: bool) -> Option<Body> {
    let copy = Copy::read(file);
    let own = copy.mark.as_ref().is_some_and(|mark| mark.id == found.mark.id);
    let runs = if own { take(found, copy) } else { 0 };
    if log_is_missing {
        return Some(log_missing());
    }
    (runs > 0).then(|| {
        tracing::error!(runs, "the disk has lost what it had called written");
        let found = format!("runs that the disk had called written and has lost: {runs}");
        Body::Corruption { found, saved: 0, lost: 0 }
    })
}

/// The record of a log that is missing. Somebody who opened the file with a tool of SQLite has written it back, and nothing is lost.
pub(super) fn log_missing() -> Body {
    tracing::error!("the spool's log is missing: what was stored last may be lost with it");
    let found = "the log of the spool is missing: what was stored last may be lost with it".to_owned();
    Body::Corruption { found, saved: 0, lost: 0 }
}

/// How many runs the file does not know at all.
fn take(found: &mut Found, copy: Copy) -> usize {
    let newest = found.runs.last().map(|row| row.run);
    let mut forgotten = 0;
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
            forgotten += 1;
        }
    }
    found.runs.sort_by_key(|row| row.run);
    forgotten
}

/// What was confirmed beyond the file's knowledge stays confirmed, and an end that was said is said so again. What was given up is left to
/// the audit: its record may be gone.
fn raise(known: &mut RunBooks, books: &RunBooks) {
    known.end = known.end.or(books.end);
    if books.durable <= known.durable {
        return;
    }
    let mut confirmed = books.settled.clone();
    for (first, next, _) in books.lost.stretches() {
        confirmed.remove(first, next);
    }
    if books.lost.forgotten().total() > 0 {
        // Some of these, nobody knows which: what is there goes again.
        confirmed.remove(known.durable, books.lost.limit());
    }
    for (first, next) in confirmed.iter().filter(|(_, next)| *next > known.durable) {
        known.settled.insert(first.max(known.durable), next);
    }
    known.blockless.take(&books.blockless);
    known.durable = books.durable;
}
