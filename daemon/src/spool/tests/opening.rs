//! Starts that find something in the way, or missing, and cannot deal with it at once, or are cut off: nothing is opened, overwritten or
//! forgotten before it is dealt with.

use super::taken_back::{Life, NEXT};
use super::*;
use crate::spool::{aside, schema};

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
fn a_store_that_opens_after_the_start_tells_what_it_knows_of_the_clock() {
    let directory = tempfile::tempdir().expect("a directory");
    let set = |boot, offset_us| Body::Clock { boot: BootId(boot), offset_us, at_mono_us: 5 };
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    for (boot, offset_us) in [(7, 1), (8, 2), (8, 3), (9, 4)] {
        life.spool.record(set(boot, offset_us), stamp(1));
        life.turn();
    }
    let records: Vec<_> = life.waiting().1.iter().map(|event| Confirmed::from(&**event)).collect();
    life.spool.confirm(&records);
    life.now += Duration::from_secs(11);
    life.settle();
    drop(life);
    let refused = directory.path().join("unreadable-log");
    std::fs::write(&refused, []).expect("written");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing");
    // What this life has heard of a boot is newer.
    life.spool.record(set(9, 5), stamp(2));
    std::fs::remove_file(&refused).expect("there");
    wait(&mut life);
    life.settle();
    let known: Vec<_> = life.spool.clocks().iter().map(|known| (known.boot.0, known.offset_us)).collect();
    assert_eq!(known, [(7, 1), (8, 3), (9, 5)]);
}

#[tokio::test]
async fn a_log_that_the_disk_never_gives_is_set_aside_with_its_file_after_some_minutes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    let cut = copy(&spool, directory.path());
    std::fs::write(cut.path().join("unreadable-log"), []).expect("written");
    let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
    let batch = Plant::new(life.spool.run).batch();
    life.spool.append(batch.clone(), life.now);
    wait(&mut life);
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing", "it may still come");
    assert!(life.board.read(|status| status.spool.oldest_unknown), "nobody knows what waits in it");
    assert!(!cut.path().join("quarantine").exists());
    wait(&mut life);
    life.settle();
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "ok");
    let (batches, events) = life.waiting();
    let lost = gaps(&events, all[0].run, GapCause::Damaged);
    let missing = numbers(&all).difference(&numbers(&batches)).copied().collect::<BTreeSet<_>>();
    assert_eq!((batches.last(), lost), (Some(&batch), missing));
    assert!(events.iter().any(|event| matches!(event.body, Body::Corruption { .. })), "{events:?}");
}

/// The disk does not list the folder: a link to itself (ELOOP).
fn hide(folder: &Path, away: &Path) {
    if folder.exists() {
        std::fs::rename(folder, away).expect("away");
    }
    std::os::unix::fs::symlink(folder.file_name().expect("a name"), folder).expect("a loop");
}

#[tokio::test]
async fn a_quarantine_that_the_disk_does_not_list_at_the_start_is_searched_when_it_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    let cut = copy(&spool, directory.path());
    aside::set_aside(&cut.path().join(store::FILE), aside::QUARANTINE, all[0].run).expect("set aside");
    let (folder, away) = (cut.path().join("quarantine"), cut.path().join("away"));
    hide(&folder, &away);
    let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    life.store(&plant.batch());
    assert_eq!(
        life.board.read(|status| status.spool.state.clone()),
        "ok",
        "it keeps nothing from being stored"
    );
    assert_eq!(numbers(&life.waiting().0).len(), 2);
    std::fs::remove_file(&folder).expect("there");
    std::fs::rename(&away, &folder).expect("back");
    wait(&mut life);
    life.settle();
    let (batches, events) = life.waiting();
    let (old, own): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| batch.run == all[0].run);
    assert_eq!((old, own.len()), (all.clone(), 1));
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
    assert!(
        events.iter().any(|event| matches!(event.body, Body::Corruption { saved: 40, lost: 0, .. })),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_folder_that_the_disk_never_tells_of_is_named_and_costs_no_reading_of_a_sound_file() {
    for what in ["quarantine", "newer/00000001-0000000a"] {
        let directory = tempfile::tempdir().expect("a directory");
        let (spool, _, mut plant, mut all) = stored(directory.path(), 20).await;
        let cut = copy(&spool, directory.path());
        let place = cut.path().join(what);
        std::fs::create_dir_all(place.parent().expect("one")).expect("made");
        hide(&place, &cut.path().join("away"));
        let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
        plant = Plant { run: life.spool.run, seq: 0, ..plant };
        for _ in 0..20 {
            all.push(plant.batch());
            life.store(&all[all.len() - 1]);
            wait(&mut life);
        }
        assert_eq!(life.board.read(|status| status.spool.state.clone()), "ok");
        let (batches, events) = life.waiting();
        assert_eq!(batches, all);
        let named =
            |body: &Body| matches!(body, Body::Corruption { found, lost: 0, .. } if found.contains(what));
        assert_eq!(events.iter().filter(|event| named(&event.body)).count(), 1, "{events:?}");
    }
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

/// What is done to a state directory while no daemon runs.
type Fault = fn(&Path);

fn remove(path: &Path) {
    std::fs::remove_file(path.join(store::FILE)).expect("there");
}

fn empty(path: &Path) {
    std::fs::write(path.join(store::FILE), []).expect("emptied");
}

#[tokio::test]
async fn a_file_that_was_removed_or_emptied_does_not_take_its_log_with_it() {
    for fault in [remove as Fault, empty] {
        let directory = tempfile::tempdir().expect("a directory");
        let (spool, _, _, all) = stored(directory.path(), 20).await;
        let cut = copy(&spool, directory.path());
        fault(cut.path());
        // A start that is cut off, and the next.
        drop(Life::begin(settings(cut.path()), &schema::CURRENT));
        let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
        life.settle();
        let (batches, events) = life.waiting();
        assert_eq!(batches, all, "{events:?}");
        assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
    }
}

#[tokio::test]
async fn who_looks_at_an_emptied_file_without_the_daemon_leaves_its_log_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    for fault in [remove as Fault, empty] {
        let cut = copy(&spool, directory.path());
        fault(cut.path());
        let file = cut.path().join(store::FILE);
        let log = || std::fs::read(cut.path().join("spool.db-wal")).expect("there");
        let before = log();
        let asked = crate::spool::Asked::Stretch { run: all[0].run, first: 0, next: 2 };
        let mut refused = vec![
            crate::spool::offline::resend(cut.path(), asked).expect_err("evidence").to_string(),
            Offline::open(cut.path()).expect_err("evidence").to_string(),
        ];
        if file.exists() {
            let found = crate::spool::verify::file(&file, |_| {}).expect("a verdict");
            refused.push(found.faults.concat());
        }
        for words in refused {
            assert!(words.contains("removed or emptied"), "{words}");
            assert!(log() == before, "as it was");
        }
    }
}

#[test]
fn a_file_removed_under_us_does_not_take_its_log_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let mut all: Vec<_> = (0..20).map(|_| plant.batch()).collect();
    for batch in &all {
        life.store(batch);
    }
    remove(directory.path());
    all.push(plant.batch());
    life.spool.append(all[20].clone(), life.now);
    wait(&mut life);
    life.settle();
    let (mut batches, events) = life.waiting();
    batches.sort_by_key(|batch| batch.seq);
    assert_eq!(batches, all, "{events:?}");
    assert_eq!(gaps(&events, plant.run, GapCause::Damaged), BTreeSet::new());
}

