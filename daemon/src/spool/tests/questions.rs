//! Questions to the stored blocks: history, and the command line without a daemon.

use super::*;

#[tokio::test]
async fn history_comes_in_pages_without_hole_or_repeat() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for i in 0..120 {
        let batch = plant.batch();
        spool.append(batch.clone());
        if i % 7 == 0 {
            flush(&spool).await;
            spool.confirm(&[Confirmed::from(&*batch)]);
        }
    }
    flush(&spool).await;
    let mut query = HistoryQuery {
        device: "meter".into(),
        point: "point_1".into(),
        from_us: stamp(20).wall_us,
        to_us: stamp(220).wall_us,
        after: None,
        limit: 9,
    };
    let mut found = Vec::new();
    loop {
        let page = spool.history(query.clone()).await.expect("readable");
        found.extend(page.values.iter().map(|value| (value.seq, value.sample.value.clone())));
        let Some(next) = page.next else { break };
        query.after = Some(next.to_string().parse().expect("a cursor"));
    }
    let expected: Vec<_> =
        (10..110).map(|i| (2 * i + 1, Some(Value::Text((2 * i).to_string().into())))).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn without_the_daemon_the_command_line_reads_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    let running = Offline::open(directory.path()).expect_err("the daemon runs");
    assert!(matches!(running, SpoolError::Locked { .. }), "{running}");
    let killed = copy(&spool, directory.path());
    let mut offline = Offline::open(killed.path()).expect("opens");
    assert_eq!(offline.status(None).waiting, 20);
    assert_eq!(offline.export(&ExportQuery::default()).expect("readable").batches, batches);
    let some = ExportQuery {
        from_us: Some(stamp(4).wall_us),
        to_us: Some(stamp(8).wall_us),
        ..ExportQuery::default()
    };
    assert_eq!(offline.export(&some).expect("readable").batches, batches[2..4]);
}

#[tokio::test]
async fn a_glance_gives_one_block_at_a_time_and_only_what_was_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..40).map(|_| plant.batch()).collect();
    for pair in batches.chunks(2) {
        for batch in pair {
            spool.append(batch.clone());
        }
        flush(&spool).await;
    }
    let (from_us, to_us) = (Some(batches[20].stamp.wall_us), Some(batches[30].stamp.wall_us));
    let asked = ExportQuery { from_us, to_us, glance: true, ..ExportQuery::default() };
    let (mut query, mut pages) = (asked.clone(), Vec::new());
    loop {
        let page = spool.export(query).await.expect("readable");
        pages.push(page.batches);
        let Some(after) = page.next else { break };
        query = ExportQuery { after: Some(after), ..asked.clone() };
    }
    // A window may have closed by itself within a pair, and a slow machine's turn may end without finding anything.
    assert!(pages.iter().all(|page| page.len() <= 2), "{pages:?}");
    assert_eq!(pages.concat(), batches[20..30]);
}
