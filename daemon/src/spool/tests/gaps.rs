//! The number of gap records: bounded whatever the disk does, and exact in what they say.

use std::collections::BTreeMap;

use super::taken_back::Life;
use super::*;
use crate::spool::gaps::{GAPS_MAX, Gap};
use crate::spool::inner::RING_BYTES_MAX;
use crate::spool::ledger::{EXCEPTIONS_MAX, INTERVALS_MAX, LOST_MAX, Ledger, RunBooks};
use crate::spool::records::{books_of, books_text, run_key, seal};
use crate::spool::schema;

const RUN: RunId = RunId { counter: 3, random: 9 };

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
    let (Opened { spool, run, .. }, board) = open(settings(directory.path()));
    let mut dice = Dice(7);
    let mut lost: BTreeMap<GapCause, BTreeSet<u64>> = BTreeMap::new();
    let (mut at, mut tried) = (0, false);
    for round in 0..40 {
        for _ in 0..100 {
            let (first, n) = (at + 1 + dice.below(50), 1 + dice.below(5));
            let cause = if dice.below(3) == 0 { GapCause::Damaged } else { GapCause::Overflow };
            at = first + n;
            spool.shared.lock().lose(run, first, at, cause);
            lost.entry(cause).or_default().extend(first..at);
        }
        if !tried && spool.shared.lock().events_waiting > GAPS_MAX as u64 {
            // The commit that makes few of many fails.
            tried = true;
            let trouble = block_commits(directory.path());
            failing(&board).await;
            drop(trouble);
        }
        flush(&spool).await;
        if round % 7 == 0 {
            // A reader looks, and nobody acknowledges.
            waiting(&spool).await;
        }
    }
    let events = waiting(&spool).await.1;
    assert!(tried && events.len() <= GAPS_MAX + 100, "{} records for 4 000 gaps", events.len());
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

/// While the disk fails for days a device's readings are refused, and the server takes all others: with each poll memory drops some
/// that touch no others.
#[test]
fn on_a_disk_that_fails_for_days_what_memory_keeps_of_losses_is_bounded_and_their_sum_exact() {
    fails_for_days(|disk, _| disk.execute_batch("ROLLBACK").expect("well again"));
    // A fresh file begins, and what is told of the run is told again.
    fails_for_days(|_, file| {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(format!("{}{suffix}", file.display())).expect("removed");
        }
    });
}

