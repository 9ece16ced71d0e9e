//! On a full disk the file keeps its length: what made it longer in the log could never be written back, and nothing would be stored any more.

use super::full::{NO_SPACE, feel_the_full_disk};
use super::taken_back::Life;
use super::*;
use crate::spool::shared::Command;
use crate::spool::{aside, schema};

fn roomy(directory: &Path) -> SpoolSettings {
    SpoolSettings { bytes_max: Some(1 << 30), ..settings(directory) }
}

/// One poll, stored.
fn poll(life: &mut Life, n: u64, shape: &Arc<Shape>) -> Confirmed {
    let batch = big(life.spool.run, n * 10, shape);
    life.store(&batch);
    life.now += Duration::from_secs(1);
    Confirmed::from(&*batch)
}

fn polls(life: &mut Life, polls: std::ops::Range<u64>, shape: &Arc<Shape>) {
    for n in polls {
        let name = poll(life, n, shape);
        life.spool.confirm(&[name]);
    }
}

fn records(life: &Life, many: u64) {
    for n in 0..many {
        let body = Body::Device { device: "meter".into(), answering: n.is_multiple_of(2) };
        life.spool.record(body, stamp(0));
    }
}

fn length(directory: &Path) -> i64 {
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    file.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("readable")
}

/// 700 polls of which all is confirmed, then `before`; the disk is felt to be full, `burst` comes, and 200 polls more: they are stored, in
/// a file as long as it was. `burst` gives the number of the next poll.
fn keeps_its_length<T>(before: impl FnOnce(&mut Life) -> T, burst: impl FnOnce(&mut Life, T) -> u64) -> Life {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, shape) = (Life::begin(roomy(directory.path()), &schema::CURRENT), big_shape());
    polls(&mut life, 0..700, &shape);
    let what = before(&mut life);
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    let long = length(directory.path());
    let next = burst(&mut life, what);
    life.turn();
    polls(&mut life, next..next + 200, &shape);
    assert_eq!(length(directory.path()), long);
    assert_eq!(life.spool.committed().next_seq, (next + 200) * 10);
    life
}

fn refuse(life: &Life, one: Confirmed) {
    let reply = tokio::sync::oneshot::channel().0;
    life.spool.tell(Command::DeadLetter { refused: vec![one], reason: "not authorized".into(), reply });
}

#[test]
fn with_many_records_between_two_polls() {
    keeps_its_length(
        |_| (),
        |life, ()| {
            records(life, 300);
            life.turn();
            700
        },
    );
}

#[test]
fn with_many_losses_at_once() {
    keeps_its_length(
        |_| (),
        |life, ()| {
            let run = life.spool.run;
            for n in 700..1_600 {
                let (first, next) = (n * 10, n * 10 + 10);
                if n % 2 == 0 {
                    life.spool.shared.lock().lose(run, first, next, GapCause::Overflow);
                } else {
                    life.spool.confirm(&[Confirmed::Batch { run, seq: first, n: 10 }]);
                }
            }
            1_600
        },
    );
}

#[test]
fn with_many_refused_records() {
    let life = keeps_its_length(
        |life| {
            records(life, 600);
            life.turn();
            life.waiting().1.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>()
        },
        |life, waiting| {
            assert!(waiting.len() >= 600);
            for one in waiting {
                refuse(life, one);
            }
            700
        },
    );
    assert!(life.board.read(|status| status.spool.records_refused) >= 600);
}

#[test]
fn with_letters_that_were_taken_before_it_was_felt_and_are_more_than_the_log_takes() {
    let shape = big_shape();
    let life = keeps_its_length(
        |life| (700..900).map(|n| poll(life, n, &shape)).collect::<Vec<_>>(),
        |life, refused| {
            for one in refused {
                refuse(life, one);
            }
            let commits = life.spool.committed().commits;
            life.turn();
            assert!(life.spool.committed().commits > commits + 2, "a few with each");
            900
        },
    );
    let books = life.spool.books_of(life.spool.run).expect("there");
    assert_eq!(books.losses.dead_lettered, 2_000);
}

#[test]
fn with_a_letter_as_long_as_a_batch_may_be() {
    let (points, texts) = (500, super::shape("plc", &[ValueKind::Text; 500]));
    let life = keeps_its_length(
        |life| {
            let sample = Sample::good(Value::Text("x".repeat(24).into()));
            let readings = (0..points).map(|point| Reading { point, sample: sample.clone() }).collect();
            let (run, seq) = (life.spool.run, 7_000);
            let long = Arc::new(Batch { run, seq, prev: None, stamp: stamp(seq), shape: texts, readings });
            life.store(&long);
            Confirmed::from(&*long)
        },
        |life, long| {
            life.spool.dead_letter(vec![long], "too long", life.now).expect("stored");
            750
        },
    );
    assert_eq!(life.board.read(|status| status.spool.dead_letters), 1);
}

