//! The newest values: what is kept of them, for whom, and how little.

use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::{Cause, Sample, Value, ValueKind};
use proptest::prelude::*;

use super::*;
use crate::model::{BootId, ClockQuality, PointMeta, Reading};

pub(crate) const RUN: RunId = RunId { counter: 17, random: 0x9f3c_2a10 };

pub(crate) fn info(device: &str, points: &[&str]) -> DeviceInfo {
    let point = |(i, name): (usize, &&str)| PointInfo {
        name: Arc::from(*name),
        kind: ValueKind::F32,
        json_string: false,
        label: Arc::from(""),
        unit: Arc::from("V"),
        decimals: Some(1),
        headline: i == 0,
        period: Some(Duration::from_secs(1)),
    };
    DeviceInfo {
        device: Arc::from(device),
        bus: Arc::from("hall"),
        label: Arc::from("Compressor 2"),
        points: points.iter().enumerate().map(point).collect(),
    }
}

pub(crate) fn shape(device: &str, points: &[&str]) -> Arc<Shape> {
    let meta = |name: &&str| PointMeta {
        name: Arc::from(*name),
        kind: ValueKind::F32,
        unit: Arc::from("V"),
        json_string: false,
    };
    Arc::new(Shape::new(Arc::from("plant7-gw1"), Arc::from(device), points.iter().map(meta).collect()))
}

pub(crate) fn batch(shape: &Arc<Shape>, run: RunId, seq: u64, at_s: u64, values: &[f32]) -> Arc<Batch> {
    let reading = |(i, value): (usize, &f32)| Reading {
        point: u16::try_from(i).expect("few"),
        sample: if value.is_nan() { Sample::bad(Cause::Silent) } else { Sample::good(Value::F32(*value)) },
    };
    Arc::new(Batch {
        run,
        seq,
        prev: None,
        stamp: Stamp {
            wall_us: 1_800_000_000_000_000 + i64::try_from(at_s).expect("small") * 1_000_000,
            mono_us: at_s * 1_000_000,
            boot: BootId(7),
            clock: ClockQuality::Synced,
        },
        shape: Arc::clone(shape),
        readings: values.iter().enumerate().map(reading).collect(),
    })
}

fn value(live: &Live, device: usize, point: usize) -> Option<Value> {
    live.read(|plant| plant.devices[device].latest[point].clone()?.sample.value)
}

#[test]
fn the_newest_value_of_each_point_is_kept() {
    let live = Live::new();
    live.describe(vec![info("a", &["u", "i"]), info("b", &["p"])]);
    let (a, b) = (shape("a", &["u", "i"]), shape("b", &["p"]));
    live.offer(&batch(&a, RUN, 0, 1, &[1.0, 2.0]));
    live.offer(&batch(&b, RUN, 2, 1, &[9.0]));
    live.offer(&batch(&a, RUN, 3, 2, &[f32::NAN, 3.0]));
    assert_eq!(value(&live, 0, 0), None, "a missing value is news");
    assert_eq!(value(&live, 0, 1), Some(Value::F32(3.0)));
    assert_eq!(value(&live, 1, 0), Some(Value::F32(9.0)));
}

#[test]
fn a_reload_keeps_the_values_of_points_that_stay_and_follows_their_new_places() {
    let live = Live::new();
    live.describe(vec![info("a", &["u", "i"])]);
    let before = shape("a", &["u", "i"]);
    live.offer(&batch(&before, RUN, 0, 1, &[1.0, 2.0]));
    live.describe(vec![info("b", &["p"]), info("a", &["x", "i", "u"])]);
    assert_eq!(value(&live, 1, 2), Some(Value::F32(1.0)));
    assert_eq!(value(&live, 1, 0), None);
    live.offer(&batch(&before, RUN, 2, 2, &[5.0, 6.0]));
    assert_eq!(value(&live, 1, 2), Some(Value::F32(5.0)), "a batch of the old shape still finds its points");
    assert_eq!(value(&live, 1, 1), Some(Value::F32(6.0)));
    live.offer(&batch(&shape("gone", &["u"]), RUN, 4, 2, &[5.0]));
}

#[test]
fn what_came_since_a_position_has_no_hole_and_a_position_too_old_is_said() {
    let live = Live::new();
    let a = shape("a", &["u"]);
    live.describe(vec![info("a", &["u"])]);
    let _viewer = live.watch();
    for seq in 0..200 {
        live.offer(&batch(&a, RUN, seq, seq, &[1.0]));
    }
    let at = |seq| Position { run: RUN, seq };
    let mut next = at(150);
    let mut seen = Vec::new();
    while let Since::Batches(batches, Some(position)) = live.since(next, 300) {
        seen.extend(batches.iter().map(|batch| batch.seq));
        next = position;
    }
    assert_eq!(seen, (150..200).collect::<Vec<_>>());
    assert!(matches!(live.since(at(100), 300), Since::Hole(Hole::TooOld)), "60 s are kept, not 100");
    assert!(matches!(live.since(at(201), 300), Since::Hole(Hole::TooOld)), "not ours");
    let other = Position { run: RunId { counter: 16, random: 1 }, seq: 190 };
    assert!(matches!(live.since(other, 300), Since::Hole(Hole::Restarted)));
}

