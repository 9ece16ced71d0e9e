//! The floor: below it nothing waits, so that blocks there may be overwritten. It moves before each commit. And the bound of the log,
//! which is looked at after each.

use super::Writer;
use crate::spool::block::Header;
use crate::spool::store::{Store, StoreError};
use crate::spool::{ring, schema};

/// The floor moves over this many headings in one statement, and by this many statements in one commit: some milliseconds.
const FLOOR_STEP: usize = 256;
const FLOOR_STEPS: usize = 8;

impl Writer {
    /// Moves the floor over settled blocks.
    pub(super) fn move_floor(&mut self) -> Result<(), StoreError> {
        // Blocks that go first leave their numbers to those that come in their place, and these wait.
        let undone = self.undone();
        let Some(store) = &self.store else { return Ok(()) };
        let Some(extent) = store.ring() else { return Ok(()) };
        let (mut floor, waiting) = {
            let inner = self.shared.lock();
            (inner.floor, inner.ledger.sums().waiting)
        };
        // What a rescue that was cut off has stored may wait, and have no books yet.
        if waiting == 0 && self.rescue.is_none() {
            let mut inner = self.shared.lock();
            inner.floor = inner.floor.max((extent.newest.number + 1).min(undone));
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
                stopped = heading.spot.number >= undone || heading.header.is_some_and(waits);
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
