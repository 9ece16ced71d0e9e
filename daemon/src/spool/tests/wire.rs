//! What makes room, or is too old, while the sender is at it: told as lost and delivered it never is, as far as anybody can know.

use super::taken_back::Life;
use super::*;
use crate::spool::Asked;
use crate::spool::inner::{RING_BYTES_MAX, WINDOW_BYTES};
use crate::spool::schema;
use crate::spool::shared::Command;
use crate::spool::writer::PATIENCE;

/// A spool at its cap, all of which waits.
struct Full {
    directory: tempfile::TempDir,
    life: Life,
    shape: Arc<Shape>,
    seq: u64,
}

impl Full {
    fn begin() -> Self {
        let mut full = Self::empty();
        while full.evicted() == 0 {
            full.poll();
        }
        full
    }

    fn empty() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let second = Duration::from_secs(1);
        let least = SpoolSettings {
            bytes_max: Some(BYTES_MAX_LEAST),
            commit_every: second,
            ..settings(directory.path())
        };
        let life = Life::begin(least, &schema::CURRENT);
        Self { directory, life, shape: big_shape(), seq: 0 }
    }

    /// A batch, and the turn at the end of its window.
    fn poll(&mut self) {
        self.life.spool.append(big(self.life.spool.run, self.seq, &self.shape), self.life.now);
        self.seq += 10;
        self.life.now += Duration::from_secs(1);
        self.life.turn();
    }

    fn evicted(&self) -> u64 {
        self.life.spool.books_of(self.life.spool.run).expect("there").losses.evicted
    }

    fn stored(&self) -> u64 {
        self.life.spool.committed().next_seq
    }

    /// The sender takes some of the oldest; gives their names.
    fn send(&mut self, every: usize) -> Vec<Confirmed> {
        let batches = self.life.waiting().0;
        let sent: Vec<_> =
            batches.iter().step_by(every).take(5).map(|batch| Confirmed::from(&**batch)).collect();
        assert!(sent.iter().all(|one| self.life.spool.sends(one)));
        sent
    }

    /// The plant goes on until a commit waits.
    fn until_it_waits(&mut self) {
        while self.stored() == self.seq {
            assert!(self.seq < 10_000, "nothing is waited for");
            self.poll();
        }
    }

    /// Many small batches come at once.
    fn fill_memory(&mut self, bytes: usize) {
        let mut plant = Plant { seq: self.seq, ..Plant::new(self.life.spool.run) };
        while self.life.spool.shared.lock().bytes < bytes {
            self.life.spool.append(plant.batch(), self.life.now);
        }
        self.seq = plant.seq;
    }

    /// Each reading waits, was delivered, or is told as lost, and never two of these.
    fn balances(&mut self, delivered: &[Confirmed]) {
        let (waits, events) = self.life.waiting();
        let lost = gaps(&events, self.life.spool.run, GapCause::Evicted);
        let (waits, delivered) = (numbers(&waits), names(delivered));
        assert_eq!(lost.len() as u64, self.evicted());
        assert!(lost.is_disjoint(&delivered), "told as lost and delivered: {lost:?} {delivered:?}");
        assert!(waits.is_disjoint(&lost) && waits.is_disjoint(&delivered));
        assert_eq!((waits.len() + lost.len() + delivered.len()) as u64, self.seq);
        let found = self.life.spool.verify();
        assert_eq!(found.faults, Vec::<String>::new());
    }
}

fn names(of: &[Confirmed]) -> BTreeSet<u64> {
    let numbers = |one: &Confirmed| match *one {
        Confirmed::Batch { seq, n, .. } => seq..seq + n,
        Confirmed::Event { .. } => 0..0,
    };
    of.iter().flat_map(numbers).collect()
}

#[test]
fn what_is_on_the_wire_makes_no_room_and_the_rest_of_what_has_to_go_is_not_sent_any_more() {
    for every in [1, 3] {
        let mut full = Full::begin();
        let before = full.evicted();
        let sent = full.send(every);
        full.until_it_waits();
        let books = full.life.spool.books_of(full.life.spool.run).expect("there");
        assert!(books.losses.evicted > before, "what had not gone");
        assert!(names(&sent).iter().all(|number| !books.lost.touches(*number, number + 1)));
        let first = books.floor();
        let lost = (first..full.seq).step_by(10).find(|number| books.lost.touches(*number, number + 1));
        let lost = Confirmed::from(&*big(full.life.spool.run, lost.expect("behind what went"), &full.shape));
        assert!(!full.life.spool.sends(&lost), "and does not go now");
        full.life.spool.confirm(&sent);
        full.life.turn();
        assert_eq!(full.stored(), full.seq, "acknowledged, it holds up nothing");
        full.life.settle();
        full.balances(&sent);
    }
}

