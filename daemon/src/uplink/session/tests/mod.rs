//! The session against scripted brokers, in virtual time: no socket, no thread, every seed printed by proptest.

mod ends;
mod hostile;
mod lanes;
mod refusals;

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use super::*;
use crate::model::event::{Body, Event, GapCause};
use crate::spool::{Committed, Item, Span};
use crate::uplink::config::Broker;
use crate::uplink::sample::{RUN, batch, stamp};
use crate::uplink::words::Cause;

fn config() -> UplinkConfig {
    UplinkConfig::new(Broker { host: "localhost".into(), port: 1883, tls: false })
}

/// What a published message carries, and where it went.
#[derive(Clone, Debug)]
struct Out {
    token: Token,
    topic: String,
    json: Option<serde_json::Value>,
    bytes: usize,
}

impl Out {
    fn lane(&self) -> &str {
        self.json.as_ref().and_then(|json| json["lane"].as_str()).unwrap_or("")
    }

    fn seqs(&self) -> Vec<u64> {
        let batches = self.json.as_ref().and_then(|json| json["batches"].as_array());
        batches.into_iter().flatten().filter_map(|b| b["seq"].as_u64()).collect()
    }
}

/// The books: what is lost, and what is on the wire.
#[derive(Clone, Debug, Default)]
struct Desk(Arc<Mutex<(HashSet<Confirmed>, HashSet<Confirmed>)>>);

impl Desk {
    fn lose(&self, what: &Batch) {
        self.0.lock().unwrap().0.insert(Confirmed::from(what));
    }

    fn on_the_wire(&self) -> HashSet<Confirmed> {
        self.0.lock().unwrap().1.clone()
    }

    fn confirm(&self, what: &[Confirmed]) {
        self.0.lock().unwrap().1.retain(|one| !what.contains(one));
    }
}

impl Books for Desk {
    fn sends(&self, what: &Confirmed) -> bool {
        let mut desk = self.0.lock().unwrap();
        let goes = !desk.0.contains(what);
        if goes && matches!(what, Confirmed::Batch { .. }) {
            desk.1.insert(*what);
        }
        goes
    }

    fn came_back(&self, what: &[Confirmed]) {
        self.confirm(what);
    }
}

/// A session with a spool that keeps what waits, and a broker that the test plays.
struct World {
    session: Session,
    books: Desk,
    now: Instant,
    /// What waits, in the order of storing, with the number of its block.
    spool: Vec<(u64, Item)>,
    stored: u64,
    next_seq: u64,
    /// Confirmed to the spool, and dead-lettered.
    confirmed: Vec<Confirmed>,
    dead: Vec<Confirmed>,
    /// Whether the spool stores a dead letter; `None`: it has not said yet.
    letters: Option<bool>,
    letters_asked: Vec<Vec<Confirmed>>,
    /// Published on this connection and not yet acknowledged.
    out: Vec<Out>,
    connects: Vec<Instant>,
    /// What waits cannot be given: its file was set aside, and is being searched.
    hidden: bool,
    /// The spool answers when the test says so.
    slow: bool,
    question: Option<Cursor>,
    ended: Option<End>,
    left: bool,
    done: bool,
    /// Batches seen by the broker with a success reason.
    accepted: BTreeSet<u64>,
}

impl Session {
    /// The books have on the wire what the session has in flight.
    fn books_agree(&self, on_the_wire: &HashSet<Confirmed>) {
        let batch = |one: &&Confirmed| matches!(one, Confirmed::Batch { .. });
        let in_flight: HashSet<_> = self.in_flight.iter().filter(batch).copied().collect();
        assert_eq!(in_flight, *on_the_wire);
    }
}

impl World {
    fn new(config: &UplinkConfig) -> Self {
        let (now, books) = (Instant::now(), Desk::default());
        let settings = Settings::new(config, "plant7-gw1".into(), RUN);
        Self {
            session: Session::new(settings, Box::new(books.clone()), 0, now),
            books,
            now,
            spool: Vec::new(),
            stored: 0,
            next_seq: 0,
            confirmed: Vec::new(),
            dead: Vec::new(),
            letters: Some(true),
            letters_asked: Vec::new(),
            out: Vec::new(),
            connects: Vec::new(),
            hidden: false,
            slow: false,
            question: None,
            ended: None,
            left: false,
            done: false,
            accepted: BTreeSet::new(),
        }
    }

    /// A world with a connection whose birth is acknowledged.
    fn connected(config: &UplinkConfig, granted: Granted) -> Self {
        let mut world = Self::new(config);
        world.run();
        world.connect(granted);
        world
    }

    fn connect(&mut self, granted: Granted) {
        self.session.on_connected(self.now, granted);
        self.run();
    }

    fn store(&mut self, device: &str, seq: u64, n: u16) -> Arc<Batch> {
        let batch = batch(device, seq, n);
        self.keep(Item::Batch(batch.clone()));
        batch
    }

    fn keep(&mut self, item: Item) {
        self.stored += 1;
        if let Item::Batch(batch) = &item {
            self.next_seq = self.next_seq.max(batch.end());
        }
        self.spool.push((self.stored, item));
        self.on_stored();
    }

    fn on_stored(&mut self) {
        let waits = |item: &Item| match item {
            Item::Batch(batch) => (batch.n(), 0),
            Item::Event(_) => (0, 1),
        };
        let waiting = self.spool.iter().map(|(_, item)| waits(item));
        let (waiting, records) = waiting.fold((0, 0), |(n, r), (more, one)| (n + more, r + one));
        let next_seq = self.next_seq;
        self.session.on_stored(Committed { next_seq, waiting, records, ..Committed::default() });
    }

