//! The state behind the lock ([`Shared`](super::shared::Shared)): the memory ring, the ledger, and what waits to be written. Pure:
//! it is told the time, and touches no disk.
//!
//! The memory ring is bounded in bytes; its rule for full: what was confirmed goes first, since nobody lacks it, then the oldest batch that is
//! neither just given to be sent nor on the wire: that is counted and becomes a gap.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::api::{Confirmed, Keep, SpoolSettings};
use super::directory::GivenUp;
use super::gaps::{Gap, Gaps};
use super::ledger::Ledger;
use super::shared::Command;
use super::wire::Wire;
use crate::model::event::{Body, CLOCKS_MAX, ClockCorrection, Event, GapCause};
use crate::model::{BATCH_BYTES_MAX, Batch, Reading, RunId, Stamp};
use crate::status::Salvage;

/// Bound of the memory ring.
pub(super) const RING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A window closes when it holds this many readings, whatever the clock says.
pub(super) const WINDOW_READINGS: usize = super::block::READINGS_MAX;

/// ... or this many bytes of memory.
pub(super) const WINDOW_BYTES: usize = 1024 * 1024;

/// Records in memory; beyond it the oldest that proves nothing goes.
const EVENTS_MAX: usize = 1024;

/// A batch in memory.
#[derive(Debug)]
pub(super) struct Kept {
    /// It.
    pub(super) batch: Arc<Batch>,
    /// When it came.
    pub(super) at: Instant,
    /// What it takes.
    pub(super) bytes: usize,
}

/// Behind the lock.
#[derive(Debug)]
pub(super) struct Inner {
    /// In force.
    pub(super) settings: SpoolSettings,
    /// This life.
    pub(super) run: RunId,
    /// Not yet given to the writer.
    pub(super) ring: VecDeque<Kept>,
    /// Bytes of the ring and of what the writer has in hand.
    pub(super) bytes: usize,
    /// Arrival of the oldest batch that the writer has in hand.
    pub(super) in_hand: Option<Instant>,
    /// Readings of the ring.
    pub(super) readings: usize,
    /// Records not yet stored.
    pub(super) events: VecDeque<Arc<Event>>,
    /// What the records say of the clock, oldest first, at most [`CLOCKS_MAX`].
    pub(super) clocks: VecDeque<ClockCorrection>,
    /// The newest damage that a record tells of.
    pub(super) salvage: Option<Salvage>,
    /// Damaged files that had to go in this life before anybody had searched them.
    pub(super) unsearched: u64,
    /// Number of the next record of this run.
    pub(super) next_event: u64,
    /// One past the last reading numbered in this run.
    pub(super) numbered: u64,
    /// The books.
    pub(super) ledger: Ledger,
    /// Runs whose row is not what the ledger says.
    pub(super) dirty: BTreeSet<RunId>,
    /// Losses that are booked and not yet recorded.
    pub(super) gaps: Gaps,
    /// The first reading of this run that is lost and in no gap record on the disk yet.
    pub(super) unrecorded: Option<u64>,
    /// Readings were left out that were confirmed in time, or lost from memory, and the disk does not know yet that they were.
    pub(super) left_out: bool,
    /// One past the last reading of this run that a commit took.
    pub(super) taken_to: u64,
    /// Batches confirmed since memory was last looked through for them.
    pub(super) confirmed: usize,
    /// Records confirmed, and not yet marked on disk.
    pub(super) sent: HashSet<(RunId, u64)>,
    /// Records on disk that wait.
    pub(super) events_waiting: u64,
    /// For the writer.
    pub(super) commands: VecDeque<Command>,
    /// Blocks with a smaller number are settled.
    pub(super) floor: u64,
    /// The last two pieces of this run that were given out of memory to be sent: from a number to a number.
    pub(super) given: [(u64, u64); 2],
    /// What the sender has on the wire.
    pub(super) wire: Wire,
    /// What is late was given to be sent, but for what the writer has in hand.
    pub(super) passed: bool,
    /// The writer wakes up by itself then.
    pub(super) sleeps_until: Instant,
    /// No more is taken.
    pub(super) closed: bool,
}

