//! Records: what the gateway says about its readings. Rows in the spool, sent and confirmed like data, never
//! overwritten, never evicted before data.
//!
//! With them a receiver proves completeness: a run's readings are 0 to its run end, less the gaps.

use crate::model::{BootId, RunId, Stamp};

/// One record. Its identity is `(gateway, run, number)`; a receiver drops duplicates by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The run that wrote it.
    pub run: RunId,
    /// Number of the record in its run, from 0.
    pub number: u64,
    /// When it was written.
    pub stamp: Stamp,
    /// What it says.
    pub body: Body,
}

/// What a record says. The names in snake case are the `kind` in the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A run is over; written by the run itself when it stopped in order, else by the next one.
    RunEnd {
        /// Which run ended.
        ended: RunId,
        /// One past its last durable reading: its durable readings are `0..next_seq`, less its gaps.
        next_seq: u64,
        /// It stopped in order, with everything stored. If not, readings from `next_seq` on may have been lost, at
        /// most those of one commit window (P2). With `keep = "unsent"` those acknowledged since the last mark lie there too.
        clean: bool,
        /// Wall clock of its last durable batch, µs; `None` if it stored none.
        last_wall_us: Option<i64>,
    },
    /// Numbered readings that will not come.
    Gap {
        /// The run they were numbered in.
        of: RunId,
        /// The first of them.
        first: u64,
        /// One past the last.
        next: u64,
        /// Why.
        cause: GapCause,
    },
    /// Several gaps of one run and cause, told as one because there were too many of them. How many readings will not come is
    /// exact; which of `first..next` they are is not said. It stands for every gap of that run and cause within it.
    Gaps {
        /// The run they were numbered in.
        of: RunId,
        /// The first of them.
        first: u64,
        /// One past the last.
        next: u64,
        /// How many of `first..next`.
        lost: u64,
        /// Why.
        cause: GapCause,
    },
    /// The clock was first set in this boot: add `offset_us` to the unsynced stamps of `boot`.
    Clock {
        /// Whose stamps.
        boot: BootId,
        /// True minus shown time, µs.
        offset_us: i64,
        /// CLOCK_BOOTTIME at which the clock was set, µs: stamps before it need the offset.
        at_mono_us: u64,
    },
    /// Polls that were due and not made.
    Missed {
        /// Bus name.
        bus: String,
        /// Device name.
        device: String,
        /// How many since the last such record.
        polls: u64,
    },
    /// A new configuration was taken, or one was refused.
    Config {
        /// First 16 hexadecimal digits of the SHA-256 of the configuration in force.
        hash: String,
        /// Why the newest one was refused; `None` if it was taken.
        refused: Option<String>,
    },
    /// The spool's file was damaged.
    Corruption {
        /// What was found, in words.
        found: String,
        /// Readings saved from it.
        saved: u64,
        /// Readings known to be lost; they are also gap records.
        lost: u64,
    },
    /// A device changed between answering and silent.
    Device {
        /// Device name.
        device: String,
        /// Whether it answers now.
        answering: bool,
    },
}

/// What a clock record ([`Body::Clock`]) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockCorrection {
    /// Whose unsynced stamps.
    pub boot: BootId,
    /// To be added, µs.
    pub offset_us: i64,
    /// To stamps before this CLOCK_BOOTTIME, µs.
    pub at_mono_us: u64,
}

/// Clock corrections that are remembered: the newest of so many boots.
pub const CLOCKS_MAX: usize = 16;

/// Why numbered readings will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapCause {
    /// Dropped to make room at the spool's cap.
    Evicted,
    /// Older than the spool may keep readings (`max_age`), by running time.
    Expired,
    /// Dropped from memory while the disk was failing.
    Overflow,
    /// Numbered but not stored when the process or the power went.
    Unstored,
    /// Damage found on disk.
    Damaged,
    /// Refused by the broker for good: kept apart as a dead letter, bounded in number, and not sent again.
    DeadLetter,
}

impl GapCause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Evicted, Self::Expired, Self::Overflow, Self::Unstored, Self::Damaged, Self::DeadLetter];

    /// The cause of a word in a message.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// The word in the message.
    pub fn word(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Overflow => "overflow",
            Self::Unstored => "unstored",
            Self::Damaged => "damaged",
            Self::DeadLetter => "dead_letter",
        }
    }
}

impl Body {
    /// The run whose completeness the record helps to prove.
    pub fn about(&self) -> Option<RunId> {
        match *self {
            Self::RunEnd { ended: run, .. } | Self::Gap { of: run, .. } | Self::Gaps { of: run, .. } => {
                Some(run)
            }
            _ => None,
        }
    }

    /// The correction that a clock record holds.
    pub fn correction(&self) -> Option<ClockCorrection> {
        match *self {
            Self::Clock { boot, offset_us, at_mono_us } => {
                Some(ClockCorrection { boot, offset_us, at_mono_us })
            }
            _ => None,
        }
    }

    /// The `kind` in the message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunEnd { .. } => "run_end",
            Self::Gap { .. } => "gap",
            Self::Gaps { .. } => "gaps",
            Self::Clock { .. } => "clock",
            Self::Missed { .. } => "missed",
            Self::Config { .. } => "config",
            Self::Corruption { .. } => "corruption",
            Self::Device { .. } => "device",
        }
    }
}
