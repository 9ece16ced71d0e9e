//! One sentence of an instrument: the newest line of it, its rhythm, and whether it is missing.
//!
//! A sentence of an instrument that talks by itself is missing when it stays away longer than its rhythm excuses; one of
//! an instrument that is asked, when it did not come for several queries that were answered otherwise. Such a one is given
//! up: no query waits for it but in its turn, see [`patience`](super::patience). If it comes all the same its line counts,
//! and it is waited for again when that can be afforded. Pure.

use std::time::{Duration, Instant};

use super::patience::Patience;

/// The rhythm of a sentence excuses no longer absence than this.
const LONGEST_RHYTHM: Duration = Duration::from_secs(3_600);

/// So many queries in a row that were answered, but not with it, and it is given up. One is enough while the line has no
/// time left for what is not given up.
const IN_VAIN: u8 = 3;

/// Shortest pause between two queries that wait for a sentence that is given up.
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
    /// The last times between two of it, the newest first; zero is not known yet. Kept when the port is opened again.
    intervals: [Duration; 4],
    /// A line of it was refused since the last forgetting: a checksum, or a length.
    pub(super) damaged: bool,
    /// A group has waited for it long enough, and it has not been heard since.
    pub(super) missing: bool,
    /// That it does not come has been said, and not taken back.
    said: bool,
    /// Queries in a row that were answered without it.
    in_vain: u8,
    /// Queries do not wait for it, but in its turn.
    pub(super) given_up: bool,
    /// It has come since it was given up.
    came: bool,
    /// The query under way waits for it although it is given up.
    tried: bool,
    /// When the pause since the last wait for it is over, and when it has its own turn.
    rested_at: Instant,
    turn_at: Instant,
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
            intervals: [Duration::ZERO; 4],
            damaged: false,
            missing: false,
            said: false,
            in_vain: 0,
            given_up: false,
            came: false,
            tried: false,
            rested_at: now,
            turn_at: now,
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
            self.intervals.rotate_right(1);
            self.intervals[0] = interval;
        }
        (self.heard, self.heard_at) = (true, now);
        (self.missing, self.in_vain, self.came) = (false, 0, true);
        self.newest = Some(heard);
    }

    /// When it is missing for a group that takes lines not older than `oldest`, without another line. `None`: never.
    pub(super) fn overdue_at(&self, oldest: Duration) -> Option<Instant> {
        self.heard_at.checked_add(oldest.max(self.rhythm().saturating_mul(2).min(LONGEST_RHYTHM)))
    }

    /// The second longest of the last intervals. The longest alone may be a fault; the shorter ones may be those within a
    /// burst, or the short half of a rhythm of two.
    fn rhythm(&self) -> Duration {
        let mut intervals = self.intervals;
        intervals.sort_unstable();
        let [.., second, _longest] = intervals;
        second
    }

    /// A query that should bring it is about to be sent. What is given up and came since then is waited for again: if it
    /// came in its turn, or if the line can afford it.
    pub(super) fn asks(&mut self, patience: &mut Patience, now: Instant) {
        if !self.given_up {
            return;
        }
        let tried = std::mem::take(&mut self.tried);
        if std::mem::take(&mut self.came) && (tried || !patience.is_spent(now)) {
            self.given_up = false;
            if self.turn_at <= self.heard_at {
                patience.came();
            }
        }
    }

    /// Whether it is given up and may be tried now: in its own turn, or `early`.
    pub(super) fn is_due(&self, early: bool, now: Instant) -> bool {
        self.given_up && now >= if early { self.rested_at } else { self.turn_at }
    }

    /// The query that is about to be sent waits for it.
    pub(super) fn tries(&mut self) {
        self.tried = self.given_up;
    }

    /// Whether a query waits for it that has not brought it.
    pub(super) fn is_awaited(&self) -> bool {
        self.newest.is_none() && !self.damaged && (self.tried || !self.given_up)
    }

    /// A query was answered, and waited for it in vain. `turn_at`: its next turn; `None`: the one that it had.
    pub(super) fn waited_in_vain(&mut self, turn_at: Option<Instant>, spent: bool, now: Instant) {
        self.tried = false;
        self.in_vain = self.in_vain.saturating_add(1);
        if self.in_vain >= IN_VAIN || spent || self.given_up {
            (self.missing, self.given_up, self.came) = (true, true, false);
        }
        self.rested_at = now + AGAIN_EVERY;
        self.turn_at = turn_at.unwrap_or(self.turn_at).max(self.rested_at);
    }

    /// `Some(true)`: that it is missing is to be said now; `Some(false)`: that it has come again.
    pub(super) fn edge(&mut self) -> Option<bool> {
        (self.missing != std::mem::replace(&mut self.said, self.missing)).then_some(self.missing)
    }
}