#[test]
fn what_came_back_goes_at_once_and_what_is_never_acknowledged_is_not_waited_for_long() {
    let mut full = Full::begin();
    let sent = full.send(1);
    full.until_it_waits();
    full.life.spool.came_back(&sent);
    full.life.turn();
    assert_eq!(full.stored(), full.seq);
    full.balances(&[]);
    full.send(1);
    full.until_it_waits();
    let since = full.life.now;
    while full.stored() < full.seq {
        full.life.now += Duration::from_millis(500);
        full.life.turn();
        assert!(full.life.now < since + PATIENCE + Duration::from_secs(1), "P2");
    }
    assert!(full.life.now > since + PATIENCE / 2);
    full.balances(&[]);
}

#[test]
fn nobody_who_waits_for_the_disk_waits_for_the_wire() {
    let mut full = Full::begin();
    full.send(1);
    full.until_it_waits();
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    full.life.spool.shared.flush(full.life.now + SOON, reply);
    full.life.turn();
    assert!(answer.try_recv().expect("answered").is_ok());
    full.send(1);
    full.until_it_waits();
    let reply = tokio::sync::oneshot::channel().0;
    full.life.spool.tell(Command::EndRun { reply });
    full.life.turn();
    assert_eq!(full.stored(), full.seq, "the end of the run");
    let mut full = Full::begin();
    full.send(1);
    full.until_it_waits();
    full.fill_memory(2 * WINDOW_BYTES);
    let (directory, seq) = (full.directory, full.seq);
    let now = full.life.now;
    full.life.spool.close(true, now).expect("closes");
    let least = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let mut after = Life::begin(least, &schema::CURRENT);
    let events = after.waiting().1;
    let end = |event: &Arc<Event>| matches!(event.body, Body::RunEnd { next_seq, .. } if next_seq == seq);
    assert!(events.iter().any(end), "a stop stores everything");
}

#[test]
fn the_first_commit_after_trouble_does_not_wait() {
    let mut full = Full::begin();
    full.send(1);
    let disk = block_commits(full.directory.path());
    full.poll();
    assert_eq!(full.life.board.read(|status| status.spool.state.clone()), "failing");
    drop(disk);
    for _ in 0..20 {
        full.life.spool.append(big(full.life.spool.run, full.seq, &full.shape), full.life.now);
        full.seq += 10;
    }
    full.life.now += Duration::from_secs(2);
    full.life.turn();
    assert_eq!(full.stored(), full.seq, "only what has committed is healed");
    assert_eq!(full.life.board.read(|status| status.spool.state.clone()), "ok");
}

#[test]
fn a_request_to_send_again_does_not_wait_for_the_wire_and_the_next_commit_does() {
    let mut full = Full::begin();
    let waits = full.life.waiting().0;
    let newest = waits.last().expect("some");
    full.life.spool.confirm(&[Confirmed::from(&**newest)]);
    full.send(1);
    full.until_it_waits();
    let asked = Asked::Stretch { run: full.life.spool.run, first: newest.seq, next: newest.end() };
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let progress = tokio::sync::watch::Sender::new(0.0);
    full.life.spool.tell(Command::Resend { asked, progress, reply });
    // What is found, and that there is no more.
    full.life.turn();
    full.life.turn();
    let resent = answer.try_recv().expect("answered").expect("stored");
    assert_eq!((resent.readings, full.stored()), (newest.n(), full.seq));
    full.balances(&[]);
    full.send(1);
    full.until_it_waits();
}

#[test]
fn while_a_commit_waits_the_newest_record_stays_as_it_is_and_grows_after_it_if_nobody_has_it() {
    for asked in [false, true] {
        let mut full = Full::begin();
        let (run, first) = (full.life.spool.run, full.evicted());
        // The fourth that goes next; all that comes before it touches what the newest record tells.
        let sent = Confirmed::from(&*big(run, first + 30, &full.shape));
        assert!(full.life.spool.sends(&sent));
        full.until_it_waits();
        let told = |full: &mut Full| {
            let events = full.life.waiting().1;
            let gap = |event: &Arc<Event>| match event.body {
                Body::Gap { first, next, .. } => Some((first, next)),
                _ => None,
            };
            events.iter().filter_map(gap).collect::<Vec<_>>()
        };
        if asked {
            assert_eq!(told(&mut full), [(0, first)], "it is read meanwhile");
        }
        full.life.spool.confirm(std::slice::from_ref(&sent));
        full.life.turn();
        let now = told(&mut full);
        let grown = if asked { vec![(0, first), (first, first + 30)] } else { vec![(0, first + 30)] };
        assert_eq!(now[..now.len() - 1], grown);
        full.balances(&[sent]);
    }
}

