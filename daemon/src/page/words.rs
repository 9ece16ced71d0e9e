//! Every text that the page shows, in the technician's words. The same sentences serve `fieldspool status`.
//!
//! [`LABELS`] are the fixed texts: `{{key}}` in the HTML files, `w.key` in the scripts, and a test holds that each
//! key is used and each use has a key. The functions below make the sentences about what is wrong; *whether* it is
//! wrong is decided in [`problems`](super::problems).
//!
//! House rules: "waiting to be sent", "connection to the server", "answer time", "dropped to make room"; never the
//! words of the source code (spool, uplink, lane, evicted). A sentence says what is, a remedy what to do, in the
//! order in which a person beside the cabinet would try it.

use std::borrow::Cow;

use fieldspool_drivers::Cause;
use serde::Serialize;

use crate::status::{BusStatus, DeviceStatus, SpoolStatus};

/// The fixed texts by key.
pub const LABELS: &[(&str, &str)] = &[
    // the page as a whole
    ("title", "Gateway"),
    ("skip", "Skip to the devices"),
    ("loading", "Asking the gateway …"),
    ("ready", "This gateway is ready, and waits for its configuration."),
    ("no_script", "This page needs JavaScript to show live values. The same facts as text: "),
    ("away", "The gateway does not answer since {since}. What you see is from then; trying again by itself."),
    ("hole", "Values between {from} and {to} are not shown here. What was read then is stored."),
    ("problems", "What is wrong"),
    ("since", "since {since}"),
    // devices
    ("devices", "Devices"),
    ("devices_none", "No device is configured."),
    ("devices_count", "{n} of {all} answer"),
    ("reveal", "Show {device}"),
    ("filter", "Find a device"),
    ("filter_none", "No device of that name."),
    ("answers", "answers"),
    ("silent", "silent"),
    ("silent_since", "silent since {since}"),
    ("bus_down", "bus is down"),
    ("not_asked", "not asked yet"),
    ("no_answer_yet", "no answer yet"),
    ("misheard", "no right answer"),
    ("misheard_since", "no right answer since {since}"),
    ("without", "answers, {n} of {all} without value"),
    ("answer_time", "Answer time"),
    ("answer_time_value", "{median}, slowest {slowest}"),
    ("polls", "Asked"),
    ("polls_value", "{polls} times"),
    ("polls_missed", "{polls} times, {missed} left out"),
    ("address", "Address"),
    ("on_bus", "{address}, bus {bus}"),
    ("point", "Value"),
    ("reading", "Reading"),
    ("age", "Age"),
    ("trend", "Trend"),
    ("trend_of", "{point}, the last {span}: from {low} to {high}"),
    ("no_value", "no value"),
    ("doubtful", "doubtful"),
    ("old", "old"),
    ("never", "not read yet"),
    ("yes", "on"),
    ("no", "off"),
    // buses
    ("buses", "Buses"),
    ("buses_none", "No bus is configured."),
    ("bus_open", "open"),
    ("bus_closed", "not open"),
    ("load", "In use"),
    ("load_value", "{percent} of the time"),
    ("requests", "Questions"),
    ("bus_answers", "Answers"),
    ("answers_of", "{n} of {all}"),
    ("errors", "Errors"),
    ("errors_none", "none"),
    ("timeouts", "no answer"),
    ("crc_errors", "damaged"),
    ("bad_frames", "malformed"),
    ("foreign_frames", "answers to nobody's question"),
    ("exceptions", "refused by the device"),
    ("opens", "Opened"),
    ("times", "{n} times"),
    // connection to the server
    ("server", "Connection to the server"),
    ("server_none", "No server is configured. Readings stay on this gateway."),
    ("connected", "connected"),
    ("connected_since", "connected since {since}"),
    ("disconnected", "not connected"),
    ("disconnected_since", "not connected since {since}"),
    ("broker", "Server"),
    ("why_not", "Why not"),
    ("retry", "Next attempt"),
    ("retry_in", "in {n} s"),
    ("sent", "Confirmed by the server"),
    ("readings", "{n} readings"),
    ("certificate", "Certificate valid for"),
    ("certificate_over", "expired"),
    ("days_less", "less than a day"),
    ("days_one", "1 day"),
    ("days", "{n} days"),
    ("refused", "Refused for good"),
    ("messages", "{n} messages"),
    // waiting to be sent
    ("waiting", "Waiting to be sent"),
    ("waiting_none", "nothing"),
    ("oldest", "Oldest since"),
    (
        "oldest_unknown",
        "not known: a file that was set aside is searched, or what was saved from one waits behind newer readings",
    ),
    ("size", "Stored on this gateway"),
    ("size_value", "{used} of {max}"),
    ("full_in", "Room for about"),
    ("full_never", "more than a year"),
    ("written", "Written per reading"),
    ("per_day", "Written a day"),
    ("at_risk", "A power cut would cost up to"),
    ("seconds", "{n} s of readings"),
    ("dropped", "Dropped to make room"),
    ("expired", "Dropped because of their age"),
    ("damaged", "Lost to a damaged disk"),
    ("salvaged", "Saved from a store that was set aside"),
    ("salvaged_value", "{n}, {when}"),
    // clock and gateway
    ("clock", "Clock"),
    ("clock_set", "set by the network or vouched for"),
    ("clock_unset", "not set since the start"),
    ("clock_now", "Gateway's time"),
    ("clock_differs", "differs from this device by {n}"),
    ("clock_corrected", "Corrected by"),
    ("before_clock", "before the clock was set"),
    ("gateway", "This gateway"),
    ("version", "Version"),
    ("run", "Running since"),
    ("run_id", "Run"),
    ("config", "Configuration"),
    ("report", "Copy report"),
    (
        "report_hint",
        "Everything on this page as plain text for a message to a colleague. No passwords, no keys.",
    ),
    ("report_copied", "Copied."),
    ("report_select", "Select the text below and copy it."),
    ("report_failed", "The gateway does not answer; try again."),
    ("close", "Close"),
    // severity, for those who do not see the colour
    ("fault", "Fault"),
    ("warning", "Attention"),
    ("note", "Note"),
    // durations
    ("just_now", "now"),
    ("ms", "{n} ms"),
    ("s", "{n} s"),
    ("min", "{n} min"),
    ("h", "{n} h"),
    ("d", "{n} d"),
    // invitation
    ("invite_title", "Invitation"),
    ("invite_wait", "Opening the page …"),
    (
        "invite_bad",
        "This invitation has been used already, is older than 30 minutes, or was not copied whole.",
    ),
    ("invite_busy", "Too many attempts. Wait a minute and open the link again."),
    ("invite_how", "Ask for a new one on the gateway:"),
    ("denied_title", "An invitation is needed"),
    ("denied", "This gateway shows its page on the network only to people who were invited."),
    ("denied_then", "It prints a link and a QR code for your phone, valid for 30 minutes and one person."),
    ("invite_command", "sudo fieldspool page invite"),
];

