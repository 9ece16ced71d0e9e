//! `[spool]`, and where the state lives.

use std::path::PathBuf;
use std::time::Duration;

use fieldspool_drivers::Section;

use crate::config::document::Data;
use crate::config::table::Table;
use crate::config::words::{bytes, bytes_words, quoted};
use crate::spool::{BYTES_MAX_LEAST, Keep, MAX_AGE_LEAST, SpoolSettings};

/// Longest loss window: beyond it a power cut costs more than anybody expects.
const COMMIT_EVERY_MAX: Duration = Duration::from_secs(60);

/// Ten years: longer than cards and gateways live.
const MAX_AGE_MOST: Duration = Duration::from_secs(3650 * 86_400);

pub(super) fn read(top: &mut Table<'_>, directory: PathBuf) -> SpoolSettings {
    let mut settings = SpoolSettings::new(directory);
    let Some(mut table) = top.table("spool") else { return settings };
    settings.bytes_max = size(&mut table, "cap", BYTES_MAX_LEAST, 1 << 44);
    settings.max_age = table.duration("max_age", MAX_AGE_LEAST..=MAX_AGE_MOST);
    let every = table.duration("commit_every", Duration::ZERO..=COMMIT_EVERY_MAX);
    settings.commit_every = every.unwrap_or(settings.commit_every);
    settings.keep = match table.choice("keep", &["all", "unsent"]) {
        Some(1) => Keep::Unsent,
        _ => Keep::All,
    };
    settings.require_durable = table.flag("require_durable").unwrap_or(false);
    table.finish();
    settings
}

/// A number of bytes, `"1 GiB"` or plain, from `least` to `most`.
pub(super) fn size(table: &mut Table<'_>, key: &'static str, least: u64, most: u64) -> Option<u64> {
    let range = format!("write a size from {} to {}", bytes_words(least), bytes_words(most));
    let (what, remedy) = match &table.value(key)?.data {
        Data::Integer(number) => match u64::try_from(*number) {
            Ok(size) if (least..=most).contains(&size) => return Some(size),
            _ => (format!("{number} bytes is out of range"), range),
        },
        Data::Text(text) => match bytes(text) {
            Some(size) if (least..=most).contains(&size) => return Some(size),
            Some(_) => (format!("{} is out of range", quoted(text)), range),
            None => (format!("{} is not a size", quoted(text)), range),
        },
        other => (format!("{} is not a size", other.words()), range),
    };
    table.fault(key, what, remedy);
    None
}