#[test]
fn with_nothing_that_could_make_room_for_it_a_commit_fails_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut store, _) =
        store::Store::open(&directory.path().join(store::FILE), 1 << 30, "x").expect("opens");
    let (run, shape) = (RunId { counter: 1, random: 1 }, big_shape());
    let batches: Vec<_> = (0..200).map(|n| big(run, n * 10, &shape)).collect();
    store.commit(&store::Work { batches: &batches, ..store::Work::default() }).expect("stored");
    store.keep_length(0).expect("taken");
    let long = length(directory.path());
    let body = Body::Device { device: "meter".into(), answering: true };
    let events: Vec<_> =
        (0..400).map(|number| Arc::new(Event { run, number, stamp: stamp(0), body: body.clone() })).collect();
    let done = store.commit(&store::Work { events: &events, ..store::Work::default() });
    assert!(matches!(done, Err(store::StoreError::NoSpace)), "{done:?}");
    assert_eq!(length(directory.path()), long);
    store.commit(&store::Work { events: &events[..2], ..store::Work::default() }).expect("two fit");
}

#[test]
fn after_a_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, shape) = (Life::begin(roomy(directory.path()), &schema::CURRENT), big_shape());
    polls(&mut life, 0..700, &shape);
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    life.close();
    let long = length(directory.path());
    let mut life = Life::begin(roomy(directory.path()), &schema::CURRENT);
    polls(&mut life, 0..300, &shape);
    assert_eq!((length(directory.path()), life.spool.committed().next_seq), (long, 3_000));
    std::fs::remove_file(directory.path().join(NO_SPACE)).expect("there");
    life.turn();
    polls(&mut life, 300..1_000, &shape);
    assert!(length(directory.path()) > long, "there is room again");
}

#[test]
fn what_a_rescue_has_found_out_is_said_with_the_commit_that_books_it() {
    let (away, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let mut last = None;
    for _ in 0..80 {
        let mut life = Life::begin(roomy(away.path()), &schema::CURRENT);
        life.store(&Plant::new(life.spool.run).batch());
        last = Some(life.spool.run);
    }
    let file = rusqlite::Connection::open(away.path().join(store::FILE)).expect("opens");
    file.execute_batch("PRAGMA secure_delete = ON; DELETE FROM event; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("done");
    drop(file);
    let last = last.expect("some");
    aside::set_aside(&away.path().join(store::FILE), aside::QUARANTINE, last).expect("set aside");
    let (mut life, shape) = (Life::begin(roomy(directory.path()), &schema::CURRENT), big_shape());
    polls(&mut life, 0..300, &shape);
    life.close();
    std::fs::rename(away.path().join("quarantine"), directory.path().join("quarantine")).expect("moved");
    let mut life = Life::begin(roomy(directory.path()), &schema::CURRENT);
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    let ends = || {
        let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
        let sql = "SELECT count(*) FROM event WHERE body LIKE '%run_end%'";
        file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("readable")
    };
    let before = ends();
    for _ in 0..1_000 {
        let commits = life.spool.committed().commits;
        life.turn();
        if ends() > before {
            assert_eq!((ends() - before, life.spool.committed().commits - commits), (80, 1));
            return;
        }
    }
    panic!("it does not end");
}

/// A file on a full disk in which all waits, 300 batches, and 300 more in memory; `many` of those in the file are refused. Then all that is left is
/// confirmed, but for the oldest if `oldest` is refused, again and again: how much is stored in the end.
fn after_an_outage(oldest: bool, many: bool) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, shape) = (Life::begin(roomy(directory.path()), &schema::CURRENT), big_shape());
    let mut waits: Vec<_> = (0..300).map(|n| poll(&mut life, n, &shape)).collect();
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    if many {
        for one in waits.drain(100..300) {
            refuse(&life, one);
        }
        life.turn();
    }
    for n in 300..600 {
        let batch = big(life.spool.run, n * 10, &shape);
        waits.push(Confirmed::from(&*batch));
        life.spool.append(batch, life.now);
        life.turn();
    }
    assert!(life.spool.committed().next_seq < 6_000, "something waits for room");
    let mut refused = waits.drain(..1).next().filter(|_| oldest);
    if !oldest {
        life.spool.confirm(&[Confirmed::Batch { run: life.spool.run, seq: 0, n: 10 }]);
    }
    life.spool.confirm(&waits);
    for _ in 0..600 {
        let Some(one) = refused else {
            life.turn();
            continue;
        };
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        life.spool.tell(Command::DeadLetter { refused: vec![one], reason: "too large".into(), reply });
        // Who asked asks again only when it was answered.
        for _ in 0..100 {
            life.turn();
            match answer.try_recv() {
                Ok(done) => {
                    refused = refused.filter(|_| done.is_err());
                    break;
                }
                Err(_) => life.now += Duration::from_millis(900),
            }
        }
    }
    life.spool.committed().next_seq
}

#[test]
fn what_waited_and_is_confirmed_makes_room_again() {
    assert_eq!(after_an_outage(false, false), 6_000);
}

