//! What the handle, the writer and the reader share, and how: the state ([`Inner`]), what wakes whom, and who may read what.
//!
//! One lock, held for moments and never across the disk: debug builds, so all tests, panic where one who holds it reads or
//! writes ([`off_the_lock`]).

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::SpoolError;
use super::api::{Asked, Committed, Confirmed, Resent};
use super::inner::Inner;
use super::ring::Spot;
use super::schema::Schema;
use super::writer::Flush;
use crate::model::Stamp;
use crate::status::Board;

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
    /// The disk does not give the reader what waits to be sent.
    Unread {
        /// As for [`Command::FileDamaged`].
        generation: u64,
        /// In words.
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
    /// Number of the newest block that the writer knows to be on the disk. What a failed commit has left there all the same is behind it, and
    /// given to nobody: it is taken out, and comes again or is told as lost.
    pub(super) newest_block: AtomicU64,
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
            newest_block: AtomicU64::new(0),
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
        let (oldest, untold) = {
            let inner = self.lock();
            (inner.in_hand.or(inner.ring.front().map(|kept| kept.at)), inner.has_untold())
        };
        self.board.update(|status| {
            let spool = &mut status.spool;
            if spool.state == "ok" || spool.state == "stalled" {
                "stalled".clone_into(&mut spool.state);
                spool.error = Some("a write or a sync has not come back".to_owned());
            }
            spool.unstored_seconds =
                oldest.map_or(0.0, |oldest| now.saturating_duration_since(oldest).as_secs_f64());
            if untold {
                (spool.oldest_us, spool.oldest_unknown) = (None, true);
            }
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
