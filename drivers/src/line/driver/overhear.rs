//! Listening to an instrument that talks by itself: how long a poll waits for a sentence, and for the rest of a group.
//!
//! What is heard between polls counts, too, so a poll that is cut short, because another one is due, loses nothing: it is held, and goes
//! on where it was. It never waits longer for the rest of a group than half of the group's period.

use std::time::{Duration, Instant};

use super::{Driver, nothing, say_missing};
use crate::bus::{Outcome, Poll};
use crate::value::Cause;

/// A free-running instrument that is not silent yet, but has nothing new, is asked for again after this pause.
const COME_BACK: Duration = Duration::from_millis(200);

/// ... but sooner where its next sentence would overwrite the first, and not without any pause.
const COME_BACK_LEAST: Duration = Duration::from_millis(20);

/// A poll that ends so shortly before its time was not cut short: its deadline was taken a moment before it began.
const NEARLY: Duration = Duration::from_millis(10);

impl Driver {
    /// Takes the newest sentence, or waits for one.
    pub(super) async fn overhear(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        self.catch_up();
        let Some(instrument) = self.instruments.get(device) else { return nothing(Outcome::Silent) };
        let patience = instrument.heard_at + instrument.device.silent_after;
        let most = deadline.min(patience.max(Instant::now()));
        loop {
            let now = Instant::now();
            let Some(instrument) = self.instruments.get_mut(device) else { return nothing(Outcome::Silent) };
            let (mut limit, ears) = (most, &mut instrument.ears);
            if device < self.configured && ears.has_something(group, now) {
                limit = limit.min(ears.waits_until(group, self.link.timeout, now));
            } else if ears.is_complete(group, now) {
                break;
            }
            if now >= limit {
                break;
            }
            if !self.listen(None, limit).await {
                return self.down(device, group);
            }
        }
        let now = Instant::now();
        let Some(instrument) = self.instruments.get_mut(device) else { return nothing(Outcome::Silent) };
        let silent_at = instrument.heard_at + instrument.device.silent_after;
        let overdue_at = instrument.ears.overdue_at(group).unwrap_or(silent_at);
        let talks = now < silent_at;
        let something = instrument.ears.has_something(group, now) || instrument.ears.is_damaged(group);
        if !something && talks && now < overdue_at {
            instrument.ears.waits_no_more(group);
            let back = instrument.ears.rest(group, COME_BACK).max(COME_BACK_LEAST);
            return nothing(Outcome::Held { until: silent_at.min(overdue_at).min(now + back) });
        }
        // The poll was cut short because another one is due: the rest has its time all the same, heard between polls.
        if something && !instrument.ears.is_damaged(group) && talks && device < self.configured {
            let ends = instrument.ears.waits_until(group, self.link.timeout, now);
            if now + NEARLY < ends {
                return nothing(Outcome::Held { until: ends.min(silent_at).min(now + COME_BACK) });
            }
        }
        if talks {
            instrument.ears.listened(group, now);
            say_missing(&self.bus, instrument, group);
        }
        let taken = if talks && device < self.configured {
            instrument.ears.take_heard(group, now)
        } else {
            instrument.ears.take(group, now, Cause::Silent)
        };
        if !something && talks {
            // It says other things: that is an answer of the device, and none for these points.
            let outcome = Outcome::Answered { turnaround: Duration::ZERO };
            return Poll { samples: taken.samples, at: now, outcome, busy: Duration::ZERO };
        }
        // The line is in use while the instrument speaks, not while it is listened to.
        let spoken = u32::try_from(taken.bytes).unwrap_or(u32::MAX);
        let busy = self.link.port.character_time().saturating_mul(spoken);
        self.conclude(taken, Duration::ZERO, busy)
    }
}
