//! How much backlog may be on its way at once: so little that a live reading never waits long behind it.
//!
//! The budget is what the measured acknowledgement rate carries in the shortest acknowledgement time seen on this
//! connection plus [`AHEAD`]: the first part is what fills the path, the second is the queue a live reading may find in
//! front of it. (With [`AHEAD`] alone, a path longer than that, a satellite's, could never fill: its rate would follow
//! its budget downwards.) It starts at one small message and grows with the rate, on any path.

use std::time::{Duration, Instant};

/// Longest queue of backlog in front of a live reading, as time.
pub(super) const AHEAD: Duration = Duration::from_millis(250);

/// Where the budget starts, and what it never falls below, bytes.
pub(super) const LEAST: usize = 4096;

/// The budget is spent on so many messages: a message is acknowledged only when its last byte has arrived, so with one
/// or two at a time a long path would idle.
const MESSAGES: usize = 4;

/// The rate of acknowledgements on one connection.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; 0 before the first acknowledgement.
    rate: f64,
    /// Shortest time from publish to PUBACK.
    shortest: Option<Duration>,
    /// Acknowledged bytes so far, and when that was last so.
    delivered: u64,
    delivered_at: Instant,
}

/// Taken along by a message in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    sent_at: Instant,
    delivered: u64,
    delivered_at: Instant,
    /// The budget was what held further backlog back: a rate that is lower than expected is then the path's.
    filled: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate: 0.0, shortest: None, delivered: 0, delivered_at: now }
    }

    /// A message goes out; `alone`: nothing else is in flight; `filled`: it fills the budget.
    pub(super) fn sent(&mut self, now: Instant, alone: bool, filled: bool) -> Mark {
        if alone {
            self.delivered_at = now;
        }
        Mark { sent_at: now, delivered: self.delivered, delivered_at: self.delivered_at, filled }
    }

    /// It was acknowledged.
    pub(super) fn acked(&mut self, now: Instant, bytes: usize, mark: &Mark) {
        self.delivered += bytes as u64;
        self.delivered_at = now;
        let took = now.saturating_duration_since(mark.sent_at);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        // Rate over the time since the last acknowledgement before this message was sent.
        let over = now.saturating_duration_since(mark.delivered_at).max(Duration::from_micros(10));
        let sample = (self.delivered - mark.delivered) as f64 / over.as_secs_f64();
        if sample >= self.rate {
            self.rate = sample;
        } else if mark.filled {
            self.rate += (sample - self.rate) / 8.0;
        }
    }

    /// Bytes of backlog that may be unacknowledged.
    pub(super) fn budget(&self) -> usize {
        let over = self.shortest.unwrap_or_default() + AHEAD;
        let bytes = self.rate * over.as_secs_f64();
        // A cast from float saturates; a window's worth of messages is far below.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = bytes as usize;
        bytes.max(LEAST)
    }

    /// Size of a backlog message, bytes, where its batches allow: a quarter of the budget, at most `most`.
    pub(super) fn message(&self, most: usize) -> usize {
        (self.budget() / MESSAGES).min(most)
    }

    /// Whether another backlog message may follow `behind` unacknowledged bytes.
    pub(super) fn allows(&self, behind: usize, most: usize) -> bool {
        behind == 0 || behind + self.message(most) <= self.budget()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of so many bytes a second with a fixed delay, kept as full as the budget allows for a minute: the rate
    /// reached, and the longest that a live message would have waited behind backlog.
    fn drain(bytes_per_second: f64, delay: Duration) -> (f64, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace::new(now);
        let mut flight = std::collections::VecDeque::new();
        let mut line_free = now;
        let (mut in_flight, mut total, mut longest) = (0, 0, Duration::ZERO);
        while now.duration_since(start) < Duration::from_secs(60) {
            while pace.allows(in_flight, 65_536) {
                let size = pace.message(65_536);
                let mark = pace.sent(now, in_flight == 0, !pace.allows(in_flight + size, 65_536));
                line_free = line_free.max(now) + Duration::from_secs_f64(size as f64 / bytes_per_second);
                longest = longest.max(line_free.duration_since(now));
                flight.push_back((line_free + delay, size, mark));
                in_flight += size;
            }
            let (at, size, mark) = flight.pop_front().unwrap();
            now = at;
            pace.acked(now, size, &mark);
            in_flight -= size;
            total += size;
        }
        (total as f64 / 60.0, longest)
    }

    #[test]
    fn any_path_is_filled_and_no_live_reading_waits_long() {
        for (rate, delay) in [(8e3, 300), (8e3, 600), (125e3, 600), (1.25e6, 50), (125e6, 1)] {
            let (reached, longest) = drain(rate, Duration::from_millis(delay));
            assert!(reached > rate * 0.7, "{rate} B/s, {delay} ms: {reached}");
            let bound =
                Duration::from_millis(delay) + AHEAD * 2 + Duration::from_secs_f64(LEAST as f64 * 2.0 / rate);
            assert!(longest <= bound, "{rate} B/s, {delay} ms: {longest:?}");
        }
    }

    #[test]
    fn a_link_that_slows_down_lowers_the_budget() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..20 {
            let mark = pace.sent(now, true, true);
            now += Duration::from_millis(10);
            pace.acked(now, 65_536, &mark);
        }
        let before = pace.budget();
        for _ in 0..40 {
            let mark = pace.sent(now, true, true);
            now += Duration::from_secs(1);
            pace.acked(now, 8_192, &mark);
        }
        assert!(before > 1_000_000 && pace.budget() < 20_000, "{before} {}", pace.budget());
    }
}