/// The label of a key; the key itself if there is none, which a test rules out.
pub fn label(key: &str) -> &str {
    LABELS.iter().find(|(known, _)| *known == key).map_or(key, |(_, text)| text)
}

/// Errors of the page itself.
pub mod refusals {
    /// 400
    pub const BAD_QUESTION: &str = "The address is not one this page understands.";
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
        Cause::Silent => "the device does not answer".into(),
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

/// A line that is not open.
pub fn bus_down(bus: &BusStatus) -> Said {
    let what = if is_network(bus) {
        format!("Check the network cable, the power and the address of {}.", bus.place)
    } else {
        format!("Check the adapter and its cable at {}.", bus.place)
    };
    Said(format!("Bus {} is not open", bus.name), because(bus.error.as_deref(), &what))
}

/// Nobody on a line answers.
pub fn all_silent(bus: &BusStatus) -> Said {
    let what = if bus.devices.iter().any(|device| device.misheard) {
        format!("Something answers, but not what was asked. {}", misheard(bus))
    } else if is_network(bus) {
        format!("The connection to {} stands. Check the unit ids, then the line behind it.", bus.place)
    } else {
        "Check the line first: power of the converter, A and B swapped, speed and format, terminators.".into()
    };
    Said(format!("None of the {} devices on bus {} answers", bus.devices.len(), bus.name), what)
}

/// One device is silent.
pub fn silent(bus: &BusStatus, device: &DeviceStatus, others_answer: bool) -> Said {
    let what = match (others_answer, is_network(bus)) {
        _ if device.misheard => misheard(bus),
        (true, true) => "Others on this bus answer: check its power, then its unit id.",
        (true, false) => "Others on this bus answer: check its power, then A/B, then its unit id.",
        (false, true) => "Check its power, then its unit id.",
        (false, false) => "Check its power, then A/B, then speed, format and unit id.",
    };
    // That it is silent has just been said.
    let why = device.error.as_deref().filter(|why| *why != "silent");
    Said(format!("{} does not answer", who(bus, device)), because(why, what))
}

/// What to look at where something answers, but not what was asked.
fn misheard(bus: &BusStatus) -> &'static str {
    if is_network(bus) {
        "Check its unit id, for another device with the same one, a second master, another protocol on that port, or \
         a device that answers too late and needs a longer timeout."
    } else {
        "Check its unit id, for another device with the same one, a second master, wrong parity or speed, A and B \
         swapped, another protocol, or a device that answers too late and needs a longer timeout."
    }
}

