//! What the configuration says about a Modbus line and a device on it.
//!
//! Three lines: `modbus-tcp`, `modbus-rtu` on a serial port, and `modbus-rtu-tcp`, RTU frames through a terminal
//! server. The keys of the serial port itself are [`PortSettings`]'. Nothing is opened here.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::Section;
use crate::serial_port::PortSettings;

/// Registers that one request may ask for (Modbus Application Protocol V1.1b3, 6.3).
pub const REGISTERS_MAX: u16 = 125;

/// Coils that one request may ask for (Modbus Application Protocol V1.1b3, 6.1).
pub const COILS_MAX: u16 = 2_000;

/// A gap of so many registers is read along rather than paid for with a second request: at 9 600 baud a request
/// costs at least 8 + 5 characters, two silences and the turnaround, which carries more than 8 registers.
const MAX_GAP: u16 = 8;

const TCP_TIMEOUT: Duration = Duration::from_secs(1);
const RTU_TIMEOUT: Duration = Duration::from_millis(500);
const RTU_TCP_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest host name (RFC 1035, 2.3.4, as text).
const HOST_MAX: usize = 253;

/// Host and TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Settings of `modbus-tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpLink {
    /// Device or gateway; port 502 unless said.
    pub endpoint: Endpoint,
    /// Longest wait for an answer, 10 ms to 60 s; 1 s unless said. For a gateway with a serial line behind it,
    /// longer than the gateway's own.
    pub timeout: Duration,
}

/// Settings of `modbus-rtu`.
#[derive(Clone, Debug, PartialEq)]
pub struct RtuLink {
    /// The serial port.
    pub port: PortSettings,
    /// Longest wait from the end of a request to the beginning of its answer, 10 ms to 60 s; 500 ms unless said.
    pub timeout: Duration,
    /// Whether the adapter hears what it sends.
    pub echo: Echo,
    /// How long after an unanswered request its answer may still come; see [`hold_off`](Self::hold_off).
    pub hold_off: Option<Duration>,
}

/// Settings of `modbus-rtu-tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct RtuTcpLink {
    /// The terminal server; the port has no default.
    pub endpoint: Endpoint,
    /// As for [`RtuLink`]; 1 s unless said.
    pub timeout: Duration,
    /// Whether the server's line hears what it sends.
    pub echo: Echo,
    /// As for [`RtuLink`].
    pub hold_off: Option<Duration>,
}

/// Two-wire adapters that hear themselves return each request before the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// Strip it where it appears.
    #[default]
    Auto,
    /// It must appear: an answer without it is not believed.
    On,
    /// Never strip.
    Off,
}

/// A Modbus device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// 1 to 247 on serial lines; 0 and 255 also on TCP.
    pub unit_id: u8,
    /// Registers in one request, 1 to 125.
    pub max_registers: u16,
    /// Registers that nobody asked for, read along inside a request, 0 to 124.
    pub max_gap: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    fn from_section(section: &mut dyn Section, port_default: Option<u16>) -> Option<Self> {
        let host = section.text("host");
        let port = section.integer("port", 1..=65_535).and_then(|port| u16::try_from(port).ok());
        if !section.has("host") {
            section.fault("host", "no `host`".into(), "add `host = \"10.0.0.5\"`".into());
        }
        if port_default.is_none() && !section.has("port") {
            section.fault(
                "port",
                "no `port`".into(),
                "add the TCP port that the terminal server gives its serial line, such as `port = 4001`"
                    .into(),
            );
        }
        let host = host?;
        let host = match plain_host(&host) {
            Ok(plain) => plain.to_owned(),
            Err(remedy) => {
                let shown: String = host.chars().take(60).flat_map(char::escape_debug).collect();
                section.fault("host", format!("`{shown}` is not a host"), remedy.into());
                return None;
            }
        };
        if section.has("port") {
            Some(Self { host, port: port? })
        } else {
            Some(Self { host, port: port_default? })
        }
    }
}

