//! The spool: keeps every numbered reading until the broker has acknowledged it, and as local history after that.
//!
//! This is the handle that the rest of the daemon holds. `append`, `record` and `confirm` never block and never
//! fail: trouble with the disk is the spool's own business, shown on the board. Behind it stand two threads: the
//! [`writer`], which alone writes the [`store`], and the [`reader`].
//!
//! Reading order: [`block`] and [`schema`] (what is on disk), [`ledger`] (what is settled), [`ring`] and [`store`] (the file),
//! [`inner`], [`shared`] and [`writer`] (from memory to disk), [`source`] and [`reader`] (questions), [`parts`], [`open`] and [`enter`]
//! (recovery), [`again`] (sending again).
//!
//! Promises: P1, P2, P3, P4 and, for the disk, P7 and P10.

mod again;
pub mod age;
mod api;
mod aside;
pub mod block;
mod blockless;
mod copy;
pub mod dictionary;
mod directory;
mod enter;
mod error;
mod forgotten;
mod gaps;
mod inner;
mod intervals;
mod late;
pub mod ledger;
mod lost;
mod meter;
pub mod offline;
mod oldest;
mod open;
mod parts;
mod reader;
pub mod records;
mod rescue;
pub mod ring;
pub mod salvage;
pub mod schema;
mod shared;
pub mod source;
pub mod stepped;
pub mod store;
mod taken_back;
#[cfg(test)]
mod tests;
pub mod verify;
mod wire;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

pub use api::{
    Asked, BYTES_MAX_LEAST, Committed, Confirmed, Cursor, ExportPage, ExportQuery, HistoryCursor,
    HistoryPage, HistoryQuery, HistoryValue, Item, Keep, MAX_AGE_LEAST, NotACursor, Resent, ResentRun, Span,
    SpoolSettings,
};
pub use directory::{in_use, not_durable, remembers, write_sidecar};
pub use error::SpoolError;
pub(crate) use open::durability;

use crate::model::event::{Body, ClockCorrection};
use crate::model::{Batch, RunId, Stamp};
use crate::status::Board;
use parts::Parts;
use reader::{QUESTIONS_MAX, Question};
use schema::Schema;
use shared::{Command, Shared};
use verify::Verified;
use wire::Wire;

/// A writer that answers no question for so long stands still with the disk.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// What is to be sent again waits so long for what is not on the disk yet.
const STORED_FIRST: Duration = Duration::from_secs(5);

/// What [`Spool::open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub spool: Spool,
    /// The life of the daemon that begins now.
    pub run: RunId,
    /// Neither spool nor sidecar could be written: the run exists in memory only.
    pub volatile: bool,
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
    threads: Arc<Threads>,
}

/// What must outlive all handles.
#[derive(Debug)]
struct Threads {
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Dropped with the last handle, or by `close`.
    lock: Mutex<Option<directory::Lock>>,
}

impl Spool {
    /// Opens the spool of a state directory: takes its lock, recovers what the last run left, begins a run. Blocks.
    ///
    /// `now` is asked for the stamp of records that the spool writes by itself. The only errors are a second instance, and a
    /// directory that `require_durable` refuses: with a disk that cannot be used the run begins in memory.
    pub fn open(
        settings: SpoolSettings,
        board: Board,
        now: impl Fn() -> Stamp + Send + Sync + 'static,
    ) -> Result<Opened, SpoolError> {
        Self::open_as(settings, board, now, &schema::CURRENT)
    }

    /// Opens the spool as a program that knows this schema does: what an update, or one that was rolled back, makes of it.
    pub fn open_as(
        settings: SpoolSettings,
        board: Board,
        now: impl Fn() -> Stamp + Send + Sync + 'static,
        known: &'static Schema,
    ) -> Result<Opened, SpoolError> {
        let parts =
            Parts::open(settings, (board, known), Box::new(now), (Instant::now(), open::random_part()))?;
        let Parts { shared, writer, reader, lock, run, volatile } = parts;
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writer =
            thread("spool-writer").spawn(move || writer.run()).expect("the system has a thread left");
        thread("spool-reader").spawn(move || reader.run(asked)).expect("the system has a thread left");
        let threads = Threads { writer: Mutex::new(Some(writer)), lock: Mutex::new(lock) };
        let spool = Self { shared, questions, threads: Arc::new(threads) };
        Ok(Opened { spool, run, volatile })
    }

    /// Takes a batch. Never blocks; when memory is full because the disk fails, the oldest not yet stored goes, counted and
    /// recorded as a gap.
    pub fn append(&self, batch: Arc<Batch>) {
        if self.shared.lock().append(batch, Instant::now()) {
            self.shared.wake.notify_one();
        }
    }

    /// Takes a record. It is stored with the next window.
    pub fn record(&self, body: Body, stamp: Stamp) {
        self.shared.lock().record(body, stamp);
        self.shared.wake.notify_one();
    }

    /// Corrections of the clock that are known from records, sent ones too, oldest first: older backlog of the same boot
    /// needs them.
    pub fn clocks(&self) -> Vec<ClockCorrection> {
        self.shared.lock().clocks.iter().copied().collect()
    }

    /// How far the disk is. Changes with each commit.
    pub fn committed(&self) -> watch::Receiver<Committed> {
        self.shared.committed.subscribe()
    }

    /// The next piece of what waits, oldest first; `None`: nothing behind `after` can be given now. What a failing disk does not take comes
    /// out of memory, behind what is stored.
    pub async fn span(&self, after: Cursor) -> Result<Option<Span>, SpoolError> {
        self.ask(|reply| Question::Span(after, reply)).await
    }

