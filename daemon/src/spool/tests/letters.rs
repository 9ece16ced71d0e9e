//! Dead letters: what the broker refuses for good.

use tokio::sync::watch;

use super::taken_back::Life;
use super::*;
use crate::spool::{Asked, open as opening, schema};

#[tokio::test]
async fn a_dead_letter_leaves_the_backlog_as_a_recorded_gap() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, board) = open(settings(directory.path()));
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
        crate::spool::block::decode(&letter.2, &store::dictionary(&file).expect("readable")).expect("whole");
    assert_eq!(
        (letter.0.as_str(), letter.1, &content[..]),
        ("payload format invalid", 4, &[Batch::clone(&batches[2])][..])
    );
    // Both are kept in mind by the next start, and seen without one.
    let kept = (1, Some("payload format invalid".to_owned()));
    let said = |status: crate::status::SpoolStatus| (status.dead_letters, status.dead_letter_reason);
    spool.ping().await.expect("turns");
    assert_eq!(said(board.snapshot().spool), kept);
    let after_kill = copy(&spool, directory.path());
    assert_eq!(said(Offline::open(after_kill.path()).expect("opens").status(None)), kept);
    let (Opened { spool: second, .. }, board) = open(settings(after_kill.path()));
    flush(&second).await;
    assert_eq!(said(board.snapshot().spool), kept);
}

#[tokio::test]
async fn a_refused_record_is_counted_as_long_as_it_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, board) = open(settings(directory.path()));
    let body = Body::Gap { of: run, first: 0, next: 2, cause: GapCause::Evicted };
    spool.record(body, stamp(0));
    let batch = Plant::new(run).batch();
    spool.append(batch.clone());
    flush(&spool).await;
    let (_, events) = waiting(&spool).await;
    let gap = events.iter().find(|event| matches!(event.body, Body::Gap { .. })).expect("waits");
    let refused = vec![Confirmed::from(&**gap), Confirmed::from(&*batch)];
    spool.dead_letter(refused, "not authorized".into()).await.expect("moved");
    flush(&spool).await;
    let said = |status: crate::status::SpoolStatus| (status.dead_letters, status.records_refused);
    spool.ping().await.expect("turns");
    assert_eq!(said(board.snapshot().spool), (2, 1));
    let after_kill = copy(&spool, directory.path());
    assert_eq!(said(Offline::open(after_kill.path()).expect("opens").status(None)), (2, 1));
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
async fn a_dead_letter_is_answered_when_it_is_stored_and_not_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let batch = Plant::new(run).batch();
    spool.append(batch.clone());
    flush(&spool).await;
    let trouble = block_commits(directory.path());
    let letter = spool.dead_letter(vec![Confirmed::from(&*batch)], "no".into());
    let mut letter = std::pin::pin!(letter);
    let early = tokio::time::timeout(Duration::from_millis(700), &mut letter).await;
    assert!(early.is_err(), "the disk does not take it: {early:?}");
    drop(trouble);
    letter.await.expect("stored");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let dead: i64 = file.query_row("SELECT count(*) FROM dead", [], |row| row.get(0)).expect("readable");
    assert_eq!(dead, 1);
}

#[test]
fn the_batches_of_one_refusal_are_found_however_many_blocks_of_others_lie_between() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut store, _) =
        store::Store::open(&directory.path().join(store::FILE), 1 << 30, "x").expect("opens");
    let run = RunId { counter: 1, random: 1 };
    let first = Plant::new(run).batch();
    // Ten numbers apart, so that each is a block of its own.
    let batches: Vec<_> = (0..6_000).map(|n| Arc::new(Batch { seq: n * 10, ..(*first).clone() })).collect();
    store.commit(&store::Work { batches: &batches, apart: true, ..store::Work::default() }).expect("stored");
    let named = [0, 2_990, 5_999].map(|n| (run, batches[n].seq));
    // One that is not there does not keep the others from being found.
    let wanted = named.into_iter().chain([(run, 5)]).collect();
    let found = opening::find_batches(&store, 0, wanted).expect("readable");
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), named);
    assert!(found.iter().all(|((_, seq), batch)| *batch.readings == *first.readings && batch.seq == *seq));
}

