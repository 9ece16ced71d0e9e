//! What the spool promises, with real files. [`model`] holds it against a plain list; which test guards which fault:
//!
//! ```text
//! torn tail of the log          faults::a_torn_tail_of_the_log_costs_nothing_that_was_stored
//! file of another program       faults::a_file_of_another_program_is_set_aside_untouched
//! garbage file                  damage::a_garbage_file_is_set_aside_and_the_spool_goes_on
//! damaged pages, bad block      damage::a_damaged_file_gives_back_all_blocks_but_the_damaged_ones and its neighbours
//! EIO met by the search         unread::what_the_disk_does_not_give_now_is_not_lost_but_searched_for_again and its neighbour
//! three quarantines in a row     damage::three_quarantines_in_quick_succession_lose_nothing_and_never_stop_sampling
//! resend, then quarantine       again::what_waits_again_still_waits_after_the_file_was_damaged
//! poison block                  faults::a_block_that_is_whole_and_makes_no_sense_costs_itself_and_blocks_nobody
//! power cut in a quarantine     aside::tests, damage::a_power_cut_inside_a_quarantine_loses_no_stored_reading
//! quarantine that fails         rescue; at a start: opening
//! a card that damages each file quarantines::what_goes_unsearched_is_recorded_and_what_it_alone_held_is_told_lost
//! rescue that is cut off        cut_rescue
//! books of a run that are lost  bookless
//! rescue beside readers         storm::a_rescue_beside_readers_that_never_pause_keeps_the_log_within_its_bound
//! rescue on a full disk         full
//! rescue without room           taken_back::what_finds_no_room_waits_in_its_folder_and_not_one_reading_is_lost
//! newer schema                  damage::a_newer_schema_is_set_aside_untouched
//! file gone, log not            opening::a_file_that_was_removed_or_emptied_does_not_take_its_log_with_it
//! start that is cut off         opening::what_only_the_copy_tells_is_told_although_the_start_that_read_it_is_cut_off
//! file removed under us         disk::a_file_removed_under_us_is_noticed_and_made_anew and the test after it
//! commits that fail             disk::after_failed_commits_every_reading_is_stored_once
//! ... and landed all the same   landed
//! losses told by memory alone   untold
//! clock set back, 50 years on   retention::a_clock_set_back_or_fifty_years_forward_expires_and_reorders_nothing
//! lost while it is on the wire  wire
//! old age                       retention
//! gaps without number           gaps
//! starts without number         folded
//! two runs with one counter     folded
//! log of another spool          faults::the_log_of_another_spool_is_set_aside_and_nothing_of_it_gets_into_ours
//!
//! with the real binary and injected faults, in tests/storage.rs:
//! EIO on fsync                  a_failed_fsync_is_not_believed_and_what_memory_drops_is_counted_exactly
//! stall of 2 s                  a_disk_that_stalls_two_seconds_at_a_time_costs_no_poll
//! full disk                     a_full_disk_still_lets_confirmed_history_make_room
//! read-only disk                an_ext4_that_goes_read_only_under_it_is_said_and_costs_nothing_stored
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool_drivers::{Sample, Value, ValueKind};

use super::block::tests::shape;
use super::ledger::Sums;
use super::offline::Offline;
use super::{
    BYTES_MAX_LEAST, Confirmed, Cursor, ExportQuery, HistoryQuery, Item, Keep, Opened, Spool, SpoolError,
    SpoolSettings, store,
};
use crate::model::event::{Body, ClockCorrection, Event, GapCause};
use crate::model::{Batch, BootId, ClockQuality, Reading, RunId, Shape, Stamp};
use crate::status::Board;

mod again;
mod beside;
mod blockless;
mod bookless;
mod cut_rescue;
mod damage;
mod disk;
mod faults;
mod folded;
mod full;
mod full_length;
mod gaps;
mod landed;
mod late;
mod letters;
mod lives;
mod model;
mod newer;
mod opening;
mod quarantines;
mod questions;
mod rescue;
mod resent;
mod retention;
mod room;
mod stall;
mod storm;
mod taken_back;
mod turns;
mod unread;
mod untold;
mod verify;
mod wire;

/// A deadline for what takes milliseconds: long, because machines that test are busy.
const SOON: Duration = Duration::from_secs(60);

fn stamp(second: u64) -> Stamp {
    let wall_us = 1_795_000_000_000_000 + i64::try_from(second).expect("soon") * 1_000_000;
    Stamp { wall_us, mono_us: second * 1_000_000, boot: BootId(3), clock: ClockQuality::Synced }
}

fn settings(directory: &Path) -> SpoolSettings {
    SpoolSettings { commit_every: Duration::ZERO, ..SpoolSettings::new(directory) }
}

fn open(settings: SpoolSettings) -> (Opened, Board) {
    let board = Board::default();
    let opened = Spool::open(settings, board.clone(), || stamp(0)).expect("opens");
    (opened, board)
}

/// A device of two points, one reading each `seq`.
struct Plant {
    run: RunId,
    shape: Arc<Shape>,
    seq: u64,
}

impl Plant {
    fn new(run: RunId) -> Self {
        Self { run, shape: shape("meter", &[ValueKind::F64, ValueKind::Text]), seq: 0 }
    }

