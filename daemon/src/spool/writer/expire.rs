//! Retention by age: what is older than `max_age`, by running time (see [`age`](crate::spool::age)), goes.
//!
//! Confirmed blocks just go. Blocks that wait are booked as lost first, with their own cause, and go when the disk knows that. Both in
//! small pieces, one a second at least, so that a commit stays short.

use std::time::{Duration, Instant};

use super::Writer;
use super::audit::proved;
use super::patience::PATIENCE;
use crate::model::event::GapCause;
use crate::spool::inner::Inner;
use crate::spool::records::Mark;
use crate::spool::ring;
use crate::spool::store::{Store, StoreError};

/// Age is looked at this often when there is nothing else to do.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Blocks looked at in one piece.
const PIECE: usize = 256;

/// The running time is written this often when there is nothing else to write, s.
const RUNNING_EVERY_S: u64 = 3600;

impl Writer {
    /// Seconds that the daemon has run with this spool, over all boots.
    fn running_s(&self, now: Instant) -> u64 {
        let (began, before) = self.began;
        before.saturating_add(now.saturating_duration_since(began).as_secs())
    }

    /// Something is too old, or the running time has not been written for long.
    pub(super) fn has_expired(&self, inner: &Inner, now: Instant) -> bool {
        let Some(max_age) = inner.settings.max_age.filter(|_| now >= self.expired.1 + EXPIRE_EVERY) else {
            return false;
        };
        let running = self.running_s(now);
        let below = self.mark.ages.expired(running, max_age.as_secs());
        let old = |store: &Store| {
            store.ring().is_some_and(|ring| ring.oldest.number < below.min(ring.newest.number))
        };
        self.store.as_ref().is_some_and(old) || running >= self.mark.running_s.saturating_add(RUNNING_EVERY_S)
    }

    /// Whether a commit has blocks to delete.
    pub(super) fn expires(&self, store: &Store) -> bool {
        let below = self.expired.0.min(self.mark.floor);
        store.ring().is_some_and(|ring| ring.oldest.number < below.min(ring.newest.number))
    }

    /// Finds what is too old, and books what of it waits.
    pub(super) fn expire(&mut self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let shared = self.shared.clone();
        let (max_age, floor) = {
            let inner = shared.lock();
            (inner.settings.max_age, inner.floor)
        };
        let Some(max_age) = max_age else {
            self.expired.0 = 0;
            return Ok(());
        };
        let running = self.running_s(self.now);
        // What is to be undone comes again under the same numbers, and waits.
        let undone = self.undone();
        let below = self.mark.ages.expired(running, max_age.as_secs()).min(undone);
        self.expired = (below, self.now);
        if running >= self.mark.running_s.saturating_add(RUNNING_EVERY_S) {
            self.books_due = self.now;
        }
        let oldest = if floor < below { ring::locate(store.connection(), floor)? } else { None };
        let Some(spot) = oldest else {
            self.too_old_and_sent = None;
            return Ok(());
        };
        let mut headings = ring::headings(store.connection(), spot, PIECE)?;
        headings.retain(|heading| heading.spot.number < below);
        let (old, unread) = proved(store, &headings)?;
        self.unread |= unread;
        // What is on the wire is acknowledged soon, or comes back; then it goes. One message that a server never acknowledges
        // must not keep all that comes behind it.
        let patient = self.too_old_and_sent.is_none_or(|since| self.now < since + PATIENCE);
        let mut inner = shared.lock();
        let mut goes = true;
        for (number, held) in old {
            for stretch in held {
                if patient {
                    goes &= inner.lose_unsent(stretch, GapCause::Expired).is_empty();
                } else {
                    let (run, first, next) = stretch;
                    inner.lose(run, first, next, GapCause::Expired);
                }
            }
            if goes {
                inner.floor = inner.floor.max(number + 1);
            }
        }
        self.too_old_and_sent = if goes { None } else { self.too_old_and_sent.or(Some(self.now)) };
        Ok(())
    }

    /// Notes the running time, and what is stored by now.
    pub(super) fn note_age(&self, store: &Store, inner: &Inner, mark: &mut Mark) {
        mark.running_s = self.running_s(self.now);
        let oldest = store.ring().map_or(0, |ring| ring.oldest.number);
        let max_age = inner.settings.max_age.map(|age| age.as_secs());
        mark.ages.note((oldest, store.next().0), mark.running_s, max_age);
    }
}
