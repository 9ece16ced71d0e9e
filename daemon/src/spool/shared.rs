//! What the handle, the writer and the reader share: the memory ring, the ledger, and what waits to be written.
//!
//! One lock, held for moments and never across the disk: debug builds, so all tests, panic where one who holds it reads or
//! writes ([`off_the_lock`]). The memory ring is bounded in bytes; its rule for full: the
//! oldest batch not yet stored goes, is counted and becomes a gap.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::SpoolError;
use super::api::{Asked, Committed, Confirmed, Keep, Resent, SpoolSettings};
use super::ledger::Ledger;
use super::ring::Spot;
use super::schema::Schema;
use super::writer::Flush;
use crate::model::event::{Body, CLOCKS_MAX, ClockCorrection, Event, GapCause};
use crate::model::{BATCH_BYTES_MAX, Batch, Reading, RunId, Stamp};
use crate::status::{Board, Salvage};

/// Bound of the memory ring.
pub(super) const RING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A window closes when it holds this many readings, whatever the clock says.
pub(super) const WINDOW_READINGS: usize = super::block::READINGS_MAX;

/// ... or this many bytes of memory.
pub(super) const WINDOW_BYTES: usize = 1024 * 1024;

/// Records in memory; beyond it the oldest that proves nothing goes.
const EVENTS_MAX: usize = 1024;

/// A stretch of lost readings, to be recorded.
pub(super) type Gap = (RunId, u64, u64, GapCause);

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

/// What the handle asks of the writer.
#[derive(Debug)]
pub(super) enum Command {
    /// Say that the writer turns: the watchdog's question.
    Ping(oneshot::Sender<()>),
    /// Store now what was taken before.
    Flush(Flush),
    /// Move to the dead letters.
    DeadLetter {
        /// Which.
        refused: Vec<Confirmed>,
        /// Why.
        reason: String,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), SpoolError>>,
    },
    /// Let what was confirmed wait again.
    Resend {
        /// What.
        asked: Asked,
        /// Told how far the search is, 0 to 1.
        progress: watch::Sender<f64>,
        /// Done, or why not.
        reply: oneshot::Sender<Result<Resent, SpoolError>>,
    },
    /// The reader found a block that cannot be decoded.
    Damaged {
        /// Where.
        spot: Spot,
        /// What is wrong.
        what: String,
    },
    /// The reader came to the end, and what should wait did not turn up.
    NotFound,
    /// The reader found the file damaged.
    FileDamaged {
        /// Which file: [`Shared::generation`] when it was opened.
        generation: u64,
        /// What is wrong.
        what: String,
    },
    /// Take the new settings.
    Reconfigure,
    /// Everything of the run is stored: write its end.
    EndRun {
        /// Done, or the disk would not.
        reply: oneshot::Sender<()>,
    },
    /// Store the rest and end.
    Close {
        /// Write a run end in order.
        clean: bool,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), SpoolError>>,
    },
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
    /// Number of the next record of this run.
    pub(super) next_event: u64,
    /// One past the last reading numbered in this run.
    pub(super) numbered: u64,
    /// The books.
    pub(super) ledger: Ledger,
    /// Runs whose row is not what the ledger says.
    pub(super) dirty: BTreeSet<RunId>,
    /// Losses that are booked and not yet recorded.
    pub(super) gaps: Vec<Gap>,
    /// With `keep = "unsent"`: confirmed readings were left out, and the disk does not know yet that they were.
    pub(super) left_out: bool,
    /// Records confirmed, and not yet marked on disk.
    pub(super) sent: HashSet<(RunId, u64)>,
    /// Records on disk that wait.
    pub(super) events_waiting: u64,
    /// For the writer.
    pub(super) commands: VecDeque<Command>,
    /// Blocks with a smaller number are settled.
    pub(super) floor: u64,
    /// The writer wakes up by itself then.
    pub(super) sleeps_until: Instant,
    /// No more is taken.
    pub(super) closed: bool,
}

/// Shared by all.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Wakes the writer.
    pub(super) wake: Condvar,
    /// Tells how far the disk is.
    pub(super) committed: watch::Sender<Committed>,
    /// Where the state is shown.
    pub(super) board: Board,
    /// Stamps of our own records.
    pub(super) now: Box<dyn Fn() -> Stamp + Send + Sync>,
    /// Which records a reader may give out, and which may still grow.
    pub(super) handed_out: HandedOut,
    /// Held over each commit: tests copy the files between two.
    #[cfg(test)]
    pub(super) committing: Mutex<()>,
    /// Row id of the newest record on disk.
    pub(super) newest_event: AtomicI64,
    /// What this program knows.
    pub(super) schema: &'static Schema,
    /// Changes when the file is another one: the reader opens anew.
    pub(super) generation: AtomicU64,
}

/// What has been given out must not change any more, and what is being changed must not be given out. Locked for moments,
/// so that the reader never waits for a commit: the record that the commit may let grow it gives out another time.
#[derive(Debug, Default)]
pub(super) struct HandedOut(Mutex<Handed>);

#[derive(Debug, Default)]
struct Handed {
    /// Row id of the newest record that a reader may have given out.
    newest: i64,
    /// Row id of the record that a commit under way may let grow.
    growing: Option<i64>,
}

