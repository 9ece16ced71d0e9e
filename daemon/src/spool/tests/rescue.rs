//! The rescue: what was set aside comes back, whatever happens on the way there and back.

use tokio::sync::{oneshot, watch};

use super::taken_back::{Life, NEXT};
use super::*;
use crate::spool::shared::Command;
use crate::spool::stepped::Stepped;
use crate::spool::{Asked, block, records, ring, schema};
use std::sync::atomic::Ordering;

/// What the writer is told by a reader that finds the file damaged.
fn find_damage(spool: &Spool) {
    let generation = spool.shared.generation.load(Ordering::Acquire);
    spool.shared.command(Command::FileDamaged { generation, what: "a page is damaged".to_owned() });
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
    let (spool, _, _, all) = stored(directory.path(), 20).await;
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
    let (spool, board, _, all) = stored(directory.path(), 20).await;
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
    let (spool, _, _, all) = stored(directory.path(), 20).await;
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
    let (spool, _, _, all) = stored(directory.path(), 20).await;
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

#[tokio::test]
async fn what_was_saved_and_lost_is_on_the_board_and_is_known_after_a_restart_and_without_a_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, board, _, _) = stored(directory.path(), 20).await;
    assert_eq!(board.read(|status| status.spool.salvage.clone()), None);
    find_damage(&spool);
    after_salvage(&spool).await;
    let salvage = |board: &Board| board.read(|status| status.spool.salvage.clone());
    let ended = async {
        loop {
            if let Some(salvage) = salvage(&board).filter(|salvage| !salvage.searching) {
                return salvage;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = tokio::time::timeout(SOON, ended).await.expect("the board says it");
    assert!(said.found.contains("a page is damaged"), "{said:?}");
    assert_eq!((said.saved, said.lost), (40, 0));
    spool.close(true).await.expect("closes");
    let offline = Offline::open(directory.path()).expect("free");
    assert_eq!(offline.status(None).salvage.as_ref(), Some(&said));
    drop(offline);
    let (Opened { spool, .. }, board) = open(settings(directory.path()));
    flush(&spool).await;
    assert_eq!(salvage(&board).as_ref(), Some(&said));
}

#[test]
fn while_a_damaged_file_is_searched_the_board_says_how_far_it_is() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let (board, shape) = (Board::default(), big_shape());
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    for i in 0..100 {
        spool.append(big(spool.run, i * 10, &shape), now);
        spool.turn(now);
    }
    spool.close(true, now).expect("closes");
    lose_first_page(&directory.path().join(store::FILE));
    let mut spool =
        Stepped::open(settings(directory.path()), board.clone(), || stamp(7), now).expect("opens");
    let mut so_far = Vec::new();
    while spool.busy() {
        let salvage = board.read(|status| status.spool.salvage.clone()).expect("found at the start");
        assert_eq!((salvage.searching, salvage.lost, salvage.at_us), (true, 0, stamp(7).wall_us));
        so_far.push(salvage.saved);
        spool.turn(now);
    }
    assert!(so_far.is_sorted() && so_far.first() == Some(&0) && so_far.last() == Some(&1000), "{so_far:?}");
    assert!(board.read(|status| !status.spool.salvage.as_ref().expect("said").searching));
}

/// A reading that the file has and the ledger does not know: what a commit that failed leaves, torn.
fn leave_torn(directory: &Path, batch: &Arc<Batch>) {
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    let dictionary = store::dictionary(&file).expect("readable");
    let mut bytes = Vec::new();
    block::encode(std::slice::from_ref(batch), &dictionary, &mut bytes).expect("a block");
    let (head, body) = bytes.split_at_mut(block::HEADER_LENGTH);
    body[4] ^= 0xff;
    let sql = "INSERT INTO block SELECT max(place) + 1, max(number) + 1, ?1, ?2 FROM block";
    file.execute(sql, (&*head, &*body)).expect("written");
}

#[tokio::test]
async fn a_torn_block_of_a_commit_that_failed_is_not_called_lost_when_memory_stores_it_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, mut plant, mut all) = stored(directory.path(), 20).await;
    let last = plant.batch();
    leave_torn(directory.path(), &last);
    find_damage(&spool);
    spool.append(last.clone());
    all.push(last);
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(gaps(&events, all[0].run, GapCause::Damaged), BTreeSet::new());
    assert_eq!(numbers(&batches), numbers(&all));
}

