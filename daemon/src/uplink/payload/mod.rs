//! The data message: batches as JSON text, the same in both lanes (`config/schema/data.json`).
//!
//! ```json
//! {"schema":"fieldspool/1","gateway":"plant7-gw1","run":"00000017-9f3c2a10","lane":"live","batches":[
//!  {"device":"meter-01","seq":48210,"n":4,"prev":48150,"time":"2026-11-20T12:23:02.123456Z",
//!   "points":{"voltage_l1":null,"power":-1520,"energy_import":20771.35,"alarm":false},
//!   "bad":{"voltage_l1":"exception 2"}}]}
//! ```
//!
//! `points` has a key for every reading; `null` means no value and `bad` says why. `uncertain` says why a value is to
//! be doubted. `clock` (`unsynced`, `corrected`) is absent when the clock was set. Whole numbers lose their `.0`.
//!
//! Written straight into one buffer: no tree, no allocation per reading. A batch that would make the message too
//! large is taken back whole, so a message is always complete JSON.

use fieldspool_drivers::{Quality, Value};

use crate::model::{Batch, ClockQuality, PointMeta, RunId, Shape, Stamp};

/// Which lane a message travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// As it is read.
    Live,
    /// From the spool, oldest first.
    Backlog,
}

impl Lane {
    /// The word in the message.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backlog => "backlog",
        }
    }
}

/// The version of all our messages.
pub(super) const SCHEMA: &str = "fieldspool/1";

/// Beyond this magnitude a double no longer holds every integer.
const EXACT_MAX: u64 = 1 << 53;

/// A data message in the making.
#[derive(Debug)]
pub struct Message {
    text: Vec<u8>,
    batches: usize,
    limit: usize,
}

impl Message {
    /// Begins a message of at most `limit` bytes for batches of one gateway id and one run.
    pub fn new(gateway: &str, run: RunId, lane: Lane, limit: usize) -> Self {
        let mut text = Vec::with_capacity(limit.min(4096));
        text.extend_from_slice(b"{\"schema\":\"");
        text.extend_from_slice(SCHEMA.as_bytes());
        text.extend_from_slice(b"\",\"gateway\":");
        string(&mut text, gateway);
        text.extend_from_slice(b",\"run\":\"");
        number(&mut text, run);
        text.extend_from_slice(b"\",\"lane\":\"");
        text.extend_from_slice(lane.word().as_bytes());
        text.extend_from_slice(b"\",\"batches\":[");
        Self { text, batches: 0, limit }
    }

    /// Adds a batch, its stamp as it is known now; `false` and nothing added if the message would exceed its limit. The first batch is always
    /// taken: a batch is never cut, and whether the broker takes one so large is for the caller to see.
    pub fn push(&mut self, batch: &Batch, stamp: &Stamp) -> bool {
        let before = self.text.len();
        if self.batches > 0 {
            self.text.push(b',');
        }
        // At once what most messages need, instead of growing five times.
        self.text.reserve(160 + batch.readings.len() * 24);
        write_batch(&mut self.text, batch, stamp);
        if self.batches > 0 && self.len() > self.limit {
            self.text.truncate(before);
            return false;
        }
        self.batches += 1;
        true
    }

    /// Bytes of the finished message.
    #[allow(clippy::len_without_is_empty)] // a message is never empty
    pub fn len(&self) -> usize {
        self.text.len() + 2
    }

    /// The text.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.extend_from_slice(b"]}");
        self.text
    }
}

fn write_batch(out: &mut Vec<u8>, batch: &Batch, stamp: &Stamp) {
    out.extend_from_slice(b"{\"device\":");
    string(out, &batch.shape.device);
    out.extend_from_slice(b",\"seq\":");
    json(out, &batch.seq);
    out.extend_from_slice(b",\"n\":");
    json(out, &batch.n());
    out.extend_from_slice(b",\"prev\":");
    match batch.prev {
        Some(prev) => json(out, &prev),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"time\":");
    time(out, stamp.wall_us);
    if let Some(word) = clock_word(stamp.clock) {
        out.extend_from_slice(b",\"clock\":");
        string(out, word);
    }
    out.extend_from_slice(b",\"points\":{");
    let (mut bad, mut uncertain) = (false, false);
    for (i, reading) in batch.readings.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        name(out, &batch.shape, reading.point);
        match &reading.sample.value {
            Some(v) => value(out, v, batch.shape.points.get(usize::from(reading.point))),
            None => out.extend_from_slice(b"null"),
        }
        bad |= matches!(reading.sample.quality, Quality::Bad(_));
        uncertain |= matches!(reading.sample.quality, Quality::Uncertain(_));
    }
    out.push(b'}');
    if bad {
        reasons(out, "bad", batch);
    }
    if uncertain {
        reasons(out, "uncertain", batch);
    }
    out.push(b'}');
}

