//! The oracle of a campaign: everything counted as stored has arrived, once after removal of copies, in order, and is
//! what the plant issued; copies stay within their bound.
//!
//! What the broker did stands in mosquitto's own log: each PUBLISH it received and each PUBACK it sent, with its reason. The
//! one subscriber gets the messages in that order, so the n-th line and the n-th message are the same.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use super::plant::{POINTS, Plant, UNITS, value};
use super::watch::Claims;
use super::{Campaign, End};
use crate::support::broker::GATEWAY;
use crate::support::subscriber::{Message, judge as receiver_judges};

/// Confirmations reach the disk 10 s late at most; mosquitto's log tells whole seconds, and a commit takes its time.
const CONFIRMED_LATE: u64 = 12;

/// A span is at most 256 blocks, and a block holds what four units say in 50 ms; a busy machine may gather twice that.
const SPAN_READINGS: u64 = 256 * 2 * 4 * 3 * POINTS as u64;

/// The live lane holds at most so many batches, and a batch of the plant is one poll of one unit.
const LIVE_READINGS: u64 = 256 * POINTS as u64;

/// What is judged.
pub struct Evidence<'a> {
    pub messages: &'a [Message],
    /// mosquitto's.
    pub log: &'a str,
    pub claims: &'a Claims,
    pub plant: &'a Plant,
}

/// What came of it.
pub struct Verdict {
    pub end: End,
    pub lives: u32,
    pub seed: u64,
    pub took: Duration,
    /// Readings counted as stored, distinct readings that arrived, of these by the backlog lane, readings acknowledged.
    pub claimed: u64,
    pub arrived: u64,
    pub backlog: u64,
    pub acknowledged: u64,
    /// Counted as stored or named by a run end, and never arrived.
    pub lost: u64,
    /// Copies that one end caused, at worst, and how many the promise allows that end: a span, the live window, and what had arrived
    /// in the last 10 s of its connection.
    pub worst_copies: (u64, u64),
    /// ... and at worst, copies of what had been confirmed more than 10 s before.
    pub worst_old_copies: u64,
    /// Everything that contradicts.
    pub faults: Vec<String>,
}

/// A message as mosquitto's log tells it.
struct Received {
    topic: String,
    /// Which connection of the gateway, counted from 0, and in which second.
    connection: usize,
    second: u64,
    /// The PUBACK's reason, if one was sent.
    reason: Option<u64>,
}

/// One batch that arrived.
#[derive(Clone, Copy)]
struct Copy {
    connection: usize,
    second: u64,
}

#[derive(Default)]
struct Books {
    /// By (run, seq): the newest copy.
    seen: HashMap<(String, u64), Copy>,
    /// By unit and poll: which reading it became.
    polls: HashMap<(u8, u32), (String, u64)>,
    /// By unit: (run, seq) → poll.
    order: BTreeMap<u8, BTreeMap<(String, u64), u32>>,
    /// By (connection, topic): the newest (run, seq).
    newest: HashMap<(usize, String), (String, u64)>,
    /// By run: stretches.
    held: BTreeMap<String, Vec<(u64, u64)>>,
    /// By connection: copies of what arrived on it, of these old ones.
    copies: BTreeMap<usize, (u64, u64)>,
    /// By connection: readings that arrived on it shortly before its end.
    late: BTreeMap<usize, u64>,
    acknowledged: u64,
    faults: Vec<String>,
}

/// Readings and records; status and meta are retained, and a will is nobody's message.
fn is_data(topic: &str) -> bool {
    !topic.ends_with("/status") && !topic.contains("/meta/")
}

/// Messages of readings and records that mosquitto received.
pub fn received(log: &str) -> usize {
    read_log(log).0.iter().filter(|received| is_data(&received.topic)).count()
}

/// ... and that the subscriber got.
pub fn arrived(messages: &[Message]) -> usize {
    messages.iter().filter(|message| is_data(&message.topic)).count()
}

