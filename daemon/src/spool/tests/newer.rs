//! Files of newer programs that the disk does not give, or that are damaged in their folder: an older program never searches them, and one
//! that knows them gives back all there is.

use std::path::PathBuf;

use super::taken_back::{Life, NEXT};
use super::*;
use crate::spool::schema;

/// A newer program's spool of twenty batches that an older one has set aside, with its copy or without; those, and the folder.
fn set_aside(directory: &Path, with_copy: bool) -> (Vec<Arc<Batch>>, PathBuf) {
    let mut newer = Life::begin(settings(directory), &NEXT);
    let mut plant = Plant::new(newer.spool.run);
    let all: Vec<_> = (0..20).map(|_| plant.batch()).collect();
    for batch in &all {
        newer.store(batch);
    }
    newer.close();
    (all, begin_older(directory, with_copy))
}

/// An older program begins beside that file; gives the folder that it has put it into.
fn begin_older(directory: &Path, with_copy: bool) -> PathBuf {
    Life::begin(settings(directory), &schema::CURRENT).close();
    let mut aside = std::fs::read_dir(directory.join("newer")).expect("there").flatten();
    let folder = aside.next().expect("one").path();
    if !with_copy {
        std::fs::remove_file(folder.join("spool.db-copy")).expect("there");
    }
    folder
}

/// The disk does not give this file now: something else is in its place.
fn bar(file: &Path) {
    if file.exists() {
        std::fs::rename(file, file.with_extension("away")).expect("away");
    }
    std::fs::create_dir(file).expect("in its place");
}

/// It gives it again.
fn unbar(file: &Path) {
    std::fs::remove_dir(file).expect("there");
    if file.with_extension("away").exists() {
        std::fs::rename(file.with_extension("away"), file).expect("back");
    }
}

/// What may still come has come, or never will.
fn wait(life: &mut Life) {
    for _ in 0..20 {
        life.settle();
        life.now += Duration::from_secs(31);
    }
    life.settle();
}

fn corruptions(events: &[Arc<Event>]) -> Vec<(String, u64, u64)> {
    let said = |event: &Arc<Event>| match &event.body {
        Body::Corruption { found, saved, lost } => Some((found.clone(), *saved, *lost)),
        _ => None,
    };
    events.iter().filter_map(said).collect()
}

/// A newer program takes all of it back, in order, and says nothing of damage.
fn take_back(directory: &Path, all: &[Arc<Batch>], folder: &Path, how: &str) {
    let mut again = Life::begin(settings(directory), &NEXT);
    wait(&mut again);
    let (batches, events) = again.waiting();
    assert_eq!(batches.iter().filter(|batch| all.contains(batch)).count(), 20, "{how}: {events:?}");
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new(), "{how}");
    assert!(corruptions(&events).iter().all(|(_, saved, _)| *saved == 0), "{how}: {events:?}");
    assert!(!folder.exists(), "{how}: taken back");
}

#[test]
fn an_older_program_never_searches_the_file_of_a_newer_one_whatever_the_disk_does_not_give_and_for_however_long()
 {
    for name in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        for (with_copy, passes) in [(true, true), (true, false), (false, true), (false, false)] {
            let how = format!("{name}, with its copy: {with_copy}, passes: {passes}");
            let directory = tempfile::tempdir().expect("a directory");
            let (all, folder) = set_aside(directory.path(), with_copy);
            let file = folder.join(name);
            bar(&file);
            let mut older = Life::begin(settings(directory.path()), &schema::CURRENT);
            if passes {
                unbar(&file);
            }
            wait(&mut older);
            let (batches, events) = older.waiting();
            assert!(!folder.join("salvaged").exists(), "{how}: it was not searched, and must not go as if");
            assert_eq!((batches.len(), gaps(&events, all[0].run, GapCause::Damaged).len()), (0, 0), "{how}");
            // Whether it is ours to search nobody knows then; without a log the index is not needed.
            let named = !with_copy && !passes && name != "spool.db-shm";
            assert_eq!(corruptions(&events).len(), usize::from(named), "{how}: {events:?}");
            older.close();
            if !passes {
                unbar(&file);
            }
            take_back(directory.path(), &all, &folder, &how);
        }
    }
}

#[test]
fn a_version_that_stands_behind_a_damaged_frame_of_a_log_makes_a_newer_file_no_older_one() {
    for with_copy in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
        life.store(&Plant::new(life.spool.run).batch());
        life.close();
        let path = directory.path().join(store::FILE);
        let file = rusqlite::Connection::open(&path).expect("opens");
        file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
        crate::spool::copy::announce(&path, 2).expect("said");
        file.execute_batch(
            "PRAGMA user_version = 2; PRAGMA user_version = 2; CREATE TABLE extra (id INTEGER)",
        )
        .expect("migrated");
        drop(file);
        let folder = begin_older(directory.path(), with_copy);
        let log = folder.join("spool.db-wal");
        let mut bytes = std::fs::read(&log).expect("there");
        bytes[32 + 16] ^= 0x10;
        std::fs::write(&log, bytes).expect("written");
        let version = store::newer(&folder.join(store::FILE), &schema::CURRENT);
        assert!(matches!(version, Ok(None)), "SQLite sees none of it: {version:?}");
        let mut older = Life::begin(settings(directory.path()), &schema::CURRENT);
        wait(&mut older);
        assert!(!folder.join("salvaged").exists(), "with its copy: {with_copy}");
        let (batches, events) = older.waiting();
        assert_eq!((batches.len(), corruptions(&events).len()), (0, usize::from(!with_copy)), "{events:?}");
    }
}

#[test]
fn a_file_that_the_disk_does_not_give_now_is_taken_back_in_order_when_it_does() {
    for name in ["spool.db", "spool.db-wal", "unreadable-log"] {
        let directory = tempfile::tempdir().expect("a directory");
        let (all, folder) = set_aside(directory.path(), true);
        let file = folder.join(name);
        bar(&file);
        let mut again = Life::begin(settings(directory.path()), &NEXT);
        again.settle();
        unbar(&file);
        wait(&mut again);
        let (batches, events) = again.waiting();
        assert_eq!((batches, corruptions(&events)), (all, Vec::new()), "{name}");
        assert!(!folder.exists(), "{name}: taken back");
    }
}

#[test]
fn of_a_file_that_can_never_be_read_in_order_the_pages_are_searched_by_a_program_that_knows_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (all, folder) = set_aside(directory.path(), true);
    bar(&folder.join("spool.db-wal"));
    let mut again = Life::begin(settings(directory.path()), &NEXT);
    again.settle();
    assert_eq!(again.waiting().0.len(), 0, "it may still come");
    wait(&mut again);
    let (batches, events) = again.waiting();
    assert_eq!(batches.iter().filter(|batch| all.contains(batch)).count(), 20, "{events:?}");
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
    assert_eq!(corruptions(&events).len(), 1, "{events:?}");
    assert!(folder.join("salvaged").exists(), "searched, and kept");
}