/// A device answers, but some or all of its points have no value.
pub fn unusable(bus: &BusStatus, device: &DeviceStatus) -> Said {
    let why = device.unusable_cause.and_then(Cause::from_code);
    let reason = why.map_or_else(String::new, |why| format!(": {}", cause(why)));
    let what = match why {
        Some(Cause::Exception(4 | 6)) => "Look at the device itself: its display, its own alarms.",
        Some(Cause::Exception(10 | 11)) => {
            "Check the line behind the gateway in between, then power and unit id."
        }
        Some(Cause::Silent | Cause::BadFrame) => {
            "It answers other questions: compare the register map, and ask for fewer values at once."
        }
        Some(Cause::Sentinel) => {
            "Nothing to do if that is meant: an input without a sensor, a device at rest."
        }
        Some(Cause::NotANumber) => "Compare the register map (address, type, word order), then its sensors.",
        _ => "Compare the register map: address, table, type.",
    };
    let who = who(bus, device);
    let whole = device.unusable >= device.points;
    let said = match (whole, device.points, device.unusable) {
        (true, 1, _) => format!("{who} answers, but its only point has no usable value{reason}"),
        (true, n, _) => {
            format!("{who} answers, but none of its {} points has a usable value{reason}", grouped(n))
        }
        (false, n, 1) => format!("1 of {} points of {who} has no usable value{reason}", grouped(n)),
        (false, n, some) => {
            format!("{} of {} points of {who} have no usable value{reason}", grouped(some), grouped(n))
        }
    };
    Said(said, what.to_owned())
}

/// A line with hardly any time left.
pub fn busy(bus: &BusStatus) -> Said {
    Said(
        format!("Bus {} is in use {:.0} % of the time", bus.name, bus.load * 100.0),
        "At 100 % values come later than configured: choose longer periods, fewer values, or a higher speed. \
         \"fieldspool check --plan\" shows what costs how much."
            .into(),
    )
}

/// A line on which answers arrive damaged.
pub fn noisy(bus: &BusStatus, damaged: u64) -> Said {
    let share = damaged as f64 * 100.0 / bus.counters.requests.max(1) as f64;
    Said(
        format!("{share:.1} % of the answers on bus {} arrive damaged", bus.name),
        "Check for loose contacts, 120 Ω terminators at both ends only, a common ground, and distance to motor \
         cables."
            .into(),
    )
}

/// Answers without a question.
pub fn foreign(bus: &BusStatus) -> Said {
    Said(
        format!("Bus {} carries answers that nobody asked for", bus.name),
        "Is there a second master on the line, or two devices with one unit id? A device that answers too late \
         needs a longer timeout."
            .into(),
    )
}

/// Polls that do not fit.
pub fn misses(bus: &BusStatus, device: &DeviceStatus) -> Said {
    let all = device.polls + device.missed;
    Said(
        format!("{} was asked only {} of {} times", who(bus, device), grouped(device.polls), grouped(all)),
        "The bus cannot serve its period: choose a longer one. \"fieldspool check --plan\" shows the shares."
            .into(),
    )
}

