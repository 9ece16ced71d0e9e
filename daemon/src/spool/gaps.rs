//! Losses that no record on the disk tells yet, and the bound on what is told of them. Pure.
//!
//! A loss that touches the newest one grows it. On a disk that fails for days they need not touch: what the server takes lies between what the
//! memory ring has to drop. Of more than [`GAPS_MAX`], neighbours of one run and one cause are told as one, the nearest first, until
//! half of the bound is left. Their number stays exact ([`Body::Gaps`]); only which of the stretch were lost is not told any more. The bound
//! is [`GAPS_MAX`], or one for each run and cause if those are more.

use std::collections::BTreeMap;

use crate::model::RunId;
use crate::model::event::{Body, GapCause};

/// Gaps in memory, and gap records that wait on the disk: of each at most so many.
pub(super) const GAPS_MAX: usize = 1000;

/// Readings of one run that were lost for one cause: `lost` of `first..next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// The run.
    pub(super) of: RunId,
    /// The first.
    pub(super) first: u64,
    /// One past the last.
    pub(super) next: u64,
    /// How many: all, or fewer where several are told as one.
    pub(super) lost: u64,
    /// Why.
    pub(super) cause: GapCause,
}

impl Gap {
    /// All of `first..next`.
    pub(super) fn all(of: RunId, (first, next): (u64, u64), cause: GapCause) -> Self {
        Self { of, first, next, lost: next.saturating_sub(first), cause }
    }

    /// What a record tells.
    pub(super) fn told_by(body: &Body) -> Option<Self> {
        match *body {
            Body::Gap { of, first, next, cause } => Some(Self::all(of, (first, next), cause)),
            Body::Gaps { of, first, next, lost, cause } => Some(Self { of, first, next, lost, cause }),
            _ => None,
        }
    }

    /// What a record of it says.
    pub(super) fn body(self) -> Body {
        let Self { of, first, next, lost, cause } = self;
        if self.is_whole() {
            Body::Gap { of, first, next, cause }
        } else {
            Body::Gaps { of, first, next, lost, cause }
        }
    }

    /// Nothing between its ends was delivered.
    pub(super) fn is_whole(self) -> bool {
        self.lost == self.next.saturating_sub(self.first)
    }

    /// Whether `later` begins where it ends, with the same cause.
    pub(super) fn touches(self, later: Self) -> bool {
        (self.of, self.cause, self.next) == (later.of, later.cause, later.first)
            && self.is_whole()
            && later.is_whole()
    }
}

/// Losses that are booked and not yet recorded.
#[derive(Debug, Default)]
pub(super) struct Gaps(Vec<Gap>);

impl Gaps {
    /// Adds one.
    pub(super) fn push(&mut self, gap: Gap) {
        match self.0.last_mut() {
            Some(last) if last.touches(gap) => {
                last.next = gap.next;
                last.lost += gap.lost;
            }
            _ => self.0.push(gap),
        }
        if self.0.len() > GAPS_MAX {
            let told = self.0.drain(..).map(|gap| Told { gap, rows: Vec::new() });
            self.0 = fewer(told.collect(), GAPS_MAX / 2).into_iter().map(|told| told.gap).collect();
        }
    }

    /// All of them, to be recorded.
    pub(super) fn take(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.0)
    }

    /// A commit that was to record these failed: they come before those that have come since.
    pub(super) fn put_back(&mut self, gaps: Vec<Gap>) {
        let since = std::mem::replace(&mut self.0, gaps);
        for gap in since {
            self.push(gap);
        }
    }

    /// Oldest first, as long as they are few.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.iter()
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// There is nothing to record.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A gap, and the rows of the records that tell it.
#[derive(Debug)]
pub(super) struct Told {
    /// It.
    pub(super) gap: Gap,
    /// On the disk.
    pub(super) rows: Vec<i64>,
}

/// Joins the nearest neighbours of one run and one cause until about `keep` are left in all.
pub(super) fn fewer(all: Vec<Told>, keep: usize) -> Vec<Told> {
    let many = all.len();
    let mut apart: BTreeMap<(RunId, GapCause), Vec<Told>> = BTreeMap::new();
    for one in all {
        apart.entry((one.gap.of, one.gap.cause)).or_default().push(one);
    }
    let mut between = Vec::new();
    for list in apart.values_mut() {
        list.sort_by_key(|one| (one.gap.first, one.gap.next));
        between.extend(list.windows(2).map(|pair| pair[1].gap.first.saturating_sub(pair[0].gap.next)));
    }
    between.sort_unstable();
    let limit = many.checked_sub(keep + 1).and_then(|many| between.get(many).or(between.last()).copied());
    let mut joined: Vec<Told> = Vec::new();
    for one in apart.into_values().flatten() {
        let next = one.gap;
        let same = |last: &Gap| (last.of, last.cause) == (next.of, next.cause);
        let near = |last: &Gap| limit.is_some_and(|limit| next.first.saturating_sub(last.next) <= limit);
        match joined.last_mut() {
            Some(Told { gap: last, rows }) if same(last) && near(last) => {
                // Told twice, after a failure: counted once.
                let twice = last.next.saturating_sub(next.first).min(next.next - next.first);
                last.next = last.next.max(next.next);
                last.lost = (last.lost + next.lost).saturating_sub(twice).min(last.next - last.first);
                rows.extend(one.rows);
            }
            _ => joined.push(one),
        }
    }
    joined
}
