//! What `fieldspool status`, `spool status` and `read` print: plain text, problems first, nothing by colour alone.

use std::fmt::Write;

use super::table::{Table, wrapped};
use crate::control::{PointNow, rows};
use crate::page::problems::{Severity, summary};
use crate::page::words::{self, State, bytes};
use crate::spool::{Asked, Resent};
use crate::status::{
    BusStatus, CounterStatus, Refused, Refusing, Salvage, SpoolStatus, Status, UplinkStatus,
};

/// Everything on one screen: is all well, what is wrong and what to do, then the facts.
pub(super) fn status(status: &Status, now_us: i64, width: Option<usize>) -> String {
    let mut text = String::new();
    let judged = summary(status, now_us);
    let name = if status.gateway.id.is_empty() { "fieldspool" } else { &status.gateway.id };
    let _ = writeln!(text, "{}", wrapped(&format!("{name}: {}", judged.sentence), 0, width));
    for problem in &judged.problems {
        let mark = match problem.severity {
            Severity::Fault => "FAULT   ",
            Severity::Warning => "WARNING ",
            Severity::Note => "NOTE    ",
        };
        let sentence = problem.text(rows::minute_text);
        let _ = writeln!(text, "  {mark}{}", wrapped(sentence.trim(), 10, width));
    }
    text.push('\n');
    facts(&mut text, status, now_us, width);
    devices(&mut text, &status.buses, now_us, width);
    buses(&mut text, &status.buses, width);
    text
}

fn facts(text: &mut String, status: &Status, now_us: i64, width: Option<usize>) {
    let gateway = &status.gateway;
    let mut line = |title: &str, fact: String| {
        let _ = writeln!(text, "{title:<12}{}", wrapped(&fact, 12, width));
    };
    let up = age(now_us, gateway.started_us);
    line("Daemon", format!("version {}, running for {up}, run {}", gateway.version, gateway.run));
    line("Server", server(&status.uplink, gateway.safe_mode, now_us));
    for (title, fact) in spool_lines(&status.spool, now_us) {
        line(title, fact);
    }
    line("Clock", if status.clock.synced { "set".into() } else { "not set: times may be wrong".into() });
}

fn server(uplink: &UplinkStatus, safe_mode: bool, now_us: i64) -> String {
    if !uplink.configured {
        return "none configured; readings are kept here".into();
    }
    if safe_mode {
        return format!("connection to {} is off after {}", uplink.broker, words::CRASH_LOOP);
    }
    let since = uplink.since_us.map(|since| format!(" for {}", age(now_us, since))).unwrap_or_default();
    let mut fact =
        format!("{}connected to {}{since}", if uplink.connected { "" } else { "NOT " }, uplink.broker);
    if let Some(Refused { what, since_us, why }) = uplink.refused.as_ref().filter(|_| uplink.connected) {
        let what = match what {
            Refusing::All => "TAKES NO READINGS",
            Refusing::Some => "REFUSES some readings",
            Refusing::About => "REFUSES what tells of this gateway and its devices",
        };
        let _ = write!(fact, ", but {what} for {}: {why}", age(now_us, *since_us));
    }
    if let Some(expires) = uplink.certificate_expires_us {
        let days = expires.saturating_sub(now_us).div_euclid(86_400_000_000);
        let valid = if days < 0 { "" } else { "valid for " };
        let _ = write!(fact, "; certificate {valid}{}", words::days(days));
    }
    fact
}