fn fails_for_days(end: fn(&rusqlite::Connection, &Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let (run, shape) = (life.spool.run, big_shape());
    let (mut first, most, polls) = (big(life.spool.run, 0, &shape), GAPS_MAX as u64 + 24, 10_000);
    life.store(&first);
    life.spool.confirm(&[Confirmed::from(&*first)]);
    life.now += Duration::from_secs(60);
    life.settle();
    let disk = block_commits(directory.path());
    for poll in 1..=polls {
        Arc::make_mut(&mut first).seq = poll * 20 - 10;
        life.spool.append(first.clone(), life.now);
        Arc::make_mut(&mut first).seq += 10;
        life.spool.append(first.clone(), life.now);
        life.spool.confirm(&[Confirmed::from(&*first)]);
        if poll % 2000 == 0 {
            // A commit is tried, and fails.
            life.now += Duration::from_secs(60);
            life.turn();
            assert_eq!(life.board.read(|status| status.spool.state.clone()), "failing");
            let records = life.board.read(|status| status.spool.records_waiting);
            assert!(records <= most, "{records} records of losses in memory");
            let books = life.spool.books_of(run).expect("there");
            assert!(books.lost.count() <= LOST_MAX, "{} places of losses in memory", books.lost.count());
            assert!(
                books.settled.count() <= 2 * RING_BYTES_MAX / first.weight(),
                "what memory holds, no more"
            );
        }
    }
    end(&disk, &directory.path().join(store::FILE));
    life.now += Duration::from_secs(60);
    life.settle();
    let (batches, events) = life.waiting();
    let waits: BTreeSet<u64> = batches.iter().map(|batch| batch.seq).filter(|seq| seq % 20 == 10).collect();
    let mut told: Vec<_> = events.iter().filter_map(|event| Gap::told_by(&event.body)).collect();
    // As a receiver does: what lies within a greater stretch is told by it.
    told.sort_unstable_by_key(|gap| (gap.first, std::cmp::Reverse(gap.next)));
    told.dedup_by(|one, before| one.next <= before.next);
    assert!(told.len() as u64 <= most, "{} records", told.len());
    assert!(told.iter().all(|gap| (gap.of, gap.cause) == (run, GapCause::Overflow)));
    let refused: BTreeSet<u64> = (1..=polls).map(|poll| poll * 20 - 10).collect();
    for gap in &told {
        let dropped = refused.range(gap.first..gap.next).count() as u64 * 10;
        assert_eq!((gap.lost, waits.range(gap.first..gap.next).count()), (dropped, 0), "{gap:?}");
    }
    let lost: u64 = told.iter().map(|gap| gap.lost).sum();
    assert_eq!(lost, life.board.read(|status| status.spool.dropped));
    assert_eq!(lost + waits.len() as u64 * 10, polls * 10, "each is told or waits");
    assert!(waits.len() > 1000 && lost > 20_000);
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
    assert_eq!(books.lost.within(499_950, 499_953), 3, "the newest are known by place");
    let known: Vec<_> = books.lost.stretches();
    assert!(known.iter().all(|(first, next, _)| (first % 50, next - first) == (0, 3)), "and none is a guess");
    assert!(
        books.lost.forgotten().dead_lettered + 3 * known.len() as u64 == lost && known.len() >= LOST_MAX / 2
    );
    let again = books_of(RUN, &books_text(RUN, &books)).expect("sealed");
    assert_eq!(again, books, "so it is on the disk");
}

#[test]
fn while_something_waits_at_the_floor_the_places_of_losses_are_bounded_all_the_same() {
    // The first thousand wait in a file that was set aside, and one reading after each hundredth poll does. A device is refused with each.
    let (polls, held) = (20_000, 1000);
    let mut books = RunBooks { durable: held, ..RunBooks::default() };
    let mut waits: BTreeSet<u64> = (0..held).collect();
    for poll in 0..polls {
        let at = held + poll * 50;
        let late = u64::from(poll % 100 == 0);
        books.durable = at + 50;
        books.lose(at, at + 3, GapCause::DeadLetter);
        books.confirm(at + 3 + late, at + 50);
        waits.extend(at + 3..at + 3 + late);
        assert!(books.lost.count() <= 2 * LOST_MAX);
    }
    let balance = |books: &RunBooks| {
        assert_eq!((books.losses.total(), books.lost.total()), (polls * 3, polls * 3));
        assert_eq!((books.waiting(), books.floor()), (waits.len() as u64, 0));
        assert_eq!(books.waiting() + books.confirmed() + books.losses.total(), books.durable);
        let looks_waiting = (0..books.durable).filter(|seq| !books.settled.covers(*seq, seq + 1));
        assert!(looks_waiting.eq(waits.iter().copied()), "what waits waits, and nothing else does");
    };
    balance(&books);
    let row = books_text(RUN, &books.for_disk());
    assert!(row.len() < 64 * 1024, "{} bytes of books", row.len());
    let mut books = books_of(RUN, &row).expect("sealed");
    balance(&books);
    // In the end half of it turns up and is confirmed, and the other half is lost.
    for (at, seq) in waits.iter().enumerate() {
        if at % 2 == 0 {
            books.confirm(*seq, seq + 1);
        } else {
            books.lose(*seq, seq + 1, GapCause::Damaged);
        }
    }
    let half = waits.len() as u64 / 2;
    assert_eq!((books.waiting(), books.floor()), (0, books.durable));
    assert_eq!((books.losses.damaged, books.lost.total()), (half, polls * 3 + half));
    assert_eq!(books.confirmed() + books.losses.total(), books.durable);
    // Each between two that wait: they stay what they are.
    let mut books = RunBooks { durable: 1_000_000, ..RunBooks::default() };
    for at in (0..500_000).step_by(50) {
        books.lose(at + 1, at + 3, GapCause::Damaged);
        assert!(books.lost.count() <= 2 * LOST_MAX);
    }
    assert_eq!((books.waiting(), books.lost.total()), (1_000_000 - 20_000, 20_000));
    assert!((0..500_000).all(|seq| books.settled.covers(seq, seq + 1) == (1..3).contains(&(seq % 50))));
}

/// Three of a hundred readings of a run are lost, the others confirmed.
fn many_lost(rounds: u64) -> RunBooks {
    let mut books = RunBooks { durable: rounds * 100, ..RunBooks::default() };
    for at in (0..books.durable).step_by(100) {
        books.lose(at, at + 2, GapCause::DeadLetter);
        books.lose(at + 2, at + 3, GapCause::Evicted);
        books.confirm(at + 3, at + 100);
    }
    books
}

#[test]
fn the_books_balance_whatever_of_the_forgotten_waits_again_and_whatever_becomes_of_it() {
    let rounds = 2000;
    for (taken, parts) in
        [(0..100, "all"), (0..3, "the lost ones"), (3..100, "the others"), (1..50, "some of both")]
    {
        let mut ledger = Ledger { runs: [(RUN, many_lost(rounds))].into(), ..Ledger::default() };
        let balance = |ledger: &Ledger| {
            let sums = ledger.sums();
            assert_eq!(sums.waiting + sums.confirmed + sums.losses.total(), rounds * 100, "{parts}");
            let books = &ledger.runs[&RUN];
            assert_eq!(books.losses.total(), books.lost.total(), "{parts}");
            assert_eq!(books_of(RUN, &books_text(RUN, &books.for_disk())), Some(books.for_disk()), "{parts}");
            sums
        };
        let before = balance(&ledger);
        let limit = ledger.runs[&RUN].lost.limit();
        assert!(limit > 50_000);
        for at in (0..limit / 100 * 100).step_by(100) {
            ledger.wait_again(RUN, at + taken.start, at + taken.end);
        }
        let again = balance(&ledger);
        assert_eq!(again.waiting, limit / 100 * (taken.end - taken.start), "{parts}");
        // What was refused is refused again.
        let books = ledger.runs.get_mut(&RUN).expect("there");
        for at in (0..limit / 100 * 100).step_by(100) {
            books.lose(at + taken.start, at + taken.end.min(3), GapCause::DeadLetter);
            books.confirm(at + taken.start.max(3), at + taken.end);
        }
        let after = balance(&ledger);
        assert_eq!(after.waiting, 0, "{parts}");
        assert!(after.losses.total() >= before.losses.total(), "{parts}: none is counted as delivered");
    }
}

#[test]
fn books_of_an_older_program_have_no_causes_and_nothing_forgotten() {
    let text = |losses: &str| {
        let key = run_key(RUN);
        seal(format!(
            "{{\"run\":{key},\"durable\":9,\"settled\":[[0,9]],\"lost\":[[2,4]],\"losses\":{losses}}}"
        ))
    };
    for (losses, cause) in [("[2,0,0,0,0,0]", GapCause::Evicted), ("[1,0,0,0,1,0]", GapCause::Damaged)] {
        let books = books_of(RUN, &text(losses)).expect("sealed");
        assert_eq!(books.lost.stretches(), [(2, 4, cause)]);
        assert_eq!((books.lost.total(), books.confirmed(), books.waiting()), (2, 7, 0));
    }
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
        let many = lengths.len().saturating_sub(EXCEPTIONS_MAX);
        let duplicates: u64 = lengths[..many].iter().sum();
        let kept = books.for_disk();
        assert_eq!(books.settled.total() - kept.settled.total(), duplicates);
    }
}

