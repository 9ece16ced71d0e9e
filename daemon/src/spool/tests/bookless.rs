//! Runs of which nothing is left of their books, neither the row nor the line of the copy: the floor of their file tells what was settled,
//! and nothing that waited is taken for settled, however the search goes on.

use super::cut_rescue::copy_whole;
use super::taken_back::Life;
use super::*;
use crate::spool::ledger::RunBooks;
use crate::spool::{aside, records, schema};

const RUN: RunId = RunId { counter: 1, random: 10 };

/// Searched in many small pieces.
fn small(directory: &Path) -> SpoolSettings {
    SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory) }
}

fn hundred() -> Vec<Arc<Batch>> {
    let shape = big_shape();
    (0..100).map(|i| big(RUN, i * 10, &shape)).collect()
}

/// A file with these batches in this order; below the floor are so many of its blocks.
fn file(directory: &Path, pieces: &[&[Arc<Batch>]], floor: u64, books: Option<RunBooks>) {
    let path = directory.join(store::FILE);
    let id = "0123456789abcdef0123456789abcdef";
    let (mut store, found) = store::Store::open(&path, BYTES_MAX_LEAST, id).expect("opens");
    for batches in pieces.iter().flat_map(|batches| batches.chunks(1)) {
        store.commit(&store::Work { batches, ..store::Work::default() }).expect("stored");
    }
    let mark = records::Mark { floor, ..found.mark };
    let row = |books| store::RunUpdate { run: RUN, ended: 0, last_wall_us: None, books };
    let runs: Vec<_> = books.map(row).into_iter().collect();
    store.commit(&store::Work { mark: Some(&mark), runs: &runs, ..store::Work::default() }).expect("stored");
}

/// As a rescue stores it: the newest first. They were confirmed, what came behind them was not.
fn newest_first(directory: &Path, all: &[Arc<Batch>]) {
    file(directory, &[&all[80..], &all[..50]], 21, None);
}

fn set_aside(directory: &Path, of: RunId) {
    aside::set_aside(&directory.join(store::FILE), aside::QUARANTINE, of).expect("set aside");
}

fn quarantines(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("quarantine")).expect("there").count()
}

/// What waits in the end, and that nothing is called damaged.
fn in_the_end(mut life: Life) -> Vec<Arc<Batch>> {
    life.settle();
    let (batches, events) = life.waiting();
    assert_eq!(gaps(&events, RUN, GapCause::Damaged), BTreeSet::new());
    batches
}

#[test]
fn what_waits_behind_what_was_confirmed_waits_also_if_the_search_is_cut_off_anywhere() {
    let (directory, all) = (tempfile::tempdir().expect("a directory"), hundred());
    newest_first(directory.path(), &all);
    set_aside(directory.path(), RUN);
    let mut life = Life::begin(small(directory.path()), &schema::CURRENT);
    for turn in 0.. {
        if turn % 10 == 0 || !life.waiting().0.is_empty() {
            let cut = copy_whole(directory.path());
            let second = Life::begin(small(cut.path()), &schema::CURRENT);
            assert_eq!(numbers(&in_the_end(second)), (0..500).collect(), "cut off after {turn} turns");
        }
        // Books are written with each turn.
        life.now += Duration::from_secs(11);
        life.turn();
        if !life.spool.busy() {
            break;
        }
    }
    assert_eq!(numbers(&in_the_end(life)), (0..500).collect());
}

#[test]
fn what_one_file_knows_to_wait_is_not_settled_by_another_that_has_forgotten_the_run() {
    let (directory, all) = (tempfile::tempdir().expect("a directory"), hundred());
    let mut books = RunBooks { durable: 1000, ..RunBooks::default() };
    books.settled.insert(500, 800);
    file(directory.path(), &[&all[..50], &all[80..]], 0, Some(books));
    set_aside(directory.path(), RUN);
    // The next file was being filled from it: it has got the newest, and they were confirmed.
    file(directory.path(), &[&all[80..]], 21, None);
    set_aside(directory.path(), RunId { counter: 2, random: 10 });
    let life = Life::begin(small(directory.path()), &schema::CURRENT);
    assert_eq!(numbers(&in_the_end(life)), (0..500).collect());
}

#[test]
fn what_was_confirmed_while_the_search_goes_on_stays_confirmed() {
    let (directory, all) = (tempfile::tempdir().expect("a directory"), hundred());
    newest_first(directory.path(), &all);
    set_aside(directory.path(), RUN);
    // A search that was cut off has taken some of it back.
    file(directory.path(), &[&all[..30]], 0, None);
    let mut life = Life::begin(small(directory.path()), &schema::CURRENT);
    let (mut confirmed, mut killed) = (BTreeSet::new(), false);
    for turn in 0..240 {
        life.now += Duration::from_secs(11);
        life.turn();
        let (batches, events) = life.waiting();
        assert_eq!(gaps(&events, RUN, GapCause::Damaged), BTreeSet::new());
        life.spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
        if turn > 3 {
            let again: Vec<_> = confirmed.intersection(&numbers(&batches)).copied().collect();
            assert_eq!(again, [0_u64; 0], "after {turn} turns");
        }
        confirmed.extend(numbers(&batches));
        if !killed && confirmed.len() > 350 {
            // Also after a kill in the middle of it.
            killed = true;
            life.now += Duration::from_secs(11);
            life.turn();
            drop(life);
            life = Life::begin(small(directory.path()), &schema::CURRENT);
        }
    }
    assert_eq!((confirmed, killed), ((0..500).collect(), true));
    assert_eq!(in_the_end(life), []);
    assert_eq!(quarantines(directory.path()), 1, "no sound file is set aside");
}
