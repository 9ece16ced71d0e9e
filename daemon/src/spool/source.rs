//! A connection that only reads, and the questions it answers: span, history, export. Synchronous.
//!
//! Each look into the file is one statement over at most [`STEP`] headings, far below 100 ms, so that no question keeps
//! the writer from emptying the log. A question that takes longer than [`TURN`] in all is answered as far as it came,
//! with a cursor.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, params};

use super::api::{
    Cursor, ExportPage, ExportQuery, HistoryCursor, HistoryPage, HistoryQuery, HistoryValue, Item,
};
use super::block::{self, BlockFault, Header};
use super::dictionary::Dictionary;
use super::records::{event_of, run_of};
use super::ring::{self, Heading, Spot};
use super::schema;
use super::store::{StoreError, dictionary};
use super::verify::{Books, Check};
use crate::model::event::Event;
use crate::model::{Batch, Reading, RunId};

/// Headings looked at in one statement.
pub const STEP: usize = 64;

/// A question is answered as far as it came after this.
pub const TURN: Duration = Duration::from_millis(100);

const SPAN_BLOCKS: usize = 256;
const SPAN_BYTES: usize = 1024 * 1024;
const SPAN_EVENTS: i64 = 256;
const EXPORT_BYTES: usize = 1024 * 1024;

/// A question about history ends after this many blocks in a row that are too young: the wall clock may have been set
/// back in between, but not for longer.
const TOO_YOUNG: usize = 256;

/// Whether nothing of these readings has to be sent.
pub type Settled<'a> = &'a dyn Fn(RunId, u64, u64) -> bool;

/// A block that cannot be decoded.
#[derive(Debug)]
pub struct DamagedBlock {
    /// Where.
    pub spot: Spot,
    /// What is wrong.
    pub fault: BlockFault,
}

/// The file, open for reading.
#[derive(Debug)]
pub struct Source {
    connection: Connection,
    dictionary: Dictionary,
    /// What was found damaged since the last look.
    pub damaged: Vec<DamagedBlock>,
}

impl Source {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        schema::set_up_any(&connection)?;
        Ok(Self { dictionary: dictionary(&connection)?, connection, damaged: Vec::new() })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Some headings from a number on; empty at the end.
    fn headings(&self, number: u64) -> Result<Vec<Heading>, StoreError> {
        let Some(spot) = ring::locate(&self.connection, number)? else { return Ok(Vec::new()) };
        Ok(ring::headings(&self.connection, spot, STEP)?)
    }

    /// The batches of a block; none if it was overwritten meanwhile or is damaged.
    fn batches(&mut self, heading: &Heading) -> Result<Vec<Batch>, StoreError> {
        if heading.bytes == 0 {
            // It was found damaged and made empty.
            return Ok(Vec::new());
        }
        let Some(bytes) = ring::block(&self.connection, heading.spot)? else { return Ok(Vec::new()) };
        let mut decoded = block::decode(&bytes, &self.dictionary);
        if matches!(decoded, Err(BlockFault::Dictionary(_))) {
            // An entry newer than our copy.
            self.dictionary = dictionary(&self.connection)?;
            decoded = block::decode(&bytes, &self.dictionary);
        }
        Ok(decoded.unwrap_or_else(|fault| {
            self.damaged.push(DamagedBlock { spot: heading.spot, fault });
            Vec::new()
        }))
    }

