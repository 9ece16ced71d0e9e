//! What the uplink is told: plain data, already checked for form, in the units it works with.
//!
//! Not here: reading the file (`config`), reading the certificates (`tls`). A value of these types is one the uplink
//! can work with: ranges stand at each field and are what the configuration's check applies.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Everything under `[uplink]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// `broker = "mqtts://host:port"`.
    pub broker: Broker,
    /// `ca`: certificates of the authorities that may have signed the broker's, PEM. `None`: [`SYSTEM_ROOTS`].
    pub ca: Option<PathBuf>,
    /// `cert` and `key`: who we are; both or none.
    pub identity: Option<Identity>,
    /// `protocol = "5"` (default) or `"3.1.1"`.
    pub protocol: Protocol,
    /// `user`.
    pub user: Option<String>,
    /// `password_file`: its first line is the password; read at each connection.
    pub password_file: Option<PathBuf>,
    /// `client_id`; `None`: the gateway's id.
    pub client_id: Option<String>,
    /// `keep_alive`: longest silence on the connection, [`KEEP_ALIVE`], default 20 s. A dead idle peer is noticed
    /// after at most twice this time.
    pub keep_alive: Duration,
    /// `alpn`: protocol names offered in the TLS handshake, in order; each 1 to 255 bytes. Default none.
    pub alpn: Vec<String>,
    /// `[uplink.topic]`.
    pub topics: Topics,
    /// `nobody_listens`.
    pub nobody_listens: NobodyListens,
    /// `retain`: status and meta are retained. `false` for brokers that forbid it. Default true.
    pub retain: bool,
    /// `will`: the broker is given a last will. `false` for brokers that forbid it. Default true.
    pub will: bool,
    /// `live_every`: gathers live batches for so long before they are sent, [`LIVE_EVERY`]; default 0, at once.
    pub live_every: Duration,
    /// `max_message`: payload bytes of a message that carries several batches, [`MAX_MESSAGE`], default 64 KiB. A
    /// batch alone may be larger; what the broker states as its own maximum always holds.
    pub max_message: usize,
    /// `in_flight`: messages published and not yet acknowledged, [`IN_FLIGHT`], default 16. The broker's Receive
    /// Maximum holds if it is smaller.
    pub in_flight: u16,
    /// `connect_timeout`: name, TCP, TLS and CONNACK together, [`CONNECT_TIMEOUT`], default 20 s.
    pub connect_timeout: Duration,
    /// `ack_timeout`: with messages in flight and no PUBACK for so long, the connection is given up; [`ACK_TIMEOUT`],
    /// default 30 s.
    pub ack_timeout: Duration,
}

/// Range of `keep_alive`.
pub const KEEP_ALIVE: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(1200);
/// Range of `live_every`.
pub const LIVE_EVERY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Range of `max_message`, bytes.
pub const MAX_MESSAGE: RangeInclusive<usize> = 1024..=64 * 1024;
/// Range of `in_flight`.
pub const IN_FLIGHT: RangeInclusive<u16> = 1..=64;
/// Range of `connect_timeout`.
pub const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(120);
/// Range of `ack_timeout`.
pub const ACK_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(600);
/// Where Debian, Yocto and most others keep the system's roots, one bundle.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

impl UplinkConfig {
    /// The defaults, for a broker.
    pub fn new(broker: Broker) -> Self {
        Self {
            broker,
            ca: None,
            identity: None,
            protocol: Protocol::V5,
            user: None,
            password_file: None,
            client_id: None,
            keep_alive: Duration::from_secs(20),
            alpn: Vec::new(),
            topics: Topics::default(),
            nobody_listens: NobodyListens::Confirm,
            retain: true,
            will: true,
            live_every: Duration::ZERO,
            max_message: 64 * 1024,
            in_flight: 16,
            connect_timeout: Duration::from_secs(20),
            ack_timeout: Duration::from_secs(30),
        }
    }
}

/// Our certificate, and the key it goes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Certificate chain, PEM, ours first.
    pub cert: PathBuf,
    /// Private key, PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5: a PUBACK says why.
    #[default]
    V5,
    /// MQTT 3.1.1: a PUBACK says only that the broker took the message; it may then have dropped it.
    V311,
}

/// What a PUBACK 0x10 ("no matching subscribers", MQTT 5 3.4.2.1) does to data. Counted either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NobodyListens {
    /// It confirms: the broker took it, and that is all we wait for.
    #[default]
    Confirm,
    /// The data stays in the spool and is sent again until somebody subscribes.
    Hold,
}