#[test]
fn what_has_to_stay_below_the_places_that_are_forgotten_pushes_no_confirmation_out_and_keeps_none_in() {
    // Each poll a device is refused and another one waits: of these losses the places are forgotten, and each may lie anywhere.
    let polls = INTERVALS_MAX as u64 + 1000;
    let mut books = RunBooks::default();
    for at in (0..polls * 10).step_by(10) {
        books.durable = at + 10;
        books.lose(at + 1, at + 3, GapCause::DeadLetter);
        books.confirm(at + 3, at + 10);
    }
    let (limit, end) = (books.lost.limit(), books.durable);
    assert!(limit > 30_000 && books.settled.count() as u64 == polls, "below it none can be forgotten");
    let above = |books: &RunBooks| books.settled.iter().filter(|(first, _)| *first > end).count();
    let balance = |books: &RunBooks| {
        assert_eq!(books.waiting() + books.confirmed() + books.losses.total(), books.durable);
        assert_eq!(
            (books.losses.total(), books.settled.below(limit)),
            (polls * 2, limit / 10 * 9 + limit % 10 - 1)
        );
    };
    // One more and one less with each: what cannot be forgotten is not looked at each time.
    let mut rests = books.clone();
    for at in (end + 1..).step_by(2).take(500) {
        rests.confirm(at + 1, at + 2);
        rests.confirm(at, at + 1);
    }
    assert_eq!((rests.settled.count(), rests.looked_at), (books.settled.count() + 1, books.looked_at));
    for many in [500, EXCEPTIONS_MAX + 100, INTERVALS_MAX + 100, 3 * INTERVALS_MAX] {
        let mut books = books.clone();
        for at in (end + 1..).step_by(10).take(many) {
            books.durable = at + 9;
            books.confirm(at, at + 9);
            assert!(at % 1280 != 1 || above(&books) <= INTERVALS_MAX);
        }
        balance(&books);
        assert!(above(&books) >= many.min(INTERVALS_MAX / 2), "{} of {many} in memory", above(&books));
        balance(&books.for_disk());
        // The newest stays beside those: its end may be in memory only.
        assert_eq!(above(&books.for_disk()), many.min(EXCEPTIONS_MAX + 1), "on disk, of {many}");
    }
}

