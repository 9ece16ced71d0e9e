//! A disk that fails while the server can be reached: what it does not take is sent out of memory, and comes once.

use super::taken_back::Life;
use super::*;
use crate::spool::Cursor;
use crate::spool::inner::{Inner, WINDOW_BYTES};
use crate::spool::ledger::{EXCEPTIONS_MAX, INTERVALS_MAX};
use crate::spool::schema;

/// A window of a second.
fn patient(directory: &Path) -> SpoolSettings {
    SpoolSettings { commit_every: Duration::from_secs(1), ..settings(directory) }
}

fn batches(life: &mut Life) -> Vec<Arc<Batch>> {
    life.waiting().0
}

#[test]
fn what_a_failing_disk_does_not_take_is_given_out_of_memory_and_never_what_was_confirmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let stored = plant.batch();
    life.store(&stored);
    life.now += Duration::from_secs(2);
    life.settle();
    let disk = block_commits(directory.path());
    let (first, second) = (plant.batch(), plant.batch());
    life.store(&first);
    life.store(&second);
    life.now += Duration::from_secs(2);
    life.turn();
    assert_eq!(batches(&mut life), std::slice::from_ref(&stored), "a slow disk is no disk that fails");
    assert_eq!(life.spool.committed().late, 0);
    life.now += Duration::from_secs(20);
    let young = plant.batch();
    life.store(&young);
    assert_eq!(batches(&mut life), [stored.clone(), first.clone(), second.clone()]);
    assert_eq!(life.spool.committed().late, 4, "who sends is told");
    life.spool.confirm(&[Confirmed::from(&*first)]);
    life.turn();
    assert_eq!(batches(&mut life), [stored.clone(), second.clone()]);
    assert_eq!(life.spool.committed().late, 2);
    // Each piece goes on where the one before it ended.
    let span = life.spool.span(Cursor::START).expect("readable").expect("something");
    assert_eq!(span.items, [Item::Batch(stored.clone())]);
    let span = life.spool.span(span.next).expect("readable").expect("something");
    assert_eq!(span.items, [Item::Batch(second.clone())]);
    life.now += Duration::from_secs(20);
    life.turn();
    let span = life.spool.span(span.next).expect("readable").expect("something");
    assert_eq!(span.items, [Item::Batch(young.clone())], "late by now");
    assert!(life.spool.span(span.next).expect("readable").is_none());
    disk.execute_batch("ROLLBACK").expect("well again");
    life.now += Duration::from_secs(60);
    life.settle();
    assert_eq!(batches(&mut life), [stored, second, young], "from the disk");
    assert_eq!(life.spool.committed().late, 0);
    let books = life.spool.books_of(life.spool.run).expect("there");
    assert_eq!((books.confirmed(), books.waiting(), books.losses.total()), (2, 6, 0));
}

#[test]
fn a_file_that_cannot_be_read_holds_up_nothing_that_is_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    life.store(&plant.batch());
    life.now += Duration::from_secs(2);
    life.settle();
    let _disk = block_commits(directory.path());
    let late = plant.batch();
    life.store(&late);
    life.now += Duration::from_secs(20);
    life.turn();
    let (here, away) = (directory.path().join(store::FILE), directory.path().join("away"));
    std::fs::rename(&here, &away).expect("away");
    let span = life.spool.span(Cursor::START).expect("memory can").expect("something");
    assert_eq!(span.items, [Item::Batch(late)]);
    assert!(life.spool.span(span.next).is_err(), "and then it is said");
    std::fs::rename(&away, &here).expect("back");
    assert_eq!(batches(&mut life).len(), 2);
}

#[test]
fn with_a_window_of_nothing_nothing_is_sent_before_it_is_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let _disk = block_commits(directory.path());
    life.store(&plant.batch());
    life.now += Duration::from_secs(100);
    life.turn();
    assert_eq!((batches(&mut life), life.spool.committed().late), (vec![], 0));
}

