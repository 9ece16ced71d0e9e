//! Entering: a file that is open becomes that of this life. The ends of the runs before, what the file has forgotten, and the new run
//! are one transaction, at a start and when another file comes up later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::block;
use super::forgotten;
use super::inner::{Inner, salvage_of};
use super::ledger::{End, Ledger, RunBooks};
use super::records::Mark;
use super::rescue::{Said, say_again};
use super::ring;
use super::shared::Shared;
use super::store::{Found, RunUpdate, Store, StoreError, Work};
use crate::model::event::{Body, ClockCorrection, Event, GapCause};
use crate::model::{RunId, Stamp};
use crate::status::Salvage;

/// How far back the end of a run is looked for among the newest blocks.
const LOOK_BACK: u64 = 4096;

/// What the small tables gave, ready for the shared state.
#[derive(Debug)]
pub(super) struct Adopted {
    /// The books of all runs, this one's included.
    pub(super) ledger: Ledger,
    /// The spool's own row as it is now.
    pub(super) mark: Mark,
    /// Records that wait.
    pub(super) events_waiting: u64,
    /// What the records say of the clock.
    pub(super) clocks: Vec<ClockCorrection>,
    /// The newest damage that they tell of.
    pub(super) salvage: Option<Salvage>,
}

/// The life that makes a file its own.
#[derive(Debug)]
pub(super) struct Life<'a> {
    /// Which.
    pub(super) run: RunId,
    /// Its books.
    pub(super) books: &'a RunBooks,
    /// Runs before the newest are of a rescue that was cut off; it says how they ended.
    pub(super) salvaging: bool,
    /// What the file's copy knows beyond it, to be recorded.
    pub(super) report: Option<Body>,
}

/// Makes a file ours: ends the runs that nobody ended, enters this one, and says what the file has forgotten, in one transaction: until
/// then the copy beside it is all that tells of it, and stays. `next_event` numbers the records.
pub(super) fn enter(
    store: &mut Store,
    found: Found,
    Life { run, books: own, salvaging, report }: Life<'_>,
    stamp: Stamp,
    next_event: &mut u64,
) -> Result<Adopted, StoreError> {
    let mut mark = found.mark;
    let mut ledger = mark.ledger();
    let (mut bodies, mut updates) = (Vec::new(), Vec::new());
    let newest = found.runs.last().map(|row| row.run);
    for mut row in found.runs {
        let later = salvaging && Some(row.run) != newest;
        if !row.ended && row.run != run && !later {
            let (next, wall_us) = last_of(store.connection(), (row.run, row.books.durable))?;
            row.books.durable = row.books.settled_on(next);
            let last_wall_us = wall_us.or(row.last_wall_us);
            // An end that was said, and that the file has forgotten, is said again as it was.
            let end = *row.books.end.get_or_insert(End { clean: false, last_wall_us });
            bodies.push(end.body(row.run, row.books.durable));
            updates.push(RunUpdate {
                run: row.run,
                ended: end.row(),
                last_wall_us: end.last_wall_us,
                books: row.books.for_disk(),
            });
        }
        ledger.runs.insert(row.run, row.books);
    }
    ledger.runs.insert(run, own.clone());
    updates.push(RunUpdate { run, ended: 0, last_wall_us: None, books: own.for_disk() });
    mark.counter = mark.counter.max(run.counter);
    let salvage = report.as_ref().and_then(|body| salvage_of(body, stamp)).or(found.salvage);
    let mut events = Vec::new();
    for body in bodies.into_iter().chain(report) {
        events.push(Arc::new(Event { run, number: *next_event, stamp, body }));
        *next_event += 1;
    }
    let work = Work { events: &events, runs: &updates, mark: Some(&mark), ..Work::default() };
    let written = store.commit(&work)?;
    let events_waiting = found.events_waiting + written.event_ids.len() as u64;
    Ok(Adopted { ledger, mark, events_waiting, clocks: found.clocks, salvage })
}

