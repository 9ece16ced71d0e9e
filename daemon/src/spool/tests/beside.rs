//! A rescue beside a file that is not whole itself, beside folders that the disk does not tell of yet, and over several folders.

use super::taken_back::Life;
use super::*;
use crate::spool::{aside, schema};

/// The file in this state directory, set aside into a folder of the other under this name; gives the folder.
fn put_beside(from: &Path, to: &Path, name: RunId) -> std::path::PathBuf {
    aside::set_aside(&from.join(store::FILE), aside::QUARANTINE, name).expect("set aside");
    let folder = to.join("quarantine").join(name.to_string());
    std::fs::create_dir_all(to.join("quarantine")).expect("made");
    std::fs::rename(from.join("quarantine").join(name.to_string()), &folder).expect("moved");
    folder
}

/// What was done to some blocks, which are elsewhere in the file all the same: no table leads to them, or their heads say nothing.
const FAULTS: [&str; 2] = [
    "DELETE FROM block WHERE number BETWEEN 8 AND 12",
    "UPDATE block SET head = zeroblob(length(head)) WHERE number BETWEEN 8 AND 12",
];

#[tokio::test]
async fn blocks_that_cannot_be_found_in_the_own_file_when_a_rescue_begins_are_searched_for_and_not_called_lost()
 {
    for (fault, with_folder) in FAULTS.into_iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        let (away, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        let (spool, _, _, other) = stored(away.path(), 20).await;
        let aside = copy(&spool, away.path());
        let (spool, _, _, own) = stored(directory.path(), 20).await;
        let cut = copy(&spool, directory.path());
        if with_folder {
            put_beside(aside.path(), cut.path(), RunId { counter: 1, random: 0 });
        }
        let file = rusqlite::Connection::open(cut.path().join(store::FILE)).expect("opens");
        file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
        file.execute_batch(
            "CREATE TABLE stash (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL) STRICT;
            INSERT INTO stash SELECT place, number, head, body FROM block WHERE number BETWEEN 8 AND 12;",
        )
        .expect("kept");
        assert_eq!(file.execute(fault, []).expect("done"), 5);
        drop(file);
        let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
        life.settle();
        life.now += Duration::from_secs(11);
        life.settle();
        let (batches, events) = life.waiting();
        let of = |all: &[Arc<Batch>]| batches.iter().filter(|batch| all.contains(batch)).count();
        assert_eq!((of(&own), of(&other)), (20, if with_folder { 20 } else { 0 }), "{events:?}");
        for run in [own[0].run, other[0].run] {
            assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
        }
    }
}

/// The disk does not tell what it is: a link to itself (ELOOP).
fn hide(place: &Path) {
    std::fs::rename(place, place.with_extension("away")).expect("away");
    std::os::unix::fs::symlink(place.file_name().expect("a name"), place).expect("a loop");
}

fn show(place: &Path) {
    std::fs::remove_file(place).expect("there");
    std::fs::rename(place.with_extension("away"), place).expect("back");
}

/// Files of one run in two folders, the newer with more settled in it, and the run.
fn two_of_a_run(directory: &Path) -> (std::path::PathBuf, RunId) {
    let away = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(away.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let all: Vec<_> = (0..20).map(|_| plant.batch()).collect();
    for batch in &all {
        life.store(batch);
    }
    let older = copy_of(away.path());
    let now = life.now;
    life.spool.dead_letter(vec![Confirmed::from(&*all[12])], "no", now).expect("stored");
    life.spool.confirm(&all[..10].iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    for _ in 0..3 {
        life.now += Duration::from_secs(11);
        life.turn();
    }
    let newer = copy_of(away.path());
    put_beside(older.path(), directory, RunId { counter: 1, random: 10 });
    (put_beside(newer.path(), directory, RunId { counter: 2, random: 10 }), plant.run)
}

#[test]
fn folders_older_than_one_that_the_disk_does_not_tell_of_wait_for_it_since_that_knows_more() {
    for what in ["nothing", "its file", "its file, after a look at it", "all folders"] {
        let directory = tempfile::tempdir().expect("a directory");
        let (folder, run) = two_of_a_run(directory.path());
        let place = match what {
            "all folders" => directory.path().join("newer"),
            _ => folder.join(store::FILE),
        };
        if what == "all folders" {
            let kind = directory.path().join("quarantine");
            std::fs::rename(&kind, &place).expect("moved");
            std::fs::create_dir(&kind).expect("made");
            std::fs::rename(place.join("00000001-0000000a"), kind.join("00000001-0000000a")).expect("back");
        }
        if what == "its file" || what == "all folders" {
            hide(&place);
        }
        let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
        if what == "its file, after a look at it" {
            hide(&place);
        }
        life.settle();
        if what != "nothing" {
            show(&place);
        }
        for _ in 0..20 {
            life.now += Duration::from_secs(31);
            life.settle();
        }
        let (batches, events) = life.waiting();
        assert_eq!(numbers(&batches), (20..24).chain(26..40).collect(), "{what}: {events:?}");
        assert_eq!(gaps(&events, run, GapCause::DeadLetter), (24..26).collect(), "{what}");
        assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new(), "{what}");
        let books = life.spool.books_of(run).expect("known");
        assert_eq!((books.waiting(), books.confirmed(), books.losses.total()), (18, 20, 2), "{what}");
    }
}

#[test]
fn folders_older_than_one_that_the_disk_never_tells_of_are_searched_in_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let (folder, run) = two_of_a_run(directory.path());
    let older = directory.path().join("quarantine/00000001-0000000a");
    hide(&folder.join(store::FILE));
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    life.settle();
    assert_eq!(life.waiting().0.len(), 0);
    let minutes = |life: &mut Life| {
        for _ in 0..14 {
            life.now += Duration::from_secs(31);
            life.settle();
        }
    };
    // Those that only waited are not given up with it.
    hide(&older.join(store::FILE));
    minutes(&mut life);
    assert!(!older.join("salvaged").exists());
    show(&older.join(store::FILE));
    minutes(&mut life);
    let (batches, events) = life.waiting();
    assert_eq!(numbers(&batches), (0..40).collect(), "{events:?}");
    assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
}

