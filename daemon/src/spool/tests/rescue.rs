//! The rescue: what was set aside comes back, whatever happens on the way there and back.

use super::*;
use crate::spool::shared::Command;
use std::sync::atomic::Ordering;

/// What the writer is told by a reader that finds the file damaged.
fn find_damage(spool: &Spool) {
    let generation = spool.shared.generation.load(Ordering::Acquire);
    spool.shared.command(Command::FileDamaged { generation, what: "a page is damaged".to_owned() });
}

/// A spool with twenty batches on the disk.
async fn twenty(directory: &Path) -> (Spool, Board, Plant, Vec<Arc<Batch>>) {
    let (Opened { spool, run, .. }, board) = open(settings(directory));
    let mut plant = Plant::new(run);
    let all: Vec<_> = (0..20).map(|_| plant.batch()).collect();
    for batch in &all {
        spool.append(batch.clone());
        flush(&spool).await;
    }
    (spool, board, plant, all)
}

/// A way to the quarantine that ends half-way: a folder stands where the log is to go.
fn bar_the_way(directory: &Path) -> std::path::PathBuf {
    let bar = directory.join("quarantine/00000001-0000000a/spool.db-wal");
    std::fs::create_dir_all(bar.join("in the way")).expect("made");
    std::fs::write(directory.join("aside"), "quarantine/00000001-0000000a\n").expect("written");
    bar
}

#[tokio::test]
async fn a_plain_file_among_the_quarantines_costs_no_reading() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = twenty(directory.path()).await;
    std::fs::create_dir(directory.path().join("quarantine")).expect("made");
    std::fs::write(directory.path().join("quarantine/of-last-week.tar"), "x").expect("written");
    find_damage(&spool);
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches, all);
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
    assert!(directory.path().join("quarantine/of-last-week.tar").exists());
}

#[tokio::test]
async fn a_quarantine_that_fails_half_way_loses_nothing_when_the_disk_is_well_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, board, _, all) = twenty(directory.path()).await;
    let bar = bar_the_way(directory.path());
    find_damage(&spool);
    let until = Instant::now() + SOON;
    while board.read(|status| status.spool.state == "ok") {
        assert!(Instant::now() < until, "it is said");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(board.read(|status| status.spool.state.clone()), "damaged");
    std::fs::remove_dir_all(bar).expect("removed");
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches, all);
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
}

#[tokio::test]
async fn a_file_that_gets_to_its_folder_only_after_the_start_is_searched_without_another_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = twenty(directory.path()).await;
    let cut = copy(&spool, directory.path());
    let bar = bar_the_way(cut.path());
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    spool.ping().await.expect("turns");
    std::fs::remove_dir_all(bar).expect("removed");
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches, all);
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
}

#[tokio::test]
async fn what_came_back_into_a_fresh_file_is_told_to_who_walks_the_backlog() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = twenty(directory.path()).await;
    let mut cursor = Cursor::START;
    while let Some(span) = spool.span(cursor).await.expect("readable") {
        cursor = span.next;
    }
    let resends = spool.committed().borrow().resends;
    find_damage(&spool);
    let (batches, _) = after_salvage(&spool).await;
    assert_eq!(batches, all);
    assert!(
        spool.span(cursor).await.expect("readable").is_none_or(|span| span.items.len() < all.len()),
        "the old place lies behind what came back"
    );
    assert_ne!(spool.committed().borrow().resends, resends, "begin anew");
}
