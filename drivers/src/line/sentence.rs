//! One sentence of an instrument: the newest line of it, its rhythm, and whether it is missing.
//!
//! A sentence of an instrument that talks by itself is missing when it stays away longer than its rhythm excuses; one of
//! an instrument that is asked, when it did not come for several queries that were answered otherwise. Pure.

use std::time::{Duration, Instant};

/// The rhythm of a sentence excuses no longer absence than this.
const LONGEST_RHYTHM: Duration = Duration::from_secs(3_600);

/// So many queries in a row that were answered, but not with it, and it is not waited for any more ...
const IN_VAIN: u8 = 3;

/// ... but with one query in so long a time.
const AGAIN_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    /// What it begins with; `None` is any line.
    pub(super) begins: Option<String>,
    pub(super) newest: Option<Heard>,
    /// When a believed line of it came last; at first, when the port was opened.
    heard_at: Instant,
    /// It has been heard since the port was opened.
    heard: bool,
    /// The last two times between two of it, the newer first; zero is not known yet. Kept when the port is opened again.
    intervals: [Duration; 2],
    /// A line of it was refused since the last forgetting: a checksum, or a length.
    pub(super) damaged: bool,
    /// A group has waited for it long enough, and it has not been heard since.
    pub(super) missing: bool,
    /// That it does not come has been said, and not taken back.
    said: bool,
    /// Queries in a row that were answered without it.
    in_vain: u8,
    /// When a query waits for it although it is missing.
    again_at: Instant,
}

/// A believed line.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) body: Vec<u8>,
    pub(super) began: Instant,
    pub(super) number: u64,
}

impl Sentence {
    /// Listened for since `now`.
    pub(super) fn new(begins: Option<String>, now: Instant) -> Self {
        Self {
            begins,
            newest: None,
            heard_at: now,
            heard: false,
            intervals: [Duration::ZERO; 2],
            damaged: false,
            missing: false,
            said: false,
            in_vain: 0,
            again_at: now,
        }
    }

    /// The port is open since `now`.
    pub(super) fn opened(&mut self, now: Instant) {
        (self.heard_at, self.heard) = (now, false);
    }

    pub(super) fn forget(&mut self) {
        (self.newest, self.damaged) = (None, false);
    }

    pub(super) fn hear(&mut self, heard: Heard, now: Instant) {
        let interval = now.saturating_duration_since(self.heard_at);
        // Two lines of one read came at times that nobody knows.
        if self.heard && !interval.is_zero() {
            self.intervals = [interval, self.intervals[0]];
        }
        (self.heard, self.heard_at) = (true, now);
        (self.missing, self.in_vain) = (false, 0);
        self.newest = Some(heard);
    }

    /// When it is missing for a group that takes lines not older than `oldest`, without another line. `None`: never.
    pub(super) fn overdue_at(&self, oldest: Duration) -> Option<Instant> {
        let [newer, older] = self.intervals;
        let excused = newer.min(older).saturating_mul(2).min(LONGEST_RHYTHM);
        self.heard_at.checked_add(oldest.max(excused))
    }

    /// A query was answered, and waited for it in vain.
    pub(super) fn waited_in_vain(&mut self, now: Instant) {
        self.in_vain = self.in_vain.saturating_add(1);
        if self.in_vain >= IN_VAIN && !self.missing {
            (self.missing, self.again_at) = (true, now + AGAIN_EVERY);
        }
    }

    /// Whether a query waits for it although it is missing; takes note of it.
    pub(super) fn is_tried_again(&mut self, now: Instant) -> bool {
        let again = self.missing && now >= self.again_at;
        if again {
            self.again_at = now + AGAIN_EVERY;
        }
        again
    }

    /// `Some(true)`: that it is missing is to be said now; `Some(false)`: that it has come again.
    pub(super) fn edge(&mut self) -> Option<bool> {
        (self.missing != std::mem::replace(&mut self.said, self.missing)).then_some(self.missing)
    }
}
