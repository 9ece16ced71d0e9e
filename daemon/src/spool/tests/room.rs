//! The cap: what goes first, and how what goes is counted and recorded.

use super::taken_back::Life;
use super::*;
use crate::spool::{ring, schema};

#[tokio::test]
async fn at_the_cap_the_oldest_go_counted_and_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped.clone());
    let shape = big_shape();
    let all = 1500;
    for i in 0..all {
        spool.append(big(run, i * 10, &shape));
        if i % 20 == 0 {
            flush(&spool).await;
        }
    }
    flush(&spool).await;
    let Sums { waiting, confirmed, losses } = sums(&spool);
    assert_eq!(confirmed, 0);
    assert_eq!(waiting + losses.evicted, all * 10);
    assert_eq!(losses.total(), losses.evicted);
    assert!((2000..4000).contains(&waiting), "{waiting} readings of 250 bytes in 1 MiB");
    let (batches, events) = self::waiting(&spool).await;
    let (kept, lost) = (numbers(&batches), gaps(&events, run, GapCause::Evicted));
    assert!(kept.is_disjoint(&lost));
    assert_eq!(kept.len() as u64, waiting);
    assert_eq!(kept.union(&lost).count() as u64, all * 10, "every number is there or in a gap record");
    assert_eq!(events.len(), 1, "touching gaps are one record");
    let length = std::fs::metadata(directory.path().join(store::FILE)).expect("there").len();
    assert!(length <= BYTES_MAX_LEAST, "{length} bytes");

    let after_kill = copy(&spool, directory.path());
    let (Opened { spool: second, .. }, _) =
        open(SpoolSettings { directory: after_kill.path().into(), ..capped });
    assert_eq!(numbers(&self::waiting(&second).await.0), kept);
    assert_eq!(sums(&second), Sums { waiting, confirmed, losses });
}

#[tokio::test]
async fn confirmed_blocks_make_room_before_anything_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped);
    let shape = big_shape();
    for i in 0..1500 {
        let batch = big(run, i * 10, &shape);
        spool.append(batch.clone());
        flush(&spool).await;
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    flush(&spool).await;
    assert_eq!(
        sums(&spool),
        Sums { waiting: 0, confirmed: 15_000, losses: crate::spool::ledger::Losses::default() }
    );
    let page = spool.export(ExportQuery::default()).await.expect("readable");
    assert!(page.batches.len() > 100, "confirmed blocks stay as history: {}", page.batches.len());
}

#[test]
fn a_long_block_takes_the_places_of_however_many_short_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, BYTES_MAX_LEAST, "x").expect("opens");
    let run = RunId { counter: 1, random: 1 };
    let all_settled = store::Work { apart: true, floor: u64::MAX, ..store::Work::default() };
    let first = Plant::new(run).batch();
    for chunk in 0..15 {
        // Ten numbers apart, so that each is a block of its own.
        let short: Vec<_> = (0..1_000)
            .map(|n| Arc::new(Batch { seq: (chunk * 1_000 + n) * 10, ..(*first).clone() }))
            .collect();
        store.commit(&store::Work { batches: &short, ..all_settled }).expect("stored");
    }
    let blocks = |store: &store::Store| {
        ring::headings(store.connection(), store.ring().expect("some").oldest, usize::MAX)
    };
    let short = blocks(&store).expect("readable").len();
    assert!((3_000..14_000).contains(&short), "{short} in a full ring");
    let shape = big_shape();
    for i in 0..60 {
        let long: Vec<_> = (0..20).map(|n| big(run, 1_000_000 + (i * 20 + n) * 10, &shape)).collect();
        let written = store.commit(&store::Work { batches: &long, ..all_settled }).expect("stored");
        assert_eq!(written.blocks.len(), 1);
        let (used, _) = store.pages().expect("readable");
        assert!(used * schema::PAGE_SIZE <= BYTES_MAX_LEAST, "{used} pages");
    }
    assert!(blocks(&store).expect("readable").len() < 25);
}

