//! The session against scripted brokers, in virtual time: no socket, no thread, every seed printed by proptest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::event::{Body, Event, GapCause};
use crate::spool::Item;
use crate::uplink::config::Broker;
use crate::uplink::sample::{RUN, batch, stamp};

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

/// A session with a spool that keeps what waits, and a broker that the test plays.
struct World {
    session: Session,
    now: Instant,
    /// What waits, in the order of storing, with the number of its block.
    spool: Vec<(u64, Item)>,
    stored: u64,
    next_seq: u64,
    /// Confirmed to the spool, and dead-lettered.
    confirmed: Vec<Confirmed>,
    dead: Vec<Confirmed>,
    /// Published on this connection and not yet acknowledged.
    out: Vec<Out>,
    connects: Vec<Instant>,
    /// The spool answers when the test says so.
    slow: bool,
    question: Option<Cursor>,
    ended: Option<End>,
    left: bool,
    done: bool,
    /// Batches seen by the broker with a success reason.
    accepted: BTreeSet<u64>,
}

impl World {
    fn new(config: &UplinkConfig) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(Settings::new(config, "plant7-gw1".into(), RUN), 0, now),
            now,
            spool: Vec::new(),
            stored: 0,
            next_seq: 0,
            confirmed: Vec::new(),
            dead: Vec::new(),
            out: Vec::new(),
            connects: Vec::new(),
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
        self.session.on_stored(self.next_seq);
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
                    self.confirmed.extend(what);
                }
                Action::DeadLetter(what, _) => {
                    self.spool.retain(|(_, item)| !what.contains(&Self::key(item)));
                    self.dead.extend(what);
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

    /// What waits behind the cursor, at most 64 items.
    fn answer(&mut self, cursor: Cursor) {
        let block = (0..=self.stored).find(|&block| cursor == Cursor::after(block)).unwrap();
        let waiting: Vec<(u64, Item)> =
            self.spool.iter().filter(|(number, _)| *number > block).take(64).cloned().collect();
        let span = waiting.last().map(|(last, _)| Span {
            next: Cursor::after(*last),
            items: waiting.iter().map(|(_, item)| item.clone()).collect(),
        });
        self.session.on_span(self.now, span);
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
fn a_batch_is_confirmed_only_after_its_puback() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    assert_eq!(world.seqs("live"), [0]);
    assert!(world.confirmed.is_empty());
    world.pass(Duration::from_secs(10));
    assert!(world.confirmed.is_empty());
    world.ack_all();
    assert_eq!(world.confirmed, [Confirmed::Batch { run: RUN, seq: 0, n: 4 }]);
}

#[test]
fn what_is_in_flight_in_one_lane_is_not_sent_in_the_other() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    world.session.on_stored(world.next_seq);
    world.run();
    assert_eq!(world.out.len(), 1, "the live message only");
    world.ack_all();
    world.session.on_stored(world.next_seq);
    world.run();
    assert!(world.out.is_empty() && world.spool.is_empty());
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

#[test]
fn a_connection_that_ends_confirms_nothing_and_all_comes_again() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..5 {
        world.take("a", i * 4, 4);
        world.run();
    }
    world.cut();
    assert!(world.confirmed.is_empty());
    world.pass(Duration::from_secs(31));
    world.connect(Granted::default());
    assert_eq!(world.seqs("live"), [16], "the device's newest first");
    assert_eq!(world.seqs("backlog"), [0, 4, 8, 12], "the rest from the spool, oldest first");
    world.ack_all();
    assert_eq!(world.confirmed.len(), 5);
}

#[test]
fn after_an_outage_each_devices_newest_goes_before_any_backlog() {
    let mut world = World::new(&config());
    world.run();
    for (i, device) in (0..300).zip(["a", "b", "c"].iter().cycle()) {
        world.take(device, i * 4, 4);
    }
    world.connect(Granted::default());
    let order: Vec<&str> = world.out.iter().map(Out::lane).collect();
    assert_eq!(order.get(..4), Some(&["", "live", "live", "live"][..]), "birth, then each device's newest");
    assert_eq!(world.seqs("live"), [297 * 4, 298 * 4, 299 * 4]);
    world.ack_all();
    assert_eq!(world.confirmed_seqs().len(), 300);
    assert_eq!(world.confirmed.len(), 300, "nothing twice");
}

