//! Sending again what was confirmed: a broker may have dropped what it had acknowledged.
//!
//! A [`Search`] walks the whole ring once, oldest first, in steps, and lets the batches that were asked for wait again: their
//! stretch leaves the settled ones of the ledger, and the floor moves back to their block. So the books stay exact,
//! the ring's rules for room hold, and the request survives a restart because the ledger does. A batch keeps its name
//! and its content.
//!
//! What was lost is not brought back: it is in a gap record, which no later copy may contradict. Where only the number of losses is
//! known any more ([`Lost`](super::ledger::Lost)), all that is stored goes: better a refused batch once more, which is refused again
//! or arrives after all, than a delivered one passed over. What is no longer in the ring cannot be sent; the answer counts both. The run ends, gaps and clock records that are still known of the
//! runs concerned are sent again too, because a receiver that lost readings may have lost those.
//!
//! In a full ring the oldest blocks make room for new readings, also those that wait again: what was asked for then is sent before, or
//! lost with a gap record. New readings exist once, these were acknowledged before. The answer says how many are next.
//!
//! Used by the writer while the daemon runs, and by [`offline`](super::offline) on the file itself. Pure but for reading the file.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::api::{Asked, Resent, ResentRun};
use super::block::{self, Header};
use super::dictionary::Dictionary;
use super::ledger::{EXCEPTIONS_MAX, Intervals, Ledger, RunBooks, UNFOLDED};
use super::records::{event_of, run_of};
use super::ring::{self, Heading};
use super::shared::off_the_lock;
use super::store::{Store, StoreError};
use crate::model::event::Body;
use crate::model::{Batch, BootId, ClockQuality, RunId, Stamp};

/// Headings looked at in one statement, and statements in one step.
const STEP: usize = 64;
const STATEMENTS: usize = 16;

/// A step ends after so many bytes of blocks: some milliseconds of decoding. No clock is asked, so that a step can be repeated.
const STEP_BYTES: u64 = 512 * 1024;

/// Settled stretches of a run beyond which no more of it is let wait again: a small part of what the disk keeps
/// ([`EXCEPTIONS_MAX`]), since what is beyond that is forgotten with the next restart. Readings that were never written to disk (`keep = "unsent"`) make such holes.
const STRETCHES_MAX: usize = EXCEPTIONS_MAX / 16 - 8;

/// What is stored next is taken to be so long.
const NEXT_BYTES: u64 = 16 * 1024;

/// Runs named one by one in the answer.
const RUNS_SAID: usize = 100;

/// A batch that was asked for and is in the ring.
#[derive(Debug)]
pub(super) struct Piece {
    run: RunId,
    first: u64,
    next: u64,
    block: u64,
}

/// What was found of one run.
#[derive(Debug, Default)]
struct Found {
    /// From the first to the last reading looked at: what was asked for, or what was found.
    hull: Option<(u64, u64)>,
    /// The end of its last block: of a folded run nothing else tells how long it was.
    reached: u64,
    lost: u64,
    batches: u64,
    readings: u64,
    already: u64,
    left: u64,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Search {
    asked: Asked,
    /// Number of the next block to look at.
    at: u64,
    /// One past the newest block when it began: what comes later is not confirmed history.
    end: u64,
    began: u64,
    clocks: Vec<(BootId, i64, u64)>,
    /// What the dead letters and the gap records name: of a folded run the books do not tell any more.
    lost: BTreeMap<RunId, Intervals>,
    /// The batch before, in the order of storing, was asked for.
    before: bool,
    found: BTreeMap<RunId, Found>,
    /// What the blocks that were looked at hold, asked for or not. What is confirmed while the search goes on is settled when it ends, as
    /// what is gone is: this tells them apart. No more stretches than the ring has holes.
    seen: BTreeMap<RunId, Intervals>,
    damaged: u64,
    /// Readings in damaged blocks behind the last sound one, as old by their headers as is not asked for. A clock that nobody had set may
    /// have written those: if what was stored next is asked for, so may they be.
    doubtful: u64,
    oldest_us: Option<i64>,
}

impl Search {
    /// What of it is durable: what is stored and confirmed from now on was not asked for. Or why there is nothing such, in a sentence.
    /// To be asked before it begins.
    pub(super) fn admit(asked: Asked, ledger: &Ledger) -> Result<Asked, String> {
        let Asked::Stretch { run, first, next } = asked else { return Ok(asked) };
        if ledger.is_folded(run) {
            return Ok(asked);
        }
        let durable = ledger.runs.get(&run).map(|books| books.durable);
        match not_there(run, first, durable, ledger) {
            Some(why) => Err(why),
            None => {
                Ok(Asked::Stretch { run, first, next: durable.map_or(next, |durable| next.min(durable)) })
            }
        }
    }