#[test]
fn what_the_writer_had_in_hand_is_not_passed_over_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, board) = open(patient(directory.path()));
    let mut plant = Plant::new(run);
    let all: Vec<_> = (0..3).map(|_| plant.batch()).collect();
    let disk = block_commits(directory.path());
    {
        let mut inner = spool.shared.lock();
        let now = Instant::now();
        for batch in &all {
            inner.append(batch.clone(), now);
        }
        // As while a commit is under way.
        inner.in_hand = inner.ring.front().map(|kept| kept.at);
        assert_eq!(inner.give_late(all[1].seq, now + Duration::from_secs(60)), all[1..]);
    }
    let before = spool.committed().borrow().resends;
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        spool.append(plant.batch());
        failing(&board).await;
        let mut committed = spool.committed();
        let again = committed.wait_for(|committed| committed.resends > before);
        tokio::time::timeout(SOON, again).await.expect("soon").expect("it lives");
    });
    drop(disk);
}

/// A memory that is full because the disk takes nothing.
struct Full {
    directory: tempfile::TempDir,
    life: Life,
    disk: rusqlite::Connection,
    shape: Arc<Shape>,
    seq: u64,
}

impl Full {
    fn begin() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let life = Life::begin(patient(directory.path()), &schema::CURRENT);
        let disk = block_commits(directory.path());
        let mut full = Self { directory, life, disk, shape: big_shape(), seq: 0 };
        while full.dropped() == 0 {
            full.poll(500);
        }
        full
    }

    /// The plant goes on.
    fn poll(&mut self, times: usize) {
        let run = self.life.spool.run;
        for _ in 0..times {
            self.life.spool.append(big(run, self.seq, &self.shape), self.life.now);
            self.seq += 10;
        }
        self.life.now += Duration::from_secs(20);
        self.life.turn();
    }

    fn dropped(&self) -> u64 {
        self.life.board.read(|status| status.spool.dropped)
    }

    /// What is given from there on, and where it goes on.
    fn piece(&mut self, from: Cursor) -> (Vec<Arc<Batch>>, Cursor) {
        let span = self.life.spool.span(from).expect("memory can").expect("something");
        let batch = |item: &Item| if let Item::Batch(batch) = item { Some(batch.clone()) } else { None };
        (span.items.iter().filter_map(batch).collect(), span.next)
    }

    fn confirm(&mut self, batches: &[Arc<Batch>]) {
        self.life.spool.confirm(&batches.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    }

    fn heal(&mut self) {
        self.disk.execute_batch("ROLLBACK").expect("well again");
        self.life.now += Duration::from_secs(60);
    }

    /// Whether the first numbers that are missing within memory come just behind what one commit takes.
    fn hole_follows_a_window(&self) -> Option<bool> {
        let inner = self.life.spool.shared.lock();
        let (mut bytes, mut end) = (0, inner.ring.front()?.batch.seq);
        for kept in &inner.ring {
            let full = bytes + kept.bytes > WINDOW_BYTES;
            if kept.batch.seq > end {
                return Some(full);
            }
            bytes = if full { kept.bytes } else { bytes + kept.bytes };
            end = kept.batch.end();
        }
        None
    }
}

#[test]
fn what_is_on_its_way_out_of_a_full_memory_is_not_dropped_before_what_is_not() {
    let mut full = Full::begin();
    let (first, next) = full.piece(Cursor::START);
    let (second, _) = full.piece(next);
    // Both pieces are in flight, and the plant goes on.
    let before = full.dropped();
    full.poll(200);
    assert!(full.dropped() > before, "something has to go");
    let sent = [first, second].concat();
    full.confirm(&sent);
    // What was confirmed is the oldest, and makes room for as much.
    let before = full.dropped();
    full.poll(sent.len() - 50);
    assert_eq!(full.dropped(), before, "only history went");
    full.poll(200);
    assert!(full.dropped() > before);
    full.heal();
    full.life.settle();
    let (waits, events) = full.life.waiting();
    let lost = gaps(&events, full.life.spool.run, GapCause::Overflow);
    let (sent, waits) = (numbers(&sent), numbers(&waits));
    assert!(sent.is_disjoint(&lost) && waits.is_disjoint(&lost) && sent.is_disjoint(&waits));
    assert_eq!(lost.len() as u64, full.dropped());
    assert_eq!((sent.len() + waits.len() + lost.len()) as u64, full.seq, "each is one of the three");
}