    /// Waiting batches behind `after`, or from `floor` on, up to the block `newest`, and where to go on.
    pub fn waiting(
        &mut self,
        after: Cursor,
        (floor, newest): (u64, u64),
        settled: Settled<'_>,
    ) -> Result<(Vec<Item>, u64), StoreError> {
        let started = Instant::now();
        let (mut items, mut blocks, mut bytes) = (Vec::new(), 0, 0);
        let mut at = after.block;
        loop {
            let headings = self.headings((at + 1).max(floor))?;
            if headings.is_empty() {
                return Ok((items, at));
            }
            for heading in headings {
                if heading.spot.number > newest {
                    return Ok((items, at));
                }
                let done =
                    heading.header.is_some_and(|header| settled(header.run, header.first, header.next));
                if !done {
                    let before = items.len();
                    for batch in self.batches(&heading)? {
                        if !settled(batch.run, batch.seq, batch.end()) {
                            bytes += decoded_bytes(&batch);
                            items.push(Item::Batch(Arc::new(batch)));
                        }
                    }
                    blocks += usize::from(items.len() > before);
                }
                at = heading.spot.number;
                if blocks >= SPAN_BLOCKS || bytes >= SPAN_BYTES {
                    return Ok((items, at));
                }
            }
            if !items.is_empty() && started.elapsed() >= TURN {
                return Ok((items, at));
            }
        }
    }

