//! Sending again what was confirmed: the same batches under the same names, exact books, through kills and stops.

use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::spool::ledger::Intervals;
use crate::spool::{Asked, Resent, offline};

async fn resend(spool: &Spool, asked: Asked) -> Resent {
    spool.resend(asked, watch::Sender::new(0.0)).await.expect("searched")
}

fn confirm_all(spool: &Spool, batches: &[Arc<Batch>]) {
    spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
}

/// A spool with so many stored batches of two readings, all confirmed.
async fn confirmed(directory: &Path, count: usize) -> (Spool, RunId, Vec<Arc<Batch>>) {
    let (Opened { spool, run, .. }, _) = open(settings(directory));
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..count).map(|_| plant.batch()).collect();
    for (at, batch) in batches.iter().enumerate() {
        spool.append(batch.clone());
        if at % 5 == 0 {
            flush(&spool).await;
        }
    }
    flush(&spool).await;
    confirm_all(&spool, &batches);
    (spool, run, batches)
}

#[tokio::test]
async fn confirmed_readings_wait_again_under_their_names_until_they_are_confirmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, run, batches) = confirmed(directory.path(), 50).await;
    assert_eq!(waiting(&spool).await.0, []);
    let resends = spool.committed().borrow().resends;
    // 41 is the second reading of the batch at 40: a batch goes whole.
    let resent = resend(&spool, Asked::Stretch { run, first: 20, next: 41 }).await;
    assert_eq!(
        (resent.readings, resent.batches, resent.already, resent.gone, resent.lost),
        (22, 11, 0, 0, 0)
    );
    assert_ne!(spool.committed().borrow().resends, resends, "who walks the backlog is told");
    assert_eq!(waiting(&spool).await.0, batches[10..21]);
    let twice = resend(&spool, Asked::Stretch { run, first: 20, next: 41 }).await;
    assert_eq!((twice.readings, twice.already), (0, 22), "what waits already is not counted twice");
    let Sums { waiting: waits, confirmed, losses } = sums(&spool);
    assert_eq!((waits, confirmed, losses.total()), (22, 78, 0));

    let after_kill = copy(&spool, directory.path());
    let (Opened { spool: second, .. }, _) = open(settings(after_kill.path()));
    assert_eq!(waiting(&second).await.0, batches[10..21], "the request survives a kill");
    confirm_all(&second, &batches[10..21]);
    assert_eq!(waiting(&second).await.0, []);
    assert_eq!(sums(&second).confirmed, 100);
}

#[tokio::test]
async fn what_waits_again_still_waits_after_the_file_was_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, run, batches) = confirmed(directory.path(), 50).await;
    spool.close(true).await.expect("closes");
    // The copy beside the file, written now, knows nothing of the request; so do old pages.
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    flush(&spool).await;
    assert_eq!(resend(&spool, Asked::Stretch { run, first: 20, next: 41 }).await.readings, 22);
    let cut = copy(&spool, directory.path());
    lose_first_page(&cut.path().join(store::FILE));
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    let (found, events) = after_salvage(&spool).await;
    assert_eq!(found, batches[10..21]);
    let report = |event: &&Arc<Event>| matches!(event.body, Body::Corruption { saved: 22, lost: 0, .. });
    assert_eq!(events.iter().filter(report).count(), 1, "{events:?}");
}

#[tokio::test]
async fn what_is_confirmed_and_not_yet_stored_is_sent_again_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let slow = SpoolSettings { commit_every: SOON, ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(slow);
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    // The live lane is faster than the disk.
    confirm_all(&spool, &batches[..9]);
    assert_eq!(spool.committed().borrow().next_seq, 0, "nothing is stored yet");
    let resent = resend(&spool, Asked::Since { wall_us: 0 }).await;
    assert_eq!((resent.readings, resent.already), (18, 2), "{resent:?}");
    assert_eq!(waiting(&spool).await.0, batches);
}