#[test]
fn a_record_that_is_to_grow_is_given_to_nobody_while_its_commit_waits() {
    let polls = Full::begin().seq / 10;
    let mut full = Full::empty();
    let run = full.life.spool.run;
    // There is room left for a few.
    (5..polls).for_each(|_| full.poll());
    let sent = full.send(1);
    let (one, other) = (full.seq - 20, full.seq - 10);
    let refuse = |full: &mut Full, seq: u64| {
        let refused = vec![Confirmed::from(&*big(run, seq, &full.shape))];
        let reply = tokio::sync::oneshot::channel().0;
        full.life.spool.tell(Command::DeadLetter { refused, reason: "no".to_owned(), reply });
    };
    refuse(&mut full, one);
    full.life.turn();
    // And for what comes with the other, but for its many names: that is found out when the record has grown.
    refuse(&mut full, other);
    let shape = shape("other", &[ValueKind::Text; 1_000]);
    full.life.spool.append(big(run, full.seq, &shape), full.life.now);
    full.seq += 10;
    full.life.now += Duration::from_secs(1);
    full.life.turn();
    assert!(full.stored() < full.seq, "it waits");
    let told = |full: &mut Full| gaps(&full.life.waiting().1, run, GapCause::DeadLetter);
    assert_eq!(told(&mut full), BTreeSet::new());
    full.life.spool.confirm(&sent);
    full.life.turn();
    assert_eq!(full.stored(), full.seq);
    assert_eq!(told(&mut full), (one..other + 10).collect());
}

#[test]
fn a_memory_that_fills_up_does_not_wait() {
    let mut full = Full::begin();
    full.send(1);
    full.until_it_waits();
    let before = full.stored();
    full.fill_memory(RING_BYTES_MAX / 2 - 1_000);
    full.life.turn();
    assert_eq!(full.stored(), before, "not yet");
    full.fill_memory(RING_BYTES_MAX / 2);
    full.life.turn();
    full.life.now += Duration::from_secs(1);
    full.life.settle();
    assert_eq!(full.stored(), full.seq);
    assert_eq!(full.life.board.read(|status| status.spool.dropped), 0);
}

#[test]
fn a_fast_plant_at_a_small_cap_waits_no_longer_although_it_takes_several_commits() {
    let mut full = Full::begin();
    for batch in full.life.waiting().0 {
        assert!(full.life.spool.sends(&Confirmed::from(&*batch)));
    }
    let (begun, mut longest) = (full.life.now, Duration::ZERO);
    for _ in 0..100 {
        // In 10 s more than four commits take, and all that has to make room is on the wire.
        for _ in 0..20 {
            let batch = big(full.life.spool.run, full.seq, &full.shape);
            full.life.spool.append(batch, full.life.now);
            full.seq += 10;
        }
        full.life.now += Duration::from_millis(500);
        full.life.turn();
        let oldest = full.life.spool.shared.lock().ring.front().map_or(full.life.now, |kept| kept.at);
        longest = longest.max(full.life.now.saturating_duration_since(oldest));
        assert!(
            longest < PATIENCE + Duration::from_secs(2),
            "P2: {longest:?}, after {:?}",
            full.life.now - begun
        );
    }
    assert!(longest > PATIENCE / 2, "it waits");
}

/// A spool that keeps readings for an hour.
fn aged(directory: &Path) -> Life {
    let hour = Duration::from_secs(3600);
    Life::begin(SpoolSettings { max_age: Some(hour), ..settings(directory) }, &schema::CURRENT)
}

#[test]
fn what_is_too_old_and_on_the_wire_is_not_lost_and_nothing_else_waits_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = aged(directory.path());
    let run = life.spool.run;
    let mut plant = Plant::new(run);
    let first: Vec<_> = (0..3).map(|_| plant.batch()).collect();
    for batch in &first {
        life.store(batch);
    }
    let sent: Vec<_> = first[..2].iter().map(|batch| Confirmed::from(&**batch)).collect();
    assert!(sent.iter().all(|one| life.spool.sends(one)));
    let pass = |life: &mut Life, plant: &mut Plant, minutes: u64| {
        for _ in 0..minutes {
            life.now += Duration::from_secs(60);
            life.store(&plant.batch());
        }
    };
    let expired = |life: &mut Life| gaps(&life.waiting().1, run, GapCause::Expired);
    let mut told = BTreeSet::new();
    for _ in 0..75 {
        if told.is_empty() {
            pass(&mut life, &mut plant, 1);
            told = expired(&mut life);
        }
    }
    assert!(told.contains(&4) && !told.contains(&0) && !told.contains(&3), "{told:?}");
    assert!(!life.spool.sends(&Confirmed::from(&*first[2])), "it is lost");
    // One is acknowledged, the other comes back.
    life.spool.confirm(&sent[..1]);
    life.spool.came_back(&sent[1..]);
    pass(&mut life, &mut plant, 10);
    let told = expired(&mut life);
    assert!(!told.contains(&0) && told.contains(&2), "{told:?}");
    let (waits, books) = (numbers(&life.waiting().0), life.spool.books_of(run).expect("there"));
    assert_eq!(books.losses.expired, told.len() as u64);
    assert!(waits.is_disjoint(&told));
    assert_eq!((waits.len() + told.len() + 2) as u64, books.durable, "and one was delivered");
}

