//! Pages of a damaged file that the disk does not give: tried again, and named in the end.

use tokio::sync::{oneshot, watch};

use super::*;
use crate::spool::shared::Command;
use crate::spool::stepped::Stepped;
use crate::spool::{Asked, Resent};

/// A spool of a hundred blocks that wait, closed; its first page is gone, and the disk refuses one in the middle.
fn partly_unreadable(directory: &Path, now: Instant) -> RunId {
    let mut spool = Stepped::open(settings(directory), Board::default(), || stamp(0), now).expect("opens");
    let (run, shape) = (spool.run, big_shape());
    for i in 0..100 {
        spool.append(big(run, i * 10, &shape), now);
        spool.turn(now);
    }
    spool.close(true, now).expect("closes");
    let length = lose_first_page(&directory.join(store::FILE));
    std::fs::write(directory.join("unreadable"), format!("{}\n", length / 2048)).expect("written");
    run
}

/// Turns until there is nothing to do at this time; everything that waits then.
fn settle(spool: &mut Stepped, now: Instant) -> (Vec<Arc<Batch>>, Vec<Arc<Event>>) {
    while spool.busy() {
        spool.turn(now);
    }
    spool.turn(now);
    let (mut batches, mut events, mut cursor) = (Vec::new(), Vec::new(), Cursor::START);
    while let Some(span) = spool.span(cursor).expect("readable") {
        cursor = span.next;
        for item in span.items {
            match item {
                Item::Batch(batch) => batches.push(batch),
                Item::Event(event) => events.push(event),
            }
        }
    }
    (batches, events)
}

fn corruption(events: &[Arc<Event>]) -> Option<(String, u64, u64)> {
    events.iter().find_map(|event| match &event.body {
        Body::Corruption { found, saved, lost } => Some((found.clone(), *saved, *lost)),
        _ => None,
    })
}

#[test]
fn what_the_disk_does_not_give_now_is_not_lost_but_searched_for_again() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let run = partly_unreadable(directory.path(), now);
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let searched = directory.path().join("quarantine").join(spool.run.to_string()).join("salvaged");
    let (batches, events) = settle(&mut spool, now);
    let kept = numbers(&batches);
    assert!((900..1000).contains(&kept.len()), "{} of 1000 could be read", kept.len());
    assert_eq!((corruption(&events), gaps(&events, run, GapCause::Damaged)), (None, BTreeSet::new()));
    assert!(!searched.exists());
    // A start in between tries again too.
    drop(spool);
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    assert_eq!(settle(&mut spool, now).0.len(), batches.len());
    std::fs::remove_file(directory.path().join("unreadable")).expect("there");
    let (batches, _) = settle(&mut spool, now + Duration::from_secs(9));
    assert_eq!(numbers(&batches).len(), kept.len(), "not before its time");
    spool.turn(now + Duration::from_secs(11));
    let (batches, events) = settle(&mut spool, now + Duration::from_secs(11));
    assert_eq!((batches.len(), numbers(&batches).len()), (100, 1000), "{events:?}");
    let (found, saved, lost) = corruption(&events).expect("said");
    assert!(!found.contains("could not be read"), "{found}");
    assert_eq!((saved, lost), (1000, 0));
    assert_eq!(std::fs::read_to_string(&searched).expect("marked"), "");
    let ends = |event: &&Arc<Event>| matches!(event.body, Body::RunEnd { ended, .. } if ended == run);
    assert_eq!(events.iter().filter(ends).count(), 1, "{events:?}");
}

