//! What the configuration says about a serial port, the same keys for every driver.
//!
//! `port`, `speed`, `format`, `rs485`, `rs485_before`, `rs485_after`, `low_latency`. Nothing is opened here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Section;

/// Speed where the configuration says nothing: the factory setting of most meters.
const SPEED_DEFAULT: u32 = 9_600;

/// What instruments are set to. Others can be meant, and more often are slips of the pen.
const SPEEDS: [i64; 24] = [
    300, 600, 1_200, 1_800, 2_400, 4_800, 7_200, 9_600, 14_400, 19_200, 28_800, 31_250, 38_400, 57_600,
    76_800, 93_750, 115_200, 187_500, 230_400, 250_000, 460_800, 500_000, 921_600, 1_000_000,
];

/// A serial port and how it is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// Absolute path, best one below `/dev/serial/by-id` or `/dev/serial/by-path`: those survive replugging.
    pub path: String,
    /// Bits a second, 300 to 4 000 000.
    pub speed: u32,
    /// Shape of a character.
    pub format: Format,
    /// The kernel turns the direction of an RS-485 transceiver; `None` where the adapter does it by itself.
    pub rs485: Option<Rs485>,
    /// Ask the driver not to gather received bytes (`ASYNC_LOW_LATENCY`; FTDI adapters otherwise wait 16 ms).
    pub low_latency: bool,
}

/// Direction of an RS-485 transceiver through the kernel (`TIOCSRS485`, Documentation/driver-api/serial/serial-rs485).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rs485 {
    /// Between taking the line and the first bit; 0 to 100 ms, sent to the kernel in whole milliseconds.
    pub before: Duration,
    /// Between the last bit and letting go of the line; 0 to 100 ms.
    pub after: Duration,
}

/// Shape of a character on the line: `8N1`, `8E1`, `7E1`, `8N2`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// 7 or 8.
    pub data_bits: u8,
    /// Parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// Parity of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even number of ones.
    Even,
    /// Odd number of ones.
    Odd,
}

impl PortSettings {
    /// Settings of a port with all defaults: 9600 8N1, no RS-485, no low latency.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            speed: SPEED_DEFAULT,
            format: Format::default(),
            rs485: None,
            low_latency: false,
        }
    }

    /// Takes the keys of a serial port out of a link's table. `None` only if `port` is missing or wrong, or a
    /// fault in another key was reported; every key is asked for in each case.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let path = section.text("port");
        let speed = section.integer("speed", 300..=4_000_000);
        let format = section.text("format");
        let rs485 = section.choice("rs485", &["off", "kernel"]);
        let before = section.duration("rs485_before", Duration::ZERO..=Duration::from_millis(100));
        let after = section.duration("rs485_after", Duration::ZERO..=Duration::from_millis(100));
        let low_latency = section.flag("low_latency");

        if let Some(speed) = speed.filter(|speed| !SPEEDS.contains(speed)) {
            let nearest = SPEEDS.iter().min_by_key(|usual| (**usual - speed).abs()).copied().unwrap_or(speed);
            section.warn(
                "speed",
                format!("{speed} is not a usual speed"),
                format!("did you mean {nearest}? An adapter may not be able to make another one"),
            );
        }
        let path_ok = match &path {
            Some(path) if path.starts_with('/') => true,
            Some(path) => {
                section.fault(
                    "port",
                    format!("`{path}` is not a path"),
                    format!("write the whole path, such as `/dev/{path}` or a name below /dev/serial/by-id"),
                );
                false
            }
            None => {
                if !section.has("port") {
                    section.fault(
                        "port",
                        "no serial port is named".into(),
                        "add `port = \"/dev/serial/by-id/...\"`; `ls -l /dev/serial/by-id` lists the adapters".into(),
                    );
                }
                false
            }
        };
        let format = match format.as_deref().map(str::parse::<Format>) {
            Some(Ok(format)) => Some(format),
            Some(Err(NotAFormat)) => {
                section.fault(
                    "format",
                    format!("`{}` is not a character format", format.unwrap_or_default()),
                    "write data bits, parity and stop bits together: 8N1, 8E1, 8O1, 8N2 or 7E1".into(),
                );
                None
            }
            None if section.has("format") => None,
            None => Some(Format::default()),
        };
        let kernel = rs485 == Some(1);
        if !kernel && (section.has("rs485_before") || section.has("rs485_after")) {
            let key = if section.has("rs485_before") { "rs485_before" } else { "rs485_after" };
            section.fault(
                key,
                "a delay has no effect without `rs485 = \"kernel\"`".into(),
                "add `rs485 = \"kernel\"` or remove the delay".into(),
            );
        }
        if !path_ok || (speed.is_none() && section.has("speed")) {
            return None;
        }
        Some(Self {
            path: path?,
            speed: speed.and_then(|s| u32::try_from(s).ok()).unwrap_or(SPEED_DEFAULT),
            format: format?,
            rs485: kernel
                .then(|| Rs485 { before: before.unwrap_or_default(), after: after.unwrap_or_default() }),
            low_latency: low_latency.unwrap_or(false),
        })
    }

    /// How long one character occupies the line: start bit, data, parity, stop bits.
    pub fn character_time(&self) -> Duration {
        Duration::from_nanos(u64::from(self.format.bits()) * 1_000_000_000 / u64::from(self.speed.max(1)))
    }
}

impl Format {
    /// Bits on the line for one character, start bit included; 9 to 12.
    pub fn bits(self) -> u32 {
        1 + u32::from(self.data_bits) + u32::from(self.parity != Parity::None) + u32::from(self.stop_bits)
    }
}

impl Default for Format {
    fn default() -> Self {
        Self { data_bits: 8, parity: Parity::None, stop_bits: 1 }
    }
}

/// The text is not a character format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFormat;

impl FromStr for Format {
    type Err = NotAFormat;

    fn from_str(text: &str) -> Result<Self, NotAFormat> {
        let &[data, parity, stop] = text.as_bytes() else { return Err(NotAFormat) };
        Ok(Self {
            data_bits: match data {
                b'7' => 7,
                b'8' => 8,
                _ => return Err(NotAFormat),
            },
            parity: match parity.to_ascii_uppercase() {
                b'N' => Parity::None,
                b'E' => Parity::Even,
                b'O' => Parity::Odd,
                _ => return Err(NotAFormat),
            },
            stop_bits: match stop {
                b'1' => 1,
                b'2' => 2,
                _ => return Err(NotAFormat),
            },
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{}{parity}{}", self.data_bits, self.stop_bits)
    }
}
