//! Readings that were delivered and have no block are never told as damaged, and cost no file, however many stretches the books have.

use super::taken_back::Life;
use super::*;
use crate::spool::blockless::BLOCKLESS_MAX;
use crate::spool::ledger::{EXCEPTIONS_MAX, INTERVALS_MAX, Ledger, RunBooks};
use crate::spool::schema;

fn unsent(directory: &Path) -> SpoolSettings {
    SpoolSettings { commit_every: Duration::from_secs(1), keep: Keep::Unsent, ..settings(directory) }
}

/// So many batches come; each second one is confirmed before it is stored. Gives what was delivered.
fn flap(life: &mut Life, plant: &mut Plant, many: usize) -> BTreeSet<u64> {
    let mut delivered = BTreeSet::new();
    for at in 0..many {
        let batch = plant.batch();
        life.spool.append(batch.clone(), life.now);
        if at % 2 == 1 {
            life.spool.confirm(&[Confirmed::from(&*batch)]);
            delivered.extend(batch.seq..batch.end());
        }
        if at % 200 == 199 {
            life.now += Duration::from_secs(2);
            life.turn();
        }
    }
    life.now += Duration::from_secs(20);
    life.settle();
    delivered
}

/// Confirms what waits until nothing does. Gives what came.
fn drain(life: &mut Life, run: RunId) -> BTreeSet<u64> {
    let mut came = BTreeSet::new();
    while life.spool.books_of(run).expect("there").waiting() > 0 {
        let waits = life.waiting().0;
        assert_ne!(waits, [], "what waits is given");
        came.extend(numbers(&waits));
        life.spool.confirm(&waits.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
        life.now += Duration::from_secs(20);
        life.settle();
    }
    came
}

fn damaged(life: &mut Life, run: RunId) -> BTreeSet<u64> {
    gaps(&life.waiting().1, run, GapCause::Damaged)
}

#[test]
fn a_restart_after_a_link_that_flaps_tells_nothing_delivered_as_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(unsent(directory.path()), &schema::CURRENT);
    let (run, mut plant) = (life.spool.run, Plant::new(life.spool.run));
    let delivered = flap(&mut life, &mut plant, 3 * EXCEPTIONS_MAX);
    life.close();
    let mut after = Life::begin(unsent(directory.path()), &schema::CURRENT);
    after.settle();
    assert_eq!(damaged(&mut after, run), BTreeSet::new());
    let came = drain(&mut after, run);
    assert_eq!(damaged(&mut after, run), BTreeSet::new());
    assert_eq!((came.len() + delivered.difference(&came).count()) as u64, 6 * EXCEPTIONS_MAX as u64);
}

#[test]
fn a_link_that_flaps_for_long_leaves_nothing_that_waits_and_is_nowhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(unsent(directory.path()), &schema::CURRENT);
    let (run, mut plant) = (life.spool.run, Plant::new(life.spool.run));
    let delivered = flap(&mut life, &mut plant, 3 * INTERVALS_MAX);
    let stretches = life.spool.books_of(run).expect("there").blockless.known().count();
    assert!(stretches <= BLOCKLESS_MAX, "{stretches}");
    let came = drain(&mut life, run);
    assert_eq!(damaged(&mut life, run), BTreeSet::new());
    assert_eq!((came.len() + delivered.difference(&came).count()) as u64, 6 * INTERVALS_MAX as u64);
    let last = plant.batch();
    life.spool.append(last.clone(), life.now);
    life.spool.confirm(&[Confirmed::from(&*last)]);
    life.turn();
    let blockless = life.spool.books_of(run).expect("there").blockless;
    assert!(
        blockless.may_hold(last.seq, last.end()),
        "and what is confirmed in time is not stored, as before"
    );
}

#[test]
fn a_folded_run_that_waits_again_forgets_nothing_without_a_block() {
    let run = RunId { counter: 1, random: 1 };
    let mut ledger = Ledger::default();
    let mut books = RunBooks { durable: 200_000, ..RunBooks::default() };
    books.settled.insert(0, 200_000);
    books.leave_out(100_000, 100_010);
    ledger.runs.insert(run, books);
    ledger.fold(run);
    ledger.wait_again(run, 0, 100_000);
    ledger.wait_again(run, 100_010, 200_000);
    let books = ledger.runs.get_mut(&run).expect("its books are back");
    for at in 0..2 * EXCEPTIONS_MAX as u64 {
        books.confirm(at * 40 + 5, at * 40 + 25);
    }
    assert!(books.for_disk().settled.covers(100_000, 100_010));
}

#[test]
fn what_was_confirmed_and_went_with_a_damaged_file_is_not_told_as_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let all = || SpoolSettings { keep: Keep::All, ..unsent(directory.path()) };
    let mut life = Life::begin(all(), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let batches: Vec<_> = (0..4 * 900).map(|_| plant.batch()).collect();
    for batch in &batches {
        life.spool.append(batch.clone(), life.now);
    }
    life.now += Duration::from_secs(20);
    life.settle();
    let confirm = |life: &mut Life, which: usize| {
        let some = batches.iter().skip(which).step_by(4);
        life.spool.confirm(&some.map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
        life.now += Duration::from_secs(20);
        life.settle();
    };
    confirm(&mut life, 0);
    life.close();
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    file.execute_batch("PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE name = 'event'")
        .expect("harmed");
    drop(file);
    let mut after = Life::begin(all(), &schema::CURRENT);
    for _ in 0..20 {
        after.now += Duration::from_secs(20);
        after.settle();
    }
    assert_eq!(numbers(&after.waiting().0).len(), 2 * 3 * 900, "the rescue has found what waits");
    confirm(&mut after, 2);
    after.close();
    let mut last = Life::begin(all(), &schema::CURRENT);
    for _ in 0..20 {
        last.now += Duration::from_secs(20);
        last.settle();
    }
    assert_eq!(damaged(&mut last, plant.run), BTreeSet::new());
    let folders = std::fs::read_dir(directory.path().join("quarantine")).map_or(0, Iterator::count);
    assert_eq!((numbers(&last.waiting().0).len(), folders), (2 * 2 * 900, 1));
}

#[test]
fn what_was_confirmed_in_a_block_that_was_emptied_is_known_to_have_none_after_a_restart_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let begin = || Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut life = begin();
    let first = life.spool.run;
    let mut plant = Plant::new(first);
    let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
    for batch in &batches {
        life.store(batch);
    }
    life.spool.confirm(&[Confirmed::from(&*batches[2])]);
    life.close();
    let mut life = begin();
    let mut plant = Plant::new(life.spool.run);
    for _ in 0..3 {
        life.store(&plant.batch());
    }
    // The books are written, and clean.
    life.now += Duration::from_secs(20);
    life.settle();
    let knows = |life: &Life| life.spool.books_of(first).expect("there").blockless.may_hold(4, 6);
    assert!(!knows(&life));
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let flip = "UPDATE block SET body = CAST(substr(body, 1, 4) || x'ff' || substr(body, 6) AS BLOB) WHERE number = 7";
    assert_eq!(file.execute(flip, []).expect("flipped"), 1);
    drop(file);
    life.waiting();
    life.settle();
    assert_eq!(damaged(&mut life, plant.run), (2..4).collect());
    assert!(knows(&life), "nobody can tell what was in it");
    life.close();
    assert!(knows(&begin()));
}
