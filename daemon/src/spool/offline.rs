//! The spool of a daemon that does not run, for the command line. Reads only, [`resend`] apart; holds the lock of the state directory
//! meanwhile, so that no daemon starts in between.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::SpoolError;
use super::again::Search;
use super::api::{Asked, ExportPage, ExportQuery, Resent};
use super::aside;
use super::directory::{self, Lock};
use super::enter;
use super::ledger::Ledger;
use super::oldest::{self, Oldest};
use super::open;
use super::rescue;
use super::salvage::{self, LogFault};
use super::source::Source;
use super::store::{self, FILE, Found, RunUpdate, Store, StoreError, Trouble, Work, found, log_of};
use super::{SpoolSettings, schema};
use crate::model::RunId;
use crate::status::{Salvage, SpoolStatus};

/// A spool, open for reading.
#[derive(Debug)]
pub struct Offline {
    file: PathBuf,
    source: Source,
    ledger: Ledger,
    floor: u64,
    events_waiting: u64,
    salvage: Option<Salvage>,
    _lock: Lock,
}

impl Offline {
    /// Opens the spool of a state directory. [`SpoolError::Locked`]: a daemon runs, ask it instead.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        let (file, lock) = take(directory)?;
        let refuse = |error: StoreError| refusal(&file, &error);
        let source = Source::open(&file).map_err(refuse)?;
        let version = "user_version";
        let version = source.connection().pragma_query_value(None, version, |row| row.get::<_, i64>(0));
        let version = version.map_err(|error| refuse(error.into()))?;
        if version > schema::VERSION {
            return Err(refuse(StoreError::Newer(version)));
        }
        let found = found(source.connection()).map_err(refuse)?;
        let ledger = ledger_of(source.connection(), &found).map_err(refuse)?;
        let (floor, events_waiting, salvage) = (found.mark.floor, found.events_waiting, found.salvage);
        Ok(Self { file, source, ledger, floor, events_waiting, salvage, _lock: lock })
    }

    /// What the board would say, with the cap of the configuration; rates are known to a daemon only.
    pub fn status(&self, bytes_max: Option<u64>) -> SpoolStatus {
        let sums = self.ledger.sums();
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let oldest = if rescue::awaits(directory, &schema::CURRENT) {
            Oldest::UNKNOWN
        } else {
            Oldest::of(self.source.connection(), self.floor, oldest::first_waiting(&self.ledger))
        };
        let settings = SpoolSettings { bytes_max, ..SpoolSettings::new(directory) };
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let letters = store::letters(self.source.connection()).unwrap_or_default();
        SpoolStatus {
            state: "not running".to_owned(),
            waiting: sums.waiting,
            records_waiting: self.events_waiting,
            oldest_us: oldest.us,
            oldest_unknown: oldest.unknown,
            confirmed: sums.confirmed,
            evicted: sums.losses.evicted,
            expired: sums.losses.expired,
            damaged: sums.losses.damaged + sums.losses.unstored,
            dropped: sums.losses.dropped,
            dead_lettered: sums.losses.dead_lettered,
            dead_letters: letters.kept,
            records_refused: letters.records,
            dead_letter_reason: letters.newest,
            bytes: length(&self.file) + length(&log_of(&self.file)),
            bytes_max: open::bytes_max(&settings),
            not_durable: directory::not_durable(directory),
            salvage: self.salvage.clone(),
            ..SpoolStatus::default()
        }
    }

    /// Stored batches, page by page, as [`Spool::export`](super::Spool::export) gives them.
    pub fn export(&mut self, query: &ExportQuery) -> Result<ExportPage, SpoolError> {
        let ledger = &self.ledger;
        let page = self.source.export(query, &|run, first, next| ledger.settled(run, first, next));
        page.map_err(|error| refusal(&self.file, &error))
    }
}