/// Judges.
pub fn judge(evidence: &Evidence<'_>, campaign: &Campaign, took: Duration) -> Verdict {
    let mut books = Books::default();
    let (received, ends) = read_log(evidence.log);
    let received: Vec<Received> = received.into_iter().filter(|r| is_data(&r.topic)).collect();
    let messages: Vec<&Message> = evidence.messages.iter().filter(|m| is_data(&m.topic)).collect();
    if received.len() != messages.len() {
        let (there, here) = (received.len(), messages.len());
        books.faults.push(format!("mosquitto received {there} messages, the subscriber {here}"));
    }
    for (received, message) in received.iter().zip(&messages) {
        books.take(received, message, &ends, evidence.plant);
    }
    books.in_order();
    let (report, lost) = books.missing(evidence);
    let worst_old_copies = books.copies.values().map(|copies| copies.1).max().unwrap_or(0);
    let worst_copies = books.within_bound();
    if worst_old_copies > SPAN_READINGS {
        books.faults.push(format!(
            "{worst_old_copies} readings came again although they had been confirmed for {CONFIRMED_LATE} s: more than a span"
        ));
    }
    let claimed = evidence.claims.values().sum();
    let backlog = report["backlog"].as_u64().unwrap_or(0);
    for (what, count) in [("claimed as stored", claimed), ("sent as backlog", backlog)] {
        if count == 0 {
            books.faults.push(format!("nothing was {what}: the campaign proves nothing"));
        }
    }
    Verdict {
        end: campaign.end,
        lives: campaign.lives,
        seed: campaign.seed,
        took,
        claimed,
        arrived: report["readings"].as_u64().unwrap_or(0),
        backlog,
        acknowledged: books.acknowledged,
        lost,
        worst_copies,
        worst_old_copies,
        faults: books.faults,
    }
}

impl Verdict {
    /// Nothing lost, nothing contradicts.
    pub fn passed(&self) -> bool {
        self.lost == 0 && self.faults.is_empty()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = f64::from(self.lives) / self.took.as_secs_f64();
        writeln!(f, "{} times {}, seed {}, {rate:.1} a second", self.lives, self.end, self.seed)?;
        writeln!(
            f,
            "{} readings counted as stored, {} arrived ({} as backlog), {} acknowledged by mosquitto",
            self.claimed, self.arrived, self.backlog, self.acknowledged
        )?;
        write!(
            f,
            "{} lost; at worst {} readings came twice after one end, where {} may; at worst {} had been confirmed more than 10 s before",
            self.lost, self.worst_copies.0, self.worst_copies.1, self.worst_old_copies
        )?;
        self.faults.iter().take(20).try_for_each(|fault| write!(f, "\nFAULT {fault}"))
    }
}

impl Books {
    fn take(&mut self, received: &Received, message: &Message, ends: &[u64], plant: &Plant) {
        if received.topic != message.topic {
            self.faults.push(format!("mosquitto received {}, then came {}", received.topic, message.topic));
        }
        if let Some(reason) = received.reason.filter(|reason| *reason != 0) {
            self.faults.push(format!("mosquitto acknowledged {} with reason {reason:#x}", received.topic));
        }
        let json = message.json();
        let run = json["run"].as_str().unwrap_or_default().to_owned();
        for batch in json["batches"].as_array().into_iter().flatten() {
            let (seq, n) = (batch["seq"].as_u64().unwrap_or(0), batch["n"].as_u64().unwrap_or(0));
            self.acknowledged += if received.reason == Some(0) { n } else { 0 };
            let name = (run.clone(), seq);
            let copy = Copy { connection: received.connection, second: received.second };
            if copy.second + CONFIRMED_LATE >= ends[copy.connection] {
                *self.late.entry(copy.connection).or_default() += n;
            }
            match self.seen.insert(name.clone(), copy) {
                Some(before) => {
                    if before.connection == copy.connection {
                        self.faults.push(format!("{name:?} came twice on one connection"));
                    }
                    let (all, old) = self.copies.entry(before.connection).or_default();
                    *all += n;
                    if before.second + CONFIRMED_LATE < ends[before.connection] {
                        *old += n;
                    }
                }
                None => self.first_copy(&name, n, batch, plant),
            }
            let way = (received.connection, message.topic.clone());
            if let Some(before) = self.newest.insert(way, name.clone()).filter(|before| *before >= name) {
                self.faults.push(format!("{}: {name:?} came after {before:?}", message.topic));
            }
        }
    }

    /// The content is what the plant issued in one poll, and no other reading is of that poll.
    fn first_copy(&mut self, name: &(String, u64), n: u64, batch: &Value, plant: &Plant) {
        self.held.entry(name.0.clone()).or_default().push((name.1, name.1 + n));
        let points = &batch["points"];
        let unit: u8 =
            batch["device"].as_str().and_then(|d| d.strip_prefix('d')?.parse().ok()).unwrap_or_default();
        if points["p0"].is_null() {
            // A poll that the plant never saw answered: the reason stands in `bad`.
            if batch["bad"].is_null() {
                self.faults.push(format!("{name:?}: neither value nor reason: {batch}"));
            }
            return;
        }
        let poll = points["p0"].as_u64().and_then(|poll| u32::try_from(poll).ok()).unwrap_or_default();
        let right = (1..=UNITS).contains(&unit)
            && (1..=plant.issued(unit)).contains(&poll)
            && (0..POINTS).all(|point| points[format!("p{point}")] == json!(value(unit, point, poll)));
        if !right || n != POINTS as u64 {
            self.faults.push(format!("{name:?}: the plant never issued this: {batch}"));
        }
        if let Some(other) = self.polls.insert((unit, poll), name.clone()) {
            self.faults.push(format!("poll {poll} of unit {unit} became {name:?} and {other:?}"));
        }
        self.order.entry(unit).or_default().insert(name.clone(), poll);
    }

