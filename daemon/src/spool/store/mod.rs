//! The store: one SQLite file, written by one connection. Synchronous; knows no tokio, no thread and no clock.
//!
//! It does what it is told in one transaction ([`Store::commit`]) and remembers only the two ends of the ring and the
//! dictionary. What is settled, and what therefore may be overwritten, is the ledger's business: the caller says so by
//! `floor`, and the store never takes the row of a block at or above it.
//!
//! After an error of a commit the store must be dropped and opened again: a connection whose fsync failed is not to be
//! believed.

mod error;
mod log;
mod tables;
mod work;
mod write;

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::ffi::SQLITE_ERROR;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, OpenFlags};

use super::copy;
use super::dictionary::Dictionary;
use super::records::{Mark, mark_text};
use super::ring::{self, Extent, Heading};
use super::schema::{self, Schema, WriteBack};
use super::shared::off_the_lock;
pub use error::{StoreError, Trouble};
pub use log::log_of;
pub use tables::{
    Found, Letters, RunRow, dead_letters, dictionary, found, gap_rows, letter, letters, mark, records,
    sent_clocks, told_of,
};
pub use work::{DeadLetter, RunUpdate, Work, Written};
use write::{Writing, beside, cut_letters, name_log, put_again, put_dead, put_events, put_runs, small_pages};

/// Name of the file in the state directory.
pub const FILE: &str = "spool.db";

/// SQLite below it can lose a log that two connections reset at once.
const SQLITE_LEAST: i32 = 3_051_003;

/// Pages kept free below the cap for the small tables.
const SLACK_PAGES: u64 = 64;

/// Dead letters that stay, if their share of the cap allows; older ones go.
pub const DEAD_LETTERS_MAX: i64 = 1000;

/// How many blocks are given up at once when the cap is reached with nothing confirmed: their gap records merge.
const VICTIMS: usize = 64;

/// ... or this share of the cap.
const CHUNK_SHARE: u64 = 64;

/// A rescue leaves this share of the cap to what comes.
const SPARE_SHARE: u64 = 16;

/// The file and its one writing connection.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    dictionary: Dictionary,
    ring: Option<Extent>,
    /// Number of the next block: never used again, also when the ring is empty.
    next_block: u64,
    next_event: i64,
    pages_max: u64,
    /// The disk is full: what would make the file longer could be written into the log, and never back into the file.
    keeps_length: bool,
    /// For dead letters: a share of the cap; on a full disk that of the file, or what they take already.
    letters_pages: u64,
    /// That share is new: dead letters may be more.
    cut_letters: bool,
    /// The log has its length.
    log_is_long: bool,
    /// How the log was written back, if a commit did so.
    write_back: WriteBack,
}

/// What has to go before more fits.
#[derive(Debug, Default)]
pub struct Victims {
    /// One past the number of the last block whose row is needed; 0 while there is room.
    pub reach: u64,
    /// Those of them that nobody has settled.
    pub unsettled: Vec<Heading>,
}

impl Store {
    /// Opens or makes the file. `bytes_max` is the cap; `new_id` names the spool if it is made now.
    pub fn open(path: &Path, bytes_max: u64, new_id: &str) -> Result<(Self, Found), StoreError> {
        Self::open_as(path, bytes_max, new_id, &schema::CURRENT)
    }

