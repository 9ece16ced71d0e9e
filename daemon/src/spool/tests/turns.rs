//! One turn of the writer is bounded, whatever the plant brings meanwhile.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::task::{Context, Wake};

use tokio::sync::oneshot;

use super::*;
use crate::spool::parts::Parts;
use crate::spool::schema;
use crate::spool::shared::{Command, Shared};

/// Ends in the end, so that a turn that does not end by itself can fail a test.
const MANY: usize = 500;

/// The spool's memory, and the plant that fills it.
type Feed = Arc<OnceLock<(Arc<Shared>, Mutex<Plant>)>>;

/// A spool without threads.
struct Busy {
    parts: Parts,
    feed: Feed,
    _directory: tempfile::TempDir,
}

impl Busy {
    /// `arrives`: what comes in while a commit is under way, which asks once for a stamp; it is given how many commits there were.
    fn open(
        commit_every: Duration,
        arrives: impl Fn(&Shared, &mut Plant, usize) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = SpoolSettings { commit_every, ..settings(directory.path()) };
        let feed = Feed::default();
        let (fed, count) = (feed.clone(), Mutex::new(0));
        let now = move || {
            if let Some((shared, plant)) = fed.get() {
                let mut count = count.lock().expect("no panic under it");
                *count += 1;
                arrives(shared, &mut plant.lock().expect("no panic under it"), *count);
            }
            stamp(0)
        };
        let parts =
            Parts::open(settings, (Board::default(), &schema::CURRENT), Box::new(now), (Instant::now(), 7));
        let mut parts = parts.expect("opens");
        parts.writer.begin();
        assert!(feed.set((parts.shared.clone(), Mutex::new(Plant::new(parts.run)))).is_ok());
        Self { parts, feed, _directory: directory }
    }

    fn plant(&self) -> MutexGuard<'_, Plant> {
        self.feed.get().expect("fed").1.lock().expect("no panic under it")
    }

    fn append(&self) {
        append(&self.parts.shared, &mut self.plant());
    }

    fn turn(&mut self) {
        let commands = self.parts.shared.lock().commands.drain(..).collect();
        assert!(self.parts.writer.step(commands, Instant::now()));
    }

    fn commits(&self) -> u64 {
        self.parts.shared.committed.borrow().commits
    }
}

fn append(shared: &Shared, plant: &mut Plant) {
    shared.lock().append(plant.batch(), Instant::now());
}

fn always(shared: &Shared, plant: &mut Plant, count: usize) {
    if count < MANY {
        append(shared, plant);
    }
}

#[test]
fn a_plant_that_is_faster_than_the_disk_does_not_keep_the_writer_in_one_turn() {
    let mut busy = Busy::open(Duration::ZERO, always);
    busy.append();
    busy.turn();
    let commits = busy.commits();
    assert!((2..=8).contains(&commits), "{commits} commits in one turn");
}

#[test]
fn who_asks_the_writer_something_waits_for_one_commit_not_for_a_pause_of_the_plant() {
    let asks = |shared: &Shared, plant: &mut Plant, count| {
        always(shared, plant, count);
        if count == 2 {
            shared.command(Command::Ping(oneshot::channel().0));
        }
    };
    let mut busy = Busy::open(Duration::ZERO, asks);
    busy.append();
    busy.turn();
    assert_eq!(busy.commits(), 2);
}

#[test]
fn a_flush_is_answered_when_what_came_before_it_is_stored_however_much_comes_after() {
    let mut busy = Busy::open(SOON, always);
    let (shared, run, shape) = (busy.parts.shared.clone(), busy.parts.run, big_shape());
    // Some windows of 1 MiB.
    for i in 0..1000 {
        shared.lock().append(big(run, i * 10, &shape), Instant::now());
    }
    busy.plant().seq = 10_000;
    shared.lock().record(Body::Config { hash: "h".into(), refused: None }, stamp(1));
    let (reply, mut answer) = oneshot::channel();
    shared.flush(Instant::now() + SOON, reply);
    busy.turn();
    answer.try_recv().expect("answered").expect("stored");
    assert!(shared.committed.borrow().next_seq >= 10_000);
    let left = shared.lock().ring.len();
    assert!((1..=8).contains(&left), "{left} batches came after it, and wait for their own window");
}

#[test]
fn a_flush_is_not_answered_before_all_that_came_before_it_is_stored() {
    let mut busy = Busy::open(SOON, |shared, _, count| {
        if count == 1 {
            shared.command(Command::Ping(oneshot::channel().0));
        }
    });
    let (shared, run, shape) = (busy.parts.shared.clone(), busy.parts.run, big_shape());
    for i in 0..1000 {
        shared.lock().append(big(run, i * 10, &shape), Instant::now());
    }
    let (reply, mut answer) = oneshot::channel();
    shared.flush(Instant::now() + SOON, reply);
    busy.turn();
    assert_eq!(busy.commits(), 1);
    answer.try_recv().expect_err("the first window of several");
    busy.turn();
    answer.try_recv().expect("answered").expect("stored");
    assert_eq!(shared.committed.borrow().next_seq, 10_000);
}

/// Looks, at the moment when it is woken, up to where records may be read.
struct Looks {
    shared: Arc<Shared>,
    newest: i64,
    found: OnceLock<i64>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert!(self.found.set(self.shared.handed_out.give(self.newest)).is_ok());
    }
}

#[test]
fn who_is_told_that_all_is_stored_can_read_all_records_at_once() {
    let mut busy = Busy::open(Duration::ZERO, |_, _, _| ());
    let shared = busy.parts.shared.clone();
    busy.append();
    shared.lock().lose(busy.parts.run, 100, 102, GapCause::Overflow);
    busy.turn();
    // The next commit may let the gap record grow, and nobody is given it meanwhile.
    let newest = shared.newest_event.load(std::sync::atomic::Ordering::Acquire);
    let (reply, mut answer) = oneshot::channel();
    let looks = Arc::new(Looks { shared: shared.clone(), newest, found: OnceLock::new() });
    shared.flush(Instant::now() + SOON, reply);
    let waker = looks.clone().into();
    assert!(Pin::new(&mut answer).poll(&mut Context::from_waker(&waker)).is_pending());
    busy.turn();
    assert_eq!(looks.found.get(), Some(&newest));
}

#[test]
fn a_flush_that_nobody_waits_for_any_more_makes_no_commit() {
    let mut busy = Busy::open(SOON, |_, _, _| ());
    busy.turn();
    let before = busy.commits();
    busy.append();
    busy.parts.shared.flush(Instant::now() + SOON, oneshot::channel().0);
    busy.turn();
    assert_eq!(busy.commits(), before);
}
