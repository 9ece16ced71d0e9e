//! A disk that fails while the server can be reached: what it does not take is sent out of memory, and comes once.

use super::taken_back::Life;
use super::*;
use crate::spool::Cursor;
use crate::spool::ledger::INTERVALS_MAX;
use crate::spool::schema;

/// A window of a second.
fn patient(directory: &Path) -> SpoolSettings {
    SpoolSettings { commit_every: Duration::from_secs(1), ..settings(directory) }
}

fn batches(life: &mut Life) -> Vec<Arc<Batch>> {
    life.waiting().0
}

#[test]
fn what_a_failing_disk_does_not_take_is_given_out_of_memory_and_never_what_was_confirmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let stored = plant.batch();
    life.store(&stored);
    life.now += Duration::from_secs(2);
    life.settle();
    let disk = block_commits(directory.path());
    let (first, second) = (plant.batch(), plant.batch());
    life.store(&first);
    life.store(&second);
    life.now += Duration::from_secs(2);
    life.turn();
    assert_eq!(batches(&mut life), std::slice::from_ref(&stored), "a slow disk is no disk that fails");
    assert_eq!(life.spool.committed().late, 0);
    life.now += Duration::from_secs(20);
    let young = plant.batch();
    life.store(&young);
    assert_eq!(batches(&mut life), [stored.clone(), first.clone(), second.clone()]);
    assert_eq!(life.spool.committed().late, 4, "who sends is told");
    life.spool.confirm(&[Confirmed::from(&*first)]);
    life.turn();
    assert_eq!(batches(&mut life), [stored.clone(), second.clone()]);
    assert_eq!(life.spool.committed().late, 2);
    // Each piece goes on where the one before it ended.
    let span = life.spool.span(Cursor::START).expect("readable").expect("something");
    assert_eq!(span.items, [Item::Batch(stored.clone())]);
    let span = life.spool.span(span.next).expect("readable").expect("something");
    assert_eq!(span.items, [Item::Batch(second.clone())]);
    life.now += Duration::from_secs(20);
    life.turn();
    let span = life.spool.span(span.next).expect("readable").expect("something");
    assert_eq!(span.items, [Item::Batch(young.clone())], "late by now");
    assert!(life.spool.span(span.next).expect("readable").is_none());
    disk.execute_batch("ROLLBACK").expect("well again");
    life.now += Duration::from_secs(60);
    life.settle();
    assert_eq!(batches(&mut life), [stored, second, young], "from the disk");
    assert_eq!(life.spool.committed().late, 0);
    let books = life.spool.books_of(life.spool.run).expect("there");
    assert_eq!((books.confirmed(), books.waiting(), books.losses.total()), (2, 6, 0));
}

#[test]
fn a_file_that_cannot_be_read_holds_up_nothing_that_is_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    life.store(&plant.batch());
    life.now += Duration::from_secs(2);
    life.settle();
    let _disk = block_commits(directory.path());
    let late = plant.batch();
    life.store(&late);
    life.now += Duration::from_secs(20);
    life.turn();
    let (here, away) = (directory.path().join(store::FILE), directory.path().join("away"));
    std::fs::rename(&here, &away).expect("away");
    let span = life.spool.span(Cursor::START).expect("memory can").expect("something");
    assert_eq!(span.items, [Item::Batch(late)]);
    assert!(life.spool.span(span.next).is_err(), "and then it is said");
    std::fs::rename(&away, &here).expect("back");
    assert_eq!(batches(&mut life).len(), 2);
}

#[test]
fn with_a_window_of_nothing_nothing_is_sent_before_it_is_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let _disk = block_commits(directory.path());
    life.store(&plant.batch());
    life.now += Duration::from_secs(100);
    life.turn();
    assert_eq!((batches(&mut life), life.spool.committed().late), (vec![], 0));
}

#[test]
fn what_the_writer_had_in_hand_is_not_passed_over_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, board) = open(patient(directory.path()));
    let mut plant = Plant::new(run);
    let all: Vec<_> = (0..3).map(|_| plant.batch()).collect();
    let disk = block_commits(directory.path());
    {
        let mut inner = spool.shared.lock();
        let now = Instant::now();
        for batch in &all {
            inner.append(batch.clone(), now);
        }
        // As while a commit is under way.
        inner.in_hand = inner.ring.front().map(|kept| kept.at);
        assert_eq!(inner.give_late(all[1].seq, now + Duration::from_secs(60)), all[1..]);
    }
    let before = spool.committed().borrow().resends;
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        spool.append(plant.batch());
        failing(&board).await;
        let mut committed = spool.committed();
        let again = committed.wait_for(|committed| committed.resends > before);
        tokio::time::timeout(SOON, again).await.expect("soon").expect("it lives");
    });
    drop(disk);
}

