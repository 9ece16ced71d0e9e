//! The spool of a daemon that does not run, for the command line. Reads only; holds the lock of the state directory
//! meanwhile, so that no daemon starts in between.

use std::path::{Path, PathBuf};

use super::SpoolError;
use super::api::{ExportPage, ExportQuery};
use super::aside;
use super::directory::{self, Lock};
use super::ledger::Ledger;
use super::open;
use super::ring;
use super::source::Source;
use super::store::{FILE, Found, StoreError, Trouble, found};
use super::{SpoolSettings, schema};
use crate::status::SpoolStatus;

/// A spool, open for reading.
#[derive(Debug)]
pub struct Offline {
    file: PathBuf,
    source: Source,
    ledger: Ledger,
    floor: u64,
    _lock: Lock,
}

impl Offline {
    /// Opens the spool of a state directory. [`SpoolError::Locked`]: a daemon runs, ask it instead.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        let file = directory.join(FILE);
        if !file.exists() && !aside::unfinished(directory) {
            let what = format!("{} does not exist: nothing was ever stored there", file.display());
            return Err(SpoolError::Unavailable(what));
        }
        let lock = directory::lock(directory)?;
        if aside::unfinished(directory) {
            let what = "it was being set aside when the power went; the next start completes that".to_owned();
            return Err(SpoolError::Damaged { file, what });
        }
        let refuse = |error: StoreError| refusal(&file, &error);
        let source = Source::open(&file).map_err(refuse)?;
        let version = "user_version";
        let version = source.connection().pragma_query_value(None, version, |row| row.get::<_, i64>(0));
        let version = version.map_err(|error| refuse(error.into()))?;
        if version > schema::VERSION {
            return Err(refuse(StoreError::Newer(version)));
        }
        let Found { mark, runs, .. } = found(source.connection()).map_err(refuse)?;
        let mut ledger = mark.ledger();
        for mut row in runs {
            if !row.ended {
                let last = open::last_of(source.connection(), row.run).map_err(refuse)?;
                let durable = last.map_or(0, |last| last.next).max(row.books.durable);
                row.books.durable = row.books.settled_on(durable);
            }
            ledger.runs.insert(row.run, row.books);
        }
        Ok(Self { file, source, ledger, floor: mark.floor, _lock: lock })
    }

    /// What the board would say.
    pub fn status(&self) -> SpoolStatus {
        let sums = self.ledger.sums();
        let oldest = ring::locate(self.source.connection(), self.floor).ok().flatten();
        let oldest = oldest.and_then(|spot| ring::headings(self.source.connection(), spot, 1).ok());
        let oldest = oldest.and_then(|headings| headings.first()?.header);
        let directory = self.file.parent().unwrap_or(Path::new("."));
        SpoolStatus {
            state: "not running".to_owned(),
            waiting: sums.waiting,
            oldest_us: oldest.filter(|_| sums.waiting > 0).map(|header| header.wall_min),
            confirmed: sums.confirmed,
            evicted: sums.losses.evicted,
            damaged: sums.losses.damaged + sums.losses.unstored,
            dropped: sums.losses.dropped,
            dead_lettered: sums.losses.dead_lettered,
            bytes: std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len()),
            bytes_max: open::bytes_max(&SpoolSettings::new(directory)),
            not_durable: directory::not_durable(directory),
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
