//! The spool without its threads: the same writer and reader, taken step by step by one caller, at times that it gives.
//!
//! For those who must repeat exactly what they did: the power cuts of `tests/crash`. What is done in a step is the writer's
//! own; only the waiting between two steps is left out. It asks no clock but for figures on the board, and for the time a
//! question or a search may take. Dropping it is the end of a process without warning.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::api::{Committed, Confirmed, Cursor, Span, SpoolSettings};
use super::directory::Lock;
use super::ledger::RunBooks;
use super::parts::Parts;
use super::reader::Reader;
use super::schema::{self, Schema};
use super::shared::{Command, Shared};
use super::writer::Writer;
use super::{SpoolError, open};
use crate::model::event::Body;
use crate::model::{Batch, RunId, Stamp};
use crate::status::Board;

/// A spool in the hands of one caller.
#[derive(Debug)]
pub struct Stepped {
    pub(super) shared: Arc<Shared>,
    writer: Writer,
    reader: Reader,
    _lock: Option<Lock>,
    /// The life that began with it.
    pub run: RunId,
    /// Neither spool nor sidecar could be written.
    pub volatile: bool,
}

impl Stepped {
    /// As [`Spool::open`](super::Spool::open).
    pub fn open(
        settings: SpoolSettings,
        board: Board,
        stamp: impl Fn() -> Stamp + Send + Sync + 'static,
        now: Instant,
    ) -> Result<Self, SpoolError> {
        Self::open_as(settings, (board, &schema::CURRENT), stamp, now)
    }

    /// As [`Spool::open_as`](super::Spool::open_as).
    pub fn open_as(
        settings: SpoolSettings,
        (board, known): (Board, &'static Schema),
        stamp: impl Fn() -> Stamp + Send + Sync + 'static,
        now: Instant,
    ) -> Result<Self, SpoolError> {
        Self::open_named(settings, (board, known), stamp, (now, open::random_part()))
    }

    /// ... with a random part for the run's name that the caller has drawn.
    pub fn open_named(
        settings: SpoolSettings,
        (board, known): (Board, &'static Schema),
        stamp: impl Fn() -> Stamp + Send + Sync + 'static,
        (now, random): (Instant, u32),
    ) -> Result<Self, SpoolError> {
        let Parts { shared, mut writer, reader, lock, run, volatile } =
            Parts::open(settings, (board, known), Box::new(stamp), (now, random))?;
        writer.begin();
        Ok(Self { shared, writer, reader, _lock: lock, run, volatile })
    }

    /// As [`Spool::append`](super::Spool::append).
    pub fn append(&self, batch: Arc<Batch>, now: Instant) {
        self.shared.lock().append(batch, now);
    }

    /// As [`Spool::record`](super::Spool::record).
    pub fn record(&self, body: Body, stamp: Stamp) {
        self.shared.lock().record(body, stamp);
    }

    /// As [`Spool::confirm`](super::Spool::confirm).
    pub fn confirm(&self, confirmed: &[Confirmed]) {
        self.shared.lock().confirm(confirmed);
    }

    /// As [`Spool::sends`](super::Spool::sends).
    pub fn sends(&self, what: &Confirmed) -> bool {
        self.shared.lock().sends(what)
    }

    /// As [`Spool::came_back`](super::Spool::came_back).
    pub fn came_back(&self, what: &[Confirmed]) {
        self.shared.lock().came_back(what);
    }

    /// What the writer does when it wakes at `now`.
    pub fn turn(&mut self, now: Instant) {
        let commands = {
            let mut inner = self.shared.lock();
            inner.skip_confirmed();
            inner.commands.drain(..).collect()
        };
        self.writer.step(commands, now);
    }

    /// A turn that is cut off after what the writer was told, before the rest of it.
    #[cfg(test)]
    pub(super) fn obey_only(&mut self) {
        let commands: Vec<_> = self.shared.lock().commands.drain(..).collect();
        for command in commands {
            self.writer.obey(command);
        }
    }

    /// Whether files are being searched, the ring is being audited, or the disk is in trouble.
    pub fn busy(&self) -> bool {
        self.writer.busy()
    }

    /// What the books say of a run; `None`: they know nothing of it, or it was folded away.
    pub fn books_of(&self, run: RunId) -> Option<RunBooks> {
        self.shared.lock().ledger.runs.get(&run).cloned()
    }

    /// Whether a run was folded away.
    pub fn has_folded(&self, run: RunId) -> bool {
        self.shared.lock().ledger.is_folded(run)
    }

    /// How far the disk is.
    pub fn committed(&self) -> Committed {
        *self.shared.committed.borrow()
    }

    /// As [`Spool::span`](super::Spool::span).
    pub fn span(&mut self, after: Cursor) -> Result<Option<Span>, SpoolError> {
        self.reader.span(after, self.writer.now)
    }

    /// As [`Spool::settled_to`](super::Spool::settled_to).
    pub fn settled_to(&self) -> u64 {
        self.shared.lock().settled_to()
    }

    /// As [`Spool::dead_letter`](super::Spool::dead_letter), with the turns that follow, as long as they store something.
    pub fn dead_letter(
        &mut self,
        refused: Vec<Confirmed>,
        reason: &str,
        now: Instant,
    ) -> Result<(), SpoolError> {
        let (reply, mut answer) = oneshot::channel();
        self.shared.command(Command::DeadLetter { refused, reason: reason.to_owned(), reply });
        loop {
            let before = self.committed().commits;
            self.turn(now);
            match answer.try_recv() {
                Ok(done) => return done,
                Err(_) if self.committed().commits == before => return Err(SpoolError::Closed),
                Err(_) => {}
            }
        }
    }

    /// As [`Spool::clocks`](super::Spool::clocks).
    #[cfg(test)]
    pub(super) fn clocks(&self) -> Vec<crate::model::event::ClockCorrection> {
        self.shared.lock().clocks.iter().copied().collect()
    }

    /// Which opening of the file this is.
    #[cfg(test)]
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(std::sync::atomic::Ordering::Acquire)
    }

    /// What a reader or the page tells the writer, for its next turn.
    #[cfg(test)]
    pub(super) fn tell(&self, command: Command) {
        self.shared.command(command);
    }

    /// As [`Spool::verify`](super::Spool::verify).
    #[cfg(test)]
    pub(super) fn verify(&mut self) -> super::Verified {
        let mut check = None;
        loop {
            let (going, ended) = self.reader.verify(check).expect("readable");
            if ended {
                return going.found;
            }
            check = Some(going);
        }
    }

    /// The writer waits so for a reader that is in its way.
    #[cfg(test)]
    pub(super) fn when_busy(&mut self, waits: impl FnMut(i32) -> bool + Send + 'static) {
        self.writer.store.as_mut().expect("open").when_busy(waits);
    }

    /// As [`Spool::close`](super::Spool::close).
    pub fn close(mut self, clean: bool, now: Instant) -> Result<(), SpoolError> {
        let (reply, mut answer) = oneshot::channel();
        self.shared.command(Command::Close { clean, reply });
        self.turn(now);
        answer.try_recv().map_err(|_| SpoolError::Closed)?
    }
}
