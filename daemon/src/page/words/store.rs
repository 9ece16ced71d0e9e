//! What is wrong between the gateway and the server: the connection, the store on the disk, what was lost, the clock; and what to do.

use std::borrow::Cow;

use super::{Said, because, count, days, grouped, hours_in_words};
use crate::status::{Refused, Refusing, SpoolStatus};

/// No connection to the server.
pub fn server_away(broker: &str, why: Option<&str>, waiting: u64, room: Option<f64>) -> Said {
    let kept = kept("Readings are kept here until it is back", waiting, room);
    Said(format!("No connection to the server {broker}"), because(why, &kept))
}

/// The server is connected, and does not take what it is sent.
pub fn server_refuses(broker: &str, refused: &Refused, waiting: u64, room: Option<f64>) -> Said {
    let why = Some(&*refused.why);
    match refused.what {
        Refusing::All => {
            let kept = kept("Readings are kept here until it takes them", waiting, room);
            Said(format!("The server {broker} is connected, but takes no readings"), because(why, &kept))
        }
        Refusing::Some => Said(
            format!("The server {broker} refuses some of the readings"),
            because(
                why,
                "If it takes others, what it refuses again and again is kept apart, and reported as lost.",
            ),
        ),
        Refusing::About => Said(
            format!("The server {broker} refuses what tells of this gateway and its devices"),
            because(why, "Readings are sent all the same."),
        ),
    }
}

/// The key of the label that says it of the connection.
pub fn refuses(what: Refusing) -> &'static str {
    match what {
        Refusing::All => "refuses_all",
        Refusing::Some => "refuses_some",
        Refusing::About => "refuses_about",
    }
}

fn kept(until: &str, waiting: u64, room: Option<f64>) -> String {
    let n = if waiting == 0 { String::new() } else { format!(": {} waiting", grouped(waiting)) };
    let room = room.map(|hours| format!(", {}", super::room(hours))).unwrap_or_default();
    format!("{until}{n}{room}.")
}

/// Room for waiting readings comes to its end.
pub fn nearly_full(hours: f64, server: Option<bool>) -> Said {
    Said(
        format!("Room for readings that wait is used up in about {}", hours_in_words(hours)),
        format!("From then on the oldest are dropped to make room. {}", make_room(server)),
    )
}

/// There is no room left.
pub fn full(server: Option<bool>) -> Said {
    Said(
        "There is no room left for readings that wait; the oldest are being dropped to make room".into(),
        format!("{} What is dropped is counted and reported.", make_room(server)),
    )
}

/// By whether the server is connected, if there is one: a connection that stands, or was never configured, cannot be brought back.
fn make_room(server: Option<bool>) -> &'static str {
    match server {
        Some(false) => "Bring the connection to the server back.",
        Some(true) => {
            "The connection to the server stands: if what waits does not become less, read less often, or give the store more room (cap)."
        }
        None => "No server is configured that would take them: add one, or give the store more room (cap).",
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