/// A host as it is looked up, or what to write instead. What looks like an address has to be one: as a name it would be
/// looked up in vain, or, cut short, found elsewhere (`10.0.0` is 10.0.0.0 to many a resolver).
fn plain_host(text: &str) -> Result<&str, &'static str> {
    const PLAIN: &str = "write a name or an address, without scheme and port";
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '[' | ']');
    if bare.is_empty() || bare.len() > HOST_MAX || bare.contains(odd) {
        return Err(PLAIN);
    }
    if bare.contains(':') {
        let address = bare.split('%').next().unwrap_or(bare);
        return address.parse::<Ipv6Addr>().map(|_| bare).map_err(|_| PLAIN);
    }
    let numbers = bare.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numbers && bare.parse::<Ipv4Addr>().is_err() {
        return Err("write four numbers from 0 to 255, such as 10.0.0.5");
    }
    Ok(bare)
}

fn timeout(section: &mut dyn Section, default: Duration) -> Duration {
    section.duration("timeout", Duration::from_millis(10)..=Duration::from_secs(60)).unwrap_or(default)
}

fn hold_off(section: &mut dyn Section) -> Option<Duration> {
    section.duration("hold_off", Duration::ZERO..=Duration::from_secs(600))
}

fn echo(section: &mut dyn Section) -> Echo {
    match section.choice("echo", &["auto", "on", "off"]) {
        Some(1) => Echo::On,
        Some(2) => Echo::Off,
        _ => Echo::Auto,
    }
}

impl TcpLink {
    /// Reads `host`, `port`, `timeout`.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let endpoint = Endpoint::from_section(section, Some(502));
        let timeout = timeout(section, TCP_TIMEOUT);
        Some(Self { endpoint: endpoint?, timeout })
    }
}

impl RtuLink {
    /// Reads the keys of the port, `timeout`, `echo`, `hold_off`.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let port = PortSettings::from_section(section);
        if port.as_ref().is_some_and(|port| port.format.data_bits != 8) {
            section.fault(
                "format",
                "Modbus RTU has 8 data bits, not 7".into(),
                "write \"8E1\", \"8N1\" or \"8N2\"; an instrument set to 7 speaks Modbus ASCII: set it to RTU".into(),
            );
        }
        let (timeout, echo, hold_off) = (timeout(section, RTU_TIMEOUT), echo(section), hold_off(section));
        Some(Self { port: port?, timeout, echo, hold_off })
    }

    /// A line with all defaults.
    pub fn new(port: PortSettings) -> Self {
        Self { port, timeout: RTU_TIMEOUT, echo: Echo::Auto, hold_off: None }
    }
}

impl RtuTcpLink {
    /// Reads `host`, `port`, `timeout`, `echo`, `hold_off`.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let endpoint = Endpoint::from_section(section, None);
        let (timeout, echo, hold_off) = (timeout(section, RTU_TCP_TIMEOUT), echo(section), hold_off(section));
        Some(Self { endpoint: endpoint?, timeout, echo, hold_off })
    }
}

impl Device {
    /// A device with the protocol's own limits.
    pub fn new(unit_id: u8) -> Self {
        Self { unit_id, max_registers: REGISTERS_MAX, max_gap: MAX_GAP }
    }

    /// Reads `unit_id`, `max_registers`, `max_gap`.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let unit_id = section.integer("unit_id", 0..=255).and_then(|id| u8::try_from(id).ok());
        let mut number = |key, range, default| {
            section.integer(key, range).and_then(|n| u16::try_from(n).ok()).unwrap_or(default)
        };
        let max_registers = number("max_registers", 1..=125, REGISTERS_MAX);
        let max_gap = number("max_gap", 0..=124, MAX_GAP);
        if !section.has("unit_id") {
            section.fault(
                "unit_id",
                "no `unit_id`".into(),
                "add the address that is set at the instrument, such as `unit_id = 1`".into(),
            );
        }
        Some(Self { unit_id: unit_id?, max_registers, max_gap })
    }
}
