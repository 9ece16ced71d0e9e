//! How the gateway is: one board that every part writes its own section of, and that the page, `fieldspool status`,
//! the metrics, systemd's STATUS line and the retained status topic read.
//!
//! Not a log and not a history: only what is true now. Sections are small and locked briefly; nobody holds two.

use std::sync::{Arc, Mutex, PoisonError};

use fieldspool_drivers::bus::Counters;
use serde::{Deserialize, Serialize};

/// Everything, copied at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Who and since when.
    pub gateway: GatewayStatus,
    /// By bus, in the configuration's order.
    pub buses: Vec<BusStatus>,
    /// The connection to the broker.
    pub uplink: UplinkStatus,
    /// The spool.
    pub spool: SpoolStatus,
    /// The clock.
    pub clock: ClockStatus,
}

/// Identity and life of the daemon.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayStatus {
    /// Gateway id; empty while idle without one.
    pub id: String,
    /// This run.
    pub run: String,
    /// Version of the program.
    pub version: String,
    /// Wall clock of the start, µs.
    pub started_us: i64,
    /// No configuration: nothing is polled.
    pub idle: bool,
    /// Crash loop: only sampling and spool run.
    pub safe_mode: bool,
    /// First 16 hexadecimal digits of the configuration's SHA-256.
    pub config_hash: String,
    /// Why the newest configuration was refused, if it was.
    pub config_refused: Option<String>,
    /// `fieldspool check` finds that too.
    pub check_finds_it: bool,
    /// What a person should know and do, one sentence each: clone suspected, state on tmpfs, page certificate, ...
    pub warnings: Vec<String>,
}

/// One bus.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BusStatus {
    /// Name.
    pub name: String,
    /// `modbus-rtu`, ...
    pub driver: String,
    /// Port path or `host:port`.
    pub place: String,
    /// The line is open.
    pub up: bool,
    /// Why not, in words.
    pub error: Option<String>,
    /// Share of the last minute in which the line was in use, 0 to 1.
    pub load: f64,
    /// What it has seen.
    pub counters: CounterStatus,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
}

impl BusStatus {
    /// Whether the line was tried and is not open. Not yet tried is not down.
    pub fn is_down(&self) -> bool {
        !self.up && self.error.is_some()
    }

    /// Whether a device of this bus answers now, as it is shown: on a line that is down nobody does, whatever the last poll brought.
    /// `None` while that is not known yet.
    pub fn answers(&self, device: &DeviceStatus) -> Option<bool> {
        match device.answering {
            heard if self.up => heard,
            heard => (heard.is_some() || self.error.is_some()).then_some(false),
        }
    }

    /// Its devices that answer and have no usable value.
    pub fn useless(&self) -> impl Iterator<Item = &DeviceStatus> {
        self.devices.iter().filter(|device| self.up && device.is_useless())
    }
}

/// [`Counters`] as they are shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the meaning of each stands at `Counters`
pub struct CounterStatus {
    pub requests: u64,
    pub answers: u64,
    pub exceptions: u64,
    pub timeouts: u64,
    pub crc_errors: u64,
    pub foreign_frames: u64,
    pub bad_frames: u64,
    pub echoes: u64,
    pub opens: u64,
    pub bytes: u64,
}

impl From<&Counters> for CounterStatus {
    fn from(c: &Counters) -> Self {
        Self {
            requests: c.requests,
            answers: c.answers,
            exceptions: c.exceptions,
            timeouts: c.timeouts,
            crc_errors: c.crc_errors,
            foreign_frames: c.foreign_frames,
            bad_frames: c.bad_frames,
            echoes: c.echoes,
            opens: c.opens,
            bytes: c.bytes,
        }
    }
}

/// One device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceStatus {
    /// Name.
    pub name: String,
    /// What the user calls it; empty if not given.
    pub label: String,
    /// How the line reaches it: `unit 1`.
    pub address: String,
    /// It answered when its bus last could ask it; `None` before the first answer or silence. What is shown: [`BusStatus::answers`].
    pub answering: Option<bool>,
    /// Wall clock of the last edge between answering and silent, µs.
    pub since_us: Option<i64>,
    /// Why it counts as silent, in words.
    pub error: Option<String>,
    /// Median and 99th percentile of the last answers' turnaround, µs.
    pub turnaround_us: Option<(u64, u64)>,
    /// Polls made.
    pub polls: u64,
    /// Polls due and not made.
    pub missed: u64,
    /// Its last poll brought no believed answer, but something else: a damaged frame, or an answer to another question.
    pub misheard: bool,
    /// Points that are polled.
    pub points: u64,
    /// Of these, without a usable value although the device answers.
    pub unusable: u64,
    /// Of these, because the device itself says that it has no value.
    pub unusable_expected: u64,
    /// The most frequent reason, as `Cause::code`.
    pub unusable_cause: Option<u16>,
    /// How many of the unusable points have it; 0 of a daemon that does not tell.
    pub unusable_of_cause: u64,
}

impl DeviceStatus {
    /// It answers, and none of its points has a usable value; not because it says itself that it has none.
    pub fn is_useless(&self) -> bool {
        self.answering == Some(true) && self.unusable >= self.points && self.unusable > self.unusable_expected
    }
}

