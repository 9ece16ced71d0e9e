//! What the sender has on the wire: sent on the present connection, and neither acknowledged nor come back. Pure.
//!
//! Each batch is asked for before it goes: what the books call lost meanwhile stays here, or it would be told as lost and be delivered.
//! What went is not given up while it can be waited for. When a connection breaks, what was on the wire comes back: it may have arrived
//! all the same, and nobody here can know. Bounded by the sender's window.

use std::collections::BTreeMap;

use super::api::Confirmed;
use super::inner::Inner;
use super::ledger::Intervals;
use crate::model::RunId;
use crate::model::event::GapCause;

/// Readings of a run: the first, and one past the last.
pub(super) type Stretch = (RunId, u64, u64);

/// Batches on the wire, by run.
#[derive(Debug, Default)]
pub(super) struct Wire(BTreeMap<RunId, Intervals>);

impl Wire {
    fn put(&mut self, (run, first, next): Stretch) {
        self.0.entry(run).or_default().insert(first, next);
    }

    /// Acknowledged, or come back.
    pub(super) fn take(&mut self, (run, first, next): Stretch) {
        if let Some(sent) = self.0.get_mut(&run) {
            sent.remove(first, next);
            if sent.count() == 0 {
                self.0.remove(&run);
            }
        }
    }

    /// What of these readings is on the wire, ascending.
    fn within(&self, (run, first, next): Stretch) -> Vec<(u64, u64)> {
        let Some(sent) = self.0.get(&run).filter(|sent| sent.touches(first, next)) else { return Vec::new() };
        let inside = |(from, to): (u64, u64)| (from.max(first), to.min(next));
        sent.iter().map(inside).filter(|(from, to)| from < to).collect()
    }

    /// All of one run, ascending.
    pub(super) fn of(&self, run: RunId) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.get(&run).into_iter().flat_map(Intervals::iter)
    }
}

impl Inner {
    /// Something goes to the server now. `false`: it need not, and must not, because it is settled by now.
    pub(super) fn sends(&mut self, what: &Confirmed) -> bool {
        let Confirmed::Batch { run, seq, n } = *what else { return true };
        let next = seq.saturating_add(n);
        let waits = !self.ledger.settled(run, seq, next);
        if waits {
            self.wire.put((run, seq, next));
        }
        waits
    }

    /// These went, and are not on the wire any more: refused, or their connection is over.
    pub(super) fn came_back(&mut self, what: &[Confirmed]) {
        for one in what {
            if let Confirmed::Batch { run, seq, n } = *one {
                self.wire.take((run, seq, seq.saturating_add(n)));
            }
        }
    }

    /// Whether some of these are on the wire and may still be confirmed.
    pub(super) fn is_sent(&self, stretch: Stretch) -> bool {
        let waits = |(first, next): &(u64, u64)| !self.ledger.settled(stretch.0, *first, *next);
        self.wire.within(stretch).iter().any(waits)
    }

    /// Books these as lost but for what is on the wire; gives that.
    pub(super) fn lose_unsent(&mut self, (run, first, next): Stretch, cause: GapCause) -> Vec<Stretch> {
        let mut sent = self.wire.within((run, first, next));
        sent.retain(|(first, next)| !self.ledger.settled(run, *first, *next));
        let mut at = first;
        for (first, next) in &sent {
            self.lose(run, at, *first, cause);
            at = *next;
        }
        self.lose(run, at, next, cause);
        sent.into_iter().map(|(first, next)| (run, first, next)).collect()
    }
}
