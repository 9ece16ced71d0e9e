//! Records, books and runs as the JSON and numbers of their rows, and back.
//!
//! Blocks prove themselves by their checksum; so do these. A text is **sealed**: its last member is `"crc"`, eight hexadecimal
//! digits, the CRC-32C of all bytes before `,"crc"`. Without it a flipped bit in a digit would silently settle readings that
//! nobody has confirmed. Books and records repeat the key of their row, so that the key is proved too.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::age::Ages;
use super::blockless::Blockless;
use super::ledger::{End, Ledger, Losses, Lost, RunBooks};
use crate::model::event::{Body, Event, GapCause};
use crate::model::{BootId, ClockQuality, RunId, Stamp};

/// What stands between a sealed text and its checksum.
const SEAL: &str = ",\"crc\":\"";

/// A JSON object with its checksum in it.
pub(super) fn seal(mut json: String) -> String {
    json.pop();
    let crc = crc32c::crc32c(json.as_bytes());
    json + SEAL + &format!("{crc:08x}\"}}")
}

/// The text, if its checksum fits.
pub(super) fn sealed(text: &str) -> Option<&str> {
    let (json, rest) = text.rsplit_once(SEAL)?;
    let crc = u32::from_str_radix(rest.strip_suffix("\"}")?, 16).ok()?;
    (crc == crc32c::crc32c(json.as_bytes())).then_some(text)
}

/// The spool's own row as text.
pub fn mark_text(mark: &Mark) -> String {
    seal(serde_json::to_string(mark).expect("numbers and a text are always JSON"))
}

/// The spool's own row of its text; `None` if it is damaged.
pub fn mark_of(text: &str) -> Option<Mark> {
    serde_json::from_str(sealed(text)?).ok()
}

/// A run as the key of its row.
pub fn run_key(run: RunId) -> i64 {
    (i64::from(run.counter) << 32) | i64::from(run.random)
}

/// The run of a key.
pub fn run_of(key: i64) -> RunId {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    RunId { counter: half(key.cast_unsigned() >> 32), random: half(key.cast_unsigned()) }
}

/// The one row of table `spool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Drawn when the file was made.
    pub id: String,
    /// Blocks with a smaller number are settled.
    pub floor: u64,
    /// Greatest run counter ever seen here.
    pub counter: u32,
    /// Confirmed readings of runs that were folded away.
    pub confirmed: u64,
    /// Their losses: evicted, dropped, unstored, damaged, dead-lettered, expired.
    pub losses: Vec<u64>,
    /// Which: stretches, by the keys of first and last.
    #[serde(default)]
    pub folded: Vec<(i64, i64)>,
    /// Seconds that the daemon has run with this spool, over all boots.
    #[serde(default)]
    pub running_s: u64,
    /// What was stored when: see `age`.
    #[serde(default)]
    pub ages: Ages,
}

impl Mark {
    /// What it says of runs that were folded away, as the beginning of a ledger.
    pub fn ledger(&self) -> Ledger {
        Ledger {
            folded_confirmed: self.confirmed,
            folded_losses: losses_of(&self.losses),
            folded: self.folded.iter().map(|(first, last)| (run_of(*first), run_of(*last))).collect(),
            ..Ledger::default()
        }
    }

    /// Says what a ledger says of them.
    pub fn take_folded(&mut self, ledger: &Ledger) {
        self.confirmed = ledger.folded_confirmed;
        self.losses = losses_row(&ledger.folded_losses);
        self.folded = ledger.folded.iter().map(|(first, last)| (run_key(*first), run_key(*last))).collect();
    }
}

