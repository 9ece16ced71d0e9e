//! Old runs of which nothing is left: their rows go, their sums stay, their blocks are history and nothing else.

use super::taken_back::{Life, NEXT};
use super::*;
use crate::spool::ledger::{FOLDED_MAX, Ledger, Losses, RunBooks};
use crate::spool::schema::{self, Schema};
use crate::spool::stepped::Stepped;
use crate::spool::{aside, directory};

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

#[test]
fn of_runs_with_one_counter_only_those_that_were_folded_are_taken_for_folded() {
    let mut state = 7_u64;
    let mut dice = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for _ in 0..500 {
        let mut ledger = Ledger::default();
        for counter in 1..=5 {
            for random in [1, 5, 9] {
                ledger.runs.insert(RunId { counter, random }, RunBooks::default());
            }
        }
        let mut folded = Vec::new();
        for _ in 0..dice(16) {
            let run = *ledger.runs.keys().nth(dice(ledger.runs.len())).expect("one of them");
            ledger.fold(run);
            folded.push(run);
        }
        let told = ledger.folded.clone();
        for run in folded {
            assert!(ledger.is_folded(run), "{run} in {told:?}");
        }
        // What they tell when nobody knows the others any more, as before a file that was set aside is read.
        for run in std::mem::take(&mut ledger.runs).into_keys() {
            assert!(!ledger.is_folded(run), "{run} in {told:?}");
        }
    }
}

fn life(directory: &Path, known: &'static Schema, random: u32) -> Life {
    let (now, board) = (Instant::now(), Board::default());
    let named = Stepped::open_named(settings(directory), (board.clone(), known), || stamp(0), (now, random));
    Life { spool: named.expect("opens"), now, board }
}

/// Some minutes, in which eight readings come, all is confirmed, and it is time to fold.
fn drain(life: &mut Life) {
    let mut plant = Plant::new(life.spool.run);
    for _ in 0..4 {
        life.store(&plant.batch());
        confirm_all(&mut life.spool);
        life.now += Duration::from_secs(61);
        life.settle();
    }
}

/// A newer program's spool whose last life, of so many, was that of 20 batches; its file, set aside.
fn newer_file(lives: u32, random: u32) -> (tempfile::TempDir, Vec<Arc<Batch>>) {
    let (directory, mut all) = (tempfile::tempdir().expect("a directory"), Vec::new());
    for counter in 1..=lives {
        let mut newer = life(directory.path(), &NEXT, random);
        let mut plant = Plant::new(newer.spool.run);
        if counter == lives {
            all = (0..20).map(|_| plant.batch()).collect();
            for batch in &all {
                newer.store(batch);
            }
        }
        newer.close();
    }
    let name = RunId { counter: 1, random };
    aside::set_aside(&directory.path().join(store::FILE), aside::NEWER, name).expect("set aside");
    (directory, all)
}

#[test]
fn a_newer_file_is_taken_back_although_a_run_with_its_counter_was_folded_meanwhile() {
    // The counter is that of the first that was folded, and of one between the first and the last.
    for (lives, random) in [(1, 5), (1, 20), (2, 5), (2, 20)] {
        let (from, all) = newer_file(lives, random);
        let directory = tempfile::tempdir().expect("a directory");
        for counter in 1..=4 {
            let mut older = life(directory.path(), &schema::CURRENT, 10);
            assert_eq!(older.spool.run.counter, counter);
            drain(&mut older);
            older.close();
        }
        std::fs::rename(from.path().join(aside::NEWER), directory.path().join(aside::NEWER)).expect("moved");
        let mut again = life(directory.path(), &NEXT, 30);
        assert!((1..=3).all(|counter| again.spool.has_folded(RunId { counter, random: 10 })));
        again.settle();
        let (batches, events) = again.waiting();
        assert_eq!(numbers(&batches), numbers(&all), "{lives} {random}: {events:?}");
        assert!(batches == all);
        let folders = std::fs::read_dir(directory.path().join(aside::NEWER)).expect("there").count();
        assert_eq!(folders, 0, "all of it is here");
        let lost = |event: &&Arc<Event>| {
            matches!(event.body, Body::Gap { .. } | Body::Gaps { .. } | Body::Corruption { .. })
        };
        assert_eq!(events.iter().find(lost), None);
        drain(&mut again);
        assert!(again.spool.has_folded(all[0].run));
        let sums = again.board.read(|status| (status.spool.waiting, status.spool.confirmed));
        assert_eq!(sums, (0, 5 * 8 + 40), "{lives} {random}");
        again.close();
        let mut last = life(directory.path(), &NEXT, 31);
        last.settle();
        assert_eq!(last.waiting().0, [], "{lives} {random}");
        assert_eq!(last.board.read(|status| status.spool.confirmed), 5 * 8 + 40);
    }
}

#[test]
fn a_life_takes_no_counter_that_only_the_file_or_its_copy_knows() {
    for told_by in ["the file of a newer program", "the copy of a damaged file"] {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(store::FILE);
        for _ in 0..3 {
            let mut newer = life(directory.path(), &NEXT, 20);
            newer.store(&Plant::new(newer.spool.run).batch());
            newer.close();
        }
        // The full disk had not taken them.
        std::fs::remove_file(directory.path().join("run")).expect("there");
        assert_eq!(directory::read_sidecar(directory.path()), None);
        if told_by == "the copy of a damaged file" {
            lose_first_page(&file);
        } else {
            std::fs::remove_file(file.with_file_name("spool.db-copy")).expect("there");
        }
        let mut older = life(directory.path(), &schema::CURRENT, 10);
        older.turn();
        assert_eq!(older.spool.run, RunId { counter: 4, random: 10 }, "{told_by}");
    }
}
