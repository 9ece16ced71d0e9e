//! What the spool promises, with real files.

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
use crate::model::event::{Body, Event, GapCause};
use crate::model::{Batch, BootId, ClockQuality, Reading, RunId, Shape, Stamp};
use crate::status::Board;

mod model;

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
            readings,
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
    let _no_commit = spool.shared.handed_out.lock().expect("no panic under it");
    let to = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        if entry.path().is_file() && !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).expect("copied");
        }
    }
    to
}

#[tokio::test]
async fn stored_readings_survive_the_end_of_the_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, volatile }, _) = open(settings(directory.path()));
    assert!(!volatile);
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..50).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    assert_eq!(spool.committed().borrow().next_seq, 100);
    assert_eq!(waiting(&spool).await.0, batches);

    let after_kill = copy(&spool, directory.path());
    let (Opened { spool: second, run: next, .. }, board) = open(settings(after_kill.path()));
    assert!(next > run, "{next} after {run}");
    let (found, events) = waiting(&second).await;
    assert_eq!(found, batches);
    let end = Body::RunEnd { ended: run, next_seq: 100, clean: false, last_wall_us: Some(stamp(98).wall_us) };
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].run, events[0].number, &events[0].body), (next, 0, &end));
    flush(&second).await;
    assert_eq!(board.snapshot().spool.waiting, 100);
    second.close(true).await.expect("closes");
    spool.close(true).await.expect("closes");
}

#[tokio::test]
async fn at_the_cap_the_oldest_go_counted_and_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped.clone());
    let shape = big_shape();
    let all = 1500;
    for i in 0..all {
        spool.append(big(run, i * 10, &shape));
        if i % 20 == 0 {
            flush(&spool).await;
        }
    }
    flush(&spool).await;
    let Sums { waiting, confirmed, losses } = sums(&spool);
    assert_eq!(confirmed, 0);
    assert_eq!(waiting + losses.evicted, all * 10);
    assert_eq!(losses.total(), losses.evicted);
    assert!((2000..4000).contains(&waiting), "{waiting} readings of 250 bytes in 1 MiB");
    let (batches, events) = self::waiting(&spool).await;
    let (kept, lost) = (numbers(&batches), gaps(&events, run, GapCause::Evicted));
    assert!(kept.is_disjoint(&lost));
    assert_eq!(kept.len() as u64, waiting);
    assert_eq!(kept.union(&lost).count() as u64, all * 10, "every number is there or in a gap record");
    assert_eq!(events.len(), 1, "touching gaps are one record");
    let length = std::fs::metadata(directory.path().join(store::FILE)).expect("there").len();
    assert!(length <= BYTES_MAX_LEAST, "{length} bytes");

    let after_kill = copy(&spool, directory.path());
    let (Opened { spool: second, .. }, _) =
        open(SpoolSettings { directory: after_kill.path().into(), ..capped });
    assert_eq!(numbers(&self::waiting(&second).await.0), kept);
    assert_eq!(sums(&second), Sums { waiting, confirmed, losses });
}

#[tokio::test]
async fn confirmed_blocks_make_room_before_anything_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped);
    let shape = big_shape();
    for i in 0..1500 {
        let batch = big(run, i * 10, &shape);
        spool.append(batch.clone());
        flush(&spool).await;
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    flush(&spool).await;
    assert_eq!(
        sums(&spool),
        Sums { waiting: 0, confirmed: 15_000, losses: super::ledger::Losses::default() }
    );
    let page = spool.export(ExportQuery::default()).await.expect("readable");
    assert!(page.batches.len() > 100, "confirmed blocks stay as history: {}", page.batches.len());
}

#[tokio::test]
async fn three_unclean_restarts_in_one_outage_lose_nothing_and_prove_it() {
    let mut directory = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
        let mut plant = Plant::new(run);
        for _ in 0..20 {
            let batch = plant.batch();
            expected.push(batch.clone());
            spool.append(batch);
            flush(&spool).await;
        }
        ends.push((run, plant.seq));
        let next = copy(&spool, directory.path());
        directory = next;
    }
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (batches, events) = waiting(&spool).await;
    assert_eq!(batches, expected);
    let found = events.iter().map(|event| match event.body {
        Body::RunEnd { ended, next_seq, clean: false, .. } => (ended, next_seq),
        ref other => panic!("{other:?}"),
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found, ends);
}

