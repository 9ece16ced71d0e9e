//! Entering: a file that is open becomes that of this life. The ends of the runs before, what the file has forgotten, the new run, and the
//! records of what its books call lost are one transaction, at a start and when another file comes up later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::block;
use super::forgotten;
use super::gaps::Gap;
use super::inner::{Inner, salvage_of};
use super::ledger::{End, Intervals, Ledger, RunBooks};
use super::records::Mark;
use super::rescue::{Said, say_again};
use super::ring;
use super::shared::Shared;
use super::store::{self, Found, RunUpdate, Store, StoreError, Work};
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
    /// Records of what its books call lost, where the file has none.
    pub(super) untold: Vec<Arc<Event>>,
}

/// What of this life is lost, and in no record on the disk. Books that call it settled must not get there without: after a power cut they
/// would tell of a run in which nothing is missing.
#[derive(Debug, Default)]
struct Untold {
    /// Not made into records yet.
    gaps: Vec<Gap>,
    /// Said once more, because their rows went with another file.
    events: Vec<Arc<Event>>,
}

impl Untold {
    /// Out of memory. What is told of other runs stays there: their books do not go now.
    fn take(inner: &mut Inner) -> Self {
        let run = inner.run;
        let own = |event: &Arc<Event>| Gap::told_by(&event.body).is_some_and(|gap| gap.of == run);
        let (events, others): (Vec<_>, Vec<_>) = inner.events.drain(..).partition(own);
        inner.events = others.into();
        let (gaps, others) = inner.gaps.take().into_iter().partition(|gap| gap.of == run);
        inner.gaps.put_back(others);
        Self { gaps, events }
    }

    /// As records, numbered from `next_event` on; without what `told` says, which an attempt that failed has left in the file all the same.
    fn records(
        &self,
        inner: &Inner,
        (told, growing): (&[Event], &[Gap]),
        stamp: Stamp,
        next_event: &mut u64,
    ) -> Vec<Arc<Event>> {
        let known = |event: &&Arc<Event>| !told.iter().any(|told| told.number == event.number);
        let mut records: Vec<_> = self.events.iter().filter(known).cloned().collect();
        let mut settled = Intervals::default();
        let mut parts = Vec::new();
        for gap in told.iter().filter_map(|event| Gap::told_by(&event.body)) {
            if gap.is_whole() {
                settled.insert(gap.first, gap.next);
            } else {
                parts.push(inner.for_all(gap));
            }
        }
        for gap in growing.iter().chain(&self.gaps).filter(|gap| gap.of == inner.run) {
            let pieces = if gap.is_whole() {
                let piece = |stretch| Gap::all(gap.of, stretch, gap.cause);
                settled.missing(gap.first, gap.next).into_iter().map(piece).collect()
            } else {
                vec![inner.for_all(*gap)]
            };
            for piece in pieces.into_iter().filter(|piece| !parts.contains(piece)) {
                let event = Event { run: inner.run, number: *next_event, stamp, body: piece.body() };
                *next_event += 1;
                records.push(Arc::new(event));
            }
        }
        records
    }

    /// The file does not have it.
    fn put_back(self, inner: &mut Inner) {
        for event in self.events.into_iter().rev() {
            inner.events.push_front(event);
        }
        inner.gaps.put_back(self.gaps);
    }
}

/// Makes a file ours: ends the runs that nobody ended, enters this one, and says what the file has forgotten, in one transaction: until
/// then the copy beside it is all that tells of it, and stays. `next_event` numbers the records.
pub(super) fn enter(
    store: &mut Store,
    found: Found,
    Life { run, books: own, salvaging, report, untold }: Life<'_>,
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
    let mut events = untold;
    for body in bodies.into_iter().chain(report) {
        events.push(Arc::new(Event { run, number: *next_event, stamp, body }));
        *next_event += 1;
    }
    let work = Work { events: &events, runs: &updates, mark: Some(&mark), ..Work::default() };
    let written = store.commit(&work)?;
    let events_waiting = written.records_waiting(found.events_waiting);
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
/// lost, unless it is being salvaged. `growing`: losses that a record in the old one may tell, or not.
pub(super) fn adopt(
    shared: &Shared,
    store: &mut Store,
    mut found: Found,
    salvaging: bool,
    growing: &[Gap],
) -> Result<(), StoreError> {
    // Of a start that could not open it.
    let report = forgotten::recall(&mut found, store.path(), false);
    let stamp = (shared.now)();
    let newest = found.newest_event;
    let run = shared.lock().run;
    let told = told_before(store, &found, run)?;
    let mut guard = shared.lock();
    let inner = &mut *guard;
    if !salvaging {
        lose_all(inner, stamp);
    }
    let own = inner.ledger.runs.get(&run).cloned().unwrap_or_default();
    let mut next_event = inner.next_event;
    let taken = Untold::take(inner);
    let untold = taken.records(inner, (&told, growing), stamp, &mut next_event);
    // At most one record for each run of the file, and the report.
    let reserved = next_event + found.runs.len() as u64 + 1;
    inner.next_event = reserved;
    drop(guard);
    // Nobody who appends waits for the disk.
    let life = Life { run, books: &own, salvaging, report, untold };
    let entered = enter(store, found, life, stamp, &mut next_event);
    let mut inner = shared.lock();
    if entered.is_err() {
        taken.put_back(&mut inner);
    }
    let adopted = entered?;
    inner.recorded();
    growing.iter().filter(|gap| gap.of != run).for_each(|gap| inner.gaps.push(*gap));
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
    let (block, event) = store.next();
    shared.newest_event.store(newest.max(event - 1), Ordering::Release);
    shared.newest_block.store(block - 1, Ordering::Release);
    Ok(())
}

/// Records of this life in a file that it has not made its own: an attempt that failed has left them there all the same.
fn told_before(store: &Store, found: &Found, run: RunId) -> Result<Vec<Event>, StoreError> {
    if !found.runs.iter().any(|row| row.run == run) {
        return Ok(Vec::new());
    }
    let records = store::records(store.connection())?;
    Ok(records.into_iter().filter(|event| event.run == run && event.body.about() == Some(run)).collect())
}

/// What is said of a file that is gone.
const REMOVED: &str = "the file was removed or replaced while it was in use";

/// The old file is gone and nothing will be saved from it. Said once, however often the new one is tried.
fn lose_all(inner: &mut Inner, stamp: Stamp) {
    let runs: Vec<_> = inner.ledger.runs.iter().map(|(run, books)| (*run, books.durable)).collect();
    let before = inner.ledger.sums().losses.damaged;
    if inner.events_waiting > 0 {
        let mut said = Said::default();
        inner.events.iter().for_each(|event| said.hear(&event.body));
        say_again(inner, &BTreeMap::new(), &said, stamp);
    }
    for (run, durable) in runs {
        inner.lose(run, 0, durable, GapCause::Damaged);
    }
    let lost = inner.ledger.sums().losses.damaged - before;
    let is_said = |body: &Body| matches!(body, Body::Corruption { found, .. } if found == REMOVED);
    let said = inner.events.iter().any(|event| is_said(&event.body));
    if lost > 0 || (inner.events_waiting > 0 && !said) {
        inner.record(Body::Corruption { found: REMOVED.to_owned(), saved: 0, lost }, stamp);
    }
}
