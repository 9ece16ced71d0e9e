//! Trouble with the disk that needs no fault injection: commits that fail, a file that is removed under us.

use super::taken_back::Life;
use super::*;
use crate::spool::schema;
use crate::spool::stepped::Stepped;
use crate::spool::writer::{COPY_AGAIN, RESERVE_AGAIN};

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
    failing(&board).await;
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
async fn run_ends_and_gaps_that_went_with_a_removed_file_are_said_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run: first, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(first);
    let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    spool.dead_letter(vec![Confirmed::from(&*batches[1])], "no".into()).await.expect("stored");
    spool.close(true).await.expect("closes");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    flush(&spool).await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(directory.path().join(format!("{}{suffix}", store::FILE))).expect("removed");
    }
    let until = Instant::now() + SOON;
    while !directory.path().join(store::FILE).exists() {
        assert!(Instant::now() < until, "the file is made anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
    let (_, events) = waiting(&spool).await;
    assert_eq!(gaps(&events, first, GapCause::DeadLetter), (2..4).collect(), "as it was");
    assert_eq!(gaps(&events, first, GapCause::Damaged), [0, 1, 4, 5, 6, 7, 8, 9].into());
    let end = |event: &Arc<Event>| matches!(event.body, Body::RunEnd { ended, next_seq: 10, clean: true, .. } if ended == first);
    assert_eq!(events.iter().filter(|event| end(event)).count(), 1);
    let lost = |event: &Arc<Event>| matches!(event.body, Body::Corruption { saved: 0, lost: 8, .. });
    assert_eq!(events.iter().filter(|event| lost(event)).count(), 1, "{events:?}");
    assert_eq!(sums(&spool).losses.total(), 10);
}

#[test]
fn a_start_takes_the_reserve_that_a_full_disk_has_cost_as_soon_as_the_file_is_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let reserve = directory.path().join("reserve");
    let length = || reserve.metadata().map_or(0, |found| found.len());
    Life::begin(settings(directory.path()), &schema::CURRENT).close();
    assert_eq!(length(), 1 << 20);
    // An attempt that found no room for all of it and was cut off.
    std::fs::write(&reserve, "x").expect("written");
    Life::begin(settings(directory.path()), &schema::CURRENT).close();
    assert_eq!(length(), 1 << 20);
    std::fs::remove_file(&reserve).expect("there");
    // A disk that gives no file: what room there is may be needed for that.
    let bar = directory.path().join("spool.db-shm");
    drop(std::fs::remove_file(&bar));
    std::fs::create_dir(&bar).expect("made");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    assert_eq!((life.board.read(|status| status.spool.state == "ok"), length()), (false, 0));
    std::fs::remove_dir(&bar).expect("removed");
    life.now += Duration::from_secs(2);
    life.settle();
    assert_eq!(length(), 1 << 20);
}

#[test]
fn a_reserve_for_which_there_was_no_room_is_taken_when_there_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let reserve = directory.path().join("reserve");
    std::fs::create_dir(&reserve).expect("in the way");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    life.settle();
    std::fs::remove_dir(&reserve).expect("there");
    life.now += RESERVE_AGAIN;
    life.turn();
    assert_eq!(reserve.metadata().expect("taken").len(), 1 << 20);
}

/// Somebody removes all that lies in the state directory of a daemon that runs: nothing is left to be set aside and searched.
fn wipe(life: &mut Life, directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("readable") {
        std::fs::remove_file(entry.expect("readable").path()).expect("removed");
    }
    let batch = Plant { seq: 1000, ..Plant::new(life.spool.run) }.batch();
    life.spool.append(batch.clone(), life.now);
    life.turn();
    life.now += Duration::from_secs(2);
    life.settle();
    assert!(!directory.join("quarantine").exists());
    assert_eq!(life.waiting().0, [batch], "it goes on");
}

#[test]
fn what_goes_with_all_files_is_told_exactly_and_run_ends_as_they_were() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut ended = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(ended.spool.run);
    let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
    for batch in &batches {
        ended.store(batch);
    }
    let now = ended.now;
    ended.spool.dead_letter(vec![Confirmed::from(&*batches[1])], "no", now).expect("stored");
    ended.close();
    let mut killed = Life::begin(settings(directory.path()), &schema::CURRENT);
    let unproved = killed.spool.run;
    killed.store(&Plant::new(unproved).batch());
    drop(killed);
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    life.store(&Plant::new(run).batch());
    wipe(&mut life, directory.path());
    let (_, events) = life.waiting();
    let of = |run, next_seq, clean, last| Body::RunEnd {
        ended: run,
        next_seq,
        clean,
        last_wall_us: Some(stamp(last).wall_us),
    };
    let end = |event: &&Arc<Event>| matches!(event.body, Body::RunEnd { .. });
    let ends: Vec<_> = events.iter().filter(end).map(|event| event.body.clone()).collect();
    assert_eq!(ends, [of(plant.run, 10, true, 8), of(unproved, 2, false, 0)]);
    let lost = |run| gaps(&events, run, GapCause::Damaged);
    assert_eq!((lost(plant.run), lost(unproved)), ([0, 1, 4, 5, 6, 7, 8, 9].into(), (0..2).collect()));
    assert_eq!(gaps(&events, plant.run, GapCause::DeadLetter), (2..4).collect(), "as it was");
    assert_eq!(lost(run), (0..2).collect());
    let found = "the file was removed or replaced while it was in use".to_owned();
    let said: Vec<_> = events.iter().filter(|event| matches!(event.body, Body::Corruption { .. })).collect();
    assert_eq!(said.len(), 1, "{events:?}");
    assert_eq!(said[0].body, Body::Corruption { found, saved: 0, lost: 12 });
    assert_eq!(life.board.read(|status| (status.spool.damaged, status.spool.dead_lettered)), (12, 2));
}

