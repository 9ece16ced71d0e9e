//! Damage: what is left of the spool when its file is not what it was.
//!
//! `images`: seeded damage (`harm`) to copies of real spools, judged by an oracle that reads the file by itself (`oracle`), and summed up (`tally`).
//! `versions`: an update, and one that was rolled back. `format`: a reader in another language, written from the
//! documentation alone, gives what `fieldspool spool export` gives.
//!
//! `FIELDSPOOL_IMAGES=1000` and `FIELDSPOOL_SEED=n` change how much is tried, and from where.

// A test says what it expects by ending if it does not come.
#![allow(clippy::unwrap_used)]
// Random numbers are cut to size.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod format;
mod harm;
mod images;
mod oracle;
mod plant;
#[allow(unreachable_pub)] // shared with crates that have it public
#[path = "../support/record.rs"]
mod record;
mod tally;
mod versions;
