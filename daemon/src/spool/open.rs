//! Opening: from whatever lies in the state directory to an open file, and the choice of the new run.
//!
//! Nothing found there stops the gateway, except a second instance, and a directory that `require_durable` refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use super::SpoolError;
use super::api::SpoolSettings;
use super::aside::{self, QUARANTINE};
use super::block;
use super::copy::Copy;
use super::directory::{self, GivenUp};
use super::ring;
use super::salvage::{self, LogFault};
use super::schema::Schema;
use super::store::{self, Found, Store, StoreError, Trouble, log_of};
use crate::model::{Batch, RunId};

/// So many blocks are looked at for the batches of one refusal. A message of one slow device among many fast ones names
/// batches that lie far apart.
const LOOK_FOR: usize = 16 * LOOK_AT_ONCE;

/// Headings in memory at a time.
const LOOK_AT_ONCE: usize = 1024;

/// The cap in force.
pub(super) fn bytes_max(settings: &SpoolSettings) -> u64 {
    let asked = settings.bytes_max.unwrap_or_else(|| directory::bytes_max_default(&settings.directory));
    asked.max(super::BYTES_MAX_LEAST)
}

/// 32 hexadecimal digits.
pub(super) fn random_id() -> String {
    format!("{:032x}", u128::from_le_bytes(random()))
}

/// The random part of a run's name.
pub(super) fn random_part() -> u32 {
    u32::from_le_bytes(random())
}

/// From the system's random numbers.
fn random<const N: usize>() -> [u8; N] {
    use ::ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ::ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// What opening the file gave.
pub(super) struct Begun {
    /// The run that begins.
    pub(super) run: RunId,
    /// The store and what it knew, or why there is none.
    pub(super) store: Result<(Store, Found), StoreError>,
    /// What was found damaged, in words; the file is set aside.
    pub(super) damaged: Option<String>,
    /// The file was not closed, and has no log.
    pub(super) log_missing: bool,
    /// What had to go for it.
    pub(super) given_up: GivenUp,
}

/// Opens the file, or sets it aside and makes a fresh one, and chooses the run, with this random part. What cannot be set aside
/// now is left as it is, and the error says so: the writer tries it again, and opens nothing before.
pub(super) fn begin(file: &Path, settings: &SpoolSettings, known: &Schema, random: u32) -> Begun {
    let sidecar = directory::read_sidecar(&settings.directory).map_or(0, |run| run.counter);
    // On a full disk it may not have been written, and of two runs with one counter nobody could say which is the older.
    let copied = Copy::mark(file).map_or(0, |mark| mark.counter);
    let heard = sidecar.max(copied).max(aside::last_counter(&settings.directory));
    let after = |counter: u32| RunId { counter: counter.saturating_add(1).min(99_999_999), random };
    let log_missing = !aside::unfinished(&settings.directory) && log_is_missing(file);
    let (mut damaged, mut given_up) = (None, GivenUp::default());
    let mut store = open_or_again(file, settings, known);
    let in_the_way =
        store.as_ref().err().and_then(|error| Some((error.trouble().folder()?, error.to_string())));
    let newer = matches!(store, Err(StoreError::Newer(_)));
    let heard = heard.max(if newer { counter_of(file) } else { 0 });
    if let Some((folder, why)) = in_the_way {
        match put_aside(file, folder, after(heard)) {
            Ok((to, gone)) => {
                given_up = gone;
                tracing::error!(error = %why, to = %to.display(), "the spool cannot be read: set aside, a fresh one begins");
                damaged = Some(why).filter(|_| folder == QUARANTINE);
                store = open_or_again(file, settings, known);
            }
            Err(error) => tracing::error!(%error, "the spool cannot be read and cannot be set aside"),
        }
    }
    let counter = |(_, found): &(Store, Found)| {
        found.runs.last().map_or(0, |row| row.run.counter).max(found.mark.counter)
    };
    let run = after(heard.max(store.as_ref().map_or(0, counter)));
    Begun { run, store, damaged, log_missing, given_up }
}

/// What the file of a newer program says of its runs, if this one can read so much. Looked at without writing.
fn counter_of(file: &Path) -> u32 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(StoreError::from);
    connection.and_then(|connection| store::mark(&connection)).map_or(0, |mark| mark.counter)
}

/// For one sync that failed nobody must begin in memory: then all of it is done once more.
fn open_or_again(
    file: &Path,
    settings: &SpoolSettings,
    known: &Schema,
) -> Result<(Store, Found), StoreError> {
    match open_at_start(file, settings, known) {
        Err(error @ (StoreError::Sqlite(_) | StoreError::Directory(_) | StoreError::Unread(_)))
            if matches!(error.trouble(), Trouble::Disk | Trouble::Unread) =>
        {
            tracing::warn!(%error, "the spool cannot be opened; it is tried once more");
            open_at_start(file, settings, known)
        }
        opened => opened,
    }
}

fn open_at_start(
    file: &Path,
    settings: &SpoolSettings,
    known: &Schema,
) -> Result<(Store, Found), StoreError> {
    aside::finish(&settings.directory)?;
    let opened = open_file(file, (bytes_max(settings), known), true)?;
    // So that no frame of a commit that was cut off stays behind those to come: it would look like damage.
    match opened.0.empty_log() {
        // A connection whose sync failed is not believed.
        Err(error) if matches!(error.trouble(), Trouble::Disk | Trouble::Unread) => return Err(error),
        // No space: it may still find room in its log.
        Err(error) => tracing::debug!(%error, "the log cannot be emptied now"),
        Ok(_) => {}
    }
    Ok(opened)
}