/// How far a run came, by its blocks among the newest, and the wall clock there: the furthest block, not the newest, since
/// a rescue stores older readings behind newer ones.
///
/// The checksum of a block proves what its head says. A damaged one is believed where it goes on from what is known: then its
/// readings are found missing, and recorded.
pub(super) fn last_of(
    connection: &Connection,
    (run, durable): (RunId, u64),
) -> Result<(u64, Option<i64>), StoreError> {
    let mut end = (durable, None);
    let Some(extent) = ring::extent(connection)? else { return Ok(end) };
    let from = extent.newest.number.saturating_sub(LOOK_BACK);
    let Some(spot) = ring::locate(connection, from)? else { return Ok(end) };
    let limit = usize::try_from(LOOK_BACK + 1).unwrap_or(usize::MAX);
    let headings = ring::headings(connection, spot, limit)?;
    let own =
        |heading: &ring::Heading| Some((heading.spot, heading.header.filter(|header| header.run == run)?));
    let mut furthest: Vec<_> = headings.iter().filter_map(own).collect();
    furthest.sort_by_key(|(_, header)| std::cmp::Reverse(header.next));
    let mut unproved = Vec::new();
    for (spot, header) in furthest {
        let block = ring::block(connection, spot)?;
        if block.is_some_and(|block| block::Header::checked(&block).is_ok()) {
            end = (durable.max(header.next), Some(header.wall_max));
            break;
        }
        unproved.push(header);
    }
    for claim in unproved.iter().rev() {
        let long = claim.next - claim.first > block::READINGS_MAX as u64;
        if !long && claim.first <= end.0 {
            end.0 = end.0.max(claim.next);
        }
    }
    Ok(end)
}

/// A file came up while we run: another one than before, or the first. What the old one held and nobody confirmed is
/// lost, unless it is being salvaged.
pub(super) fn adopt(
    shared: &Shared,
    store: &mut Store,
    mut found: Found,
    salvaging: bool,
) -> Result<(), StoreError> {
    // Of a start that could not open it.
    let report = forgotten::recall(&mut found, store.path(), false);
    let stamp = (shared.now)();
    let newest = found.newest_event;
    let mut guard = shared.lock();
    let inner = &mut *guard;
    if !salvaging {
        lose_all(inner, stamp);
    }
    let own = inner.ledger.runs.get(&inner.run).cloned().unwrap_or_default();
    let run = inner.run;
    // At most one record for each run of the file, and the report.
    let mut next_event = inner.next_event;
    let reserved = next_event + found.runs.len() as u64 + 1;
    inner.next_event = reserved;
    drop(guard);
    // Nobody who appends waits for the disk.
    let life = Life { run, books: &own, salvaging, report };
    let adopted = enter(store, found, life, stamp, &mut next_event)?;
    let mut inner = shared.lock();
    if inner.next_event == reserved {
        inner.next_event = next_event;
    }
    let folded = adopted.ledger;
    for (run, books) in folded.runs {
        inner.ledger.runs.entry(run).or_insert(books);
    }
    if inner.ledger.folded.is_empty() {
        // The first file of this life: what it says of older runs is all that is known of them.
        inner.ledger.folded_confirmed = folded.folded_confirmed;
        inner.ledger.folded_losses = folded.folded_losses;
        inner.ledger.folded = folded.folded;
    }
    let runs: Vec<_> = inner.ledger.runs.keys().copied().collect();
    inner.dirty.extend(runs);
    inner.salvage = inner.salvage.take().or(adopted.salvage);
    // What this life has heard of a boot is newer.
    for correction in adopted.clocks.into_iter().rev() {
        inner.hear_clock(Some(correction));
    }
    inner.events_waiting = adopted.events_waiting;
    inner.sent.clear();
    inner.floor = adopted.mark.floor;
    shared.newest_event.store(newest.max(store.next().1 - 1), Ordering::Release);
    Ok(())
}

/// The old file is gone and nothing will be saved from it.
fn lose_all(inner: &mut Inner, stamp: Stamp) {
    let runs: Vec<_> = inner.ledger.runs.iter().map(|(run, books)| (*run, books.durable)).collect();
    let before = inner.ledger.sums().losses.damaged;
    if inner.events_waiting > 0 {
        say_again(inner, &BTreeMap::new(), &Said::default(), stamp);
    }
    for (run, durable) in runs {
        inner.lose(run, 0, durable, GapCause::Damaged);
    }
    let lost = inner.ledger.sums().losses.damaged - before;
    if lost > 0 || inner.events_waiting > 0 {
        let found = "the file was removed or replaced while it was in use".to_owned();
        inner.record(Body::Corruption { found, saved: 0, lost }, stamp);
    }
}