#[test]
fn so_does_what_is_refused_while_the_file_is_tried_again() {
    assert_eq!(after_an_outage(true, false), 6_000);
}

#[test]
fn many_refused_messages_do_not_keep_others_from_making_room() {
    assert_eq!(after_an_outage(false, true), 6_000);
    assert_eq!(after_an_outage(true, true), 6_000);
}

#[test]
fn nor_does_a_block_of_which_much_is_refused_or_many_records() {
    for records_too in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut life, shape) = (Life::begin(roomy(directory.path()), &schema::CURRENT), big_shape());
        let all: Vec<_> = (0..600).map(|n| big(life.spool.run, n * 10, &shape)).collect();
        for batch in &all[..60] {
            life.spool.append(batch.clone(), life.now);
        }
        life.turn();
        for batch in &all[60..300] {
            life.store(batch);
        }
        records(&life, 200);
        life.turn();
        let told: Vec<_> = life.waiting().1.iter().map(|event| Confirmed::from(&**event)).collect();
        feel_the_full_disk(directory.path(), &mut life.spool, life.now);
        life.now += Duration::from_secs(2);
        life.turn();
        for batch in &all[300..] {
            life.spool.append(batch.clone(), life.now);
        }
        life.turn();
        let names: Vec<_> = all.iter().map(|batch| Confirmed::from(&**batch)).collect();
        let refused = names[..60].iter().chain(told.iter().filter(|_| records_too));
        refused.for_each(|one| refuse(&life, *one));
        life.spool.confirm(&names[60..]);
        for _ in 0..600 {
            life.turn();
        }
        assert_eq!(life.spool.committed().next_seq, 6_000);
        assert_eq!(life.spool.books_of(life.spool.run).expect("there").losses.dead_lettered, 600);
    }
}

#[test]
fn of_a_long_block_that_is_refused_what_the_log_may_not_take_goes_without_its_content() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, shape) = (Life::begin(roomy(directory.path()), &schema::CURRENT), big_shape());
    let all: Vec<_> = (0..350).map(|n| big(life.spool.run, n * 10, &shape)).collect();
    for batch in &all[..250] {
        life.spool.append(batch.clone(), life.now);
    }
    life.turn();
    for batch in &all[250..] {
        life.store(batch);
    }
    feel_the_full_disk(directory.path(), &mut life.spool, life.now);
    life.now += Duration::from_secs(2);
    life.turn();
    for batch in &all[..250] {
        refuse(&life, Confirmed::from(&**batch));
    }
    for batch in &all[250..] {
        life.spool.confirm(&[Confirmed::from(&**batch)]);
    }
    for _ in 0..60 {
        life.turn();
    }
    assert_eq!(life.spool.books_of(life.spool.run).expect("there").losses.dead_lettered, 2_500);
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let count = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("readable");
    let bare = count("SELECT count(*) FROM dead WHERE length(body) = 0");
    assert!((100..240).contains(&bare), "{bare} of 250 without their content");
    polls(&mut life, 350..450, &shape);
    assert_eq!(life.spool.committed().next_seq, 4_500);
}

/// 200 batches of 500 numbers that are refused all at once: more than one turn stores.
fn refuse_many(directory: &Path) -> (Life, RunId) {
    let mut life = Life::begin(roomy(directory), &schema::CURRENT);
    let (run, shape) = (life.spool.run, super::shape("plc", &[ValueKind::F64; 500]));
    for n in 0..200 {
        let number = |point: u16| Sample::good(Value::F64(f64::from(point).mul_add(0.37, n as f64)));
        let readings = (0..500).map(|point| Reading { point, sample: number(point) }).collect();
        let batch = Batch { run, seq: n * 500, prev: None, stamp: stamp(n), shape: shape.clone(), readings };
        life.store(&Arc::new(batch));
    }
    for n in 0..200 {
        refuse(&life, Confirmed::Batch { run, seq: n * 500, n: 500 });
    }
    (life, run)
}

/// Letters in the file, and what its books say in readings.
fn letters(directory: &Path, run: RunId) -> (i64, u64) {
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    let kept = file.query_row("SELECT count(*) FROM dead", [], |row| row.get(0)).expect("readable");
    drop(file);
    let life = Life::begin(roomy(directory), &schema::CURRENT);
    (kept, life.spool.books_of(run).expect("there").losses.dead_lettered)
}

#[test]
fn the_books_tell_of_no_letter_that_is_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, run) = refuse_many(directory.path());
    life.turn();
    drop(life);
    let (kept, dead_lettered) = letters(directory.path(), run);
    assert!((8..200).contains(&kept), "{kept} after one turn");
    assert_eq!(dead_lettered, kept.cast_unsigned() * 500);
}

#[test]
fn a_close_stores_all_letters() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, run) = refuse_many(directory.path());
    life.turn();
    life.close();
    assert_eq!(letters(directory.path(), run), (200, 100_000));
}
