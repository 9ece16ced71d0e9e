//! The tables of the spool's file, and how a connection is set up. Together with `block` enough to read the file.
//!
//! ```text
//! application_id 0x66737031 ("fsp1"), user_version 1, WAL, synchronous FULL. No secondary index: each would cost a page
//! a commit. A run as one number is counter * 2^32 + random, so that it sorts as its text does.
//!
//! spool  one row (id 1)  `mark` JSON: {"id": spool id, "floor": blocks with a smaller number are settled,
//!                        "counter": greatest run counter ever seen here, "confirmed": n, "losses": [..]: the sums of runs
//!                        that were folded away, "folded": [[key of the first, key of the last], ..]: which,
//!                        of those between two ends the counters,
//!                        "running_s": seconds the daemon has run with it, "ages": [[number, running_s], ..], see `age`,
//!                        "crc": ..}
//! run    one a life of which readings or records still wait, and the present one
//!                        `run`, `ended` (0 runs, 1 ended without warning, 2 ended in order), `last_wall_us`,
//!                        `books` JSON: {"durable": n, "settled": [[first, next], ..], "lost": [[first, next], ..],
//!                        "losses": [evicted, dropped, unstored, damaged, dead_lettered, expired],
//!                        "causes": a digit for each of "lost", its place in "losses"; absent if there is but one cause,
//!                        "forgotten": [limit, losses]: those of them that lie below the limit and are not in "lost"; absent if none,
//!                        "blockless": [limit, [[first, next], ..]]: settled ones that may have no block: any below the limit, and these;
//!                        absent if none,
//!                        "folded": [[first, next], ..]: settled ones that stand in the sums above; absent if none,
//!                        "resends": how often settled ones were let wait again; absent if never,
//!                        "end": {"clean": .., "last_wall_us": ..}: how it was said to end, if it was}. `durable` may lag behind the blocks
//!                        of the newest run: its newest block says more
//! shape  dictionary      `id`, `body` JSON, see `dictionary`
//! block  the ring        `place`, `number`, `head` (68 bytes) and `body`: together one block, see `block`. Both are empty if
//!                        the block was found damaged: its number stays
//! event  records         `id` (ascending, never used again), `run` and `number` (its name), `sent` (0 or 1), `body` JSON
//! dead   dead letters    `id`, `at_us`, `reason`, `run`, `seq`, `n`, `head` and `body` of a block that holds just the
//!                        batch, both empty for a record or if it was no longer there
//! ```
//!
//! The JSON texts of `spool`, `run` and `event` are sealed with a checksum, see `records`; blocks have their own, and `shape` is proved
//! by the blocks that use it. What shapes and books say stands once more beside the file, see `copy`.
//!
//! **The log.** The first commit of each log writes the page of `spool` (page 2), so that log and file can be held against each
//! other before SQLite puts them together, see `salvage`.
//!
//! **Versions.** A file of an older version is migrated in one transaction when it is opened ([`Schema`]). A newer file is not
//! touched: it is set aside into `newer/`, and taken back by the next program that knows its version.
//!
//! **The ring.** `place` is a point on a circle of 63-bit numbers. Numbers ascend with places from the oldest block to
//! the end of the circle and on from its beginning to the newest. A new block is put between the newest and the oldest: into a free place while the
//! file may grow, else into the row of the oldest, which costs one leaf page where deleting and inserting costs two.
//! There is no index by number: since numbers ascend around the circle, any block is found by bisection.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, Transaction};

/// "fsp1".
pub const APPLICATION_ID: i64 = 0x6673_7031;

/// The schema this program writes.
pub const VERSION: i64 = 1;

/// Bytes a page. Small, because a commit of a few readings rewrites one leaf page and the log holds a copy of it; see
/// the measurement in ARCHITECTURE.md.
pub const PAGE_SIZE: u64 = 1024;

/// The log is written back into the file at this length. Bigger saves nothing: blocks are written once.
pub const CHECKPOINT_BYTES: u64 = 512 * 1024;

/// ... and on a full disk from this.
const CHECKPOINT_BYTES_EARLY: u64 = 128 * 1024;

/// ... and never kept longer than this.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Readers that follow each other without a pause keep SQLite from beginning the log anew, however short they are: at this length
/// the writer waits for them. One commit more still fits.
pub const LOG_BYTES_FORCED: u64 = 6 * 1024 * 1024;

/// Prepared statements that are kept: all that a window, a span and a page of history need.
const STATEMENTS: usize = 24;

/// A step from one version to the next.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The version it begins with; it ends with one more.
    pub from: i64,
    /// What it does, inside the one transaction of the whole migration.
    pub apply: fn(&Transaction<'_>) -> rusqlite::Result<()>,
}

