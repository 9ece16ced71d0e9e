//! Batches for the uplink's tests.

use std::sync::Arc;

use fieldspool_drivers::{Sample, Value, ValueKind};

use crate::model::{Batch, BootId, ClockQuality, PointMeta, Reading, RunId, Shape, Stamp};

/// The run of all sample batches.
pub(super) const RUN: RunId = RunId { counter: 17, random: 0x9f3c_2a10 };

/// A synced stamp: 2026-11-20T12:23:02.123456Z.
pub(super) fn stamp() -> Stamp {
    Stamp { wall_us: 1_795_177_382_123_456, mono_us: 7, boot: BootId(1), clock: ClockQuality::Synced }
}

/// Points of a device.
pub(super) fn shape(device: &str, points: &[(&str, ValueKind)]) -> Arc<Shape> {
    let point = |&(name, kind): &(&str, ValueKind)| PointMeta {
        name: name.into(),
        kind,
        unit: "V".into(),
        json_string: false,
    };
    Arc::new(Shape::new("plant7-gw1".into(), device.into(), points.iter().map(point).collect()))
}

/// A batch of `n` readings of one point each.
pub(super) fn batch(device: &str, seq: u64, n: u16) -> Arc<Batch> {
    let names: Vec<String> = (0..n).map(|i| format!("p{i}")).collect();
    let points: Vec<(&str, ValueKind)> = names.iter().map(|name| (name.as_str(), ValueKind::F64)).collect();
    Arc::new(Batch {
        run: RUN,
        seq,
        prev: None,
        stamp: stamp(),
        shape: shape(device, &points),
        readings: (0..n)
            .map(|point| Reading { point, sample: Sample::good(Value::F64(f64::from(point) + 0.5)) })
            .collect(),
    })
}