#[test]
fn the_backlog_begins_with_little_and_never_uses_the_live_lanes_part_of_the_window() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..2000 {
        world.store("a", i * 20, 20);
    }
    world.run();
    let bytes: usize = world.out.iter().map(|out| out.bytes).sum();
    assert!(bytes <= 4096 + 1024, "{bytes}");
    while !world.out.is_empty() {
        world.now += Duration::from_micros(200);
        world.ack(0, 0);
        assert!(world.out.len() <= 12, "a quarter of 16 stays free");
    }
    assert_eq!(world.confirmed.len(), 2000);
}

#[test]
fn a_receive_maximum_of_one_is_obeyed_and_live_goes_first() {
    let granted = Granted { receive_max: 1, ..Granted::default() };
    let mut world = World::connected(&config(), granted);
    for i in 0..10 {
        world.store("a", i * 4, 4);
    }
    for i in 10..12 {
        world.take("b", i * 4, 4);
    }
    world.run();
    let mut lanes = Vec::new();
    while !world.out.is_empty() {
        assert_eq!(world.out.len(), 1);
        lanes.push(world.out[0].lane().to_owned());
        world.ack(0, 0);
    }
    assert_eq!(world.confirmed_seqs().len(), 12);
    let first_backlog = lanes.iter().position(|lane| lane == "backlog").unwrap();
    assert!(lanes.iter().skip(first_backlog).all(|lane| lane != "live"), "{lanes:?}");
}

#[test]
fn a_broker_that_never_acknowledges_is_given_up() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.pass(Duration::from_secs(29));
    assert!(world.ended.is_none());
    world.pass(Duration::from_secs(2));
    assert!(world.ended.as_ref().is_some_and(|end| end.words.contains("acknowledged nothing")));
    assert!(world.confirmed.is_empty());
}

#[test]
fn a_full_window_sleeps_until_an_acknowledgement_although_the_status_is_due() {
    let config = UplinkConfig { ack_timeout: Duration::from_secs(600), ..config() };
    let mut world = World::connected(&config, Granted { receive_max: 1, ..Granted::default() });
    world.pass(Duration::from_secs(120)); // each rest asserts that what is due lies ahead
    assert_eq!(world.out.len(), 1, "the birth is still in flight");
    world.ack(0, 0);
    assert_eq!(world.out.len(), 1, "and the status is due again");
}

#[test]
fn an_idle_connection_is_not_given_up() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for _ in 0..100 {
        world.pass(Duration::from_secs(10));
        world.ack_all();
    }
    assert!(world.ended.is_none());
}

#[test]
fn a_broker_that_accepts_and_closes_sees_few_connections() {
    let mut world = World::new(&config());
    world.run();
    let start = world.now;
    while world.now.duration_since(start) < Duration::from_secs(3600) {
        world.connect(Granted::default());
        world.end(End::new(Cause::Closed, "closed"));
        let before = world.connects.len();
        while world.connects.len() == before {
            world.pass(Duration::from_secs(1));
        }
    }
    for window in world.connects.windows(13) {
        assert!(window[12].duration_since(window[0]) >= Duration::from_secs(600));
    }
    assert!(world.connects.len() > 12, "and it is not forgotten");
}

#[test]
fn a_take_over_is_recognised_by_its_pattern() {
    let mut world = World::new(&config());
    world.run();
    for turn in 0..3 {
        world.connect(Granted::default());
        world.ack_all();
        world.end(End::new(Cause::Closed, "closed"));
        let said = world.session.trouble().unwrap().contains("cloned card");
        assert_eq!(said, turn == 2);
        world.pass(Duration::from_secs(60));
    }
}

#[test]
fn a_receive_maximum_of_zero_or_no_qos_1_ends_the_connection() {
    for granted in
        [Granted { receive_max: 0, ..Granted::default() }, Granted { qos1: false, ..Granted::default() }]
    {
        let world = World::connected(&config(), granted);
        assert_eq!(world.ended.map(|end| end.cause), Some(Cause::Refused));
    }
}