/// What a program knows: the version it writes, and the way there from each older one. A value, so that a test can be an
/// older or a newer program.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Newer files are not touched.
    pub version: i64,
    /// From version 1 on, ascending, without a hole.
    pub steps: &'static [Step],
}

/// This program.
pub const CURRENT: Schema = Schema { version: VERSION, steps: &[] };

const TABLES: &str = "
    CREATE TABLE spool (id INTEGER PRIMARY KEY CHECK (id = 1), mark TEXT NOT NULL) STRICT;
    CREATE TABLE run (run INTEGER PRIMARY KEY, ended INTEGER NOT NULL, last_wall_us INTEGER, books TEXT NOT NULL) STRICT;
    CREATE TABLE shape (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
    CREATE TABLE block (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE event (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, number INTEGER NOT NULL, sent INTEGER NOT NULL,
                        body TEXT NOT NULL) STRICT;
    CREATE TABLE dead (id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, reason TEXT NOT NULL, run INTEGER NOT NULL,
                       seq INTEGER NOT NULL, n INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL) STRICT;
";

/// What the hook of a commit saw of the log: how long it is, and what went wrong when it was written back into the file. Of its
/// hook's errors SQLite passes on that there was one, and not which (3.54: `SQLITE_ERROR`).
#[derive(Clone, Debug, Default)]
pub struct WriteBack(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    frames: AtomicU64,
    early: AtomicBool,
    failed: Mutex<Option<rusqlite::Error>>,
}

impl WriteBack {
    /// Of the commit that has just been made.
    pub fn outcome(&self) -> rusqlite::Result<()> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Bytes in the log, as of the last commit.
    pub fn log_bytes(&self) -> u64 {
        self.0.frames.load(Ordering::Relaxed) * (PAGE_SIZE + 24)
    }

    /// Whether the log is written back while most of its length is free: on a full disk a commit has to fit into what is left of it.
    pub fn set_early(&self, early: bool) {
        self.0.early.store(early, Ordering::Relaxed);
    }

    /// After a commit that made the log long: writes it back into the file. What goes wrong with that is an error of the commit,
    /// although it is in the log; the caller opens anew and takes it out again.
    fn write_back(&self, log: &mut Wal, pages: c_int) {
        let frames = u64::try_from(pages).unwrap_or_default();
        self.0.frames.store(frames, Ordering::Relaxed);
        let early = self.0.early.load(Ordering::Relaxed);
        if frames < if early { CHECKPOINT_BYTES_EARLY } else { CHECKPOINT_BYTES } / PAGE_SIZE {
            return;
        }
        let failed = log.checkpoint().err();
        let failed = failed.filter(|error| error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy));
        *self.0.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }
}

/// Settings of the one connection that writes; each commit asks for its [`WriteBack::outcome`].
pub fn set_up_writer(connection: &mut Connection) -> rusqlite::Result<WriteBack> {
    // Before the first table: it cannot change later. No effect on a file that exists.
    connection.pragma_update(None, "page_size", PAGE_SIZE.cast_signed())?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Not `wal_autocheckpoint`: it keeps quiet about a file that takes nothing, and the log would grow over its bound.
    let outcome = WriteBack::default();
    let hook = outcome.clone();
    connection.wal_hook(Some(move |log: &mut Wal, pages: c_int| {
        hook.write_back(log, pages);
        Ok(())
    }))?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX.cast_signed())?;
    set_up_any(connection)?;
    Ok(outcome)
}

/// Settings of any connection.
pub fn set_up_any(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "cache_size", -256)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Each statement of a commit is prepared once, not once a second.
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(std::time::Duration::from_millis(500))
}

/// Makes the tables of an empty file, in one transaction: those of version 1, and every step from there.
pub fn create(connection: &mut Connection, mark: &str, schema: &Schema) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO spool (id, mark) VALUES (1, ?1)", [mark])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    climb(&transaction, 1, schema)?;
    transaction.commit()
}

/// Brings an older file to this program's version, in one transaction: after a cut it is whole, and of one version or the other.
pub fn migrate(connection: &mut Connection, from: i64, schema: &Schema) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    climb(&transaction, from, schema)?;
    transaction.commit()
}

fn climb(transaction: &Transaction<'_>, from: i64, schema: &Schema) -> rusqlite::Result<()> {
    for step in schema.steps.iter().filter(|step| (from..schema.version).contains(&step.from)) {
        (step.apply)(transaction)?;
    }
    transaction.pragma_update(None, "user_version", schema.version)
}