#[test]
fn a_block_that_takes_the_only_place_is_the_oldest_and_the_newest() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 128 * 1024, "x").expect("opens");
    let (run, shape) = (RunId { counter: 1, random: 1 }, big_shape());
    for i in 0..4 {
        let long: Vec<_> = (0..20).map(|n| big(run, (i * 20 + n) * 10, &shape)).collect();
        let work = store::Work { batches: &long, floor: u64::MAX, ..store::Work::default() };
        store.commit(&work).expect("stored");
        let there = ring::extent(store.connection()).expect("readable");
        assert_eq!(store.ring(), there);
        assert_eq!(there.map(|ring| ring.newest.number - ring.oldest.number), Some(0));
    }
}

#[test]
fn a_smaller_cap_holds_for_dead_letters_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 1 << 30, "x").expect("opens");
    let (run, shape) = (RunId { counter: 1, random: 1 }, big_shape());
    let dead = |n: u64| store::DeadLetter {
        at_us: 0,
        reason: "no".into(),
        name: (run, n * 10, 10),
        batch: Some(big(run, n * 10, &shape)),
    };
    let dead: Vec<_> = (0..100).map(dead).collect();
    store.commit(&store::Work { dead: &dead, ..store::Work::default() }).expect("stored");
    store.set_bytes_max(BYTES_MAX_LEAST).expect("taken");
    let mark = store.mark().expect("readable");
    store.commit(&store::Work { mark: Some(&mark), ..store::Work::default() }).expect("stored");
    let count = "SELECT count(*), max(seq) FROM dead";
    let there = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (many, newest) = store.connection().query_row(count, [], there).expect("readable");
    assert!((10..30).contains(&many) && newest == 990, "{many} of 2.5 KiB in 64 KiB");
}

#[tokio::test]
async fn a_smaller_cap_is_reached_step_by_step_while_readings_are_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let roomy = SpoolSettings { bytes_max: Some(8 << 20), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(roomy.clone());
    let shape = big_shape();
    let batches: Vec<_> = (0..1_500).map(|n| big(run, n * 10, &shape)).collect();
    for some in batches.chunks(10) {
        for batch in some {
            spool.append(batch.clone());
        }
        flush(&spool).await;
    }
    // The last 500 wait: more than the smaller cap holds.
    let delivered = batches[..1_000].iter().map(|batch| Confirmed::from(&**batch));
    spool.confirm(&delivered.collect::<Vec<_>>());
    spool.close(true).await.expect("closes");
    let (Opened { spool, run: second, .. }, _) =
        open(SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..roomy });
    for n in 0..20 {
        spool.append(big(second, n * 10, &shape));
        flush(&spool).await;
    }
    let (waits, events) = waiting(&spool).await;
    let (old, new): (Vec<_>, Vec<_>) = waits.into_iter().partition(|batch| batch.run == run);
    assert_eq!(numbers(&new), (0..200).collect());
    let lost = gaps(&events, run, GapCause::Evicted);
    assert!(
        lost.is_disjoint(&numbers(&old)) && lost.len() + numbers(&old).len() == 5_000,
        "each is there or told"
    );
    let bytes = spool.export(ExportQuery::default()).await.expect("readable").batches.len() * 2_500;
    assert!(bytes as u64 <= BYTES_MAX_LEAST, "{bytes}");
}