    /// Records that were not sent, behind a row id, with the id of each.
    pub fn records(&self, after: u64) -> Result<Vec<(u64, Event)>, StoreError> {
        let sql = "SELECT id, run, number, body FROM event WHERE sent = 0 AND id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(params![after.cast_signed(), SPAN_EVENTS])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, run, number): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let text = row.get_ref(3)?.as_str().unwrap_or_default();
            // What waits is ours and of this schema: a row that makes no sense was damaged.
            let event = event_of(run_of(run), number.cast_unsigned(), text);
            let event = event.ok_or_else(|| StoreError::Foreign("a record is damaged".to_owned()))?;
            found.push((id.cast_unsigned(), event));
        }
        Ok(found)
    }

    /// A turn of a check of the file in use.
    pub(super) fn verify(
        &mut self,
        check: Option<Box<Check>>,
        file: &Path,
        books: Books<'_>,
    ) -> Result<(Box<Check>, bool), StoreError> {
        let mut check = match check {
            Some(check) => check,
            None => Box::new(Check::begin(file, &self.connection, books, true)?),
        };
        let ended = check.step(&self.connection, &mut self.dictionary, books, TURN)?;
        Ok((check, ended))
    }

    /// Stored values of one point.
    pub fn history(&mut self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        let started = Instant::now();
        let limit = query.limit.clamp(1, 10_000);
        let mut page = HistoryPage::default();
        let (mut number, mut skip) = match query.after {
            Some(after) => (after.block, Some(after.seq)),
            None => (self.first_not_before(query.from_us)?, None),
        };
        let mut too_young = 0;
        loop {
            let headings = self.headings(number)?;
            if headings.is_empty() {
                return Ok(page);
            }
            for heading in headings {
                number = heading.spot.number;
                let Some(header) = heading.header else { continue };
                too_young = if header.wall_min >= query.to_us { too_young + 1 } else { 0 };
                if too_young > TOO_YOUNG {
                    return Ok(page);
                }
                if header.wall_max >= query.from_us && header.wall_min < query.to_us {
                    let behind = skip.filter(|_| query.after.is_some_and(|after| after.block == number));
                    for batch in self.batches(&heading)? {
                        if let Some(value) = value_of(&batch, query)
                            && behind.is_none_or(|seq| value.seq > seq)
                        {
                            let here = HistoryCursor { block: number, seq: value.seq };
                            page.values.push(value);
                            if page.values.len() >= limit {
                                page.next = Some(here);
                                return Ok(page);
                            }
                        }
                    }
                }
                skip = skip.filter(|_| query.after.is_some_and(|after| after.block > number));
                if started.elapsed() >= TURN {
                    page.next = Some(HistoryCursor { block: number, seq: u64::MAX });
                    return Ok(page);
                }
            }
            number += 1;
        }
    }

    /// Stored batches.
    pub fn export(&mut self, query: &ExportQuery, settled: Settled<'_>) -> Result<ExportPage, StoreError> {
        let started = Instant::now();
        let mut page = ExportPage { progress: 1.0, ..ExportPage::default() };
        let Some(extent) = ring::extent(&self.connection)? else { return Ok(page) };
        let mut number = match (query.after, query.from_us) {
            (Some(after), _) => after.block + 1,
            (None, Some(from_us)) if query.glance => self.first_not_before(from_us)?,
            (None, _) => 0,
        };
        let (mut bytes, mut too_young) = (0, 0);
        let enough = if query.glance { 1 } else { EXPORT_BYTES };
        loop {
            let headings = self.headings(number)?;
            if headings.is_empty() {
                return Ok(page);
            }
            for heading in headings {
                number = heading.spot.number;
                let wanted = heading.header.is_none_or(|header| {
                    query.from_us.is_none_or(|from| header.wall_max >= from)
                        && query.to_us.is_none_or(|to| header.wall_min < to)
                        && !(query.waiting && settled(header.run, header.first, header.next))
                });
                if wanted {
                    for batch in self.batches(&heading)? {
                        if exported(&batch, query, settled) {
                            bytes += decoded_bytes(&batch);
                            page.batches.push(Arc::new(batch));
                        }
                    }
                }
                let young = |header: Header| query.to_us.is_some_and(|to| header.wall_min >= to);
                too_young = if heading.header.is_some_and(young) { too_young + 1 } else { 0 };
                if query.glance && too_young > TOO_YOUNG {
                    return Ok(page);
                }
                if bytes >= enough || started.elapsed() >= TURN {
                    let all = (extent.newest.number + 1).saturating_sub(extent.oldest.number).max(1);
                    let behind = (number + 1).saturating_sub(extent.oldest.number);
                    page.progress = (behind as f64 / all as f64).min(1.0);
                    page.next = Some(HistoryCursor { block: number, seq: u64::MAX });
                    return Ok(page);
                }
            }
            number += 1;
        }
    }

    /// The first block that may hold readings from a wall clock on. Taken for ascending, which it is but for clocks
    /// that were set: those are the reason to begin a little earlier.
    fn first_not_before(&self, wall_us: i64) -> Result<u64, StoreError> {
        let Some(extent) = ring::extent(&self.connection)? else { return Ok(0) };
        let (mut low, mut high) = (extent.oldest.number, extent.newest.number + 1);
        while low < high {
            let middle = low.midpoint(high);
            let heading = match ring::locate(&self.connection, middle)? {
                Some(spot) => ring::headings(&self.connection, spot, 1)?.first().copied(),
                None => None,
            };
            match heading.and_then(|heading| heading.header) {
                Some(header) if header.wall_max < wall_us => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low.saturating_sub(TOO_YOUNG as u64))
    }
}

fn value_of(batch: &Batch, query: &HistoryQuery) -> Option<HistoryValue> {
    let stamp = batch.stamp;
    if *batch.shape.device != *query.device || !(query.from_us..query.to_us).contains(&stamp.wall_us) {
        return None;
    }
    let point = batch.shape.points.iter().position(|point| *point.name == *query.point)?;
    let at = batch.readings.iter().position(|reading| usize::from(reading.point) == point)?;
    let sample = batch.readings.get(at)?.sample.clone();
    Some(HistoryValue {
        run: batch.run,
        seq: batch.seq + at as u64,
        wall_us: stamp.wall_us,
        clock: stamp.clock,
        sample,
    })
}

fn exported(batch: &Batch, query: &ExportQuery, settled: Settled<'_>) -> bool {
    let wall_us = batch.stamp.wall_us;
    query.device.as_ref().is_none_or(|device| *batch.shape.device == **device)
        && query.from_us.is_none_or(|from| wall_us >= from)
        && query.to_us.is_none_or(|to| wall_us < to)
        && !(query.waiting && settled(batch.run, batch.seq, batch.end()))
}

fn decoded_bytes(batch: &Batch) -> usize {
    size_of::<Batch>() + batch.readings.len() * size_of::<Reading>()
}
