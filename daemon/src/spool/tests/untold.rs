//! Losses that no record on the disk tells yet: neither the books in the file, nor their copy, nor the board is ahead of their records.

use std::sync::atomic::Ordering;

use super::taken_back::Life;
use super::*;
use crate::spool::shared::Command;
use crate::spool::{enter, records, schema};

/// More than memory holds, from a number on; one past the last.
fn too_much(run: RunId, from: u64) -> impl Iterator<Item = Arc<Batch>> {
    let shape = big_shape();
    (0..4000).map(move |i| big(run, from + i * 10, &shape))
}

/// Five batches are stored, and the second is refused by the broker for good.
fn one_of_five_is_refused(life: &mut Life) -> Plant {
    let mut plant = Plant::new(life.spool.run);
    let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
    for batch in &batches {
        life.store(batch);
    }
    let now = life.now;
    life.spool.dead_letter(vec![Confirmed::from(&*batches[1])], "no", now).expect("stored");
    plant
}

/// The disk does not give the file that this life found, and memory drops what it cannot hold.
fn beside_a_file_that_does_not_open(directory: &Path) -> Life {
    Life::begin(settings(directory), &schema::CURRENT).close();
    std::fs::write(directory.join("unreadable-log"), []).expect("written");
    let mut life = Life::begin(settings(directory), &schema::CURRENT);
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing");
    for batch in too_much(life.spool.run, 0) {
        life.spool.append(batch, life.now);
    }
    life.turn();
    assert!(life.spool.books_of(life.spool.run).expect("there").losses.dropped > 0);
    std::fs::remove_file(directory.join("unreadable-log")).expect("there");
    life.now += Duration::from_secs(60);
    life
}

/// The state directory as a power cut leaves it when a file has come up, before the first window goes into it.
fn cut_after_the_file_came_up(life: &mut Life, directory: &Path) -> tempfile::TempDir {
    let shared = life.spool.shared.clone();
    let before = shared.generation.load(Ordering::Acquire);
    let committing = shared.committing.lock().expect("no panic under it");
    std::thread::scope(|scope| {
        let turn = scope.spawn(|| life.turn());
        let until = Instant::now() + SOON;
        while shared.generation.load(Ordering::Acquire) == before {
            assert!(Instant::now() < until && !turn.is_finished(), "the file comes up");
            std::thread::yield_now();
        }
        let cut = copy_of(directory);
        drop(committing);
        turn.join().expect("no panic");
        cut
    })
}

/// The end that was said of a run, and what a server is told after a start from here. Each reading before the end waits, or is told to be
/// lost, and never both.
fn told_of(run: RunId, directory: &Path) -> (u64, BTreeSet<u64>, Vec<Arc<Event>>) {
    let mut after = Life::begin(settings(directory), &schema::CURRENT);
    after.settle();
    let (batches, events) = after.waiting();
    assert!(!directory.join("quarantine").exists(), "the file is sound: {events:?}");
    let end = |event: &Arc<Event>| match event.body {
        Body::RunEnd { ended, next_seq, .. } if ended == run => Some(next_seq),
        _ => None,
    };
    let ends: Vec<_> = events.iter().filter_map(end).collect();
    assert_eq!(ends.len(), 1, "{events:?}");
    let waits = numbers(&batches.into_iter().filter(|batch| batch.run == run).collect::<Vec<_>>());
    let mut lost = BTreeSet::new();
    for cause in GapCause::ALL {
        lost.extend(gaps(&events, run, cause));
    }
    assert!(waits.is_disjoint(&lost));
    let nowhere = (0..ends[0]).find(|number| !waits.contains(number) && !lost.contains(number));
    assert_eq!(nowhere, None, "of {}: {events:?}", ends[0]);
    let mut names = BTreeSet::new();
    assert!(events.iter().all(|event| names.insert((event.run, event.number))), "{events:?}");
    (ends[0], lost, events)
}

#[test]
fn what_memory_dropped_before_the_file_came_up_is_told_although_the_power_goes_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = beside_a_file_that_does_not_open(directory.path());
    let run = life.spool.run;
    let cut = cut_after_the_file_came_up(&mut life, directory.path());
    let dropped = life.spool.books_of(run).expect("there").losses.dropped;
    let (end, lost, events) = told_of(run, cut.path());
    assert_eq!((end, lost.len() as u64), (dropped, dropped), "{events:?}");
    // And once, where nothing is cut.
    life.settle();
    let events = life.waiting().1;
    assert_eq!(gaps(&events, run, GapCause::Overflow), (0..dropped).collect());
    assert_eq!(life.spool.settled_to(), dropped);
    assert_eq!(life.board.read(|status| status.spool.records_waiting), events.len() as u64);
}

#[test]
fn what_a_failed_coming_up_has_told_all_the_same_is_not_told_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = beside_a_file_that_does_not_open(directory.path());
    let run = life.spool.run;
    let books = life.spool.books_of(run).expect("there");
    let (told, dropped) = (books.losses.dropped / 2, books.losses.dropped);
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let row = "INSERT INTO run (run, ended, books) SELECT ?1, 0, ?2";
    let key = records::run_key(run);
    file.execute(row, (key, records::books_text(run, &books.for_disk()))).expect("written");
    let body = Body::Gap { of: run, first: 0, next: told, cause: GapCause::Overflow };
    let event = Event { run, number: 77, stamp: stamp(0), body };
    let row = "INSERT INTO event (run, number, sent, body) VALUES (?1, 77, 0, ?2)";
    file.execute(row, (key, records::event_text(&event))).expect("written");
    drop(file);
    life.turn();
    life.settle();
    let events = life.waiting().1;
    assert_eq!(gaps(&events, run, GapCause::Overflow), (0..dropped).collect());
}