/// The connection to the broker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UplinkStatus {
    /// There is an uplink in the configuration.
    pub configured: bool,
    /// `host:port`.
    pub broker: String,
    /// After CONNACK.
    pub connected: bool,
    /// Wall clock of the last change of `connected`, µs.
    pub since_us: Option<i64>,
    /// Why not connected, in words, with what to do.
    pub error: Option<String>,
    /// What the broker refuses although the connection stands; `None` without one.
    pub refused: Option<Refused>,
    /// Connections so far.
    pub connects: u64,
    /// Seconds to the next attempt.
    pub retry_in: Option<u64>,
    /// Readings confirmed by a PUBACK in this run.
    pub confirmed: u64,
    /// Messages and bytes published in this run.
    pub messages: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Messages the broker accepted although nobody was subscribed (0x10).
    pub nobody_listening: u64,
    /// Of these, records (gaps, damage, run ends, ...).
    pub records_unheard: u64,
    /// Messages refused for good and stored as dead letters; only ever grows.
    pub dead_letters: u64,
    /// End of validity of the client certificate, wall clock µs.
    pub certificate_expires_us: Option<i64>,
}

/// A broker that is connected and does not take what it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// How much of it.
    pub what: Refusing,
    /// Wall clock of the first refusal, µs.
    pub since_us: i64,
    /// Why, in words, with what to do.
    pub why: String,
}

/// How much a broker refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusing {
    /// No reading is taken; one at a time is tried.
    #[default]
    All,
    /// Readings that were refused wait, while others pass or may pass.
    Some,
    /// Only what tells of the gateway and its devices.
    About,
}

/// The spool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolStatus {
    /// `ok`, `read-only`, `full`, `failing`, `damaged`, `stalled`.
    pub state: String,
    /// Why, in words, if not ok.
    pub error: Option<String>,
    /// Readings numbered in this run.
    pub numbered: u64,
    /// Numbered and not yet stored.
    pub open: u64,
    /// Stored and not yet confirmed, all runs.
    pub waiting: u64,
    /// Records (gaps, run ends, damage, clock) that are not yet confirmed, all runs.
    pub records_waiting: u64,
    /// Wall clock of the oldest waiting reading, µs; `None`: none waits, or it is not known.
    pub oldest_us: Option<i64>,
    /// It is not known how old what waits is: a file that was set aside is being searched, what was saved from one stands behind
    /// newer readings, or readings are lost and the disk has no record of it yet.
    pub oldest_unknown: bool,
    /// Confirmed since the spool was made.
    pub confirmed: u64,
    /// Dropped to make room.
    pub evicted: u64,
    /// Dropped because they were older than `max_age`.
    pub expired: u64,
    /// Lost to damage on disk.
    pub damaged: u64,
    /// Dropped from memory while the disk was failing.
    pub dropped: u64,
    /// That became dead letters; of these the newest are kept.
    pub dead_lettered: u64,
    /// Messages refused for good that are kept, of earlier runs too.
    pub dead_letters: u64,
    /// Of these, records (gaps, damage, run ends, ...): what they tell, the server does not know.
    pub records_refused: u64,
    /// Why the newest of them was refused, in the server's words.
    pub dead_letter_reason: Option<String>,
    /// Bytes of the file and its WAL.
    pub bytes: u64,
    /// The cap.
    pub bytes_max: u64,
    /// Hours until the cap at the present rate, if readings are waiting.
    pub hours_until_full: Option<f64>,
    /// Bytes written to the file system per stored reading in this run.
    pub bytes_per_reading: Option<f64>,
    /// Gigabytes a day at the present rate.
    pub gigabytes_per_day: Option<f64>,
    /// Seconds of readings that a power cut would cost, as it was just before the newest commit or is now, whichever is more.
    pub unstored_seconds: f64,
    /// Where the file system of the state directory is mounted, if known.
    pub mounted_at: Option<String>,
    /// The state directory survives a power cut; if not, why (`tmpfs`, ...).
    pub not_durable: Option<String>,
    /// The newest damage that was found, of earlier runs too, and what came of it.
    pub salvage: Option<Salvage>,
    /// Damaged files that had to go in this run before anybody had searched them.
    pub unsearched: u64,
}

impl SpoolStatus {
    /// Readings that are in memory alone because the disk does not take them, if there are any.
    pub fn in_memory(&self) -> Option<u64> {
        (self.state != "ok" && self.open > 0).then_some(self.open)
    }
}

/// What was saved from a damaged spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Salvage {
    /// When it was found, or the search of it ended, wall clock µs.
    pub at_us: i64,
    /// What was wrong, in words.
    pub found: String,
    /// Readings saved; while it is being searched: so far.
    pub saved: u64,
    /// Readings known to be lost; not known before the end of the search.
    pub lost: u64,
    /// It is still being searched.
    pub searching: bool,
    /// It is, and what was found waits until there is room for it: it comes back as the server takes what is stored.
    pub waits_for_room: bool,
}

/// The clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockStatus {
    /// Someone has set it.
    pub synced: bool,
    /// Offset found when it was first set in this boot, µs.
    pub corrected_us: Option<i64>,
}

/// The board itself. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    status: Arc<Mutex<Status>>,
}

impl Board {
    /// Changes one's own section.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A copy of everything. Places of buses that a reload took away are left out.
    pub fn snapshot(&self) -> Status {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.buses.retain(|bus| !bus.name.is_empty());
        status
    }

    /// Reads without copying.
    pub fn read<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
