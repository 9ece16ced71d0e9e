//! One connection to the broker: rumqttc's event loop, version 5 or 3.1.1, behind one face.
//!
//! A connection is one fresh event loop, never polled again after its first error: the library's memory is a cache that
//! loses messages when it is trusted over a reconnect, so the spool is the only retransmitter.
//!
//! The library does not say which publish a PUBACK is for. It does say, in order, under which packet id each QoS 1
//! publish went out, and all of ours go through one channel: the n-th such event is the n-th publish. [`Ledger`] keeps that
//! account. Rule of use: a future of [`Link::poll`] is never dropped unless the whole connection is (it would lose a publish
//! between its id and the socket).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rumqttc::{NetworkOptions, Outgoing, Transport, v5};

use super::session::Token;
use super::words::{End, explain_v4, explain_v5};

/// How to connect.
#[derive(Clone)]
pub(super) struct Dial {
    /// Version 5, else 3.1.1.
    pub v5: bool,
    pub host: String,
    pub port: u16,
    /// TCP, or TLS with its configuration.
    pub transport: Transport,
    pub client_id: String,
    pub credentials: Option<(String, String)>,
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    pub will: Option<Will>,
    /// Most messages in flight.
    pub window: u16,
}

/// The last will: retained, QoS 1.
#[derive(Clone)]
pub(super) struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

/// What the broker allows, from its CONNACK (MQTT 5 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// Receive Maximum; 65 535 if it says nothing.
    pub receive_max: u16,
    /// Maximum Packet Size, bytes.
    pub packet_max: Option<u32>,
    /// It takes QoS 1.
    pub qos1: bool,
    /// It takes retained messages.
    pub retain: bool,
}

impl Default for Granted {
    fn default() -> Self {
        Self { receive_max: u16::MAX, packet_max: None, qos1: true, retain: true }
    }
}

/// What happened on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// CONNACK.
    Connected(Granted),
    /// A publish got its packet id.
    Sent(u16),
    /// PUBACK with its reason code.
    Acked(u16, u8),
    /// Our DISCONNECT went out.
    Left,
    /// Pings and the like.
    Other,
}

/// The sending half.
pub(super) enum Publisher {
    V5(v5::AsyncClient),
    V4(rumqttc::AsyncClient),
}

/// The event loop.
pub(super) enum Link {
    V5(Box<v5::EventLoop>, Duration),
    V4(Box<rumqttc::EventLoop>),
}

/// Room in the channel beside the window: the DISCONNECT, and one to spare.
const SPARE: usize = 2;
/// Largest packet the broker may send us. We subscribe to nothing; a CONNACK may carry long texts.
const INCOMING_MAX: u32 = 64 * 1024;
/// MQTT's own limit of a packet (MQTT 3.1.1 2.2.3).
const OUTGOING_MAX: usize = 268_435_455;

/// Makes the two halves of a connection; nothing is sent before the first poll.
pub(super) fn dial(dial: Dial) -> (Publisher, Link) {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(dial.connect_timeout.as_secs().max(1));
    let capacity = usize::from(dial.window) + SPARE;
    if dial.v5 {
        let mut options = v5::MqttOptions::new(dial.client_id, dial.host, dial.port);
        options.set_transport(dial.transport);
        options.set_keep_alive(dial.keep_alive);
        options.set_clean_start(true);
        options.set_connection_timeout(dial.connect_timeout.as_secs().max(1));
        options.set_max_packet_size(Some(INCOMING_MAX));
        options.set_outgoing_inflight_upper_limit(dial.window);
        options.set_network_options(network);
        if let Some((user, password)) = dial.credentials {
            options.set_credentials(user, password);
        }
        if let Some(will) = dial.will {
            let properties = v5::mqttbytes::v5::LastWillProperties {
                delay_interval: None,
                payload_format_indicator: Some(1),
                message_expiry_interval: None,
                content_type: Some(CONTENT_TYPE.to_owned()),
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
            };
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            options.set_last_will(v5::mqttbytes::v5::LastWill::new(
                will.topic,
                will.payload,
                qos,
                will.retain,
                Some(properties),
            ));
        }
        let (client, events) = v5::AsyncClient::new(options, capacity);
        (Publisher::V5(client), Link::V5(Box::new(events), dial.keep_alive))
    } else {
        let mut options = rumqttc::MqttOptions::new(dial.client_id, dial.host, dial.port);
        options.set_transport(dial.transport);
        options.set_keep_alive(dial.keep_alive);
        options.set_clean_session(true);
        options.set_max_packet_size(INCOMING_MAX as usize, OUTGOING_MAX);
        options.set_inflight(dial.window);
        if let Some((user, password)) = dial.credentials {
            options.set_credentials(user, password);
        }
        if let Some(will) = dial.will {
            let qos = rumqttc::QoS::AtLeastOnce;
            options.set_last_will(rumqttc::LastWill::new(will.topic, will.payload, qos, will.retain));
        }
        let (client, mut events) = rumqttc::AsyncClient::new(options, capacity);
        events.set_network_options(network);
        (Publisher::V4(client), Link::V4(Box::new(events)))
    }
}

/// Said of every message, where the protocol can (MQTT 5).
const CONTENT_TYPE: &str = "application/json";

/// Bytes of a PUBLISH packet beside topic and payload: fixed header up to 5, topic length 2, packet id 2, properties
/// 1 + payload format 2 + content type 3 and its text (MQTT 5 3.3).
pub(super) const PUBLISH_OVERHEAD: usize = 5 + 2 + 2 + 1 + 2 + 3 + CONTENT_TYPE.len();