/// `,"bad":{"point":"why",...}`.
fn reasons(out: &mut Vec<u8>, key: &str, batch: &Batch) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":{");
    let mut first = true;
    for reading in &batch.readings {
        let cause = match reading.sample.quality {
            Quality::Bad(cause) if key == "bad" => cause,
            Quality::Uncertain(cause) if key == "uncertain" => cause,
            _ => continue,
        };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        name(out, &batch.shape, reading.point);
        out.push(b'"');
        number(out, cause);
        out.push(b'"');
    }
    out.push(b'}');
}

/// The word for a clock that was not set; `None` when it was.
pub(super) fn clock_word(quality: ClockQuality) -> Option<&'static str> {
    match quality {
        ClockQuality::Synced => None,
        ClockQuality::Unsynced => Some("unsynced"),
        ClockQuality::Corrected => Some("corrected"),
    }
}

/// The point's name as a key.
fn name(out: &mut Vec<u8>, shape: &Shape, point: u16) {
    match shape.key(point) {
        Some(key) => out.extend_from_slice(key),
        // A shape always names its readings' points; if a damaged one did not, the value still has a place.
        None => out.extend_from_slice(format!("\"point_{point}\":").as_bytes()),
    }
}

fn value(out: &mut Vec<u8>, value: &Value, meta: Option<&PointMeta>) {
    let as_string = meta.is_some_and(|m| m.json_string);
    match value {
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Int(i) => quoted(out, as_string && i.unsigned_abs() > EXACT_MAX, i),
        Value::Uint(u) => quoted(out, as_string && *u > EXACT_MAX, u),
        Value::F32(f) => float(out, f),
        Value::F64(f) => float(out, f),
        Value::Text(text) => string(out, text),
    }
}

fn quoted(out: &mut Vec<u8>, quotes: bool, integer: &impl serde::Serialize) {
    if quotes {
        out.push(b'"');
    }
    json(out, integer);
    if quotes {
        out.push(b'"');
    }
}

/// Shortest digits that read back as the same f32 or f64; what is not finite becomes `null`.
fn float(out: &mut Vec<u8>, f: &impl serde::Serialize) {
    json(out, f);
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

/// Digits that need no escaping.
pub(super) fn number(out: &mut Vec<u8>, digits: impl std::fmt::Display) {
    use std::io::Write as _;
    write!(out, "{digits}").expect("a Vec takes everything");
}

/// A JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        json(out, &text);
    }
}

fn json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("a Vec takes everything, and these types always serialize");
}

/// A quoted RFC 3339 time, UTC, six digits. What lies outside the years 0 to 9999 is shown as the nearest end.
pub(super) fn time(out: &mut Vec<u8>, wall_us: i64) {
    const FIRST: i64 = -62_167_219_200_000_000;
    const LAST: i64 = 253_402_300_799_999_999;
    let us = wall_us.clamp(FIRST, LAST);
    let (seconds, us) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    out.push(b'"');
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, second / 3600, 2);
    out.push(b':');
    digits(out, second / 60 % 60, 2);
    out.push(b':');
    digits(out, second % 60, 2);
    out.push(b'.');
    digits(out, us, 6);
    out.extend_from_slice(b"Z\"");
}

fn digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for digit in out.iter_mut().skip(start).rev() {
        // A remainder of ten fits a byte.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// Day since 1970-01-01 to year, month, day of the proleptic Gregorian calendar, counted in eras of 400 years that
/// begin on the first of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests;
