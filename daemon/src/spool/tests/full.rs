//! A full disk: what was set aside comes back all the same, and may be what the disk is full of.

use super::taken_back::Life;
use super::*;
use crate::spool::shared::Command;
use crate::spool::stepped::Stepped;
use crate::spool::{aside, schema};

/// The disk is full for the spool while this file is there.
pub(super) const NO_SPACE: &str = "no-space";

fn life(directory: &Path, now: Instant) -> Stepped {
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory) };
    Stepped::open(capped, Board::default(), || stamp(0), now).expect("opens")
}

/// So many big batches, stored.
fn store_big(spool: &mut Stepped, many: u64, now: Instant) -> Vec<Arc<Batch>> {
    let shape = big_shape();
    let all: Vec<_> = (0..many).map(|i| big(spool.run, i * 10, &shape)).collect();
    for batch in &all {
        spool.append(batch.clone(), now);
        spool.turn(now);
    }
    all
}

/// A commit finds no space.
pub(super) fn feel_the_full_disk(directory: &Path, spool: &mut Stepped, now: Instant) {
    std::fs::write(directory.join(NO_SPACE), "").expect("written");
    let trouble = block_commits(directory);
    spool.record(Body::Device { device: "meter".into(), answering: true }, stamp(0));
    spool.turn(now);
    drop(trouble);
}

/// Takes what waits as a server does, until nothing that was set aside is left; what came.
fn drain(directory: &Path, spool: &mut Stepped, now: Instant) -> BTreeSet<u64> {
    let mut came = BTreeSet::new();
    for turn in 0..1000 {
        spool.turn(now + Duration::from_secs(turn));
        if std::fs::read_dir(directory.join("quarantine")).expect("there").count() == 0 {
            return came;
        }
        let mut cursor = Cursor::START;
        while let Some(span) = spool.span(cursor).expect("readable") {
            cursor = span.next;
            for item in span.items {
                match item {
                    Item::Batch(batch) => {
                        spool.confirm(&[Confirmed::from(&*batch)]);
                        came.extend(batch.seq..batch.end());
                    }
                    Item::Event(event) => {
                        spool.confirm(&[Confirmed::Event { run: event.run, number: event.number }]);
                    }
                }
            }
        }
    }
    panic!("it is never given up: {} of its readings came", came.len());
}

/// A full disk with a ring that has wrapped, all of it confirmed, and beside it a file with a hundred batches that was set aside;
/// `before`: what is done to that one first.
fn beside_a_full_ring(
    now: Instant,
    before: impl FnOnce(&mut Stepped, &[Arc<Batch>]),
) -> (tempfile::TempDir, Stepped) {
    let (away, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let mut spool = life(away.path(), now);
    let first = spool.run;
    let all = store_big(&mut spool, 100, now);
    before(&mut spool, &all);
    drop(spool);
    aside::set_aside(&away.path().join(store::FILE), aside::QUARANTINE, first).expect("set aside");
    let mut spool = life(directory.path(), now);
    for batch in store_big(&mut spool, 600, now) {
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    spool.close(true, now + Duration::from_secs(20)).expect("closes");
    std::fs::rename(away.path().join("quarantine"), directory.path().join("quarantine")).expect("moved");
    let mut spool = life(directory.path(), now);
    feel_the_full_disk(directory.path(), &mut spool, now);
    (directory, spool)
}

#[test]
fn what_was_set_aside_comes_back_on_a_full_disk_into_the_rows_of_what_was_confirmed() {
    let now = Instant::now();
    let (directory, mut spool) = beside_a_full_ring(now, |_, _| {});
    let came = drain(directory.path(), &mut spool, now + Duration::from_secs(2));
    assert_eq!(came, (0..1000).collect());
}

#[test]
fn on_a_full_disk_refused_messages_hold_up_nothing_that_waits() {
    let now = Instant::now();
    let (directory, mut spool) = beside_a_full_ring(now, |spool, all| {
        spool.dead_letter(vec![Confirmed::from(&*all[50])], "no", now).expect("stored");
    });
    let came = drain(directory.path(), &mut spool, now + Duration::from_secs(2));
    assert_eq!(came, (0..500).chain(510..1000).collect());
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let letters: i64 = file.query_row("SELECT count(*) FROM dead", [], |row| row.get(0)).expect("readable");
    assert_eq!(letters, 0, "they stayed in the folder, which had to make room");
}

#[test]
fn a_file_that_is_damaged_on_a_full_disk_gives_its_readings_back_as_the_server_takes_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = Instant::now();
    let mut spool = life(directory.path(), now);
    store_big(&mut spool, 200, now);
    feel_the_full_disk(directory.path(), &mut spool, now);
    spool.turn(now + Duration::from_secs(2));
    spool.tell(Command::FileDamaged { generation: spool.generation(), what: "a page is damaged".into() });
    // The file is set aside.
    spool.turn(now + Duration::from_secs(2));
    let came = drain(directory.path(), &mut spool, now + Duration::from_secs(3));
    assert_eq!(came, (0..2000).collect());
}

/// With room for a gigabyte, and a hundred letters.
fn with_letters(directory: &Path) -> (Life, Arc<Shape>) {
    let roomy = SpoolSettings { bytes_max: Some(1 << 30), ..settings(directory) };
    let (mut life, shape) = (Life::begin(roomy, &schema::CURRENT), big_shape());
    let all: Vec<_> = (0..100).map(|n| big(life.spool.run, n * 10, &shape)).collect();
    for batch in &all {
        life.store(batch);
    }
    let names = all.iter().map(|batch| Confirmed::from(&**batch)).collect();
    life.spool.dead_letter(names, "no", life.now).expect("stored");
    (life, shape)
}

/// So many polls later: letters in the file, and by the board.
fn letters_after(directory: &Path, life: &mut Life, shape: &Arc<Shape>) -> (u64, u64) {
    for n in 100..130 {
        life.store(&big(life.spool.run, n * 10, shape));
        life.now += Duration::from_secs(1);
    }
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    let letters: i64 = file.query_row("SELECT count(*) FROM dead", [], |row| row.get(0)).expect("readable");
    (letters.cast_unsigned(), life.board.read(|status| status.spool.dead_letters))
}

#[test]
fn a_full_disk_costs_no_dead_letter_and_a_smaller_cap_is_seen_on_the_board() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, shape) = with_letters(directory.path());
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    assert_eq!(letters_after(directory.path(), &mut life, &shape), (100, 100));
    life.spool.shared.lock().settings.bytes_max = Some(BYTES_MAX_LEAST);
    std::fs::remove_file(directory.path().join(NO_SPACE)).expect("there");
    life.spool.tell(Command::Reconfigure);
    life.settle();
    let (there, shown) = letters_after(directory.path(), &mut life, &shape);
    assert!(
        (10..30).contains(&there) && there == shown,
        "{there} of 2.5 KiB in 64 KiB, {shown} on the board"
    );
}

