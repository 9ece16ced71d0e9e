//! Is all well? From the board to one sentence, and to what is wrong in the order of its weight.
//!
//! Pure: it takes the status and the time. The sentences stand in [`words`]; here stands when to say them. Shared by
//! the page, its report and `fieldspool status`, so that all three say the same.

use serde::Serialize;

use crate::page::words::{self, Said, Told};
use crate::status::{BusStatus, DeviceStatus, Refusing, Status};

/// Wall clock below this was never set: 2024-01-01.
pub const CLOCK_PLAUSIBLE_US: i64 = 1_704_067_200_000_000;

/// A bus in use for a greater share of its time leaves no room for a retry.
const BUSY: f64 = 0.9;

/// Warn this long before the client certificate ends.
const CERTIFICATE_DAYS: i64 = 30;

/// Warn this long before waiting readings are dropped to make room.
const FULL_HOURS: f64 = 24.0;

/// So long after it, damage that was found is said among what is wrong.
const SALVAGE_SAID_US: i64 = 7 * 86_400_000_000;

/// Above this the disk lags, whatever `commit_every` is (at most 60 s).
const UNSTORED_SECONDS: f64 = 65.0;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Fault,
    /// It works, but will not for long, or not as configured.
    Warning,
    /// Worth knowing; nothing to do.
    Note,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// What is, without the time and the full stop.
    pub sentence: String,
    /// Since when, wall clock µs.
    pub since_us: Option<i64>,
    /// What to do, in whole sentences.
    pub remedy: String,
    /// The device it concerns, if one.
    pub device: Option<String>,
    /// The bus it concerns, if one.
    pub bus: Option<String>,
}

/// All there is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The gravest severity among the problems; `None` if all is well (notes do not count).
    pub severity: Option<Severity>,
    /// One sentence.
    pub sentence: String,
    /// Gravest first.
    pub problems: Vec<Problem>,
}

impl Problem {
    fn new(severity: Severity, Said(sentence, remedy): Said) -> Self {
        Self { severity, sentence, since_us: None, remedy, device: None, bus: None }
    }

    fn since(mut self, since_us: Option<i64>) -> Self {
        self.since_us = since_us;
        self
    }

    fn on(mut self, bus: &BusStatus, device: Option<&DeviceStatus>) -> Self {
        self.bus = Some(bus.name.clone());
        self.device = device.map(|device| device.name.clone());
        self
    }

    /// The whole text; `when` prints a wall clock in µs for the reader's time zone.
    pub fn text(&self, when: impl FnOnce(i64) -> String) -> String {
        let since = self.since_us.map(|us| {
            let when =
                if us < CLOCK_PLAUSIBLE_US { words::label("before_clock").to_owned() } else { when(us) };
            format!(" {}", words::label("since").replace("{since}", &when))
        });
        let since = since.unwrap_or_default();
        format!("{}{since}. {}", self.sentence, self.remedy).trim_end().to_owned()
    }
}

/// Judges everything. `now_us` is the wall clock.
pub fn summary(status: &Status, now_us: i64) -> Summary {
    let mut problems = gateway(status);
    status.buses.iter().for_each(|bus| problems.extend(line(bus)));
    problems.extend(server(status, now_us));
    problems.extend(store(status, now_us));
    if !status.clock.synced && !status.gateway.idle {
        problems.push(Problem::new(Severity::Warning, words::clock_unset()));
    }
    problems.sort_by_key(|problem| problem.severity);
    let number = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (faults, warnings) = (number(Severity::Fault), number(Severity::Warning));
    let devices = || status.buses.iter().flat_map(|bus| bus.devices.iter().map(move |device| (bus, device)));
    let answering = devices().filter(|(bus, device)| bus.answers(device) == Some(true)).count();
    let not_heard = devices().filter(|(_, device)| device.answering.is_none()).count();
    let sentence = if status.gateway.idle && faults + warnings == 0 {
        words::label("ready").to_owned()
    } else if faults + warnings == 0 {
        let server = status.uplink.configured.then_some(status.uplink.connected);
        words::all_is_well(devices().count(), not_heard, server)
    } else {
        words::not_well(faults, warnings, devices().count(), not_heard, answering)
    };
    let severity = problems.first().map(|problem| problem.severity).filter(|worst| *worst != Severity::Note);
    Summary { severity, sentence, problems }
}

