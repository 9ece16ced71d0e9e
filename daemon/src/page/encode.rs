//! Readings as JSON, in the words of the MQTT message: `points`, `bad`, `uncertain`, `time`.
//!
//! Two additions serve a browser: `mono_ms`, the running time of the reading, from which ages follow whatever the
//! clocks say; and integers beyond 2^53 are always strings. Texts have had their control characters replaced by the
//! drivers; here the remaining ones that could turn a line around (bidirectional controls) are replaced too.

use std::borrow::Cow;

use fieldspool_drivers::{Cause, Quality, Sample, Value};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;
use time::OffsetDateTime;

use crate::live::trend::Trend;
use crate::live::{DeviceInfo, Latest, LiveDevice, Position};
use crate::model::{Batch, ClockQuality, PointInfo, Stamp};
use crate::spool::HistoryValue;

/// The largest integer that a JavaScript number holds exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Longest text shown.
const TEXT_MAX: usize = 256;

/// A wall clock as RFC 3339, UTC, six digits.
pub fn rfc3339(us: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000) else {
        return String::from("1970-01-01T00:00:00.000000Z");
    };
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}

/// Invisible characters that reorder or end a line of text.
fn reorders(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text from a device or a label, safe to show: no control characters, none that reorder, not endless.
pub fn plain(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() || reorders(c);
    if text.len() <= TEXT_MAX && !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut shown: String =
        text.chars().take(TEXT_MAX).map(|c| if bad(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// JSON whose texts reorder nothing. JSON itself has none of these characters outside its texts.
pub fn without_reordering(json: &str) -> Cow<'_, str> {
    if json.contains(reorders) { Cow::Owned(json.replace(reorders, "\u{fffd}")) } else { Cow::Borrowed(json) }
}

/// A value as JSON.
pub struct Shown<'a>(pub &'a Value);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => to.serialize_bool(*value),
            Value::Int(value) if value.unsigned_abs() > EXACT_MAX => to.collect_str(value),
            Value::Int(value) => to.serialize_i64(*value),
            Value::Uint(value) if *value > EXACT_MAX => to.collect_str(value),
            Value::Uint(value) => to.serialize_u64(*value),
            Value::F32(value) => to.serialize_f32(*value),
            Value::F64(value) => to.serialize_f64(*value),
            Value::Text(text) => to.serialize_str(&plain(text)),
        }
    }
}

/// A batch as viewers get it.
pub struct ShownBatch<'a>(pub &'a Batch);

impl Serialize for ShownBatch<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let batch = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("device", &*batch.shape.device)?;
        map.serialize_entry("seq", &batch.seq)?;
        map.serialize_entry("n", &batch.n())?;
        shown_stamp(&mut map, &batch.stamp)?;
        map.serialize_entry("points", &ByPoint(batch, |sample| Some(sample.value.as_ref().map(Shown))))?;
        let has = |cause: fn(Quality) -> Option<Cause>| {
            batch.readings.iter().any(|reading| cause(reading.sample.quality).is_some())
        };
        if has(bad) {
            map.serialize_entry("bad", &ByPoint(batch, |s| bad(s.quality).map(|c| c.to_string())))?;
        }
        if has(uncertain) {
            map.serialize_entry(
                "uncertain",
                &ByPoint(batch, |s| uncertain(s.quality).map(|c| c.to_string())),
            )?;
        }
        map.end()
    }
}

fn bad(quality: Quality) -> Option<Cause> {
    if let Quality::Bad(cause) = quality { Some(cause) } else { None }
}

fn uncertain(quality: Quality) -> Option<Cause> {
    if let Quality::Uncertain(cause) = quality { Some(cause) } else { None }
}

fn shown_stamp<M: SerializeMap>(map: &mut M, stamp: &Stamp) -> Result<(), M::Error> {
    shown_time(map, stamp.wall_us, stamp.clock)?;
    map.serialize_entry("mono_ms", &(stamp.mono_us / 1000))
}

/// `time`, and `clock` if it is not to be trusted wholly.
fn shown_time<M: SerializeMap>(map: &mut M, wall_us: i64, clock: ClockQuality) -> Result<(), M::Error> {
    map.serialize_entry("time", &rfc3339(wall_us))?;
    match clock {
        ClockQuality::Synced => Ok(()),
        ClockQuality::Unsynced => map.serialize_entry("clock", "unsynced"),
        ClockQuality::Corrected => map.serialize_entry("clock", "corrected"),
    }
}

/// Something of each reading, by the point's name; readings of which there is nothing are left out.
struct ByPoint<'a, T>(&'a Batch, fn(&'a Sample) -> Option<T>);

impl<T: Serialize> Serialize for ByPoint<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for reading in &self.0.readings {
            let name = self.0.shape.points.get(usize::from(reading.point)).map(|point| &*point.name);
            if let (Some(name), Some(what)) = (name, (self.1)(&reading.sample)) {
                map.serialize_entry(name, &what)?;
            }
        }
        map.end()
    }
}

/// Whose trends [`Points`] carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trends {
    /// Only those of headline points: enough for the list.
    Headline,
    /// All that there are.
    All,
}