#[test]
fn a_folder_whose_log_cannot_be_opened_is_searched_again_when_it_can() {
    let (away, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let mut life = Life::begin(settings(away.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let all: Vec<_> = (0..20).map(|_| plant.batch()).collect();
    for batch in &all {
        life.store(batch);
    }
    let cut = copy_of(away.path());
    let folder = put_beside(cut.path(), directory.path(), RunId { counter: 1, random: 10 });
    let log = folder.join("spool.db-wal");
    hide(&log);
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    life.settle();
    assert!(life.waiting().0.len() < 20 && !folder.join("salvaged").exists());
    show(&log);
    life.now += Duration::from_secs(11);
    life.settle();
    let (batches, events) = life.waiting();
    assert_eq!(batches, all, "{events:?}");
    assert_eq!(gaps(&events, plant.run, GapCause::Damaged), BTreeSet::new());
}

/// Dead letters in the spool's file.
fn letters(directory: &Path) -> u64 {
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    let many: i64 = file.query_row("SELECT count(*) FROM dead", [], |row| row.get(0)).expect("a number");
    many.cast_unsigned()
}

/// A life with so many big batches that wait, and so many that were refused, ends, and its file lies in a folder of this name.
fn with_refused(directory: &Path, (waiting, refused): (usize, usize), counter: u32) {
    let (away, shape) = (tempfile::tempdir().expect("a directory"), big_shape());
    let mut life = Life::begin(settings(away.path()), &schema::CURRENT);
    let all: Vec<_> = (0..).map(|i| big(life.spool.run, i * 10, &shape)).take(waiting + refused).collect();
    for batch in &all {
        life.store(batch);
    }
    let names: Vec<_> = all[waiting..].iter().map(|batch| Confirmed::from(&**batch)).collect();
    if !names.is_empty() {
        let now = life.now;
        life.spool.dead_letter(names, "no", now).expect("stored");
    }
    life.close();
    put_beside(away.path(), directory, RunId { counter, random: 10 });
}

#[test]
fn the_refused_messages_of_one_folder_are_stored_before_the_next_is_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    with_refused(directory.path(), (20, 0), 1);
    with_refused(directory.path(), (20, 100), 2);
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    for _ in 0..1000 {
        life.turn();
        if life.waiting().0.len() > 20 {
            break;
        }
    }
    assert_eq!(letters(directory.path()), 100, "else they pile up in memory, folder by folder");
    life.settle();
    assert_eq!((life.waiting().0.len(), letters(directory.path())), (40, 100));
}

#[test]
fn refused_messages_for_which_there_is_no_room_hold_up_the_next_folder_until_there_is_and_not_longer() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut life = Life::begin(small.clone(), &schema::CURRENT);
    let (own, shape) = (life.spool.run, big_shape());
    (0..600).for_each(|i| life.store(&big(own, i * 10, &shape)));
    life.close();
    with_refused(directory.path(), (20, 0), 1);
    with_refused(directory.path(), (0, 20), 2);
    let mut life = Life::begin(small, &schema::CURRENT);
    let mut came = BTreeSet::new();
    for turn in 0..40 {
        let (batches, _) = life.waiting();
        came.extend(batches.iter().filter(|batch| batch.run != own).map(|batch| (batch.run, batch.seq)));
        if turn < 20 {
            assert_eq!((came.len(), letters(directory.path())), (0, 0), "the spool is full of what waits");
        } else {
            life.spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
        }
        life.now += Duration::from_secs(31);
        life.settle();
    }
    assert_eq!((came.len(), letters(directory.path())), (20, 20));
}