/// Opens the file, or makes it, after a look at what SQLite does not notice. `first`: this life has never had a file open, so that its
/// log is what a life before has left; what a failed commit of our own has left may look like damage, and is not.
pub(super) fn open_file(
    file: &Path,
    (bytes_max, known): (u64, &Schema),
    first: bool,
) -> Result<(Store, Found), StoreError> {
    if is_gone(file) {
        return Err(gone());
    }
    match salvage::log_fault(file) {
        // Somebody has put another file in the place of ours, beside our log, or the other way round.
        Some(LogFault::Foreign) => return Err(foreign_log(file)),
        // SQLite leaves out, without a word, what stands behind a damaged frame, and then the log is emptied.
        Some(LogFault::Damaged) if first => {
            return Err(StoreError::Foreign("its log is damaged in the middle".to_owned()));
        }
        Some(LogFault::Unread) if first => {
            return Err(StoreError::Unread("the disk does not give its log".to_owned()));
        }
        _ => {}
    }
    // The life before may have ended over a failed fsync.
    directory::write_log_again(file)?;
    match Store::open_as(file, bytes_max, &random_id(), known) {
        // Who makes a file newer writes its copy anew. One flipped bit does not.
        Err(error @ StoreError::Newer(_))
            if Copy::head(file).schema.is_some_and(|own| own <= known.version) =>
        {
            Err(StoreError::Foreign(format!("{error}, which its copy does not say")))
        }
        opened => opened,
    }
}

/// Sets a file aside that is in the way; gives its new place, and what had to go for it. On a full disk the reserve goes for it.
pub(super) fn put_aside(file: &Path, folder: &str, run: RunId) -> io::Result<(PathBuf, GivenUp)> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let to = aside::set_aside(file, folder, run).or_else(|error| {
        if !directory::has_no_space(directory) {
            return Err(error);
        }
        directory::give_reserve(directory);
        aside::set_aside(file, folder, run)
    })?;
    // Old quarantines that stay take room, and nothing else.
    Ok((to, directory::bound_quarantines(directory)))
}

/// The file was removed or emptied, and what belonged to it is still there. SQLite would delete the log beside an empty file unread,
/// and a fresh file's copy would take the place of the only one that tells what there was.
fn is_gone(file: &Path) -> bool {
    let there = match file.metadata() {
        Ok(found) => found.len() > 0,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let log = || log_of(file).metadata().is_ok_and(|found| found.len() > 0);
    !there && (log() || Copy::mark(file).is_some())
}

fn gone() -> StoreError {
    StoreError::Foreign("the file was removed or emptied".to_owned())
}

/// Whether SQLite may look at a file of a daemon that does not run: even one that only reads deletes the log beside an empty file, or
/// takes the log of another spool for its own.
pub(super) fn may_be_read(file: &Path) -> Result<(), StoreError> {
    if is_gone(file) {
        return Err(gone());
    }
    match salvage::log_fault(file) {
        Some(LogFault::Foreign) => Err(foreign_log(file)),
        _ => Ok(()),
    }
}

/// The log beside the file is that of another spool. Where its own is nobody knows; it may hold what was stored last.
fn foreign_log(file: &Path) -> StoreError {
    let mut why = "the log beside it is that of another spool".to_owned();
    if Copy::head(file).open {
        why.push_str(": what was stored last is lost with its own");
    }
    StoreError::Foreign(why)
}

/// The copy says that the spool was not closed, so it must have a log: what was stored last stands there alone.
pub(super) fn log_is_missing(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.len() > 0) && !log_of(file).exists() && Copy::head(file).open
}

/// Waiting batches by their names, in one walk from the floor on, however far apart their blocks lie. What lies further
/// away than [`LOOK_FOR`] blocks, cannot be read, or is gone, is not among them.
pub(super) fn find_batches(
    store: &Store,
    floor: u64,
    mut wanted: BTreeSet<(RunId, u64)>,
) -> Result<BTreeMap<(RunId, u64), Arc<Batch>>, StoreError> {
    let (connection, mut found) = (store.connection(), BTreeMap::new());
    let (mut next, mut left) = (floor, LOOK_FOR);
    while left > 0 && !wanted.is_empty() {
        let Some(from) = ring::locate(connection, next)? else { break };
        let headings = ring::headings(connection, from, LOOK_AT_ONCE.min(left))?;
        let Some(last) = headings.last() else { break };
        (next, left) = (last.spot.number + 1, left - headings.len());
        for heading in headings {
            let Some(header) = heading.header else { continue };
            let names = (header.run, header.first)..(header.run, header.next);
            if wanted.range(names).next().is_some()
                && let Some(bytes) = ring::block(connection, heading.spot)?
                && let Ok(batches) = block::decode(&bytes, store.dictionary())
            {
                for batch in batches {
                    let name = (batch.run, batch.seq);
                    if wanted.remove(&name) {
                        found.insert(name, Arc::new(batch));
                    }
                }
            }
        }
    }
    Ok(found)
}

/// What is wrong with where the state lives, and whether that is refused.
pub(crate) fn durability(settings: &SpoolSettings) -> Result<Option<String>, SpoolError> {
    let why = directory::not_durable(&settings.directory);
    match why {
        Some(why) if settings.require_durable => {
            Err(SpoolError::NotDurable { directory: settings.directory.clone(), why })
        }
        why => Ok(why),
    }
}
