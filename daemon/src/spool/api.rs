//! What travels between the spool and its users: settings, spans, confirmations, questions. Plain data.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::Sample;
use serde::{Deserialize, Serialize};

use crate::model::event::Event;
use crate::model::{Batch, ClockQuality, RunId};

/// What of the stored readings is written to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Every reading; confirmed ones stay as local history until their place is needed.
    #[default]
    All,
    /// Only what is still unacknowledged `commit_every` after it was read: next to nothing on a good link.
    Unsent,
}

/// The `[spool]` table, and where the state lives.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoolSettings {
    /// The state directory. Cannot change while the daemon runs.
    pub directory: PathBuf,
    /// Cap of the file, bytes, at least [`BYTES_MAX_LEAST`]; `None`: the smaller of 1 GiB and a quarter of the file
    /// system.
    pub bytes_max: Option<u64>,
    /// Readings older than this go, by running time added up over boots; `None`: no limit. At least [`MAX_AGE_LEAST`].
    pub max_age: Option<Duration>,
    /// The loss window (P2), 0 to 60 s. 0: each append is committed at once, and sent only then.
    pub commit_every: Duration,
    /// What is written.
    pub keep: Keep,
    /// Refuse to open on a state directory that does not survive a power cut.
    pub require_durable: bool,
}

/// The least `max_age`.
pub const MAX_AGE_LEAST: Duration = Duration::from_secs(60);

/// The least cap of the file: 1 MiB.
pub const BYTES_MAX_LEAST: u64 = 1024 * 1024;

impl SpoolSettings {
    /// The defaults, for a state directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            bytes_max: None,
            max_age: None,
            commit_every: Duration::from_secs(1),
            keep: Keep::All,
            require_durable: false,
        }
    }
}

/// How far the spool has come; watched by those who must not run ahead of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Commits of this process.
    pub commits: u64,
    /// Readings of this run with `seq` below it are durable or settled.
    pub next_seq: u64,
    /// Changes when something that was confirmed waits again: who walks the backlog begins anew.
    pub resends: u64,
    /// Readings on disk, of all runs, that wait to be sent.
    pub waiting: u64,
    /// Records on disk that wait to be sent.
    pub records: u64,
    /// Readings in memory that wait to be sent, and that the disk should have taken by now.
    pub late: u64,
}

/// A place in the backlog, for [`Spool::span`](super::Spool::span). Good for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the last block that was given.
    pub(super) block: u64,
    /// Number of the last event row that was given.
    pub(super) event: u64,
    /// One past the last reading that was given out of memory.
    pub(super) late: u64,
}

impl Cursor {
    /// Before the oldest waiting item.
    pub const START: Self = Self { block: 0, event: 0, late: 0 };

    /// After a block, for tests of those who hold cursors.
    #[cfg(test)]
    pub(crate) fn after(block: u64) -> Self {
        Self { block, ..Self::START }
    }
}

/// One thing that waits to be sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Readings.
    Batch(Arc<Batch>),
    /// A record.
    Event(Arc<Event>),
}

/// A piece of the backlog: records first, then batches, oldest first; at most 256 blocks and 1 MiB decoded.
#[derive(Clone, Debug)]
pub struct Span {
    /// Never empty.
    pub items: Vec<Item>,
    /// Where to go on.
    pub next: Cursor,
}

/// One thing that need not be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Confirmed {
    /// A batch.
    Batch {
        /// Its run.
        run: RunId,
        /// Its first sequence number.
        seq: u64,
        /// How many it uses.
        n: u64,
    },
    /// A record.
    Event {
        /// The run that wrote it.
        run: RunId,
        /// Its number there.
        number: u64,
    },
}

impl From<&Batch> for Confirmed {
    fn from(batch: &Batch) -> Self {
        Self::Batch { run: batch.run, seq: batch.seq, n: batch.n() }
    }
}

impl From<&Event> for Confirmed {
    fn from(event: &Event) -> Self {
        Self::Event { run: event.run, number: event.number }
    }
}

/// Which stored values are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryQuery {
    /// Device name.
    pub device: String,
    /// Point name.
    pub point: String,
    /// From this wall clock on, µs.
    pub from_us: i64,
    /// Before this wall clock, µs.
    pub to_us: i64,
    /// The `next` of the page before.
    pub after: Option<HistoryCursor>,
    /// At most this many values, 1 to 10 000.
    pub limit: usize,
}