#[test]
fn what_was_found_around_it_makes_room_without_taking_along_what_the_disk_does_not_give_yet() {
    let (directory, mut now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let run = partly_unreadable(directory.path(), now);
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut spool = Stepped::open(capped, Board::default(), || stamp(0), now).expect("opens");
    let (batches, _) = settle(&mut spool, now);
    let kept = numbers(&batches);
    // The oldest of the file make room for what comes, nobody having taken them.
    let shape = big_shape();
    for i in 0..400 {
        now += Duration::from_millis(10);
        spool.append(big(spool.run, i * 10, &shape), now);
        spool.turn(now);
    }
    std::fs::remove_file(directory.path().join("unreadable")).expect("there");
    now += Duration::from_secs(11);
    spool.turn(now);
    let (batches, events) = settle(&mut spool, now);
    let evicted = gaps(&events, run, GapCause::Evicted);
    assert!(evicted.len() > 100, "{} have made room", evicted.len());
    assert!(evicted.is_subset(&kept), "what was not there is not evicted: {:?}", evicted.difference(&kept));
    // It comes as soon as the server has taken something.
    spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    for _ in 0..20 {
        now += Duration::from_secs(1);
        spool.turn(now);
    }
    let (late, _) = settle(&mut spool, now);
    let came = batches.into_iter().chain(late).filter(|batch| batch.run == run).collect::<Vec<_>>();
    assert_eq!(evicted.union(&numbers(&came)).count(), 1000);
}

#[test]
fn what_was_found_around_it_and_confirmed_makes_room_although_it_does_not_follow_itself() {
    let (directory, mut now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    partly_unreadable(directory.path(), now);
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let (batches, _) = settle(&mut spool, now);
    spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    for _ in 0..3 {
        now += Duration::from_secs(3);
        spool.turn(now);
    }
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let one = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("there");
    let floor = one("SELECT mark ->> '$.floor' FROM spool");
    assert_eq!(floor, one("SELECT max(number) FROM block") + 1, "all of it may be overwritten");
}

#[test]
fn how_old_the_oldest_is_that_waits_is_said_only_while_it_is_known() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let run = partly_unreadable(directory.path(), now);
    let board = Board::default();
    let mut spool =
        Stepped::open(settings(directory.path()), board.clone(), || stamp(0), now).expect("opens");
    let oldest = || board.read(|status| (status.spool.oldest_us, status.spool.oldest_unknown));
    let found: Vec<_> = settle(&mut spool, now).0.iter().map(|batch| Confirmed::from(&**batch)).collect();
    let mut plant = Plant::new(spool.run);
    spool.append(plant.batch(), now);
    spool.turn(now);
    assert_eq!(oldest(), (None, true), "a page of the damaged file is waited for");
    std::fs::remove_file(directory.path().join("unreadable")).expect("there");
    let later = now + Duration::from_secs(11);
    spool.turn(later);
    let all = settle(&mut spool, later).0;
    let first = |batches: &[Arc<Batch>], of| {
        batches.iter().filter(|batch| batch.run == of).map(|batch| batch.stamp.wall_us).min()
    };
    assert_eq!(oldest(), (first(&all, run), false), "all of it is here");
    // What is left of the damaged file lies behind what was read meanwhile.
    spool.confirm(&found);
    let later = later + Duration::from_secs(11);
    spool.append(plant.batch(), later);
    spool.turn(later);
    let rest = settle(&mut spool, later).0;
    assert!(
        rest.len() > 2 && rest[0].run != run && rest.iter().any(|batch| batch.run == run),
        "{}",
        rest.len()
    );
    assert_eq!(oldest(), (None, true), "the block at the floor is newer than what waits behind it");
    let own = rest.iter().filter(|batch| batch.run != run);
    spool.confirm(&own.map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    let later = later + Duration::from_secs(11);
    spool.turn(later);
    settle(&mut spool, later);
    assert_eq!(oldest(), (first(&rest, run), false));
    spool.confirm(&rest.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    let later = later + Duration::from_secs(11);
    spool.turn(later);
    assert_eq!(oldest(), (None, false), "nothing waits");
}

#[test]
fn what_the_disk_never_gives_is_named_in_the_report() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let run = partly_unreadable(directory.path(), now);
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let searched = directory.path().join("quarantine").join(spool.run.to_string()).join("salvaged");
    let mut at = now;
    for pause in [10, 60, 300] {
        assert_eq!(corruption(&settle(&mut spool, at).1), None);
        assert!(!searched.exists());
        at += Duration::from_secs(pause);
        // The search begins again.
        spool.turn(at);
    }
    let (batches, events) = settle(&mut spool, at);
    let (found, saved, lost) = corruption(&events).expect("said");
    assert!(found.contains("1 of its pages could not be read"), "{found}");
    let (kept, lost_ones) = (numbers(&batches), gaps(&events, run, GapCause::Damaged));
    assert_eq!((saved, lost), (kept.len() as u64, lost_ones.len() as u64));
    assert_eq!(kept.union(&lost_ones).copied().collect::<BTreeSet<_>>(), (0..1000).collect());
    let said = std::fs::read_to_string(&searched).expect("marked");
    assert!(said.contains("could not be read"), "{said}");
}

#[test]
fn while_a_damaged_file_is_searched_nothing_that_waits_in_it_is_called_settled() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let (run, shape) = (spool.run, big_shape());
    let batches: Vec<_> = (0..100).map(|i| big(run, i * 10, &shape)).collect();
    for batch in &batches {
        spool.append(batch.clone(), now);
        spool.turn(now);
    }
    // The first ten are acknowledged; then the file is damaged, and the disk refuses a page of it.
    spool.confirm(&batches[..10].iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    assert_eq!(spool.settled_to(), 100);
    let length = std::fs::metadata(directory.path().join(store::FILE)).expect("there").len();
    std::fs::write(directory.path().join("unreadable"), format!("{}\n", length / 2048)).expect("written");
    let generation = spool.generation();
    spool.tell(Command::FileDamaged { generation, what: "a page is damaged".to_owned() });
    while spool.generation() == generation {
        spool.turn(now);
    }
    assert_eq!(spool.settled_to(), 100);
    settle(&mut spool, now);
    assert_eq!(spool.settled_to(), 100, "nor while the search rests");
}

#[test]
fn blocks_that_are_missing_are_not_called_settled_before_an_audit_has_looked_for_them() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let mut plant = Plant::new(spool.run);
    for _ in 0..20 {
        spool.append(plant.batch(), now);
        spool.turn(now);
    }
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    file.execute("DELETE FROM block", []).expect("deleted");
    assert!(spool.span(Cursor::START).expect("readable").is_none(), "nothing is found");
    assert_eq!((spool.settled_to(), spool.committed().waiting), (0, 40));
}

#[test]
fn what_waits_to_be_sent_and_is_never_given_by_the_disk_is_searched_for_after_some_minutes() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = Instant::now();
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let batch = Plant::new(spool.run).batch();
    spool.append(batch.clone(), now);
    spool.turn(now);
    let is_aside = || directory.path().join("quarantine").exists();
    let mut ask = |second: u64| {
        let what = "disk I/O error".to_owned();
        spool.tell(Command::Unread { generation: spool.generation(), what });
        spool.turn(now + Duration::from_secs(second));
        spool.turn(now + Duration::from_secs(second));
    };
    for second in [0, 100, 200, 300, 500, 600, 700, 800] {
        ask(second);
        assert!(!is_aside(), "after {second} s: in between it was read");
    }
    ask(900);
    assert!(is_aside());
    let (batches, events) = settle(&mut spool, now + Duration::from_secs(901));
    assert_eq!(batches, [batch]);
    assert!(corruption(&events).is_some_and(|(_, _, lost)| lost == 0), "{events:?}");
}