    /// Begins: reads all records and dead letters.
    pub(super) fn begin(asked: Asked, connection: &Connection) -> Result<Self, StoreError> {
        let extent = ring::extent(connection)?;
        let at = extent.map_or(0, |extent| extent.oldest.number);
        let oldest = match extent {
            Some(extent) => ring::headings(connection, extent.oldest, 1)?.first().copied(),
            None => None,
        };
        let mut found = BTreeMap::new();
        if let Asked::Stretch { run, first, next } = asked {
            found.insert(run, Found { hull: Some((first, next)), ..Found::default() });
        }
        Ok(Self {
            asked,
            at,
            end: extent.map_or(0, |extent| extent.newest.number + 1),
            began: at,
            clocks: clocks(connection)?,
            lost: lost(connection)?,
            before: false,
            found,
            seen: BTreeMap::new(),
            damaged: 0,
            doubtful: 0,
            oldest_us: oldest.and_then(|heading| heading.header).map(|header| header.wall_min),
        })
    }

    /// Share of the ring that lies behind, 0 to 1.
    pub(super) fn progress(&self) -> f64 {
        let (behind, all) = (self.at.saturating_sub(self.began), self.end.saturating_sub(self.began));
        if all == 0 { 1.0 } else { behind as f64 / all as f64 }
    }