#[test]
fn what_went_with_a_file_removed_under_us_is_told_although_the_power_goes_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    let mut plant = one_of_five_is_refused(&mut life);
    for entry in std::fs::read_dir(directory.path()).expect("readable") {
        std::fs::remove_file(entry.expect("readable").path()).expect("removed");
    }
    life.turn();
    life.spool.append(plant.batch(), life.now);
    life.now += Duration::from_secs(2);
    let cut = cut_after_the_file_came_up(&mut life, directory.path());
    let (end, lost, events) = told_of(run, cut.path());
    assert_eq!((end, lost), (10, (0..10).collect()), "{events:?}");
    assert_eq!(gaps(&events, run, GapCause::DeadLetter), (2..4).collect(), "as it was");
}

#[test]
fn a_file_that_does_not_take_the_run_leaves_what_is_untold_in_memory_and_the_next_try_tells_it_once() {
    let (directory, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    Life::begin(settings(directory.path()), &schema::CURRENT).close();
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    one_of_five_is_refused(&mut life);
    let file = other.path().join(store::FILE);
    let adopt = || {
        let (mut store, found) =
            store::Store::open_as(&file, BYTES_MAX_LEAST, "other", &schema::CURRENT).expect("opens");
        enter::adopt(&life.spool.shared, &mut store, found, false, &[])
    };
    store::Store::open_as(&file, BYTES_MAX_LEAST, "other", &schema::CURRENT).expect("made");
    let disk = block_commits(other.path());
    assert!(adopt().is_err() && adopt().is_err());
    {
        let inner = life.spool.shared.lock();
        assert_eq!((inner.unrecorded, inner.gaps.len()), (Some(0), 2), "(0..2) and (4..10) are damaged");
    }
    disk.execute_batch("ROLLBACK").expect("well again");
    adopt().expect("entered");
    let told = store::records(&disk).expect("readable").into_iter().map(Arc::new).collect::<Vec<_>>();
    assert_eq!(gaps(&told, run, GapCause::Damaged), [0, 1, 4, 5, 6, 7, 8, 9].into());
    assert_eq!(gaps(&told, run, GapCause::DeadLetter), (2..4).collect());
    let inner = life.spool.shared.lock();
    assert_eq!((inner.unrecorded, inner.gaps.len()), (None, 0));
    let left: Vec<_> = inner.events.iter().map(|event| &event.body).collect();
    let (end, damage) = (
        |body: &&&Body| matches!(body, Body::RunEnd { .. }),
        |body: &&&Body| matches!(body, Body::Corruption { .. }),
    );
    assert_eq!((left.iter().filter(end).count(), left.iter().filter(damage).count()), (1, 1), "{left:?}");
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn the_copy_of_the_books_is_not_ahead_of_the_records_of_losses() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    // A shape that the copy does not have yet: it is written after this turn.
    life.spool.append(big(run, 0, &big_shape()), life.now);
    let mut disk = Some(block_commits(directory.path()));
    let (shared, now) = (life.spool.shared.clone(), life.now);
    // In the middle of its commit more comes than memory holds, and somebody else wants the next turn.
    life.spool.when_busy(move |_| {
        let Some(disk) = disk.take() else { return false };
        for batch in too_much(run, 10) {
            shared.lock().append(batch, now);
        }
        shared.command(Command::Ping(tokio::sync::oneshot::channel().0));
        disk.execute_batch("ROLLBACK").expect("well again");
        true
    });
    life.turn();
    let dropped = life.spool.books_of(run).expect("there").losses.dropped;
    assert_eq!((dropped > 0, life.spool.committed().commits), (true, 1));
    let cut = copy_of(directory.path());
    let (end, lost, events) = told_of(run, cut.path());
    assert_eq!((end, lost), (10, BTreeSet::new()), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event.body, Body::Corruption { .. })), "{events:?}");
}

#[test]
fn what_is_lost_and_not_recorded_yet_lets_nobody_take_the_time_before_for_complete() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    let unknown =
        |life: &Life| life.board.read(|status| (status.spool.oldest_us, status.spool.oldest_unknown));
    let disk = block_commits(directory.path());
    for batch in too_much(run, 0) {
        life.spool.append(batch, life.now);
    }
    // The writer hangs in a call of the system: who watches it shows how it is.
    assert_eq!(unknown(&life), (None, false));
    life.spool.shared.show_stalled(life.now);
    assert_eq!(unknown(&life), (None, true));
    life.turn();
    assert!(life.board.read(|status| status.spool.dropped) > 0);
    assert_eq!(unknown(&life), (None, true));
    disk.execute_batch("ROLLBACK").expect("well again");
    life.now += Duration::from_secs(60);
    life.settle();
    let (oldest, unknown) = unknown(&life);
    assert!(oldest.is_some() && !unknown, "its record waits beside the rest");
}
