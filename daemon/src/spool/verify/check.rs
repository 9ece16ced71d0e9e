//! The check itself: small tables first, then block by block in the order of places, each against the books. Works in steps,
//! and alike on a file that is still and on one that is written meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::Verified;
use crate::model::{Batch, RunId};
use crate::spool::block::{self, BlockFault, Header};
use crate::spool::dictionary::Dictionary;
use crate::spool::ledger::{Intervals, Ledger, RunBooks};
use crate::spool::records::{books_of, event_of, mark_of, run_of};
use crate::spool::ring;
use crate::spool::store::{StoreError, dictionary};

/// Stretches of a run remembered.
const STRETCHES_MAX: usize = 4096;

/// Blocks read in one statement.
const STEP: i64 = 32;

/// The books as they are at this moment: the ledger, the number below which blocks are settled, and what may be in the file and not
/// yet in the books.
pub(in crate::spool) type Books<'a> = &'a dyn Fn(&mut dyn FnMut(&Ledger, u64, Unbooked<'_>));

/// Whether these readings are of a commit under way, or of one that failed and may have landed: then memory still has them, and the next
/// commit brings them again.
pub(in crate::spool) type Unbooked<'a> = &'a dyn Fn(&Batch) -> bool;

/// A check under way.
#[derive(Debug)]
pub(in crate::spool) struct Check {
    /// The place of the last block that was looked at.
    place: Option<i64>,
    number: Option<u64>,
    first: Option<u64>,
    /// The newest block lies before the oldest in the order of places: passed that point.
    turned: bool,
    /// How many blocks there were when it began, by their numbers, for the progress.
    all: u64,
    seen: BTreeMap<RunId, Intervals>,
    /// By the books when it began, and not found in a block yet.
    waiting: BTreeMap<RunId, Intervals>,
    /// What it found.
    pub(in crate::spool) found: Verified,
    alive: bool,
    /// Which file it began with, while the daemon runs.
    pub(in crate::spool) generation: u64,
}

impl Check {
    /// Looks at the small tables, and at the books. `alive`: the daemon writes meanwhile.
    pub(in crate::spool) fn begin(
        file: &Path,
        connection: &Connection,
        books: Books<'_>,
        alive: bool,
    ) -> Result<Self, StoreError> {
        let mut check = Self {
            place: None,
            number: None,
            first: None,
            turned: false,
            all: blocks(connection),
            seen: BTreeMap::new(),
            waiting: BTreeMap::new(),
            found: Verified { file: file.to_owned(), ..Verified::default() },
            alive,
            generation: 0,
        };
        check.small_tables(connection)?;
        books(&mut |ledger, _, _| {
            let sums = ledger.sums();
            check.found.waiting = sums.waiting;
            check.found.confirmed = sums.confirmed;
            check.found.lost = sums.losses.total();
            check.found.runs = ledger.runs.len() as u64;
            for (run, books) in &ledger.runs {
                let waiting = check.waiting.entry(*run).or_default();
                for (first, next) in books.settled.missing(0, books.durable) {
                    waiting.insert(first, next);
                }
            }
        });
        Ok(check)
    }

    /// Share of the blocks that lie behind, 0 to 1.
    pub(in crate::spool) fn progress(&self) -> f64 {
        if self.all == 0 { 1.0 } else { (self.found.blocks as f64 / self.all as f64).min(1.0) }
    }

    fn small_tables(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.found.id = match connection
            .query_row("SELECT mark FROM spool WHERE id = 1", [], |row| row.get::<_, String>(0))
        {
            Ok(text) => match mark_of(&text) {
                Some(mark) => mark.id,
                None => self.none("the spool's own row makes no sense"),
            },
            Err(rusqlite::Error::QueryReturnedNoRows) => self.none("the spool's own row is missing"),
            Err(error) => return Err(error.into()),
        };
        self.books_of_runs(connection)?;
        self.shapes(connection)?;
        self.records(connection)?;
        self.dead_letters(connection)
    }

    fn none(&mut self, what: &str) -> String {
        self.found.fault(what.to_owned());
        String::new()
    }

    fn books_of_runs(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT run, books FROM run")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let run = run_of(row.get(0)?);
            let Some(books) = books_of(run, row.get_ref(1)?.as_str().unwrap_or_default()) else {
                self.found.fault(format!("run {run}: its books make no sense"));
                continue;
            };
            if books.losses.total() != books.lost.total() {
                let (counted, named) = (books.losses.total(), books.lost.total());
                self.found.fault(format!(
                    "run {run}: {counted} readings are counted as lost, and {named} are named"
                ));
            }
        }
        Ok(())
    }

    fn shapes(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT id, body FROM shape")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let known = u32::try_from(id).ok();
            let body = row.get_ref(1)?.as_bytes().unwrap_or_default();
            if !known.is_some_and(|id| Dictionary::default().insert(id, body)) {
                self.found.fault(format!("shape {id}: the entry of the dictionary makes no sense"));
            }
        }
        Ok(())
    }

    fn records(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT id, run, number, sent, body FROM event")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, run, number): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.found.records += 1;
            self.found.records_waiting += u64::from(row.get::<_, i64>(3)? == 0);
            let text = row.get_ref(4)?.as_str().unwrap_or_default();
            if event_of(run_of(run), number.cast_unsigned(), text).is_none() {
                self.found.fault(format!("record {id}: it makes no sense"));
            }
        }
        let twice = "SELECT run, number FROM event GROUP BY run, number HAVING count(*) > 1 LIMIT 10";
        let mut statement = connection.prepare(twice)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (run, number): (i64, i64) = (row.get(0)?, row.get(1)?);
            self.found.fault(format!("run {}: there are two records {number}", run_of(run)));
        }
        Ok(())
    }

    fn dead_letters(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let dictionary = dictionary(connection)?;
        let mut statement = connection.prepare("SELECT id, head, body FROM dead")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            self.found.dead_letters += 1;
            let (head, body) = (
                row.get_ref(1)?.as_blob().unwrap_or_default(),
                row.get_ref(2)?.as_blob().unwrap_or_default(),
            );
            if !head.is_empty()
                && let Err(fault) = block::decode(&[head, body].concat(), &dictionary)
            {
                self.found.fault(format!("dead letter {id}: {fault}"));
            }
        }
        Ok(())
    }

    /// Looks at blocks for as long as it is given. `true`: that was all.
    pub(in crate::spool) fn step(
        &mut self,
        connection: &Connection,
        dictionary: &mut Dictionary,
        books: Books<'_>,
        budget: Duration,
    ) -> Result<bool, StoreError> {
        let started = Instant::now();
        loop {
            let rows = self.rows(connection)?;
            let Some((last, ..)) = rows.last() else {
                self.end(books);
                return Ok(true);
            };
            self.place = Some(*last);
            for (place, number, bytes) in rows {
                self.order(place, number);
                self.block(connection, dictionary, (number, &bytes), books)?;
            }
            if started.elapsed() >= budget {
                return Ok(false);
            }
        }
    }

    /// The next blocks in the order of places: number, and head and body joined.
    fn rows(&self, connection: &Connection) -> Result<Vec<(i64, u64, Vec<u8>)>, StoreError> {
        let sql = "SELECT place, number, head, body FROM block WHERE place >= ?1 ORDER BY place LIMIT ?2";
        let from = match self.place {
            None => i64::MIN,
            Some(i64::MAX) => return Ok(Vec::new()),
            Some(place) => place + 1,
        };
        let mut statement = connection.prepare(sql)?;
        let joined = |row: &rusqlite::Row<'_>| {
            let blob = |at| Ok::<_, rusqlite::Error>(row.get_ref(at)?.as_blob().unwrap_or_default().to_vec());
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned(), [blob(2)?, blob(3)?].concat()))
        };
        Ok(statement.query_map(params![from, STEP], joined)?.collect::<Result<_, _>>()?)
    }

    /// Numbers ascend around the circle of places: once they may fall, and then they stay below the first.
    fn order(&mut self, place: i64, number: u64) {
        self.found.blocks += 1;
        let first = *self.first.get_or_insert(number);
        let before = self.number.replace(number);
        let falls = before.is_some_and(|before| number <= before);
        let wrong =
            if falls { std::mem::replace(&mut self.turned, true) } else { self.turned && number >= first };
        // While blocks are written, the ring may turn under the eyes of who looks at it.
        if (wrong || (falls && number >= first)) && !self.alive {
            self.found.fault(format!("block {number} at place {place} is out of its order"));
        }
    }

    fn block(
        &mut self,
        connection: &Connection,
        entries: &mut Dictionary,
        (number, bytes): (u64, &[u8]),
        books: Books<'_>,
    ) -> Result<(), StoreError> {
        if bytes.is_empty() {
            // It was found damaged, made empty, and what was in it is recorded.
            return Ok(());
        }
        let mut decoded = block::decode(bytes, entries);
        if self.alive && matches!(decoded, Err(BlockFault::Dictionary(_))) {
            // An entry newer than our copy.
            *entries = dictionary(connection)?;
            decoded = block::decode(bytes, entries);
        }
        let (batches, header) = match (decoded, Header::read(bytes)) {
            (Ok(batches), Ok(header)) => (batches, header),
            (Err(fault), header) => {
                let what = header.map_or_else(
                    |_| String::new(),
                    |header| {
                        format!(
                            " of run {}, readings {} to {}",
                            header.run,
                            header.first,
                            header.next.saturating_sub(1)
                        )
                    },
                );
                self.found.fault(format!("block {number}{what}: {fault}"));
                return Ok(());
            }
            (Ok(_), Err(fault)) => {
                self.found.fault(format!("block {number}: {fault}"));
                return Ok(());
            }
        };
        if let Some(what) = contradiction(&header, &batches) {
            self.found.fault(format!("block {number}: its head {what}"));
        }
        self.count(&header, &batches);
        let twice = self.twice(header.run, &batches);
        if twice > 0 {
            self.found.fault(format!(
                "block {number} of run {}: {twice} of its readings are in another block too",
                header.run
            ));
        }
        self.against(number, header.run, &batches, books);
        Ok(())
    }

    fn count(&mut self, header: &Header, batches: &[Batch]) {
        self.found.batches += batches.len() as u64;
        self.found.readings += batches.iter().map(Batch::n).sum::<u64>();
        let (from, to) = self.found.from_to_us.unwrap_or((header.wall_min, header.wall_max));
        self.found.from_to_us = Some((from.min(header.wall_min), to.max(header.wall_max)));
    }

    fn twice(&mut self, run: RunId, batches: &[Batch]) -> u64 {
        let seen = self.seen.entry(run).or_default();
        let new: u64 = batches.iter().map(|batch| seen.insert(batch.seq, batch.end())).sum();
        while seen.count() > STRETCHES_MAX {
            let lowest = seen.iter().next();
            let (first, next) = lowest.unwrap_or_default();
            seen.remove(first, next);
        }
        batches.iter().map(Batch::n).sum::<u64>().saturating_sub(new)
    }

    /// What the books say of a block.
    fn against(&mut self, number: u64, run: RunId, batches: &[Batch], books: Books<'_>) {
        let (waiting, found) = (self.waiting.entry(run).or_default(), &mut self.found);
        books(&mut |ledger, floor, unbooked| {
            if ledger.is_folded(run) {
                return;
            }
            let Some(books) = ledger.runs.get(&run) else {
                found.fault(format!("block {number}: its run {run} has no books"));
                return;
            };
            let mut unseen = 0;
            for batch in batches {
                waiting.remove(batch.seq, batch.end());
                let waits = !books.settled.covers(batch.seq, batch.end());
                unseen += if number < floor && waits { batch.n() } else { 0 };
            }
            if unseen > 0 {
                found.fault(format!("block {number} of run {run}: {unseen} readings wait and lie where everything counts as settled"));
            }
            if let Some(last) = batches.last().filter(|last| last.end() > books.durable && !unbooked(last)) {
                let (last, durable) = (last.end(), books.durable);
                found.fault(format!(
                    "block {number} of run {run}: it reaches to {last}, the run only to {durable}"
                ));
            }
        });
    }

    /// Readings that wait, by the books, and are in no block.
    fn end(&mut self, books: Books<'_>) {
        for (run, waiting) in std::mem::take(&mut self.waiting) {
            let mut missing = 0;
            books(&mut |ledger, _, _| {
                let none = RunBooks::default();
                let now = ledger.runs.get(&run).unwrap_or(&none);
                // Confirmed or given up meanwhile: no longer expected.
                if ledger.is_folded(run) {
                    return;
                }
                missing = waiting
                    .iter()
                    .map(|(first, next)| (next - first) - now.settled.within(first, next))
                    .sum::<u64>();
            });
            if missing > 0 {
                self.found.fault(format!("run {run}: {missing} readings wait, and no block holds them"));
            }
        }
    }
}

/// Counted, they would all have to be walked over in one transaction. It is a figure for the progress: where it cannot be known, what
/// is wrong is found on the way.
fn blocks(connection: &Connection) -> u64 {
    let extent = ring::extent(connection).ok().flatten();
    extent.map_or(0, |extent| (extent.newest.number + 1).saturating_sub(extent.oldest.number))
}

/// What a head says and its batches do not.
fn contradiction(header: &Header, batches: &[Batch]) -> Option<&'static str> {
    let readings: u64 = batches.iter().map(Batch::n).sum();
    let walls = || batches.iter().map(|batch| batch.stamp.wall_us);
    if batches.first().map(|batch| batch.seq) != Some(header.first)
        || batches.last().map(Batch::end) != Some(header.next)
    {
        return Some("names other readings");
    }
    if (readings, batches.len() as u64) != (u64::from(header.readings), u64::from(header.batches)) {
        return Some("counts otherwise");
    }
    if (walls().min(), walls().max()) != (Some(header.wall_min), Some(header.wall_max)) {
        return Some("names other times");
    }
    None
}