#[test]
fn a_full_memory_drops_what_was_confirmed_before_what_nobody_has() {
    let mut full = Full::begin();
    let mut from = Cursor::START;
    while let Ok(Some(span)) = full.life.spool.span(from) {
        let (batches, next) = full.piece(from);
        full.confirm(&batches);
        assert_eq!(span.next, next);
        from = next;
    }
    // The server takes all but each 50th batch: a device that it refuses. Without a disk that cannot become a dead letter.
    for _ in 0..8 {
        let first = full.seq;
        full.poll(1_000);
        let mut from = Cursor::START;
        let mut taken = Vec::new();
        while let Ok(Some(span)) = full.life.spool.span(from) {
            taken.extend(full.piece(from).0.into_iter().filter(|batch| batch.seq % 500 != 0));
            from = span.next;
        }
        assert!(full.seq > first);
        full.confirm(&taken);
    }
    // Then it is away.
    let before = full.dropped();
    full.poll(1_200);
    assert_eq!(full.dropped(), before, "that much finds its place where the confirmed ones were");
}

#[test]
fn a_full_memory_is_looked_through_only_when_enough_of_it_was_confirmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = RunId { counter: 1, random: 1 };
    let mut inner = crate::spool::parts::inner(patient(directory.path()), run, 0);
    let (shape, now) = (big_shape(), Instant::now());
    let mut seq = 0;
    let mut append = |inner: &mut Inner| {
        inner.append(big(run, seq, &shape), now);
        seq += 10;
    };
    let dropped = |inner: &Inner| inner.ledger.sums().losses.dropped;
    while dropped(&inner) == 0 {
        append(&mut inner);
    }
    let middle: Vec<_> = inner.ring.iter().skip(1000).map(|kept| Confirmed::from(&*kept.batch)).collect();
    let all = inner.ring.len();
    inner.confirm(&middle[..all / 64]);
    append(&mut inner);
    assert_eq!((dropped(&inner), inner.ring.len()), (20, all), "too few of them: the oldest goes");
    inner.confirm(&middle[all / 64..all / 64 + 2]);
    append(&mut inner);
    assert_eq!(
        (dropped(&inner), inner.ring.len()),
        (20, all + 1 - (all / 64 + 2)),
        "they go, and nothing is lost"
    );
}

#[test]
fn a_full_memory_drops_the_oldest_that_is_not_on_the_wire() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = RunId { counter: 1, random: 1 };
    let mut inner = crate::spool::parts::inner(patient(directory.path()), run, 0);
    let (shape, now) = (big_shape(), Instant::now());
    let mut seq = 0;
    let mut drops = |inner: &mut Inner| {
        inner.append(big(run, seq, &shape), now);
        seq += 10;
        inner.gaps.take().iter().map(|gap| (gap.first, gap.next)).collect::<Vec<_>>()
    };
    while drops(&mut inner) != [(0, 10)] {}
    let sent: Vec<_> = [10, 20, 40].iter().map(|seq| Confirmed::from(&*big(run, *seq, &shape))).collect();
    assert!(sent.iter().all(|one| inner.sends(one)));
    assert_eq!([drops(&mut inner), drops(&mut inner)], [[(30, 40)], [(50, 60)]]);
    inner.came_back(&sent[1..2]);
    assert_eq!(drops(&mut inner), [(20, 30)]);
    // All of it is: only what comes now can go.
    let all: Vec<_> = inner.ring.iter().map(|kept| Confirmed::from(&*kept.batch)).collect();
    assert!(all.iter().all(|one| inner.sends(one)));
    let next = inner.numbered;
    assert_eq!(drops(&mut inner), [(next, next + 10)]);
}

