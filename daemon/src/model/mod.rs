//! What travels: readings in batches, and the records beside them ([`event`]). No I/O, no clock, no async.
//!
//! A **batch** is what one poll of one device returned: one stamp, a stretch of `seq`, its readings. It is atomic:
//! nothing cuts it after intake has numbered it, and its identity is `(gateway, run, seq)` with `n` readings.

pub mod event;

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::{Sample, Value, ValueKind};

/// One life of the daemon, as a text that sorts: `00000017-9f3c2a10`, a zero-padded decimal counter and a random
/// part in hexadecimal. Uniqueness rests on the random part; the counter makes runs sort.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// Grows by one with each start, as far as the disk remembers; 0 to 99 999 999.
    pub counter: u32,
    /// Drawn anew at each start.
    pub random: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{:08x}", self.counter, self.random)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run looks like 00000017-9f3c2a10: eight decimal digits, a hyphen, eight hexadecimal digits")]
pub struct NotARun;

impl FromStr for RunId {
    type Err = NotARun;

    fn from_str(text: &str) -> Result<Self, NotARun> {
        let (counter, random) = text.split_once('-').ok_or(NotARun)?;
        let eight = |part: &str, digit: fn(&u8) -> bool| part.len() == 8 && part.bytes().all(|b| digit(&b));
        if !eight(counter, u8::is_ascii_digit) || !eight(random, u8::is_ascii_hexdigit) {
            return Err(NotARun);
        }
        Ok(Self {
            counter: counter.parse().map_err(|_| NotARun)?,
            random: u32::from_str_radix(random, 16).map_err(|_| NotARun)?,
        })
    }
}

/// One boot of the machine (`/proc/sys/kernel/random/boot_id`), as its 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(pub u128);

/// How far the wall clock of a stamp can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockQuality {
    /// The kernel said the clock was set (adjtimex without STA_UNSYNC), or the user vouches for it (`trust_rtc`).
    Synced,
    /// Nobody had set the clock yet.
    Unsynced,
    /// Taken while unsynced, corrected later by the offset of a clock record of the same boot.
    Corrected,
}

/// When a batch was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Wall clock, microseconds since 1970-01-01 UTC, as it was at that moment.
    pub wall_us: i64,
    /// CLOCK_BOOTTIME of the same moment, microseconds.
    pub mono_us: u64,
    /// The boot that `mono_us` counts from.
    pub boot: BootId,
    /// Trust in `wall_us`.
    pub clock: ClockQuality,
}

/// What people are told of a point: by the page, and by the broker (topic `meta`).
#[derive(Clone, Debug, PartialEq)]
pub struct PointInfo {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Variant of all its values.
    pub kind: ValueKind,
    /// Unit of measurement; may be empty.
    pub unit: Arc<str>,
    /// What the user calls it; empty if not given.
    pub label: Arc<str>,
    /// Digits after the decimal point that are worth showing, 0 to 9.
    pub decimals: Option<u8>,
    /// Shown beside the device's name.
    pub headline: bool,
    /// How often it is polled; `None` for an instrument that speaks by itself.
    pub period: Option<Duration>,
    /// Integers beyond 2^53 come as JSON strings (`json = "string"`).
    pub json_string: bool,
}

/// What a receiver must know of a point to read its values. Any change makes a new [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PointMeta {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Variant of all its values.
    pub kind: ValueKind,
    /// Unit of measurement, as configured; may be empty.
    pub unit: Arc<str>,
    /// Integers beyond 2^53 are printed as JSON strings (`json = "string"`).
    pub json_string: bool,
}

/// The dictionary entry a batch is read with: gateway, device and its points, as they were when it was numbered.
/// Immutable; stored with the first block that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Gateway id under which the readings were taken.
    pub gateway: Arc<str>,
    /// Device name; the configuration sees to it that no two devices of a gateway have one.
    pub device: Arc<str>,
    /// All points of the device; readings name them by index.
    pub points: Box<[PointMeta]>,
    keys: Keys,
}

/// The points' names as keys of JSON, `"power":`, one behind the other: a message prints one for each reading.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Keys {
    text: Box<[u8]>,
    ends: Box<[usize]>,
}

