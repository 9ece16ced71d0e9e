//! Which message goes next, and what is in it.

use std::sync::Arc;
use std::time::Instant;

use crate::model::Batch;
use crate::spool::{Confirmed, Item};

use super::super::client::PUBLISH_OVERHEAD;
use super::super::live::Take;
use super::super::payload::{Lane, Message};
use super::super::records::{self, State};
use super::{Action, Kind, STATUS_EVERY, STATUS_SOON, Sent, Session, Token};

/// The reason code of MQTT 5 for it.
const PACKET_TOO_LARGE: u8 = 0x95;

/// A message ready to go.
struct Ready {
    kind: Kind,
    topic: String,
    payload: Vec<u8>,
    load: Load,
}

/// What a message carries; nothing, if it is no data.
#[derive(Default)]
struct Load {
    what: Vec<Confirmed>,
    /// Of the first batch, or the one that is described.
    device: Arc<str>,
    /// Of the live lane.
    batches: Vec<Arc<Batch>>,
}

impl Session {
    /// The next message, if the window and the budget allow one.
    pub(super) fn compose(&mut self, now: Instant) -> Option<Action> {
        if self.is_full() {
            return None;
        }
        if self.line.as_ref().is_some_and(|line| line.status_at <= now) {
            if let Some(line) = &mut self.line {
                let is_birth = line.status_at == line.since;
                line.status_at = now + if is_birth { STATUS_SOON } else { STATUS_EVERY };
            }
            self.describe_again();
            // A hole that nothing will fill (evicted readings) closes when the spool is asked, and says how far its books are.
            if self.settled.has_hole() {
                self.backlog.rewind(now);
            }
            return Some(self.status(now, State::Online));
        }
        let data = self.takes_data();
        if data && let Some(ready) = self.live_message(now) {
            return Some(self.publish(now, ready));
        }
        if let Some(ready) = self.meta_message() {
            return Some(self.publish(now, ready));
        }
        if data && let Some(ready) = self.backlog_message(now) {
            return Some(self.publish(now, ready));
        }
        None
    }

    /// The status goes out now.
    pub(super) fn status(&mut self, now: Instant, state: State) -> Action {
        let topic = self.settings.topics.status.topic(&self.settings.gateway, "");
        let retain = self.retain();
        let token = self.sent(now, Kind::Status, 0, Load::default());
        Action::Status { token, state, topic, retain }
    }

    fn retain(&self) -> bool {
        self.settings.retain && self.line.as_ref().is_none_or(|line| line.granted.retain)
    }

    fn publish(&mut self, now: Instant, ready: Ready) -> Action {
        let bytes = ready.payload.len() + ready.topic.len() + PUBLISH_OVERHEAD;
        self.numbers.messages += 1;
        self.numbers.bytes += ready.payload.len() as u64;
        let retain = ready.kind == Kind::Meta && self.retain();
        let token = self.sent(now, ready.kind, bytes, ready.load);
        Action::Publish { token, topic: ready.topic, payload: ready.payload, retain }
    }

    fn sent(&mut self, now: Instant, kind: Kind, bytes: usize, load: Load) -> Token {
        let Load { what, device, batches } = load;
        let alone = self.flight.is_empty();
        let behind = self.behind();
        self.token += 1;
        self.in_flight.extend(&what);
        if let Some(line) = &mut self.line {
            if alone {
                line.progress = now;
            }
            let more = line.pace.allows(behind + bytes, self.settings.max_message);
            let filled = !more || self.flight.len() + 1 >= line.window;
            let mark = line.pace.sent(now, alone, filled);
            self.flight.insert(self.token, Sent { kind, bytes, mark, what, device, batches });
        }
        self.token
    }

    /// Unacknowledged bytes that a live message would wait behind.
    fn behind(&self) -> usize {
        let behind = |sent: &&Sent| matches!(sent.kind, Kind::Backlog | Kind::Meta);
        self.flight.values().filter(behind).map(|sent| sent.bytes).sum()
    }