#[tokio::test]
async fn a_run_that_stops_in_order_says_so_and_its_confirmations_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    let confirmed: Vec<_> = [1, 2, 5].iter().map(|at| Confirmed::from(&*batches[*at])).collect();
    spool.confirm(&confirmed);
    spool.close(true).await.expect("closes");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (found, events) = waiting(&spool).await;
    let left: Vec<_> = (0..10).filter(|at| ![1, 2, 5].contains(at)).map(|at| batches[at].clone()).collect();
    assert_eq!(found, left);
    let [end] = &*events else { panic!("{events:?}") };
    let said = Body::RunEnd { ended: run, next_seq: 20, clean: true, last_wall_us: Some(stamp(18).wall_us) };
    assert_eq!((end.run, &end.body), (run, &said));
    spool.confirm(&[Confirmed::from(&**end)]);
    assert_eq!(waiting(&spool).await.1, []);
    spool.close(true).await.expect("closes");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (_, events) = waiting(&spool).await;
    assert_eq!(events.len(), 1, "only the run end of the second run: {events:?}");
}

#[tokio::test]
async fn a_second_instance_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_first, _) = open(settings(directory.path()));
    let second = Spool::open(settings(directory.path()), Board::default(), || stamp(0));
    let error = second.expect_err("refused");
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    assert_eq!(error.exit_code(), 75);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn a_garbage_file_is_set_aside_and_the_spool_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(store::FILE), vec![0x5a; 20_000]).expect("written");
    std::fs::write(directory.path().join("run"), "00000041-00000001\n").expect("written");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    assert_eq!(run.counter, 42);
    let mut plant = Plant::new(run);
    spool.append(plant.batch());
    flush(&spool).await;
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches.len(), 1);
    assert_eq!(events.len(), 1);
    let aside = directory.path().join("quarantine").join(run.to_string()).join(store::FILE);
    assert_eq!(std::fs::read(aside).expect("there"), vec![0x5a; 20_000]);
}

#[tokio::test]
async fn a_newer_schema_is_set_aside_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    spool.close(true).await.expect("closes");
    let file = directory.path().join(store::FILE);
    let newer = rusqlite::Connection::open(&file).expect("opens");
    newer.pragma_update(None, "user_version", 2).expect("set");
    drop(newer);
    let before = std::fs::read(&file).expect("there");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
    let aside = directory.path().join("newer").join(run.to_string()).join(store::FILE);
    assert_eq!(std::fs::read(aside).expect("there"), before);
}

#[tokio::test]
async fn what_is_confirmed_in_time_is_not_written_with_keep_unsent() {
    let directory = tempfile::tempdir().expect("a directory");
    let unsent = SpoolSettings {
        keep: Keep::Unsent,
        commit_every: Duration::from_millis(200),
        ..SpoolSettings::new(directory.path())
    };
    let (Opened { spool, run, .. }, _) = open(unsent);
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for (at, batch) in batches.iter().enumerate() {
        spool.append(batch.clone());
        if at != 4 {
            spool.confirm(&[Confirmed::from(&**batch)]);
        }
    }
    flush(&spool).await;
    let page = spool.export(ExportQuery::default()).await.expect("readable");
    assert_eq!(page.batches, batches[4..5]);
    assert_eq!(sums(&spool).confirmed, 18);
    assert_eq!(spool.committed().borrow().next_seq, 20);
}