#[test]
fn a_refused_message_becomes_a_dead_letter_only_while_others_pass() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..20 {
        world.store(if i % 5 == 0 { "denied" } else { "a" }, i * 4, 4);
    }
    world.run();
    for _ in 0..200 {
        while let Some(out) = world.out.first() {
            let code = if out.topic.ends_with("denied") { 0x87 } else { 0 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
        // The plant goes on.
        world.take("a", 1000 + world.confirmed.len() as u64 * 4, 4);
        world.run();
    }
    assert_eq!(world.dead.len(), 4);
    assert!((0..20).filter(|i| i % 5 != 0).all(|i| world.confirmed_seqs().contains(&(i * 4))));
    assert!((0..20).filter(|i| i % 5 == 0).all(|i| !world.confirmed_seqs().contains(&(i * 4))));
}

#[test]
fn a_broker_that_refuses_everything_costs_no_reading() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..50 {
        world.store("a", i * 4, 4);
    }
    world.run();
    let mut refused = 0;
    for _ in 0..3600 {
        while !world.out.is_empty() {
            refused += usize::from(!world.out[0].lane().is_empty());
            let code = if world.out[0].lane().is_empty() { 0 } else { 0x87 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.dead.is_empty() && world.confirmed.is_empty());
    assert_eq!(world.spool.len(), 50);
    assert!(refused < 100, "{refused} refused messages in an hour");
    assert!(world.session.trouble().unwrap().contains("access list"));
    // And when it is let in, all goes.
    for _ in 0..200 {
        world.ack_all();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.confirmed.len(), 50);
}

#[test]
fn a_broker_that_stops_taking_anything_is_not_sent_a_long_backlog_over_and_over() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.ack_all();
    assert_eq!(world.confirmed.len(), 1, "it took something once");
    for i in 1..10_000 {
        world.store("a", i * 4, 4);
    }
    world.run();
    let mut refused = 0;
    for _ in 0..600 {
        while !world.out.is_empty() && refused < 2_000 {
            let data = !world.out[0].lane().is_empty();
            refused += usize::from(data);
            world.ack(0, if data { 0x87 } else { 0 });
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.dead.is_empty() && world.confirmed.len() == 1);
    assert!(refused < 150, "{refused} refused messages in ten minutes");
    for _ in 0..200 {
        world.ack_all();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.confirmed.len(), 10_000, "and when it takes them again, all go");
}

#[test]
fn a_long_refused_backlog_does_not_keep_what_lies_behind_it_for_ever() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.ack_all();
    for i in 1..=2_000 {
        world.store(if i < 2_000 { "denied" } else { "a" }, i * 4, 4);
    }
    world.run();
    for _ in 0..86_400 {
        if world.confirmed_seqs().contains(&8_000) {
            return;
        }
        while let Some(out) = world.out.first() {
            let code = if out.topic.ends_with("denied") { 0x87 } else { 0 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
    }
    panic!("a day, and it was not sent");
}

#[test]
fn held_data_waits_until_somebody_subscribes() {
    let config = UplinkConfig { nobody_listens: NobodyListens::Hold, ..config() };
    let mut world = World::connected(&config, Granted::default());
    for i in 0..30 {
        world.store("a", i * 4, 4);
    }
    world.run();
    for _ in 0..120 {
        while !world.out.is_empty() {
            world.ack(0, 0x10);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.confirmed.is_empty(), "data is held");
    assert!(world.session.numbers().nobody_listening > 0);
    for _ in 0..120 {
        world.ack_all();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.confirmed.len(), 30);
}

#[test]
fn nobody_listening_confirms_by_default_and_is_counted() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    world.ack(0, 0x10);
    assert_eq!(world.confirmed.len(), 1);
    assert_eq!(world.session.numbers().nobody_listening, 1);
}

#[test]
fn a_quota_makes_us_wait_longer_each_time() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("a", 0, 4);
    world.run();
    let mut tries = Vec::new();
    let start = world.now;
    for _ in 0..300 {
        if !world.out.is_empty() {
            if !world.out[0].lane().is_empty() {
                tries.push(world.now.duration_since(start).as_secs());
            }
            let code = if world.out[0].lane().is_empty() { 0 } else { 0x97 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(tries.len() >= 5 && tries.len() < 12, "{tries:?}");
    assert!(world.dead.is_empty() && world.confirmed.is_empty());
}

#[test]
fn the_message_behind_an_unreadable_acknowledgement_is_found() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..10 {
        world.store(if i == 3 { "odd" } else { "a" }, i * 4, 4);
    }
    world.run();
    for _ in 0..60 {
        while let Some(out) = world.out.first() {
            if out.topic.ends_with("odd") {
                world.end(End::new(Cause::Unreadable, "reason 0x92"));
            } else {
                world.ack(0, 0);
            }
        }
        world.pass(Duration::from_secs(301));
        world.take("a", 1000 + world.confirmed.len() as u64 * 4, 4);
        if !world.session.is_connected() {
            world.connect(Granted::default());
        }
    }
    assert_eq!(world.dead, [Confirmed::Batch { run: RUN, seq: 12, n: 4 }]);
    assert!((0..10).filter(|i| *i != 3).all(|i| world.confirmed_seqs().contains(&(i * 4))));
}

#[test]
fn a_message_larger_than_the_broker_takes_never_goes_out() {
    let granted = Granted { packet_max: Some(2000), ..Granted::default() };
    let mut world = World::connected(&config(), granted);
    world.ack_all();
    world.take("big", 0, 500);
    for i in 1..10 {
        world.take("a", 1000 + i * 4, 4);
    }
    world.run();
    for _ in 0..120 {
        assert!(world.out.iter().all(|out| out.bytes + out.topic.len() < 2000));
        world.ack_all();
        world.pass(Duration::from_secs(1));
        world.take("a", 2000 + world.confirmed.len() as u64 * 4, 4);
        world.run();
    }
    assert_eq!(world.dead, [Confirmed::Batch { run: RUN, seq: 0, n: 500 }]);
}

#[test]
fn a_live_lane_that_overflows_loses_nothing() {
    let granted = Granted { receive_max: 1, ..Granted::default() };
    let mut world = World::connected(&config(), granted);
    for i in 0..1000 {
        world.take("a", i * 4, 4);
        world.run();
    }
    for _ in 0..100 {
        world.ack_all();
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(world.confirmed_seqs().len(), 1000);
}

#[test]
fn records_go_to_their_topic_and_are_confirmed_like_data() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let body = Body::Gap { of: RUN, first: 4, next: 9, cause: GapCause::Evicted };
    world.keep(Item::Event(Arc::new(Event { run: RUN, number: 3, stamp: stamp(), body })));
    world.run();
    assert_eq!(world.out[0].topic, "fieldspool/plant7-gw1/event");
    world.ack_all();
    assert_eq!(world.confirmed, [Confirmed::Event { run: RUN, number: 3 }]);
}

#[test]
fn readings_that_will_not_come_do_not_hold_back_what_is_confirmed() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("a", 0, 4);
    world.store("a", 4, 4);
    world.spool.remove(0); // evicted
    world.run();
    world.ack_all();
    assert_eq!(world.session.confirmed_to(), 0);
    world.pass(Duration::from_secs(62));
    world.ack_all();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.session.confirmed_to(), 8);
}

#[test]
fn live_every_gathers_batches_of_a_device_into_one_message() {
    let config = UplinkConfig { live_every: Duration::from_secs(5), ..config() };
    let mut world = World::connected(&config, Granted::default());
    world.ack_all();
    world.session.offer(batch("a", 0, 4));
    world.run();
    assert_eq!(world.seqs("live"), [0], "the first at once");
    world.ack_all();
    for i in 1..5 {
        world.pass(Duration::from_millis(900));
        world.session.offer(batch(if i == 3 { "b" } else { "a" }, i * 4, 4));
        world.run();
    }
    assert!(world.out.is_empty());
    world.pass(Duration::from_secs(2));
    let messages: Vec<Vec<u64>> = world.out.iter().map(Out::seqs).filter(|s| !s.is_empty()).collect();
    assert_eq!(messages, [vec![4, 8, 16], vec![12]]);
}

#[test]
fn one_topic_for_the_whole_gateway_carries_it_in_order() {
    let mut config = config();
    config.topics.live = "plant/live".parse().unwrap();
    config.topics.backlog = "plant/backlog".parse().unwrap();
    let mut world = World::connected(&config, Granted::default());
    for (i, device) in (0..40).zip(["a", "b", "c"].iter().cycle()) {
        world.store(device, i * 4, 4);
    }
    world.run();
    let mut seqs = Vec::new();
    while !world.out.is_empty() {
        seqs.extend(world.out[0].seqs());
        world.ack(0, 0);
    }
    assert_eq!(seqs, (0..40).map(|i| i * 4).collect::<Vec<u64>>());
}

#[test]
fn unsynced_stamps_are_corrected_once_the_clock_is_known() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let mut early = (*batch("a", 0, 1)).clone();
    early.stamp = Stamp { wall_us: 1_000_000, clock: ClockQuality::Unsynced, ..early.stamp };
    let boot = early.stamp.boot;
    world.keep(Item::Batch(Arc::new(early)));
    world.session.on_clock(ClockCorrection { boot, offset_us: 86_400_000_000, at_mono_us: 100 });
    world.session.on_stored(world.next_seq);
    world.run();
    let json = world.out[0].json.clone().unwrap();
    assert_eq!(json["batches"][0]["time"], "1970-01-02T00:00:01.000000Z");
    assert_eq!(json["batches"][0]["clock"], "corrected");
}

#[test]
fn a_kick_cuts_the_wait_short_but_not_the_sparing_of_a_broker_that_refuses() {
    let mut world = World::new(&config());
    world.run();
    world.end(End::new(Cause::Network, "no route"));
    assert_eq!(world.connects.len(), 1);
    world.session.kick(world.now);
    world.run();
    assert_eq!(world.connects.len(), 2, "a cable was plugged in");
    for _ in 0..20 {
        world.end(End::new(Cause::Refused, "not you"));
        world.session.kick(world.now);
        world.run();
    }
    assert!(world.connects.len() < 10, "{}", world.connects.len());
}

#[test]
fn a_session_counts_on_where_the_one_before_it_ended() {
    let mut session = Session::new(Settings::new(&config(), "gw".into(), RUN), 7, Instant::now());
    assert_eq!(session.next(Instant::now()), Some(Action::Connect));
    assert_eq!(session.numbers().connects, 8, "a will of before is older than this birth");
}

#[test]
fn a_stop_says_so_waits_for_its_acknowledgement_and_disconnects() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.session.on_stop(world.now + Duration::from_secs(3));
    world.take("a", 4, 4);
    world.run();
    assert_eq!(world.out.len(), 3, "birth, live, the last word; no new data");
    assert!(!world.left);
    world.ack_all();
    assert!(world.left && !world.done);
    world.end(End::new(Cause::Closed, "closed"));
    assert!(world.done);
}

