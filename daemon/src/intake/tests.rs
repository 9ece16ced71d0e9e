//! Intake by itself: samples in, batches out.

use super::*;
use crate::model::{BootId, ClockQuality, PointMeta};
use fieldspool_drivers::{Cause, ValueKind};
use std::time::Duration;

const RUN: RunId = RunId { counter: 1, random: 2 };

fn device(name: &str, points: usize, rule: &Rule) -> Device {
    let meta = |i: usize| PointMeta {
        name: format!("p{i}").into(),
        kind: ValueKind::F64,
        unit: "".into(),
        json_string: false,
    };
    let shape = Shape::new("gw".into(), name.into(), (0..points).map(meta).collect());
    Device { shape: Arc::new(shape), rules: vec![rule.clone(); points] }
}

fn always() -> Rule {
    Rule { on_change: None, heartbeat: Duration::from_secs(60) }
}

fn stamp(seconds: u64) -> Stamp {
    Stamp { wall_us: 0, mono_us: seconds * 1_000_000, boot: BootId(1), clock: ClockQuality::Synced }
}

fn numbers(values: &[f64]) -> Vec<(u16, Sample)> {
    (0..).zip(values).map(|(i, v)| (i, Sample::good(Value::F64(*v)))).collect()
}

fn intake(devices: Vec<Device>) -> Intake {
    let mut intake = Intake::new(RUN);
    intake.describe(vec![devices]);
    intake
}

#[test]
fn numbers_run_through_the_gateway_and_prev_through_the_device() {
    let mut intake = intake(vec![device("a", 3, &always()), device("b", 2, &always())]);
    let a1 = intake.take(0, 0, numbers(&[1.0, 2.0, 3.0]), stamp(0)).remove(0);
    let b1 = intake.take(0, 1, numbers(&[1.0, 2.0]), stamp(0)).remove(0);
    let a2 = intake.take(0, 0, numbers(&[1.0, 2.0, 3.0]), stamp(1)).remove(0);
    assert_eq!((a1.seq, a1.prev, a1.end()), (0, None, 3));
    assert_eq!((b1.seq, b1.prev, b1.end()), (3, None, 5));
    assert_eq!((a2.seq, a2.prev, a2.end()), (5, Some(0), 8));
    assert_eq!(intake.numbered(), 8);
}

#[test]
fn a_big_poll_is_cut_before_numbering_and_prev_links_the_pieces() {
    let mut intake = intake(vec![device("a", 1200, &always())]);
    let batches = intake.take(0, 0, numbers(&vec![0.5; 1200]), stamp(0));
    let shape: Vec<_> = batches.iter().map(|b| (b.seq, b.n(), b.prev)).collect();
    assert_eq!(shape, [(0, 500, None), (500, 500, Some(0)), (1000, 200, Some(500))]);
    let points: Vec<_> = batches.iter().flat_map(|b| b.readings.iter().map(|r| r.point)).collect();
    assert_eq!(points, (0..1200).collect::<Vec<_>>(), "every reading once, in order");
}

#[test]
fn long_texts_are_cut_by_bytes() {
    let mut intake = intake(vec![device("a", 200, &always())]);
    let text: Arc<str> = "x".repeat(256).into();
    let samples = (0..200).map(|i| (i, Sample::good(Value::Text(text.clone())))).collect();
    let batches = intake.take(0, 0, samples, stamp(0));
    assert!(batches.len() > 1);
    for batch in &batches {
        assert!(batch.readings.iter().map(size).sum::<usize>() <= BATCH_BYTES_MAX);
    }
    assert_eq!(batches.iter().map(|b| b.n()).sum::<u64>(), 200);
}

#[test]
fn a_silent_device_is_said_on_the_edge_and_at_each_heartbeat() {
    let mut intake = intake(vec![device("a", 1, &always())]);
    let silent = || vec![(0, Sample::bad(Cause::Silent))];
    let mut sent = Vec::new();
    for second in 0..180 {
        if !intake.take(0, 0, silent(), stamp(second)).is_empty() {
            sent.push(second);
        }
    }
    assert_eq!(sent, [0, 60, 120]);
    assert_eq!(intake.take(0, 0, numbers(&[1.0]), stamp(181)).len(), 1, "its return is an edge too");
    assert_eq!(intake.take(0, 0, numbers(&[1.0]), stamp(182)).len(), 1, "and then every sample is a reading");
}

#[test]
fn on_change_sends_beyond_the_deadband_on_quality_and_at_the_heartbeat() {
    let rule = Rule { on_change: Some(0.5), heartbeat: Duration::from_secs(60) };
    let mut intake = intake(vec![device("a", 1, &rule)]);
    let mut take = |sample: Sample, second| !intake.take(0, 0, vec![(0, sample)], stamp(second)).is_empty();
    let good = |v| Sample::good(Value::F64(v));
    assert!(take(good(10.0), 0), "the first");
    assert!(!take(good(10.4), 1), "within the deadband");
    assert!(!take(good(10.5), 2), "on its edge");
    assert!(take(good(10.6), 3), "beyond, counted from the last reading sent");
    assert!(!take(good(10.2), 4));
    assert!(take(Sample::uncertain(Value::F64(10.6), Cause::AboveLimit), 5), "quality changed");
    assert!(take(good(10.6), 6), "and back");
    assert!(!take(good(10.6), 65));
    assert!(take(good(10.6), 66), "heartbeat");
}

#[test]
fn a_change_beyond_two_to_the_53_is_seen() {
    let rule = Rule { on_change: Some(0.0), heartbeat: Duration::from_secs(60) };
    let mut intake = intake(vec![device("a", 1, &rule)]);
    let counter = |v| vec![(0, Sample::good(Value::Uint(v)))];
    assert_eq!(intake.take(0, 0, counter((1 << 53) + 1), stamp(0)).len(), 1);
    assert_eq!(intake.take(0, 0, counter((1 << 53) + 1), stamp(1)).len(), 0);
    assert_eq!(intake.take(0, 0, counter(1 << 53), stamp(2)).len(), 1);
}

#[test]
fn a_reload_keeps_numbers_links_and_what_was_sent() {
    let rule = Rule { on_change: Some(0.0), heartbeat: Duration::from_secs(60) };
    let mut intake = intake(vec![device("a", 1, &rule), device("b", 1, &rule)]);
    intake.take(0, 0, numbers(&[1.0]), stamp(0));
    intake.take(0, 1, numbers(&[1.0]), stamp(0));
    intake.describe(vec![vec![device("b", 2, &rule)], vec![device("a", 1, &rule)]]);
    assert!(intake.take(1, 0, numbers(&[1.0]), stamp(1)).is_empty(), "a did not change, nor did its value");
    let b = intake.take(0, 0, numbers(&[1.0, 2.0]), stamp(1)).remove(0);
    assert_eq!((b.seq, b.prev, b.n()), (2, Some(1), 2), "b is new in shape, its numbers go on");
}

#[test]
fn what_nobody_knows_is_left_alone() {
    let mut intake = intake(vec![device("a", 1, &always())]);
    assert!(intake.take(7, 0, numbers(&[1.0]), stamp(0)).is_empty());
    assert!(intake.take(0, 9, numbers(&[1.0]), stamp(0)).is_empty());
    assert_eq!(
        intake.take(0, 0, numbers(&[1.0, 2.0]), stamp(0)).remove(0).n(),
        1,
        "a point beyond the shape"
    );
}