/// No connection to the server.
pub fn server_away(broker: &str, why: Option<&str>, waiting: u64, room: Option<f64>) -> Said {
    let kept = match waiting {
        0 => "Readings are kept here until it is back".to_owned(),
        n => format!("Readings are kept here until it is back: {} waiting", grouped(n)),
    };
    let room = room.map(|hours| format!(", room for about {}", hours_in_words(hours))).unwrap_or_default();
    Said(format!("No connection to the server {broker}"), because(why, &format!("{kept}{room}.")))
}

/// Room for waiting readings comes to its end.
pub fn nearly_full(hours: f64, server: bool) -> Said {
    Said(
        format!("Room for readings that wait is used up in about {}", hours_in_words(hours)),
        format!("From then on the oldest are dropped to make room. {}", make_room(server)),
    )
}

/// There is no room left.
pub fn full(server: bool) -> Said {
    Said(
        "There is no room left for readings that wait; the oldest are being dropped to make room".into(),
        format!("{} What is dropped is counted and reported.", make_room(server)),
    )
}

/// A connection that was never configured cannot be brought back.
fn make_room(server: bool) -> &'static str {
    if server {
        "Bring the connection to the server back."
    } else {
        "No server is configured that would take them: add one, or give the store more room (cap)."
    }
}

/// The disk has a fault.
pub fn disk(spool: &SpoolStatus) -> Said {
    let (state, unstored_seconds) = (&*spool.state, spool.unstored_seconds);
    let what = match state {
        "read-only" => "The disk has become read-only",
        "full" => "The disk is full",
        "stalled" => "The disk does not react",
        _ => "The disk does not take readings",
    };
    let cure = match &spool.mounted_at {
        _ if state != "full" => "See \"dmesg\"; a card that does this is worn out.".to_owned(),
        Some(at) => format!("Free some of it: \"du -x {} | sort -n | tail\" shows what takes it.", word(at)),
        None => "Free some of it: \"df -h\" and \"du -x\" show what takes it.".to_owned(),
    };
    let so = format!(
        "Readings are taken and sent all the same, but a power cut now would cost the last {unstored_seconds:.0} s. {cure}"
    );
    Said(what.to_owned(), because(spool.error.as_deref(), &so))
}

/// A path as one word of a shell.
fn word(path: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', "'\\''")).into() }
}

/// Storage lags although it works.
pub fn slow_disk(unstored_seconds: f64) -> Said {
    Said(
        format!("The disk is slow: {unstored_seconds:.0} s of readings are not stored yet"),
        "A power cut now would cost them. See what else writes to the card (\"iotop\"), and its health."
            .into(),
    )
}

/// The state directory is volatile.
pub fn not_durable(why: &str) -> Said {
    Said(
        format!("Readings are stored where a power cut erases them ({why})"),
        "Put the state directory on the card or a disk: state_directory in the configuration.".into(),
    )
}

/// The client certificate ends.
pub fn certificate(left: i64) -> Said {
    let what = match left {
        ..0 => "The certificate for the connection to the server has expired".to_owned(),
        n => format!("The certificate for the connection to the server expires in {}", days(n)),
    };
    Said(what, "Ask whoever runs the server for a new one; a changed file is taken up by itself.".into())
}

/// Messages in the dead-letter table.
pub fn refused(n: u64) -> Said {
    Said(
        format!("The server has refused {} for good", count(n, "message", "messages")),
        "They are kept apart: \"fieldspool spool status\" says why. Tell whoever runs the server.".into(),
    )
}

/// The same, of runs before this one.
pub fn refused_before(n: u64) -> Said {
    Said(
        format!("Before the last start the server had refused {} for good", count(n, "message", "messages")),
        "They are kept apart: \"fieldspool spool status\" says why. Nothing was refused since.".into(),
    )
}

/// 0x10.
pub fn nobody_listens(n: u64) -> Said {
    Said(
        format!("The server took {} to which nobody had subscribed", count(n, "message", "messages")),
        "Tell whoever runs the server: its receiver may be off or subscribed to another topic.".into(),
    )
}