#[test]
fn a_stop_ends_in_time_whatever_the_broker_does() {
    let mut world = World::connected(&config(), Granted::default());
    world.session.on_stop(world.now + Duration::from_secs(3));
    world.run();
    world.pass(Duration::from_secs(4));
    assert!(world.done);
    let mut waiting = World::new(&config());
    waiting.run();
    waiting.session.on_stop(waiting.now + Duration::from_secs(3));
    waiting.run();
    assert!(waiting.done, "without a connection at once");
}

#[test]
fn a_new_configuration_leaves_in_order_and_connects_at_once() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    let settings = Settings::new(&config(), "plant7-gw1".into(), RUN);
    world.session.on_config(world.now, settings);
    world.run();
    assert!(!world.left, "what is in flight is waited for");
    world.ack_all();
    assert!(world.left);
    world.end(End::new(Cause::Closed, "closed"));
    assert_eq!(world.connects.len(), 2);
}

#[test]
fn a_new_configuration_that_comes_while_connecting_gives_up_the_old_brokers_connection() {
    let mut world = World::new(&config());
    world.run();
    assert_eq!(world.connects.len(), 1);
    world.session.on_config(world.now, Settings::new(&config(), "plant7-gw1".into(), RUN));
    world.run();
    assert!(world.ended.is_some() && world.session.trouble().is_none());
    assert_eq!(world.connects.len(), 2, "with the new one, at once");
}