    /// The stated bound on duplicates, end by end; gives the worst, and its bound.
    fn within_bound(&mut self) -> (u64, u64) {
        let mut worst = (0, 0);
        for (connection, (copies, _)) in &self.copies {
            let late = self.late.get(connection).copied().unwrap_or_default();
            let bound = SPAN_READINGS + LIVE_READINGS + late;
            if *copies > bound {
                self.faults.push(format!("{copies} readings came again after one end: more than {bound}"));
            }
            worst = worst.max((*copies, bound));
        }
        worst
    }

    /// By (run, seq), the polls of a device ascend.
    fn in_order(&mut self) {
        for (unit, polls) in &self.order {
            let mut before = 0;
            for (name, poll) in polls {
                if *poll <= before {
                    self.faults.push(format!("unit {unit}: poll {poll} is {name:?}, behind poll {before}"));
                }
                before = *poll;
            }
        }
    }

    /// What was claimed and is not here, and what the reference receiver says.
    fn missing(&mut self, evidence: &Evidence<'_>) -> (Value, u64) {
        let mut lost = 0;
        for (run, claimed) in evidence.claims {
            let mut stretches = self.held.remove(run).unwrap_or_default();
            stretches.sort_unstable();
            let mut at = 0;
            let mut holes = 0;
            for (first, next) in stretches.into_iter().filter(|(first, _)| first < claimed) {
                holes += first.saturating_sub(at);
                at = at.max(next);
            }
            holes += claimed.saturating_sub(at);
            if holes > 0 {
                self.faults
                    .push(format!("run {run}: {holes} of {claimed} readings counted as stored are lost"));
            }
            lost += holes;
        }
        let report = receiver_judges(evidence.messages);
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        self.faults.extend(list(&report["faults"]).iter().map(|fault| format!("the receiver says: {fault}")));
        let runs = list(&report["runs"]);
        let ended = runs.split_last().map_or(&[][..], |(_, before)| before);
        for run in ended {
            if run["ended"] != json!(true) || run["gaps"] != json!({}) || run["missing"] != json!([]) {
                self.faults.push(format!("not proved complete: {run}"));
            }
        }
        (report.clone(), lost.max(report["missing"].as_u64().unwrap_or(u64::MAX)))
    }
}

/// What mosquitto's log tells of the gateway: its messages, and the last second of each of its connections.
fn read_log(log: &str) -> (Vec<Received>, Vec<u64>) {
    let (mut received, mut ends) = (Vec::<Received>::new(), Vec::new());
    let ours = format!(" as {GATEWAY} (");
    // Message id → message, of the present connection.
    let mut open = HashMap::new();
    for line in log.lines() {
        let Some((second, text)) = line.split_once(": ") else { continue };
        let second = second.parse().unwrap_or(0);
        if text.starts_with("New client connected") && text.contains(&ours) {
            ends.push(second);
            open.clear();
        } else if let Some((id, topic)) = published(text) {
            let connection = ends.len().saturating_sub(1);
            received.push(Received { topic: topic.to_owned(), connection, second, reason: None });
            open.insert(id.to_owned(), received.len() - 1);
            ends[connection] = second;
        } else if let Some(puback) = text.strip_prefix("Sending PUBACK to ")
            && let Some((id, reason)) = puback.split_once("(m").and_then(|(_, rest)| rest.split_once(", rc"))
            && let Some(at) = open.remove(id)
        {
            received[at].reason = reason.trim_end_matches(')').parse().ok();
        }
    }
    (received, ends)
}

/// `Received PUBLISH from plant7-gw1 (d0, q1, r0, m5, 'fieldspool/plant7-gw1/live/d1', ... (300 bytes))`: id and topic.
fn published(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.strip_prefix("Received PUBLISH from ")?.split_once(", m")?;
    let (id, rest) = rest.split_once(", '")?;
    Some((id, rest.split_once('\'')?.0))
}