#[test]
fn a_record_of_a_commit_that_failed_and_had_landed_comes_once_although_the_damaged_file_holds_it_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let (run, batch) = (life.spool.run, Plant::new(life.spool.run).batch());
    life.store(&batch);
    let trouble = block_commits(directory.path());
    let body = Body::Device { device: "meter".into(), answering: false };
    life.spool.record(body.clone(), stamp(1));
    life.turn();
    assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing");
    // It was written all the same, and then the file is damaged.
    let event = Event { run, number: 0, stamp: stamp(1), body };
    let sql = "INSERT INTO event (run, number, sent, body) VALUES (?1, 0, 0, ?2)";
    trouble.execute(sql, (records::run_key(run), records::event_text(&event))).expect("written");
    trouble.execute_batch("UPDATE spool SET mark = 'x'; COMMIT").expect("damaged");
    drop(trouble);
    life.now += Duration::from_secs(2);
    life.settle();
    let (batches, events) = life.waiting();
    assert_eq!(batches, [batch]);
    let own: Vec<_> = events.iter().filter(|found| matches!(found.body, Body::Device { .. })).collect();
    assert_eq!(own, [&Arc::new(event)]);
    let (damage, shown) = (events.len() - 1, life.board.read(|status| status.spool.records_waiting));
    assert_eq!((damage, shown), (1, 2), "{events:?}");
}

/// A rescue that finds no room for what is in a newer file.
fn waiting_for_room(directory: &Path) -> Life {
    let small = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory) };
    for known in [&NEXT, &schema::CURRENT] {
        let mut life = Life::begin(small.clone(), known);
        let shape = big_shape();
        (0..250).for_each(|i| life.store(&big(life.spool.run, i * 10, &shape)));
        life.close();
    }
    let mut life = Life::begin(small, &NEXT);
    life.settle();
    life
}

#[test]
fn that_a_sound_file_waits_for_room_is_on_the_board_and_goes_when_it_is_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = waiting_for_room(directory.path());
    let said = life.board.read(|status| status.spool.salvage.clone()).expect("said");
    assert!(said.waits_for_room && said.searching, "{said:?}");
    for _ in 0..100 {
        let done: Vec<_> = life.waiting().0.iter().map(|batch| Confirmed::from(&**batch)).collect();
        life.spool.confirm(&done);
        life.now += Duration::from_secs(11);
        life.settle();
    }
    assert_eq!(life.board.read(|status| status.spool.salvage.clone()), None, "no damage");
}

#[test]
fn a_request_to_send_again_that_a_rescue_overtakes_says_so_and_what_it_had_found_still_waits() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let (run, shape) = (life.spool.run, big_shape());
    for i in 0..400 {
        let batch = big(run, i * 10, &shape);
        life.store(&batch);
        life.spool.confirm(&[Confirmed::from(&*batch)]);
    }
    life.now += Duration::from_secs(11);
    life.turn();
    assert_eq!(life.waiting().0, []);
    let (reply, mut answer) = oneshot::channel();
    let asked = Asked::Stretch { run, first: 0, next: 4000 };
    life.spool.tell(Command::Resend { asked, progress: watch::Sender::new(0.0), reply });
    life.turn();
    assert!(answer.try_recv().is_err(), "it takes more than one turn");
    let found = numbers(&life.waiting().0);
    assert!((1..4000).contains(&found.len()), "{} wait again", found.len());
    life.spool.tell(Command::FileDamaged { generation: 0, what: "a page is damaged".to_owned() });
    life.settle();
    let refused = answer.try_recv().expect("answered").expect_err("not done").to_string();
    assert!(refused.contains("takes back what was set aside"), "{refused}");
    assert!(refused.contains("what was found until then waits to be sent: ask again when"), "{refused}");
    let (batches, events) = life.waiting();
    assert_eq!(numbers(&batches), found);
    assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
}

#[test]
fn a_damaged_block_that_was_confirmed_does_not_cost_the_file_its_place_while_a_rescue_waits_for_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = waiting_for_room(directory.path());
    let confirmed = life.waiting().0.remove(0);
    life.spool.confirm(&[Confirmed::from(&*confirmed)]);
    life.now += Duration::from_secs(11);
    life.settle();
    let mut meet = |number: u64| {
        let place = i64::try_from(number).expect("small");
        let spot = ring::Spot { place, number };
        life.spool.tell(Command::Damaged { spot, what: "a block is damaged".to_owned() });
        life.turn();
        life.turn();
        directory.path().join("quarantine").exists()
    };
    assert!(directory.path().join("newer").read_dir().expect("there").next().is_some(), "it waits");
    assert!(!meet(1), "history met it");
    assert!(meet(2), "it would be waited for in vain");
}