impl Inner {
    /// Takes a batch. `true`: the writer must look.
    pub(super) fn append(&mut self, batch: Arc<Batch>, now: Instant) -> bool {
        if self.closed {
            return false;
        }
        let bytes = bytes_of(&batch);
        let full_before = self.full();
        let was_empty = self.ring.is_empty();
        let ascends = batch.seq >= self.numbered;
        self.numbered = self.numbered.max(batch.seq.saturating_add(batch.n()));
        if !ascends || !storable(&batch, self.run) {
            tracing::error!(seq = batch.seq, "a batch breaks the rules of numbering; it is dropped");
            self.lose(self.run, batch.seq, batch.seq.saturating_add(batch.n()), GapCause::Overflow);
            return true;
        }
        self.readings += batch.readings.len();
        self.bytes += bytes;
        self.ring.push_back(Kept { batch, at: now, bytes });
        self.bound();
        // A writer that wakes up by itself before the window's end is left asleep.
        let asleep_too_long = || now + self.settings.commit_every < self.sleeps_until;
        (was_empty && asleep_too_long()) || (!full_before && self.full())
    }

    /// The window holds as much as it may.
    fn full(&self) -> bool {
        self.readings >= WINDOW_READINGS || self.bytes >= WINDOW_BYTES
    }

    /// Drops until the ring fits its bound again: what was confirmed, and then the oldest.
    fn bound(&mut self) {
        let fits = self.bytes <= RING_BYTES_MAX;
        // To look through all takes time, and memory may be full for days.
        if !fits && self.confirmed * 64 > self.ring.len() {
            self.drop_confirmed();
        }
        while self.bytes > RING_BYTES_MAX {
            let at = self.dispensable();
            let Some(kept) = self.ring.remove(at) else { break };
            self.bytes -= kept.bytes;
            self.readings -= kept.batch.readings.len();
            if let Some(books) = self.ledger.runs.get_mut(&kept.batch.run)
                && books.settled.covers(kept.batch.seq, kept.batch.end())
            {
                books.leave_out(kept.batch.seq, kept.batch.end());
            }
            self.lose(kept.batch.run, kept.batch.seq, kept.batch.end(), GapCause::Overflow);
        }
        if !fits {
            self.settle_on();
        }
    }

    /// Of what was confirmed nobody lacks anything. The oldest goes, and some more than need be.
    fn drop_confirmed(&mut self) {
        let Some(books) = self.ledger.runs.get_mut(&self.run) else { return };
        self.confirmed = 0;
        let enough = RING_BYTES_MAX - RING_BYTES_MAX / 8;
        let (run, mut bytes, mut readings) = (self.run, self.bytes, self.readings);
        self.ring.retain(|kept| {
            let (first, next) = (kept.batch.seq, kept.batch.end());
            if kept.batch.run != run || !books.settled.covers(first, next) {
                return true;
            }
            if bytes <= enough {
                self.confirmed += 1;
                return true;
            }
            bytes -= kept.bytes;
            readings -= kept.batch.readings.len();
            books.leave_out(first, next);
            false
        });
        (self.bytes, self.readings) = (bytes, readings);
        self.dirty.insert(run);
    }

    /// Everything older than what memory holds is settled: the end of the run's books follows, and what lies below needs no places.
    /// The disk learns it with the next block.
    fn settle_on(&mut self) {
        if let Some(books) = self.ledger.runs.get_mut(&self.run) {
            let to = books.settled_on(books.durable);
            self.left_out |= to > books.durable;
            books.durable = to;
        }
    }

    /// Books a loss, and notes it for the next commit to record.
    pub(super) fn lose(&mut self, run: RunId, first: u64, next: u64, cause: GapCause) {
        if self.ledger.is_folded(run) {
            return;
        }
        let lost = self.ledger.runs.entry(run).or_default().lose(first, next, cause);
        self.dirty.insert(run);
        for (first, next) in lost {
            if run == self.run {
                self.unrecorded = Some(self.unrecorded.map_or(first, |at| at.min(first)));
            }
            self.gaps.push(Gap::all(run, (first, next), cause));
        }
    }

