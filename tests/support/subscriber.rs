//! `mosquitto_sub` as the receiver: collects what arrives, and lets `tests/receiver/receiver.py` judge it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::broker::Broker;

/// One message as it arrived.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub payload: String,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|e| panic!("{e}: {}", self.payload))
    }
}

#[derive(Default)]
struct Inbox {
    messages: Mutex<Vec<Message>>,
    news: Condvar,
}

/// A subscription to everything, from its start on.
pub struct Subscriber {
    child: Child,
    inbox: Arc<Inbox>,
}

impl Subscriber {
    /// Subscribes and waits until the broker has confirmed it.
    pub fn start(broker: &Broker) -> Self {
        // An id of its own: one that comes back after its broker did would take another one's place, and that one its again.
        static ID: AtomicU32 = AtomicU32::new(0);
        let id = format!("viewer-{}", ID.fetch_add(1, Ordering::Relaxed));
        // Line-buffered, or the word that the subscription stands would wait for more output.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(["-V", "5", "-q", "1", "-h", "localhost", "-p", &broker.port.to_string(), "-i", &id])
            .args(["-t", "fieldspool/#", "-F", "%t %p", "-d", "--cafile"])
            .arg(broker.file("ca.pem"))
            .arg("--cert")
            .arg(broker.file("viewer.pem"))
            .arg("--key")
            .arg(broker.file("viewer.key"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub is installed");
        let inbox = Arc::new(Inbox::default());
        let (subscribed, is_subscribed) = std::sync::mpsc::sync_channel(16);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let into = inbox.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.starts_with("Subscribed") {
                    let _ = subscribed.try_send(());
                } else if let Some((topic, payload)) =
                    line.split_once(' ').filter(|(t, _)| t.starts_with("fieldspool/"))
                {
                    let message = Message { topic: topic.to_owned(), payload: payload.to_owned() };
                    into.messages.lock().unwrap().push(message);
                    into.news.notify_all();
                }
            }
        });
        is_subscribed.recv_timeout(super::SOON).expect("the broker confirms the subscription");
        Self { child, inbox }
    }

    /// Waits until `met` finds what it looks for in all messages so far.
    pub fn wait<T>(&self, what: &str, limit: Duration, met: impl Fn(&[Message]) -> Option<T>) -> T {
        let end = Instant::now() + limit;
        let mut messages = self.inbox.messages.lock().unwrap();
        loop {
            if let Some(found) = met(&messages) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited {limit:?} for {what}; {} messages, the last: {:?}",
                messages.len(),
                messages.last()
            );
            messages = self.inbox.news.wait_timeout(messages, left).unwrap().0;
        }
    }

    /// Everything so far.
    pub fn messages(&self) -> Vec<Message> {
        self.inbox.messages.lock().unwrap().clone()
    }

    /// The judgement of the reference receiver over everything so far.
    pub fn judge(&self) -> Value {
        judge(&self.messages())
    }
}

/// Runs the reference receiver over messages; its report.
pub fn judge(messages: &[Message]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/receiver/receiver.py");
    let mut child = Command::new("python3")
        .args([script, "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<_> = messages.iter().flat_map(|m| [&m.topic, " ", &m.payload, "\n"]).collect();
    let lines = lines.concat();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().expect("the receiver reads everything");
    serde_json::from_slice(&output.stdout).expect("the receiver reports in JSON")
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
