//! Questions while blocks are written: no value is missed or given twice over a ring that moves, and the log stays bounded.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;

use super::taken_back::Life;
use super::*;
use crate::spool::schema;

/// The log's bound.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

fn capped(directory: &Path, bytes_max: u64) -> SpoolSettings {
    SpoolSettings { bytes_max: Some(bytes_max), ..settings(directory) }
}

fn history(after: Option<&str>, limit: usize) -> HistoryQuery {
    HistoryQuery {
        device: "scale".into(),
        point: "point_3".into(),
        from_us: i64::MIN,
        to_us: i64::MAX,
        after: after.map(|text| text.parse().expect("a cursor")),
        limit,
    }
}

/// What is stored now: the `seq` of each value of the point.
async fn stored(spool: &Spool) -> BTreeSet<u64> {
    let (mut found, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = spool.history(history(cursor.as_deref(), 10_000)).await.expect("readable");
        found.extend(page.values.iter().map(|value| value.seq));
        let Some(next) = page.next else { return found };
        cursor = Some(next.to_string());
    }
}

#[tokio::test]
async fn pages_over_a_ring_that_moves_give_every_value_that_stays_once_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(capped(directory.path(), BYTES_MAX_LEAST));
    let shape = big_shape();
    let mut seq = 0;
    let append = async |seq: &mut u64, count: u64| {
        let mut batches = Vec::new();
        for _ in 0..count {
            let batch = big(run, *seq, &shape);
            *seq = batch.end();
            batches.push(Confirmed::from(&*batch));
            spool.append(batch);
        }
        flush(&spool).await;
        spool.confirm(&batches);
        flush(&spool).await;
    };
    // In small windows: one as big as the cap takes the place of nearly all that was there.
    for _ in 0..30 {
        append(&mut seq, 20).await;
    }
    for (limit, step, moves) in [(1, 1, 120), (7, 5, 25), (40, 30, 5)] {
        let before = stored(&spool).await;
        let (mut values, mut cursor, mut exported, mut query) =
            (Vec::new(), None, Vec::new(), Some(ExportQuery::default()));
        let mut pages = 0;
        // The ring moves by a part of itself while it is paged through: what is overtaken goes, the rest must come.
        loop {
            let page = spool.history(history(cursor.as_deref(), limit)).await.expect("readable");
            values.extend(page.values.iter().map(|value| value.seq));
            if let Some(asked) = query.take() {
                let page = spool.export(asked.clone()).await.expect("readable");
                exported.extend(page.batches.iter().map(|batch| batch.seq));
                query = page.next.map(|next| ExportQuery { after: Some(next), ..asked });
            }
            let Some(next) = page.next else { break };
            cursor = Some(next.to_string());
            pages += 1;
            if pages <= moves {
                append(&mut seq, step).await;
            }
        }
        let after = stored(&spool).await;
        assert!(!before.is_subset(&after), "the ring moved");
        for (what, given) in [("history", &values), ("export", &exported)] {
            assert!(given.is_sorted_by(|one, next| one < next), "{what}: in order, and none twice");
        }
        let given: BTreeSet<u64> = values.into_iter().collect();
        let missed: Vec<_> = before.intersection(&after).filter(|seq| !given.contains(seq)).collect();
        assert_eq!(missed, Vec::<&u64>::new(), "pages of {limit}");
    }
}

/// A reader is cut after this.
const CUT: Duration = Duration::from_millis(100);

/// Reads on and on through a connection of its own, and keeps each transaction open over some commits, or until it is cut.
fn slow_reader(file: &Path, commits: &AtomicU64, stop: &AtomicBool) {
    let connection = Connection::open(file).expect("opens");
    while !stop.load(Ordering::Acquire) {
        connection.execute_batch("BEGIN").expect("begun");
        let _: i64 =
            connection.query_row("SELECT count(*) FROM block", [], |row| row.get(0)).expect("readable");
        let (until, cut) = (commits.load(Ordering::Acquire) + 4, Instant::now() + CUT);
        while commits.load(Ordering::Acquire) < until && Instant::now() < cut {
            std::thread::yield_now();
        }
        connection.execute_batch("COMMIT").expect("ended");
    }
}

