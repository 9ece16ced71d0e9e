//! What the answer to a request counts, while the spool goes on storing and the broker goes on acknowledging.

use tokio::sync::{oneshot, watch};

use super::*;
use crate::spool::shared::Command;
use crate::spool::stepped::Stepped;
use crate::spool::{Asked, Resent};

fn opened(directory: &Path, now: Instant) -> Stepped {
    Stepped::open(settings(directory), Board::default(), || stamp(0), now).expect("opens")
}

fn confirm(spool: &Stepped, batches: &[Arc<Batch>]) {
    spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
}

/// Asks, and does something after each turn; the answer, and how many turns it took.
fn ask(
    spool: &mut Stepped,
    asked: Asked,
    now: Instant,
    mut meanwhile: impl FnMut(&Stepped),
) -> (Resent, usize) {
    let (reply, mut answer) = oneshot::channel();
    spool.tell(Command::Resend { asked, progress: watch::Sender::new(0.0), reply });
    for turns in 1..1000 {
        spool.turn(now);
        if let Ok(answer) = answer.try_recv() {
            return (answer.expect("searched"), turns);
        }
        meanwhile(spool);
    }
    panic!("no answer");
}

#[test]
fn what_is_confirmed_while_the_search_goes_on_is_not_called_gone() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut spool = opened(directory.path(), now);
    let (run, shape) = (spool.run, big_shape());
    let mut batches: Vec<_> = (0..700).map(|i| big(run, i * 10, &shape)).collect();
    for some in batches.chunks(6) {
        for batch in some {
            spool.append(batch.clone(), now);
        }
        spool.turn(now);
    }
    confirm(&spool, &batches);
    for asked in [
        Asked::Stretch { run, first: 10, next: 61 },
        Asked::Stretch { run, first: 0, next: 7_000 },
        // More than there is: what is stored and confirmed meanwhile was not asked for.
        Asked::Stretch { run, first: 20, next: 1_000_000 },
        Asked::Since { wall_us: stamp(0).wall_us },
    ] {
        let wanted = |batch: &&Arc<Batch>| match asked {
            Asked::Stretch { first, next, .. } => batch.seq < next && batch.end() > first,
            Asked::Since { .. } => true,
        };
        let readings: u64 = batches.iter().filter(wanted).map(|batch| batch.end() - batch.seq).sum();
        let (resent, turns) = ask(&mut spool, asked, now, |spool| {
            let new = big(run, batches.len() as u64 * 10, &shape);
            spool.append(new.clone(), now);
            batches.push(new);
            confirm(spool, &batches);
        });
        assert_eq!(
            (resent.readings, resent.already, resent.gone, resent.lost, resent.damaged),
            (readings, 0, 0, 0, 0),
            "{asked:?}: {resent:?}"
        );
        assert!(turns > if readings > 1000 { 2 } else { 1 }, "{turns}: the broker was between the steps");
        assert!(resent.runs.iter().all(|run| run.gone == 0), "{resent:?}");
        confirm(&spool, &batches);
    }
}

/// Blocks of one batch each, confirmed; the body of the one with the readings 40 and 41 is damaged.
fn damaged(directory: &Path, now: Instant, stamp: impl Fn(u64) -> Stamp) -> (Stepped, Vec<Arc<Batch>>) {
    let mut spool = opened(directory, now);
    let mut plant = Plant::new(spool.run);
    let mut batch = |_| {
        let batch = plant.batch();
        Arc::new(Batch { stamp: stamp(batch.seq), ..Batch::clone(&batch) })
    };
    let batches: Vec<_> = (0..60).map(&mut batch).collect();
    for batch in &batches {
        spool.append(batch.clone(), now);
        spool.turn(now);
    }
    confirm(&spool, &batches);
    let file = rusqlite::Connection::open(directory.join(store::FILE)).expect("opens");
    let damage = "UPDATE block SET body = zeroblob(length(body)) WHERE number = 21";
    assert_eq!(file.execute(damage, []).expect("written"), 1);
    (spool, batches)
}

#[test]
fn of_damaged_blocks_only_what_may_have_been_asked_for_is_counted() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let (mut spool, batches) = damaged(directory.path(), now, stamp);
    let run = spool.run;
    let since = |second| Asked::Since { wall_us: stamp(second).wall_us };
    let stretch = |first, next| Asked::Stretch { run, first, next };
    for (asked, readings, damaged) in [
        (since(0), 118, 2),
        (since(40), 78, 2),
        // Its header says that it is older: by a clock that may have been wrong, and what was stored next was asked for.
        (since(42), 78, 2),
        (since(44), 76, 0),
        (since(110), 10, 0),
        (stretch(30, 40), 10, 0),
        (stretch(30, 41), 10, 1),
        (stretch(30, 60), 28, 2),
    ] {
        let (resent, _) = ask(&mut spool, asked, now, |_| ());
        let said = (resent.readings, resent.damaged, resent.gone, resent.lost);
        assert_eq!(said, (readings, damaged, 0, 0), "{asked:?}: {resent:?}");
        confirm(&spool, &batches);
    }
}

#[test]
fn a_damaged_block_of_a_clock_that_was_never_set_is_as_old_as_those_beside_it() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let unset = |second| Stamp {
        wall_us: i64::try_from(second).expect("small") * 1_000_000,
        boot: BootId(7),
        clock: ClockQuality::Unsynced,
        ..stamp(second)
    };
    let (mut spool, batches) = damaged(directory.path(), now, |second| match second {
        0..30 => stamp(second),
        30..42 => unset(second),
        // It is set, and not where the one before stood.
        _ => stamp(0),
    });
    // What that clock stamped goes with the one before it, of 28 s.
    for (second, readings, damaged) in [(28, 12, 2), (29, 0, 0)] {
        let (resent, _) = ask(&mut spool, Asked::Since { wall_us: stamp(second).wall_us }, now, |_| ());
        assert_eq!((resent.readings, resent.damaged, resent.gone), (readings, damaged, 0), "{resent:?}");
        confirm(&spool, &batches);
    }
}
