//! One sentence of an instrument: the newest line of it, its rhythm, and whether it is missing.
//!
//! A sentence of an instrument that talks by itself is missing when it stays away longer than its rhythm excuses; one of
//! an instrument that is asked, when it did not come for several queries that were answered otherwise. Such a one is given
//! up: no query waits for it but in its turn, see [`patience`](super::patience). If it comes all the same its line counts,
//! and it is waited for again when that can be afforded. Pure.

use std::time::{Duration, Instant};

use super::patience::{Kind, Patience, WAITS_SAVED};

/// The rhythm of a sentence excuses no longer absence than this.
const LONGEST_RHYTHM: Duration = Duration::from_secs(3_600);

/// So many queries in a row that were answered, but not with it, and it is given up. One is enough while the account that
/// it is waited for on is spent.
const IN_VAIN: u8 = WAITS_SAVED;

/// What was not heard for so long is lost, and is waited for on the account of those that never come.
const LOST_AFTER: Duration = Duration::from_secs(3_600);

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
    /// When it is lost, unless it is heard before; `None` if it never was. An opening of the port makes nothing lost.
    lost_at: Option<Instant>,
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
    /// When the pause since the last wait for it is over.
    rested_at: Instant,
    /// When it has its own turn, and on which account that is booked.
    turn: (Instant, Kind),
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
            lost_at: None,
            intervals: [Duration::ZERO; 4],
            damaged: false,
            missing: false,
            said: false,
            in_vain: 0,
            given_up: false,
            came: false,
            tried: false,
            rested_at: now,
            turn: (now, Kind::Lost),
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
        (self.heard, self.heard_at, self.lost_at) = (true, now, Some(now + LOST_AFTER));
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

    /// On which account a wait for it is to be booked.
    pub(super) fn kind(&self, now: Instant) -> Kind {
        if self.lost_at.is_some_and(|at| now < at) { Kind::Heard } else { Kind::Lost }
    }

    /// A query that should bring it is about to be sent. What is given up and came since then is waited for again: if it
    /// came in its turn, or if the line can afford it.
    pub(super) fn asks(&mut self, patience: &mut Patience, now: Instant) {
        if !self.given_up {
            return;
        }
        let tried = std::mem::take(&mut self.tried);
        if std::mem::take(&mut self.came) && (tried || !patience.is_spent(self.kind(now), now)) {
            self.given_up = false;
            let (turn_at, kind) = self.turn;
            if turn_at <= self.heard_at {
                patience.came(kind);
            }
        }
    }

    /// Whether it is given up and has its own turn now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.given_up && now >= self.turn.0
    }

    /// Whether it is given up and may be tried before its turn now: on which account.
    pub(super) fn is_due_early(&self, patience: &Patience, now: Instant) -> Option<Kind> {
        let kind = self.turn.1;
        (self.given_up && now >= self.rested_at && patience.allows_early(kind)).then_some(kind)
    }

    /// The query that is about to be sent waits for it.
    pub(super) fn tries(&mut self) {
        self.tried = self.given_up;
    }

    /// Whether a query waits for it that has not brought it.
    pub(super) fn is_awaited(&self) -> bool {
        self.newest.is_none() && !self.damaged && (self.tried || !self.given_up)
    }

    /// A query was answered, and waited for it in vain. `turn`: its next turn, and the account of it; `None`: the one that
    /// it had.
    pub(super) fn waited_in_vain(&mut self, turn: Option<(Instant, Kind)>, spent: bool, now: Instant) {
        self.tried = false;
        self.in_vain = self.in_vain.saturating_add(1);
        if self.in_vain >= IN_VAIN || spent || self.given_up {
            (self.missing, self.given_up, self.came) = (true, true, false);
        }
        self.rested_at = now + AGAIN_EVERY;
        let (turn_at, kind) = turn.unwrap_or(self.turn);
        self.turn = (turn_at.max(self.rested_at), kind);
    }

    /// `Some(true)`: that it is missing is to be said now; `Some(false)`: that it has come again.
    pub(super) fn edge(&mut self) -> Option<bool> {
        (self.missing != std::mem::replace(&mut self.said, self.missing)).then_some(self.missing)
    }
}