    /// Looks at some more blocks. `None`: everything was looked at.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        dictionary: &Dictionary,
    ) -> Result<Option<Vec<Piece>>, StoreError> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        for _ in 0..STATEMENTS {
            if self.at >= self.end {
                return Ok(if pieces.is_empty() { None } else { Some(pieces) });
            }
            let Some(spot) = ring::locate(connection, self.at)? else {
                self.at = self.end;
                continue;
            };
            for heading in ring::headings(connection, spot, STEP)? {
                if heading.spot.number >= self.end {
                    self.at = self.end;
                    break;
                }
                self.at = heading.spot.number + 1;
                bytes += self.look(connection, dictionary, &heading, &mut pieces)?;
            }
            if bytes >= STEP_BYTES {
                break;
            }
        }
        Ok(Some(pieces))
    }

    /// Gives the bytes that were decoded.
    fn look(
        &mut self,
        connection: &Connection,
        dictionary: &Dictionary,
        heading: &Heading,
        pieces: &mut Vec<Piece>,
    ) -> Result<u64, StoreError> {
        let Some(header) = heading.header else { return Ok(0) };
        if let Some(found) = self.found.get_mut(&header.run) {
            found.reached = found.reached.max(header.next);
        }
        if let Asked::Stretch { run, first, next } = self.asked
            && (header.run != run || header.next <= first || header.first >= next)
        {
            return Ok(0);
        }
        let Some(bytes) = ring::block(connection, heading.spot)? else { return Ok(0) };
        let Ok(batches) = block::decode(&bytes, dictionary) else {
            self.damaged(&header);
            return Ok(heading.bytes);
        };
        for batch in batches {
            self.seen.entry(batch.run).or_default().insert(batch.seq, batch.end());
            if self.wants(&batch) {
                let (run, first, next) = (batch.run, batch.seq, batch.end());
                pieces.push(Piece { run, first, next, block: heading.spot.number });
            }
        }
        Ok(heading.bytes)
    }

    /// Counts what of a damaged block may have been asked for.
    fn damaged(&mut self, header: &Header) {
        self.seen.entry(header.run).or_default().insert(header.first, header.next);
        let readings = u64::from(header.readings);
        match self.asked {
            Asked::Stretch { first, next, .. } => {
                self.damaged += readings.min(header.next.min(next).saturating_sub(header.first.max(first)));
            }
            Asked::Since { wall_us } if self.before || header.wall_max >= wall_us => self.damaged += readings,
            Asked::Since { .. } => self.doubtful += readings,
        }
    }

    fn wants(&mut self, batch: &Batch) -> bool {
        match self.asked {
            Asked::Stretch { first, next, .. } => batch.seq < next && batch.end() > first,
            Asked::Since { wall_us } => {
                let (known_us, trusted) = self.wall(&batch.stamp);
                // A stamp that nobody ever set right says nothing: its place among the others does.
                self.before = known_us >= wall_us || (!trusted && self.before);
                let doubtful = std::mem::take(&mut self.doubtful);
                self.damaged += if self.before { doubtful } else { 0 };
                self.before
            }
        }
    }

    /// Wall clock of a stamp as it is known now, and whether it can be trusted.
    fn wall(&self, stamp: &Stamp) -> (i64, bool) {
        if stamp.clock != ClockQuality::Unsynced {
            return (stamp.wall_us, true);
        }
        let fits = |(boot, _, at): &&(BootId, i64, u64)| *boot == stamp.boot && stamp.mono_us < *at;
        match self.clocks.iter().find(fits) {
            Some((_, offset_us, _)) => (stamp.wall_us.saturating_add(*offset_us), true),
            None => (stamp.wall_us, false),
        }
    }

    /// Lets them wait again; `floor` moves back with them. Gives the runs whose books changed.
    pub(super) fn take(&mut self, pieces: Vec<Piece>, ledger: &mut Ledger, floor: &mut u64) -> Vec<RunId> {
        let mut changed = Vec::new();
        for Piece { run, first, next, block } in pieces {
            let found = self.found.entry(run).or_default();
            if matches!(self.asked, Asked::Since { .. }) {
                let (from, to) = found.hull.unwrap_or((first, next));
                found.hull = Some((from.min(first), to.max(next)));
            }
            found.reached = found.reached.max(next);
            let books = ledger.runs.get(&run);
            if books.is_some_and(|books| books.lost.touches(first, next)) {
                continue;
            }
            if self.lost.get(&run).is_some_and(|lost| lost.touches(first, next)) {
                found.lost += next - first;
                continue;
            }
            let scattered = |books: &RunBooks| {
                books.settled.count() >= STRETCHES_MAX + books.lost.count()
                    && books.settled.splits(first, next)
            };
            if !ledger.is_folded(run) && !books.is_some_and(|books| books.settled.touches(first, next)) {
                found.already += next - first;
            } else if books.is_some_and(scattered) {
                found.left += next - first;
            } else {
                found.readings += ledger.wait_again(run, first, next);
                found.batches += 1;
                *floor = (*floor).min(block);
                if changed.last() != Some(&run) {
                    changed.push(run);
                }
            }
        }
        changed
    }

    /// How many readings of the runs concerned wait in blocks that have to make room for the next ones.
    pub(super) fn pressed(&self, store: &Store, ledger: &Ledger, floor: u64) -> Result<u64, StoreError> {
        let victims = store.victims(NEXT_BYTES, floor)?;
        let headers = victims.unsettled.iter().filter_map(|heading| heading.header);
        let waiting = headers.filter(|header| self.found.contains_key(&header.run)).flat_map(|header| {
            let books = ledger.runs.get(&header.run);
            books.map_or(Vec::new(), |books| books.settled.missing(header.first, header.next))
        });
        Ok(waiting.map(|(first, next)| next - first).sum())
    }

    /// The runs concerned, for their records.
    pub(super) fn runs(&self) -> Vec<RunId> {
        self.found.keys().copied().collect()
    }

    /// The answer, once everything was looked at. `records`: how many are sent again; `pressed`: see there.
    pub(super) fn finish(mut self, ledger: &Ledger, (records, pressed): (u64, u64)) -> Resent {
        let mut resent = Resent {
            records,
            pressed,
            damaged: self.damaged,
            oldest_us: self.oldest_us,
            runs_concerned: self.found.len() as u64,
            ..Resent::default()
        };
        for (run, found) in self.found {
            let nothing = RunBooks::default();
            let books = ledger.runs.get(&run).unwrap_or(&nothing);
            let (first, next) = found.hull.unwrap_or_default();
            let short = books.durable >= UNFOLDED || ledger.is_folded(run);
            let next = next.min(if short { found.reached } else { books.durable });
            let lost = books.lost.within(first, next) + found.lost;
            let unseen = self.seen.remove(&run).unwrap_or_default().missing(first, next);
            let folded = ledger.is_folded(run);
            let settled = |from, to| if folded { to - from } else { books.settled.within(from, to) };
            let gone = |(from, to)| settled(from, to).saturating_sub(books.lost.within(from, to));
            let gone = unseen.into_iter().map(gone).sum();
            resent.readings += found.readings;
            resent.batches += found.batches;
            resent.already += found.already;
            resent.left += found.left;
            resent.lost += lost;
            resent.gone += gone;
            let run = run.to_string();
            resent.runs.push(ResentRun { run, first, next, readings: found.readings, lost, gone });
        }
        let many = resent.runs.len().saturating_sub(RUNS_SAID);
        resent.runs.drain(..many);
        resent
    }
}

