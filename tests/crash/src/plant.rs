//! A plant whose values prove where and when they came from: each is a hash of device, register and a counter that never
//! returns, so that a reading which is another's, or an older one's, cannot pass for the right one.

use std::sync::Arc;

use fieldspool::model::{Batch, BootId, ClockQuality, PointMeta, Reading, RunId, Shape, Stamp};
use fieldspool_drivers::{Sample, Value, ValueKind};

/// The boot of all lives.
pub const BOOT: BootId = BootId(0x0dd_b00f);

/// Wall clock at the beginning of virtual time, µs.
const BEGINNING_US: i64 = 1_795_000_000_000_000;

/// The stamp of a virtual time, µs.
pub fn stamp(at_us: u64) -> Stamp {
    let wall_us = BEGINNING_US + i64::try_from(at_us).unwrap_or_default();
    Stamp { wall_us, mono_us: at_us, boot: BOOT, clock: ClockQuality::Synced }
}

/// What is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Two numbers.
    Meter,
    /// Forty numbers.
    Analyser,
    /// Ten texts of 250 bytes.
    Scale,
}

/// Numbers batches, and remembers what each was.
#[derive(Clone, Debug)]
pub struct Plant {
    shapes: [Arc<Shape>; 3],
    counter: u64,
}

impl Default for Plant {
    fn default() -> Self {
        let shape = |device: &str, kind: ValueKind, points: usize| {
            let point = |at: usize| PointMeta {
                name: format!("p{at}").into(),
                kind,
                unit: "V".into(),
                json_string: false,
            };
            Arc::new(Shape::new("plant7-gw1".into(), device.into(), (0..points).map(point).collect()))
        };
        let shapes = [
            shape("meter", ValueKind::Uint, 2),
            shape("analyser", ValueKind::Uint, 40),
            shape("scale", ValueKind::Text, 10),
        ];
        Self { shapes, counter: 0 }
    }
}

impl Plant {
    /// One poll of a device.
    pub fn poll(&mut self, device: Device, run: RunId, seq: u64, at_us: u64) -> Arc<Batch> {
        self.counter += 1;
        let shape = &self.shapes[device as usize];
        let reading = |register: u16| {
            let proof = hash(device as u64, u64::from(register), self.counter);
            let value = match device {
                Device::Scale => Value::Text(text(proof).into()),
                _ => Value::Uint(proof),
            };
            Reading { point: register, sample: Sample::good(value) }
        };
        let points = u16::try_from(shape.points.len()).expect("few");
        let readings = (0..points).map(reading).collect();
        Arc::new(Batch { run, seq, prev: None, stamp: stamp(at_us), shape: shape.clone(), readings })
    }
}

/// SplitMix64's last step over the three.
fn hash(device: u64, register: u64, counter: u64) -> u64 {
    let mut x = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (device << 32 | register);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 250 letters that do not pack.
fn text(proof: u64) -> String {
    let mut state = proof;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from(state >> 59).expect("five bits") % 26)
    };
    (0..250).map(|_| next()).collect()
}