/// Some points of a device as they are now. Large devices come in several pieces, so that no viewer needs much
/// memory at once.
pub struct Points<'a> {
    /// The device.
    pub device: &'a LiveDevice,
    /// Index of the first point.
    pub first: usize,
    /// How many at most.
    pub count: usize,
    /// Which trends.
    pub trends: Trends,
}

impl Points<'_> {
    /// The points with commas between them, and one before them if `goes_on`.
    pub fn inside(&self, goes_on: bool) -> String {
        let list = serde_json::to_string(self).expect("our own types always print");
        let inside = list.trim_start_matches('[').strip_suffix(']').unwrap_or_default();
        if goes_on && !inside.is_empty() { format!(",{inside}") } else { inside.to_owned() }
    }
}

/// `"device":...,"bus":...,"label":...,"of":...`: the beginning of an object.
pub fn device_head(info: &DeviceInfo) -> String {
    let head = json!({
        "device": &*info.device,
        "bus": &*info.bus,
        "label": plain(&info.label),
        "of": info.points.len(),
    });
    let text = head.to_string();
    text.trim_start_matches('{').strip_suffix('}').unwrap_or_default().to_owned()
}

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Points { device, first, count, trends } = self;
        let points = device.info.points.iter().zip(&device.latest).zip(&device.trends);
        to.collect_seq(points.skip(*first).take(*count).map(|((info, latest), trend)| {
            let trend = trend.as_ref().filter(|_| *trends == Trends::All || info.headline);
            ShownPoint { info, latest: latest.as_ref(), trend }
        }))
    }
}

struct ShownPoint<'a> {
    info: &'a PointInfo,
    latest: Option<&'a Latest>,
    trend: Option<&'a Trend>,
}

impl Serialize for ShownPoint<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("point", &*self.info.name)?;
        if !self.info.label.is_empty() {
            map.serialize_entry("label", &plain(&self.info.label))?;
        }
        map.serialize_entry("unit", &plain(&self.info.unit))?;
        if let Some(decimals) = self.info.decimals {
            map.serialize_entry("decimals", &decimals)?;
        }
        if self.info.headline {
            map.serialize_entry("headline", &true)?;
        }
        if let Some(period) = self.info.period {
            map.serialize_entry("period_ms", &period.as_millis())?;
        }
        if let Some(latest) = self.latest {
            shown_sample(&mut map, &latest.sample)?;
            shown_stamp(&mut map, &latest.stamp)?;
        }
        if let Some(trend) = self.trend.filter(|trend| trend.marks().len() > 0) {
            map.serialize_entry("trend", &Marks(trend))?;
        }
        map.end()
    }
}

/// `value`, `quality` and, if there is one, `cause`.
pub fn shown_sample<M: SerializeMap>(map: &mut M, sample: &Sample) -> Result<(), M::Error> {
    map.serialize_entry("value", &sample.value.as_ref().map(Shown))?;
    let (quality, cause) = match sample.quality {
        Quality::Good => ("good", None),
        Quality::Uncertain(cause) => ("uncertain", Some(cause)),
        Quality::Bad(cause) => ("bad", Some(cause)),
    };
    map.serialize_entry("quality", quality)?;
    match cause {
        Some(cause) => map.serialize_entry("cause", &cause.to_string()),
        None => Ok(()),
    }
}

/// `[[running time in s, number or null], ...]`, oldest first.
struct Marks<'a>(&'a Trend);

impl Serialize for Marks<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[allow(clippy::cast_possible_truncation)] // a curve 30 pixels high
        to.collect_seq(self.0.marks().map(|mark| (mark.at_s, mark.number.map(|number| number as f32))))
    }
}

/// A number with the digits that it was read with: an f32 has fewer.
fn shortest(number: f64) -> Value {
    #[allow(clippy::cast_possible_truncation)] // compared
    let short = number as f32;
    if f64::from(short).to_bits() == number.to_bits() { Value::F32(short) } else { Value::F64(number) }
}

/// A stored value, or one from memory.
pub struct Past {
    /// `run:seq` of the reading; `None` from memory.
    pub at: Option<Position>,
    /// Wall clock, µs.
    pub wall_us: i64,
    /// Trust in it.
    pub clock: ClockQuality,
    /// What was read.
    pub known: Known,
}

/// What is known of a reading that has passed.
pub enum Known {
    /// All of it.
    Whole(Sample),
    /// The number alone, if it was one: memory keeps neither why there was none nor doubts.
    Number(Option<f64>),
}

impl From<HistoryValue> for Past {
    fn from(value: HistoryValue) -> Self {
        Self {
            at: Some(Position { run: value.run, seq: value.seq }),
            wall_us: value.wall_us,
            clock: value.clock,
            known: Known::Whole(value.sample),
        }
    }
}

impl Serialize for Past {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if let Some(at) = self.at {
            map.serialize_entry("run", &at.run.to_string())?;
            map.serialize_entry("seq", &at.seq)?;
        }
        shown_time(&mut map, self.wall_us, self.clock)?;
        match &self.known {
            Known::Whole(sample) => shown_sample(&mut map, sample)?,
            Known::Number(number) => {
                map.serialize_entry("value", &number.map(shortest).as_ref().map(Shown))?;
                map.serialize_entry("quality", &None::<&str>)?;
            }
        }
        map.end()
    }
}