#[tokio::test]
async fn no_storm_of_questions_keeps_the_log_from_its_bound() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(capped(directory.path(), 16 * BYTES_MAX_LEAST));
    let file = directory.path().join(store::FILE);
    let log = directory.path().join(format!("{}-wal", store::FILE));
    let (commits, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // Two that overlap: there is hardly a moment without a reader.
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let (file, commits, stop) = (file.clone(), commits.clone(), stop.clone());
            std::thread::spawn(move || slow_reader(&file, &commits, &stop))
        })
        .collect();
    let storm: Vec<_> = (0..4)
        .map(|at| {
            let (spool, stop) = (spool.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    if at % 2 == 0 {
                        drop(spool.history(history(None, 10_000)).await);
                    } else {
                        drop(spool.export(ExportQuery::default()).await);
                    }
                }
            })
        })
        .collect();
    let shape = big_shape();
    let (mut longest, mut written) = (0, 0);
    for i in 0..400_u64 {
        for j in 0..30 {
            let batch = big(run, (i * 30 + j) * 10, &shape);
            spool.append(batch.clone());
            spool.confirm(&[Confirmed::from(&*batch)]);
            written += 2500;
        }
        flush(&spool).await;
        commits.fetch_add(1, Ordering::AcqRel);
        longest = longest.max(std::fs::metadata(&log).expect("there").len());
    }
    stop.store(true, Ordering::Release);
    for reader in slow {
        reader.join().expect("it read");
    }
    for asker in storm {
        asker.await.expect("it asked");
    }
    assert!(written > 3 * LOG_BYTES_MAX, "more was written than the log may hold");
    assert!(longest <= LOG_BYTES_MAX, "the log grew to {longest} bytes while {written} were written");
}

/// Who reads while a rescue writes, and how often the writer had to wait for him.
struct Slow {
    reader: Connection,
    waits: u32,
}

impl Slow {
    /// Goes on, in what is the newest state now.
    fn read_on(&self) {
        self.end();
        self.reader.execute_batch("BEGIN").expect("begun");
        let _: i64 =
            self.reader.query_row("SELECT count(*) FROM block", [], |row| row.get(0)).expect("readable");
    }

    fn end(&self) {
        if !self.reader.is_autocommit() {
            self.reader.execute_batch("COMMIT").expect("ended");
        }
    }
}

#[test]
fn a_rescue_beside_readers_that_never_pause_keeps_the_log_within_its_bound() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = capped(directory.path(), 64 * BYTES_MAX_LEAST);
    let mut life = Life::begin(settings.clone(), &schema::CURRENT);
    let (run, shape, many) = (life.spool.run, big_shape(), 10_000);
    for i in 0..many {
        life.spool.append(big(run, i * 10, &shape), life.now);
        if i % 200 == 199 {
            life.turn();
        }
    }
    life.close();
    let file = directory.path().join(store::FILE);
    let length = lose_first_page(&file);
    assert!(length > 3 * LOG_BYTES_MAX, "more comes back than the log may hold");

    let mut life = Life::begin(settings, &schema::CURRENT);
    let slow = Arc::new(Mutex::new(Slow { reader: Connection::open(&file).expect("opens"), waits: 0 }));
    let cut = slow.clone();
    life.spool.when_busy(move |_| {
        // As a reader is cut after 100 ms: it ends, and the writer looks again.
        let mut slow = cut.lock().expect("no panic under it");
        slow.waits += 1;
        slow.end();
        slow.waits < 1000
    });
    let log = directory.path().join(format!("{}-wal", store::FILE));
    let mut longest = 0;
    while life.spool.busy() {
        slow.lock().expect("no panic under it").read_on();
        // The time stands still: no window is due and no book, so that nobody but the rescue looks after the log.
        life.spool.turn(life.now);
        longest = longest.max(std::fs::metadata(&log).expect("there").len());
    }
    let waits = slow.lock().expect("no panic under it").waits;
    assert!(longest <= LOG_BYTES_MAX, "the log grew to {longest} bytes");
    assert!(waits > 0, "it never grew long");
    assert_eq!(numbers(&life.waiting().0).len() as u64, many * 10);
}