    /// Books what becomes a dead letter: a batch as lost, a record (of no readings) as sent.
    pub(super) fn die(&mut self, (run, first, n): (RunId, u64, u64)) {
        if n == 0 {
            self.confirm(&[Confirmed::Event { run, number: first }]);
        } else {
            self.lose(run, first, first.saturating_add(n), GapCause::DeadLetter);
        }
    }

    /// Whether readings are missing before or between these: dropped from memory out of their turn.
    pub(super) fn has_break(&self, window: &[Kept]) -> bool {
        // Not from where the books end: that moves on over what is confirmed, in memory or not.
        let mut end = self.taken_to;
        window.iter().any(|kept| {
            let breaks = kept.batch.seq > end;
            end = end.max(kept.batch.end());
            breaks
        })
    }

    /// A number stands for all losses of its cause within its stretch, also for those that were told before.
    pub(super) fn for_all(&self, gap: Gap) -> Gap {
        let books = self.ledger.runs.get(&gap.of);
        let known = books.map_or(0, |books| books.lost.within_of(gap.first, gap.next, gap.cause));
        Gap { lost: gap.lost.max(known), ..gap }
    }

    /// Takes a record.
    pub(super) fn record(&mut self, body: Body, stamp: Stamp) {
        if self.closed {
            return;
        }
        self.salvage = salvage_of(&body, stamp).or(self.salvage.take());
        self.clocks.extend(body.correction());
        if self.clocks.len() > CLOCKS_MAX {
            self.clocks.pop_front();
        }
        let event = Event { run: self.run, number: self.next_event, stamp, body };
        self.next_event += 1;
        self.events.push_back(Arc::new(event));
        if self.events.len() > EVENTS_MAX {
            let proves = |event: &Arc<Event>| {
                matches!(
                    event.body,
                    Body::RunEnd { .. }
                        | Body::Gap { .. }
                        | Body::Gaps { .. }
                        | Body::Clock { .. }
                        | Body::Corruption { .. }
                )
            };
            let at = self.events.iter().position(|event| !proves(event)).unwrap_or_default();
            self.events.remove(at);
        }
    }

    /// A record that came back says how wrong a clock was: of an older boot than those that are known. `false`: of a known one, or there is no
    /// place for it.
    pub(super) fn hear_clock(&mut self, correction: Option<ClockCorrection>) -> bool {
        let known =
            |correction: &ClockCorrection| self.clocks.iter().any(|known| known.boot == correction.boot);
        let new = correction.filter(|correction| self.clocks.len() < CLOCKS_MAX && !known(correction));
        if let Some(correction) = new {
            self.clocks.push_front(correction);
        }
        new.is_some()
    }

    /// Takes a record that must not be lost: at most one for each run, and one for each file.
    pub(super) fn must_record(&mut self, body: Body, stamp: Stamp) {
        self.salvage = salvage_of(&body, stamp).or(self.salvage.take());
        let event = Event { run: self.run, number: self.next_event, stamp, body };
        self.next_event += 1;
        self.events.push_back(Arc::new(event));
    }

    /// Says that damaged files went unsearched. Of what was in them the books are brought up to date when the others were searched:
    /// what then is nowhere is lost.
    pub(super) fn give_up(&mut self, given_up: GivenUp, stamp: Stamp) {
        if given_up.files > 0 {
            self.unsearched += given_up.files;
            self.must_record(Body::Corruption { found: given_up.words(), saved: 0, lost: 0 }, stamp);
        }
    }

    /// Books confirmations.
    pub(super) fn confirm(&mut self, confirmed: &[Confirmed]) {
        for one in confirmed {
            match *one {
                Confirmed::Batch { run, seq, n } => {
                    self.confirmed += usize::from(run == self.run);
                    self.wire.take((run, seq, seq.saturating_add(n)));
                    if let Some(books) = self.ledger.runs.get_mut(&run) {
                        books.confirm(seq, seq.saturating_add(n));
                        self.dirty.insert(run);
                    }
                }
                Confirmed::Event { run, number } => {
                    self.sent.insert((run, number));
                }
            }
        }
    }

