//! Dead letters: what the broker refuses for good.

use super::*;

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