fn gateway(status: &Status) -> Vec<Problem> {
    let gateway = &status.gateway;
    let mut problems = Vec::new();
    if gateway.idle {
        problems.push(Problem::new(Severity::Note, words::idle()));
    }
    if gateway.safe_mode {
        problems.push(Problem::new(Severity::Fault, words::safe_mode()));
    }
    if let Some(why) = &gateway.config_refused {
        problems.push(Problem::new(Severity::Warning, words::config_refused(why, gateway.check_finds_it)));
    }
    for warning in &gateway.warnings {
        // The writer's own sentence says what is and what to do.
        let said = Said(warning.trim().trim_end_matches('.').to_owned(), String::new());
        problems.push(Problem::new(Severity::Warning, said));
    }
    problems
}

fn line(bus: &BusStatus) -> Vec<Problem> {
    let asked = bus.devices.iter().filter(|device| device.answering.is_some());
    let silent: Vec<&DeviceStatus> = asked.filter(|device| device.answering == Some(false)).collect();
    if !bus.up && (bus.error.is_some() || !silent.is_empty()) {
        let since = silent.iter().filter_map(|device| device.since_us).min();
        return vec![Problem::new(Severity::Fault, words::bus_down(bus)).since(since).on(bus, None)];
    }
    let mut problems = Vec::new();
    if silent.len() > 1 && silent.len() == bus.devices.len() {
        let since = silent.iter().filter_map(|device| device.since_us).max();
        problems.push(Problem::new(Severity::Fault, words::all_silent(bus)).since(since).on(bus, None));
    } else {
        let others = bus.devices.iter().any(|device| device.answering == Some(true));
        problems.extend(silent.iter().map(|device| {
            let said = words::silent(bus, device, others);
            Problem::new(Severity::Fault, said).since(device.since_us).on(bus, Some(device))
        }));
    }
    let counters = &bus.counters;
    let damaged = counters.crc_errors + counters.bad_frames;
    if counters.requests >= 100 && damaged * 100 > counters.requests {
        problems.push(Problem::new(Severity::Warning, words::noisy(bus, damaged)).on(bus, None));
    }
    if counters.requests >= 100 && counters.foreign_frames * 200 > counters.requests {
        problems.push(Problem::new(Severity::Warning, words::foreign(bus)).on(bus, None));
    }
    if bus.load > BUSY {
        problems.push(Problem::new(Severity::Warning, words::busy(bus)).on(bus, None));
    }
    problems.extend(bus.devices.iter().filter_map(|device| unusable(bus, device)));
    // A silent device is asked less often on purpose.
    let late = bus.devices.iter().filter(|device| {
        device.answering == Some(true)
            && device.polls >= 20
            && device.missed * 10 > device.polls + device.missed
    });
    problems.extend(
        late.map(|device| Problem::new(Severity::Warning, words::misses(bus, device)).on(bus, Some(device))),
    );
    problems
}

/// A device that answers, but without values. That points have none on the device's own word is no trouble, not even if it is
/// said of all of them: an inverter at night.
fn unusable(bus: &BusStatus, device: &DeviceStatus) -> Option<Problem> {
    if device.answering != Some(true) || device.unusable == 0 {
        return None;
    }
    let own_word = device.unusable == device.unusable_expected;
    let severity = match (device.is_useless(), own_word) {
        (true, _) => Severity::Fault,
        (_, true) => Severity::Note,
        _ => Severity::Warning,
    };
    Some(Problem::new(severity, words::unusable(bus, device)).on(bus, Some(device)))
}

fn server(status: &Status, now_us: i64) -> Vec<Problem> {
    let uplink = &status.uplink;
    let mut problems = Vec::new();
    if !uplink.configured {
        return problems;
    }
    let (waiting, room) = (status.spool.waiting, status.spool.hours_until_full);
    if !uplink.connected && !status.gateway.safe_mode {
        let said = words::server_away(&uplink.broker, uplink.error.as_deref(), waiting, room);
        problems.push(Problem::new(Severity::Fault, said).since(uplink.since_us));
    }
    if let Some(refused) = uplink.refused.as_ref().filter(|_| uplink.connected) {
        let all = refused.what == Refusing::All;
        let severity = if all { Severity::Fault } else { Severity::Warning };
        let said = words::server_refuses(&uplink.broker, refused, waiting, room);
        problems.push(Problem::new(severity, said).since(Some(refused.since_us)));
    }
    if let Some(days) = days_left(uplink.certificate_expires_us, now_us)
        && days < CERTIFICATE_DAYS
    {
        let severity = if days < 0 { Severity::Fault } else { Severity::Warning };
        problems.push(Problem::new(severity, words::certificate(days)));
    }
    if uplink.dead_letters > 0 {
        problems.push(Problem::new(Severity::Warning, words::refused(uplink.dead_letters)));
    } else if status.spool.dead_letters > 0 {
        // Of an earlier run: told already, and still kept.
        problems.push(Problem::new(Severity::Note, words::refused_before(status.spool.dead_letters)));
    }
    if uplink.nobody_listening > 0 {
        problems.push(Problem::new(Severity::Note, words::nobody_listens(uplink.nobody_listening)));
    }
    problems
}