#[derive(Serialize, Deserialize)]
struct StoredBooks {
    run: i64,
    durable: u64,
    settled: Vec<(u64, u64)>,
    lost: Vec<(u64, u64)>,
    losses: Vec<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    causes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forgotten: Option<(u64, Vec<u64>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blockless: Option<(u64, Vec<(u64, u64)>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    folded: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "is_zero")]
    resends: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<End>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unfound: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Losses as a row keeps them.
pub fn losses_row(losses: &Losses) -> Vec<u64> {
    let Losses { evicted, expired, dropped, unstored, damaged, dead_lettered } = *losses;
    vec![evicted, dropped, unstored, damaged, dead_lettered, expired]
}

/// Losses of a row.
pub fn losses_of(row: &[u64]) -> Losses {
    let at = |at: usize| row.get(at).copied().unwrap_or_default();
    Losses {
        evicted: at(0),
        dropped: at(1),
        unstored: at(2),
        damaged: at(3),
        dead_lettered: at(4),
        expired: at(5),
    }
}

/// Causes in the order of a row of losses: their places in it are their digits.
const ROW: [GapCause; 6] = [
    GapCause::Evicted,
    GapCause::Overflow,
    GapCause::Unstored,
    GapCause::Damaged,
    GapCause::DeadLetter,
    GapCause::Expired,
];

/// A digit for each lost stretch. If there is but one cause, the losses tell it.
fn causes_text(books: &RunBooks) -> String {
    let digit = |cause| ROW.iter().position(|of| *of == cause).unwrap_or_default().to_string();
    if books.losses.only().is_some() {
        return String::new();
    }
    books.lost.stretches().into_iter().map(|(_, _, cause)| digit(cause)).collect()
}

/// Of which cause the lost stretch with this digit is. Older books name none: then nobody knows but where there is only one.
fn cause_of(digit: Option<char>, losses: Losses) -> GapCause {
    let named = digit.and_then(|digit| ROW.get(digit.to_digit(10)? as usize)).copied();
    named.or(losses.only()).unwrap_or(GapCause::Damaged)
}

/// Books as their row's text.
pub fn books_text(run: RunId, books: &RunBooks) -> String {
    let forgotten = books.lost.forgotten();
    let stored = StoredBooks {
        run: run_key(run),
        durable: books.durable,
        settled: books.settled.iter().collect(),
        lost: books.lost.stretches().into_iter().map(|(first, next, _)| (first, next)).collect(),
        losses: losses_row(&books.losses),
        causes: causes_text(books),
        forgotten: (forgotten.total() > 0).then(|| (books.lost.limit(), losses_row(&forgotten))),
        blockless: (books.blockless != Blockless::default())
            .then(|| (books.blockless.limit(), books.blockless.known().collect())),
        folded: books.folded.iter().collect(),
        resends: books.resends,
        end: books.end,
        unfound: books.unfound,
    };
    seal(serde_json::to_string(&stored).expect("numbers are always JSON"))
}

/// Books of the row of a run; `None` if they are damaged or those of another run.
pub fn books_of(run: RunId, text: &str) -> Option<RunBooks> {
    let stored: StoredBooks = serde_json::from_str(sealed(text)?).ok()?;
    if stored.run != run_key(run) {
        return None;
    }
    let mut books = RunBooks {
        durable: stored.durable,
        losses: losses_of(&stored.losses),
        resends: stored.resends,
        end: stored.end,
        unfound: stored.unfound,
        ..RunBooks::default()
    };
    for (first, next) in stored.settled {
        books.settled.insert(first, next);
    }
    if let Some((limit, forgotten)) = stored.forgotten {
        books.lost = Lost::with_forgotten(limit, losses_of(&forgotten));
    }
    if let Some((limit, known)) = stored.blockless {
        books.blockless = Blockless::of_row(limit, known);
    }
    let mut digits = stored.causes.chars();
    for (first, next) in stored.lost {
        books.lost.insert(first, next, cause_of(digits.next(), books.losses));
        books.settled.insert(first, next);
    }
    for (first, next) in stored.folded {
        books.folded.insert(first, next);
        books.settled.insert(first, next);
    }
    Some(books)
}

/// A record's stamp and body as its row's text.
pub fn event_text(event: &Event) -> String {
    let body = match &event.body {
        Body::RunEnd { ended, next_seq, clean, last_wall_us } => {
            json!({"ended": ended.to_string(), "next_seq": next_seq, "clean": clean, "last_wall_us": last_wall_us})
        }
        Body::Gap { of, first, next, cause } => {
            json!({"of": of.to_string(), "first": first, "next": next, "cause": cause.word()})
        }
        Body::Gaps { of, first, next, lost, cause } => {
            json!({"of": of.to_string(), "first": first, "next": next, "lost": lost, "cause": cause.word()})
        }
        Body::Clock { boot, offset_us, at_mono_us } => {
            json!({"boot": boot_text(*boot), "offset_us": offset_us, "at_mono_us": at_mono_us})
        }
        Body::Missed { bus, device, polls } => json!({"bus": bus, "device": device, "polls": polls}),
        Body::Config { hash, refused } => json!({"hash": hash, "refused": refused}),
        Body::Corruption { found, saved, lost } => json!({"found": found, "saved": saved, "lost": lost}),
        Body::Device { device, answering } => json!({"device": device, "answering": answering}),
    };
    let stamp = &event.stamp;
    let clock = match stamp.clock {
        ClockQuality::Synced => "synced",
        ClockQuality::Unsynced => "unsynced",
        ClockQuality::Corrected => "corrected",
    };
    let row = json!({
        "kind": event.body.kind(), "body": body, "wall_us": stamp.wall_us, "mono_us": stamp.mono_us,
        "boot": boot_text(stamp.boot), "clock": clock, "run": run_key(event.run), "number": event.number,
    });
    seal(row.to_string())
}

/// A record of a row; `None` if it is damaged, or of a kind that this version does not know.
pub fn event_of(run: RunId, number: u64, text: &str) -> Option<Event> {
    let row: Value = serde_json::from_str(sealed(text)?).ok()?;
    if row["run"].as_i64() != Some(run_key(run)) || row["number"].as_u64() != Some(number) {
        return None;
    }
    let body = &row["body"];
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let body = match row["kind"].as_str()? {
        "run_end" => Body::RunEnd {
            ended: body["ended"].as_str()?.parse().ok()?,
            next_seq: body["next_seq"].as_u64()?,
            clean: body["clean"].as_bool()?,
            last_wall_us: body["last_wall_us"].as_i64(),
        },
        "gap" => Body::Gap {
            of: body["of"].as_str()?.parse().ok()?,
            first: body["first"].as_u64()?,
            next: body["next"].as_u64()?,
            cause: GapCause::of_word(body["cause"].as_str()?)?,
        },
        "gaps" => Body::Gaps {
            of: body["of"].as_str()?.parse().ok()?,
            first: body["first"].as_u64()?,
            next: body["next"].as_u64()?,
            lost: body["lost"].as_u64()?,
            cause: GapCause::of_word(body["cause"].as_str()?)?,
        },
        "clock" => Body::Clock {
            boot: boot_of(body["boot"].as_str()?)?,
            offset_us: body["offset_us"].as_i64()?,
            at_mono_us: body["at_mono_us"].as_u64()?,
        },
        "missed" => {
            Body::Missed { bus: text("bus")?, device: text("device")?, polls: body["polls"].as_u64()? }
        }
        "config" => Body::Config { hash: text("hash")?, refused: text("refused") },
        "corruption" => Body::Corruption {
            found: text("found")?,
            saved: body["saved"].as_u64()?,
            lost: body["lost"].as_u64()?,
        },
        "device" => Body::Device { device: text("device")?, answering: body["answering"].as_bool()? },
        _ => return None,
    };
    let clock = match row["clock"].as_str()? {
        "synced" => ClockQuality::Synced,
        "unsynced" => ClockQuality::Unsynced,
        "corrected" => ClockQuality::Corrected,
        _ => return None,
    };
    let stamp = Stamp {
        wall_us: row["wall_us"].as_i64()?,
        mono_us: row["mono_us"].as_u64()?,
        boot: boot_of(row["boot"].as_str()?)?,
        clock,
    };
    Some(Event { run, number, stamp, body })
}

fn boot_text(boot: BootId) -> String {
    format!("{:032x}", boot.0)
}

fn boot_of(text: &str) -> Option<BootId> {
    u128::from_str_radix(text, 16).ok().map(BootId)
}
