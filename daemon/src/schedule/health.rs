//! Whether a device answers, and when a silent one is probed next. Pure: it takes `now`; which group is polled or probed
//! is decided in [`due`](super::due).

use std::time::{Duration, Instant};

use fieldspool_drivers::bus::Outcome;

use super::due::Edge;

/// A device counts as silent after this many polls in a row without an answer: one lost frame is not an edge.
const SILENT_AFTER: u32 = 2;

/// Pauses between probes of one silent device grow from the first to the second.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A device that falls silent so soon after it began to answer comes and goes.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// So long the answer of one group says that its device is there, while another group is damaged: at first, and at most. The first
/// is somewhat more than a minute: a group that is polled each minute is not to be asked more often. It doubles, because a
/// group that is damaged for ever is no reason to read an hourly one each minute for ever.
pub(super) const ANSWER_COUNTS: (Duration, Duration) = (Duration::from_secs(70), Duration::from_secs(600));

/// What is known of one device.
#[derive(Clone, Debug)]
pub(super) struct Health {
    /// `None` before the first poll that says anything.
    pub(super) answering: Option<bool>,
    failures: u32,
    pause: Duration,
    /// When it is probed next, while it is silent.
    pub(super) probe_at: Instant,
    /// Probes that were not answered, or held: whose turn it is.
    pub(super) probes: usize,
    /// Since when it answers, or did last.
    since: Option<Instant>,
    /// When one of its groups was asked out of its turn last, and how long an answer counts since then.
    sought: Option<(Instant, Duration)>,
    /// Polls that were due and not made, not told yet.
    pub(super) missed: u64,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            answering: None,
            failures: 0,
            pause: PROBE_PAUSE.0,
            probe_at: now,
            probes: 0,
            since: None,
            sought: None,
            missed: 0,
        }
    }

    /// So long the answer of one of its groups counts while another is damaged.
    pub(super) fn answer_counts(&self, now: Instant) -> Duration {
        // Where none was sought for longer, what is damaged now is another fault.
        let lately = |(at, counts): &(Instant, Duration)| now.saturating_duration_since(*at) < *counts * 3;
        self.sought.filter(lately).map_or(ANSWER_COUNTS.0, |(_, counts)| counts)
    }

    /// The last one is too old, and another is sought.
    pub(super) fn seek(&mut self, now: Instant) {
        self.sought = Some((now, (self.answer_counts(now) * 2).min(ANSWER_COUNTS.1)));
    }

    /// Takes note of a poll; returns the edge, if there is one.
    pub(super) fn note(&mut self, outcome: &Outcome, now: Instant) -> Option<Edge> {
        match outcome {
            Outcome::Answered { .. } => {
                self.failures = 0;
                let edge = (self.answering.replace(true) != Some(true)).then_some(Edge::Answering);
                self.since = edge.map(|_| now).or(self.since);
                edge
            }
            Outcome::Silent | Outcome::Damaged if self.answering == Some(false) => {
                self.probes = self.probes.wrapping_add(1);
                self.probe_at = now + self.pause;
                self.pause = (self.pause * 2).min(PROBE_PAUSE.1);
                None
            }
            Outcome::Silent | Outcome::Damaged => {
                self.failures += 1;
                if self.failures < SILENT_AFTER {
                    return None;
                }
                self.answering = Some(false);
                // One that comes and goes is probed ever more seldom: each turn is a record and a line in the log.
                let comes_and_goes =
                    self.since.is_some_and(|at| now.saturating_duration_since(at) < SETTLED_AFTER);
                self.pause = if comes_and_goes { (self.pause * 2).min(PROBE_PAUSE.1) } else { PROBE_PAUSE.0 };
                self.probe_at = now + self.pause;
                Some(Edge::Silent)
            }
            // Says nothing about the device. A line that is down fails at once: without a pause the next probe would
            // follow without end.
            Outcome::LinkDown => {
                self.probe_at = self.probe_at.max(now + self.pause);
                None
            }
            Outcome::Held { .. } => None,
        }
    }
}
