//! The small curve beside a value: at most 120 numbers, one every 5 s or with each poll, whichever is rarer.

use std::collections::VecDeque;

/// Numbers in a trend: 10 min of a fast point, two hours of one polled each minute.
pub const TREND_NUMBERS: usize = 120;

/// Points that have one: headline points first, then the others in the configuration's order.
pub const TRENDS_MAX: usize = 500;

/// Running time of one number, s.
pub(super) const STEP_S: i32 = 5;

/// The step of a trend in which a moment lies, CLOCK_BOOTTIME, µs.
pub(super) fn step(mono_us: u64) -> u64 {
    mono_us / 1_000_000 / u64::from(STEP_S.unsigned_abs())
}

/// A short past of one point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trend {
    numbers: VecDeque<Kept>,
    /// The first so many belong to the stretch of stored readings that is being filled in.
    past: usize,
}

/// A mark in 12 bytes: a gateway has up to 60 000 of them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kept {
    at_s: i32,
    /// The number's bytes; not a number: there is none.
    number: [u8; 8],
}

const _: () = assert!(size_of::<Kept>() == 12);

impl Kept {
    fn step(&self) -> i32 {
        self.at_s.div_euclid(STEP_S)
    }

    /// Within one step the newest counts, except that a missing value stays: it is news.
    fn give_way(&mut self, newer: Mark) {
        if Mark::from(*self).number.is_some() {
            *self = newer.into();
        }
    }
}

impl From<Mark> for Kept {
    fn from(mark: Mark) -> Self {
        Self { at_s: mark.at_s, number: mark.number.unwrap_or(f64::NAN).to_ne_bytes() }
    }
}

impl From<Kept> for Mark {
    fn from(kept: Kept) -> Self {
        Self::new(kept.at_s, Some(f64::from_ne_bytes(kept.number)))
    }
}

/// One number of a trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// CLOCK_BOOTTIME, s; negative: before this boot.
    pub at_s: i32,
    /// `None`: there was no value, and the curve has a hole.
    pub number: Option<f64>,
}

impl Mark {
    fn new(at_s: i32, number: Option<f64>) -> Self {
        Self { at_s, number: number.filter(|number| number.is_finite()) }
    }

    fn step(&self) -> i32 {
        self.at_s.div_euclid(STEP_S)
    }
}

impl Trend {
    /// Adds a value.
    pub fn push(&mut self, mono_us: u64, number: Option<f64>) {
        let mark = Mark::new(i32::try_from(mono_us / 1_000_000).unwrap_or(i32::MAX), number);
        if let Some(last) = self.numbers.back_mut()
            && last.step() == mark.step()
        {
            last.give_way(mark);
            // It is of this run now.
            self.past = self.past.min(self.numbers.len() - 1);
            return;
        }
        self.make_room();
        self.numbers.push_back(mark.into());
    }

    fn make_room(&mut self) {
        if self.numbers.len() >= TREND_NUMBERS {
            self.numbers.pop_front();
            self.past = self.past.saturating_sub(1);
        }
    }

    /// Begins a stretch that is older than all that is there.
    pub(super) fn begin_past(&mut self) {
        self.past = 0;
    }

    /// Adds a value to that stretch, in its order. One that is not older than what was there, or for which there is no room
    /// behind it, is let go; whether it was taken.
    pub(super) fn push_past(&mut self, at_s: i32, number: Option<f64>) -> bool {
        let mark = Mark::new(at_s, number);
        if self.numbers.get(self.past).is_some_and(|next| next.step() <= mark.step()) {
            return false;
        }
        if let Some(last) = self.past.checked_sub(1).and_then(|last| self.numbers.get_mut(last))
            && last.step() >= mark.step()
        {
            let same = last.step() == mark.step();
            if same {
                last.give_way(mark);
            }
            return same;
        }
        if !self.has_room() && self.past == 0 {
            return false;
        }
        self.make_room();
        self.numbers.insert(self.past, mark.into());
        self.past += 1;
        true
    }

    /// The stretch has begun to fill.
    pub(super) fn has_past(&self) -> bool {
        self.past > 0
    }

    /// It is not full.
    pub(super) fn has_room(&self) -> bool {
        self.numbers.len() < TREND_NUMBERS
    }

    /// Oldest first.
    pub fn marks(&self) -> impl ExactSizeIterator<Item = Mark> + '_ {
        self.numbers.iter().copied().map(Mark::from)
    }
}
