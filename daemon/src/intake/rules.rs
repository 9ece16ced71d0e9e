//! Which samples become readings: each one, on change, and what a silent device sends.
//!
//! Bad is information, but a dead sensor is said on the edge and at each heartbeat, not at each poll.

use std::time::Duration;

use fieldspool_drivers::{Cause, Quality, Sample, Value};

/// When a sample of one point becomes a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `None`: each sample is a reading. `Some(deadband)`: only one that differs from the last reading by more than
    /// the deadband (in the point's unit, 0 for any change), or in quality.
    pub on_change: Option<f64>,
    /// Longest time between two readings of a point that is only sent on change, or that is silent.
    pub heartbeat: Duration,
}

/// What was last sent of a point, as far as its rule asks.
#[derive(Clone, Debug, Default)]
pub(super) struct PointState {
    last: Option<Sample>,
    at_us: u64,
}

impl Rule {
    /// The usual case: the sample is a reading, and there is nothing to take note of.
    pub(super) fn always_sends(&self, state: &PointState, sample: &Sample) -> bool {
        self.on_change.is_none() && state.last.is_none() && !is_gone(sample)
    }

    /// Takes note of a reading that was made. A point that is always sent only needs to know how it fell silent.
    pub(super) fn sent(&self, state: &mut PointState, sample: &Sample, mono_us: u64) {
        if self.on_change.is_some() || is_gone(sample) {
            *state = PointState { last: Some(sample.clone()), at_us: mono_us };
        } else if state.last.is_some() {
            *state = PointState::default();
        }
    }

    /// Whether this sample is worth a reading.
    pub(super) fn admits(&self, state: &PointState, sample: &Sample, mono_us: u64) -> bool {
        if self.on_change.is_none() && !is_gone(sample) {
            return true;
        }
        let Some(last) = &state.last else { return true };
        if sample.quality != last.quality {
            return true;
        }
        let heartbeat_us = u64::try_from(self.heartbeat.as_micros()).unwrap_or(u64::MAX);
        if mono_us.saturating_sub(state.at_us) >= heartbeat_us {
            return true;
        }
        match (&sample.value, &last.value) {
            (Some(new), Some(old)) => self.on_change.is_some_and(|deadband| differs(new, old, deadband)),
            (None, None) => false,
            _ => true,
        }
    }
}

/// There is nobody to ask.
fn is_gone(sample: &Sample) -> bool {
    matches!(sample.quality, Quality::Bad(Cause::Silent | Cause::LinkDown))
}

/// Whether two values are more than `deadband` apart. Integers are compared as integers, so that a change beyond
/// 2^53 is not lost.
fn differs(new: &Value, old: &Value, deadband: f64) -> bool {
    if new == old {
        return false;
    }
    if deadband <= 0.0 {
        return true;
    }
    match (new.as_f64(), old.as_f64()) {
        (Some(new), Some(old)) => (new - old).abs() > deadband,
        _ => true,
    }
}