/// Where a page of history ended. Prints and parses as `block-seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    pub(super) block: u64,
    pub(super) seq: u64,
}

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.block, self.seq)
    }
}

/// The text is not a history cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this gateway: leave it out to begin anew")]
pub struct NotACursor;

impl FromStr for HistoryCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (block, seq) = text.split_once('-').ok_or(NotACursor)?;
        let number = |part: &str| part.parse().map_err(|_| NotACursor);
        Ok(Self { block: number(block)?, seq: number(seq)? })
    }
}

/// One stored value.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryValue {
    /// The run it was read in.
    pub run: RunId,
    /// Its own sequence number.
    pub seq: u64,
    /// Wall clock, µs.
    pub wall_us: i64,
    /// Trust in it.
    pub clock: ClockQuality,
    /// The value, or why there is none.
    pub sample: Sample,
}

/// A page of history, in the order of storing.
#[derive(Clone, Debug, Default)]
pub struct HistoryPage {
    /// At most `limit` values. May be empty although there is a `next`: a question is cut after 100 ms.
    pub values: Vec<HistoryValue>,
    /// Where to go on; `None` at the end.
    pub next: Option<HistoryCursor>,
}

/// Which stored batches are exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportQuery {
    /// Only this device.
    pub device: Option<String>,
    /// From this wall clock on, µs.
    pub from_us: Option<i64>,
    /// Before this wall clock, µs.
    pub to_us: Option<i64>,
    /// Only what waits to be sent.
    pub waiting: bool,
    /// Just a glance: a page is at most one block that has something, and clocks are trusted. It begins about where `from_us`
    /// was and ends about where `to_us` was; what was stored while the clock stood elsewhere is not looked for.
    pub glance: bool,
    /// The `next` of the page before.
    pub after: Option<HistoryCursor>,
}

/// A page of an export, in the order of storing.
#[derive(Clone, Debug, Default)]
pub struct ExportPage {
    /// Whole batches. May be empty although there is a `next`.
    pub batches: Vec<Arc<Batch>>,
    /// Share of the stored blocks that lie behind, 0 to 1.
    pub progress: f64,
    /// Where to go on; `None` at the end.
    pub next: Option<HistoryCursor>,
}

/// What is to be sent again although it was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The batches of a run that hold any of the readings `first..next`.
    Stretch {
        /// The run.
        run: RunId,
        /// The first reading.
        first: u64,
        /// One past the last.
        next: u64,
    },
    /// What was read from a wall clock on, µs. Stamps of a clock that nobody had set are taken as corrected later; if that
    /// never happened, the batch goes with the one stored before it.
    Since {
        /// From then on.
        wall_us: i64,
    },
}

/// What [`Spool::resend`](super::Spool::resend) did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// Readings that wait again.
    pub readings: u64,
    /// ... in so many batches.
    pub batches: u64,
    /// Those of them that lie in the oldest blocks of a full spool: what is stored next takes their place, and they are lost with a gap
    /// record, if they are not sent before.
    #[serde(default)]
    pub pressed: u64,
    /// Readings asked for that waited already.
    pub already: u64,
    /// Readings asked for that were lost, each in a gap record: they do not come back.
    pub lost: u64,
    /// Readings that were confirmed and are no longer in the spool, or were never written to it (`keep = "unsent"`); and of
    /// more than 1 024 losses the older ones, whose places are not known any more.
    pub gone: u64,
    /// Readings in blocks that cannot be read any more, as far as they may be among those asked for.
    pub damaged: u64,
    /// Readings that are there and lie too scattered to be noted at once: ask again when the others are sent.
    pub left: u64,
    /// Run ends, gaps and clock records that are sent again.
    pub records: u64,
    /// Wall clock of the oldest stored block, µs: before it nothing is there.
    pub oldest_us: Option<i64>,
    /// Runs concerned.
    pub runs_concerned: u64,
    /// The newest hundred of them, oldest first.
    pub runs: Vec<ResentRun>,
}

/// One run of a [`Resent`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResentRun {
    /// Its name.
    pub run: String,
    /// The first reading asked for, or found.
    pub first: u64,
    /// One past the last that the run has.
    pub next: u64,
    /// Readings that wait again.
    pub readings: u64,
    /// Readings between that are lost.
    pub lost: u64,
    /// Readings between that are no longer there.
    pub gone: u64,
}