    fn batch(&mut self) -> Arc<Batch> {
        let sample = |value| Sample::good(value);
        let readings = vec![
            Reading { point: 0, sample: sample(Value::F64(self.seq as f64 / 10.0)) },
            Reading { point: 1, sample: sample(Value::Text(format!("{}", self.seq).into())) },
        ];
        let prev = self.seq.checked_sub(2);
        let batch = Batch {
            run: self.run,
            seq: self.seq,
            prev,
            stamp: stamp(self.seq),
            shape: self.shape.clone(),
            readings: readings.into(),
        };
        self.seq = batch.end();
        Arc::new(batch)
    }
}

/// A batch of ten readings and 2.5 kB.
fn big(run: RunId, seq: u64, shape: &Arc<Shape>) -> Arc<Batch> {
    // Not compressible, so that the file fills up at a known pace.
    let text = |point: u64| {
        let mut state = seq * 10 + point + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from(state >> 59).expect("5 bits") % 26)
        };
        (0..250).map(|_| next()).collect::<String>()
    };
    let reading =
        |point: u16| Reading { point, sample: Sample::good(Value::Text(text(u64::from(point)).into())) };
    Arc::new(Batch {
        run,
        seq,
        prev: seq.checked_sub(10),
        stamp: stamp(seq),
        shape: shape.clone(),
        readings: (0..10).map(reading).collect(),
    })
}

fn big_shape() -> Arc<Shape> {
    shape("scale", &[ValueKind::Text; 10])
}

fn sums(spool: &Spool) -> Sums {
    spool.shared.lock().ledger.sums()
}

/// All numbers in gap records of a run.
fn gaps(events: &[Arc<Event>], run: RunId, why: GapCause) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for event in events {
        if let Body::Gap { of, first, next, cause } = event.body
            && of == run
            && cause == why
        {
            for number in first..next {
                assert!(numbers.insert(number), "{number} is in two gap records");
            }
        }
    }
    numbers
}

fn numbers(batches: &[Arc<Batch>]) -> BTreeSet<u64> {
    batches.iter().flat_map(|batch| batch.seq..batch.end()).collect()
}

/// A spool with so many batches on the disk, each in a commit of its own.
async fn stored(directory: &Path, many: usize) -> (Spool, Board, Plant, Vec<Arc<Batch>>) {
    let (Opened { spool, run, .. }, board) = open(settings(directory));
    let mut plant = Plant::new(run);
    let all: Vec<_> = (0..many).map(|_| plant.batch()).collect();
    for batch in &all {
        spool.append(batch.clone());
        flush(&spool).await;
    }
    (spool, board, plant, all)
}

async fn flush(spool: &Spool) {
    spool.flush(Instant::now() + SOON).await.expect("stored");
}

/// Everything that waits, in order.
async fn waiting(spool: &Spool) -> (Vec<Arc<Batch>>, Vec<Arc<Event>>) {
    let (mut batches, mut events) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::START;
    while let Some(span) = spool.span(cursor).await.expect("readable") {
        assert!(!span.items.is_empty());
        cursor = span.next;
        for item in span.items {
            match item {
                Item::Batch(batch) => batches.push(batch),
                Item::Event(event) => events.push(event),
            }
        }
    }
    (batches, events)
}

/// The state directory as a kill would leave it: what is on disk now. Not in the middle of a commit, where copying one
/// file after the other would give a state that never was.
fn copy(spool: &Spool, from: &Path) -> tempfile::TempDir {
    let _no_commit = spool.shared.committing.lock().expect("no panic under it");
    copy_of(from)
}

fn copy_of(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        if entry.path().is_file() && !entry.file_name().to_string_lossy().ends_with("-shm") {
            match std::fs::copy(entry.path(), to.path().join(entry.file_name())) {
                // The copy of the small tables got its name meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copied")),
            }
        }
    }
    to
}

/// The file's first page is gone: SQLite does not open it any more, and all else in it is sound. Gives its length in bytes.
fn lose_first_page(file: &Path) -> u64 {
    let mut bytes = std::fs::read(file).expect("there");
    bytes[..1024].fill(0);
    std::fs::write(file, &bytes).expect("written");
    bytes.len() as u64
}

/// What waits when the search of a damaged file has ended.
async fn after_salvage(spool: &Spool) -> (Vec<Arc<Batch>>, Vec<Arc<Event>>) {
    let until = Instant::now() + SOON;
    loop {
        flush(spool).await;
        let found = waiting(spool).await;
        if found.1.iter().any(|event| matches!(event.body, Body::Corruption { .. })) {
            return found;
        }
        assert!(Instant::now() < until, "the salvage ends");
    }
}

/// Holds the file's write lock: every commit fails until it is dropped.
fn block_commits(directory: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    other
}

/// Until the board says that the disk fails.
async fn failing(board: &Board) {
    let failing = async {
        while board.read(|status| status.spool.state == "ok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, failing).await.expect("the board says that the disk fails");
}

#[test]
fn a_writer_that_wakes_up_by_itself_before_the_end_of_the_window_is_left_asleep() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SpoolSettings { commit_every: Duration::from_secs(1), ..settings(folder.path()) };
    let now = Instant::now();
    let run = RunId { counter: 1, random: 1 };
    let wakes = |sleeps_until: Instant| {
        let mut inner = super::parts::inner(settings.clone(), run, 0);
        inner.sleeps_until = sleeps_until;
        inner.append(Plant::new(run).batch(), now)
    };
    assert!(!wakes(now + Duration::from_millis(900)));
    assert!(wakes(now + Duration::from_millis(1100)));
}