    /// Opens or makes the file as a program that knows this schema does: an older file is migrated, a newer one is not touched.
    pub fn open_as(
        path: &Path,
        bytes_max: u64,
        new_id: &str,
        known: &Schema,
    ) -> Result<(Self, Found), StoreError> {
        off_the_lock();
        if rusqlite::version_number() < SQLITE_LEAST {
            return Err(StoreError::Foreign(format!("SQLite {} is too old", rusqlite::version())));
        }
        // Looked at without writing: opening for writing would write the log of a newer file back. What is wrong if this cannot tell is said
        // by that.
        if let Ok(Some(version)) = newer(path, known) {
            return Err(StoreError::Newer(version));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = Connection::open_with_flags(path, flags)?;
        // What is dropped after an error is left as it is: file and log are evidence, and go to the salvage together.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let number = |connection: &Connection, name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let version = number(&connection, "user_version")?;
        if version > known.version {
            return Err(StoreError::Newer(version));
        }
        let pages = number(&connection, "page_count")?;
        let application = number(&connection, "application_id")?;
        if pages > 0 && application != schema::APPLICATION_ID {
            return Err(StoreError::Foreign("an SQLite file that is no spool".to_owned()));
        }
        let write_back = schema::set_up_writer(&mut connection)?;
        if pages == 0 {
            let mark = Mark { id: new_id.to_owned(), ..Mark::default() };
            schema::create(&mut connection, &mark_text(&mark), known)?;
        } else if version < known.version {
            copy::announce(path, known.version)?;
            // A step that fails is a mistake of ours: the file stays as it is.
            schema::migrate(&mut connection, version, known).map_err(|error| {
                let ours =
                    error.sqlite_error().is_some_and(|error| error.extended_code & 0xff == SQLITE_ERROR);
                if ours { std::io::Error::other(error).into() } else { StoreError::from(error) }
            })?;
        }
        write_back.outcome()?;
        let page_size = number(&connection, "page_size")?.cast_unsigned().max(512);
        let found = found(&connection)?;
        let ring = ring::extent(&connection)?;
        let store = Self {
            dictionary: dictionary(&connection)?,
            path: path.to_owned(),
            ring,
            next_block: ring.map_or(1, |ring| ring.newest.number + 1).max(found.mark.floor).max(1),
            next_event: found.newest_event + 1,
            pages_max: bytes_max / page_size,
            keeps_length: false,
            letters_pages: small_pages(bytes_max / page_size),
            cut_letters: true,
            log_is_long: false,
            write_back,
            connection,
        };
        Ok((store, found))
    }

    /// The spool's own row.
    pub fn mark(&self) -> Result<Mark, StoreError> {
        off_the_lock();
        mark(&self.connection)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The connection, for reading.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits in this way for a lock, instead of half a second.
    #[cfg(test)]
    pub fn when_busy(&mut self, waits: impl FnMut(i32) -> bool + Send + 'static) {
        self.connection.busy_handler(Some(waits)).expect("taken");
    }

    /// The dictionary.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The ends of the ring.
    pub fn ring(&self) -> Option<Extent> {
        self.ring
    }

    /// What the next block and the next record row will be called.
    pub fn next(&self) -> (u64, i64) {
        (self.next_block, self.next_event)
    }

    /// Changes the cap. A smaller one is reached step by step, with each commit.
    pub fn set_bytes_max(&mut self, bytes_max: u64) -> Result<(), StoreError> {
        off_the_lock();
        let page_size: i64 = self.connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        self.pages_max = bytes_max / page_size.cast_unsigned().max(512);
        (self.letters_pages, self.cut_letters) = (small_pages(self.pages_max), true);
        self.keeps_length = false;
        self.write_back.set_early(false);
        Ok(())
    }

    /// On a full disk: the file does not grow beyond what it is, and not beyond the cap.
    pub fn keep_length(&mut self, least: u64) -> Result<(), StoreError> {
        let (_, count) = self.pages()?;
        self.pages_max = self.pages_max.min(count.max(least / schema::PAGE_SIZE));
        self.keeps_length = true;
        self.write_back.set_early(true);
        let sql = "SELECT coalesce(sum(length(head) + length(body) + length(reason)), 0) FROM dead";
        let there = one(&self.connection, sql)?.div_ceil(schema::PAGE_SIZE);
        self.letters_pages = self.letters_pages.min(small_pages(self.pages_max).max(there));
        Ok(())
    }

    /// How long the file may get now.
    pub fn bytes_max(&self) -> u64 {
        self.pages_max * schema::PAGE_SIZE
    }

    /// Pages in use, and pages in the file.
    pub fn pages(&self) -> Result<(u64, u64), StoreError> {
        off_the_lock();
        Ok(pages(&self.connection)?)
    }

    /// Whether there is room to spare, a sixteenth of the cap, without giving up anything from `floor` on. An estimate: all blocks are
    /// taken for equally long.
    pub fn has_room(&self, floor: u64) -> Result<bool, StoreError> {
        let (used, _) = self.pages()?;
        let settled = self.ring.map_or(0, |Extent { oldest, newest }| {
            let all = (newest.number + 1).saturating_sub(oldest.number).max(1);
            used * floor.saturating_sub(oldest.number).min(all) / all
        });
        let free = self.pages_max.saturating_sub(used + SLACK_PAGES);
        Ok(free + settled >= self.pages_max / SPARE_SHARE)
    }

    /// What must go before `bytes` more fit: nothing while there is room, else the oldest blocks.
    pub fn victims(&self, bytes: u64, floor: u64) -> Result<Victims, StoreError> {
        off_the_lock();
        let mut victims = Victims::default();
        let Some(ring) = self.ring else { return Ok(victims) };
        let need = bytes / (schema::PAGE_SIZE / 2) + 2;
        if fit(&self.connection, need + SLACK_PAGES, self.pages_max)? {
            return Ok(victims);
        }
        let (used, _) = self.pages()?;
        let over = (used + need + SLACK_PAGES).saturating_sub(self.pages_max) * schema::PAGE_SIZE;
        let enough = bytes + over.min(bytes * 4);
        let chunk = self.pages_max * schema::PAGE_SIZE / CHUNK_SHARE;
        let (mut from, mut freed, mut given_up) = (ring.oldest, 0, 0);
        loop {
            let headings = ring::headings(&self.connection, from, VICTIMS)?;
            for heading in &headings {
                let many = victims.unsettled.len() >= VICTIMS || given_up >= chunk;
                if freed >= enough && (victims.unsettled.is_empty() || many) {
                    return Ok(victims);
                }
                freed += heading.bytes;
                victims.reach = heading.spot.number + 1;
                if heading.spot.number >= floor {
                    given_up += heading.bytes;
                    victims.unsettled.push(*heading);
                }
            }
            let Some(last) = headings.last().filter(|_| headings.len() == VICTIMS) else {
                return Ok(victims);
            };
            let Some(next) = ring::locate(&self.connection, last.spot.number + 1)? else {
                return Ok(victims);
            };
            from = next;
        }
    }

    /// Does all of it or nothing. When it returns, it is on the disk.
    pub fn commit(&mut self, work: &Work<'_>) -> Result<Written, StoreError> {
        off_the_lock();
        let log_begins = self.log_begins()?;
        let before = (self.ring, self.next_block, self.next_event);
        let mut shapes = Vec::new();
        let done = self.transact(work, log_begins, &mut shapes);
        if done.is_err() {
            (self.ring, self.next_block, self.next_event) = before;
            for id in shapes {
                self.dictionary.remove(id);
            }
        } else if !self.log_is_long {
            // Without it a commit costs more, and nothing else.
            self.log_is_long = log::lengthen(&self.path).unwrap_or(true);
        }
        done
    }

    /// Whether what is written next begins the log anew: nothing is in it, or all of it is in the file.
    fn log_begins(&self) -> Result<bool, StoreError> {
        let (frames, written_back) = self.connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::NOOP)?;
        Ok(frames == written_back)
    }

    fn transact(
        &mut self,
        work: &Work<'_>,
        log_begins: bool,
        shapes: &mut Vec<u32>,
    ) -> Result<Written, StoreError> {
        // Not within the transaction: one that begins by reading does not wait for others.
        let most = if self.keeps_length { Some(self.pages_max.max(self.pages()?.1)) } else { None };
        let mut writing = Writing {
            transaction: self.connection.unchecked_transaction()?,
            dictionary: &mut self.dictionary,
            ring: self.ring,
            pages_room: self.pages_max.saturating_sub(SLACK_PAGES),
            next_block: self.next_block,
            floor: work.floor,
        };
        if log_begins {
            name_log(&writing.transaction)?;
        }
        let mut written = Written::default();
        if let Some((block, event)) = work.undo_from {
            writing.undo(block)?;
            writing.transaction.execute("DELETE FROM event WHERE id >= ?1", [event])?;
        }
        for spot in work.empty {
            let sql = "UPDATE block SET head = x'', body = x'' WHERE place = ?1 AND number = ?2";
            writing.transaction.execute(sql, (spot.place, spot.number.cast_signed()))?;
        }
        writing.expire(work.expired)?;
        writing.shapes(work.batches, shapes)?;
        for batch in work.dead.iter().chain(work.dead_before).filter_map(|letter| letter.batch.as_ref()) {
            // Read from another file, if that one was set aside in between.
            writing.shapes(std::slice::from_ref(batch), shapes)?;
        }
        writing.blocks((work.batches, work.apart), &mut written)?;
        if let Some(most) = most {
            writing.free(beside(work), most)?;
        }
        let transaction = &writing.transaction;
        let mut next_event = self.next_event;
        put_events(transaction, (work, small_pages(self.pages_max)), &mut next_event, &mut written)?;
        written.again = put_again(transaction, work.again)?;
        put_runs(transaction, work)?;
        put_dead(transaction, writing.dictionary, work)?;
        if self.cut_letters || !work.dead.is_empty() || !work.dead_before.is_empty() {
            written.letters_gone = cut_letters(transaction, self.letters_pages)?;
        }
        let Writing { transaction, ring, next_block, .. } = writing;
        if let Some(most) = most
            && pages_in_file(&transaction)? > most
        {
            return Err(StoreError::NoSpace);
        }
        transaction.commit()?;
        self.write_back.outcome()?;
        (self.ring, self.next_block, self.next_event) = (ring, next_block, next_event);
        self.cut_letters = false;
        Ok(written)
    }

    /// Closes after an error, without another word to the disk: an ordinary close would sync the log once more, believe it, and
    /// write it back.
    pub fn forsake(self) {
        // Refused, it closes in the ordinary way: only what was committed before is written back then.
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }

    /// Bytes in the log, as of the last commit.
    pub fn log_bytes(&self) -> u64 {
        self.write_back.log_bytes()
    }

    /// On a full disk: writes the log back, so that the next commit overwrites it. Opened anew SQLite would go on behind it, and find no room. One
    /// that the file takes not stays as it is.
    pub fn begin_log_anew(&self) -> Result<(), StoreError> {
        match self.connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
            Err(error) => Some(StoreError::from(error))
                .filter(|error| error.trouble() != Trouble::Full)
                .map_or(Ok(()), Err),
            Ok(_) => Ok(()),
        }
    }

    /// Writes the whole log back into the file and empties it. `false`: a reader was in the way.
    pub fn empty_log(&self) -> Result<bool, StoreError> {
        off_the_lock();
        let busy: i64 = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(busy == 0)
    }
}

/// The version of a file, if it is newer than what is known. An error: nobody can tell now.
pub fn newer(path: &Path, known: &Schema) -> Result<Option<i64>, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((version > known.version).then_some(version))
}

/// Pages in use, and pages in the file. SQLite parses such a statement each time it is run, so it is asked no more than need be.
fn pages(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let (count, free) = (pages_in_file(connection)?, one(connection, "PRAGMA freelist_count")?);
    Ok((count.saturating_sub(free), count))
}

fn pages_in_file(connection: &Connection) -> rusqlite::Result<u64> {
    one(connection, "PRAGMA page_count")
}

fn one(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached(sql)?.query_row([], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
}

/// Whether so many more fit into so many. While the file is shorter than it may be, what is free in it does not matter.
fn fit(connection: &Connection, more: u64, most: u64) -> rusqlite::Result<bool> {
    Ok(pages_in_file(connection)? + more <= most || pages(connection)?.0 + more <= most)
}