#[test]
fn a_number_that_stands_for_many_hides_no_loss_of_another_cause_and_counts_those_told_before() {
    use crate::spool::rescue::{Said, say_again};
    let directory = tempfile::tempdir().expect("a directory");
    let run = RunId { counter: 4, random: 1 };
    let mut inner = super::super::parts::inner(settings(directory.path()), run, 0);
    let mut books = RunBooks { durable: 200_000, ..RunBooks::default() };
    // Recorded long ago, in a file that is gone; one of each between what is lost now.
    books.lose(50_030, 50_040, GapCause::DeadLetter);
    books.lose(50_060, 50_070, GapCause::Damaged);
    inner.ledger.runs.insert(RUN, books);
    for at in (5..GAPS_MAX as u64 * 90 + 1000).step_by(90) {
        inner.lose(RUN, at, at + 10, GapCause::Damaged);
    }
    assert!(inner.gaps.len() <= GAPS_MAX);
    say_again(&mut inner, &BTreeMap::new(), &Said::default(), stamp(0));
    let dead: Vec<_> = inner.events.iter().map(|event| event.body.clone()).collect();
    let told = Body::Gap { of: RUN, first: 50_030, next: 50_040, cause: GapCause::DeadLetter };
    assert!(dead.contains(&told), "{dead:?}");
    let damaged = inner.ledger.runs[&RUN].losses.damaged;
    let recorded: u64 = inner.gaps.iter().map(|gap| inner.for_all(*gap).lost).sum();
    assert_eq!(recorded, damaged, "as a receiver counts them");
}