#[tokio::test]
async fn history_comes_in_pages_without_hole_or_repeat() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for i in 0..120 {
        let batch = plant.batch();
        spool.append(batch.clone());
        if i % 7 == 0 {
            flush(&spool).await;
            spool.confirm(&[Confirmed::from(&*batch)]);
        }
    }
    flush(&spool).await;
    let mut query = HistoryQuery {
        device: "meter".into(),
        point: "point_1".into(),
        from_us: stamp(20).wall_us,
        to_us: stamp(220).wall_us,
        after: None,
        limit: 9,
    };
    let mut found = Vec::new();
    loop {
        let page = spool.history(query.clone()).await.expect("readable");
        found.extend(page.values.iter().map(|value| (value.seq, value.sample.value.clone())));
        let Some(next) = page.next else { break };
        query.after = Some(next.to_string().parse().expect("a cursor"));
    }
    let expected: Vec<_> =
        (10..110).map(|i| (2 * i + 1, Some(Value::Text((2 * i).to_string().into())))).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_dead_letter_leaves_the_backlog_as_a_recorded_gap() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    spool
        .dead_letter(vec![Confirmed::from(&*batches[2])], "payload format invalid".into())
        .await
        .expect("moved");
    flush(&spool).await;
    let (found, events) = waiting(&spool).await;
    assert_eq!(found.len(), 4);
    assert_eq!(gaps(&events, run, GapCause::DeadLetter), (4..6).collect());
    assert_eq!(sums(&spool).losses.dead_lettered, 2);
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let letter: (String, i64, Vec<u8>) = file
        .query_row("SELECT reason, seq, CAST(head || body AS BLOB) FROM dead", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .expect("one");
    let content =
        super::block::decode(&letter.2, &store::dictionary(&file).expect("readable")).expect("whole");
    assert_eq!(
        (letter.0.as_str(), letter.1, &content[..]),
        ("payload format invalid", 4, &[Batch::clone(&batches[2])][..])
    );
}

#[tokio::test]
async fn a_damaged_block_costs_itself_and_is_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for _ in 0..9 {
        spool.append(plant.batch());
        flush(&spool).await;
    }
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let flip = "UPDATE block SET body = CAST(substr(body, 1, 4) || x'ff' || substr(body, 6) AS BLOB) WHERE number = 4";
    assert_eq!(file.execute(flip, []).expect("flipped"), 1);
    drop(file);
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let found = numbers(&waiting(&spool).await.0);
    assert_eq!(found, (0..18).filter(|seq| !(6..8).contains(seq)).collect());
    flush(&spool).await;
    let events = waiting(&spool).await.1;
    assert_eq!(gaps(&events, run, GapCause::Damaged), (6..8).collect());
    assert_eq!(sums(&spool).losses.damaged, 2);
}

#[tokio::test]
async fn without_the_daemon_the_command_line_reads_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    let running = Offline::open(directory.path()).expect_err("the daemon runs");
    assert!(matches!(running, SpoolError::Locked { .. }), "{running}");
    let killed = copy(&spool, directory.path());
    let mut offline = Offline::open(killed.path()).expect("opens");
    assert_eq!(offline.status().waiting, 20);
    assert_eq!(offline.export(&ExportQuery::default()).expect("readable").batches, batches);
    let some = ExportQuery {
        from_us: Some(stamp(4).wall_us),
        to_us: Some(stamp(8).wall_us),
        ..ExportQuery::default()
    };
    assert_eq!(offline.export(&some).expect("readable").batches, batches[2..4]);
}