fn spool_lines(spool: &SpoolStatus, now_us: i64) -> Vec<(&'static str, String)> {
    let oldest = spool.oldest_us.filter(|_| spool.waiting > 0);
    let oldest = if spool.oldest_unknown {
        format!(", since when is {}", words::label("oldest_unknown"))
    } else {
        oldest.map(|us| format!(", the oldest for {}", age(now_us, us))).unwrap_or_default()
    };
    let full = spool.hours_until_full.map(|hours| format!("; {}", words::room(hours)));
    let full = full.unwrap_or_default();
    let mut lines = vec![("To be sent", format!("{} readings{oldest}{full}", spool.waiting))];
    if let Some(open) = spool.in_memory() {
        lines.push(("In memory", format!("{open} readings, which a power cut would take")));
    }
    let mut stored = format!("{} of {}", bytes(spool.bytes as f64), bytes(spool.bytes_max as f64));
    if let Some(each) = spool.bytes_per_reading {
        let _ = write!(stored, "; {} written per reading", bytes(each));
    }
    if let Some(daily) = spool.gigabytes_per_day {
        let _ = write!(stored, ", {} a day", bytes(daily * 1e9));
    }
    lines.push(("Stored", stored));
    let lost = [
        ("dropped to make room", spool.evicted),
        ("dropped because of their age", spool.expired),
        ("lost to damage", spool.damaged),
        ("dropped while the disk failed", spool.dropped),
        ("refused by the server", spool.dead_lettered),
    ];
    let lost: Vec<String> =
        lost.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
    if !lost.is_empty() {
        lines.push(("Lost", lost.join(", ")));
    }
    if let Some(Salvage { at_us, found, saved, lost, searching, waits_for_room }) = &spool.salvage {
        let when = rows::minute_text(*at_us);
        lines.push(if *waits_for_room {
            let waits = "the others wait for room and come back as the server takes what is stored";
            ("Set aside", format!("{when}: {found}; {saved} readings taken back so far, {waits}"))
        } else if *searching {
            ("Damaged", format!("{when}: {found}; being searched, {saved} readings saved so far"))
        } else {
            ("Damaged", format!("{when}: {found}; {saved} readings saved, {lost} known to be lost"))
        });
    }
    if spool.unsearched > 0 {
        let files = spool.unsearched;
        lines.push(("Unsearched", format!("{files} of the damaged files had to go before it was searched")));
    }
    lines
}

/// `fieldspool spool status`: the facts of the spool alone.
pub(super) fn spool(spool: &SpoolStatus, now_us: i64) -> String {
    let mut text = String::new();
    let mut lines = spool_lines(spool, now_us);
    lines.insert(
        0,
        ("State", spool.error.clone().map_or(spool.state.clone(), |e| format!("{}: {e}", spool.state))),
    );
    lines.push(("Confirmed", format!("{} readings", spool.confirmed)));
    if spool.state == "not running" {
        lines.push((
            "Rates",
            "only a running daemon knows how much is written, and how long there is room".into(),
        ));
    } else {
        let (numbered, open) = (spool.numbered, spool.open);
        lines.push(("Numbered", format!("{numbered} readings in this run, {open} not yet stored")));
    }
    if spool.dead_letters > 0 {
        let why = spool.dead_letter_reason.as_deref().unwrap_or("not known");
        lines.push((
            "Refused",
            format!("{} messages are kept; the newest because: {why}", spool.dead_letters),
        ));
    }
    if let Some(why) = &spool.not_durable {
        lines.push(("Durable", format!("NO: {why}")));
    }
    for (title, fact) in lines {
        let _ = writeln!(text, "{title:<12}{fact}");
    }
    text
}

/// `fieldspool spool resend`: what waits again, and what cannot.
pub(super) fn resent(resent: &Resent, asked: &Asked, running: bool) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        let _ = writeln!(text, "{what}");
    };
    let when = if running { "wait to be sent again" } else { "are sent again when the daemon starts" };
    let batches = if resent.batches == 1 { "batch" } else { "batches" };
    line(format!("{} readings in {} {batches} {when}", resent.readings, resent.batches));
    let others = [
        (resent.records, "run ends, gaps and clock records with them"),
        (
            resent.pressed,
            "of them are the oldest of a full spool: lost if they are not sent before new readings need the room",
        ),
        (resent.already, "readings asked for waited already"),
        (resent.gone, "are no longer stored, and cannot be sent"),
        (resent.lost, "were lost before they were sent: their gap records tell it, or wait to"),
        (resent.damaged, "are in blocks that are damaged; see fieldspool spool verify"),
        (resent.left, "are stored too scattered to go at once: ask again when the others are sent"),
    ];
    for (count, what) in others.iter().filter(|(count, _)| *count > 0) {
        line(format!("{count} {what}"));
    }
    if let Asked::Stretch { run, first, next } = asked
        && resent.readings + others.iter().map(|(count, _)| count).sum::<u64>() == 0
    {
        let last = next.saturating_sub(1);
        line(format!(
            "nothing is stored of the readings {first} to {last} of run {run}: the run ended before them, or they made room \
             long ago; fieldspool spool export shows the numbers that are there"
        ));
    }
    let since = if let Asked::Since { wall_us } = asked { Some(*wall_us) } else { None };
    match (since, resent.oldest_us) {
        (Some(_), None) => line("the spool holds no reading".to_owned()),
        (Some(since), Some(oldest)) if oldest > since => {
            // It may be that there never was anything older.
            line(format!("the oldest that is stored is from {}", rows::minute_text(oldest)));
        }
        _ => {}
    }
    for run in resent.runs.iter().filter(|run| since.is_some() && run.readings > 0) {
        let (name, first, last) = (&run.run, run.first, run.next.saturating_sub(1));
        line(format!("run {name}: {} of the readings {first} to {last}", run.readings));
    }
    text
}