    /// As intake does it: live first, stored at the end of the window.
    fn take(&mut self, device: &str, seq: u64, n: u16) {
        let batch = self.store(device, seq, n);
        self.session.offer(batch);
    }

    fn key(item: &Item) -> Confirmed {
        match item {
            Item::Batch(batch) => Confirmed::from(&**batch),
            Item::Event(event) => Confirmed::from(&**event),
        }
    }

    /// Performs until nothing is left to do.
    fn run(&mut self) {
        for _ in 0..100_000 {
            let Some(action) = self.session.next(self.now) else {
                let due = self.session.deadline();
                assert!(due.is_none_or(|due| due > self.now), "asks to be woken at once, and does nothing");
                self.session.books_agree(&self.books.on_the_wire());
                return;
            };
            match action {
                Action::Connect => self.connects.push(self.now),
                Action::Publish { token, topic, payload, .. } => {
                    let json = serde_json::from_slice(&payload).unwrap();
                    self.out.push(Out { token, topic, json: Some(json), bytes: payload.len() });
                }
                Action::Status { token, topic, .. } => {
                    self.out.push(Out { token, topic, json: None, bytes: 0 });
                }
                Action::Span(cursor) if self.slow => self.question = Some(cursor),
                Action::Span(cursor) => self.answer(cursor),
                Action::Confirm(what) => {
                    self.spool.retain(|(_, item)| !what.contains(&Self::key(item)));
                    self.books.confirm(&what);
                    self.confirmed.extend(what);
                }
                Action::DeadLetter(what, _) => {
                    self.letters_asked.push(what.clone());
                    if let Some(stored) = self.letters {
                        self.letter(what, stored);
                    }
                }
                Action::Leave => self.left = true,
                Action::GiveUp(end) => {
                    self.end(end);
                    return;
                }
                Action::Done => {
                    self.done = true;
                    return;
                }
            }
        }
        panic!("the session never comes to rest");
    }

    fn letter(&mut self, what: Vec<Confirmed>, stored: bool) {
        self.session.on_dead_letter(self.now, &what, stored);
        if stored {
            self.spool.retain(|(_, item)| !what.contains(&Self::key(item)));
            self.dead.extend(what);
        }
    }

    /// What waits behind the cursor, at most 64 items.
    fn answer(&mut self, cursor: Cursor) {
        if self.hidden {
            return self.session.on_span(self.now, None, self.settled_to());
        }
        let block = (0..=self.stored).find(|&block| cursor == Cursor::after(block)).unwrap();
        let waiting: Vec<(u64, Item)> =
            self.spool.iter().filter(|(number, _)| *number > block).take(64).cloned().collect();
        let span = waiting.last().map(|(last, _)| Span {
            next: Cursor::after(*last),
            items: waiting.iter().map(|(_, item)| item.clone()).collect(),
        });
        self.session.on_span(self.now, span, self.settled_to());
    }

    /// As the spool's books tell it.
    fn settled_to(&self) -> u64 {
        let own = |item: &Item| match item {
            Item::Batch(batch) if batch.run == RUN => Some(batch.seq),
            _ => None,
        };
        self.spool.iter().filter_map(|(_, item)| own(item)).min().unwrap_or(self.next_seq)
    }

    fn ack(&mut self, at: usize, code: u8) {
        let out = self.out.remove(at);
        if code < 0x80 {
            self.accepted.extend(out.seqs());
        }
        self.session.on_puback(self.now, out.token, code);
        self.run();
    }

    fn ack_all(&mut self) {
        while !self.out.is_empty() {
            self.ack(0, 0);
        }
    }

    fn end(&mut self, end: End) {
        self.out.clear();
        self.question = None;
        self.session.on_ended(self.now, end.clone(), 0.5);
        self.ended = Some(end);
        self.run();
    }

    fn cut(&mut self) {
        self.end(End::new(Cause::Network, "cut"));
    }

    /// Time passes; whatever is due is done in order.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(due) = self.session.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due) + Duration::from_micros(1);
            self.run();
        }
        self.now = self.now.max(until);
        self.run();
    }

    fn seqs(&self, lane: &str) -> Vec<u64> {
        self.out.iter().filter(|out| out.lane() == lane).flat_map(Out::seqs).collect()
    }

    fn confirmed_seqs(&self) -> BTreeSet<u64> {
        let seq = |one: &Confirmed| match one {
            Confirmed::Batch { seq, .. } => Some(*seq),
            Confirmed::Event { .. } => None,
        };
        self.confirmed.iter().filter_map(seq).collect()
    }
}

#[test]
fn what_waits_again_behind_the_cursor_is_sent_and_what_is_in_flight_is_not_sent_twice() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let first = world.store("a", 0, 4);
    world.store("a", 4, 4);
    world.run();
    world.ack_all();
    assert!(world.spool.is_empty());
    world.store("a", 8, 4);
    world.run();
    assert_eq!(world.seqs("backlog"), [8]);
    // The first one is confirmed, and a person wants it again; its block lies behind the cursor.
    world.spool.insert(0, (1, Item::Batch(first)));
    world.session.on_resend();
    world.run();
    let mut sent = world.seqs("backlog");
    sent.sort_unstable();
    assert_eq!(sent, [0, 8]);
    world.ack_all();
    assert!(world.spool.is_empty() && world.out.is_empty());
}