/// A card that lies gives back the file of one life before; its copy is newer.
fn forget(path: &Path) {
    drop(std::fs::remove_file(path.join("spool.db-wal")));
    std::fs::copy(path.join("before"), path.join(store::FILE)).expect("copied");
}

fn lose_log(path: &Path) {
    std::fs::remove_file(path.join("spool.db-wal")).expect("there");
}

fn remove_both(path: &Path) {
    remove(path);
    lose_log(path);
}

/// A file that is gone, a log that is, a card that has forgotten a life: each is told of by the copy alone, and the start that
/// reads it ends right after it, before anything else is written.
#[test]
fn what_only_the_copy_tells_is_told_although_the_start_that_read_it_is_cut_off() {
    for fault in [remove_both as Fault, lose_log, forget] {
        let directory = tempfile::tempdir().expect("a directory");
        Life::begin(settings(directory.path()), &schema::CURRENT).close();
        let file = directory.path().join(store::FILE);
        std::fs::copy(&file, directory.path().join("before")).expect("copied");
        let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
        let (run, batch) = (life.spool.run, Plant::new(life.spool.run).batch());
        life.store(&batch);
        let cut = copy_of(directory.path());
        fault(cut.path());
        for _ in 0..2 {
            drop(Life::begin(settings(cut.path()), &schema::CURRENT));
        }
        let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
        life.settle();
        let (batches, events) = life.waiting();
        assert_eq!((batches, gaps(&events, run, GapCause::Damaged)), (Vec::new(), (0..2).collect()));
        let end = |event: &&Arc<Event>| matches!(event.body, Body::RunEnd { ended, next_seq: 2, clean: false, .. } if ended == run);
        assert_eq!(events.iter().filter(end).count(), 1, "{events:?}");
        let said = |event: &&Arc<Event>| matches!(event.body, Body::Corruption { .. });
        assert!(events.iter().any(|event| said(&event)), "{events:?}");
    }
}

#[test]
fn the_end_of_a_run_is_said_again_as_it_was_said_however_often_the_file_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let run = life.spool.run;
    life.store(&Plant::new(run).batch());
    life.close();
    let damage: Fault = |path| {
        lose_first_page(&path.join(store::FILE));
    };
    let end = Body::RunEnd { ended: run, next_seq: 2, clean: true, last_wall_us: Some(stamp(0).wall_us) };
    let nothing: Fault = |_| {};
    for fault in [nothing, damage, remove, damage, remove] {
        fault(directory.path());
        let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
        life.settle();
        let (_, events) = life.waiting();
        let of_run = |event: &&Arc<Event>| matches!(event.body, Body::RunEnd { ended, .. } if ended == run);
        let ends: Vec<_> = events.iter().filter(of_run).map(|event| event.body.clone()).collect();
        assert_eq!(ends, std::slice::from_ref(&end));
        life.close();
    }
}
