//! The time of the oldest reading that waits to be sent, as far as it is known.
//!
//! Blocks lie in the order of storing, so the block at the floor tells it, unless what waits is older than that block: it lies in
//! a file that was set aside, or was taken back from one and stored behind newer readings. The books show both: then a reading of an
//! earlier run, or with a lower `seq`, waits. Not known is also what the disk does not give, and anything while losses are in no record on
//! the disk yet. It is never told too late a time, because a receiver takes everything before it for complete.

use rusqlite::Connection;

use super::ledger::Ledger;
use super::ring;
use crate::model::RunId;

/// What is known of the oldest waiting reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Oldest {
    /// Its wall clock, µs.
    pub(super) us: Option<i64>,
    /// Something waits, or may wait, and its age is not known.
    pub(super) unknown: bool,
}

impl Oldest {
    /// Nobody knows.
    pub(super) const UNKNOWN: Self = Self { us: None, unknown: true };

    /// Nothing waits.
    pub(super) const NOTHING: Self = Self { us: None, unknown: false };

    /// By the block at the floor, if nothing older waits by the books: see [`first_waiting`]. Asks the disk.
    pub(super) fn of(connection: &Connection, floor: u64, first: Option<(RunId, u64)>) -> Self {
        let Some((run, seq)) = first else { return Self::NOTHING };
        let spot = ring::locate(connection, floor).ok().flatten();
        let heading = spot.and_then(|spot| ring::headings(connection, spot, 1).ok()?.into_iter().next());
        match heading.and_then(|heading| heading.header) {
            Some(header) if (header.run, header.first) <= (run, seq) => {
                Self { us: Some(header.wall_min), unknown: false }
            }
            _ => Self::UNKNOWN,
        }
    }
}

/// The first waiting reading by run and number.
pub(super) fn first_waiting(ledger: &Ledger) -> Option<(RunId, u64)> {
    let (run, books) = ledger.runs.iter().find(|(_, books)| books.waiting() > 0)?;
    Some((*run, books.floor()))
}
