//! A writer that stands still in the middle of a commit: who waits for it, and who does not.

use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex};

use super::*;

/// Where the writer asks for a stamp, in the middle of a commit: whether it is shut, and how many came.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    turned: Condvar,
}

impl Gate {
    fn set(&self, change: impl FnOnce(&mut (bool, usize))) {
        change(&mut self.state.lock().expect("no panic under it"));
        self.turned.notify_all();
    }

    fn until(&self, wanted: impl Fn(&(bool, usize)) -> bool) {
        let state = self.state.lock().expect("no panic under it");
        let waited = self.turned.wait_timeout_while(state, SOON * 5, |state| !wanted(state));
        assert!(!waited.expect("no panic under it").1.timed_out());
    }

    fn came(&self) -> usize {
        self.state.lock().expect("no panic under it").1
    }
}

/// A clock that stands still, and the writer who asks it, while the gate is shut.
fn gated() -> (Arc<Gate>, impl Fn() -> Stamp + Send + Sync + 'static) {
    let gate = Arc::new(Gate::default());
    let passes = gate.clone();
    let now = move || {
        passes.set(|(_, came)| *came += 1);
        passes.until(|(shut, _)| !shut);
        stamp(0)
    };
    (gate, now)
}

fn is_gap(item: &Item) -> bool {
    matches!(item, Item::Event(event) if matches!(event.body, Body::Gap { .. }))
}

#[tokio::test]
async fn while_a_commit_stands_still_nobody_waits_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, now) = gated();
    let opened = Spool::open(settings(directory.path()), Board::default(), now);
    let Opened { spool, run, .. } = opened.expect("opens");
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
    // The last is out of order: dropped, and recorded as a gap, which the next such lets grow.
    for at in [0, 3, 1] {
        spool.append(batches[at].clone());
    }
    flush(&spool).await;
    gate.set(|(shut, _)| *shut = true);
    let before = gate.came();
    spool.append(batches[2].clone());
    gate.until(|(_, came)| *came > before);

    // The writer stands. Intake and the uplink hand on what they have ...
    let (done, is_done) = sync_channel(1);
    let (handle, next, sent) = (spool.clone(), batches[4].clone(), Confirmed::from(&*batches[0]));
    std::thread::spawn(move || {
        handle.append(next);
        handle.confirm(&[sent]);
        handle.record(Body::Config { hash: "h".into(), refused: None }, stamp(1));
        done.send(())
    });
    is_done.recv_timeout(SOON).expect("appending does not wait for the writer");
    // ... and the reader answers, without the record that this commit may change.
    let span = tokio::time::timeout(SOON, spool.span(Cursor::START)).await;
    let span = span.expect("nor does the reader").expect("readable").expect("something waits");
    assert!(!span.items.iter().any(is_gap));
    let third = |item: &Item| matches!(item, Item::Batch(batch) if batch.seq == batches[3].seq);
    assert!(span.items.iter().any(third));

    gate.set(|(shut, _)| *shut = false);
    flush(&spool).await;
    let (_, events) = waiting(&spool).await;
    assert_eq!(gaps(&events, run, GapCause::Overflow), (2..6).collect());
    let records = events.iter().filter(|event| matches!(event.body, Body::Gap { .. })).count();
    assert_eq!(records, 1, "it grew, because nobody had been given it");
    let rest = spool.span(span.next).await.expect("readable").expect("the record comes later");
    assert!(rest.items.iter().any(is_gap));
}

#[tokio::test]
async fn what_a_power_cut_would_have_cost_before_the_commit_is_shown_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let slow = SpoolSettings { commit_every: Duration::from_millis(300), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, board) = open(slow);
    let mut committed = spool.committed();
    let before = committed.borrow_and_update().next_seq;
    spool.append(Plant::new(run).batch());
    let stored = committed.wait_for(|committed| committed.next_seq > before);
    tokio::time::timeout(SOON, stored).await.expect("soon").expect("stores");
    // The board is shown at the end of the turn, and the writer answers after it.
    spool.ping().await.expect("turns");
    let exposed = board.read(|status| (status.spool.open, status.spool.unstored_seconds));
    assert!(exposed.0 == 0 && exposed.1 > 0.2, "{exposed:?}");
}

#[tokio::test]
async fn what_comes_and_is_confirmed_while_a_commit_is_under_way_makes_no_books() {
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, now) = gated();
    let patient = SpoolSettings { commit_every: Duration::from_secs(3_600), ..settings(directory.path()) };
    let opened = Spool::open(patient, Board::default(), now);
    let Opened { spool, run, .. } = opened.expect("opens");
    let mut plant = Plant::new(run);
    spool.append(plant.batch());
    flush(&spool).await;
    gate.set(|(shut, _)| *shut = true);
    let before = gate.came();
    let (first, second) = (plant.batch(), plant.batch());
    spool.append(first.clone());
    let flushing = tokio::spawn({
        let spool = spool.clone();
        async move { flush(&spool).await }
    });
    while gate.came() == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.shared.lock().ring.len(), 0, "it is in the writer's hand");
    spool.append(second.clone());
    spool.confirm(&[Confirmed::from(&*first), Confirmed::from(&*second)]);
    gate.set(|(shut, _)| *shut = false);
    flushing.await.expect("stored");
    let inner = spool.shared.lock();
    assert_eq!((inner.ring.len(), inner.durable()), (1, second.end()), "settled, and still to be stored");
    assert!(!inner.left_out && !inner.has_break(inner.ring.as_slices().0), "all of it will be");
}
