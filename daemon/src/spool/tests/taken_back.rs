//! An update, rolled back and made again: what waits in the newer file comes back, with its own records, and is said once.

use super::*;
use crate::spool::schema::{self, Schema, Step};
use crate::spool::stepped::Stepped;

/// The next version.
pub(super) static NEXT: Schema = Schema { version: 2, steps: &[Step { from: 1, apply: add }] };

fn add(transaction: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("CREATE TABLE extra (id INTEGER PRIMARY KEY) STRICT")
}

/// A spool that is taken step by step.
pub(super) struct Life {
    pub(super) spool: Stepped,
    pub(super) now: Instant,
    pub(super) board: Board,
}

impl Life {
    pub(super) fn begin(settings: SpoolSettings, known: &'static Schema) -> Self {
        let (now, board) = (Instant::now(), Board::default());
        let spool = Stepped::open_as(settings, (board.clone(), known), || stamp(0), now);
        Self { spool: spool.expect("opens"), now, board }
    }

    pub(super) fn turn(&mut self) {
        self.now += Duration::from_millis(100);
        self.spool.turn(self.now);
    }

    pub(super) fn store(&mut self, batch: &Arc<Batch>) {
        self.spool.append(batch.clone(), self.now);
        self.turn();
    }

    /// Until there is nothing more to be done now.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            self.turn();
            quiet = if self.spool.busy() { 0 } else { quiet + 1 };
            if quiet > 3 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    pub(super) fn waiting(&mut self) -> (Vec<Arc<Batch>>, Vec<Arc<Event>>) {
        let (mut batches, mut events) = (Vec::new(), Vec::new());
        let mut cursor = Cursor::START;
        while let Some(span) = self.spool.span(cursor).expect("readable") {
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

    pub(super) fn close(mut self) {
        self.now += Duration::from_secs(20);
        self.spool.close(true, self.now).expect("closes");
    }
}

fn folders(directory: &Path, kind: &str) -> usize {
    std::fs::read_dir(directory.join(kind)).map_or(0, Iterator::count)
}

#[test]
fn what_finds_no_room_waits_in_its_folder_and_not_one_reading_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut all = BTreeSet::new();
    let mut ends = BTreeSet::new();
    for known in [&NEXT, &schema::CURRENT] {
        let mut life = Life::begin(small.clone(), known);
        let shape = big_shape();
        for i in 0..250 {
            life.store(&big(life.spool.run, i * 10, &shape));
            all.insert((life.spool.run, i * 10));
        }
        ends.insert(life.spool.run);
        life.close();
    }
    let mut life = Life::begin(small, &NEXT);
    life.settle();
    let ended = |life: &mut Life| {
        let end = |event: &Arc<Event>| match event.body {
            Body::RunEnd { ended, clean: true, next_seq: 2500, .. } => Some(ended),
            ref other => panic!("{other:?}"),
        };
        life.waiting().1.iter().filter_map(end).collect::<BTreeSet<_>>()
    };
    assert_eq!(ended(&mut life), ends, "what is known of the runs is told at once");
    assert_eq!(folders(directory.path(), "newer"), 1);
    // The drain makes room.
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let (batches, _) = life.waiting();
        for batch in &batches {
            assert!(seen.insert((batch.run, batch.seq)), "{} {} comes twice", batch.run, batch.seq);
        }
        let done: Vec<_> = batches.iter().map(|batch| Confirmed::from(&**batch)).collect();
        life.spool.confirm(&done);
        life.now += Duration::from_secs(11);
        life.settle();
    }
    assert_eq!(seen, all);
    assert_eq!(ended(&mut life), ends, "and nothing is said to be lost");
    assert_eq!(folders(directory.path(), "newer"), 0, "taken back");
}

