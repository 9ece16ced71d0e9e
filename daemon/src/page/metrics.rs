//! `/metrics`: the board in the Prometheus text format, version 0.0.4.
//!
//! Names are `fieldspool_<noun>_<unit>[_total]`, in base units. Per bus and per device, never per point: ten
//! thousand series of values are the broker's business, not a health scrape's.

use std::fmt::{Display, Write as _};

use crate::page::problems::{Severity, Summary};
use crate::status::{BusStatus, DeviceStatus, Refusing, Status};

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything on the board as one scrape.
pub fn metrics(status: &Status, summary: &Summary, viewers: usize) -> String {
    let mut page = Page::default();
    about_gateway(&mut page, status, summary, viewers);
    about_buses(&mut page, &status.buses);
    about_devices(&mut page, &status.buses);
    about_uplink(&mut page, status);
    about_spool(&mut page, status);
    page.text
}

fn about_gateway(page: &mut Page, status: &Status, summary: &Summary, viewers: usize) {
    let gateway = &status.gateway;
    page.family("build_info", GAUGE, "Version and identity; always 1.");
    let labels = [("version", &*gateway.version), ("gateway", &gateway.id), ("config", &gateway.config_hash)];
    page.sample(&labels, 1);
    page.one("start_time_seconds", GAUGE, "Wall clock of the start.", seconds(gateway.started_us));
    page.one("idle", GAUGE, "1 if nothing is configured.", u8::from(gateway.idle));
    page.one("safe_mode", GAUGE, "1 after a crash loop: nothing is sent.", u8::from(gateway.safe_mode));
    let refused = u8::from(gateway.config_refused.is_some());
    page.one("config_refused", GAUGE, "1 while the newest configuration is refused.", refused);
    page.family("problems", GAUGE, "Problems shown on the page, by severity.");
    for (word, severity) in
        [("fault", Severity::Fault), ("warning", Severity::Warning), ("note", Severity::Note)]
    {
        let number = summary.problems.iter().filter(|problem| problem.severity == severity).count();
        page.sample(&[("severity", word)], number);
    }
    page.one("page_viewers", GAUGE, "People looking at the page.", viewers);
    let synced = u8::from(status.clock.synced);
    page.one("clock_synced", GAUGE, "1 if the clock was set or is vouched for.", synced);
}

fn about_buses(page: &mut Page, buses: &[BusStatus]) {
    let mut family = |name, kind, help, value: fn(&BusStatus) -> f64| {
        page.family(name, kind, help);
        for bus in buses {
            page.sample(&[("bus", &*bus.name), ("driver", &bus.driver)], value(bus));
        }
    };
    family("bus_up", GAUGE, "1 if the line is open.", |bus| f64::from(u8::from(bus.up)));
    family("bus_load_ratio", GAUGE, "Share of the last minute in which the line was in use.", |bus| bus.load);
    family("bus_requests_total", COUNTER, "Requests written.", |bus| bus.counters.requests as f64);
    family("bus_answers_total", COUNTER, "Believed answers.", |bus| bus.counters.answers as f64);
    family("bus_exceptions_total", COUNTER, "Answers that were exceptions.", |bus| {
        bus.counters.exceptions as f64
    });
    family("bus_timeouts_total", COUNTER, "Requests without an answer.", |bus| bus.counters.timeouts as f64);
    family("bus_crc_errors_total", COUNTER, "Frames with a wrong checksum.", |bus| {
        bus.counters.crc_errors as f64
    });
    family("bus_foreign_frames_total", COUNTER, "Frames that answered no open request.", |bus| {
        bus.counters.foreign_frames as f64
    });
    family("bus_bad_frames_total", COUNTER, "Frames of a wrong length or structure.", |bus| {
        bus.counters.bad_frames as f64
    });
    family("bus_echoes_total", COUNTER, "Echoes of own requests.", |bus| bus.counters.echoes as f64);
    family("bus_opens_total", COUNTER, "Times the line was opened.", |bus| bus.counters.opens as f64);
    family("bus_bytes_total", COUNTER, "Bytes received and sent.", |bus| bus.counters.bytes as f64);
}

fn about_devices(page: &mut Page, buses: &[BusStatus]) {
    let mut family = |name, kind, help, value: fn(&BusStatus, &DeviceStatus) -> Option<f64>| {
        page.family(name, kind, help);
        for bus in buses {
            for device in &bus.devices {
                if let Some(value) = value(bus, device) {
                    page.sample(&[("bus", &*bus.name), ("device", &device.name)], value);
                }
            }
        }
    };
    family(
        "device_answering",
        GAUGE,
        "1 if the device answers, 0 if it is silent or its bus is down.",
        |bus, device| bus.answers(device).map(|answering| f64::from(u8::from(answering))),
    );
    family(
        "device_unusable_points",
        GAUGE,
        "Points without a usable value although the device answers.",
        |bus, device| (bus.answers(device) == Some(true)).then_some(device.unusable as f64),
    );
    family("device_turnaround_median_seconds", GAUGE, "Median time to an answer, of late.", |_, device| {
        device.turnaround_us.map(|(median, _)| median as f64 / 1e6)
    });
    family(
        "device_turnaround_p99_seconds",
        GAUGE,
        "99th percentile of the time to an answer, of late.",
        |_, device| device.turnaround_us.map(|(_, p99)| p99 as f64 / 1e6),
    );
    family("device_polls_total", COUNTER, "Polls made.", |_, device| Some(device.polls as f64));
    family("device_polls_missed_total", COUNTER, "Polls due and not made.", |_, device| {
        Some(device.missed as f64)
    });
}

