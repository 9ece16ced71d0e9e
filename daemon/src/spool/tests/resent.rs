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
