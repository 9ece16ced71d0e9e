//! The reader: one thread with its own read-only connection that answers the questions of the handle, one by one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::SpoolError;
use super::api::{Cursor, ExportPage, ExportQuery, HistoryPage, HistoryQuery, Item, Span};
use super::block::BlockFault;
use super::ledger::Ledger;
use super::shared::{Command, Shared};
use super::source::{DamagedBlock, Source};
use super::store::{StoreError, Trouble};
use super::verify::{Check, Unbooked};
use crate::model::{Batch, RunId};

/// Questions that wait; more than these wait at the asker.
pub(super) const QUESTIONS_MAX: usize = 16;

/// A question, and where its answer goes.
#[derive(Debug)]
pub(super) enum Question {
    /// What waits.
    Span(Cursor, oneshot::Sender<Result<Option<Span>, SpoolError>>),
    /// Values of a point.
    History(HistoryQuery, oneshot::Sender<Result<HistoryPage, SpoolError>>),
    /// Stored batches.
    Export(ExportQuery, oneshot::Sender<Result<ExportPage, SpoolError>>),
    /// A turn of a check, which begins if there is none; and whether that was all.
    Verify(Option<Box<Check>>, oneshot::Sender<Result<(Box<Check>, bool), SpoolError>>),
    /// Whether the thread takes questions.
    Ping(oneshot::Sender<Result<(), SpoolError>>),
}

/// The thread's own state.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    file: PathBuf,
    source: Option<Source>,
    generation: u64,
}

impl Reader {
    /// For one file.
    pub(super) fn new(shared: Arc<Shared>, file: PathBuf) -> Self {
        Self { shared, file, source: None, generation: 0 }
    }