#[test]
fn what_is_on_its_way_out_of_a_full_memory_is_not_dropped_before_what_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let (run, shape) = (life.spool.run, big_shape());
    let disk = block_commits(directory.path());
    let mut seq = 0;
    let mut poll = |life: &mut Life, times: u64| {
        for _ in 0..times {
            life.spool.append(big(run, seq, &shape), life.now);
            seq += 10;
        }
        life.now += Duration::from_secs(20);
        life.turn();
    };
    while life.board.read(|status| status.spool.dropped) == 0 {
        poll(&mut life, 500);
    }
    let piece = |span: &crate::spool::api::Span| {
        let batch = |item: &Item| if let Item::Batch(batch) = item { Some(batch.clone()) } else { None };
        span.items.iter().filter_map(batch).collect::<Vec<_>>()
    };
    let dropped = |life: &Life| life.board.read(|status| status.spool.dropped);
    let first = life.spool.span(Cursor::START).expect("memory can").expect("something");
    let second = life.spool.span(first.next).expect("memory can").expect("more");
    // Both pieces are in flight, and the plant goes on.
    let before = dropped(&life);
    poll(&mut life, 200);
    assert!(dropped(&life) > before, "something has to go");
    let sent: Vec<_> = [piece(&first), piece(&second)].concat();
    life.spool.confirm(&sent.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    // What was confirmed is the oldest, and makes room for as much.
    let before = dropped(&life);
    poll(&mut life, sent.len() as u64 - 50);
    assert_eq!(dropped(&life), before, "only history went");
    poll(&mut life, 200);
    assert!(dropped(&life) > before);
    disk.execute_batch("ROLLBACK").expect("well again");
    life.now += Duration::from_secs(60);
    life.settle();
    let (waits, events) = life.waiting();
    let (sent, waits, lost) = (numbers(&sent), numbers(&waits), gaps(&events, run, GapCause::Overflow));
    assert!(sent.is_disjoint(&lost) && waits.is_disjoint(&lost) && sent.is_disjoint(&waits));
    assert_eq!(lost.len() as u64, dropped(&life));
    assert_eq!((sent.len() + waits.len() + lost.len()) as u64, seq, "each is one of the three");
}

#[test]
fn what_was_confirmed_out_of_memory_is_not_given_again_however_many_stretches_it_makes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let _disk = block_commits(directory.path());
    for _ in 0..4 * INTERVALS_MAX {
        life.spool.append(plant.batch(), life.now);
    }
    life.now += Duration::from_secs(60);
    life.turn();
    // One device is refused, and the other is not.
    let taken = |life: &mut Life| {
        let mut waits = batches(life);
        waits.retain(|batch| batch.seq % 4 == 0);
        waits.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>()
    };
    let first = taken(&mut life);
    assert_eq!(first.len(), 2 * INTERVALS_MAX);
    for one in &first {
        life.spool.confirm(std::slice::from_ref(one));
    }
    assert_eq!(taken(&mut life), []);
}

#[test]
fn a_power_cut_after_a_full_memory_has_dropped_out_of_turn_costs_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let (run, shape) = (life.spool.run, big_shape());
    let disk = block_commits(directory.path());
    let mut seq = 0;
    let mut poll = |life: &mut Life, times: u64| {
        for _ in 0..times {
            life.spool.append(big(run, seq, &shape), life.now);
            seq += 10;
        }
        life.now += Duration::from_secs(20);
        life.turn();
    };
    while life.board.read(|status| status.spool.dropped) == 0 {
        poll(&mut life, 500);
    }
    let first = life.spool.span(Cursor::START).expect("memory can").expect("something");
    let second = life.spool.span(first.next).expect("memory can").expect("more");
    let third = life.spool.span(second.next).expect("memory can").expect("more");
    // The oldest are refused for a while, those behind them are confirmed, and these go out of their turn.
    let confirmed = third.items.iter().filter_map(|item| match item {
        Item::Batch(batch) => Some(Confirmed::from(&**batch)),
        Item::Event(_) => None,
    });
    life.spool.confirm(&confirmed.collect::<Vec<_>>());
    let again = life.spool.span(Cursor::START).expect("memory can").expect("something");
    life.spool.span(again.next).expect("memory can").expect("more");
    poll(&mut life, 300);
    disk.execute_batch("ROLLBACK").expect("well again");
    life.now += Duration::from_secs(60);
    // As far as the books of the first windows, and no further.
    for _ in 0..40 {
        let cut = tempfile::tempdir().expect("a directory");
        life.now += Duration::from_millis(1);
        life.spool.turn(life.now);
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("{}{suffix}", store::FILE);
            std::fs::copy(directory.path().join(&name), cut.path().join(&name)).expect("copied");
        }
        let mut after = Life::begin(settings(cut.path()), &schema::CURRENT);
        after.settle();
        after.waiting();
        after.settle();
        let events = after.waiting().1;
        assert_eq!(folders(cut.path()), 0, "{events:?}");
        assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
    }
}

fn folders(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("quarantine")).map_or(0, Iterator::count)
}
