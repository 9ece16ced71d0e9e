//! What the uplink is told: plain data, already checked for form, in the units it works with.
//!
//! Not here: reading the file (`config`), reading the certificates (`tls`). A value of these types is one the uplink
//! can work with: ranges stand at each field and are what the configuration's check applies.

mod broker;
mod topics;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use broker::Broker;
pub use topics::{Template, Topics};

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