impl Shape {
    /// A device and its points.
    pub fn new(gateway: Arc<str>, device: Arc<str>, points: Box<[PointMeta]>) -> Self {
        let mut text = Vec::new();
        let key = |point: &PointMeta| {
            serde_json::to_writer(&mut text, &*point.name).expect("a Vec takes every string");
            text.push(b':');
            text.len()
        };
        let ends = points.iter().map(key).collect();
        Self { gateway, device, points, keys: Keys { text: text.into(), ends } }
    }

    /// The name of a point as a key of JSON: quoted, with its colon.
    pub fn key(&self, point: u16) -> Option<&[u8]> {
        let at = usize::from(point);
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.keys.ends.get(before).copied())?;
        self.keys.text.get(begin..*self.keys.ends.get(at)?)
    }
}

/// One value of one point: a sample, and which point it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Index into [`Shape::points`].
    pub point: u16,
    /// The value, or why there is none.
    pub sample: Sample,
}

/// What one poll of one device returned, numbered and stamped. Between 1 and [`BATCH_READINGS_MAX`] readings.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The life of the daemon in which it was read.
    pub run: RunId,
    /// Number of its first reading in the run, from 0. The next batch of the gateway begins at `seq + n`.
    pub seq: u64,
    /// `seq` of this device's batch before, in the same run; `None` for the device's first.
    pub prev: Option<u64>,
    /// When.
    pub stamp: Stamp,
    /// Of what.
    pub shape: Arc<Shape>,
    /// The readings, by ascending point.
    pub readings: Readings,
}

impl Batch {
    /// How many sequence numbers it uses.
    pub fn n(&self) -> u64 {
        self.readings.len() as u64
    }

    /// The sequence number after its last.
    pub fn end(&self) -> u64 {
        self.seq + self.n()
    }

    /// Bytes that it takes in memory, its texts included.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.readings.len() * size_of::<Reading>() + self.readings.text_bytes
    }
}

/// The readings of a batch. Whoever bounds memory asks what they weigh, so their texts are counted once.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    list: Vec<Reading>,
    text_bytes: usize,
}

impl Readings {
    /// Bytes of the texts among the values.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The readings, to be cut up.
    pub fn into_list(self) -> Vec<Reading> {
        self.list
    }
}

impl FromIterator<Reading> for Readings {
    fn from_iter<I: IntoIterator<Item = Reading>>(readings: I) -> Self {
        readings.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<Reading>> for Readings {
    fn from(list: Vec<Reading>) -> Self {
        let text = |reading: &Reading| match &reading.sample.value {
            Some(Value::Text(text)) => text.len(),
            _ => 0,
        };
        Self { text_bytes: list.iter().map(text).sum(), list }
    }
}

impl Deref for Readings {
    type Target = [Reading];

    fn deref(&self) -> &[Reading] {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Readings {
    type Item = &'a Reading;
    type IntoIter = std::slice::Iter<'a, Reading>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// Intake cuts a poll at this many readings before numbering.
pub const BATCH_READINGS_MAX: usize = 500;

/// ... and at this many bytes, counted as the values' own size, texts included.
pub const BATCH_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_shape_are_json_and_an_index_beyond_has_none() {
        let point = |name: &str| PointMeta {
            name: name.into(),
            kind: ValueKind::Uint,
            unit: "".into(),
            json_string: false,
        };
        let shape =
            Shape::new("gw".into(), "d".into(), [point("power"), point("a\"\n\u{e9}"), point("")].into());
        let keys: Vec<_> = (0..4).map(|at| shape.key(at).map(String::from_utf8_lossy)).collect();
        let expected = [Some("\"power\":"), Some("\"a\\\"\\n\u{e9}\":"), Some("\"\":"), None];
        assert_eq!(keys, expected.map(|key| key.map(Into::into)));
    }

    #[test]
    fn a_run_reads_back_and_sorts() {
        let run = RunId { counter: 17, random: 0x9f3c_2a10 };
        assert_eq!(run.to_string(), "00000017-9f3c2a10");
        assert_eq!("00000017-9f3c2a10".parse(), Ok(run));
        assert!(run < RunId { counter: 18, random: 0 });
        assert!(run.to_string() < RunId { counter: 18, random: 0 }.to_string());
    }

    #[test]
    fn what_is_not_a_run_is_refused() {
        for text in
            ["", "17-9f3c2a10", "00000017", "+0000017-9f3c2a10", "00000017-+f3c2a10", "00000017-9f3c2a1g"]
        {
            assert_eq!(text.parse::<RunId>(), Err(NotARun), "{text}");
        }
    }
}
