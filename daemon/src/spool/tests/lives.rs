//! Lives of the daemon: kill, stop, start, and what each leaves on disk.

use super::taken_back::Life;
use super::*;
use crate::spool::schema;
use crate::spool::stepped::Stepped;

#[tokio::test]
async fn stored_readings_survive_the_end_of_the_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, volatile }, _) = open(settings(directory.path()));
    assert!(!volatile);
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..50).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    assert_eq!(spool.committed().borrow().next_seq, 100);
    assert_eq!(waiting(&spool).await.0, batches);

    let after_kill = copy(&spool, directory.path());
    let (Opened { spool: second, run: next, .. }, board) = open(settings(after_kill.path()));
    assert!(next > run, "{next} after {run}");
    let (found, events) = waiting(&second).await;
    assert_eq!(found, batches);
    let end = Body::RunEnd { ended: run, next_seq: 100, clean: false, last_wall_us: Some(stamp(98).wall_us) };
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].run, events[0].number, &events[0].body), (next, 0, &end));
    flush(&second).await;
    let shown = board.snapshot().spool;
    assert_eq!((shown.waiting, shown.records_waiting), (100, 1), "the readings and the run end");
    second.close(true).await.expect("closes");
    spool.close(true).await.expect("closes");
}

#[tokio::test]
async fn three_unclean_restarts_in_one_outage_lose_nothing_and_prove_it() {
    let mut directory = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
        let mut plant = Plant::new(run);
        for _ in 0..20 {
            let batch = plant.batch();
            expected.push(batch.clone());
            spool.append(batch);
            flush(&spool).await;
        }
        ends.push((run, plant.seq));
        let next = copy(&spool, directory.path());
        directory = next;
    }
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (batches, events) = waiting(&spool).await;
    assert_eq!(batches, expected);
    let found = events.iter().map(|event| match event.body {
        Body::RunEnd { ended, next_seq, clean: false, .. } => (ended, next_seq),
        ref other => panic!("{other:?}"),
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found, ends);
}

#[tokio::test]
async fn a_run_that_stops_in_order_says_so_and_its_confirmations_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    let confirmed: Vec<_> = [1, 2, 5].iter().map(|at| Confirmed::from(&*batches[*at])).collect();
    spool.confirm(&confirmed);
    spool.close(true).await.expect("closes");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (found, events) = waiting(&spool).await;
    let left: Vec<_> = (0..10).filter(|at| ![1, 2, 5].contains(at)).map(|at| batches[at].clone()).collect();
    assert_eq!(found, left);
    let [end] = &*events else { panic!("{events:?}") };
    let said = Body::RunEnd { ended: run, next_seq: 20, clean: true, last_wall_us: Some(stamp(18).wall_us) };
    assert_eq!((end.run, &end.body), (run, &said));
    spool.confirm(&[Confirmed::from(&**end)]);
    assert_eq!(waiting(&spool).await.1, []);
    spool.close(true).await.expect("closes");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (_, events) = waiting(&spool).await;
    assert_eq!(events.len(), 1, "only the run end of the second run: {events:?}");
}

#[tokio::test]
async fn a_second_instance_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_first, _) = open(settings(directory.path()));
    let second = Spool::open(settings(directory.path()), Board::default(), || stamp(0));
    let error = second.expect_err("refused");
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    assert_eq!(error.exit_code(), 75);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn what_is_confirmed_in_time_is_not_written_with_keep_unsent() {
    let directory = tempfile::tempdir().expect("a directory");
    let unsent = SpoolSettings {
        keep: Keep::Unsent,
        commit_every: Duration::from_millis(200),
        ..SpoolSettings::new(directory.path())
    };
    let (Opened { spool, run, .. }, _) = open(unsent);
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for (at, batch) in batches.iter().enumerate() {
        spool.append(batch.clone());
        if at != 4 {
            spool.confirm(&[Confirmed::from(&**batch)]);
        }
    }
    flush(&spool).await;
    let page = spool.export(ExportQuery::default()).await.expect("readable");
    assert_eq!(page.batches, batches[4..5]);
    assert_eq!(sums(&spool).confirmed, 18);
    assert_eq!(spool.committed().borrow().next_seq, 20);
}

#[tokio::test]
async fn after_kill_keep_unsent_does_not_wait_for_what_was_confirmed_and_never_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let unsent = |path: &Path| SpoolSettings {
        keep: Keep::Unsent,
        commit_every: Duration::from_millis(100),
        ..SpoolSettings::new(path)
    };
    let (Opened { spool, run, .. }, _) = open(unsent(directory.path()));
    let mut plant = Plant::new(run);
    // The first commit writes the books; the next ones need not.
    spool.append(plant.batch());
    flush(&spool).await;
    for _ in 0..10 {
        let batch = plant.batch();
        spool.append(batch.clone());
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    flush(&spool).await;
    spool.append(plant.batch());
    flush(&spool).await;
    let after = copy(&spool, directory.path());
    let (Opened { spool, .. }, _) = open(unsent(after.path()));
    let (batches, _) = waiting(&spool).await;
    assert_eq!(batches.len(), 2);
    assert_eq!(sums(&spool).waiting, 4, "what waits is what can be sent");
}