#[test]
fn what_was_said_of_a_run_is_neither_said_again_nor_contradicted_by_a_rescue_or_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut newer = Life::begin(settings(directory.path()), &NEXT);
    let mut plant = Plant::new(newer.spool.run);
    (0..20).for_each(|_| newer.store(&plant.batch()));
    newer.close();
    let mut older = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut own = Plant::new(older.spool.run);
    let batches: Vec<_> = (0..20).map(|_| own.batch()).collect();
    for batch in &batches {
        older.store(batch);
    }
    let now = older.now;
    older.spool.dead_letter(vec![Confirmed::from(&*batches[3])], "no", now).expect("stored");
    older.turn();
    older.close();
    for _ in 0..3 {
        let mut life = Life::begin(settings(directory.path()), &NEXT);
        life.settle();
        assert_eq!(folders(directory.path(), "newer"), 0);
        let said = life.waiting().1.into_iter().filter_map(|event| match event.body {
            Body::RunEnd { ended, next_seq, clean, .. } if ended <= own.run => {
                Some((ended, next_seq, if clean { "in order" } else { "without warning" }))
            }
            Body::RunEnd { .. } => None,
            Body::Gap { of, first, cause, .. } => Some((of, first, cause.word())),
            ref other => panic!("{other:?}"),
        });
        let mut said: Vec<_> = said.collect();
        said.sort_unstable();
        let mut expected = vec![
            (plant.run, 40, "in order"),
            (own.run, 6, GapCause::DeadLetter.word()),
            (own.run, 40, "in order"),
        ];
        expected.sort_unstable();
        assert_eq!(said, expected);
        life.now += Duration::from_secs(11);
        life.settle();
    }
}

#[test]
fn an_end_that_was_sent_so_long_ago_that_its_record_is_gone_is_not_said_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut newer = Life::begin(small.clone(), &NEXT);
    newer.store(&Plant::new(newer.spool.run).batch());
    newer.close();
    let mut older = Life::begin(small.clone(), &schema::CURRENT);
    let run = older.spool.run;
    older.store(&Plant::new(run).batch());
    older.close();
    let mut older = Life::begin(small.clone(), &schema::CURRENT);
    for _ in 0..3 {
        for _ in 0..250 {
            older.spool.record(Body::Device { device: "meter".into(), answering: true }, stamp(1));
        }
        older.settle();
        let records: Vec<_> = older.waiting().1.iter().map(|event| Confirmed::from(&**event)).collect();
        older.spool.confirm(&records);
        older.now += Duration::from_secs(11);
        older.settle();
    }
    older.close();
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let left = format!("SELECT count(*) FROM event WHERE body LIKE '%\"ended\":\"{run}\"%'");
    assert_eq!(file.query_row(&left, [], |row| row.get::<_, i64>(0)).expect("a number"), 0);
    drop(file);
    let mut life = Life::begin(small, &NEXT);
    life.settle();
    assert_eq!(folders(directory.path(), "newer"), 0);
    let (batches, events) = life.waiting();
    assert!(batches.iter().any(|batch| batch.run == run), "its readings wait still");
    let said = |event: &Arc<Event>| matches!(event.body, Body::RunEnd { ended, .. } if ended == run);
    assert!(!events.iter().any(said), "{events:?}");
}

/// Reason, first seq and readings of the dead letters that are kept, oldest first; each holds what it is called.
fn letters(directory: &Path) -> Vec<(String, u64, u64)> {
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    let (mut found, _) = store::dead_letters(&file, i64::MAX).expect("readable");
    found.reverse();
    let whole = |letter: &store::DeadLetter| (letter.name.2 > 0) == letter.batch.is_some();
    assert!(found.iter().all(whole), "{found:?}");
    found.into_iter().map(|letter| (letter.reason, letter.name.1, letter.name.2)).collect()
}