/// Whether the server has taken the report. Whether anybody heard it is not known, and of an earlier run not even that nobody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// No record waits.
    Done,
    /// Records wait; this one may be among them.
    Later,
    /// So many records were refused for good; this one may be among them.
    Refused(u64),
    /// So many records were taken while nobody had subscribed to them; this one may be among them.
    Unheard(u64),
    /// There is no server.
    Nobody,
}

impl Told {
    fn words(self) -> String {
        let reports = |n| count(n, "report", "reports");
        match self {
            Self::Done => "The server has taken the report.".into(),
            Self::Later => "The report waits to be sent to the server.".into(),
            Self::Refused(n) => {
                format!("The server has refused {} for good; this may be among them.", reports(n))
            }
            Self::Unheard(n) => {
                format!(
                    "The server took {} to which nobody had subscribed; this may be among them.",
                    reports(n)
                )
            }
            Self::Nobody => "No server is configured that could be told.".into(),
        }
    }
}

/// Readings that are gone: dropped to make room, too old, lost to damage, dropped while the disk took none.
pub fn lost(losses: [u64; 4], told: Told) -> Said {
    let [dropped_to_make_room, too_old, damaged, overflow] = losses;
    let mut parts = Vec::new();
    if dropped_to_make_room > 0 {
        parts.push(format!("{} dropped to make room", grouped(dropped_to_make_room)));
    }
    if too_old > 0 {
        parts.push(format!("{} dropped because they were older than max_age", grouped(too_old)));
    }
    if damaged > 0 {
        parts.push(format!("{} lost to a damaged disk", grouped(damaged)));
    }
    if overflow > 0 {
        parts.push(format!("{} dropped while the disk took none", grouped(overflow)));
    }
    Said(
        format!("Some readings are gone: {}", parts.join(", ")),
        format!("Counted since the store was made. {} Nothing to do here.", told.words()),
    )
}

/// A damaged store is being searched.
pub fn salvaging(saved: u64) -> Said {
    Said(
        format!(
            "The store was damaged; what can still be read in it is being saved: {} so far",
            count(saved, "reading", "readings")
        ),
        "New readings are stored and sent as ever. Leave the gateway switched on until this has ended."
            .into(),
    )
}

/// A store that was set aside does not fit in beside what waits.
pub fn salvage_waits(saved: u64) -> Said {
    Said(
        format!(
            "Readings of a store that was set aside wait for room: {} taken back so far",
            count(saved, "reading", "readings")
        ),
        "They are safe, also if the gateway is switched off, and come back as the server takes what is stored.".into(),
    )
}

/// A damaged store was searched to its end.
pub fn salvaged(saved: u64, lost: u64, told: Told) -> Said {
    let lost = match lost {
        0 => "none is known to be lost".to_owned(),
        1 => "1 is known to be lost".to_owned(),
        n => format!("{} are known to be lost", grouped(n)),
    };
    Said(
        format!("The store was damaged: {} saved from it, {lost}", count(saved, "reading", "readings")),
        format!(
            "{} If it comes again, have the card or the disk replaced, and the power supply looked at.",
            told.words()
        ),
    )
}

/// Damaged stores had to go before they were searched.
pub fn unsearched(n: u64, told: Told) -> Said {
    Said(
        format!(
            "The store is damaged again and again: {} of it went unsearched, for lack of room",
            count(n, "file", "files")
        ),
        format!(
            "What nothing else tells of is lost without being counted. {} Have the card or the disk replaced, and the power \
             supply looked at.",
            told.words()
        ),
    )
}

/// The clock has not been set.
pub fn clock_unset() -> Said {
    Said(
        "The clock has not been set since the gateway started".into(),
        "Times may be wrong; they are corrected by themselves once it is set. Check the network time service \
         (\"timedatectl\"); with a good battery clock say trust_rtc = true."
            .into(),
    )
}

/// `31 h`, `12 days`, `40 min`.
pub fn hours_in_words(hours: f64) -> String {
    match hours {
        h if h < 1.0 => format!("{:.0} min", (h * 60.0).max(0.0)),
        h if h < 72.0 => format!("{h:.0} h"),
        h if h < 24.0 * 365.0 => format!("{:.0} days", h / 24.0),
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
