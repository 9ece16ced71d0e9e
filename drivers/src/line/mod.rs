//! Serial instruments that speak lines of text: weather stations, scales, meters.
//!
//! Two kinds. A **free-running** instrument talks by itself (NMEA 0183 and its kin): the driver listens all the
//! time and a poll takes the newest whole sentence that no poll has taken yet. A **queried** one answers a query.
//!
//! Promises: a sentence is believed only if it is whole, not longer than 1 024 bytes, passes the checksum and
//! begins as selected. An old sentence is never a new reading: each is used once a group, stamped with the
//! arrival of its first byte. After a query without an answer the line rests until a late answer must have
//! passed, and the answers of instruments that share a line must begin differently; a sentence that answers
//! never bring is waited for three times, then once a minute, later once in two, or more seldom where many are
//! missing: together that costs a sixtieth of the line's time, and with those that come and go a twentieth. Numbers are read
//! strictly: what is not wholly understood is `unreadable`, never half a number. Memory is bounded whatever arrives;
//! every poll has one total deadline, also while an instrument babbles.
//!
//! What remains: without a checksum a byte damaged into another digit is believed (use one, or parity); an answer
//! later than twice the timeout can be taken for the same instrument's next one, and so can the second line of an
//! instrument that answers with two and has no `select`.
//!
//! Reading order: [`settings`], [`framing`] (bytes to lines), [`checksum`], [`fields`] and [`number`] (line to
//! value), [`listener`] (which line counts) with `sentence` (what does not come) and [`patience`]
//! (what waiting for it may cost), [`driver`] (the only file here that
//! does I/O), [`plan`].

pub mod checksum;
pub mod driver;
pub mod fields;
pub mod framing;
pub mod listener;
pub mod number;
pub mod patience;
pub mod plan;
mod sentence;
pub mod settings;

pub use checksum::Checksum;
pub use driver::Driver;
pub use settings::{Device, Link, Place, Reads, Source};

/// Longest line that is believed, terminator not counted. NMEA 0183 allows 82.
pub const LINE_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