/// A life with two dead letters, one of them a record, and a clock that was set, which is known to the server. Gives a batch from before.
fn with_letters(directory: &Path, known: &'static Schema) -> (Life, Arc<Batch>) {
    let mut life = Life::begin(settings(directory), known);
    let mut plant = Plant::new(life.spool.run);
    let mut early = Batch::clone(&plant.batch());
    early.stamp = Stamp { wall_us: 50, mono_us: 50, boot: BootId(7), clock: ClockQuality::Unsynced };
    let early = Arc::new(early);
    life.store(&early);
    life.spool.record(Body::Clock { boot: BootId(7), offset_us: 1_000, at_mono_us: 100 }, stamp(1));
    life.spool.record(Body::Device { device: "meter".into(), answering: false }, stamp(1));
    let refused = plant.batch();
    life.store(&refused);
    let events = life.waiting().1;
    let (clocks, others): (Vec<_>, Vec<_>) =
        events.iter().partition(|event| event.body.correction().is_some());
    life.spool.confirm(&clocks.iter().map(|event| Confirmed::from(&***event)).collect::<Vec<_>>());
    let others = others.iter().map(|event| Confirmed::from(&***event)).collect();
    let now = life.now;
    life.spool.dead_letter(others, "no such topic", now).expect("stored");
    life.spool.dead_letter(vec![Confirmed::from(&*refused)], "not authorized", now).expect("stored");
    life.turn();
    life.now += Duration::from_secs(11);
    life.settle();
    (life, early)
}

fn kept(life: &Life) -> (u64, u64, u64) {
    life.board
        .read(|status| (status.spool.dead_letters, status.spool.records_refused, status.spool.dead_lettered))
}

#[test]
fn refused_messages_and_what_is_known_of_a_clock_come_back_from_the_file_of_a_newer_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let (newer, early) = with_letters(directory.path(), &NEXT);
    newer.close();
    let before = letters(directory.path());
    assert_eq!(
        before.iter().map(|(why, ..)| &**why).collect::<Vec<_>>(),
        ["no such topic", "not authorized"]
    );
    let mut older = Life::begin(settings(directory.path()), &schema::CURRENT);
    let refused = Plant::new(older.spool.run).batch();
    older.store(&refused);
    let now = older.now;
    older.spool.dead_letter(vec![Confirmed::from(&*refused)], "too long", now).expect("stored");
    older.turn();
    older.close();
    let mut life = Life::begin(settings(directory.path()), &NEXT);
    life.settle();
    assert_eq!(folders(directory.path(), "newer"), 0);
    let all: Vec<_> = before.into_iter().chain([("too long".to_owned(), 0, 2)]).collect();
    assert_eq!(letters(directory.path()), all, "older than those of the own file");
    assert_eq!(kept(&life), (3, 1, 4), "kept, and counted once");
    let (batches, events) = life.waiting();
    assert_eq!(batches, [early]);
    let clocks =
        |events: &[Arc<Event>]| events.iter().filter_map(|event| event.body.correction()).collect::<Vec<_>>();
    let set = ClockCorrection { boot: BootId(7), offset_us: 1_000, at_mono_us: 100 };
    assert_eq!(clocks(&events), [set], "said before what needs it");
    life.spool.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    life.close();
    let (opened, _) = {
        let board = Board::default();
        (Spool::open_as(settings(directory.path()), board.clone(), || stamp(0), &NEXT).expect("opens"), board)
    };
    assert_eq!(opened.spool.clocks(), [set]);
}

