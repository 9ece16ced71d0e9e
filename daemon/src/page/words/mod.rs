//! Every text that the page shows, in the technician's words. The same sentences serve `fieldspool status`.
//!
//! [`LABELS`] are the fixed texts. The functions make the sentences about what is wrong, here of the whole, in `buses` and `store` of each
//! part; *whether* it is wrong is decided in [`problems`](super::problems).
//!
//! House rules: "waiting to be sent", "connection to the server", "answer time", "dropped to make room"; never the
//! words of the source code (spool, uplink, lane, evicted). A sentence says what is, a remedy what to do, in the
//! order in which a person beside the cabinet would try it.

mod buses;
mod labels;
mod store;

use fieldspool_drivers::Cause;
use serde::Serialize;

use crate::status::{BusStatus, DeviceStatus};

pub use buses::{all_silent, bus_down, busy, foreign, misses, noisy, silent, unusable};
pub use labels::{LABELS, label};
pub use store::{
    Told, certificate, clock_unset, disk, full, lost, nearly_full, nobody_listens, not_durable, refused,
    refused_before, refuses, salvage_waits, salvaged, salvaging, server_away, server_refuses, slow_disk,
    unsearched,
};

/// Beyond it room is not told in numbers.
const YEAR_HOURS: f64 = 24.0 * 365.0;

/// Errors of the page itself.
pub mod refusals {
    /// 400
    pub const BAD_QUESTION: &str = "The address is not one this page understands.";
    /// 400
    pub fn lacks(what: &str) -> String {
        format!("The address lacks {what}: ask as in /api/history?device=meter-01&point=voltage")
    }
    /// 401
    pub const NO_INVITATION: &str = "An invitation is needed: sudo fieldspool page invite";
    /// 403
    pub const FOREIGN: &str = "This request comes from another site.";
    /// 404
    pub const NOT_FOUND: &str = "There is nothing here. The page is at /";
    /// 404
    pub const NO_SUCH_POINT: &str = "There is no such device or point.";
    /// 405
    pub const METHOD: &str = "The page only shows; it changes nothing.";
    /// 408
    pub const TOO_SLOW: &str = "The request did not come whole within 5 seconds. Try again.";
    /// 421
    pub const WRONG_HOST: &str = "This gateway is not known by that name. Use its address, or add the name to \
        names in the [page] table of the configuration.";
    /// 429
    pub const TOO_MANY_GUESSES: &str = "Too many attempts. Wait a minute.";
    /// 503
    pub const TOO_MANY_VIEWERS: &str =
        "Too many people are looking at this page. Try again in a few seconds.";
    /// 503
    pub const NO_HISTORY: &str = "The stored readings cannot be read now: ";
    /// With history that is only what memory holds.
    pub const HISTORY_IN_MEMORY: &str = "keep = \"unsent\": confirmed readings are not kept on disk; \
        this is the short past that memory holds: numbers, one every 5 s or with each poll, those beyond 2^53 rounded; \
        not why one is missing, no doubts about one, and no texts.";
}

/// Why there is no value, or why to doubt it.
pub fn cause(cause: Cause) -> String {
    match cause {
        // The device may well answer for others.
        Cause::Silent => "nothing came for it in time".into(),
        Cause::LinkDown => "the bus is down".into(),
        Cause::Exception(1) => "the device does not know this request (exception 1)".into(),
        Cause::Exception(2) => "the device has no such address (exception 2)".into(),
        Cause::Exception(3) => "the device refuses this many values (exception 3)".into(),
        Cause::Exception(4) => "the device reports a failure of its own (exception 4)".into(),
        Cause::Exception(6) => "the device is busy (exception 6)".into(),
        Cause::Exception(code @ (10 | 11)) => {
            format!("the gateway in between does not reach the device (exception {code})")
        }
        Cause::Exception(code) => format!("the device refuses (exception {code})"),
        Cause::BadFrame => "the answer was damaged".into(),
        Cause::Sentinel => "the device says that it has no value".into(),
        Cause::NotANumber => "the device sent what is not a number".into(),
        Cause::BelowLimit => "below its limit".into(),
        Cause::AboveLimit => "above its limit".into(),
        Cause::Unreadable => "the text of the instrument holds no value there".into(),
        Cause::Overflow => "too large for its type".into(),
    }
}

