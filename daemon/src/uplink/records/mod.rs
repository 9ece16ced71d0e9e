//! The messages beside the data: records, status (birth, will) and meta. One flat JSON object each
//! (`config/schema/event.json`, `status.json`, `meta.json`).

use crate::model::event::{Body, Event};
use crate::model::{RunId, Stamp};
use crate::status::{BusStatus, SpoolStatus, Status};

use super::DeviceMeta;
use super::payload::{SCHEMA, clock_word, number, string, time};

/// A JSON object in the making.
struct Object {
    text: Vec<u8>,
}

impl Object {
    /// `schema`, `gateway` and `run` stand first in every message.
    fn new(gateway: &str, run: RunId) -> Self {
        let object = Self { text: vec![b'{'] };
        object.text("schema", SCHEMA).text("gateway", gateway).digits("run", Quoted(run))
    }

    fn key(&mut self, key: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        string(&mut self.text, key);
        self.text.push(b':');
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        string(&mut self.text, value);
        self
    }

    fn digits(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.key(key);
        number(&mut self.text, value);
        self
    }

    /// Rounded to three decimals: a receiver's chart needs no more, and a message is not a measurement.
    fn amount(self, key: &str, value: f64) -> Self {
        if value.is_finite() { self.digits(key, (value * 1000.0).round() / 1000.0) } else { self.null(key) }
    }

    fn time(mut self, key: &str, wall_us: i64) -> Self {
        self.key(key);
        time(&mut self.text, wall_us);
        self
    }

    fn null(self, key: &str) -> Self {
        self.digits(key, "null")
    }

    fn maybe<T>(self, key: &str, value: Option<T>, write: impl FnOnce(Self, &str, T) -> Self) -> Self {
        match value {
            Some(value) => write(self, key, value),
            None => self.null(key),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }
}

struct Quoted<T>(T);

impl<T: std::fmt::Display> std::fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A record, as the stamp `stamp` shows it (its own, or the corrected one).
pub(super) fn event(gateway: &str, event: &Event, stamp: &Stamp) -> Vec<u8> {
    let mut object =
        Object::new(gateway, event.run).digits("number", event.number).time("time", stamp.wall_us);
    if let Some(word) = clock_word(stamp.clock) {
        object = object.text("clock", word);
    }
    body(object.text("kind", event.body.kind()), &event.body).finish()
}

fn body(object: Object, body: &Body) -> Object {
    match body {
        Body::RunEnd { ended, next_seq, clean, last_wall_us } => object
            .digits("ended", Quoted(ended))
            .digits("next_seq", next_seq)
            .digits("clean", clean)
            .maybe("last_time", *last_wall_us, Object::time),
        Body::Gap { of, first, next, cause } => object
            .digits("of", Quoted(of))
            .digits("first", first)
            .digits("next", next)
            .text("cause", cause.word()),
        Body::Gaps { of, first, next, lost, cause } => object
            .digits("of", Quoted(of))
            .digits("first", first)
            .digits("next", next)
            .digits("lost", lost)
            .text("cause", cause.word()),
        Body::Clock { boot, offset_us, at_mono_us } => object
            .text("boot", &format!("{:032x}", boot.0))
            .digits("offset_us", offset_us)
            .digits("at_mono_us", at_mono_us),
        Body::Missed { bus, device, polls } => {
            object.text("bus", bus).text("device", device).digits("polls", polls)
        }
        Body::Config { hash, refused } => {
            object.text("hash", hash).maybe("refused", refused.as_deref(), Object::text)
        }
        Body::Corruption { found, saved, lost } => {
            object.text("found", found).digits("saved", saved).digits("lost", lost)
        }
        Body::Device { device, answering } => object.text("device", device).digits("answering", answering),
    }
}

/// What the gateway says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Connected.
    Online,
    /// Stopped in order.
    Stopped,
    /// The last will: gone without a word.
    Offline,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stopped => "stopped",
            Self::Offline => "offline",
        }
    }
}

/// Whose status it is: a receiver drops a will whose `(run, connect)` is not the newest it has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<'a> {
    pub gateway: &'a str,
    pub run: RunId,
    /// Connections of this run so far, this one included.
    pub connect: u64,
    /// Every reading of the run with a lower `seq` is confirmed or accounted for.
    pub confirmed_to: u64,
}