    /// Whether the window closes now. A writer that is awake shortly before its end does not sleep for the rest.
    pub(super) fn due(&self, now: Instant) -> bool {
        let every = self.settings.commit_every;
        // With `keep = "unsent"` each acknowledgement that still comes saves a write.
        let early = if self.settings.keep == Keep::All { every / 10 } else { Duration::ZERO };
        let old = |at: Instant| now.saturating_duration_since(at) + early >= every;
        self.full() || self.ring.front().is_some_and(|kept| old(kept.at))
    }

    /// With `keep = "unsent"`: whether this need not be stored; then it is not.
    pub(super) fn leave_out(&mut self, run: RunId, first: u64, next: u64) -> bool {
        let Some(books) = self.ledger.runs.get_mut(&run) else { return self.ledger.is_folded(run) };
        let left_out = books.settled.covers(first, next) && books.may_leave_out();
        if left_out {
            books.leave_out(first, next);
            self.left_out = true;
        }
        left_out
    }

    /// With `keep = "unsent"`: drops what was confirmed in time from the front of the window.
    pub(super) fn skip_confirmed(&mut self) {
        if self.settings.keep != Keep::Unsent {
            return;
        }
        while let Some(kept) = self.ring.front() {
            let (run, first, next) = (kept.batch.run, kept.batch.seq, kept.batch.end());
            let (bytes, readings) = (kept.bytes, kept.batch.readings.len());
            if !self.leave_out(run, first, next) {
                return;
            }
            self.bytes -= bytes;
            self.readings -= readings;
            self.ring.pop_front();
            self.settle_on();
        }
    }

    /// What on disk waits to be sent: readings, and records.
    pub(super) fn waiting(&self) -> (u64, u64) {
        (self.ledger.sums().waiting, self.events_waiting.saturating_sub(self.sent.len() as u64))
    }

    /// Records that the server has not confirmed, stored or not.
    pub(super) fn records_waiting(&self) -> u64 {
        self.waiting().1 + (self.events.len() + self.gaps.len()) as u64
    }

    /// Below it nothing of the current run waits, by the books, and nothing is lost that a power cut would leave without a record.
    pub(super) fn settled_to(&self) -> u64 {
        let settled = self.ledger.runs.get(&self.run).map_or(0, |books| books.floor().min(books.durable));
        self.unrecorded.map_or(settled, |at| at.min(settled))
    }

    /// Something is lost that a power cut would leave without a record.
    pub(super) fn has_untold(&self) -> bool {
        self.unrecorded.is_some() || !self.gaps.is_empty()
    }

    /// A commit has recorded all losses but those that came while it was under way.
    pub(super) fn recorded(&mut self) {
        let own = self.gaps.iter().filter(|gap| gap.of == self.run);
        self.unrecorded = own.map(|gap| gap.first).min();
    }

    /// How far the current run is durable or settled.
    pub(super) fn durable(&self) -> u64 {
        self.ledger.runs.get(&self.run).map_or(0, |books| books.durable)
    }
}

/// What intake promises.
fn storable(batch: &Batch, run: RunId) -> bool {
    let fits = |reading: &Reading| usize::from(reading.point) < batch.shape.points.len();
    batch.run == run
        && !batch.readings.is_empty()
        && batch.readings.len() <= super::block::READINGS_MAX
        && batch.readings.iter().all(fits)
        && batch.readings.text_bytes() <= 4 * BATCH_BYTES_MAX
}

/// With its place in the memory ring.
fn bytes_of(batch: &Batch) -> usize {
    size_of::<Kept>() + batch.weight()
}

/// What a record of damage says, for the board.
pub(super) fn salvage_of(body: &Body, stamp: Stamp) -> Option<Salvage> {
    let Body::Corruption { found, saved, lost } = body else { return None };
    let found = found.clone();
    Some(Salvage { at_us: stamp.wall_us, found, saved: *saved, lost: *lost, ..Salvage::default() })
}