#[test]
fn on_a_full_disk_what_memory_holds_goes_into_the_rows_of_what_was_confirmed_under_any_cap() {
    let directory = tempfile::tempdir().expect("a directory");
    let roomy = SpoolSettings { bytes_max: Some(1 << 30), ..settings(directory.path()) };
    let (mut life, shape) = (Life::begin(roomy, &schema::CURRENT), big_shape());
    for n in 0..200 {
        let batch = big(life.spool.run, n * 10, &shape);
        life.store(&batch);
        life.spool.confirm(&[Confirmed::from(&*batch)]);
    }
    life.now += Duration::from_secs(11);
    life.settle();
    let before = life.spool.committed().next_seq;
    std::fs::write(directory.path().join(NO_SPACE), "").expect("written");
    let trouble = block_commits(directory.path());
    for n in 200..700 {
        life.spool.append(big(life.spool.run, n * 10, &shape), life.now);
    }
    life.turn();
    drop(trouble);
    for _ in 0..600 {
        life.turn();
    }
    let stored = life.spool.committed().next_seq - before;
    assert!(stored > 1_000, "{stored} of 250 bytes in the rows of 2 000");
}

#[test]
fn on_a_full_disk_letters_and_records_take_no_more_than_their_share_of_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 1 << 30, "x").expect("opens");
    let (run, shape) = (RunId { counter: 1, random: 1 }, big_shape());
    let long: Vec<_> = (0..200).map(|n| big(run, n * 10, &shape)).collect();
    for batch in &long {
        let batches = std::slice::from_ref(batch);
        store.commit(&store::Work { batches, ..store::Work::default() }).expect("stored");
    }
    store.keep_length(0).expect("taken");
    let before = store.pages().expect("readable");
    for n in 0..2_000 {
        let name = (run, n * 10, 10);
        let dead = [store::DeadLetter { at_us: 0, reason: "no".into(), name, batch: Some(long[0].clone()) }];
        let body = Body::Device { device: "meter".into(), answering: n % 2 == 0 };
        let events = [Arc::new(Event { run, number: n, stamp: stamp(0), body })];
        let work = store::Work { dead: &dead, events: &events, floor: 150, ..store::Work::default() };
        store.commit(&work).expect("stored");
    }
    let after = store.pages().expect("readable");
    assert_eq!(after.1, before.1, "pages in the file");
    let blocks =
        |sql: &str| store.connection().query_row(sql, [], |row| row.get::<_, i64>(0)).expect("readable");
    assert_eq!(blocks("SELECT count(*) FROM block WHERE number >= 150"), 51, "what waits stays");
    assert!(blocks("SELECT count(*) FROM block") < 195, "what was confirmed goes, as far as is needed");
}

