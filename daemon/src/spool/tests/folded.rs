//! Old runs of which nothing is left: their rows go, their sums stay, their blocks are history and nothing else.

use super::*;
use crate::spool::ledger::{FOLDED_MAX, Ledger, Losses, RunBooks};
use crate::spool::stepped::Stepped;

fn rows(directory: &Path) -> i64 {
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    file.query_row("SELECT count(*) FROM run", [], |row| row.get(0)).expect("readable")
}

async fn stored(spool: &Spool) -> Vec<Arc<Batch>> {
    let (mut found, mut query) = (Vec::new(), ExportQuery::default());
    loop {
        let page = spool.export(query.clone()).await.expect("readable");
        found.extend(page.batches);
        let Some(next) = page.next else { return found };
        query.after = Some(next);
    }
}

/// So many lives, each with a dead letter and everything else confirmed, the records of the life before too.
pub(super) async fn lives(directory: &Path, many: u64) -> Vec<Arc<Batch>> {
    let mut all = Vec::new();
    for _ in 0..many {
        let (Opened { spool, run, .. }, _) = open(settings(directory));
        let mut plant = Plant::new(run);
        let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
        for batch in &batches {
            spool.append(batch.clone());
        }
        flush(&spool).await;
        spool.dead_letter(vec![Confirmed::from(&*batches[3])], "no".into()).await.expect("stored");
        for (at, batch) in batches.iter().enumerate() {
            if at != 3 {
                spool.confirm(&[Confirmed::from(&**batch)]);
            }
        }
        let events = waiting(&spool).await.1;
        spool.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
        all.extend(batches);
        spool.close(true).await.expect("closes");
    }
    all
}

#[tokio::test]
async fn runs_of_which_nothing_is_left_are_folded_and_the_books_stay_exact() {
    let directory = tempfile::tempdir().expect("a directory");
    let all = lives(directory.path(), 20).await;
    assert!(rows(directory.path()) <= 4, "{} rows for 20 lives", rows(directory.path()));
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let Sums { waiting, confirmed, losses } = sums(&spool);
    assert_eq!((waiting, confirmed, losses.dead_lettered, losses.total()), (0, 160, 40, 40));
    assert_eq!(self::waiting(&spool).await.0, [], "no phantom");
    let waiting = ExportQuery { waiting: true, ..ExportQuery::default() };
    assert_eq!(spool.export(waiting).await.expect("readable").batches, []);
    assert_eq!(stored(&spool).await, all, "history is there");
    // A late acknowledgement and a damaged block of a folded run change nothing.
    let before = sums(&spool);
    spool.confirm(&[Confirmed::from(&*all[0])]);
    spool.shared.lock().lose(all[0].run, 0, 10, GapCause::Damaged);
    assert_eq!(sums(&spool), before);
    assert!(spool.shared.lock().gaps.is_empty());
    let killed = copy(&spool, directory.path());
    assert_eq!(Offline::open(killed.path()).expect("opens").status(None).confirmed, 160);
}

#[tokio::test]
async fn a_run_whose_end_was_not_sent_or_whose_readings_wait_is_not_folded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run: waits, .. }, _) = open(settings(directory.path()));
    let batch = Plant::new(waits).batch();
    spool.append(batch.clone());
    flush(&spool).await;
    spool.close(true).await.expect("closes");
    let (Opened { spool, run: unsaid, .. }, _) = open(settings(directory.path()));
    let events = waiting(&spool).await.1;
    spool.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    spool.close(true).await.expect("closes");
    lives_without_records(directory.path(), 3).await;
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let known: Vec<_> = spool.shared.lock().ledger.runs.keys().copied().collect();
    assert!(known.contains(&waits) && known.contains(&unsaid), "{known:?}");
    assert_eq!(waiting(&spool).await.0, [batch]);
}

/// Everything that waits, confirmed.
fn confirm_all(spool: &mut Stepped) -> (u64, Vec<Arc<Event>>) {
    let (mut readings, mut events, mut cursor) = (0, Vec::new(), Cursor::START);
    while let Some(span) = spool.span(cursor).expect("readable") {
        cursor = span.next;
        for item in span.items {
            match item {
                Item::Batch(batch) => {
                    readings += batch.n();
                    spool.confirm(&[Confirmed::from(&*batch)]);
                }
                Item::Event(event) => {
                    spool.confirm(&[Confirmed::from(&*event)]);
                    events.push(event);
                }
            }
        }
    }
    (readings, events)
}

#[test]
fn a_run_that_was_folded_since_the_copy_is_not_lost_with_a_log_that_somebody_wrote_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut now = Instant::now();
    let open =
        |now| Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let mut spool = open(now);
    let mut plant = Plant::new(spool.run);
    (0..5).for_each(|_| spool.append(plant.batch(), now));
    spool.turn(now);
    drop(spool);
    // The copy of this life says that they wait. Then they are sent, and nothing is left of the run.
    let mut spool = open(now);
    assert_eq!(confirm_all(&mut spool).0, 10);
    let mut plant = Plant::new(spool.run);
    for _ in 0..2 {
        now += Duration::from_secs(61);
        spool.append(plant.batch(), now);
        spool.turn(now);
    }
    drop(spool);
    assert_eq!(rows(directory.path()), 1, "folded");
    assert!(
        !directory.path().join(format!("{}-wal", store::FILE)).exists(),
        "looking has written the log back"
    );
    let mut spool = open(now);
    spool.turn(now);
    while spool.busy() {
        now += Duration::from_secs(1);
        spool.turn(now);
    }
    let (readings, events) = confirm_all(&mut spool);
    assert_eq!(readings, 4, "of the life that folded it");
    assert!(!directory.path().join("quarantine").exists(), "the file is sound");
    let gap = |event: &Arc<Event>| matches!(event.body, Body::Gap { .. } | Body::Gaps { .. });
    assert!(!events.iter().any(gap), "{events:?}");
    let doubt = |event: &Arc<Event>| matches!(&event.body, Body::Corruption { found, .. } if found.contains("may be lost"));
    assert_eq!(events.iter().filter(|event| doubt(event)).count(), 1, "{events:?}");
}

async fn lives_without_records(directory: &Path, many: u64) {
    for _ in 0..many {
        let (Opened { spool, .. }, _) = open(settings(directory));
        spool.close(true).await.expect("closes");
    }
}

#[test]
fn a_run_that_nobody_knew_is_not_taken_for_a_folded_one() {
    let run = |counter: u32| RunId { counter, random: counter ^ 0x5a5a };
    let mut ledger = Ledger::default();
    for counter in [2, 4, 3, 8] {
        let losses = Losses { evicted: 1, ..Losses::default() };
        let mut books = RunBooks { durable: 4, losses, ..RunBooks::default() };
        books.lost.insert(0, 1, GapCause::Evicted);
        books.settled.insert(0, 4);
        ledger.runs.insert(run(counter), books);
        let before = ledger.sums();
        ledger.fold(run(counter));
        assert_eq!(ledger.sums(), before);
    }
    assert_eq!(ledger.folded, [(run(2), run(4)), (run(8), run(8))]);
    for counter in [2, 3, 4, 8] {
        assert!(ledger.settled(run(counter), 0, 1_000));
    }
    // A file that was set aside may still hold these.
    for counter in [1, 5, 6, 7, 9] {
        assert!(!ledger.settled(run(counter), 0, 1));
    }
    for counter in 0..100 {
        ledger.runs.insert(run(10 + 2 * counter), RunBooks::default());
        ledger.fold(run(10 + 2 * counter));
    }
    assert_eq!(ledger.folded.len(), FOLDED_MAX);
}