#[test]
fn where_nothing_waited_nothing_is_told_when_all_files_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut ended = Life::begin(settings(directory.path()), &schema::CURRENT);
    ended.store(&Plant::new(ended.spool.run).batch());
    ended.close();
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let (batches, events) = life.waiting();
    assert_eq!((batches.len(), events.len()), (1, 1));
    life.spool.confirm(&[Confirmed::from(&*batches[0]), Confirmed::from(&*events[0])]);
    life.now += Duration::from_secs(11);
    life.settle();
    wipe(&mut life, directory.path());
    assert_eq!(life.waiting().1, [], "the end was said, and nothing was lost");
}

#[test]
fn a_copy_that_could_not_be_written_is_written_as_soon_as_it_can_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = Instant::now();
    let trouble = directory.path().join("spool.db-copy.new");
    std::fs::create_dir(&trouble).expect("in the way");
    let board = Board::default();
    let mut spool = Stepped::open(settings(directory.path()), board, || stamp(0), now).expect("opens");
    let written = || directory.path().join("spool.db-copy").exists();
    spool.turn(now);
    assert!(!written());
    std::fs::remove_dir(&trouble).expect("removed");
    spool.turn(now + COPY_AGAIN);
    assert!(written());
}

#[test]
fn what_a_full_disk_did_not_take_of_a_copy_is_not_left_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = Instant::now();
    let new = directory.path().join("spool.db-copy.new");
    // It can be made, and takes not a byte.
    std::os::unix::fs::symlink("/dev/full", &new).expect("made");
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let written = || directory.path().join("spool.db-copy").exists();
    spool.turn(now);
    assert!(!written());
    assert!(new.symlink_metadata().is_err(), "it is left");
    spool.turn(now + COPY_AGAIN);
    assert!(written());
}

#[tokio::test]
async fn a_commit_overwrites_the_log_instead_of_making_it_longer() {
    let directory = tempfile::tempdir().expect("a directory");
    let length = || std::fs::metadata(directory.path().join("spool.db-wal")).expect("a log").len();
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    spool.append(plant.batch());
    flush(&spool).await;
    let first = length();
    for _ in 0..50 {
        spool.append(plant.batch());
        flush(&spool).await;
    }
    assert_eq!(length(), first);
    assert!(first >= 128 * 1024, "{first}");
}

#[tokio::test]
async fn a_run_end_whose_commit_fails_is_said_once_and_the_next_start_knows_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run: first, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(first).batch());
    flush(&spool).await;
    let trouble = block_commits(directory.path());
    spool.end_run().await;
    drop(trouble);
    spool.close(true).await.expect("closes");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    flush(&spool).await;
    let ends: Vec<bool> = (waiting(&spool).await.1.iter())
        .filter_map(|event| match event.body {
            Body::RunEnd { ended, clean, .. } if ended == first => Some(clean),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [true]);
}

#[test]
fn a_loss_that_only_memory_knows_of_is_not_called_settled() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let unsent = SpoolSettings { keep: Keep::Unsent, ..settings(directory.path()) };
    let mut spool = Stepped::open(unsent, Board::default(), || stamp(0), now).expect("opens");
    let (run, shape) = (spool.run, big_shape());
    let trouble = block_commits(directory.path());
    // More than memory holds, while the disk fails: the oldest go.
    let batches: Vec<_> = (0..4000).map(|i| big(run, i * 10, &shape)).collect();
    for batch in &batches {
        spool.append(batch.clone(), now);
        if batch.seq % 10_000 == 0 {
            spool.turn(now);
        }
    }
    let lost = spool.books_of(run).expect("known").losses.dropped;
    assert!(lost > 0);
    // The server comes back before the disk, and takes the others from memory.
    let left = batches.iter().filter(|batch| batch.seq >= lost);
    spool.confirm(&left.map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    spool.turn(now);
    assert!(spool.span(Cursor::START).expect("readable").is_none(), "the disk is not needed to know it");
    assert_eq!(spool.settled_to(), 0, "a power cut now would leave no record of it");
    drop(trouble);
    spool.turn(now + Duration::from_secs(11));
    let span = spool.span(Cursor::START).expect("readable").expect("the record");
    assert!(span.items.iter().any(|item| matches!(item, Item::Event(event)
        if matches!(event.body, Body::Gap { first: 0, next, .. } if next == lost))));
    assert_eq!(spool.settled_to(), 40_000);
}