#[test]
fn what_is_never_acknowledged_does_not_keep_what_is_too_old() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = aged(directory.path());
    let mut plant = Plant::new(life.spool.run);
    for n in 0..1_100 {
        let batch = plant.batch();
        life.store(&batch);
        assert!(n > 0 || life.spool.sends(&Confirmed::from(&*batch)));
        life.now += Duration::from_secs(10);
    }
    let waits = numbers(&life.waiting().0).len();
    assert!((700..780).contains(&waits), "an hour of 2 readings each 10 s, not {waits}");
}

#[test]
fn each_that_is_too_old_and_on_the_wire_is_waited_for_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = aged(directory.path());
    let run = life.spool.run;
    let mut plant = Plant::new(run);
    let mut sent = Vec::new();
    for _ in 0..2 {
        let (goes, stays) = (plant.batch(), plant.batch());
        life.store(&goes);
        life.store(&stays);
        assert!(life.spool.sends(&Confirmed::from(&*goes)));
        sent.push(Confirmed::from(&*goes));
        life.now += Duration::from_secs(600);
    }
    for (already, one) in sent.iter().enumerate() {
        let expired = |life: &Life| life.spool.books_of(run).expect("there").losses.expired;
        let before = 2 * already as u64;
        for _ in 0..1_000 {
            if expired(&life) == before {
                life.now += Duration::from_secs(5);
                life.turn();
            }
        }
        assert_eq!(expired(&life), before + 2, "what was stored with it and not sent, and it not");
        life.now += Duration::from_secs(2);
        life.spool.confirm(std::slice::from_ref(one));
        life.turn();
    }
}

#[test]
fn a_wait_for_what_is_too_old_ends_when_nothing_is_too_old_any_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = aged(directory.path());
    let run = life.spool.run;
    let mut plant = Plant::new(run);
    let reload = |life: &mut Life, max_age| {
        life.spool.shared.lock().settings.max_age = max_age;
        life.spool.tell(Command::Reconfigure);
        life.turn();
    };
    let goes = plant.batch();
    life.store(&goes);
    life.store(&plant.batch());
    assert!(life.spool.sends(&Confirmed::from(&*goes)));
    let expired = |life: &Life| life.spool.books_of(run).expect("there").losses.expired;
    while expired(&life) == 0 {
        life.now += Duration::from_secs(10);
        life.store(&plant.batch());
    }
    reload(&mut life, None);
    life.spool.confirm(&[Confirmed::from(&*goes)]);
    life.now += Duration::from_secs(4_000);
    let oldest = life.waiting().0.swap_remove(0);
    assert!(life.spool.sends(&Confirmed::from(&*oldest)));
    reload(&mut life, Some(Duration::from_secs(3600)));
    for _ in 0..5 {
        life.store(&plant.batch());
    }
    let books = life.spool.books_of(run).expect("there");
    assert!(expired(&life) > 2 && !books.lost.touches(oldest.seq, oldest.end()), "it was just sent");
}

#[test]
fn a_plant_whose_windows_are_full_regains_patience() {
    let directory = tempfile::tempdir().expect("a directory");
    let roomy = SpoolSettings {
        bytes_max: Some(16 << 20),
        commit_every: Duration::from_secs(60),
        ..settings(directory.path())
    };
    let life = Life::begin(roomy, &schema::CURRENT);
    let mut full = Full { directory, life, shape: big_shape(), seq: 0 };
    let window = |full: &mut Full| {
        let run = full.life.spool.run;
        while !full.life.spool.shared.lock().due(full.life.now) {
            full.life.spool.append(big(run, full.seq, &full.shape), full.life.now);
            full.seq += 10;
        }
        full.life.now += Duration::from_secs(1);
        full.life.turn();
    };
    while full.evicted() == 0 {
        window(&mut full);
    }
    for round in 0..3 {
        let sent = full.send(1);
        window(&mut full);
        let waits = full.life.spool.shared.lock().bytes >= WINDOW_BYTES;
        let books = full.life.spool.books_of(full.life.spool.run).expect("there");
        let told = names(&sent).iter().filter(|n| books.lost.touches(**n, **n + 1)).count();
        assert!(waits && told == 0, "round {round}: just sent, given up at once");
        for _ in 0..24 {
            full.life.now += Duration::from_millis(500);
            full.life.turn();
        }
        assert!(full.life.spool.shared.lock().bytes < WINDOW_BYTES);
    }
}
