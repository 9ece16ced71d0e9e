//! The batches of the last minute, so that a viewer that lost its connection gets what it missed.
//!
//! Bounded by time and by bytes, whichever is reached first; the batches are shared with the spool and the uplink.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::Batch;

/// How long a batch is kept, µs of running time.
pub const KEPT_US: u64 = 60_000_000;

/// At most this many bytes of batches are kept.
pub const KEPT_BYTES: usize = 1024 * 1024;

/// In the order of `seq`, all of one run.
#[derive(Debug, Default)]
pub struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

impl Ring {
    /// Adds the newest batch and lets go of the oldest.
    pub fn push(&mut self, batch: Arc<Batch>) {
        let now_us = batch.stamp.mono_us;
        if self.batches.back().is_some_and(|last| last.end() != batch.seq) {
            // Something was not offered: the ring must stay without a hole.
            *self = Self::default();
        }
        self.bytes += batch.weight();
        self.batches.push_back(batch);
        while self.bytes > KEPT_BYTES
            || self.batches.front().is_some_and(|old| now_us.saturating_sub(old.stamp.mono_us) > KEPT_US)
        {
            let Some(old) = self.batches.pop_front() else { break };
            self.bytes -= old.weight();
        }
    }

    /// Everything from `seq` on, of at most `bytes_max` bytes but at least one batch; `None` if the ring begins later.
    pub fn since(&self, seq: u64, bytes_max: usize) -> Option<Vec<Arc<Batch>>> {
        if self.batches.front().is_none_or(|first| first.seq > seq) {
            return None;
        }
        let from = self.batches.partition_point(|batch| batch.end() <= seq);
        let mut bytes = 0;
        let fits = |batch: &&Arc<Batch>| {
            let first = bytes == 0;
            bytes += batch.weight();
            first || bytes <= bytes_max
        };
        Some(self.batches.range(from..).take_while(fits).map(Arc::clone).collect())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