impl Publisher {
    /// Queues a QoS 1 publish; `false` if the channel is full or the topic not one to publish to.
    #[must_use]
    pub(super) fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) -> bool {
        match self {
            Self::V5(client) => {
                let properties = v5::mqttbytes::v5::PublishProperties {
                    payload_format_indicator: Some(1),
                    content_type: Some(CONTENT_TYPE.to_owned()),
                    ..Default::default()
                };
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                client.try_publish_with_properties(topic, qos, retain, payload, properties).is_ok()
            }
            Self::V4(client) => client.try_publish(topic, rumqttc::QoS::AtLeastOnce, retain, payload).is_ok(),
        }
    }

    /// Queues the DISCONNECT, behind all publishes.
    pub(super) fn disconnect(&self) -> bool {
        match self {
            Self::V5(client) => client.try_disconnect().is_ok(),
            Self::V4(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Link {
    /// The next event, or the end of the connection.
    pub(super) async fn poll(&mut self) -> Result<Event, End> {
        match self {
            Self::V5(events, keep_alive) => {
                let event = events.poll().await.map_err(|error| explain_v5(&error))?;
                // Server Keep Alive 0 means "none" (MQTT 5 3.2.2.3.14); the library would ping without pause.
                if events.options.keep_alive().is_zero() {
                    events.options.set_keep_alive(*keep_alive);
                }
                Ok(event_v5(&event))
            }
            Self::V4(events) => {
                let event = events.poll().await.map_err(|error| explain_v4(&error))?;
                Ok(event_v4(&event))
            }
        }
    }

    /// What had already been read when the connection ended: acknowledgements among it are true ones.
    pub(super) fn rest(&mut self) -> Vec<Event> {
        match self {
            Self::V5(events, _) => events.state.events.drain(..).map(|e| event_v5(&e)).collect(),
            Self::V4(events) => events.state.events.drain(..).map(|e| event_v4(&e)).collect(),
        }
    }
}

fn event_v5(event: &v5::Event) -> Event {
    use v5::mqttbytes::v5::Packet;
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            let mut granted = Granted::default();
            if let Some(said) = &ack.properties {
                granted.receive_max = said.receive_max.unwrap_or(granted.receive_max);
                granted.packet_max = said.max_packet_size;
                granted.qos1 = said.max_qos != Some(0);
                granted.retain = said.retain_available != Some(0);
            }
            Event::Connected(granted)
        }
        v5::Event::Incoming(Packet::PubAck(ack)) => Event::Acked(ack.pkid, reason_code(ack.reason)),
        v5::Event::Outgoing(outgoing) => outgoing_event(outgoing),
        v5::Event::Incoming(_) => Event::Other,
    }
}

fn event_v4(event: &rumqttc::Event) -> Event {
    use rumqttc::Packet;
    match event {
        rumqttc::Event::Incoming(Packet::ConnAck(_)) => Event::Connected(Granted::default()),
        rumqttc::Event::Incoming(Packet::PubAck(ack)) => Event::Acked(ack.pkid, 0),
        rumqttc::Event::Outgoing(outgoing) => outgoing_event(outgoing),
        rumqttc::Event::Incoming(_) => Event::Other,
    }
}

fn outgoing_event(outgoing: &Outgoing) -> Event {
    match outgoing {
        Outgoing::Publish(id) if *id != 0 => Event::Sent(*id),
        Outgoing::Disconnect => Event::Left,
        _ => Event::Other,
    }
}

/// The library's enumeration is not the wire's number (MQTT 5 3.4.2.1).
fn reason_code(reason: v5::mqttbytes::v5::PubAckReason) -> u8 {
    use v5::mqttbytes::v5::PubAckReason as R;
    match reason {
        R::Success => 0x00,
        R::NoMatchingSubscribers => 0x10,
        R::UnspecifiedError => 0x80,
        R::ImplementationSpecificError => 0x83,
        R::NotAuthorized => 0x87,
        R::TopicNameInvalid => 0x90,
        R::PacketIdentifierInUse => 0x91,
        R::QuotaExceeded => 0x97,
        R::PayloadFormatInvalid => 0x99,
    }
}

/// Which message a packet id stands for, on one connection.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Given to the library, no packet id yet.
    queued: VecDeque<Token>,
    by_id: HashMap<u16, Token>,
    /// Acknowledgements for which there was no message, and ids given twice.
    pub(super) odd: u64,
}

impl Ledger {
    /// A publish was queued.
    pub(super) fn queued(&mut self, token: Token) {
        self.queued.push_back(token);
    }

    /// The oldest queued publish went out under `id`.
    pub(super) fn sent(&mut self, id: u16) {
        let Some(token) = self.queued.pop_front() else {
            self.odd += 1;
            return;
        };
        if self.by_id.insert(id, token).is_some() {
            self.odd += 1;
        }
    }

    /// The message that a PUBACK is for.
    pub(super) fn acked(&mut self, id: u16) -> Option<Token> {
        let token = self.by_id.remove(&id);
        if token.is_none() {
            self.odd += 1;
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_in_any_order_find_their_messages() {
        let mut ledger = Ledger::default();
        for token in [100, 101, 102] {
            ledger.queued(token);
        }
        for id in [1, 2, 3] {
            ledger.sent(id);
        }
        assert_eq!([3, 1, 2].map(|id| ledger.acked(id)), [Some(102), Some(100), Some(101)]);
        assert_eq!(ledger.acked(1), None, "a second PUBACK confirms nothing");
        assert_eq!(ledger.odd, 1);
    }

    #[test]
    fn reason_codes_are_those_of_the_wire() {
        use v5::mqttbytes::v5::PubAckReason as R;
        let codes = [R::Success, R::NoMatchingSubscribers, R::NotAuthorized, R::QuotaExceeded];
        assert_eq!(codes.map(reason_code), [0, 0x10, 0x87, 0x97]);
    }
}