fn store(status: &Status, now_us: i64) -> Vec<Problem> {
    let spool = &status.spool;
    let mut problems = Vec::new();
    if !spool.state.is_empty() && spool.state != "ok" {
        let said = words::disk(spool);
        problems.push(Problem::new(Severity::Fault, said));
    } else if spool.unstored_seconds > UNSTORED_SECONDS {
        problems.push(Problem::new(Severity::Warning, words::slow_disk(spool.unstored_seconds)));
    }
    let server = status.uplink.configured.then_some(status.uplink.connected);
    match spool.hours_until_full.filter(|_| spool.waiting > 0) {
        Some(hours) if hours <= 0.0 => problems.push(Problem::new(Severity::Fault, words::full(server))),
        Some(hours) if hours < FULL_HOURS && !on_its_way(status, hours, now_us) => {
            problems.push(Problem::new(Severity::Warning, words::nearly_full(hours, server)));
        }
        _ => {}
    }
    if let Some(why) = &spool.not_durable {
        problems.push(Problem::new(Severity::Warning, words::not_durable(why)));
    }
    match &spool.salvage {
        Some(salvage) if salvage.waits_for_room => {
            problems.push(Problem::new(Severity::Note, words::salvage_waits(salvage.saved)));
        }
        Some(salvage) if salvage.searching => {
            problems.push(Problem::new(Severity::Warning, words::salvaging(salvage.saved)));
        }
        // What was said for a week is history; the figures still tell it.
        Some(salvage) if now_us.saturating_sub(salvage.at_us) < SALVAGE_SAID_US => {
            problems.push(Problem::new(
                Severity::Note,
                words::salvaged(salvage.saved, salvage.lost, told(status)),
            ));
        }
        _ => {}
    }
    if spool.unsearched > 0 {
        problems.push(Problem::new(Severity::Warning, words::unsearched(spool.unsearched, told(status))));
    }
    if spool.evicted + spool.expired + spool.damaged + spool.dropped > 0 {
        let losses = [spool.evicted, spool.expired, spool.damaged, spool.dropped];
        let said = words::lost(losses, told(status));
        problems.push(Problem::new(Severity::Note, said));
    }
    problems
}

/// What waits while the connection stands goes within moments. Not so if the oldest has waited for longer than there is room left, which
/// is about half of all room: then it gathers, or what a long outage left is only being sent. Of what is not known nobody says so.
fn on_its_way(status: &Status, hours: f64, now_us: i64) -> bool {
    let (uplink, spool) = (&status.uplink, &status.spool);
    let waited = spool.oldest_us.map(|us| now_us.saturating_sub(us) as f64 / 3_600e6);
    let young = waited.is_none_or(|waited| waited < hours) && !spool.oldest_unknown;
    let taken = uplink.refused.as_ref().is_none_or(|refused| refused.what != Refusing::All);
    uplink.configured && uplink.connected && taken && young
}

/// Whether the server has taken what the records tell. Which of them told of a loss is not known here.
fn told(status: &Status) -> Told {
    let (uplink, spool) = (&status.uplink, &status.spool);
    match (spool.records_refused, uplink.records_unheard, spool.records_waiting) {
        _ if !uplink.configured => Told::Nobody,
        (refused, ..) if refused > 0 => Told::Refused(refused),
        (_, unheard, _) if unheard > 0 => Told::Unheard(unheard),
        (.., 0) => Told::Done,
        _ => Told::Later,
    }
}

/// Whole days until `expires_us`, negative when over; `None` while the clock is not to be believed.
pub fn days_left(expires_us: Option<i64>, now_us: i64) -> Option<i64> {
    let expires_us = expires_us.filter(|_| now_us >= CLOCK_PLAUSIBLE_US)?;
    Some(expires_us.saturating_sub(now_us).div_euclid(86_400_000_000))
}