/// Where the broker is: `mqtts://host[:port]`, or `mqtt://` to a loopback address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address, as it is compared with the broker's certificate; IPv6 addresses without brackets.
    pub host: String,
    /// TCP port; default 8883, or 1883 without TLS.
    pub port: u16,
    /// TLS. Without it the host is a loopback address.
    pub tls: bool,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not what it should be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {remedy}")]
pub struct Unusable {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

fn unusable<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, Unusable> {
    Err(Unusable { what: what.into(), remedy: remedy.into() })
}

impl FromStr for Broker {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        const SHAPE: &str = "write mqtts://HOST:PORT, for example mqtts://mqtt.example.com:8883";
        let Some((scheme, rest)) = text.split_once("://") else {
            return unusable("the broker's address has no scheme", SHAPE);
        };
        let tls = match scheme {
            "mqtts" | "ssl" | "tls" => true,
            "mqtt" | "tcp" => false,
            "ws" | "wss" => return unusable("MQTT over WebSocket is not spoken", SHAPE),
            other => return unusable(format!("{other}:// is not a scheme of MQTT"), SHAPE),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return unusable("the address carries a user or a password", "use user and password_file");
        }
        if rest.contains(['/', '?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return unusable("there is more than host and port in the address", SHAPE);
        }
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(digits) => match digits.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => {
                    return unusable(
                        format!("{digits:?} is not a port"),
                        "a port is a number from 1 to 65535",
                    );
                }
            },
        };
        let broker = Self { host: host.to_owned(), port, tls };
        broker.check()?;
        Ok(broker)
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(rest: &str) -> Result<(&str, Option<&str>), Unusable> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let Some((host, after)) = bracketed.split_once(']') else {
            return unusable("an IPv6 address without its closing bracket", "write [ADDRESS]:PORT");
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => unusable("text after the IPv6 address", "write [ADDRESS]:PORT"),
        };
    }
    match rest.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            unusable("an IPv6 address without brackets", "write [ADDRESS]:PORT")
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((rest, None)),
    }
}

impl Broker {
    fn check(&self) -> Result<(), Unusable> {
        let address = self.host.parse::<IpAddr>().ok();
        if address.is_none() {
            let label = |part: &str| {
                !part.is_empty()
                    && part.len() <= 63
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            let name = self.host.strip_suffix('.').unwrap_or(&self.host);
            if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
                return unusable(
                    format!("{:?} is not a host name", self.host),
                    "letters, digits, hyphens, dots",
                );
            }
        }
        if self.tls && address.is_some_and(|a| a.is_ipv6()) {
            return unusable(
                "TLS to a bare IPv6 address is not supported",
                "give the broker a name (DNS or /etc/hosts) and use the name",
            );
        }
        let loopback = address.map_or(self.host == "localhost", |a| a.is_loopback());
        if !self.tls && !loopback {
            return unusable(
                "mqtt:// sends readings and passwords in clear over the network",
                "use mqtts:// (mqtt:// is accepted for 127.0.0.1, [::1] and localhost only)",
            );
        }
        Ok(())
    }
}

/// Where each kind of message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// `live`: readings as they come. May have `{device}`.
    pub live: Template,
    /// `backlog`: readings from the spool. May have `{device}`.
    pub backlog: Template,
    /// `event`: records. No `{device}`.
    pub event: Template,
    /// `status`: health, birth and will. No `{device}`.
    pub status: Template,
    /// `meta`: what the points mean. Must have `{device}`.
    pub meta: Template,
}

impl Default for Topics {
    fn default() -> Self {
        let template = |text: &str| Template(text.to_owned());
        Self {
            live: template("fieldspool/{gateway}/live/{device}"),
            backlog: template("fieldspool/{gateway}/backlog/{device}"),
            event: template("fieldspool/{gateway}/event"),
            status: template("fieldspool/{gateway}/status"),
            meta: template("fieldspool/{gateway}/meta/{device}"),
        }
    }
}

impl Topics {
    /// What is wrong with the five together: (key, what, remedy).
    pub fn faults(&self) -> Vec<(&'static str, Unusable)> {
        let mut faults = Vec::new();
        let mut fault = |key, what: &str, remedy: &str| {
            faults.push((key, Unusable { what: what.to_owned(), remedy: remedy.to_owned() }));
        };
        if !self.meta.has_device() {
            fault("meta", "without {device} each device would overwrite the others", "add {device}");
        }
        if self.event.has_device() {
            fault("event", "records belong to the gateway, not to a device", "leave {device} out");
        }
        if self.status.has_device() {
            fault("status", "the status belongs to the gateway, not to a device", "leave {device} out");
        }
        let all = [
            ("backlog", &self.backlog),
            ("event", &self.event),
            ("status", &self.status),
            ("meta", &self.meta),
            ("live", &self.live),
        ];
        for (i, (key, template)) in all.iter().enumerate() {
            if let Some((other, _)) = all.iter().skip(i + 1).find(|(_, t)| t == template) {
                fault(key, &format!("the same topic as {other}"), "give each kind of message its own topic");
            }
        }
        faults
    }
}