fn about_uplink(page: &mut Page, status: &Status) {
    let uplink = &status.uplink;
    let flag = |yes| u8::from(yes);
    page.one("uplink_configured", GAUGE, "1 if there is a broker to publish to.", flag(uplink.configured));
    page.one("uplink_connected", GAUGE, "1 while connected to the broker.", flag(uplink.connected));
    let refused = uplink.refused.as_ref().filter(|_| uplink.connected).map(|refused| refused.what);
    page.family("uplink_refused", GAUGE, "1 while the broker is connected and refuses it.");
    for (word, what) in [("all", Refusing::All), ("some", Refusing::Some), ("about", Refusing::About)] {
        page.sample(&[("what", word)], flag(refused == Some(what)));
    }
    page.one("uplink_connects_total", COUNTER, "Connections made.", uplink.connects);
    page.one(
        "uplink_confirmed_readings_total",
        COUNTER,
        "Readings confirmed by the broker.",
        uplink.confirmed,
    );
    page.one("uplink_messages_total", COUNTER, "Messages published.", uplink.messages);
    page.one("uplink_payload_bytes_total", COUNTER, "Payload bytes published.", uplink.bytes);
    let help = "Messages the broker took with nobody subscribed.";
    page.one("uplink_nobody_listening_total", COUNTER, help, uplink.nobody_listening);
    let help = "Messages refused for good and stored as dead letters.";
    page.one("uplink_dead_letters_total", COUNTER, help, uplink.dead_letters);
    if let Some(at) = uplink.certificate_expires_us {
        let help = "Wall clock at which the client certificate ends.";
        page.one("uplink_certificate_expiry_timestamp_seconds", GAUGE, help, seconds(at));
    }
}

fn about_spool(page: &mut Page, status: &Status) {
    let spool = &status.spool;
    let ok = u8::from(spool.state.is_empty() || spool.state == "ok");
    page.one("spool_ok", GAUGE, "1 if readings are being stored.", ok);
    let durable = u8::from(spool.not_durable.is_none());
    page.one("spool_durable", GAUGE, "1 if the state directory survives a power cut.", durable);
    page.one("spool_numbered_readings_total", COUNTER, "Readings numbered in this run.", spool.numbered);
    page.one("spool_open_readings", GAUGE, "Readings numbered and not yet stored.", spool.open);
    page.one("spool_waiting_readings", GAUGE, "Readings stored and not yet confirmed.", spool.waiting);
    if let Some(at) = spool.oldest_us {
        let help =
            "Wall clock of the oldest waiting reading; absent if none waits, or while it is not known.";
        page.one("spool_oldest_waiting_timestamp_seconds", GAUGE, help, seconds(at));
    }
    let help = "Readings of this spool that are confirmed; falls when some are sent again.";
    page.one("spool_confirmed_readings", GAUGE, help, spool.confirmed);
    page.one("spool_evicted_readings_total", COUNTER, "Readings dropped to make room.", spool.evicted);
    let help = "Readings dropped because they were older than max_age.";
    page.one("spool_expired_readings_total", COUNTER, help, spool.expired);
    page.one("spool_damaged_readings_total", COUNTER, "Readings lost to damage on disk.", spool.damaged);
    let help = "Readings dropped from memory while the disk was failing.";
    page.one("spool_dropped_readings_total", COUNTER, help, spool.dropped);
    let help = "Readings that became dead letters.";
    page.one("spool_dead_lettered_readings_total", COUNTER, help, spool.dead_lettered);
    page.one("spool_size_bytes", GAUGE, "Bytes of the file and its log.", spool.bytes);
    page.one("spool_limit_bytes", GAUGE, "The cap of the file.", spool.bytes_max);
    if let Some(hours) = spool.hours_until_full {
        page.one("spool_full_in_seconds", GAUGE, "Time until the cap at the present rate.", hours * 3600.0);
    }
    if let Some(bytes) = spool.bytes_per_reading {
        page.one("spool_written_bytes_per_reading", GAUGE, "Bytes written per stored reading.", bytes);
    }
    if let Some(gigabytes) = spool.gigabytes_per_day {
        let help = "Bytes written to the disk a day at the present rate.";
        page.one("spool_written_bytes_per_day", GAUGE, help, gigabytes * 1e9);
    }
    let help = "Seconds of readings that a power cut would cost: just before the newest commit, or now, whichever is more.";
    page.one("spool_unstored_seconds", GAUGE, help, spool.unstored_seconds);
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing into a String cannot fail.
        let _ = write!(self.text, "# HELP fieldspool_{name} {help}\n# TYPE fieldspool_{name} {kind}\n");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "fieldspool_{}", self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn one(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }
}

/// Backslash, quote and line feed have escapes in the format; nothing else needs one.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