/// A sentence, without its full stop, and what to do.
pub struct Said(pub String, pub String);

/// `Compressor 2 (meter-02, unit 2, bus hall)`
pub fn who(bus: &BusStatus, device: &DeviceStatus) -> String {
    let mut place = format!("bus {}", bus.name);
    if !device.address.is_empty() {
        place = format!("{}, {place}", device.address);
    }
    if device.label.is_empty() {
        format!("{} ({place})", device.name)
    } else {
        format!("{} ({}, {place})", device.label, device.name)
    }
}

/// Whether a device answers: what its card, its line in the report and in `status` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody can be asked.
    BusDown,
    /// Its turn has not come.
    NotAsked,
    /// It was asked, and neither answered nor stayed silent long enough to be called silent.
    NoAnswerYet,
    /// It answers nothing.
    Silent,
    /// Something answers, but not what was asked.
    Misheard,
    /// It answers, but points have no usable value although the device does not say so itself.
    Without,
    /// It answers.
    Answers,
}

impl State {
    /// As the board has it.
    pub fn of(bus: &BusStatus, device: &DeviceStatus) -> Self {
        match device.answering {
            _ if !bus.up => Self::BusDown,
            None if device.polls == 0 => Self::NotAsked,
            None => Self::NoAnswerYet,
            Some(false) if device.misheard => Self::Misheard,
            Some(false) => Self::Silent,
            Some(true) if device.unusable > device.unusable_expected => Self::Without,
            Some(true) => Self::Answers,
        }
    }

    /// In words; `when` prints a wall clock in µs.
    pub fn words(self, device: &DeviceStatus, when: impl FnOnce(i64) -> String) -> String {
        let since = |key, since_key| match device.since_us {
            Some(us) => label(since_key).replace("{since}", &when(us)),
            None => label(key).to_owned(),
        };
        match self {
            Self::BusDown => label("bus_down").to_owned(),
            Self::NotAsked => label("not_asked").to_owned(),
            Self::NoAnswerYet => label("no_answer_yet").to_owned(),
            Self::Silent => since("silent", "silent_since"),
            Self::Misheard => since("misheard", "misheard_since"),
            Self::Without => {
                let text = label("without").replace("{n}", &grouped(device.unusable));
                text.replace("{all}", &grouped(device.points))
            }
            Self::Answers => label("answers").to_owned(),
        }
    }
}

/// `1 234 readings`
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

/// Digits in threes, with narrow spaces that do not break: `1 234 567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The headline when nothing is wrong.
pub fn all_is_well(devices: usize, not_heard: usize, server: Option<bool>) -> String {
    let n = count((devices - not_heard) as u64, "device answers", "devices answer");
    let asked = match (devices, not_heard) {
        (0, _) => "no device is configured".into(),
        (_, 0) => n,
        (_, waiting) if waiting == devices => "starting, no device has answered yet".into(),
        (_, waiting) => format!("{n}, {waiting} not heard from yet"),
    };
    match server {
        Some(_) => format!("All is well: {asked}, the server receives."),
        None => format!("All is well: {asked}. No server is configured."),
    }
}

/// The headline when something is wrong.
pub fn not_well(
    faults: usize,
    warnings: usize,
    devices: usize,
    not_heard: usize,
    answering: usize,
) -> String {
    let things = count((faults + warnings) as u64, "thing needs", "things need");
    let soon = if faults == 0 { "attention soon" } else { "attention" };
    match devices {
        0 => format!("{things} {soon}."),
        1 if not_heard == 1 => format!("{things} {soon}. The device has not answered yet."),
        _ if not_heard == devices => format!("{things} {soon}. No device has answered yet."),
        1 if answering == 1 => format!("{things} {soon}. The device answers."),
        1 => format!("{things} {soon}. The device does not answer."),
        _ if answering == devices => format!("{things} {soon}. All {devices} devices answer."),
        _ => format!("{things} {soon}. {answering} of {devices} devices answer."),
    }
}