#[tokio::test]
async fn a_file_removed_under_us_is_noticed_and_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    spool.append(plant.batch());
    flush(&spool).await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(directory.path().join(format!("{}{suffix}", store::FILE))).expect("removed");
    }
    let second = plant.batch();
    let until = Instant::now() + SOON;
    while !directory.path().join(store::FILE).exists() {
        assert!(Instant::now() < until, "the file is made anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    spool.append(second.clone());
    flush(&spool).await;
    let (batches, events) = waiting(&spool).await;
    assert_eq!(batches, [second]);
    assert_eq!(
        gaps(&events, run, GapCause::Damaged),
        (0..2).collect(),
        "what went with the file is recorded"
    );
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

#[tokio::test]
async fn a_damaged_file_gives_back_all_blocks_but_the_damaged_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let shape = big_shape();
    let all: Vec<_> = (0..100).map(|i| big(run, i * 10, &shape)).collect();
    for (i, batch) in all.iter().enumerate() {
        spool.append(batch.clone());
        flush(&spool).await;
        if i < 20 {
            spool.confirm(&[Confirmed::from(&**batch)]);
        }
    }
    spool.close(true).await.expect("closes");
    // The first page, one in the middle of the blocks, and the last.
    let file = directory.path().join(store::FILE);
    let mut bytes = std::fs::read(&file).expect("there");
    let pages = bytes.len() / 1024;
    for page in [0, pages / 2, pages - 1] {
        bytes[page * 1024..(page + 1) * 1024].fill(0);
    }
    std::fs::write(&file, bytes).expect("written");
    let (Opened { spool, run: second, .. }, _) = open(settings(directory.path()));
    let (batches, events) = after_salvage(&spool).await;
    let (kept, lost) = (numbers(&batches), gaps(&events, run, GapCause::Damaged));
    assert!(kept.is_disjoint(&lost));
    assert_eq!(kept.union(&lost).copied().collect::<BTreeSet<_>>(), (200..1000).collect());
    assert!((10..=40).contains(&lost.len()), "{} readings lost to two pages", lost.len());
    assert!(batches.iter().all(|batch| all.contains(batch)));
    let said = events.iter().find_map(|event| match event.body {
        Body::Corruption { saved, lost, .. } => Some((saved, lost)),
        _ => None,
    });
    assert_eq!(said, Some((kept.len() as u64, lost.len() as u64)));
    let ends = events
        .iter()
        .filter(|event| matches!(event.body, Body::RunEnd { ended, next_seq: 1000, .. } if ended == run));
    assert_eq!(ends.count(), 1);
    assert!(second > run);
    assert_eq!(sums(&spool).waiting, kept.len() as u64);
}

/// Holds the file's write lock: every commit fails until it is dropped.
fn block_commits(directory: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    other
}

#[tokio::test]
async fn after_failed_commits_every_reading_is_stored_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, board) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let mut expected = vec![plant.batch()];
    spool.append(expected[0].clone());
    flush(&spool).await;
    let trouble = block_commits(directory.path());
    for _ in 0..30 {
        let batch = plant.batch();
        expected.push(batch.clone());
        spool.append(batch);
    }
    let late = spool.flush(Instant::now() + Duration::from_millis(100)).await;
    assert!(matches!(late, Err(SpoolError::Late(_))), "{late:?}");
    let failing = async {
        while board.read(|status| status.spool.state == "ok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, failing).await.expect("the board says that the disk fails");
    drop(trouble);
    flush(&spool).await;
    assert_eq!(waiting(&spool).await.0, expected);
    assert_eq!(sums(&spool).waiting, 62);
}

#[tokio::test]
async fn while_the_disk_fails_memory_drops_the_oldest_counted_to_the_last_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let shape = big_shape();
    spool.append(big(run, 0, &shape));
    flush(&spool).await;
    let trouble = block_commits(directory.path());
    let all = 4000;
    for i in 1..all {
        spool.append(big(run, i * 10, &shape));
    }
    drop(trouble);
    flush(&spool).await;
    let (batches, events) = waiting(&spool).await;
    let (kept, lost) = (numbers(&batches), gaps(&events, run, GapCause::Overflow));
    assert!(kept.is_disjoint(&lost));
    assert_eq!(kept.union(&lost).count() as u64, all * 10);
    let Sums { waiting, losses, .. } = sums(&spool);
    assert_eq!((waiting, losses.dropped), (kept.len() as u64, lost.len() as u64));
    assert!(losses.dropped > 0 && losses.total() == losses.dropped);
    assert!(kept.contains(&(all * 10 - 1)), "the newest are kept");
}