/// A topic with `{gateway}` and `{device}` to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// Longest topic we send, bytes. MQTT allows 65 535 (MQTT 5 1.5.4); names we fill in have at most 64 bytes each.
const TOPIC_MAX: usize = 1024;

impl FromStr for Template {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        if text.is_empty() || text.len() > TOPIC_MAX {
            return unusable(
                format!("a topic of {} bytes", text.len()),
                format!("a topic has 1 to {TOPIC_MAX} bytes"),
            );
        }
        if text.contains(['+', '#']) {
            return unusable(
                "a wildcard in a topic that is published to",
                "remove + and #: they are for subscribers",
            );
        }
        if text.chars().any(char::is_control) {
            return unusable("a control character in a topic", "remove it");
        }
        if text.starts_with('$') {
            return unusable("topics that begin with $ belong to the broker", "begin with another character");
        }
        let mut rest = text.replace("{gateway}", "").replace("{device}", "");
        if let Some(at) = rest.find(['{', '}']) {
            rest.drain(..at);
            return unusable(format!("{rest:?} is no placeholder"), "there are two: {gateway} and {device}");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Template {
    /// Messages carry one device each.
    pub fn has_device(&self) -> bool {
        self.0.contains("{device}")
    }

    /// The topic.
    pub fn topic(&self, gateway: &str, device: &str) -> String {
        self.0.replace("{gateway}", gateway).replace("{device}", device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_address_is_read() {
        let read = |text: &str| text.parse::<Broker>().map(|b| (b.host.clone(), b.port, b.tls));
        assert_eq!(read("mqtts://mqtt.example.com:8884"), Ok(("mqtt.example.com".into(), 8884, true)));
        assert_eq!(read("mqtts://mqtt.example.com/"), Ok(("mqtt.example.com".into(), 8883, true)));
        assert_eq!(read("mqtts://10.0.0.7"), Ok(("10.0.0.7".into(), 8883, true)));
        assert_eq!(read("mqtt://[::1]:2000"), Ok(("::1".into(), 2000, false)));
        assert_eq!(read("mqtt://localhost"), Ok(("localhost".into(), 1883, false)));
    }

    #[test]
    fn readings_never_travel_in_clear_beyond_this_machine() {
        for text in ["mqtt://mqtt.example.com", "mqtt://10.0.0.7", "mqtt://localhost.example.com"] {
            assert!(text.parse::<Broker>().is_err_and(|e| e.what.contains("in clear")), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_broker_address_says_what_to_write() {
        for text in [
            "",
            "mqtt.example.com",
            "http://mqtt.example.com",
            "wss://mqtt.example.com",
            "mqtts://",
            "mqtts://a b",
            "mqtts://host:0",
            "mqtts://host:70000",
            "mqtts://host:",
            "mqtts://host/path",
            "mqtts://u:p@host",
            "mqtts://::1",
            "mqtts://[::1",
            "mqtts://[::1]",
        ] {
            let error = text.parse::<Broker>().expect_err(text);
            assert!(!error.remedy.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_topic_is_filled_in() {
        let template: Template = "plant/{gateway}/{device}/x".parse().unwrap();
        assert_eq!(template.topic("gw1", "meter-01"), "plant/gw1/meter-01/x");
        assert!(template.has_device());
    }

    #[test]
    fn topics_that_cannot_be_published_to_are_refused() {
        for text in ["", "a/+/b", "a/#", "$SYS/x", "a/{point}", "a/{device", "a\0b"] {
            assert!(text.parse::<Template>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn topics_that_would_mix_messages_are_refused() {
        assert_eq!(Topics::default().faults(), []);
        let same = Topics {
            live: "x/{device}".parse().unwrap(),
            meta: "x/{device}".parse().unwrap(),
            ..Topics::default()
        };
        assert_eq!(same.faults().len(), 1);
        let bare = Topics { meta: "x".parse().unwrap(), ..Topics::default() };
        assert_eq!(bare.faults().iter().map(|f| f.0).collect::<Vec<_>>(), ["meta"]);
    }
}
