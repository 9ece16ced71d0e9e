//! The configuration: from files to what the daemon is told to do.
//!
//! The road: `folders` finds and reads the files, `document` makes trees of them in which every key and value knows
//! its place, `meaning` turns the merged tree into a [`Config`], `surroundings` looks at what the configuration
//! points to (certificates, keys, ports), `report` prints it all for `fieldspool check`, `diff` compares two.
//!
//! Promises: all faults at once, each with file, line and column and what to do; a text that is not understood is
//! never half applied (P9); what N.0 accepts, all N.x accept. No input makes it panic. Not here: the shape of a
//! driver's settings (each driver asks for its own through `Section`), and opening anything that is polled.
//!
//! A fault of the *text* leaves no [`Config`]. What is wrong *around* it (an expired certificate, a key that others
//! can read) is a fault for `check`, and does not keep the daemon from sampling.

pub mod diff;
pub mod fault;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::bus::BusSpec;

use crate::page::PageConfig;
use crate::spool::SpoolSettings;
use crate::uplink::UplinkConfig;

pub use diff::{Change, diff};
pub use fault::{Fault, Place, Unchecked};

/// Everything the daemon is told. Each part takes its own slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Gateway id: `gateway`, else the common name of the client certificate, else (without uplink) the host name.
    pub gateway: Arc<str>,
    /// First 16 hexadecimal digits of the SHA-256 over the files that had a say; 16 zeros if there was none.
    pub hash: String,
    /// `[uplink]`; without it nothing is sent, and everything is kept.
    pub uplink: Option<UplinkConfig>,
    /// `[spool]` and `state_directory`.
    pub spool: SpoolSettings,
    /// `runtime_directory`, else `$RUNTIME_DIRECTORY`, else `/run/fieldspool`.
    pub runtime_directory: PathBuf,
    /// `[page]`; `None` with `page = false`.
    pub page: Option<PageConfig>,
    /// `[bus.*]`, in the order of the files. None at all means idle.
    pub buses: Vec<ConfiguredBus>,
    /// `trust_rtc`: the machine's own clock is good without NTP.
    pub trust_rtc: bool,
}

/// A bus, and what the daemon adds to what its driver is told.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredBus {
    /// For the driver.
    pub spec: BusSpec,
    /// Parallel to `spec.devices`.
    pub devices: Vec<DeviceInfo>,
}

/// What the daemon knows of a device beside how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// What people call it; empty if not given.
    pub label: Arc<str>,
    /// Name of its profile, if it has one.
    pub profile: Option<Arc<str>>,
    /// Points to be shown beside the name, as indices.
    pub headline: Vec<u16>,
    /// Parallel to the device's points.
    pub points: Vec<PointInfo>,
}

/// What the daemon knows of a point beside how to read it.
#[derive(Clone, Debug, PartialEq)]
pub struct PointInfo {
    /// What people call it; empty if not given.
    pub label: Arc<str>,
    /// Unit of measurement; may be empty.
    pub unit: Arc<str>,
    /// Digits after the decimal point on display, 0 to 9.
    pub decimals: Option<u8>,
    /// Integers beyond 2^53 are sent as JSON strings.
    pub json_string: bool,
    /// A number that moved no further than this since the last report is not reported; implies `on_change`.
    pub deadband: Option<f64>,
    /// Only changes are reported, and one reading each `heartbeat`.
    pub on_change: bool,
    /// Longest silence of a point that is reported on change, and of the `bad` readings of a silent device;
    /// 1 s to 1 day, default 60 s.
    pub heartbeat: Duration,
}

impl Config {
    /// Nothing is polled.
    pub fn is_idle(&self) -> bool {
        self.buses.is_empty()
    }
}

/// What came of reading the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration; `None` if its text has faults or a file of it could not be read.
    pub config: Option<Config>,
    /// What is wrong with the text, by place.
    pub faults: Vec<Fault>,
    /// What is right and yet worth a word.
    pub warnings: Vec<Fault>,
    /// What could not be read as this user.
    pub unchecked: Vec<Unchecked>,
}