/// The headline of a gateway without configuration.
pub fn idle() -> Said {
    Said(
        "Nothing is configured yet, so nothing is read".into(),
        "Describe the buses and devices in a file in /etc/fieldspool, try it with \"fieldspool check\", then \
         \"sudo systemctl reload fieldspool\"."
            .into(),
    )
}

/// After a crash loop.
pub fn safe_mode() -> Said {
    Said(
        format!("{CRASH_LOOP}, so the gateway only reads and stores: the connection to the server and the page are off"),
        "See why with \"journalctl -u fieldspool -p warning\"; \"sudo systemctl restart fieldspool\" leaves this \
         state."
            .into(),
    )
}

/// What a crash loop is, as the supervisor counts it: also across reboots, where it does not know the time in between.
pub const CRASH_LOOP: &str =
    "5 starts in a row, none of which lasted 10 min or was stopped in order (crashed, killed or power lost)";

/// The newest configuration is not in force.
pub fn config_refused(why: &str, check_finds_it: bool) -> Said {
    let look = if check_finds_it { " \"fieldspool check\" shows what a reload would find." } else { "" };
    Said(
        "The newest configuration was refused, the one before it stays in force".into(),
        sentence(why) + look,
    )
}

/// `room for about 31 h`, `room for more than a year`.
pub fn room(hours: f64) -> String {
    let about = if hours < YEAR_HOURS { "about " } else { "" };
    format!("room for {about}{}", hours_in_words(hours))
}

/// `31 h`, `12 days`, `40 min`.
pub fn hours_in_words(hours: f64) -> String {
    match hours {
        h if h < 1.0 => format!("{:.0} min", (h * 60.0).max(0.0)),
        h if h < 72.0 => format!("{h:.0} h"),
        h if h < YEAR_HOURS => format!("{:.0} days", h / 24.0),
        _ => label("full_never").to_owned(),
    }
}

/// `12 days`, `1 day`, `less than a day`; `expired` below that.
pub fn days(days: i64) -> String {
    match days {
        ..0 => label("certificate_over").to_owned(),
        0 => label("days_less").to_owned(),
        1 => label("days_one").to_owned(),
        n => label("days").replace("{n}", &n.to_string()),
    }
}

/// Microseconds of an answer time: `4.2 ms`, `120 ms`.
pub fn milliseconds(us: u64) -> String {
    let n = if us < 10_000 { format!("{:.1}", us as f64 / 1000.0) } else { ((us + 500) / 1000).to_string() };
    label("ms").replace("{n}", &n)
}

/// Bytes as disks and cards are sold: `1.07 GB`, `42 MB`, `305 kB`.
pub fn bytes(bytes: f64) -> String {
    let Some((unit, size)) =
        [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)].into_iter().find(|(_, size)| bytes >= *size)
    else {
        return format!("{bytes:.0} B");
    };
    let n = bytes / size;
    let decimals = if n < 10.0 { 2 } else { usize::from(n < 100.0) };
    let text = format!("{n:.decimals$}");
    let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|digit| digit == b'0'));
    format!("{} {unit}", whole.map_or(&*text, |(whole, _)| whole))
}

/// The reason as a sentence of its own, then what to do.
fn because(why: Option<&str>, what_to_do: &str) -> String {
    let Some(why) = why.filter(|why| !why.trim().is_empty()) else { return what_to_do.to_owned() };
    let mut letters = why.trim().chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{} {what_to_do}", sentence(&(first + letters.as_str())))
}

/// With exactly one full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn is_network(bus: &BusStatus) -> bool {
    bus.driver.contains("tcp")
}
