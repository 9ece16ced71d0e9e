//! What a technician wants to know of a bus: how busy the line is, how long devices take, what went wrong.
//!
//! Bounded: one bin a second of the last minute for the load, the last [`TURNAROUNDS`] answers of each device.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fieldspool_drivers::bus::{Bus, Counters, Outcome, Poll};
use fieldspool_drivers::{Cause, Sample};

use crate::schedule::due::Due;
use crate::schedule::usable::{Turn, Usable};
use crate::status::{Board, BusStatus};

/// Answers remembered for median and 99th percentile of a device's turnaround.
const TURNAROUNDS: usize = 100;

/// Turnarounds are sorted for the board with each of the first polls, so many, ...
const SORT_EACH: u8 = 10;

/// ... and then so often: it is dearer than all else that is shown of a bus, and a hundred answers move slowly.
const SORT_EVERY: Duration = Duration::from_secs(10);

/// The minute over which the load is taken, in one-second bins.
const BINS: usize = 60;

#[derive(Debug)]
struct DeviceGauge {
    turnarounds_us: VecDeque<u64>,
    polls: u64,
    error: Option<String>,
    /// The last poll brought something, but no answer.
    misheard: bool,
    usable: Usable,
    /// When turnarounds were last sorted for the board, and the polls then.
    sorted: Option<(Instant, u64)>,
}

/// The gauges of one bus.
#[derive(Debug)]
pub(super) struct Gauges {
    devices: Vec<DeviceGauge>,
    busy: [Duration; BINS],
    bin: usize,
    bin_began: Instant,
    began: Instant,
    /// Index of the bus on the board.
    bus: usize,
}

impl Gauges {
    /// `points`: how many are polled of each device.
    pub(super) fn new(bus: usize, points: &[usize], now: Instant) -> Self {
        let devices = points.iter().map(|&points| DeviceGauge::new(points)).collect();
        Self { devices, busy: [Duration::ZERO; BINS], bin: 0, bin_began: now, began: now, bus }
    }

    /// `strange`: frames that were no answer came during the poll.
    pub(super) fn polled(&mut self, device: usize, poll: &Poll, strange: bool, now: Instant) {
        self.roll(now);
        if let Some(busy) = self.busy.get_mut(self.bin) {
            *busy += poll.busy;
        }
        let Some(gauge) = self.devices.get_mut(device) else { return };
        if let Outcome::Held { .. } = poll.outcome {
            return;
        }
        let strange = strange || poll.outcome == Outcome::Damaged;
        gauge.misheard = strange && matches!(poll.outcome, Outcome::Silent | Outcome::Damaged);
        match poll.outcome {
            Outcome::Held { .. } => {}
            Outcome::Answered { turnaround } => {
                // Who talks without being asked has no answer time.
                if !turnaround.is_zero() {
                    gauge.answered(turnaround);
                }
                gauge.error = None;
            }
            Outcome::Silent | Outcome::Damaged => gauge.error = Some(silence(&poll.samples, strange)),
            Outcome::LinkDown => gauge.error = Some("the line is down".to_owned()),
        }
        gauge.polls += 1;
    }

    /// What the samples of a poll say about the points of a device that counts as answering; `again`: since now.
    pub(super) fn judge(&mut self, device: usize, poll: &Poll, again: bool) -> Option<Turn> {
        let usable = &mut self.devices.get_mut(device)?.usable;
        if again {
            usable.forget_silence();
        }
        usable.take(&poll.samples)
    }

    /// Writes the bus's section of the board.
    pub(super) fn show(&mut self, bus: &Bus, due: &Due, board: &Board, now: Instant) {
        self.roll(now);
        let load = self.load(now);
        let counters = bus.counters();
        board.update(|status| {
            let Some(shown) = status.buses.get_mut(self.bus) else { return };
            shown.up = bus.is_up();
            shown.error = counters.last_error.as_deref().filter(|_| !bus.is_up()).map(str::to_owned);
            shown.load = load;
            shown.counters = counters.into();
            self.show_devices(shown, due, now);
        });
    }

    fn show_devices(&mut self, shown: &mut BusStatus, due: &Due, now: Instant) {
        for (index, (gauge, device)) in self.devices.iter_mut().zip(&mut shown.devices).enumerate() {
            device.polls = gauge.polls;
            if gauge.sorts(now) {
                device.turnaround_us = gauge.percentiles();
            }
            device.error.clone_from(&gauge.error);
            device.misheard = gauge.misheard;
            gauge.usable.show(device);
            if due.is_silent(index) {
                device.answering = Some(false);
            }
        }
    }

    /// Share of the last minute (of the time since the start, if that is less) in which the line was in use.
    fn load(&self, now: Instant) -> f64 {
        let minute = Duration::from_secs(BINS as u64);
        let seen = now.saturating_duration_since(self.began).min(minute).as_secs_f64();
        let busy: Duration = self.busy.iter().sum();
        if seen < 1.0 { 0.0 } else { (busy.as_secs_f64() / seen).min(1.0) }
    }

    /// Opens new bins for the seconds that passed.
    fn roll(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.bin_began).as_secs();
        for _ in 0..passed.min(BINS as u64) {
            self.bin = (self.bin + 1) % BINS;
            if let Some(bin) = self.busy.get_mut(self.bin) {
                *bin = Duration::ZERO;
            }
        }
        self.bin_began += Duration::from_secs(passed);
    }
}

/// Frames so far that were no answer to what was asked.
pub(super) fn strange(counters: &Counters) -> u64 {
    counters.foreign_frames + counters.bad_frames + counters.crc_errors
}