fn devices(text: &mut String, buses: &[BusStatus], now_us: i64, width: Option<usize>) {
    let mut table = Table::new(&["Device", "Name", "Bus", "Address", "State", "Answer time", "Missed"]);
    for bus in buses {
        for device in &bus.devices {
            let since =
                device.since_us.map(|since| format!(" for {}", age(now_us, since))).unwrap_or_default();
            // Without colour, what is wrong stands out by its letters.
            let state = match State::of(bus, device) {
                State::Silent => format!("SILENT{since}"),
                State::Misheard => format!("NO RIGHT ANSWER{since}"),
                state => state.words(device, rows::minute_text),
            };
            let time =
                device.turnaround_us.map(|(median, _)| words::milliseconds(median)).unwrap_or_default();
            let missed = if device.missed > 0 { device.missed.to_string() } else { String::new() };
            let (name, label) = (device.name.clone(), device.label.clone());
            table.row(vec![name, label, bus.name.clone(), device.address.clone(), state, time, missed]);
        }
    }
    if !table.is_empty() {
        let _ = write!(text, "\n{}", table.text(width));
    }
}

fn buses(text: &mut String, buses: &[BusStatus], width: Option<usize>) {
    let mut table = Table::new(&["Bus", "Driver", "Line", "State", "In use", "Errors"]);
    for bus in buses {
        let state = match (&bus.error, bus.up) {
            (_, true) => "open".to_owned(),
            (Some(error), false) => format!("DOWN: {error}"),
            (None, false) => "not open".to_owned(),
        };
        let load = format!("{:.0} %", bus.load * 100.0);
        let cells =
            vec![bus.name.clone(), bus.driver.clone(), bus.place.clone(), state, load, errors(&bus.counters)];
        table.row(cells);
    }
    if !table.is_empty() {
        let _ = write!(text, "\n{}", table.text(width));
    }
}

fn errors(counters: &CounterStatus) -> String {
    let kinds = [
        ("no answer", counters.timeouts),
        ("CRC", counters.crc_errors),
        ("exceptions", counters.exceptions),
        ("foreign", counters.foreign_frames),
        ("malformed", counters.bad_frames),
    ];
    let said: Vec<String> =
        kinds.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what} {count}")).collect();
    if said.is_empty() { "none".into() } else { said.join(", ") }
}

/// `fieldspool read`: point, value, unit, quality, place.
pub(super) fn points(points: &[PointNow], width: Option<usize>) -> String {
    let mut table = Table::new(&["Point", "Value", "Unit", "Quality", "Where"]);
    for point in points {
        let value = point.value.clone().unwrap_or_else(|| "-".into());
        table.row(vec![
            point.point.clone(),
            value,
            point.unit.clone(),
            point.quality.clone(),
            point.place.clone(),
        ]);
    }
    table.text(width)
}

/// `--all-types`: one point read in every type and order. Which one shows what the display of the instrument shows?
pub(super) fn all_types(points: &[PointNow], width: Option<usize>) -> String {
    let mut text = String::new();
    for same in points.chunk_by(|one, next| one.point == next.point) {
        let _ = writeln!(text, "{}", same.first().map(|point| point.point.as_str()).unwrap_or_default());
        let mut table = Table::new(&["  Type", "ABCD", "CDAB", "BADC", "DCBA"]);
        for kind in same.chunk_by(|one, next| kind_of(one) == kind_of(next)) {
            let mut cells = vec![format!("  {}", kind.first().map(kind_of).unwrap_or_default())];
            cells.resize(5, String::new());
            for point in kind {
                let column = point.read_as.as_ref().map_or(0, |(_, column)| *column);
                if let Some(cell) = cells.get_mut(column + 1) {
                    *cell = point.value.clone().unwrap_or_else(|| point.quality.clone());
                }
            }
            table.row(cells);
        }
        text.push_str(&table.text(width));
    }
    text
}

fn kind_of(point: &PointNow) -> &str {
    point.read_as.as_ref().map_or("as configured", |(kind, _)| kind.as_str())
}

/// A stretch of time for people: `45 s`, `12 min`, `3 h 20 min`, `5 days`.
fn age(now_us: i64, then_us: i64) -> String {
    let seconds = now_us.saturating_sub(then_us).max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
