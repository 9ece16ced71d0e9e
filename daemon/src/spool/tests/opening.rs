//! Starts that find something in the way, and cannot deal with it at once: nothing is opened, written or told before they can.

use super::taken_back::{Life, NEXT};
use super::*;
use crate::spool::schema;

/// A state directory after a kill, its log damaged in the middle; SQLite would take what is before that for all.
async fn damaged_in_the_middle() -> (tempfile::TempDir, Vec<Arc<Batch>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    let cut = copy(&spool, directory.path());
    let log = cut.path().join("spool.db-wal");
    let mut bytes = std::fs::read(&log).expect("there");
    bytes[32 + 8 * 1048 + 500] ^= 1;
    std::fs::write(&log, bytes).expect("written");
    (cut, all)
}

/// Some minutes of attempts.
fn wait(life: &mut Life) {
    for _ in 0..10 {
        life.now += Duration::from_secs(31);
        life.turn();
    }
}

#[tokio::test]
async fn a_damaged_log_that_cannot_be_set_aside_at_the_start_is_not_opened_before_it_is() {
    let (cut, all) = damaged_in_the_middle().await;
    let log = std::fs::read(cut.path().join("spool.db-wal")).expect("there");
    let bar = cut.path().join("quarantine");
    std::fs::write(&bar, "a file of somebody else").expect("written");
    let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
    life.spool.append(Plant::new(life.spool.run).batch(), life.now);
    for _ in 0..2 {
        assert_eq!(life.board.read(|status| status.spool.state.clone()), "damaged");
        wait(&mut life);
    }
    assert_eq!(std::fs::read(cut.path().join("spool.db-wal")).expect("there"), log, "as it was");
    std::fs::remove_file(&bar).expect("there");
    wait(&mut life);
    life.settle();
    let (batches, events) = life.waiting();
    assert_eq!(batches.iter().filter(|batch| all.contains(batch)).count(), 20, "{events:?}");
    assert_eq!(batches.len(), 21);
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
    assert_eq!(std::fs::read_dir(&bar).expect("made").count(), 1, "no attempt has left a folder");
}

#[tokio::test]
async fn a_damaged_log_that_the_disk_does_not_give_at_the_start_is_looked_at_when_it_does() {
    let (cut, all) = damaged_in_the_middle().await;
    let refused = cut.path().join("unreadable-log");
    std::fs::write(&refused, []).expect("written");
    let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing");
    wait(&mut life);
    std::fs::remove_file(&refused).expect("there");
    wait(&mut life);
    life.settle();
    let (batches, events) = life.waiting();
    assert_eq!(batches, all, "{events:?}");
}

#[test]
fn a_newer_file_that_cannot_be_set_aside_at_the_start_goes_when_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let life = Life::begin(settings(directory.path()), &NEXT);
    life.close();
    let bar = directory.path().join("newer");
    std::fs::write(&bar, "a file of somebody else").expect("written");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    wait(&mut life);
    let (state, why) = life
        .board
        .read(|status| (status.spool.state.clone(), status.spool.error.clone().unwrap_or_default()));
    assert_eq!(state, "failing");
    assert!(why.contains("newer"), "{why}");
    std::fs::remove_file(&bar).expect("there");
    wait(&mut life);
    let batch = Plant::new(life.spool.run).batch();
    life.store(&batch);
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "ok");
    assert_eq!(life.waiting().0, [batch]);
    assert_eq!(std::fs::read_dir(&bar).expect("made").count(), 1, "set aside");
}