/// Why a poll without a believed answer had none.
fn silence(samples: &[(u16, Sample)], strange: bool) -> String {
    let gateway = |code: &u8| samples.iter().any(|(_, s)| *s == Sample::bad(Cause::Exception(*code)));
    match [10, 11].iter().find(|code| gateway(code)) {
        Some(code) => format!("the gateway in between does not reach it (exception {code})"),
        None if strange => "something answers, but not what was asked".to_owned(),
        None => "no answer in time".to_owned(),
    }
}

impl DeviceGauge {
    fn new(points: usize) -> Self {
        Self {
            turnarounds_us: VecDeque::new(),
            polls: 0,
            error: None,
            misheard: false,
            usable: Usable::new(points),
            sorted: None,
        }
    }

    /// Keeps the newest turnarounds.
    fn answered(&mut self, turnaround: Duration) {
        if self.turnarounds_us.len() >= TURNAROUNDS {
            self.turnarounds_us.pop_front();
        }
        self.turnarounds_us.push_back(u64::try_from(turnaround.as_micros()).unwrap_or(u64::MAX));
    }

    /// Whether it is time to sort; takes note of it.
    fn sorts(&mut self, now: Instant) -> bool {
        let few = self.polls <= u64::from(SORT_EACH);
        let due = match self.sorted {
            None => self.polls > 0,
            Some((at, polls)) => {
                self.polls != polls && (few || now.saturating_duration_since(at) >= SORT_EVERY)
            }
        };
        if due {
            self.sorted = Some((now, self.polls));
        }
        due
    }

    /// Median and 99th percentile, µs.
    fn percentiles(&self) -> Option<(u64, u64)> {
        let mut sorted: Vec<u64> = self.turnarounds_us.iter().copied().collect();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get((sorted.len().saturating_sub(1)) * share / 100).copied();
        Some((at(50)?, at(99)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(busy_ms: u64, turnaround_us: u64) -> Poll {
        let outcome = Outcome::Answered { turnaround: Duration::from_micros(turnaround_us) };
        Poll { samples: Vec::new(), at: Instant::now(), outcome, busy: Duration::from_millis(busy_ms) }
    }

    #[test]
    fn the_load_is_that_of_the_last_minute() {
        let start = Instant::now();
        let mut gauges = Gauges::new(0, &[1], start);
        for second in 0..60 {
            gauges.polled(0, &poll(500, 1), false, start + Duration::from_secs(second));
        }
        let minute = start + Duration::from_secs(60);
        gauges.roll(minute);
        assert!((gauges.load(minute) - 0.5).abs() < 0.02, "{}", gauges.load(minute));
        let later = start + Duration::from_secs(300);
        gauges.roll(later);
        assert!(gauges.load(later).abs() < 1e-9, "nothing happened for four minutes");
    }

    #[test]
    fn turnarounds_are_shown_as_median_and_worst_of_a_hundred() {
        let start = Instant::now();
        let mut gauges = Gauges::new(0, &[1], start);
        for turnaround in 1..=250 {
            gauges.polled(0, &poll(1, turnaround), false, start);
        }
        assert_eq!(gauges.devices[0].percentiles(), Some((200, 249)), "of the last hundred, 151 to 250");
        assert_eq!(gauges.devices[0].polls, 250);
    }

    #[test]
    fn who_talks_without_being_asked_has_no_answer_time() {
        let start = Instant::now();
        let mut gauges = Gauges::new(0, &[1], start);
        (0..10).for_each(|_| gauges.polled(0, &poll(1, 0), false, start));
        assert_eq!((gauges.devices[0].percentiles(), gauges.devices[0].polls), (None, 10));
    }

    #[test]
    fn turnarounds_are_sorted_for_the_board_at_once_at_first_and_then_every_ten_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut gauge = DeviceGauge::new(1);
        assert!(!gauge.sorts(at(0)), "nothing to show");
        for second in 1..=u64::from(SORT_EACH) {
            gauge.polls += 1;
            assert!(gauge.sorts(at(second)), "answer {second}");
        }
        assert!(!gauge.sorts(at(11)), "no news");
        let later: Vec<u64> = (11..40)
            .filter(|&second| {
                gauge.polls += 1;
                gauge.sorts(at(second))
            })
            .collect();
        assert_eq!(later, [20, 30]);
        let mut fast = DeviceGauge { polls: 45, ..DeviceGauge::new(1) };
        assert!(fast.sorts(at(1)), "many answers before the first look");
    }

    #[test]
    fn what_answers_something_else_is_not_called_no_answer() {
        let start = Instant::now();
        let mut gauges = Gauges::new(0, &[1], start);
        let said = |gauges: &mut Gauges, sample, strange| {
            let samples = vec![(0, Sample::bad(sample))];
            let poll = Poll { samples, outcome: Outcome::Silent, ..poll(1, 1) };
            gauges.polled(0, &poll, strange, start);
            (gauges.devices[0].error.clone().unwrap_or_default(), gauges.devices[0].misheard)
        };
        assert_eq!(said(&mut gauges, Cause::Silent, false), ("no answer in time".to_owned(), false));
        let (words, misheard) = said(&mut gauges, Cause::BadFrame, true);
        assert!(misheard && words.contains("not what was asked"), "{words}");
        let damaged = Poll { outcome: Outcome::Damaged, ..poll(1, 1) };
        gauges.polled(0, &damaged, false, start);
        assert!(gauges.devices[0].misheard, "damage is something, also where no counter says so");
        let (words, _) = said(&mut gauges, Cause::Exception(11), false);
        assert!(words.contains("gateway in between"), "{words}");
        gauges.polled(0, &poll(1, 1), true, start);
        assert!(!gauges.devices[0].misheard, "noise before an answer is the bus's trouble");
    }
}
