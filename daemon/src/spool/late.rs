//! What the disk should have taken by now and has not: it is given out of memory to be sent. A disk that fails for good costs the history,
//! and not the readings of each time that the server was away. Pure.
//!
//! Nothing is stored by being given: until it is confirmed it stays in memory and is tried on the disk again; full memory drops it after what
//! was not given. What the writer has in hand is not given; comes it back, who walks the backlog begins anew. Records wait for the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inner::{Inner, Kept};
use crate::model::Batch;

/// A disk that is slow is not one that fails: what is younger than this, and the window, is still on its way there.
const LATE: Duration = Duration::from_secs(10);

/// Bytes given at once.
const BYTES: usize = 1024 * 1024;

impl Inner {
    /// From a number on. With a window of 0 s nothing is sent before it is stored, whatever happens.
    fn late(&self, from: u64, now: Instant) -> impl Iterator<Item = &Kept> {
        let window = self.settings.commit_every;
        let late =
            move |kept: &&Kept| !window.is_zero() && now.saturating_duration_since(kept.at) >= window + LATE;
        let waits = |kept: &&Kept| !self.ledger.settled(kept.batch.run, kept.batch.seq, kept.batch.end());
        let at = self.ring.partition_point(|kept| kept.batch.seq < from);
        self.ring.range(at..).take_while(late).filter(waits)
    }

    /// How many readings are late and wait to be sent.
    pub(super) fn late_readings(&self, now: Instant) -> u64 {
        self.late(0, now).map(|kept| kept.batch.n()).sum()
    }

    /// Some of them, oldest first.
    pub(super) fn give_late(&mut self, from: u64, now: Instant) -> Vec<Arc<Batch>> {
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            let fits = bytes < BYTES;
            bytes += kept.bytes;
            fits
        };
        let given: Vec<_> = self.late(from, now).take_while(fits).map(|kept| kept.batch.clone()).collect();
        self.passed |= self.in_hand.is_some();
        if let Some((first, last)) = given.first().zip(given.last()) {
            self.given = [(first.seq, last.end()), self.given[0]];
        }
        given
    }

    /// The place in memory of what goes first when it is full: the oldest, but if that is on its way to the server just now, what comes behind
    /// it: or it would be told as lost and be delivered. What has just come can always go.
    pub(super) fn dispensable(&self) -> usize {
        let mut at = 0;
        for (first, next) in self.given.into_iter().chain(self.given).chain(self.wire.of(self.run)) {
            let Some(Kept { batch, .. }) = self.ring.get(at) else { break };
            if (first..next).contains(&batch.seq) {
                at = self.ring.partition_point(|kept| kept.batch.seq < next);
            }
        }
        at
    }

    /// A batch that is not on its way to the disk yet.
    pub(super) fn in_memory(&self, seq: u64) -> Option<Arc<Batch>> {
        let at = self.ring.binary_search_by_key(&seq, |kept| kept.batch.seq).ok()?;
        self.ring.get(at).map(|kept| kept.batch.clone())
    }
}
