//! The number of gap records: bounded whatever the disk does, and exact in what they say.

use std::collections::BTreeMap;

use super::*;
use crate::spool::ledger::{EXCEPTIONS_MAX, LOST_MAX, RunBooks};
use crate::spool::writer::GAPS_MAX;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn many_small_gaps_stay_bounded_in_number_and_exact_in_sum() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut dice = Dice(7);
    let mut lost: BTreeMap<GapCause, BTreeSet<u64>> = BTreeMap::new();
    let mut at = 0;
    for round in 0..40 {
        for _ in 0..100 {
            let (first, n) = (at + 1 + dice.below(50), 1 + dice.below(5));
            let cause = if dice.below(3) == 0 { GapCause::Damaged } else { GapCause::Overflow };
            at = first + n;
            spool.shared.lock().lose(run, first, at, cause);
            lost.entry(cause).or_default().extend(first..at);
        }
        flush(&spool).await;
        if round % 7 == 0 {
            // A reader looks, and nobody acknowledges.
            waiting(&spool).await;
        }
    }
    let events = waiting(&spool).await.1;
    assert!(events.len() <= GAPS_MAX + 100, "{} records for 4 000 gaps", events.len());
    let mut told: BTreeMap<GapCause, u64> = BTreeMap::new();
    let mut stretches: BTreeMap<GapCause, Vec<(u64, u64)>> = BTreeMap::new();
    for event in &events {
        let (cause, first, next, n) = match event.body {
            Body::Gap { of, first, next, cause } if of == run => (cause, first, next, next - first),
            Body::Gaps { of, first, next, lost, cause } if of == run => (cause, first, next, lost),
            ref other => panic!("{other:?}"),
        };
        let named = lost[&cause].range(first..next).count() as u64;
        assert_eq!(named, n, "{cause:?} {first} to {next}");
        *told.entry(cause).or_default() += n;
        stretches.entry(cause).or_default().push((first, next));
    }
    for (cause, stretches) in &mut stretches {
        stretches.sort_unstable();
        assert!(stretches.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{cause:?}: each told once");
        assert_eq!(told[cause], lost[cause].len() as u64, "{cause:?}: none dropped");
    }
    // All of it is there after a kill, too.
    let killed = copy(&spool, directory.path());
    let (Opened { spool: second, .. }, _) = open(settings(killed.path()));
    let after = waiting(&second).await.1;
    let gap = |event: &&Arc<Event>| event.body.about() == Some(run) && event.body.kind() != "run_end";
    assert_eq!(after.iter().filter(gap).count(), events.len());
    assert_eq!(sums(&second).losses, sums(&spool).losses);
}

#[test]
fn lost_stretches_that_nothing_waits_behind_are_forgotten_by_place_and_not_by_number() {
    let mut books = RunBooks { durable: 1_000_000, ..RunBooks::default() };
    let (mut lost, mut confirmed) = (0, 0);
    for at in (0..500_000).step_by(50) {
        lost += books.lose(at, at + 3, GapCause::DeadLetter).iter().map(|(a, b)| b - a).sum::<u64>();
        books.confirm(at + 3, at + 50);
        confirmed += 47;
        assert!(books.lost.count() <= LOST_MAX);
    }
    assert_eq!((books.losses.dead_lettered, books.lost.total()), (lost, lost));
    assert_eq!((books.confirmed(), books.waiting()), (confirmed, 500_000));
    assert!(books.lost.covers(499_950, 499_953), "the newest are known by place");
    // Where something waits before them, every place is needed.
    let mut books = RunBooks { durable: 1_000_000, ..RunBooks::default() };
    for at in (0..500_000).step_by(50) {
        books.lose(at + 1, at + 3, GapCause::Damaged);
    }
    assert_eq!(books.lost.count(), 10_000);
    assert_eq!(books.waiting(), 1_000_000 - 20_000);
}

#[test]
fn a_restart_forgets_no_confirmation_up_to_the_bound_and_beyond_it_the_shortest() {
    for stretches in [1, 64, EXCEPTIONS_MAX as u64, EXCEPTIONS_MAX as u64 + 500] {
        let mut dice = Dice(stretches);
        let mut books = RunBooks { durable: u64::MAX / 2, ..RunBooks::default() };
        let (mut at, mut lengths) = (0, Vec::new());
        for _ in 0..stretches {
            let (first, n) = (at + 1 + dice.below(9), 1 + dice.below(1000));
            at = first + n;
            books.confirm(first, at);
            lengths.push(n);
        }
        lengths.sort_unstable();
        let many = lengths.len().saturating_sub(EXCEPTIONS_MAX + 1);
        let duplicates: u64 = lengths[..many].iter().sum();
        let kept = books.for_disk();
        assert_eq!(books.settled.total() - kept.settled.total(), duplicates);
    }
}