    /// Below it every reading of this life that is on the disk is confirmed, or lost and in a gap record. That `span` gives nothing
    /// does not say so: what waits may lie in a file that was set aside.
    pub fn settled_to(&self) -> u64 {
        self.shared.lock().settled_to()
    }

    /// These need not be sent again. Known in memory at once, on disk with a commit at most 10 s later; a batch may be
    /// confirmed before it is stored.
    pub fn confirm(&self, confirmed: &[Confirmed]) {
        self.shared.lock().confirm(confirmed);
    }

    /// Something goes to the server now. `false`: it need not, and must not: it was confirmed before, or is told as lost. What went is on the
    /// wire until it is confirmed or [came back](Spool::came_back), and makes no room meanwhile if it can be waited for.
    pub fn sends(&self, what: &Confirmed) -> bool {
        self.shared.lock().sends(what)
    }

    /// These went and are not on the wire any more: refused, or their connection is over.
    pub fn came_back(&self, what: &[Confirmed]) {
        self.shared.lock().came_back(what);
    }

    /// Nothing is on the wire: who sends begins.
    pub fn nothing_is_sent(&self) {
        self.shared.lock().wire = Wire::default();
    }

    /// Moves batches and records that the broker refuses for good out of the backlog, into a bounded table. Answers when they
    /// are stored there; while the disk fails that takes as long as the disk.
    pub async fn dead_letter(&self, refused: Vec<Confirmed>, reason: String) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.command(Command::DeadLetter { refused, reason, reply });
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Lets confirmed readings that are still stored wait to be sent again. `progress` is told how far the search is, 0 to 1.
    ///
    /// What was appended before is stored first: the newest readings are confirmed before they are on the disk, and
    /// only there are they looked for.
    pub async fn resend(&self, asked: Asked, progress: watch::Sender<f64>) -> Result<Resent, SpoolError> {
        if let Err(SpoolError::Closed) = self.flush(Instant::now() + STORED_FIRST).await {
            return Err(SpoolError::Closed);
        }
        // Of a disk that fails the search itself tells, and of one that is slow it sends what is stored.
        let (reply, answer) = oneshot::channel();
        self.shared.command(Command::Resend { asked, progress, reply });
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Stored values of one point.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, SpoolError> {
        self.ask(|reply| Question::History(query, reply)).await
    }

    /// Stored batches, page by page.
    pub async fn export(&self, query: ExportQuery) -> Result<ExportPage, SpoolError> {
        self.ask(|reply| Question::Export(query, reply)).await
    }

    /// Checks the file while it is in use, in turns of 100 ms: everything but SQLite's own structure. `progress` is told how far it is.
    pub async fn verify(&self, progress: watch::Sender<f64>) -> Result<Verified, SpoolError> {
        let mut check = None;
        loop {
            let (going, ended) = self.ask(|reply| Question::Verify(check, reply)).await?;
            progress.send_replace(going.progress());
            if ended {
                return Ok(going.found);
            }
            check = Some(going);
        }
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, SpoolError>>) -> Question,
    ) -> Result<T, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(question(reply)).await.map_err(|_| SpoolError::Closed)?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// What is written, by the settings in force.
    pub fn keep(&self) -> Keep {
        self.shared.lock().settings.keep
    }

    /// Takes new settings; the directory stays what it was.
    pub fn reconfigure(&self, settings: SpoolSettings) {
        let mut inner = self.shared.lock();
        let before = std::mem::replace(&mut inner.settings, settings);
        inner.settings.directory = before.directory;
        drop(inner);
        self.shared.command(Command::Reconfigure);
    }

    /// Waits until the writer takes a turn; writes nothing. It turns even while the disk fails, unless a system call holds it: then
    /// it cannot show how it is, and who waits here does it.
    pub async fn ping(&self) -> Result<(), SpoolError> {
        let (reply, mut answer) = oneshot::channel();
        self.shared.command(Command::Ping(reply));
        loop {
            match tokio::time::timeout(STALLED_AFTER, &mut answer).await {
                Ok(answer) => return answer.map_err(|_| SpoolError::Closed),
                Err(_) => self.shared.show_stalled(Instant::now()),
            }
        }
    }

    /// Waits until the reader takes a question: all that were asked before are answered then.
    pub async fn ping_reader(&self) -> Result<(), SpoolError> {
        self.ask(Question::Ping).await
    }

    /// Waits until everything appended and recorded before this call is stored.
    pub async fn flush(&self, deadline: Instant) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.flush(deadline, reply);
        let late = |_| SpoolError::Late("the disk does not answer".to_owned());
        let answer = tokio::time::timeout_at(deadline.into(), answer).await.map_err(late)?;
        answer.map_err(|_| SpoolError::Closed)?
    }

    /// Writes the run end, so that it can still be sent; for when sampling has stopped and a flush has succeeded.
    pub async fn end_run(&self) {
        let (reply, answer) = oneshot::channel();
        self.shared.command(Command::EndRun { reply });
        // A writer that has ended has nothing more to say; `close` tells why.
        let _ = answer.await;
    }

    /// Whether records wait to be sent.
    pub fn records_wait(&self) -> bool {
        self.shared.lock().events_waiting > 0
    }

    /// Stores the rest, writes the run end if [`Spool::end_run`] has not (`clean`: sampling has stopped in order), ends the writer, gives the directory
    /// free. Other clones of the handle do nothing from then on.
    pub async fn close(self, clean: bool) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.command(Command::Close { clean, reply });
        let answer = answer.await.map_err(|_| SpoolError::Closed)?;
        let writer = self.threads.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It has answered with its last breath: this does not wait.
        let ended = writer.is_none_or(|writer| writer.join().is_ok());
        drop(self.threads.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        if ended { answer } else { Err(SpoolError::Closed) }
    }
}