#[test]
fn what_memory_held_while_the_disk_failed_fits_into_the_least_spool() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(
        SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) },
        &schema::CURRENT,
    );
    let (run, shape) = (life.spool.run, big_shape());
    // Ten of 1 000 bytes and more.
    let long = |n: u64| {
        let text = |point: u16| format!("{point:4} {n:4} ").repeat(100);
        let reading = |point| Reading { point, sample: Sample::good(Value::Text(text(point).into())) };
        Arc::new(Batch { readings: (0..10).map(reading).collect(), ..(*big(run, n * 10, &shape)).clone() })
    };
    life.store(&long(0));
    let trouble = block_commits(directory.path());
    let all = 300;
    for n in 1..all {
        life.spool.append(long(n), life.now);
    }
    life.turn();
    assert_eq!(life.board.read(|status| status.spool.open), (all - 1) * 10, "3 MB wait in memory");
    drop(trouble);
    life.settle();
    let (batches, events) = life.waiting();
    let (kept, lost) = (numbers(&batches), gaps(&events, run, GapCause::Evicted));
    assert!(kept.is_disjoint(&lost) && (kept.len() + lost.len()) as u64 == all * 10, "each is there or told");
    assert!(
        kept.len() > 600 && kept.last() == Some(&(all * 10 - 1)),
        "{} of 1 000 bytes in 1 MiB",
        kept.len()
    );
}

#[tokio::test]
async fn what_a_device_does_all_day_does_not_crowd_out_readings() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, 1 << 30, "x").expect("opens");
    let run = RunId { counter: 1, random: 1 };
    let event = |number: u64| {
        let body = if number == 0 {
            Body::Gap { of: run, first: 0, next: 9, cause: GapCause::Evicted }
        } else {
            Body::Device { device: "meter".into(), answering: number.is_multiple_of(2) }
        };
        Arc::new(Event { run, number, stamp: stamp(0), body })
    };
    let mut told = 0;
    for from in (0..30_000).step_by(1_000) {
        let events: Vec<_> = (from..from + 1_000).map(event).collect();
        let written =
            store.commit(&store::Work { events: &events, ..store::Work::default() }).expect("stored");
        told += written.event_ids.len() as u64 - written.dropped;
    }
    let found = store::found(store.connection()).expect("readable");
    assert_eq!(found.events_waiting, told, "counted");
    assert!(found.events_waiting <= 10_001, "{} wait", found.events_waiting);
    let gap: i64 = store
        .connection()
        .query_row("SELECT count(*) FROM event WHERE body LIKE '%evicted%'", [], |row| row.get(0))
        .expect("readable");
    assert_eq!(gap, 1, "what proves something stays");
}

#[tokio::test]
async fn in_a_small_spool_neither_records_nor_dead_letters_crowd_out_readings() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let (mut store, _) = store::Store::open(&file, BYTES_MAX_LEAST, "x").expect("opens");
    let run = RunId { counter: 1, random: 1 };
    for from in (0..12_000).step_by(1_000) {
        let body = |number: u64| Body::Device { device: "meter".into(), answering: number.is_multiple_of(2) };
        let event = |number: u64| Arc::new(Event { run, number, stamp: stamp(0), body: body(number) });
        let events: Vec<_> = (from..from + 1_000).map(event).collect();
        store.commit(&store::Work { events: &events, ..store::Work::default() }).expect("stored");
    }
    let shape = big_shape();
    let letter = |n: u64| store::DeadLetter {
        at_us: 0,
        reason: "not authorized".into(),
        name: (run, n * 10, 10),
        batch: Some(big(run, n * 10, &shape)),
    };
    for n in 0..500 {
        let dead = [letter(n)];
        store.commit(&store::Work { dead: &dead, ..store::Work::default() }).expect("stored");
        // A commit that landed although it seemed to fail is done once more.
        store.commit(&store::Work { dead: &dead, ..store::Work::default() }).expect("stored");
    }
    let (used, _) = store.pages().expect("readable");
    let cap = BYTES_MAX_LEAST / crate::spool::schema::PAGE_SIZE;
    assert!(used < cap / 4, "{used} of {cap} pages hold no reading");
    let count =
        |sql: &str| store.connection().query_row(sql, [], |row| row.get::<_, i64>(0)).expect("readable");
    let (letters, newest) = (count("SELECT count(*) FROM dead"), count("SELECT max(seq) FROM dead"));
    assert!((10..60).contains(&letters) && newest == 4990, "{letters} letters, the newest {newest}");
    assert_eq!(count("SELECT count(DISTINCT seq) FROM dead"), letters, "each once");
}
