//! The live lane's queue: batches that go out before anything else, and never wait for the disk.
//!
//! Bounded by count and bytes. Full: the oldest is dropped *from this queue* and the backlog lane sends it from the
//! spool. While there is no connection only each device's newest batch is kept, so that the first thing a receiver
//! gets after an outage is how the plant is now.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::Batch;

/// Most batches in the queue.
pub const LIVE_BATCHES_MAX: usize = 256;

/// Most bytes of readings in the queue, as they lie in memory.
pub const LIVE_BYTES_MAX: usize = 1024 * 1024;

/// Batches on their way, by ascending `seq`.
#[derive(Debug, Default)]
pub(super) struct LiveQueue {
    /// With their bytes, which are counted once.
    batches: VecDeque<(Arc<Batch>, usize)>,
    bytes: usize,
    newest_only: bool,
    /// Batches that left without being sent, since the start.
    pub(super) dropped: u64,
}

impl LiveQueue {
    /// Only each device's newest batch is kept from now on (`true`), or all of them (`false`).
    pub(super) fn keep_newest_only(&mut self, newest_only: bool) {
        self.newest_only = newest_only;
        if newest_only {
            let all = std::mem::take(&mut self.batches);
            self.bytes = 0;
            for (batch, _) in all {
                self.push(batch);
            }
        }
    }

    /// Takes a batch in; the oldest go if there is no room.
    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        if self.newest_only
            && let Some(at) = self.batches.iter().position(|(b, _)| b.shape.device == batch.shape.device)
        {
            self.remove(at);
        }
        let bytes = batch.weight();
        self.bytes += bytes;
        self.batches.push_back((batch, bytes));
        while self.batches.len() > LIVE_BATCHES_MAX || (self.bytes > LIVE_BYTES_MAX && self.batches.len() > 1)
        {
            self.remove(0);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some((_, bytes)) = self.batches.remove(at) {
            self.bytes -= bytes;
            self.dropped += 1;
        }
    }

    /// `seq` of the oldest and of the newest that wait.
    pub(super) fn ends(&self) -> Option<(u64, u64)> {
        Some((self.batches.front()?.0.seq, self.batches.back()?.0.seq))
    }

    /// Takes the batch that goes next.
    pub(super) fn pop(&mut self) -> Option<Arc<Batch>> {
        let (batch, bytes) = self.batches.pop_front()?;
        self.bytes -= bytes;
        Some(batch)
    }

    /// Takes out the waiting batches that `take` accepts, oldest first, until it says stop.
    pub(super) fn take_while_fits(&mut self, mut take: impl FnMut(&Arc<Batch>) -> Take) -> Vec<Arc<Batch>> {
        let mut taken = Vec::new();
        let mut at = 0;
        while let Some((batch, bytes)) = self.batches.get(at) {
            match take(batch) {
                Take::Yes => {
                    self.bytes -= bytes;
                    taken.extend(self.batches.remove(at).map(|(batch, _)| batch));
                }
                Take::Skip => at += 1,
                Take::Stop => break,
            }
        }
        taken
    }

    /// Whether this batch waits here.
    pub(super) fn has(&self, batch: &Batch) -> bool {
        self.batches
            .binary_search_by_key(&batch.seq, |(b, _)| b.seq)
            .is_ok_and(|at| self.batches.get(at).is_some_and(|(b, _)| b.run == batch.run))
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// All of them, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Batch>> {
        self.bytes = 0;
        self.batches.drain(..).map(|(batch, _)| batch)
    }
}

/// What to do with a waiting batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Into the message.
    Yes,
    /// Another message.
    Skip,
    /// The message is full.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::sample::batch;

    #[test]
    fn a_full_queue_drops_its_oldest() {
        let mut queue = LiveQueue::default();
        for seq in 0..300 {
            queue.push(batch("a", seq, 1));
        }
        assert_eq!(queue.batches.front().unwrap().0.seq, 44);
        assert_eq!(queue.dropped, 44);
        assert!(queue.has(&batch("a", 299, 1)));
        assert!(!queue.has(&batch("a", 43, 1)));
    }

    #[test]
    fn a_queue_full_in_bytes_drops_its_oldest_but_never_its_last() {
        let mut queue = LiveQueue::default();
        for seq in 0..100 {
            queue.push(batch("a", seq * 500, 500));
        }
        assert!(queue.bytes <= LIVE_BYTES_MAX && queue.bytes > LIVE_BYTES_MAX / 2);
        while queue.pop().is_some() {}
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn without_a_connection_each_devices_newest_batch_stays() {
        let mut queue = LiveQueue::default();
        for seq in 0..6 {
            queue.push(batch(if seq % 2 == 0 { "a" } else { "b" }, seq, 1));
        }
        queue.keep_newest_only(true);
        queue.push(batch("a", 6, 1));
        assert_eq!(queue.drain().map(|b| b.seq).collect::<Vec<_>>(), [5, 6]);
    }
}
