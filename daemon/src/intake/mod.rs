//! From samples to batches: what is worth a reading, its number, its stamp.
//!
//! Here a sample becomes a reading. Intake decides which samples are sent (each one, on change, or at the heartbeat),
//! cuts a poll into batches, numbers them (`seq`, and `prev` for the device), stamps them, and hands each batch to
//! the spool, to the live lane and to the viewers. It never waits for any of them (P7): all three have their own
//! bounded memory and their own rule for "full".
//!
//! [`Intake`] is the pure part: samples and a stamp in, batches out. [`task`] moves them.

mod rules;
pub mod task;

use std::collections::HashMap;
use std::sync::Arc;

use fieldspool_drivers::{Sample, Value};

use crate::model::{BATCH_BYTES_MAX, BATCH_READINGS_MAX, Batch, Reading, Readings, RunId, Shape, Stamp};
use rules::PointState;
pub use rules::Rule;

/// A device as intake knows it.
#[derive(Clone, Debug)]
pub struct Device {
    /// What its batches are read with.
    pub shape: Arc<Shape>,
    /// When a sample becomes a reading; one for each point of the shape.
    pub rules: Vec<Rule>,
}

/// The numbering of one run.
#[derive(Debug)]
pub struct Intake {
    run: RunId,
    next_seq: u64,
    /// By bus, by device; as the schedule names them.
    devices: Vec<Vec<Known>>,
    /// `seq` of each device's newest batch; by name, so that it outlives a reload.
    newest: HashMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Known {
    device: Device,
    points: Vec<PointState>,
}

impl Intake {
    /// Begins a run at seq 0.
    pub fn new(run: RunId) -> Self {
        Self { run, next_seq: 0, devices: Vec::new(), newest: HashMap::new() }
    }

    /// Takes the devices of a (new) configuration, by bus. A device that kept its shape and rules keeps what was last
    /// sent of it; numbers and `prev` go on in any case.
    pub fn describe(&mut self, buses: Vec<Vec<Device>>) {
        let mut before: HashMap<Arc<str>, Known> =
            self.devices.drain(..).flatten().map(|k| (k.device.shape.device.clone(), k)).collect();
        let known = |device: Device| match before.remove(&device.shape.device) {
            Some(old) if old.device.shape == device.shape && old.device.rules == device.rules => old,
            _ => Known { points: vec![PointState::default(); device.rules.len()], device },
        };
        let mut known = known;
        self.devices =
            buses.into_iter().map(|devices| devices.into_iter().map(&mut known).collect()).collect();
    }

    /// The next number; equally, how many readings this run has numbered.
    pub fn numbered(&self) -> u64 {
        self.next_seq
    }

    /// The name of a device, for records about it.
    pub fn device_name(&self, bus: usize, device: usize) -> Option<&Arc<str>> {
        Some(&self.devices.get(bus)?.get(device)?.device.shape.device)
    }

    /// Turns what a poll brought into batches, in order. Empty when nothing in it is worth a reading.
    pub fn take(
        &mut self,
        bus: usize,
        device: usize,
        samples: Vec<(u16, Sample)>,
        stamp: Stamp,
    ) -> Vec<Arc<Batch>> {
        let Some(known) = self.devices.get_mut(bus).and_then(|b| b.get_mut(device)) else {
            return Vec::new();
        };
        let readings = known.worth_sending(samples, stamp.mono_us);
        let shape = known.device.shape.clone();
        cut(readings).into_iter().map(|readings| self.number(&shape, stamp, readings)).collect()
    }

    fn number(&mut self, shape: &Arc<Shape>, stamp: Stamp, readings: Readings) -> Arc<Batch> {
        let seq = self.next_seq;
        self.next_seq += readings.len() as u64;
        let prev = match self.newest.get_mut(&shape.device) {
            Some(newest) => Some(std::mem::replace(newest, seq)),
            None => self.newest.insert(shape.device.clone(), seq),
        };
        Arc::new(Batch { run: self.run, seq, prev, stamp, shape: shape.clone(), readings })
    }
}

impl Known {
    fn worth_sending(&mut self, samples: Vec<(u16, Sample)>, mono_us: u64) -> Readings {
        let worth = |(point, sample): (u16, Sample)| {
            let index = usize::from(point);
            let (rule, state) = (self.device.rules.get(index)?, self.points.get_mut(index)?);
            if !rule.always_sends(state, &sample) {
                if !rule.admits(state, &sample, mono_us) {
                    return None;
                }
                rule.sent(state, &sample, mono_us);
            }
            Some(Reading { point, sample })
        };
        // In place: a list of samples becomes one of readings.
        samples.into_iter().filter_map(worth).collect::<Vec<_>>().into()
    }
}

/// Cuts readings into stretches within the limits of a batch. A single reading is below both limits by construction:
/// texts are at most 256 bytes.
fn cut(readings: Readings) -> Vec<Readings> {
    if readings.is_empty() {
        return Vec::new();
    }
    if readings.len() <= BATCH_READINGS_MAX
        && readings.len() * SIZE_MAX + readings.text_bytes() <= BATCH_BYTES_MAX
    {
        return vec![readings];
    }
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut piece_bytes = 0;
    for reading in readings.into_list() {
        let bytes = size(&reading);
        if piece.len() >= BATCH_READINGS_MAX || piece_bytes + bytes > BATCH_BYTES_MAX {
            pieces.push(std::mem::take(&mut piece).into());
            piece_bytes = 0;
        }
        piece_bytes += bytes;
        piece.push(reading);
    }
    pieces.push(piece.into());
    pieces
}

/// The most that [`size`] gives, without the text.
const SIZE_MAX: usize = 10;

/// The value's own size and its quality, in bytes.
fn size(reading: &Reading) -> usize {
    let value = match &reading.sample.value {
        None => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::F32(_)) => 4,
        Some(Value::Int(_) | Value::Uint(_) | Value::F64(_)) => 8,
        Some(Value::Text(text)) => 2 + text.len(),
    };
    value + 2
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