    /// Payload bytes that the broker takes on this topic.
    pub(in crate::uplink) fn most(&self, topic: &str) -> usize {
        let packet = self
            .line
            .as_ref()
            .and_then(|line| line.granted.packet_max)
            .map_or(usize::MAX, |max| max as usize);
        packet.saturating_sub(topic.len() + PUBLISH_OVERHEAD)
    }

    /// With `live_every` the lane opens once in that time, for everything that waits then.
    fn live_may_go(&mut self, now: Instant) -> bool {
        if self.settings.live_every.is_zero() {
            return true;
        }
        let Some((oldest, newest)) = self.live.ends() else { return false };
        if self.live_upto.is_none_or(|upto| oldest > upto) {
            if self.live_due().is_some_and(|due| due > now) {
                return false;
            }
            self.live_opened = Some(now);
            self.live_upto = Some(newest);
        }
        true
    }

    fn live_message(&mut self, now: Instant) -> Option<Ready> {
        if !self.live_may_go(now) {
            return None;
        }
        while let Some(first) = self.live.pop() {
            let template = &self.settings.topics.live;
            let topic = template.topic(&self.settings.gateway, &first.shape.device);
            let by_device = template.has_device();
            let most = self.most(&topic);
            let limit = self.settings.max_message.min(most);
            let mut message = Message::new(&first.shape.gateway, first.run, Lane::Live, limit);
            message.push(&first, &self.known(first.stamp));
            let key = Confirmed::from(&*first);
            if message.len() > most || self.in_flight.contains(&key) {
                // Too large for this broker: the backlog lane finds it and says so.
                self.backlog.rewind(now);
                continue;
            }
            if !self.books.sends(&key) {
                continue;
            }
            let mut live = std::mem::take(&mut self.live);
            let more = live.take_while_fits(|batch| {
                if by_device && batch.shape.device != first.shape.device {
                    return Take::Skip;
                }
                let alike = batch.run == first.run && batch.shape.gateway == first.shape.gateway;
                let key = Confirmed::from(&**batch);
                if !alike {
                    Take::Stop
                } else if !self.books.sends(&key) {
                    // It is found out by itself when its turn comes.
                    Take::Skip
                } else if message.push(batch, &self.known(batch.stamp)) {
                    Take::Yes
                } else {
                    self.books.came_back(&[key]);
                    Take::Stop
                }
            });
            self.live = live;
            let device = first.shape.device.clone();
            let batches: Vec<Arc<Batch>> = std::iter::once(first).chain(more).collect();
            let what = batches.iter().map(|batch| Confirmed::from(&**batch)).collect();
            return Some(Ready {
                kind: Kind::Live,
                topic,
                payload: message.finish(),
                load: Load { what, device, batches },
            });
        }
        None
    }

    fn meta_message(&mut self) -> Option<Ready> {
        let behind = self.behind();
        loop {
            let line = self.line.as_mut()?;
            if !line.pace.allows(behind, self.settings.max_message) {
                return None;
            }
            let at = line.meta.pop_front()?;
            let Some(device) = self.devices.get(at) else { continue };
            let topic = self.settings.topics.meta.topic(&self.settings.gateway, &device.device);
            let payload = records::meta(&self.settings.gateway, self.settings.run, device);
            if payload.len() > self.most(&topic) {
                tracing::warn!(device = %device.device, count = payload.len(), "meta, of so many bytes, is too large for the broker");
                continue;
            }
            let load = Load { device: device.device.clone(), ..Load::default() };
            return Some(Ready { kind: Kind::Meta, topic, payload, load });
        }
    }