/// What a hostile broker does next.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Ack(usize),
    Nack(usize, u8),
    Store(u8),
    Take(u8),
    Cut,
    Close,
    Pass(u64),
    Connect(u16),
    Answer,
}

fn turn() -> impl Strategy<Value = Turn> {
    let reason = prop::sample::select(vec![0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
    prop_oneof![
        8 => any::<usize>().prop_map(Turn::Ack),
        1 => (any::<usize>(), reason).prop_map(|(at, code)| Turn::Nack(at, code)),
        3 => (0_u8..4).prop_map(Turn::Store),
        3 => (0_u8..4).prop_map(Turn::Take),
        1 => Just(Turn::Cut),
        1 => Just(Turn::Close),
        3 => (0_u64..40).prop_map(Turn::Pass),
        2 => (1_u16..20).prop_map(Turn::Connect),
        6 => Just(Turn::Answer),
    ]
}

fn play(world: &mut World, turn: Turn, seq: &mut u64) {
    let up = world.session.is_connected();
    match turn {
        Turn::Ack(at) if !world.out.is_empty() => world.ack(at % world.out.len(), 0),
        Turn::Nack(at, code) if !world.out.is_empty() => world.ack(at % world.out.len(), code),
        Turn::Store(device) | Turn::Take(device) => {
            let name = format!("d{device}");
            if matches!(turn, Turn::Take(_)) {
                world.take(&name, *seq, 4);
            } else {
                world.store(&name, *seq, 4);
            }
            *seq += 4;
            world.run();
        }
        Turn::Cut if up => world.cut(),
        Turn::Close if up => world.end(End::new(Cause::Closed, "closed")),
        Turn::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
        Turn::Connect(receive_max) if world.session.phase == Phase::Connecting => {
            world.connect(Granted { receive_max, ..Granted::default() });
        }
        Turn::Answer => {
            if let Some(cursor) = world.question.take() {
                world.answer(cursor);
                world.run();
            }
        }
        _ => {}
    }
}

fn batch_key(seq: u64) -> Confirmed {
    Confirmed::Batch { run: RUN, seq, n: 4 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_broker_does_nothing_is_confirmed_that_it_did_not_take_and_all_arrives_in_the_end(
        turns in proptest::collection::vec(turn(), 1..150),
    ) {
        let mut world = World::new(&config());
        world.run();
        world.slow = true;
        let mut seq = 0;
        for turn in turns {
            play(&mut world, turn, &mut seq);
            prop_assert!(world.confirmed_seqs().is_subset(&world.accepted));
            prop_assert!(world.out.len() <= 16);
            let gone = |one: &u64| world.accepted.contains(one) || world.dead.contains(&batch_key(*one));
            let first_missing = (0..=seq).step_by(4).find(|one| !gone(one)).unwrap_or(seq);
            prop_assert!(world.session.confirmed_to() <= first_missing);
            let mut carried: BTreeMap<u64, usize> = BTreeMap::new();
            for sent in world.out.iter().flat_map(Out::seqs) {
                *carried.entry(sent).or_default() += 1;
            }
            prop_assert!(carried.values().all(|times| *times == 1), "in flight twice: {:?}", carried);
        }
        // From now on broker and spool behave.
        world.slow = false;
        if let Some(cursor) = world.question.take() {
            world.answer(cursor);
        }
        for _ in 0..400 {
            if world.spool.is_empty() {
                break;
            }
            if world.session.phase == Phase::Connecting {
                world.connect(Granted::default());
            }
            world.ack_all();
            world.pass(Duration::from_secs(2));
        }
        prop_assert!(world.spool.is_empty(), "still waiting: {:?}", world.spool.len());
        prop_assert_eq!(world.session.confirmed_to(), seq);
        prop_assert_eq!(world.confirmed.len() + world.dead.len(), usize::try_from(seq / 4).unwrap());
    }
}
