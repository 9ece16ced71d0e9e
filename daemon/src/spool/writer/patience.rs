//! Patience at the cap: what has to make room, and is on the wire to the server, is waited for. Given up at once it would be told as lost
//! and be delivered all the same, on a slow link nearly each time. All else of what has to go is lost at once, so that no more of it is
//! sent; what went is acknowledged after one way there and back, and meanwhile the window stays in memory.
//!
//! Not for longer than [`PATIENCE`], not while somebody waits for the commit, and not while memory fills up: then it goes as well.

use std::time::{Duration, Instant};

use super::Writer;
use super::window::Window;
use crate::model::event::GapCause;
use crate::spool::inner::{Inner, RING_BYTES_MAX};
use crate::spool::store::{Store, StoreError};
use crate::spool::wire::Stretch;

use super::audit::Held;

/// A commit waits so long for what is on the wire, at most.
pub(in crate::spool) const PATIENCE: Duration = Duration::from_secs(10);

/// A writer that waits looks again after this.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a commit waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    until: Instant,
    what: Vec<Stretch>,
}

impl Writer {
    /// What is on the wire may hold up a commit.
    fn is_patient(&self, inner: &Inner, now: Instant) -> bool {
        self.awaited.as_ref().is_none_or(|awaited| now < awaited.until)
            && !inner.closed
            && self.flushes.is_empty()
            && self.undo_from().is_none()
            && inner.bytes < RING_BYTES_MAX / 2
    }

    /// It holds one up now.
    pub(super) fn awaits(&self, inner: &Inner, now: Instant) -> bool {
        let awaited = self.awaited.as_ref().filter(|_| self.is_patient(inner, now));
        awaited.is_some_and(|awaited| awaited.what.iter().any(|sent| inner.is_sent(*sent)))
    }

    /// After a commit: one patience for all that was due together, or came while it lasted. Where a window is always due, what came later
    /// has one of its own.
    pub(super) fn regain_patience(&mut self) {
        let Some(awaited) = &self.awaited else { return };
        let inner = self.shared.lock();
        let later = inner.ring.front().is_none_or(|kept| kept.at > awaited.until);
        let again = later || !inner.due(self.now);
        drop(inner);
        if again {
            self.awaited = None;
        }
    }

    /// The next commit waits for nothing.
    pub(super) fn lose_patience(&mut self) {
        self.awaited = Some(Awaited { until: self.now, what: Vec::new() });
    }

    /// These blocks make room: what of them waits is lost. An error: not now, some of it is on the wire.
    pub(super) fn give_up(
        &mut self,
        inner: &mut Inner,
        going: Vec<(u64, Held)>,
        ended: bool,
    ) -> Result<(), StoreError> {
        let patient = !ended && self.is_patient(inner, self.now);
        let mut what = Vec::new();
        for (number, held) in going {
            for (run, first, next) in held {
                if patient {
                    what.extend(inner.lose_unsent((run, first, next), GapCause::Evicted));
                } else {
                    inner.lose(run, first, next, GapCause::Evicted);
                }
            }
            if what.is_empty() {
                inner.floor = inner.floor.max(number + 1);
            }
        }
        if what.is_empty() {
            return Ok(());
        }
        let until = self.awaited.as_ref().map_or(self.now + PATIENCE, |awaited| awaited.until);
        self.awaited = Some(Awaited { until, what });
        Err(StoreError::OnTheWire)
    }

    /// A commit waits: nothing was written, and nothing has failed.
    pub(super) fn put_off(&mut self, window: Window, store: Store) {
        // The newest record is as it was, and grows with the next commit.
        let open_gap = self.open_gap.take();
        self.put_back(window);
        self.open_gap = open_gap;
        self.store = Some(store);
        self.end_without_commit();
    }

    /// A commit that wrote nothing is over. A record that is to grow with the next one is given to nobody until then.
    pub(super) fn end_without_commit(&self) {
        if self.growing.is_empty() {
            self.shared.handed_out.end();
        }
    }
}