    /// Until no handle is left.
    pub(super) fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        // An asker that is gone does not want its answer any more.
        while let Some(question) = questions.blocking_recv() {
            match question {
                Question::Span(after, reply) if !reply.is_closed() => {
                    let _ = reply.send(self.span(after, Instant::now()));
                }
                Question::History(query, reply) if !reply.is_closed() => {
                    let _ = reply.send(self.ask(|source, _| source.history(&query)));
                }
                Question::Export(query, reply) if !reply.is_closed() => {
                    let _ = reply.send(self.ask(|source, shared| {
                        source.export(&query, &|run, first, next| settled(shared, run, first, next))
                    }));
                }
                Question::Verify(check, reply) if !reply.is_closed() => {
                    let _ = reply.send(self.verify(check));
                }
                Question::Ping(reply) => {
                    let _ = reply.send(Ok(()));
                }
                _ => {}
            }
        }
    }

    pub(super) fn verify(&mut self, check: Option<Box<Check>>) -> Result<(Box<Check>, bool), SpoolError> {
        let (file, generation) = (self.file.clone(), self.shared.generation.load(Ordering::Acquire));
        if check.as_ref().is_some_and(|check| check.generation != generation) {
            return Err(SpoolError::Unavailable(
                "the file was replaced meanwhile: verify it again".to_owned(),
            ));
        }
        self.ask(|source, shared| {
            let books = |look: &mut dyn FnMut(&Ledger, u64, Unbooked<'_>)| {
                let inner = shared.lock();
                let kept = |batch: &Batch| batch.run == inner.run && inner.in_memory(batch.seq).is_some();
                look(&inner.ledger, inner.floor, &|batch| inner.in_hand.is_some() || kept(batch));
            };
            let (mut check, ended) = source.verify(check, &file, &books)?;
            check.generation = generation;
            Ok((check, ended))
        })
    }

    /// Answers from the file, opening it if need be.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut Source, &Shared) -> Result<T, StoreError>,
    ) -> Result<T, SpoolError> {
        self.answer(question).map_err(|error| SpoolError::Unavailable(error.to_string()))
    }

    fn answer<T>(
        &mut self,
        question: impl FnOnce(&mut Source, &Shared) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let generation = shared.generation.load(Ordering::Acquire);
        let answer = self.source().and_then(|source| {
            let answer = question(source, &shared);
            for DamagedBlock { spot, fault } in source.damaged.drain(..) {
                let what = fault.to_string();
                shared.command(match fault {
                    // Not the block: the dictionary, and with it all blocks that use it.
                    BlockFault::Dictionary(_) => Command::FileDamaged { generation, what },
                    _ => Command::Damaged { spot, what },
                });
            }
            answer
        });
        answer.inspect_err(|error| {
            self.source = None;
            if error.trouble() == Trouble::Damage {
                let what = error.to_string();
                shared.command(Command::FileDamaged { generation, what });
            }
        })
    }

    fn source(&mut self) -> Result<&mut Source, StoreError> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.generation != generation {
            self.source = None;
            self.generation = generation;
        }
        match &mut self.source {
            Some(source) => Ok(source),
            none => Ok(none.insert(Source::open(&self.file)?)),
        }
    }

    /// What waits behind a place: on the disk, and if it gives nothing, what memory keeps although the disk should have it.
    pub(super) fn span(&mut self, after: Cursor, now: Instant) -> Result<Option<Span>, SpoolError> {
        let stored = self.stored(after);
        if matches!(stored, Ok(Some(_))) {
            return stored;
        }
        let late = self.shared.lock().give_late(after.late, now);
        let Some(last) = late.last() else { return stored };
        let next = Cursor { late: last.end(), ..after };
        Ok(Some(Span { items: late.into_iter().map(Item::Batch).collect(), next }))
    }

    fn stored(&mut self, after: Cursor) -> Result<Option<Span>, SpoolError> {
        let ((waiting, records), floor) = {
            let inner = self.shared.lock();
            (inner.waiting(), inner.floor)
        };
        if waiting == 0 && records == 0 {
            return Ok(None);
        }
        // What is on disk now may be given out, and must not change from here on.
        let newest = self.shared.handed_out.give(self.shared.newest_event.load(Ordering::Acquire));
        let span = self.answer(|source, shared| {
            let mut next = after;
            let mut items = Vec::new();
            if records > 0 {
                for (id, event) in source.records(after.event)? {
                    if id > newest.cast_unsigned() {
                        break;
                    }
                    next.event = id;
                    if !shared.lock().sent.contains(&(event.run, event.number)) {
                        items.push(Item::Event(Arc::new(event)));
                    }
                }
            }
            if waiting > 0 {
                let known = |run, first, next| settled(shared, run, first, next);
                // Asked now: the file is open, and if it is another one its numbers are others.
                let newest = shared.newest_block.load(Ordering::Acquire);
                let (batches, at) = source.waiting(after, (floor, newest), &known)?;
                next.block = at;
                items.extend(batches);
            }
            if items.is_empty() && waiting > 0 && after == Cursor::START {
                shared.command(Command::NotFound);
            }
            Ok(if items.is_empty() { None } else { Some(Span { items, next }) })
        });
        span.map_err(|error| {
            let what = error.to_string();
            if error.trouble() == Trouble::Unread {
                self.shared.command(Command::Unread { generation: self.generation, what: what.clone() });
            }
            SpoolError::Unavailable(what)
        })
    }
}

fn settled(shared: &Shared, run: RunId, first: u64, next: u64) -> bool {
    shared.lock().ledger.settled(run, first, next)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::model::{BootId, ClockQuality, Stamp};
    use crate::spool::{Cursor, Spool, SpoolSettings};
    use crate::status::Board;

    #[test]
    fn a_reader_that_hangs_in_a_question_answers_no_ping() {
        let folder = tempfile::tempdir().unwrap();
        let now = || Stamp { wall_us: 0, mono_us: 0, boot: BootId(1), clock: ClockQuality::Synced };
        let spool = Spool::open(SpoolSettings::new(folder.path()), Board::default(), now).unwrap().spool;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // What every question needs is held.
        let held = spool.shared.lock();
        let short = Duration::from_millis(200);
        let mut question = Box::pin(spool.span(Cursor::START));
        assert!(runtime.block_on(async { tokio::time::timeout(short, &mut question).await }).is_err());
        let mut ping = Box::pin(spool.ping_reader());
        assert!(runtime.block_on(async { tokio::time::timeout(short, &mut ping).await }).is_err());
        drop(held);
        let long = Duration::from_secs(30);
        runtime.block_on(async { tokio::time::timeout(long, ping).await }).unwrap().unwrap();
        assert!(runtime.block_on(question).is_ok());
    }
}