/// Lets confirmed readings wait to be sent again, as [`Spool::resend`](super::Spool::resend) does, in the file of a daemon that does not run;
/// the next start sends them. All of it in one transaction.
pub fn resend(directory: &Path, asked: Asked) -> Result<Resent, SpoolError> {
    let (file, _lock) = take(directory)?;
    if let Some(what) = evidence(&file) {
        return Err(SpoolError::Damaged { what, file });
    }
    let refuse = |error: StoreError| refusal(&file, &error);
    let bytes_max = open::bytes_max(&SpoolSettings::new(directory));
    let (mut store, found) = Store::open(&file, bytes_max, &open::random_id()).map_err(refuse)?;
    let mut ledger = ledger_of(store.connection(), &found).map_err(refuse)?;
    let asked = Search::admit(asked, &ledger).map_err(SpoolError::NotThere)?;
    let mut search = Search::begin(asked, store.connection()).map_err(refuse)?;
    let mut mark = found.mark;
    while let Some(pieces) = search.step(store.connection(), store.dictionary()).map_err(refuse)? {
        search.take(pieces, &mut ledger, &mut mark.floor);
    }
    let again = search.runs();
    mark.take_folded(&ledger);
    let update = |run: &RunId| {
        let books = ledger.runs.get(run)?;
        let last_wall_us = found.runs.iter().find(|row| row.run == *run).and_then(|row| row.last_wall_us);
        Some(RunUpdate { run: *run, ended: books.ended(false), last_wall_us, books: books.for_disk() })
    };
    let runs: Vec<_> = again.iter().filter_map(update).collect();
    let floor = mark.floor;
    let work = Work { again: &again, runs: &runs, mark: Some(&mark), floor, ..Work::default() };
    let written = store.commit(&work).map_err(refuse)?;
    store.empty_log().map_err(refuse)?;
    let pressed = search.pressed(&store, &ledger, floor).map_err(refuse)?;
    Ok(search.finish(&ledger, (written.again, pressed)))
}

/// What a commit would wipe out: SQLite leaves out what stands behind a damaged frame of the log, and the log is emptied then. A start
/// of the daemon looks at it first.
fn evidence(file: &Path) -> Option<String> {
    let fault = match salvage::log_fault(file) {
        Some(LogFault::Unread) => "the disk does not give its log",
        Some(LogFault::Damaged | LogFault::Foreign) => "its log is damaged in the middle",
        None if open::log_is_missing(file) => "its log is missing",
        None => return None,
    };
    Some(format!(
        "{fault}; nothing was changed. Start the daemon first: it saves what can be saved, and can send again then"
    ))
}

/// The books of all runs. Of one that nobody ended the blocks say more than its row.
fn ledger_of(connection: &Connection, found: &Found) -> Result<Ledger, StoreError> {
    let mut ledger = found.mark.ledger();
    for row in &found.runs {
        let mut books = row.books.clone();
        if !row.ended {
            let (next, _) = enter::last_of(connection, (row.run, books.durable))?;
            books.durable = books.settled_on(next);
        }
        ledger.runs.insert(row.run, books);
    }
    Ok(ledger)
}

/// Locks the state directory and gives the spool's file, if there is one that may be opened: not one whose log has been moved
/// already.
fn take(directory: &Path) -> Result<(PathBuf, Lock), SpoolError> {
    let file = directory.join(FILE);
    if !file.exists() && !aside::unfinished(directory) && open::may_be_read(&file).is_ok() {
        let what = format!("{} does not exist: nothing was ever stored there", file.display());
        return Err(SpoolError::Unavailable(what));
    }
    let lock = directory::lock(directory)?;
    if aside::unfinished(directory) {
        let what = "it was being set aside when the power went; the next start completes that".to_owned();
        return Err(SpoolError::Damaged { file, what });
    }
    open::may_be_read(&file).map_err(|error| refusal(&file, &error))?;
    Ok((file, lock))
}

fn refusal(file: &Path, error: &StoreError) -> SpoolError {
    match error {
        StoreError::Newer(found) => {
            SpoolError::Newer { file: file.to_owned(), found: *found, known: schema::VERSION }
        }
        error if error.trouble() == Trouble::Damage => {
            SpoolError::Damaged { file: file.to_owned(), what: error.to_string() }
        }
        error => SpoolError::Unavailable(format!("{}: {error}", file.display())),
    }
}
