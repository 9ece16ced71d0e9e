//! The small curve beside a value: at most 120 numbers, one every 5 s or with each poll, whichever is rarer.

use std::collections::VecDeque;

/// Numbers in a trend: 10 min of a fast point, two hours of one polled each minute.
pub const TREND_NUMBERS: usize = 120;

/// Points that have one: headline points first, then the others in the configuration's order.
pub const TRENDS_MAX: usize = 500;

const STEP_S: u32 = 5;

/// The step of a trend in which a moment lies, CLOCK_BOOTTIME, µs.
pub(super) fn step(mono_us: u64) -> u64 {
    mono_us / 1_000_000 / u64::from(STEP_S)
}

/// A short past of one point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trend {
    numbers: VecDeque<Mark>,
}

/// One number of a trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// CLOCK_BOOTTIME, s.
    pub at_s: u32,
    /// `None`: there was no value, and the curve has a hole.
    pub number: Option<f32>,
}

impl Trend {
    /// Adds a value. Within one step the newest counts, except that a missing value stays: it is news.
    pub fn push(&mut self, mono_us: u64, number: Option<f64>) {
        let at_s = u32::try_from(mono_us / 1_000_000).unwrap_or(u32::MAX);
        #[allow(clippy::cast_possible_truncation)] // a curve 30 pixels high
        let number = number.map(|number| number as f32).filter(|number| number.is_finite());
        if let Some(last) = self.numbers.back_mut()
            && last.at_s / STEP_S == at_s / STEP_S
        {
            if last.number.is_some() {
                *last = Mark { at_s, number };
            }
            return;
        }
        if self.numbers.len() >= TREND_NUMBERS {
            self.numbers.pop_front();
        }
        self.numbers.push_back(Mark { at_s, number });
    }

    /// Oldest first.
    pub fn marks(&self) -> impl ExactSizeIterator<Item = Mark> + '_ {
        self.numbers.iter().copied()
    }
}
