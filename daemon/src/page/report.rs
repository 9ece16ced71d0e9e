//! "Copy report": everything on the page as plain text, for a message to a colleague or a support desk.
//!
//! Built from the board alone, which holds no key, password or token; labels and addresses of instruments are in it.
//! Times are UTC, because the reader may sit elsewhere.

use std::fmt::Write as _;

use crate::page::encode::{plain, rfc3339};
use crate::page::problems::{Severity, Summary, days_left};
use crate::page::words::{self, State, bytes, grouped, hours_in_words, label, milliseconds};
use crate::status::{BusStatus, Status};

/// Seconds are enough for people.
fn when(us: i64) -> String {
    let text = rfc3339(us);
    text.get(..19).map_or(text.clone(), |start| format!("{}Z", start.replace('T', " ")))
}

/// The report at `now_us`, wall clock.
pub fn report(status: &Status, summary: &Summary, now_us: i64) -> String {
    let mut text = String::new();
    let gateway = &status.gateway;
    let id = if gateway.id.is_empty() { "-" } else { &gateway.id };
    line(&mut text, &format!("fieldspool {} · {} · {}", gateway.version, id, when(now_us)));
    line(&mut text, &summary.sentence);
    for problem in &summary.problems {
        let word = match problem.severity {
            Severity::Fault => label("fault"),
            Severity::Warning => label("warning"),
            Severity::Note => label("note"),
        };
        line(&mut text, &format!("[{word}] {}", problem.text(when)));
    }
    status.buses.iter().for_each(|bus| about_bus(&mut text, bus));
    about_server(&mut text, status, now_us);
    about_waiting(&mut text, status);
    heading(&mut text, "clock");
    line(&mut text, label(if status.clock.synced { "clock_set" } else { "clock_unset" }));
    heading(&mut text, "gateway");
    fact(&mut text, "run", &when(gateway.started_us));
    fact(&mut text, "run_id", &gateway.run);
    fact(&mut text, "config", &gateway.config_hash);
    text
}

fn about_bus(text: &mut String, bus: &BusStatus) {
    let state = label(if bus.up { "bus_open" } else { "bus_closed" });
    let _ = writeln!(text, "\nBus {}: {} {}, {state}", bus.name, bus.driver, plain(&bus.place));
    let c = &bus.counters;
    let _ = writeln!(
        text,
        "  {} {:.0} % · {} {} · {} {} · {} {} · {} {} · {} {} · {} {} · {} {}",
        label("load"),
        bus.load * 100.0,
        label("requests"),
        c.requests,
        label("bus_answers"),
        c.answers,
        label("timeouts"),
        c.timeouts,
        label("crc_errors"),
        c.crc_errors,
        label("bad_frames"),
        c.bad_frames,
        label("foreign_frames"),
        c.foreign_frames,
        label("exceptions"),
        c.exceptions,
    );
    for device in &bus.devices {
        let state = State::of(bus, device).words(device, when);
        let times = device.turnaround_us.map(|(median, slowest)| {
            let value = label("answer_time_value").replace("{median}", &milliseconds(median));
            format!(", {} {}", label("answer_time"), value.replace("{slowest}", &milliseconds(slowest)))
        });
        let called =
            if device.label.is_empty() { String::new() } else { format!(" \"{}\"", plain(&device.label)) };
        let _ = writeln!(
            text,
            "  {}{called} ({}): {state}{}, {} {}/{}",
            device.name,
            device.address,
            times.unwrap_or_default(),
            label("polls"),
            device.polls,
            device.polls + device.missed,
        );
    }
}

fn about_server(text: &mut String, status: &Status, now_us: i64) {
    let uplink = &status.uplink;
    heading(text, "server");
    if !uplink.configured {
        return line(text, label("server_none"));
    }
    let (plain_word, since_word) = if uplink.connected {
        ("connected", "connected_since")
    } else {
        ("disconnected", "disconnected_since")
    };
    let refused = uplink.refused.as_ref().filter(|_| uplink.connected);
    let since = match refused {
        Some(refused) => {
            Some(label(words::refuses(refused.what)).replace("{since}", &when(refused.since_us)))
        }
        None => uplink.since_us.map(|us| label(since_word).replace("{since}", &when(us))),
    };
    fact(text, "broker", &format!("{}, {}", uplink.broker, since.as_deref().unwrap_or(label(plain_word))));
    if let Some(refused) = refused {
        fact(text, "refuses_why", &plain(&refused.why));
    }
    if let Some(why) = uplink.error.as_ref().filter(|_| !uplink.connected) {
        fact(text, "why_not", &plain(why));
    }
    fact(text, "sent", &label("readings").replace("{n}", &grouped(uplink.confirmed)));
    if let Some(days) = days_left(uplink.certificate_expires_us, now_us) {
        fact(text, "certificate", &words::days(days));
    }
}

fn about_waiting(text: &mut String, status: &Status) {
    let spool = &status.spool;
    heading(text, "waiting");
    let oldest = if spool.oldest_unknown {
        format!(", {}: {}", label("oldest"), label("oldest_unknown"))
    } else {
        spool.oldest_us.map(|us| format!(", {} {}", label("oldest"), when(us))).unwrap_or_default()
    };
    line(text, &format!("{}{oldest}", label("readings").replace("{n}", &grouped(spool.waiting))));
    if let Some(open) = spool.in_memory() {
        fact(text, "in_memory", &label("readings").replace("{n}", &grouped(open)));
    }
    let size = label("size_value").replace("{used}", &bytes(spool.bytes as f64));
    fact(text, "size", &size.replace("{max}", &bytes(spool.bytes_max as f64)));
    if let Some(hours) = spool.hours_until_full {
        fact(text, "full_in", &hours_in_words(hours));
    }
    if let Some(each) = spool.bytes_per_reading {
        fact(text, "written", &bytes(each));
    }
    if let Some(gigabytes) = spool.gigabytes_per_day {
        fact(text, "per_day", &bytes(gigabytes * 1e9));
    }
    fact(text, "at_risk", &label("seconds").replace("{n}", &format!("{:.1}", spool.unstored_seconds)));
    fact(text, "dropped", &grouped(spool.evicted));
    fact(text, "expired", &grouped(spool.expired));
    fact(text, "damaged", &grouped(spool.damaged));
    if let Some(salvage) = &spool.salvage {
        let n = label("readings").replace("{n}", &grouped(salvage.saved));
        let value = label("salvaged_value").replace("{n}", &n).replace("{when}", &when(salvage.at_us));
        fact(text, "salvaged", &value);
    }
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

fn heading(text: &mut String, key: &str) {
    let _ = writeln!(text, "\n{}", label(key));
}

fn fact(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "  {}: {value}", label(key));
}