#[test]
fn records_that_come_back_and_go_for_want_of_room_do_not_count_as_waiting() {
    let now = Instant::now();
    let (away, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let open = |directory: &Path| {
        let roomy = SpoolSettings { bytes_max: Some(1 << 30), ..settings(directory) };
        Stepped::open(roomy, Board::default(), || stamp(0), now).expect("opens")
    };
    let mut spool = open(away.path());
    let first = spool.run;
    for n in 0..2_000u64 {
        let body = Body::Device { device: "meter".into(), answering: n.is_multiple_of(2) };
        spool.record(body, stamp(0));
        if n % 50 == 0 {
            spool.turn(now);
        }
    }
    spool.turn(now);
    drop(spool);
    aside::set_aside(&away.path().join(store::FILE), aside::QUARANTINE, first).expect("set aside");
    let mut spool = open(directory.path());
    for batch in store_big(&mut spool, 300, now) {
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    spool.close(true, now + Duration::from_secs(20)).expect("closes");
    std::fs::rename(away.path().join("quarantine"), directory.path().join("quarantine")).expect("moved");
    let mut spool = open(directory.path());
    feel_the_full_disk(directory.path(), &mut spool, now);
    for turn in 2..400 {
        spool.turn(now + Duration::from_secs(turn));
    }
    let counted = spool.shared.lock().events_waiting;
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let sql = "SELECT count(*) FROM event WHERE sent = 0";
    let there: i64 = file.query_row(sql, [], |row| row.get(0)).expect("readable");
    assert!(
        (100..1_000).contains(&there) && counted == there.cast_unsigned(),
        "{there}, and {counted} counted"
    );
}

#[test]
fn on_a_full_disk_a_burst_of_letters_and_records_does_not_make_the_file_longer() {
    let directory = tempfile::tempdir().expect("a directory");
    let roomy = SpoolSettings { bytes_max: Some(1 << 30), ..settings(directory.path()) };
    let (mut life, shape) = (Life::begin(roomy, &schema::CURRENT), big_shape());
    let poll = |life: &mut Life, n: u64| {
        let batch = big(life.spool.run, n * 10, &shape);
        life.store(&batch);
        life.now += Duration::from_secs(1);
        Confirmed::from(&*batch)
    };
    for n in 0..700 {
        let name = poll(&mut life, n);
        life.spool.confirm(&[name]);
    }
    let refused: Vec<_> = (700..760).map(|n| poll(&mut life, n)).collect();
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    let pages = || {
        let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
        file.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).expect("readable")
    };
    let before = pages();
    for n in 0..600u64 {
        let body = Body::Device { device: "meter".into(), answering: n.is_multiple_of(2) };
        life.spool.record(body, stamp(0));
    }
    for n in 760..900 {
        let reply = tokio::sync::oneshot::channel().0;
        let refused = refused.iter().skip((n % 60) as usize).take(5).copied().collect();
        life.spool.tell(Command::DeadLetter { refused, reason: "no".into(), reply });
        let name = poll(&mut life, n);
        life.spool.confirm(&[name]);
    }
    assert_eq!(pages(), before);
    let letters = life.board.read(|status| status.spool.dead_letters);
    assert!(letters > 10, "{letters}: little by little");
    assert_eq!(life.spool.committed().next_seq, 9_000, "readings are stored as before");
}

#[test]
fn on_a_full_disk_the_end_of_a_run_is_said_with_the_commit_that_books_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let roomy = SpoolSettings { bytes_max: Some(1 << 30), ..settings(directory.path()) };
    let (mut life, shape) = (Life::begin(roomy.clone(), &schema::CURRENT), big_shape());
    let run = life.spool.run;
    life.store(&big(run, 0, &shape));
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    for n in 0..600u64 {
        let body = Body::Device { device: "meter".into(), answering: n.is_multiple_of(2) };
        life.spool.record(body, stamp(0));
    }
    let reply = tokio::sync::oneshot::channel().0;
    life.spool.tell(Command::EndRun { reply });
    // Killed in the middle of the turn, as soon as that is on the disk: some commits with records, and the last.
    let commits = life.spool.committed().commits;
    life.spool.obey_only();
    assert!(life.spool.committed().commits > commits + 5);
    drop(life);
    std::fs::remove_file(directory.path().join(NO_SPACE)).expect("there");
    let mut next = Life::begin(roomy, &schema::CURRENT);
    next.settle();
    let events = next.waiting().1;
    let end = |event: &Arc<Event>| matches!(event.body, Body::RunEnd { ended, .. } if ended == run);
    assert_eq!(events.iter().filter(|event| end(event)).count(), 1, "{} records", events.len());
}