#[tokio::test]
async fn what_was_lost_or_overwritten_does_not_come_back_and_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped);
    let shape = big_shape();
    // Half of what the cap evicts was confirmed before, half is lost.
    for i in 0..1500 {
        let batch = big(run, i * 10, &shape);
        spool.append(batch.clone());
        if i < 500 {
            spool.confirm(&[Confirmed::from(&*batch)]);
        }
        if i % 20 == 0 {
            flush(&spool).await;
        }
    }
    flush(&spool).await;
    let (there, events) = waiting(&spool).await;
    let evicted = gaps(&events, run, GapCause::Evicted);
    assert!(!evicted.is_empty() && sums(&spool).confirmed == 5000);
    confirm_all(&spool, &there);
    let resent = resend(&spool, Asked::Stretch { run, first: 0, next: 15_000 }).await;
    assert_eq!(resent.gone, 5000, "confirmed and overwritten");
    assert_eq!(resent.lost, evicted.len() as u64);
    assert_eq!(resent.readings, numbers(&there).len() as u64);
    assert_eq!(resent.readings + resent.gone + resent.lost, 15_000);
    let (again, _) = waiting(&spool).await;
    assert!(again == there, "all that is there and no more");
    let Sums { waiting: waits, confirmed, losses } = sums(&spool);
    assert_eq!((waits, confirmed), (resent.readings, 5000));
    assert_eq!(losses.evicted, evicted.len() as u64);
}

#[tokio::test]
async fn a_block_that_waits_again_is_not_overwritten_without_a_gap_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped);
    let shape = big_shape();
    for i in 0..1000 {
        let batch = big(run, i * 10, &shape);
        spool.append(batch.clone());
        flush(&spool).await;
        spool.confirm(&[Confirmed::from(&*batch)]);
    }
    let newest = resend(&spool, Asked::Stretch { run, first: 9_900, next: 10_000 }).await;
    assert_eq!((newest.readings, newest.pressed), (100, 0), "confirmed history goes before them");
    let resent = resend(&spool, Asked::Stretch { run, first: 0, next: 10_000 }).await;
    assert!(resent.readings > 1000 && resent.gone > 1000, "{resent:?}");
    let before = numbers(&waiting(&spool).await.0);
    spool.append(big(run, 10_000, &shape));
    flush(&spool).await;
    let next_gone = sums(&spool).losses.evicted;
    assert!((1..=resent.pressed).contains(&next_gone), "{next_gone} went next, {resent:?}");
    assert!(resent.pressed < 300, "no more than what is next: {resent:?}");
    for i in 1001..1100 {
        spool.append(big(run, i * 10, &shape));
        flush(&spool).await;
    }
    let (batches, events) = waiting(&spool).await;
    let lost = gaps(&events, run, GapCause::Evicted);
    assert!(!lost.is_empty(), "the ring was full");
    let after: BTreeSet<u64> = numbers(&batches);
    assert!(before.iter().all(|seq| after.contains(seq) != lost.contains(seq)), "there, or recorded as lost");
    assert_eq!(sums(&spool).losses.evicted, lost.len() as u64);
}

#[tokio::test]
async fn the_end_and_the_gaps_of_a_run_go_again_with_its_readings() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, first, _) = confirmed(directory.path(), 10).await;
    spool.close(true).await.expect("closes");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (_, events) = waiting(&spool).await;
    let [end] = &*events else { panic!("{events:?}") };
    spool.record(Body::Device { device: "meter".into(), answering: false }, stamp(1));
    flush(&spool).await;
    let told = waiting(&spool).await.1[1].clone();
    spool.confirm(&[Confirmed::from(&**end), Confirmed::from(&*told)]);
    assert_eq!(waiting(&spool).await.1, []);
    let resent = resend(&spool, Asked::Stretch { run: first, first: 0, next: 4 }).await;
    assert_eq!(resent.records, 1);
    assert!(spool.records_wait());
    let after_kill = copy(&spool, directory.path());
    let again = waiting(&spool).await.1;
    assert_eq!(again, events[..1], "the same record, and not what proves nothing");
    spool.confirm(&[Confirmed::from(&**end)]);
    flush(&spool).await;
    assert_eq!(waiting(&spool).await.1, []);
    let (Opened { spool: second, .. }, _) = open(settings(after_kill.path()));
    let (batches, events) = waiting(&second).await;
    assert_eq!(numbers(&batches), (0..4).collect(), "the books of an older run are on the disk too");
    assert!(events.contains(end));
}