/// The last will, and what goes where a whole status is too large for the broker.
pub(super) fn brief(life: Life<'_>, state: State) -> Vec<u8> {
    let object =
        Object::new(life.gateway, life.run).digits("connect", life.connect).text("state", state.word());
    if state == State::Offline { object.finish() } else { object.digits("brief", true).finish() }
}

/// Birth, the same again soon and then every minute, and the last word of an orderly stop.
pub(super) fn status(life: Life<'_>, state: State, now_us: i64, board: &Status) -> Vec<u8> {
    let (spool, uplink, gateway) = (&board.spool, &board.uplink, &board.gateway);
    let devices = || board.buses.iter().flat_map(|bus| &bus.devices);
    let load = board.buses.iter().map(|bus| bus.load).fold(0.0, f64::max);
    let complete_until = match spool.waiting {
        0 if !spool.oldest_unknown => Some(now_us - young_us(spool)),
        _ => spool.oldest_us,
    };
    Object::new(life.gateway, life.run)
        .digits("connect", life.connect)
        .text("state", state.word())
        .time("time", now_us)
        .text("version", &gateway.version)
        .text("config_hash", &gateway.config_hash)
        .maybe("config_refused", gateway.config_refused.as_deref(), Object::text)
        .digits("safe_mode", gateway.safe_mode)
        // The board is a second old.
        .digits("numbered", spool.numbered.max(life.confirmed_to))
        .digits("confirmed_to", life.confirmed_to)
        .maybe("complete_until", complete_until, Object::time)
        .digits("waiting", spool.waiting)
        .maybe("oldest", spool.oldest_us, Object::time)
        .maybe("hours_until_full", spool.hours_until_full, Object::amount)
        .text("spool", if spool.state.is_empty() { "ok" } else { &spool.state })
        .digits("lost_total", spool.evicted + spool.expired + spool.damaged + spool.dropped)
        .amount("unstored_seconds", spool.unstored_seconds)
        .digits("dead_letters", spool.dead_lettered)
        .digits("nobody_listening", uplink.nobody_listening)
        .digits("devices", devices().count())
        .digits("devices_silent", devices().filter(|d| d.answering == Some(false)).count())
        .digits("devices_unusable", board.buses.iter().flat_map(BusStatus::useless).count())
        .digits("buses_down", board.buses.iter().filter(|bus| bus.is_down()).count())
        .amount("bus_load", load)
        .digits("clock_synced", board.clock.synced)
        .maybe("certificate_expires", uplink.certificate_expires_us, Object::time)
        .finish()
}

/// Readings younger than this, µs, may be on their way: the ones not yet stored, and a second for the board to know.
fn young_us(spool: &SpoolStatus) -> i64 {
    let seconds =
        if spool.unstored_seconds.is_finite() { spool.unstored_seconds.clamp(0.0, 1e9) } else { 1e9 };
    #[allow(clippy::cast_possible_truncation)] // at most 1e15
    let us = (seconds * 1e6) as i64;
    us + 1_000_000
}

/// What the points of a device mean.
pub(super) fn meta(gateway: &str, run: RunId, device: &DeviceMeta) -> Vec<u8> {
    let mut object = Object::new(gateway, run).text("device", &device.device).text("label", &device.label);
    object.key("headline");
    list(&mut object.text, &device.headline, |out, name| string(out, name));
    object.key("points");
    list(&mut object.text, &device.points, |out, point| {
        let mut inner = Object { text: vec![b'{'] }
            .text("name", &point.name)
            .text("type", kind(point.kind))
            .text("unit", &point.unit)
            .text("label", &point.label)
            .maybe("decimals", point.decimals, Object::digits)
            .maybe("period_s", point.period.map(|p| p.as_secs_f64()), Object::amount);
        if point.json_string {
            inner = inner.digits("string_beyond_2_53", true);
        }
        out.extend_from_slice(&inner.finish());
    });
    object.finish()
}

fn list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn kind(kind: fieldspool_drivers::ValueKind) -> &'static str {
    use fieldspool_drivers::ValueKind as K;
    match kind {
        K::Bool => "bool",
        K::Int => "int",
        K::Uint => "uint",
        K::F32 => "f32",
        K::F64 => "f64",
        K::Text => "text",
    }
}

#[cfg(test)]
mod tests;