#[test]
fn what_is_known_of_a_clock_comes_back_only_for_readings_that_need_it_and_beside_what_is_known_of_the_present_one()
 {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let set = |boot| Body::Clock { boot: BootId(boot), offset_us: 1_000, at_mono_us: 100 };
    for boot in 100..140 {
        let mut early = Batch::clone(&plant.batch());
        early.stamp = Stamp { wall_us: 50, mono_us: 50, boot: BootId(boot), clock: ClockQuality::Unsynced };
        let early = Arc::new(early);
        life.store(&early);
        if boot < 120 {
            life.spool.confirm(&[Confirmed::from(&*early)]);
        }
        life.spool.record(set(boot), stamp(1));
        life.turn();
    }
    let clocks = life.waiting().1;
    life.spool.confirm(&clocks.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    life.close();
    lose_first_page(&directory.path().join(store::FILE));
    // Searched in small pieces: the present one's record is stored before.
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut life = Life::begin(small, &schema::CURRENT);
    life.spool.record(set(3), stamp(1));
    life.settle();
    let (batches, events) = life.waiting();
    assert_eq!(batches.len(), 20);
    let boots = |events: &[Arc<Event>]| {
        let boots = events.iter().filter_map(|event| event.body.correction()).map(|set| set.boot.0);
        boots.collect::<BTreeSet<_>>()
    };
    let newest: BTreeSet<_> = (125..140).chain([3]).collect();
    assert_eq!(boots(&events), newest);
    life.spool.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    life.close();
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    assert_eq!(spool.clocks().iter().map(|set| set.boot.0).collect::<BTreeSet<_>>(), newest);
    assert_eq!(spool.clocks().last().map(|set| set.boot.0), Some(3), "of the newest life");
}

#[test]
fn refused_messages_come_back_from_a_damaged_file_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (life, early) = with_letters(directory.path(), &schema::CURRENT);
    life.close();
    lose_first_page(&directory.path().join(store::FILE));
    for _ in 0..2 {
        let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
        life.settle();
        assert_eq!(
            letters(directory.path()),
            [("not authorized".to_owned(), 2, 2)],
            "what proves itself, once"
        );
        assert_eq!(kept(&life), (1, 0, 2), "and it counts as before");
        let (batches, events) = life.waiting();
        assert_eq!(batches, std::slice::from_ref(&early));
        assert!(events.iter().any(|event| event.body.correction().is_some()), "{events:?}");
        life.close();
    }
}

#[test]
fn refused_messages_from_a_damaged_file_keep_their_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let all: Vec<_> = (0..70).map(|_| plant.batch()).collect();
    for batch in &all {
        life.store(batch);
        let now = life.now;
        life.spool.dead_letter(vec![Confirmed::from(&**batch)], "no", now).expect("stored");
        life.turn();
    }
    life.close();
    let file = directory.path().join(store::FILE);
    lose_first_page(&file);
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut life = Life::begin(small, &schema::CURRENT);
    life.settle();
    let file = rusqlite::Connection::open(file).expect("opens");
    let mut rows = file.prepare("SELECT seq FROM dead ORDER BY id").expect("readable");
    let found: Vec<_> = rows.query_map([], |row| row.get::<_, i64>(0)).expect("readable").flatten().collect();
    assert_eq!(found, (0..140).step_by(2).collect::<Vec<_>>());
}

#[test]
fn refused_messages_that_come_back_wait_for_room_and_nothing_that_waits_goes_for_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut newer = Life::begin(small.clone(), &NEXT);
    let shape = big_shape();
    for i in 0..12 {
        let batch = big(newer.spool.run, i * 10, &shape);
        newer.store(&batch);
        let now = newer.now;
        newer.spool.dead_letter(vec![Confirmed::from(&*batch)], "no", now).expect("stored");
        newer.turn();
    }
    newer.close();
    let mut older = Life::begin(small.clone(), &schema::CURRENT);
    let run = older.spool.run;
    (0..500).for_each(|i| older.store(&big(run, i * 10, &shape)));
    let waited = numbers(&older.waiting().0);
    older.close();
    let mut life = Life::begin(small, &NEXT);
    life.settle();
    assert_eq!(letters(directory.path()), [], "there is no room to spare");
    assert_eq!(numbers(&life.waiting().0), waited);
    for _ in 0..20 {
        let done: Vec<_> = life.waiting().0.iter().map(|batch| Confirmed::from(&**batch)).collect();
        life.spool.confirm(&done);
        life.now += Duration::from_secs(11);
        life.settle();
    }
    assert_eq!(letters(directory.path()).len(), 12, "as soon as the server has taken something");
    assert_eq!(folders(directory.path(), "newer"), 0, "taken back");
}

