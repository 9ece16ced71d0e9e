//! What is done to a spool, and what came of it.

use crate::book::Losses;
use crate::disk::Faults;

/// A bug that is planted, to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// Readings count as stored when they are handed over, before their commit has returned.
    CountedEarly,
    /// The spool hears of a confirmation when a batch is sent; no PUBACK ever came.
    ConfirmedOnSend,
    /// A batch is handed to the spool with a value that is not the device's.
    WrongValue,
    /// The step to a newer schema is two transactions.
    TwoTransactions,
}

/// What is done to a spool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Of the disk.
    pub faults: Faults,
    /// In the program.
    pub planted: Planted,
    /// Cuts in a row on the same files.
    pub cuts: u64,
    /// The schedule is an update to a newer schema.
    pub update: bool,
}

impl Plan {
    /// The disk keeps its word.
    pub fn honest() -> Self {
        Self { cuts: 12, ..Self::default() }
    }

    /// The disk keeps its word, and the program is replaced by a newer one.
    pub fn update() -> Self {
        Self { update: true, ..Self::honest() }
    }

    pub(super) fn lies(&self) -> bool {
        self.faults.dropped_syncs > 0.0
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Power cuts.
    pub cuts: u64,
    /// Those of them that fell while the spool was being opened.
    pub in_recovery: u64,
    /// Operations on the disk.
    pub operations: u64,
    /// Readings counted as stored.
    pub stored: u64,
    /// Readings given up at the cap.
    pub evicted: u64,
    /// The most readings that came a second time after one cut.
    pub repeats_worst: u64,
    /// Files set aside.
    pub quarantines: u64,
    /// Syncs that did nothing, or failed.
    pub bad_syncs: u64,
    /// Cuts in an update that left the older version, and updates that were made.
    pub updates: (u64, u64),
    /// On a disk that lies.
    pub losses: Losses,
    /// The most readings of one schedule of which no record tells, and its number.
    pub untold: (u64, u64),
    /// Of all operations: equal for equal seeds.
    pub trace: u64,
}

impl Tally {
    /// Of two.
    pub fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.in_recovery += other.in_recovery;
        self.operations += other.operations;
        self.stored += other.stored;
        self.evicted += other.evicted;
        self.repeats_worst = self.repeats_worst.max(other.repeats_worst);
        self.quarantines += other.quarantines;
        self.bad_syncs += other.bad_syncs;
        self.updates.0 += other.updates.0;
        self.updates.1 += other.updates.1;
        self.losses.add(&other.losses);
        self.untold = self.untold.max(other.untold);
        self.trace ^= other.trace;
    }
}