#[tokio::test]
async fn a_confirmed_clock_record_is_still_known_after_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let set = ClockCorrection { boot: BootId(3), offset_us: 86_400_000_000, at_mono_us: 5_000_000 };
    spool.record(
        Body::Clock { boot: set.boot, offset_us: set.offset_us, at_mono_us: set.at_mono_us },
        stamp(5),
    );
    assert_eq!(spool.clocks(), [set]);
    flush(&spool).await;
    // It is sent, and buried under more records than stay.
    for number in 0..3 {
        for _ in 0..500 {
            let body = Body::Config { hash: number.to_string(), refused: None };
            spool.record(body, stamp(6));
        }
        flush(&spool).await;
        let events = waiting(&spool).await.1;
        spool.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    }
    spool.close(true).await.expect("closes");
    for _ in 0..2 {
        let (Opened { spool, .. }, _) = open(settings(directory.path()));
        assert_eq!(spool.clocks(), [set]);
        spool.close(true).await.expect("closes");
    }
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let rows: i64 = file.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).expect("readable");
    assert!(rows < 1_010, "{rows} records stay");
}

#[test]
fn a_gateway_that_never_lives_ten_seconds_still_gets_rid_of_what_it_delivered() {
    let directory = tempfile::tempdir().expect("a directory");
    let begin = Instant::now();
    let life = |start: Instant| {
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), start).expect("opens")
    };
    let mut first = life(begin);
    let batch = Plant::new(first.run).batch();
    first.append(batch.clone(), begin);
    first.turn(begin);
    assert_eq!(first.committed().next_seq, batch.end());
    first.confirm(&[Confirmed::Batch { run: batch.run, seq: batch.seq, n: batch.n() }]);
    first.turn(begin + Duration::from_secs(2));
    drop(first);
    let mut second = life(begin + Duration::from_secs(3));
    let again = second.span(Cursor::START).expect("readable").map_or(Vec::new(), |span| span.items);
    assert!(
        again.iter().all(|item| matches!(item, Item::Event(_))),
        "delivered in the life before: {again:?}"
    );
}

/// Found by a power cut: schedule 1191 of `tests/crash`.
#[test]
fn a_confirmation_that_comes_before_its_commit_is_on_the_disk_10_s_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings =
        SpoolSettings { commit_every: Duration::from_secs(1), ..SpoolSettings::new(directory.path()) };
    let begun = Instant::now();
    let at = |second: u64| begun + Duration::from_secs(second);
    let open = |second| {
        let opened = Stepped::open(settings.clone(), Board::default(), || stamp(0), at(second));
        opened.expect("opens")
    };
    let mut spool = open(0);
    let batch = Plant::new(spool.run).batch();
    // The books are due, and go without the readings, whose window is still open.
    spool.append(batch.clone(), at(11));
    spool.confirm(&[Confirmed::from(&*batch)]);
    for second in 11..26 {
        spool.turn(at(second));
    }
    assert_eq!(spool.committed().next_seq, 2);
    drop(spool);
    let mut spool = open(30);
    let span = spool.span(Cursor::START).expect("readable").expect("the run end waits");
    assert!(matches!(&*span.items, [Item::Event(_)]), "no reading comes a second time: {:?}", span.items);
}

/// A card that lies: after the cut the file is as it was one life ago, sound and older than its copy.
#[test]
fn a_life_that_the_disk_has_forgotten_is_told_as_far_as_the_copy_knows_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    Life::begin(settings(path), &schema::CURRENT).close();
    let file = path.join(store::FILE);
    let before = std::fs::read(&file).expect("there");
    let mut life = Life::begin(settings(path), &schema::CURRENT);
    let run = life.spool.run;
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for batch in &batches {
        life.store(batch);
    }
    life.spool.confirm(&[Confirmed::from(&*batches[0])]);
    life.close();
    drop(std::fs::remove_file(path.join("spool.db-wal")));
    std::fs::write(&file, before).expect("written");
    let mut life = Life::begin(settings(path), &schema::CURRENT);
    // The audit misses readings, and the file is set aside and searched for them.
    life.settle();
    let (found, events) = life.waiting();
    assert_eq!(found, []);
    assert_eq!(gaps(&events, run, GapCause::Damaged), (2..20).collect());
    // As it was said, and may have been sent, before the card forgot it.
    let last_wall_us = Some(stamp(18).wall_us);
    let end = Body::RunEnd { ended: run, next_seq: 20, clean: true, last_wall_us };
    assert!(events.iter().any(|event| event.body == end), "{events:?}");
    let forgotten = "runs that the disk had called written and has lost: 1".to_owned();
    let forgotten = Body::Corruption { found: forgotten, saved: 0, lost: 0 };
    assert!(events.iter().any(|event| event.body == forgotten), "{events:?}");
    assert_eq!(life.board.snapshot().spool.damaged, 18);
}

#[test]
fn what_the_copy_says_of_runs_waits_for_the_file_that_says_it_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let first = life.spool.run;
    life.store(&Plant::new(first).batch());
    life.close();
    // A life that is killed; its log goes, and the file cannot be opened: a folder is in the place of the log's index.
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let second = life.spool.run;
    life.store(&Plant::new(second).batch());
    // The copy of each hour.
    life.now += Duration::from_secs(3600);
    life.turn();
    let cut = copy_of(directory.path());
    std::fs::remove_file(cut.path().join("spool.db-wal")).expect("there");
    let bar = cut.path().join("spool.db-shm");
    std::fs::create_dir(&bar).expect("made");
    let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
    assert_ne!(life.board.read(|status| status.spool.state.clone()), "ok");
    std::fs::remove_dir(&bar).expect("removed");
    life.now += Duration::from_secs(2);
    life.settle();
    let (_, events) = life.waiting();
    let clean = |event: &Arc<Event>| match event.body {
        Body::RunEnd { ended, clean, .. } if ended == first => Some(clean),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(clean).collect::<Vec<_>>(), [true], "{events:?}");
    let end = Body::RunEnd { ended: second, next_seq: 2, clean: false, last_wall_us: None };
    assert!(events.iter().any(|event| event.body == end), "{events:?}");
    assert_eq!(gaps(&events, second, GapCause::Damaged), (0..2).collect());
}