/// A spool of which every other batch was refused for good, and the others were confirmed.
async fn every_other_refused(
    directory: &Path,
    many: usize,
) -> (Spool, RunId, Vec<Arc<Batch>>, BTreeSet<u64>) {
    let (Opened { spool, run, .. }, _) = open(settings(directory));
    let mut plant = Plant::new(run);
    let (mut delivered, mut refused) = (Vec::new(), BTreeSet::new());
    for _ in 0..many / 100 {
        let batches: Vec<_> = (0..100).map(|_| plant.batch()).collect();
        for batch in &batches {
            spool.append(batch.clone());
        }
        flush(&spool).await;
        let (odd, even): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| batch.seq % 4 == 2);
        spool.confirm(&odd.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
        let names = even.iter().map(|batch| Confirmed::from(&**batch)).collect();
        spool.dead_letter(names, "not authorized".into()).await.expect("moved");
        refused.extend(even.iter().flat_map(|batch| batch.seq..batch.end()));
        delivered.extend(odd);
    }
    // The gap records too: as in a plant that runs for a while.
    let events = waiting(&spool).await.1;
    spool.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    flush(&spool).await;
    (spool, run, delivered, refused)
}

#[tokio::test]
async fn what_was_delivered_is_sent_again_on_request_however_many_others_were_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, run, delivered, refused) = every_other_refused(directory.path(), 3000).await;
    let all = (numbers(&delivered).len() + refused.len()) as u64;
    let before = sums(&spool);
    assert_eq!((before.confirmed, before.losses.total()), (3000, 3000));
    let asked = Asked::Stretch { run, first: 0, next: all };
    let resent = spool.resend(asked, watch::Sender::new(0.0)).await.expect("searched");
    let batches = waiting(&spool).await.0;
    let again = numbers(&batches);
    let passed_over: Vec<_> = numbers(&delivered).difference(&again).copied().collect();
    assert_eq!(passed_over, [0_u64; 0], "delivered, and still stored: {resent:?}");
    // Where the places are known, what was refused does not come back.
    assert_eq!(refused.difference(&again).count() as u64, resent.lost);
    assert!(resent.lost >= 1000 && resent.left == 0, "{resent:?}");
    let balance = |spool: &Spool| {
        let sums = sums(spool);
        assert_eq!(sums.waiting + sums.confirmed + sums.losses.total(), all, "{sums:?}");
        sums
    };
    let now = balance(&spool);
    assert_eq!(now.waiting, resent.readings);
    let killed = copy(&spool, directory.path());
    let (Opened { spool: second, .. }, _) = open(settings(killed.path()));
    assert_eq!((balance(&second), waiting(&second).await.0), (now, batches), "so it is after a kill");
}

#[tokio::test]
async fn a_rescue_calls_nothing_lost_that_was_delivered_and_says_why_the_others_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, run, delivered, refused) = every_other_refused(directory.path(), 3000).await;
    let before = sums(&spool);
    spool.close(true).await.expect("closes");
    // Gap records that were sent long ago are not there any more.
    let file = directory.path().join(store::FILE);
    let connection = rusqlite::Connection::open(&file).expect("opens");
    connection
        .execute_batch("PRAGMA secure_delete = ON; DELETE FROM event; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("done");
    drop(connection);
    lose_first_page(&file);
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    life.settle();
    let (_, events) = life.waiting();
    let delivered = numbers(&delivered);
    let mut told = Vec::new();
    for event in &events {
        let (first, next, lost, why) = match event.body {
            Body::Gap { of, first, next, cause } if of == run => (first, next, next - first, cause),
            Body::Gaps { of, first, next, lost, cause } if of == run => (first, next, lost, cause),
            _ => continue,
        };
        assert_eq!(refused.range(first..next).count() as u64, lost, "{first} to {next}");
        assert!(lost < next - first || delivered.range(first..next).next().is_none(), "it was delivered");
        assert_eq!(why, GapCause::DeadLetter);
        told.push((first, std::cmp::Reverse(next), lost));
    }
    // As a receiver does: what lies within a greater stretch is told by it.
    told.sort_unstable();
    told.dedup_by(|one, before| one.1.0 <= before.1.0);
    assert_eq!(told.iter().map(|(_, _, lost)| lost).sum::<u64>(), refused.len() as u64, "each is told");
    let status = life.board.read(|status| status.spool.clone());
    assert_eq!((status.dead_lettered, status.damaged, status.confirmed), (3000, 0, 3000));
    assert_eq!((before.losses.total(), before.confirmed), (3000, 3000));
}
