//! Verifying a spool: whether its file, every block and the books say the same. Looks and never writes.
//!
//! [`file()`] checks one that no daemon uses: the spool itself, a copy, a backup, one in quarantine. A file without a log is
//! opened as immutable. With a log, SQLite would want locks, an index beside the file and a checkpoint at the end; so it
//! is opened read-only through a VFS without locks, with the index in memory and without a checkpoint. Neither leaves a
//! trace. Nobody must write meanwhile: if file or log change, the answer is void and says so.
//!
//! While the daemon runs, its reader takes the same [`Check`] in turns of 100 ms ([`Spool::verify`](super::Spool::verify)). Then SQLite's own
//! structure is not checked: that would be one transaction over the whole file, and the log could not be emptied.
//!
//! Bounded: a hundred faults are said, the others counted; per run at most 4096 stretches are remembered, beyond
//! which the check for readings that are in two blocks forgets the lowest.

mod check;

pub(super) use check::{Books, Check, Unbooked};

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use super::records::{books_of, mark_of, run_of};
use super::store::{StoreError, dictionary, log_of};
use super::{enter, open, schema};

/// Faults said one by one.
const FAULTS_SAID: usize = 100;

/// Tables of a spool.
const TABLES: [&str; 6] = ["spool", "run", "shape", "block", "event", "dead"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // what is counted is what it says
pub struct Verified {
    pub file: PathBuf,
    pub id: String,
    pub bytes: u64,
    pub runs: u64,
    pub blocks: u64,
    pub batches: u64,
    pub readings: u64,
    /// Wall clock of the oldest and of the newest batch, µs.
    pub from_to_us: Option<(i64, i64)>,
    /// By the books.
    pub waiting: u64,
    pub confirmed: u64,
    pub lost: u64,
    pub records: u64,
    pub records_waiting: u64,
    pub dead_letters: u64,
    /// SQLite's own structure was checked too.
    pub structure: bool,
    /// What is wrong, the first hundred.
    pub faults: Vec<String>,
    /// How many more there are.
    pub more_faults: u64,
}

impl Verified {
    /// Nothing is wrong.
    pub fn sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_SAID {
            self.faults.push(what);
        } else {
            self.more_faults += 1;
        }
    }
}

/// Why a file could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// It cannot be read at all. Exit 66; a person looks at name and rights.
    #[error("{} cannot be read: {why}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// In words.
        why: String,
    },
    /// Somebody wrote to it meanwhile. Exit 75; try again, or verify a copy.
    #[error("{} changed while it was being read: is a daemon starting? verify it again, or a copy of it", .0.display())]
    Changed(PathBuf),
}

/// Verifies a file that nobody writes to. `progress` is told a share, 0 to 1.
pub fn file(path: &Path, mut progress: impl FnMut(f64)) -> Result<Verified, Unverified> {
    let unreadable = |why: String| Unverified::Unreadable { file: path.to_owned(), why };
    let before = state(path).map_err(|error| unreadable(error.to_string()))?;
    if !before.0.1 {
        return Err(unreadable("it is no file".to_owned()));
    }
    File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let damaged = |error: &StoreError| {
        let mut found = Verified { file: path.to_owned(), ..Verified::default() };
        found.fault(format!("it cannot be read: {error}"));
        found
    };
    let opened = open::may_be_read(path).and_then(|()| quietly(path));
    let mut found = match opened.and_then(|connection| all(path, &connection, &mut progress)) {
        Ok(found) => found,
        Err(StoreError::Newer(version)) => {
            let known = schema::VERSION;
            return Err(unreadable(format!(
                "a newer fieldspool made it (schema {version}, this one knows {known})"
            )));
        }
        Err(error) => damaged(&error),
    };
    found.bytes = before.0.0 + before.1.map_or(0, |(length, ..)| length);
    let after = state(path).map_err(|error| unreadable(error.to_string()))?;
    if before == after { Ok(found) } else { Err(Unverified::Changed(path.to_owned())) }
}

/// Length, whether it is a file, and when it was changed, of the file, and of its log if there is one.
#[allow(clippy::type_complexity)] // compared as a whole, never looked into elsewhere
fn state(path: &Path) -> io::Result<((u64, bool, i64, i64), Option<(u64, bool, i64, i64)>)> {
    let of = |path: &Path| fs::metadata(path).map(|m| (m.len(), m.is_file(), m.mtime(), m.mtime_nsec()));
    Ok((of(path)?, of(&log_of(path)).ok()))
}

/// Opens without leaving a trace; see above.
fn quietly(path: &Path) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut uri = String::from("file:");
    for byte in whole.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&percent(*other)),
        }
    }
    let logged = fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0);
    let connection = if logged {
        let connection = Connection::open_with_flags_and_vfs(uri, flags, "unix-none")?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Before the log is looked at: so its index is kept in memory.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection
    } else {
        uri.push_str("?immutable=1");
        Connection::open_with_flags(uri, flags)?
    };
    schema::set_up_any(&connection)?;
    Ok(connection)
}

/// A byte of a path as an address has it.
fn percent(byte: u8) -> String {
    format!("%{byte:02X}")
}

fn all(path: &Path, connection: &Connection, progress: &mut impl FnMut(f64)) -> Result<Verified, StoreError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if number("application_id")? != schema::APPLICATION_ID {
        return Err(StoreError::Foreign("it is no spool".to_owned()));
    }
    let version = number("user_version")?;
    if version > schema::VERSION {
        return Err(StoreError::Newer(version));
    }
    let mut structure = Vec::new();
    connection.pragma_query(None, "integrity_check", |row| {
        structure.push(row.get::<_, String>(0)?);
        Ok(())
    })?;
    for table in TABLES {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        if connection.query_row(sql, [table], |row| row.get::<_, i64>(0))? == 0 {
            return Err(StoreError::Foreign(format!("its table {table} is missing")));
        }
    }
    let (ledger, floor) = books(connection)?;
    let look = |take: &mut dyn FnMut(&Ledger, u64, Unbooked<'_>)| take(&ledger, floor, &|_| false);
    let mut entries = dictionary(connection)?;
    let mut check = Check::begin(path, connection, &look, false)?;
    check.found.structure = true;
    for fault in structure.into_iter().filter(|line| line != "ok") {
        check.found.fault(format!("SQLite: {fault}"));
    }
    while !check.step(connection, &mut entries, &look, Duration::from_millis(200))? {
        progress(check.progress());
    }
    Ok(check.found)
}

/// The books as a start would take them over, as far as they can be read.
fn books(connection: &Connection) -> Result<(Ledger, u64), StoreError> {
    let mark = connection.query_row("SELECT mark FROM spool WHERE id = 1", [], |row| row.get::<_, String>(0));
    let mark = mark.ok().and_then(|text| mark_of(&text)).unwrap_or_default();
    let mut ledger = mark.ledger();
    let mut statement = connection.prepare("SELECT run, ended, books FROM run")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let run = run_of(row.get(0)?);
        let Some(mut books) = books_of(run, row.get_ref(2)?.as_str().unwrap_or_default()) else { continue };
        if row.get::<_, i64>(1)? == 0 {
            let (next, _) = enter::last_of(connection, (run, books.durable))?;
            books.durable = books.settled_on(next);
        }
        ledger.runs.insert(run, books);
    }
    Ok((ledger, mark.floor))
}