#[tokio::test]
async fn a_time_takes_what_was_read_from_then_on_and_what_a_clock_that_was_never_set_stamped_between() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let mut batches = Vec::new();
    for at in 0..30_u64 {
        let mut batch = Batch::clone(&plant.batch());
        batch.stamp = stamp(at * 10);
        if (10..20).contains(&at) {
            // Another boot, whose clock began in 1970.
            let mono_us = at * 10_000_000;
            let wall_us = i64::try_from(mono_us).expect("small");
            batch.stamp = Stamp { wall_us, mono_us, boot: BootId(7), clock: ClockQuality::Unsynced };
        }
        batches.push(Arc::new(batch));
    }
    // The oldest is a block of its own, whatever the others come to stand in.
    for batches in [&batches[..1], &batches[1..]] {
        for batch in batches {
            spool.append(batch.clone());
        }
        flush(&spool).await;
    }
    confirm_all(&spool, &batches);
    let since = |second| Asked::Since { wall_us: stamp(second).wall_us };
    assert_eq!(resend(&spool, since(250)).await.readings, 10);
    assert_eq!(waiting(&spool).await.0, batches[25..]);
    // 10 to 19 were never set right: they go with 9, which was read at 90 s.
    assert_eq!(resend(&spool, since(90)).await.batches, 16);
    assert_eq!(waiting(&spool).await.0, batches[9..]);

    // Now the clock of that boot is known: 10 to 19 were read at 1100 s to 1190 s.
    confirm_all(&spool, &batches);
    let offset_us = stamp(1000).wall_us;
    spool.record(Body::Clock { boot: BootId(7), offset_us, at_mono_us: 195_000_000 }, stamp(300));
    flush(&spool).await;
    let resent = resend(&spool, since(1150)).await;
    assert_eq!((resent.batches, resent.oldest_us), (5, Some(stamp(0).wall_us)));
    assert_eq!(waiting(&spool).await.0, batches[15..20]);
}

#[tokio::test]
async fn the_file_of_a_daemon_that_does_not_run_takes_the_request_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, run, batches) = confirmed(directory.path(), 20).await;
    let asked = Asked::Stretch { run, first: 10, next: 20 };
    let error = offline::resend(directory.path(), asked).expect_err("in use");
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    spool.close(true).await.expect("closes");
    let resent = offline::resend(directory.path(), asked).expect("searched");
    assert_eq!((resent.readings, resent.batches, resent.records), (10, 5, 0), "its end waits already");
    for (asked, words) in [
        (Asked::Stretch { run, first: 40, next: 41 }, "readings 0 to 39; there is no 40"),
        (
            Asked::Stretch { run: RunId { counter: 9, random: 9 }, first: 0, next: 1 },
            "nothing is stored of a run",
        ),
    ] {
        let error = offline::resend(directory.path(), asked).expect_err("no such thing");
        assert!(error.to_string().contains(words) && error.exit_code() == 66, "{error}");
    }
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    assert_eq!(waiting(&spool).await.0, batches[5..10]);
    assert_eq!(sums(&spool).waiting + sums(&spool).confirmed, 40);
}