#[tokio::test]
async fn after_kill_keep_unsent_does_not_wait_for_what_was_confirmed_and_never_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let unsent = |path: &Path| SpoolSettings {
        keep: Keep::Unsent,
        commit_every: Duration::from_millis(100),
        ..SpoolSettings::new(path)
    };
    let (Opened { spool, run, .. }, _) = open(unsent(directory.path()));
    let mut plant = Plant::new(run);
    // The first commit writes the books; the next ones need not.
    spool.append(plant.batch());
    flush(&spool).await;
    for _ in 0..10 {
        let batch = plant.batch();
        spool.append(batch.clone());
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    flush(&spool).await;
    spool.append(plant.batch());
    flush(&spool).await;
    let after = copy(&spool, directory.path());
    let (Opened { spool, .. }, _) = open(unsent(after.path()));
    let (batches, _) = waiting(&spool).await;
    assert_eq!(batches.len(), 2);
    assert_eq!(sums(&spool).waiting, 4, "what waits is what can be sent");
}

#[tokio::test]
async fn salvage_loses_nothing_to_a_commit_that_fails_meanwhile() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let shape = big_shape();
    let many = 3_000;
    for i in 0..many {
        spool.append(big(run, i * 10, &shape));
        if i % 100 == 99 {
            flush(&spool).await;
        }
    }
    spool.close(true).await.expect("closes");
    let file = directory.path().join(store::FILE);
    let mut bytes = std::fs::read(&file).expect("there");
    bytes[..1024].fill(0);
    std::fs::write(&file, bytes).expect("written");
    let (Opened { spool, run: second, .. }, board) = open(settings(directory.path()));
    let trouble = block_commits(directory.path());
    spool.append(Plant::new(second).batch());
    let failing = async {
        while board.read(|status| status.spool.state == "ok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, failing).await.expect("the board says that the disk fails");
    drop(trouble);
    let (batches, events) = after_salvage(&spool).await;
    let kept: BTreeSet<_> =
        batches.iter().filter(|batch| batch.run == run).flat_map(|batch| batch.seq..batch.end()).collect();
    let lost = gaps(&events, run, GapCause::Damaged);
    assert_eq!(kept.union(&lost).count() as u64, many * 10, "saved or recorded: {} lost", lost.len());
    assert!(lost.len() <= 100, "{} readings lost to one page", lost.len());
}

#[tokio::test]
async fn what_a_device_does_all_day_does_not_crowd_out_readings() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 1 << 30, "x").expect("opens");
    let run = RunId { counter: 1, random: 1 };
    let event = |number: u64| {
        let body = if number == 0 {
            Body::Gap { of: run, first: 0, next: 9, cause: GapCause::Evicted }
        } else {
            Body::Device { device: "meter".into(), answering: number.is_multiple_of(2) }
        };
        Arc::new(Event { run, number, stamp: stamp(0), body })
    };
    let mut told = 0;
    for from in (0..30_000).step_by(1_000) {
        let events: Vec<_> = (from..from + 1_000).map(event).collect();
        let written =
            store.commit(&store::Work { events: &events, ..store::Work::default() }).expect("stored");
        told += written.event_ids.len() as u64 - written.dropped;
    }
    let found = store::found(store.connection()).expect("readable");
    assert_eq!(found.events_waiting, told, "counted");
    assert!(found.events_waiting <= 10_001, "{} wait", found.events_waiting);
    let gap: i64 = store
        .connection()
        .query_row("SELECT count(*) FROM event WHERE body LIKE '%evicted%'", [], |row| row.get(0))
        .expect("readable");
    assert_eq!(gap, 1, "what proves something stays");
}

#[tokio::test]
async fn a_dead_letter_finds_its_shape_in_a_file_that_has_just_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 1 << 30, "x").expect("opens");
    let run = RunId { counter: 1, random: 1 };
    let batch = Plant::new(run).batch();
    let dead = [store::DeadLetter {
        at_us: 0,
        reason: "quota exceeded".into(),
        name: (run, 0, 2),
        batch: Some(batch),
    }];
    store.commit(&store::Work { dead: &dead, ..store::Work::default() }).expect("stored");
}

#[tokio::test]
async fn an_unreadable_shape_does_not_stop_the_spool() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    file.execute("UPDATE shape SET body = 'x'", []).expect("damaged");
    drop(file);
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
}