#[test]
fn a_hole_of_what_was_confirmed_costs_no_file_among_however_many_stretches() {
    let mut full = Full::begin();
    let (_, next) = full.piece(Cursor::START);
    let (second, _) = full.piece(next);
    full.confirm(&second[5..60]);
    let before = full.dropped();
    full.poll(1);
    assert_eq!((full.dropped(), full.hole_follows_a_window().is_some()), (before, true));
    full.heal();
    full.life.settle();
    // Stretches that are longer each.
    for i in 0..3 * EXCEPTIONS_MAX {
        let batches: Vec<_> = (0..3)
            .map(|_| {
                let batch = big(full.life.spool.run, full.seq, &full.shape);
                full.seq += 10;
                batch
            })
            .collect();
        for batch in &batches {
            full.life.spool.append(batch.clone(), full.life.now);
        }
        full.confirm(&batches[1..]);
        if i % 50 == 49 {
            full.life.now += Duration::from_secs(2);
            full.life.turn();
        }
    }
    full.life.now += Duration::from_secs(20);
    full.life.settle();
    after_a_power_cut(&full);
}

#[test]
fn what_was_confirmed_out_of_memory_is_not_given_again_however_many_stretches_it_makes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = Life::begin(patient(directory.path()), &schema::CURRENT);
    let mut plant = Plant::new(life.spool.run);
    let _disk = block_commits(directory.path());
    for _ in 0..4 * INTERVALS_MAX {
        life.spool.append(plant.batch(), life.now);
    }
    life.now += Duration::from_secs(60);
    life.turn();
    // One device is refused, and the other is not.
    let taken = |life: &mut Life| {
        let mut waits = batches(life);
        waits.retain(|batch| batch.seq % 4 == 0);
        waits.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>()
    };
    let first = taken(&mut life);
    assert_eq!(first.len(), 2 * INTERVALS_MAX);
    for one in &first {
        life.spool.confirm(std::slice::from_ref(one));
    }
    assert_eq!(taken(&mut life), []);
}

#[test]
fn a_power_cut_after_a_full_memory_has_dropped_out_of_turn_costs_no_file() {
    let mut at_a_windows_end = false;
    // How many of the oldest are gone too moves the windows against the hole.
    for gone in 0..3 {
        let mut full = Full::begin();
        let (first, next) = full.piece(Cursor::START);
        let (_, next) = full.piece(next);
        let (third, _) = full.piece(next);
        // The oldest are refused for a while, those behind them are confirmed, and these go out of their turn.
        full.confirm(&third);
        let (again, next) = full.piece(Cursor::START);
        assert_eq!(again, first);
        full.piece(next);
        full.confirm(&first[..gone]);
        full.poll(300);
        at_a_windows_end |= full.hole_follows_a_window().expect("a hole in memory");
        full.heal();
        // As far as the books of the first windows, and no further.
        for _ in 0..3 {
            full.life.now += Duration::from_millis(1);
            full.life.spool.turn(full.life.now);
            after_a_power_cut(&full);
        }
    }
    assert!(at_a_windows_end, "where nothing of the hole is seen in the window");
}

/// Nothing is found damaged.
fn after_a_power_cut(full: &Full) {
    let cut = tempfile::tempdir().expect("a directory");
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{}{suffix}", store::FILE);
        std::fs::copy(full.directory.path().join(&name), cut.path().join(&name)).expect("copied");
    }
    let mut after = Life::begin(settings(cut.path()), &schema::CURRENT);
    after.settle();
    after.waiting();
    after.settle();
    let events = after.waiting().1;
    assert_eq!(folders(cut.path()), 0, "{events:?}");
    assert_eq!(gaps(&events, full.life.spool.run, GapCause::Damaged), BTreeSet::new());
}

fn folders(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("quarantine")).map_or(0, Iterator::count)
}
