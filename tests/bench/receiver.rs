//! The subscriber of the measurements: what arrived, how late, and whether anything is missing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};

use crate::plant::Sent;

#[derive(Default)]
pub struct Arrived {
    pub readings: u64,
    pub latencies: Vec<Duration>,
    /// run → stretches of seq, as they came.
    pub seqs: HashMap<String, Vec<(u64, u64)>>,
    /// What the newest run end says was numbered.
    pub run_end: Option<u64>,
}

pub struct Receiver {
    pub arrived: Arc<Mutex<Arrived>>,
}

impl Receiver {
    pub fn start(folder: &Path, port: u16, sent: Sent) -> Self {
        let mut options = MqttOptions::new("viewer", "localhost", port);
        options.set_transport(crate::bare::tls(folder, "viewer"));
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut connection) = Client::new(options, 16);
        let arrived = Arc::new(Mutex::new(Arrived::default()));
        let into = arrived.clone();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            client.subscribe("fieldspool/#", QoS::AtMostOnce).unwrap();
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let now = Instant::now();
                        let text = String::from_utf8_lossy(&message.payload);
                        take(&text, now, &sent, &mut into.lock().unwrap());
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        is_ready.recv_timeout(Duration::from_secs(10)).expect("subscribed");
        Self { arrived }
    }

    /// Readings and latencies since the last call.
    pub fn take(&self) -> (u64, Vec<Duration>) {
        let mut arrived = self.arrived.lock().unwrap();
        (std::mem::take(&mut arrived.readings), std::mem::take(&mut arrived.latencies))
    }
}

impl Arrived {
    /// Distinct readings of all runs.
    pub fn distinct(&self) -> u64 {
        let run = |stretches: &Vec<(u64, u64)>| {
            let mut sorted = stretches.clone();
            sorted.sort_unstable();
            let mut end = 0;
            let fresh = |(first, next): (u64, u64)| {
                let fresh = next.saturating_sub(first.max(end));
                end = end.max(next);
                fresh
            };
            sorted.into_iter().map(fresh).sum::<u64>()
        };
        self.seqs.values().map(run).sum()
    }
}

/// Reads one message by its own keys, without a parser: the measurement must cost little beside what it measures.
fn take(text: &str, now: Instant, sent: &Sent, arrived: &mut Arrived) {
    let run = text.find("\"run\":\"").map(|at| text[at + 7..].split('"').next().unwrap_or("").to_owned());
    if text.contains("\"run_end\"") {
        arrived.run_end = number(text, "\"next_seq\":");
    }
    for batch in text.split("{\"device\":\"d").skip(1) {
        let device = batch.split('"').next().and_then(|d| d.parse::<usize>().ok());
        let readings = match (number(batch, "\"seq\":"), number(batch, "\"n\":")) {
            (Some(seq), Some(n)) => {
                let run = run.clone().unwrap_or_default();
                arrived.seqs.entry(run).or_default().push((seq, seq + n));
                n
            }
            _ => batch.matches("\"p").count() as u64 - 1,
        };
        arrived.readings += readings;
        let poll = number(batch, "\"p0\":").and_then(|n| u16::try_from(n).ok());
        if let (Some(device), Some(poll)) = (device, poll)
            && let Some(at) = sent.lock().unwrap().remove(&(device, poll))
        {
            arrived.latencies.push(now.saturating_duration_since(at));
        }
    }
}

fn number(text: &str, key: &str) -> Option<u64> {
    let at = text.find(key)? + key.len();
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    text[at..at + digits].parse().ok()
}