#[tokio::test]
async fn a_folded_run_gets_its_books_back_for_what_is_sent_again_and_the_sums_stay_exact() {
    let directory = tempfile::tempdir().expect("a directory");
    let all = super::folded::lives(directory.path(), 6).await;
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let run = all[0].run;
    assert!(spool.shared.lock().ledger.is_folded(run));
    let before = sums(&spool);
    assert_eq!((before.waiting, before.confirmed, before.losses.total()), (0, 48, 12));
    // The fourth batch is a dead letter: it does not come back.
    let resent = resend(&spool, Asked::Stretch { run, first: 0, next: 1000 }).await;
    assert_eq!((resent.readings, resent.lost, resent.gone, resent.already), (8, 2, 0, 0), "{resent:?}");
    let again = |batches: &[Arc<Batch>]| batches == [&all[..3], &all[4..5]].concat();
    let (batches, events) = waiting(&spool).await;
    assert!(again(&batches), "{batches:?}");
    let ends = |events: &[Arc<Event>]| {
        events.iter().filter(|event| matches!(event.body, Body::RunEnd { ended, .. } if ended == run)).count()
    };
    assert_eq!(ends(&events), 1);
    let now = sums(&spool);
    assert_eq!((now.waiting, now.confirmed, now.losses), (8, 40, before.losses));

    let after_kill = copy(&spool, directory.path());
    assert_eq!(Offline::open(after_kill.path()).expect("opens").status(None).confirmed, 40);
    let (Opened { spool: second, .. }, _) = open(settings(after_kill.path()));
    assert_eq!(sums(&second), now);
    let (batches, events) = waiting(&second).await;
    assert!(again(&batches));
    assert_eq!(ends(&events), 1, "it has its end, and gets no other");
    confirm_all(&second, &batches);
    second.confirm(&events.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
    assert_eq!(sums(&second), before);
    second.close(true).await.expect("closes");
    let (Opened { spool: third, .. }, _) = open(settings(after_kill.path()));
    flush(&third).await;
    third.close(true).await.expect("closes");
    let (Opened { spool: fourth, .. }, _) = open(settings(after_kill.path()));
    assert!(fourth.shared.lock().ledger.is_folded(run), "nothing is left of it once more");
    assert_eq!(sums(&fourth), before);
    fourth.close(true).await.expect("closes");

    let resent =
        offline::resend(after_kill.path(), Asked::Stretch { run, first: 2, next: 4 }).expect("searched");
    assert_eq!(resent.readings, 2);
    let (Opened { spool: fifth, .. }, _) = open(settings(after_kill.path()));
    assert_eq!(waiting(&fifth).await.0, all[1..2]);
    assert_eq!((sums(&fifth).waiting, sums(&fifth).confirmed), (2, 46));
}

#[tokio::test]
async fn readings_that_were_never_written_make_no_more_holes_than_the_disk_remembers() {
    let directory = tempfile::tempdir().expect("a directory");
    let unsent = SpoolSettings { keep: Keep::Unsent, ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(unsent.clone());
    let mut plant = Plant::new(run);
    let mut written = Vec::new();
    for at in 0..300 {
        let batch = plant.batch();
        if at % 3 == 0 {
            written.push(batch.clone());
        } else {
            // Confirmed before its commit: it is left out.
            spool.confirm(&[Confirmed::from(&*batch)]);
        }
        spool.append(batch);
        flush(&spool).await;
    }
    confirm_all(&spool, &written);
    let resent = resend(&spool, Asked::Stretch { run, first: 0, next: 600 }).await;
    assert!(resent.readings > 0 && resent.left > 0, "{resent:?}");
    assert_eq!(resent.readings + resent.left, 200, "{resent:?}");
    assert_eq!(resent.gone, 400, "{resent:?}");
    let (before, books) = (waiting(&spool).await.0, sums(&spool));
    assert_eq!(numbers(&before).len() as u64, resent.readings);
    let after_kill = copy(&spool, directory.path());
    let (Opened { spool: second, .. }, _) =
        open(SpoolSettings { directory: after_kill.path().into(), ..unsent });
    assert_eq!(waiting(&second).await.0, before);
    assert_eq!(sums(&second), books, "nothing waits that is not there");
}

proptest! {
    #[test]
    fn stretches_are_taken_out_as_from_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0..60_u64, 0..20_u64), 1..60)) {
        let (mut intervals, mut plain) = (Intervals::default(), BTreeSet::new());
        for (insert, first, length) in steps {
            let next = first + length;
            let inside = (first..next).filter(|number| plain.contains(number)).count() as u64;
            prop_assert_eq!(intervals.within(first, next), inside);
            if insert {
                intervals.insert(first, next);
                plain.extend(first..next);
            } else {
                prop_assert_eq!(intervals.remove(first, next), inside);
                plain.retain(|number| !(first..next).contains(number));
            }
            let listed: BTreeSet<u64> = intervals.iter().flat_map(|(first, next)| first..next).collect();
            prop_assert_eq!(&listed, &plain);
            prop_assert_eq!(intervals.total(), plain.len() as u64);
            let apart = intervals.iter().zip(intervals.iter().skip(1)).all(|((_, end), (start, _))| end < start);
            prop_assert!(apart, "disjoint and not touching");
        }
    }
}

#[test]
fn nothing_is_missing_from_a_stretch_that_ends_before_it_begins() {
    let mut some = Intervals::default();
    some.insert(2, 5);
    assert!(some.missing(9, 1).is_empty() && some.missing(4, 4).is_empty() && some.covers(9, 1));
}
