//! The judge's own tests: what a campaign without a fault never shows, that each fault is seen and told in its words.
//!
//! Messages and mosquitto's log are made up, in the form that both have in a campaign, and wrong in one thing at a time; the
//! plant is a real one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::judge::{Evidence, Verdict, judge};
use super::plant::{POINTS, Plant, value};
use super::{Campaign, End};
use crate::support::broker::GATEWAY;
use crate::support::subscriber::Message;

const RUN: &str = "00000001-0000000a";

/// Readings of a batch.
const N: u64 = POINTS as u64;

/// What the plant was asked for, always unit 1.
const POLLS: u32 = 4;

/// Makes it wrong in one thing.
type Spoil = fn(&mut Story);

/// What happened, as the judge is told it.
struct Story {
    plant: Plant,
    log: String,
    messages: Vec<Message>,
    /// Batches counted as stored.
    claimed: u64,
}

impl Story {
    /// Two connections. On the first, batch 0 and 1 come live and by the backlog; on the second 1 comes again, and 2.
    fn sound() -> Self {
        let mut story = Self { plant: asked(), log: String::new(), messages: Vec::new(), claimed: 3 };
        story.connect("viewer-0");
        story.connect(GATEWAY);
        story.say("backlog", 0);
        story.say("live", 1);
        story.connect(GATEWAY);
        story.say("backlog", 1);
        story.say("live", 2);
        story
    }

    fn connect(&mut self, who: &str) {
        self.log +=
            &format!("100: New client connected from 127.0.0.1:44782 as {who} (p5, c1, k20, u'x').\n");
    }

    /// Batch `at` of the run, which is poll `at + 1`.
    fn say(&mut self, lane: &str, at: u64) {
        self.say_poll(lane, at, u32::try_from(at).unwrap() + 1, 0);
    }

    fn say_poll(&mut self, lane: &str, at: u64, poll: u32, reason: u8) {
        let points: serde_json::Map<String, Value> =
            (0..POINTS).map(|point| (format!("p{point}"), json!(value(1, point, poll)))).collect();
        let batch = json!({
            "device": "d1", "seq": at * N, "n": N, "prev": at.checked_sub(1).map(|before| before * N),
            "time": "2026-11-26T10:00:00.000000Z", "points": points,
        });
        let payload = json!({"schema": "fieldspool/1", "gateway": GATEWAY, "run": RUN, "lane": lane, "batches": [batch]});
        let (topic, id) = (format!("fieldspool/{GATEWAY}/{lane}/d1"), self.messages.len() + 1);
        self.log += &format!(
            "100: Received PUBLISH from {GATEWAY} (d0, q1, r0, m{id}, '{topic}', ... (300 bytes))\n\
             100: Sending PUBACK to {GATEWAY} (m{id}, rc{reason})\n"
        );
        self.messages.push(Message { topic, payload: payload.to_string() });
    }

    fn judged(&self) -> Verdict {
        let evidence = Evidence {
            messages: &self.messages,
            log: &self.log,
            claims: &[(RUN.to_owned(), self.claimed * N)].into(),
            plant: &self.plant,
        };
        let campaign = Campaign { end: End::Kill, lives: 1, seed: 0, talk: false };
        judge(&evidence, &campaign, Duration::from_secs(1))
    }
}

/// A plant that has answered some polls.
fn asked() -> Plant {
    let plant = Plant::start();
    let mut stream = TcpStream::connect(("127.0.0.1", plant.port)).unwrap();
    for _ in 0..POLLS {
        stream.write_all(&[0, 1, 0, 0, 0, 6, 1, 4, 0, 0, 0, 2 * u8::try_from(POINTS).unwrap()]).unwrap();
        stream.read_exact(&mut [0; 9 + 4 * POINTS]).unwrap();
    }
    assert_eq!(plant.issued(1), POLLS);
    plant
}

#[test]
fn copies_on_the_next_connection_are_counted_and_are_no_fault() {
    let verdict = Story::sound().judged();
    assert!(verdict.passed(), "{verdict}");
    assert_eq!((verdict.arrived, verdict.backlog, verdict.worst_copies.0), (3 * N, N, N), "{verdict}");
}

#[test]
fn a_reading_that_comes_twice_on_one_connection_is_a_fault_whoever_connects_in_between() {
    for between in [None, Some("viewer-1")] {
        let mut story = Story::sound();
        if let Some(who) = between {
            story.connect(who);
        }
        // The live lane said it on this connection; the lanes by themselves are in order.
        story.say("backlog", 2);
        let verdict = story.judged();
        assert!(!verdict.passed());
        assert_eq!(verdict.faults, [format!("(\"{RUN}\", {}) came twice on one connection", 2 * N)]);
    }
}

#[test]
fn what_contradicts_in_any_other_way_is_told_in_its_words() {
    let faulty: [(&str, Spoil); 7] = [
        ("6 of 24 readings counted as stored are lost", |story| story.claimed = 4),
        ("mosquitto received 4 messages, the subscriber 3", |story| drop(story.messages.pop())),
        ("came after", |story| story.say("live", 0)),
        ("with reason 0x87", |story| story.say_poll("live", 3, 4, 0x87)),
        ("the plant never issued this", |story| story.say_poll("live", 3, POLLS + 1, 0)),
        ("poll 3 of unit 1 became", |story| story.say_poll("live", 3, 3, 0)),
        ("unit 1: poll 1 is", |story| story.say_poll("live", 3, 1, 0)),
    ];
    for (words, spoil) in faulty {
        let mut story = Story::sound();
        spoil(&mut story);
        let verdict = story.judged();
        let told = verdict.faults.iter().any(|fault| fault.contains(words));
        assert!(told && !verdict.passed(), "{words}: {verdict}");
    }
}
