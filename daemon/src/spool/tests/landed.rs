//! Commits that failed and were in the file all the same: a sync that fails says nothing of what the disk got. What they left goes with
//! the next commit, which brings it again; until then nobody may build on it, nor tell it twice.

use super::taken_back::Life;
use super::*;
use crate::spool::shared::Command;
use crate::spool::{block, records, schema};

/// What a commit that fails over the lock of `disk` would have written is written all the same, or not, and the disk is well again.
fn land(life: &mut Life, disk: rusqlite::Connection, landed: Option<&dyn Fn(&rusqlite::Connection)>) {
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing");
    match landed {
        Some(write) => {
            write(&disk);
            disk.execute_batch("COMMIT").expect("landed");
        }
        None => disk.execute_batch("ROLLBACK").expect("did not land"),
    }
    drop(disk);
    life.now += Duration::from_secs(2);
}

/// As the next block of the ring.
fn put_block(file: &rusqlite::Connection, batch: &Arc<Batch>) {
    let dictionary = store::dictionary(file).expect("readable");
    let mut bytes = Vec::new();
    block::encode(std::slice::from_ref(batch), &dictionary, &mut bytes).expect("a block");
    let (head, body) = bytes.split_at(block::HEADER_LENGTH);
    let sql = "INSERT INTO block SELECT max(place) + 1, max(number) + 1, ?1, ?2 FROM block";
    assert_eq!(file.execute(sql, (head, body)).expect("written"), 1);
}

#[test]
fn what_landed_with_a_failed_commit_is_not_passed_over_and_waits_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    // Nothing waits by the books: a new block is all that could keep the floor.
    let before = plant.batch();
    life.store(&before);
    life.spool.confirm(&[Confirmed::from(&*before)]);
    life.now += Duration::from_secs(11);
    life.settle();
    let disk = block_commits(directory.path());
    let batch = plant.batch();
    life.store(&batch);
    land(&mut life, disk, Some(&|disk| put_block(disk, &batch)));
    let found = life.spool.verify();
    assert_eq!((found.readings, found.faults), (4, vec![]), "who looks at it before it is taken out");
    // Of what memory does not bring again the books would have to know.
    let stranger = Plant { seq: 90, ..Plant::new(plant.run) }.batch();
    let disk = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    put_block(&disk, &stranger);
    let faults = life.spool.verify().faults;
    assert!(faults.len() == 1 && faults[0].contains("it reaches to 92, the run only to 2"), "{faults:?}");
    life.settle();
    assert_eq!(
        life.waiting().0,
        std::slice::from_ref(&batch),
        "it was given the number of the one that landed"
    );
    drop(life);
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    life.settle();
    assert_eq!(life.waiting().0, [batch]);
    assert!(!directory.path().join("quarantine").exists(), "the file is sound");
}

/// The record of the loss in this file, with its row.
fn gap_row(file: &rusqlite::Connection) -> (i64, Event) {
    let rows = store::gap_rows(file).expect("readable");
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().expect("one")
}

/// One batch is refused by the broker for good, then its neighbour: the record of the first grows, in a commit that fails.
fn a_record_that_grows(landed: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..4).map(|_| plant.batch()).collect();
    for batch in &batches {
        life.store(batch);
    }
    let refuse = |life: &mut Life, at: usize| {
        let refused = vec![Confirmed::from(&*batches[at])];
        let reply = tokio::sync::oneshot::channel().0;
        life.spool.tell(Command::DeadLetter { refused, reason: "no".to_owned(), reply });
        life.turn();
    };
    refuse(&mut life, 1);
    let disk = block_commits(directory.path());
    refuse(&mut life, 2);
    let grow = |disk: &rusqlite::Connection| {
        let (id, mut event) = gap_row(disk);
        event.body = Body::Gap { of: run, first: 2, next: 6, cause: GapCause::DeadLetter };
        let sql = "UPDATE event SET body = ?2 WHERE id = ?1";
        assert_eq!(disk.execute(sql, (id, records::event_text(&event))).expect("written"), 1);
    };
    land(&mut life, disk, landed.then_some(&grow));
    // Given out now, in the one form or the other, it must not change any more, and it has to.
    let (_, events) = life.waiting();
    assert!(events.is_empty(), "before anybody knows what it says: {events:?}");
    life.settle();
    let (waiting, events) = life.waiting();
    assert_eq!(gaps(&events, run, GapCause::DeadLetter), (2..6).collect());
    assert_eq!(numbers(&waiting), (0..2).chain(6..8).collect());
    let read = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let told = Body::Gap { of: run, first: 2, next: 6, cause: GapCause::DeadLetter };
    assert_eq!(gap_row(&read).1.body, told, "the same row has grown");
}

#[test]
fn a_record_that_grew_with_a_failed_commit_tells_its_loss_once_whether_it_landed_or_not() {
    a_record_that_grows(true);
    a_record_that_grows(false);
}

#[test]
fn what_landed_with_a_failed_commit_is_given_to_nobody_before_it_comes_again_or_is_told_as_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    let shape = big_shape();
    let (first, landed) = (big(run, 0, &shape), big(run, 10, &shape));
    life.store(&first);
    let disk = block_commits(directory.path());
    life.store(&landed);
    put_block(&disk, &landed);
    disk.execute_batch("COMMIT").expect("landed");
    drop(disk);
    assert_eq!(numbers(&life.waiting().0), (0..10).collect(), "nobody has booked the other");
    // It comes back to memory, which is full, and of all it is the oldest.
    for i in 2..4000 {
        life.spool.append(big(run, i * 10, &shape), life.now);
    }
    assert_eq!(numbers(&life.waiting().0), (0..10).collect());
    life.now += Duration::from_secs(2);
    life.settle();
    let (waits, events) = life.waiting();
    let (waits, lost) = (numbers(&waits), gaps(&events, run, GapCause::Overflow));
    assert!(lost.contains(&10) && lost.is_disjoint(&waits) && waits.contains(&0));
    assert_eq!((waits.len() + lost.len()) as u64, 40_000, "each is given, or told as lost");
}