#[test]
fn letters_of_another_file_make_no_room_among_those_that_are_here() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 1 << 30, "x").expect("opens");
    let letter = |counter, seq| {
        let run = RunId { counter, random: 1 };
        store::DeadLetter { at_us: 0, reason: counter.to_string(), name: (run, seq, 0), batch: None }
    };
    let own: Vec<_> = (0..900).map(|seq| letter(2, seq)).collect();
    let before: Vec<_> = (0..200).rev().map(|seq| letter(1, seq)).collect();
    store.commit(&store::Work { dead: &own, ..store::Work::default() }).expect("stored");
    for _ in 0..2 {
        for piece in before.chunks(32) {
            // Also as by a commit that seemed to have failed.
            store.commit(&store::Work { dead_before: piece, ..store::Work::default() }).expect("stored");
        }
    }
    let count =
        |sql: &str| store.connection().query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
    assert_eq!(
        (count("SELECT count(*) FROM dead WHERE reason = '2'"), count("SELECT count(*) FROM dead")),
        (900, 1000)
    );
    assert_eq!(count("SELECT min(seq) FROM dead WHERE reason = '1'"), 100, "the newest of them");
}

#[test]
fn a_newer_file_whose_head_lies_is_searched_page_by_page_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut newer = Life::begin(settings(directory.path()), &NEXT);
    let mut plant = Plant::new(newer.spool.run);
    let batches: Vec<_> = (0..20).map(|_| plant.batch()).collect();
    for batch in &batches {
        newer.store(batch);
    }
    newer.spool.confirm(&[Confirmed::from(&*batches[0])]);
    newer.close();
    Life::begin(settings(directory.path()), &schema::CURRENT).close();
    let mut aside = std::fs::read_dir(directory.path().join("newer")).expect("there").flatten();
    let folder = aside.next().expect("one").path();
    // In the log alone: the page in the file still has the truth.
    let file = rusqlite::Connection::open(folder.join(store::FILE)).expect("opens");
    file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
    let lie = "UPDATE block SET head = (SELECT head FROM block WHERE number = 1) WHERE number = 9";
    assert_eq!(file.execute(lie, []).expect("written"), 1);
    drop(file);
    let mut life = Life::begin(settings(directory.path()), &NEXT);
    life.settle();
    let (waiting, events) = life.waiting();
    assert_eq!(numbers(&waiting), (2..40).collect());
    assert_eq!(gaps(&events, plant.run, GapCause::Damaged), BTreeSet::new());
    let corruption = |event: &&Arc<Event>| matches!(event.body, Body::Corruption { lost: 0, .. });
    assert_eq!(events.iter().filter(corruption).count(), 1);
    assert!(folder.join("salvaged").exists(), "kept, to be looked at");
}

#[test]
fn what_stands_behind_a_damaged_frame_in_the_log_of_a_newer_file_is_found_and_its_folder_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut newer = Life::begin(settings(directory.path()), &NEXT);
    let mut plant = Plant::new(newer.spool.run);
    (0..20).for_each(|_| newer.store(&plant.batch()));
    // As a kill leaves it, with its log.
    let cut = copy_of(directory.path());
    Life::begin(settings(cut.path()), &schema::CURRENT).close();
    let mut aside = std::fs::read_dir(cut.path().join("newer")).expect("there").flatten();
    let folder = aside.next().expect("one").path();
    let log = folder.join(format!("{}-wal", store::FILE));
    let mut bytes = std::fs::read(&log).expect("there");
    // The checksum of a frame with commits behind it: its page is whole.
    bytes[32 + 8 * 1048 + 16] ^= 0x10;
    std::fs::write(&log, bytes).expect("written");
    let mut life = Life::begin(settings(cut.path()), &NEXT);
    life.settle();
    let (waiting, events) = life.waiting();
    assert_eq!(numbers(&waiting), (0..40).collect());
    assert_eq!(gaps(&events, plant.run, GapCause::Damaged), BTreeSet::new());
    let corruption = |event: &&Arc<Event>| matches!(event.body, Body::Corruption { saved: 40, lost: 0, .. });
    assert_eq!(events.iter().filter(corruption).count(), 1, "{events:?}");
    assert!(folder.join("salvaged").exists(), "kept, to be looked at");
}
