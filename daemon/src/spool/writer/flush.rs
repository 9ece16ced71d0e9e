//! Who waits until something is stored.
//!
//! A flush is about what was numbered and recorded before it was asked. Each commit takes all losses that are not recorded yet, all records (on a
//! full disk some) and readings in the order of their numbers: so it is answered by the first commit that begins after it and leaves none of its readings
//! behind, nor there a record. A plant that goes on meanwhile does not hold it up.

use std::time::Instant;

use tokio::sync::oneshot;

use super::Writer;
use crate::spool::SpoolError;

/// One who waits.
#[derive(Debug)]
pub(in crate::spool) struct Flush {
    /// Given up then, if the disk fails.
    pub(in crate::spool) deadline: Instant,
    /// One past the last reading that was numbered when it was asked.
    pub(in crate::spool) next_seq: u64,
    /// Done, or why not.
    pub(in crate::spool) reply: oneshot::Sender<Result<(), SpoolError>>,
}

impl Writer {
    /// Those who do not wait any more need no commit.
    pub(super) fn forget_flushes(&mut self) {
        self.flushes.retain(|flush| !flush.reply.is_closed());
    }

    /// After a commit.
    pub(super) fn answer_flushes(&mut self) {
        let inner = self.shared.lock();
        if self.full && !inner.events.is_empty() {
            // There a commit takes a few.
            return;
        }
        let left = inner.ring.front().map(|kept| kept.batch.seq);
        drop(inner);
        for flush in self.flushes.extract_if(.., |flush| left.is_none_or(|seq| flush.next_seq <= seq)) {
            // Who asked may have given up.
            let _ = flush.reply.send(Ok(()));
        }
    }

    /// While the disk fails, those whose time is over are told why.
    pub(super) fn refuse_late_flushes(&mut self, now: Instant) {
        self.forget_flushes();
        let Some(why) = self.broken.as_ref().map(|broken| broken.why.clone()) else { return };
        for flush in self.flushes.extract_if(.., |flush| flush.deadline <= now) {
            let _ = flush.reply.send(Err(SpoolError::Late(why.clone())));
        }
    }
}