/// The answer to who asks that everything of a run is sent again.
fn resend(spool: &mut Stepped, run: RunId, now: Instant) -> Result<Resent, SpoolError> {
    let (reply, mut answer) = oneshot::channel();
    let asked = Asked::Stretch { run, first: 0, next: 1000 };
    spool.tell(Command::Resend { asked, progress: watch::Sender::new(0.0), reply });
    for _ in 0..1000 {
        spool.turn(now);
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
    }
    panic!("no answer");
}

#[test]
fn what_is_asked_for_again_while_a_rescue_lasts_is_refused_and_never_called_damaged() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let run = partly_unreadable(directory.path(), now);
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let (batches, _) = settle(&mut spool, now);
    spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    let refused = resend(&mut spool, run, now).expect_err("the rescue waits for the disk");
    assert!(refused.to_string().contains("fieldspool spool status"), "{refused}");
    std::fs::remove_file(directory.path().join("unreadable")).expect("there");
    let later = now + Duration::from_secs(11);
    spool.turn(later);
    let (late, events) = settle(&mut spool, later);
    assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
    assert_eq!(numbers(&late).len() + numbers(&batches).len(), 1000, "what came late");
    let resent = resend(&mut spool, run, later).expect("searched");
    assert_eq!((resent.readings, resent.lost), (numbers(&batches).len() as u64, 0));
}

#[test]
fn what_is_asked_for_again_while_the_ring_is_walked_for_a_damaged_block_is_sent_and_not_called_damaged() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut spool =
        Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now).expect("opens");
    let mut plant = Plant::new(spool.run);
    let all: Vec<_> = (0..300).map(|_| plant.batch()).collect();
    for batch in &all {
        spool.append(batch.clone(), now);
        spool.turn(now);
    }
    spool.confirm(&all[..50].iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    spool.turn(now + Duration::from_secs(11));
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let damage = "UPDATE block SET body = zeroblob(length(body)) WHERE number = 200 RETURNING place";
    let place = file.query_row(damage, [], |row| row.get(0)).expect("there");
    let spot = crate::spool::ring::Spot { place, number: 200 };
    spool.tell(Command::Damaged { spot, what: "its checksum is wrong".into() });
    spool.turn(now);
    let resent = resend(&mut spool, plant.run, now).expect("none of it is lost");
    assert_eq!((resent.readings, resent.lost), (100, 0));
    let (batches, events) = settle(&mut spool, now);
    assert_eq!(gaps(&events, plant.run, GapCause::Damaged), (398..400).collect());
    assert_eq!(numbers(&batches).len(), 598);
}