impl HandedOut {
    fn lock(&self) -> MutexGuard<'_, Handed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer begins a commit that may let this record grow; whether it may.
    pub(super) fn begin(&self, grows: Option<i64>) -> bool {
        let mut handed = self.lock();
        handed.growing = grows.filter(|id| *id > handed.newest);
        handed.growing.is_some()
    }

    /// The commit is over, and what it wrote is known.
    pub(super) fn end(&self) {
        self.lock().growing = None;
    }

    /// The reader gives out records; gives the newest that it may, `newest` being on the disk.
    pub(super) fn give(&self, newest: i64) -> i64 {
        let mut handed = self.lock();
        handed.newest = handed.growing.map_or(newest, |id| newest.min(id - 1));
        handed.newest
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Around the state that opening found.
    pub(super) fn new(
        inner: Inner,
        board: Board,
        now: Box<dyn Fn() -> Stamp + Send + Sync>,
        schema: &'static Schema,
    ) -> Self {
        Self {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            committed: watch::Sender::new(Committed::default()),
            board,
            now,
            handed_out: HandedOut::default(),
            #[cfg(test)]
            committing: Mutex::new(()),
            newest_event: AtomicI64::new(0),
            schema,
            generation: AtomicU64::new(0),
        }
    }

    /// Locks.
    pub(super) fn lock(&self) -> Held<'_> {
        Held::new(self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the writer something to do.
    pub(super) fn command(&self, command: Command) {
        self.lock().commands.push_back(command);
        self.wake.notify_one();
    }

    /// Asks that everything taken until now is stored.
    pub(super) fn flush(&self, deadline: Instant, reply: oneshot::Sender<Result<(), SpoolError>>) {
        let mut inner = self.lock();
        let next_seq = inner.numbered;
        inner.commands.push_back(Command::Flush(Flush { deadline, next_seq, reply }));
        drop(inner);
        self.wake.notify_one();
    }

    /// For a writer that a system call holds: says on the board that the disk stands still, until it shows how it is again.
    pub(super) fn show_stalled(&self, now: Instant) {
        let oldest = {
            let inner = self.lock();
            inner.in_hand.or(inner.ring.front().map(|kept| kept.at))
        };
        self.board.update(|status| {
            let spool = &mut status.spool;
            if spool.state == "ok" || spool.state == "stalled" {
                "stalled".clone_into(&mut spool.state);
                spool.error = Some("a write or a sync has not come back".to_owned());
            }
            spool.unstored_seconds =
                oldest.map_or(0.0, |oldest| now.saturating_duration_since(oldest).as_secs_f64());
        });
    }

    /// Waits for something to do, at most until `until`.
    pub(super) fn wait<'a>(&self, held: Held<'a>, until: Instant) -> Held<'a> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        Held::new(self.wake.wait_timeout(held.guard, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

thread_local! {
    /// Locks that this thread holds: one, or with a test's help two of two spools.
    static HOLDS: Cell<usize> = const { Cell::new(0) };
}

/// To be called by what reads or writes the disk: whoever needs the lock meanwhile would wait for the disk, sampling first.
pub(super) fn off_the_lock() {
    debug_assert!(HOLDS.get() == 0, "the disk is asked under the lock");
}

/// The lock, held.
#[derive(Debug)]
pub(super) struct Held<'a> {
    guard: MutexGuard<'a, Inner>,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted;

impl<'a> Held<'a> {
    fn new(guard: MutexGuard<'a, Inner>) -> Self {
        HOLDS.set(HOLDS.get() + 1);
        Self { guard, _counted: Counted }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
    }
}

impl Deref for Held<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.guard
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.guard
    }
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

    /// Drops the oldest until the ring fits its bound again.
    pub(super) fn bound(&mut self) {
        while self.bytes > RING_BYTES_MAX {
            let Some(kept) = self.ring.pop_front() else { return };
            self.bytes -= kept.bytes;
            self.readings -= kept.batch.readings.len();
            self.lose(kept.batch.run, kept.batch.seq, kept.batch.end(), GapCause::Overflow);
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
            match self.gaps.last_mut() {
                Some((of, _, end, why)) if *of == run && *end == first && *why == cause => *end = next,
                _ => self.gaps.push((run, first, next, cause)),
            }
        }
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

    /// Takes a record that must not be lost: at most one for each run, and one for each file.
    pub(super) fn must_record(&mut self, body: Body, stamp: Stamp) {
        self.salvage = salvage_of(&body, stamp).or(self.salvage.take());
        let event = Event { run: self.run, number: self.next_event, stamp, body };
        self.next_event += 1;
        self.events.push_back(Arc::new(event));
    }

    /// Books confirmations.
    pub(super) fn confirm(&mut self, confirmed: &[Confirmed]) {
        for one in confirmed {
            match *one {
                Confirmed::Batch { run, seq, n } => {
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

    /// With `keep = "unsent"`: drops what was confirmed in time from the front of the window.
    pub(super) fn skip_confirmed(&mut self) {
        if self.settings.keep != Keep::Unsent {
            return;
        }
        let own = self.run;
        while let Some(kept) = self.ring.front() {
            let (run, first, next) = (kept.batch.run, kept.batch.seq, kept.batch.end());
            if !self.ledger.settled(run, first, next) {
                return;
            }
            self.bytes -= kept.bytes;
            self.readings -= kept.batch.readings.len();
            self.ring.pop_front();
            self.left_out = true;
            if let Some(books) = self.ledger.runs.get_mut(&own) {
                books.durable = books.settled_on(books.durable);
            }
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