#[test]
fn without_a_viewer_for_a_minute_nothing_is_kept_but_the_newest_values() {
    let live = Live::new();
    let a = shape("a", &["u"]);
    live.describe(vec![info("a", &["u"])]);
    let held = |live: &Live| live.read(|plant| plant.ring.bytes());
    live.offer(&batch(&a, RUN, 0, 0, &[1.0]));
    assert!(held(&live) > 0, "a viewer of the run before may come back");
    live.offer(&batch(&a, RUN, 1, 61, &[1.0]));
    assert_eq!(held(&live), 0);
    let viewer = live.watch();
    live.offer(&batch(&a, RUN, 2, 62, &[1.0]));
    assert!(held(&live) > 0);
    drop(viewer);
    live.offer(&batch(&a, RUN, 3, 100, &[1.0]));
    assert!(held(&live) > 0, "its phone may only have fallen asleep");
    live.offer(&batch(&a, RUN, 4, 123, &[1.0]));
    assert_eq!(held(&live), 0);
    assert_eq!(live.watching(), 0);
}

#[test]
fn ten_thousand_points_stay_small() {
    let live = Live::new();
    let names: Vec<String> = (0..1000).map(|i| format!("p{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    live.describe((0..10).map(|d| info(&format!("d{d}"), &names)).collect());
    let _viewer = live.watch();
    let values = vec![1.0; 500];
    let mut seq = 0;
    for second in 0..30 {
        for device in 0..10 {
            let shape = shape(&format!("d{device}"), &names);
            live.offer(&batch(&shape, RUN, seq, second, &values));
            seq += 500;
        }
    }
    live.read(|plant| {
        assert!(plant.ring.bytes() <= ring::KEPT_BYTES);
        let trends = plant.devices.iter().flat_map(|d| d.trends.iter().flatten()).count();
        assert_eq!(trends, TRENDS_MAX);
        let point = size_of::<Option<Latest>>() + size_of::<Option<Trend>>() + size_of::<PointInfo>();
        assert!(point <= 224, "{point} bytes a point");
    });
}

#[test]
fn a_trend_is_bounded_and_keeps_its_holes() {
    let mut trend = Trend::default();
    for second in 0..10_000_u64 {
        trend.push(second * 1_000_000, (second % 1000 != 17).then_some(second as f64));
    }
    assert_eq!(trend.marks().len(), trend::TREND_NUMBERS);
    assert_eq!(trend.marks().filter(|mark| mark.number.is_none()).count(), 0);
    trend.push(10_000_000_000, None);
    trend.push(10_001_000_000, Some(1.0));
    let last = trend.marks().last().expect("not empty");
    assert_eq!(last.number, None, "one silence within the step stays visible");
}

proptest! {
    /// What this run read stays as it is, whatever is filled in before it, and whenever.
    #[test]
    fn stored_marks_only_ever_come_before_those_of_this_run(
        marks in prop::collection::vec((0_u8..8, -900_i32..400, any::<bool>()), 1..600),
    ) {
        let (mut trend, mut alone, mut at_s) = (Trend::default(), Trend::default(), 0_u64);
        for (what, past_s, hole) in marks {
            match what {
                0 => trend.begin_past(),
                1..=2 => {
                    at_s += u64::from(what) * 3;
                    let number = (!hole).then_some(1.0);
                    trend.push(at_s * 1_000_000, number);
                    alone.push(at_s * 1_000_000, number);
                }
                _ => {
                    trend.push_past(past_s.min(0), (!hole).then_some(-1.0));
                }
            }
            let (all, own): (Vec<_>, Vec<_>) = (trend.marks().collect(), alone.marks().collect());
            prop_assert!(all.len() <= trend::TREND_NUMBERS);
            prop_assert!(all.is_sorted_by(|a, b| a.at_s.div_euclid(5) < b.at_s.div_euclid(5)));
            // Only within the step in which it began may the run have taken the place of a stored mark that was news.
            let from = usize::from(own.first().is_some_and(|first| first.at_s < 5));
            prop_assert!(all.ends_with(&own[from.min(own.len())..]), "{all:?} {own:?}");
        }
    }
}

#[test]
fn a_position_reads_back() {
    let position = Position { run: RUN, seq: 48_210 };
    assert_eq!(position.to_string(), "00000017-9f3c2a10:48210");
    assert_eq!(position.to_string().parse(), Ok(position));
    for text in ["", ":", "00000017-9f3c2a10", "00000017-9f3c2a10:", "00000017-9f3c2a10:+1", "x:1"] {
        assert!(text.parse::<Position>().is_err(), "{text}");
    }
}

proptest! {
    /// Batches that are overtaken are let go unseen: nobody may be able to tell.
    #[test]
    fn whoever_looks_seldom_sees_the_same_as_whoever_looks_after_each_batch(
        polls in prop::collection::vec((0_usize..4, 0_usize..4, 0_u64..4, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let (seldom, often) = (Live::new(), Live::new());
        let shape = shape("a", &["a", "b", "c", "d"]);
        for live in [&seldom, &often] {
            live.describe(vec![info("a", &["a", "b", "c", "d"])]);
        }
        let seen = |live: &Live| live.read(|plant| {
            let device = &plant.devices[0];
            (device.latest.clone(), device.trends.clone())
        });
        let (mut seq, mut at_s) = (0, 0);
        for (first, more, pause, missing, hole) in polls {
            at_s += pause;
            let number = if missing { f32::NAN } else { seq as f32 };
            let mut poll = Batch::clone(&batch(&shape, RUN, seq, at_s, &[number; 4]));
            let mut readings = poll.readings.into_list();
            readings.retain(|reading| (first..=first + more).contains(&usize::from(reading.point)));
            if hole && readings.len() > 2 {
                readings.remove(1);
            }
            poll.readings = readings.into();
            seq += poll.n();
            let poll = Arc::new(poll);
            seldom.offer(&poll);
            often.offer(&poll);
            let _ = seen(&often);
        }
        prop_assert_eq!(seen(&seldom), seen(&often));
    }
}