/// Why nothing such can be sent, if so.
fn not_there(run: RunId, first: u64, durable: Option<u64>, ledger: &Ledger) -> Option<String> {
    match durable {
        None => {
            let known: Vec<String> = ledger.runs.keys().rev().take(5).map(ToString::to_string).collect();
            Some(format!(
                "nothing is stored of a run {run}; the newest that are known: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        }
        Some(0) => Some(format!("run {run} has stored no reading")),
        Some(durable) if first >= durable => {
            Some(format!("run {run} has the readings 0 to {}; there is no {first}", durable - 1))
        }
        Some(_) => None,
    }
}

/// The clock records that are known: boot, offset, and when it was set.
fn clocks(connection: &Connection) -> Result<Vec<(BootId, i64, u64)>, StoreError> {
    off_the_lock();
    let sql = "SELECT run, number, body FROM event WHERE body LIKE '%\"kind\":\"clock\"%'";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut clocks = Vec::new();
    while let Some(row) = rows.next()? {
        let (run, number): (i64, i64) = (row.get(0)?, row.get(1)?);
        let text = row.get_ref(2)?.as_str().unwrap_or_default();
        let event = event_of(run_of(run), number.cast_unsigned(), text);
        if let Some(Body::Clock { boot, offset_us, at_mono_us }) = event.map(|event| event.body) {
            clocks.push((boot, offset_us, at_mono_us));
        }
    }
    Ok(clocks)
}

/// Readings that are named as lost: in dead letters and gap records.
fn lost(connection: &Connection) -> Result<BTreeMap<RunId, Intervals>, StoreError> {
    off_the_lock();
    let mut lost: BTreeMap<RunId, Intervals> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT run, seq, n FROM dead")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (run, seq, n): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        lost.entry(run_of(run))
            .or_default()
            .insert(seq.cast_unsigned(), seq.saturating_add(n).cast_unsigned());
    }
    let sql = "SELECT run, number, body FROM event WHERE body LIKE '%\"kind\":\"gap\"%'";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (run, number): (i64, i64) = (row.get(0)?, row.get(1)?);
        let text = row.get_ref(2)?.as_str().unwrap_or_default();
        let event = event_of(run_of(run), number.cast_unsigned(), text);
        if let Some(Body::Gap { of, first, next, .. }) = event.map(|event| event.body) {
            lost.entry(of).or_default().insert(first, next);
        }
    }
    Ok(lost)
}

/// Whether a record says something about one of the runs that a receiver needs for its proof.
pub(super) fn concerns(run: RunId, body: &Body, runs: &[RunId]) -> bool {
    match body {
        Body::RunEnd { ended: of, .. } | Body::Gap { of, .. } | Body::Gaps { of, .. } => runs.contains(of),
        Body::Clock { .. } => runs.contains(&run),
        Body::Missed { .. } | Body::Config { .. } | Body::Corruption { .. } | Body::Device { .. } => false,
    }
}
