//! The broker's reason codes in a technician's words: why it does not let us in, ends a connection, or refuses a message. Each with what
//! to do, as in [`words`](super::words).

use std::fmt::Write as _;

use rumqttc::v5;

use super::words::{Cause, End};

/// CONNACK with "not authorized"; what to do about it comes from [`End::of_one_not_let_in`].
pub(super) const NOT_LET_IN: &str = "the broker does not let us in (not authorized)";

/// CONNACK, MQTT 5 3.2.2.2.
pub(super) fn refused_v5(code: v5::mqttbytes::v5::ConnectReturnCode) -> End {
    use v5::mqttbytes::v5::ConnectReturnCode as C;
    let words = match code {
        C::NotAuthorized => NOT_LET_IN,
        C::BadUserNamePassword => "the broker refuses user or password: check user and password_file",
        C::ClientIdentifierNotValid | C::BadClientId => "the broker refuses the client id: check client_id",
        C::UnsupportedProtocolVersion | C::RefusedProtocolVersion => {
            "the broker does not speak MQTT 5: set protocol = \"3.1.1\""
        }
        C::ServerUnavailable | C::ServiceUnavailable => "the broker says that it is not available now",
        C::ServerBusy => "the broker says that it is busy",
        C::Banned => "the broker has banned this client: see the broker's log",
        C::TopicNameInvalid => {
            "the broker refuses the topic of the last will: check the topics, or set will = false"
        }
        C::RetainNotSupported => "the broker takes no retained messages: set retain = false",
        C::QoSNotSupported => "the broker takes no QoS 1 last will: set will = false",
        C::QuotaExceeded => "the broker says that a quota is used up",
        C::ConnectionRateExceeded => "the broker says that we connect too often",
        C::UseAnotherServer | C::ServerMoved => "the broker says that it has moved: check broker",
        C::PacketTooLarge | C::PayloadFormatInvalid => "the broker refuses the last will: set will = false",
        other => return End::new(Cause::Refused, format!("the broker refuses us ({other:?}): see its log")),
    };
    End::new(Cause::Refused, words)
}

/// CONNACK, MQTT 3.1.1 3.2.2.3.
pub(super) fn refused_v4(code: rumqttc::ConnectReturnCode) -> End {
    use rumqttc::ConnectReturnCode as C;
    let words = match code {
        C::NotAuthorized => NOT_LET_IN,
        C::BadUserNamePassword => "the broker refuses user or password: check user and password_file",
        C::BadClientId => "the broker refuses the client id: check client_id",
        C::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1: set protocol = \"5\"",
        C::ServiceUnavailable => "the broker says that it is not available now",
        C::Success => "the broker refuses us without a reason",
    };
    End::new(Cause::Refused, words)
}

/// DISCONNECT, MQTT 5 3.14.2.1.
pub(super) fn disconnected(code: v5::mqttbytes::v5::DisconnectReasonCode, said: Option<&str>) -> End {
    use v5::mqttbytes::v5::DisconnectReasonCode as D;
    let (cause, mut words) = match code {
        D::SessionTakenOver => (Cause::TakenOver, TAKEN_OVER.to_owned()),
        D::ServerShuttingDown => (Cause::Leaving, "the broker is shutting down".to_owned()),
        D::ServerBusy => (Cause::Leaving, "the broker says that it is busy".to_owned()),
        D::UseAnotherServer | D::ServerMoved => {
            (Cause::Refused, "the broker says that it has moved: check broker".to_owned())
        }
        D::KeepAliveTimeout => (Cause::Network, "the broker heard nothing from us for too long".to_owned()),
        D::NotAuthorized => (
            Cause::Refused,
            "the broker no longer lets us in (not authorized): check its access list".to_owned(),
        ),
        other => (Cause::Refused, format!("the broker ended the connection ({other:?}): see its log")),
    };
    if let Some(said) = said {
        // Text from outside: one short line, nothing that could forge another.
        let shown: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
        let _ = write!(words, "; it says: {shown}");
    }
    End { cause, words }
}

/// Two gateways with one identity: cloned cards, mostly.
const TAKEN_OVER: &str = "another device connects with our client id and takes our place: look for a copy of this gateway (a cloned card?)";

/// The same, as far as it shows with a broker that does not say so.
pub(super) const OFTEN_CLOSED: &str = "this has now happened several times: perhaps another device connects with our client id (a cloned card?), or the broker restarts again and again";

/// Why a message to this topic is refused, MQTT 5 3.4.2.1.
pub(super) fn puback_words(code: u8, topic: &str) -> String {
    let why = match code {
        // A success, which only nobody_listens = "hold" does not take for one.
        0x10 => {
            return format!(
                "nobody is subscribed to {topic} (0x10), and nobody_listens = \"hold\" is set: start a receiver"
            );
        }
        0x80 => "no reason given",
        0x83 => "a rule of its own",
        0x87 => "we may not publish to this topic: check its access list",
        0x90 => "it does not like the topic's name",
        0x91 => "the packet id is in use",
        0x97 => "a quota is used up",
        0x99 => "it does not like the format",
        _ => "unknown reason",
    };
    format!("the broker refuses a message to {topic} (0x{code:02x}): {why}")
}