    fn backlog_message(&mut self, now: Instant) -> Option<Ready> {
        let line = self.line.as_ref()?;
        let backlog = self.flight.values().filter(|sent| sent.kind == Kind::Backlog).count();
        // A quarter of the window is the live lane's, one message at least where there are two.
        let reserve = if line.window > 1 { (line.window / 4).max(1) } else { 0 };
        if backlog + reserve >= line.window && backlog > 0 {
            return None;
        }
        let size = line.pace.message(self.settings.max_message);
        if !line.pace.allows(self.behind(), self.settings.max_message) {
            return None;
        }
        loop {
            match self.next_item(now)? {
                Item::Event(event) => {
                    if let Some(correction) = event.body.correction() {
                        self.on_recorded_clock(event.run, correction);
                    }
                    let topic = self.settings.topics.event.topic(&self.settings.gateway, "");
                    let payload = records::event(&self.settings.gateway, &event, &self.known(event.stamp));
                    let what = vec![Confirmed::from(&*event)];
                    if payload.len() > self.most(&topic) {
                        self.too_large(now, what, ("".into(), payload.len()));
                        continue;
                    }
                    return Some(Ready {
                        kind: Kind::Backlog,
                        topic,
                        payload,
                        load: Load { what, ..Load::default() },
                    });
                }
                Item::Batch(batch) => {
                    if let Some(ready) = self.batches_message(now, &batch, size) {
                        return Some(ready);
                    }
                }
            }
        }
    }

    /// A message that begins with this batch and takes in those behind it that belong with it.
    fn batches_message(&mut self, now: Instant, first: &Arc<Batch>, size: usize) -> Option<Ready> {
        let template = &self.settings.topics.backlog;
        let topic = template.topic(&self.settings.gateway, &first.shape.device);
        let by_device = template.has_device();
        let most = self.most(&topic);
        let limit = size.min(self.settings.max_message).min(most);
        let mut message = Message::new(&first.shape.gateway, first.run, Lane::Backlog, limit);
        message.push(first, &self.known(first.stamp));
        let mut what = vec![Confirmed::from(&**first)];
        if message.len() > most {
            self.too_large(now, what, (first.shape.device.clone(), message.len()));
            return None;
        }
        while let Some(Item::Batch(batch)) = self.backlog.front() {
            let batch = batch.clone();
            let alike = batch.run == first.run
                && batch.shape.gateway == first.shape.gateway
                && (!by_device || batch.shape.device == first.shape.device);
            if !alike {
                break;
            }
            let key = Confirmed::from(&*batch);
            if !self.passes(now, &key, Some(&batch)) {
                if !message.push(&batch, &self.known(batch.stamp)) {
                    self.books.came_back(&[key]);
                    break;
                }
                what.push(key);
            }
            self.backlog.pop();
        }
        Some(Ready {
            kind: Kind::Backlog,
            topic,
            payload: message.finish(),
            load: Load { what, device: first.shape.device.clone(), batches: Vec::new() },
        })
    }

    /// The next item of the backlog that is to be sent.
    fn next_item(&mut self, now: Instant) -> Option<Item> {
        loop {
            let item = self.backlog.pop()?;
            let passed = match &item {
                Item::Event(event) => self.passes(now, &Confirmed::from(&**event), None),
                Item::Batch(batch) => self.passes(now, &Confirmed::from(&**batch), Some(batch)),
            };
            if !passed {
                return Some(item);
            }
        }
    }

    /// Whether the backlog lane passes it by: in flight, confirmed, refused a moment ago or for good, the live lane's, or lost by now. If
    /// not, it is on the wire by the books.
    fn passes(&mut self, now: Instant, key: &Confirmed, batch: Option<&Batch>) -> bool {
        // First, because it remembers that this one still waits.
        self.backlog.skips(now, key, batch.map_or("", |batch| &batch.shape.device))
            || self.in_flight.contains(key)
            || self.dying.contains(key)
            || batch.is_some_and(|batch| self.live.has(batch))
            || !self.books.sends(key)
    }

    /// Larger than the broker's Maximum Packet Size: trying would end the connection, so it counts as refused.
    fn too_large(&mut self, now: Instant, what: Vec<Confirmed>, (device, bytes): (Arc<str>, usize)) {
        self.books.came_back(&what);
        let mark = match &mut self.line {
            Some(line) => line.pace.sent(now, false, false),
            None => return,
        };
        let sent = Sent { kind: Kind::Backlog, bytes: 0, mark, what, device, batches: Vec::new() };
        let topic = self.topic_of(&sent);
        let why = format!(
            "a message of {bytes} bytes to {topic} is larger than the broker takes: raise its Maximum Packet Size"
        );
        self.refuse(now, &sent, (PACKET_TOO_LARGE, &why));
    }
}
