//! The messages: byte for byte as documented, never over their limit, and read back as what was read.

use fieldspool_drivers::{Cause, Sample, ValueKind};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::model::{BootId, Reading};
use crate::uplink::sample::{RUN, batch, shape, stamp};

fn message(batch: &Batch) -> String {
    let mut message = Message::new("plant7-gw1", RUN, Lane::Live, 65_536);
    assert!(message.push(batch, &batch.stamp));
    String::from_utf8(message.finish()).unwrap()
}

fn push(message: &mut Message, seq: u64, n: u16) -> bool {
    let batch = batch("meter-01", seq, n);
    message.push(&batch, &batch.stamp)
}

fn example() -> Batch {
    let points = [
        ("voltage_l1", ValueKind::F32),
        ("power", ValueKind::F64),
        ("energy_import", ValueKind::F64),
        ("alarm", ValueKind::Bool),
    ];
    let samples = [
        Sample::bad(Cause::Exception(2)),
        Sample::good(Value::F64(-1520.0)),
        Sample::good(Value::F64(20771.35)),
        Sample::good(Value::Bool(false)),
    ];
    Batch {
        run: RUN,
        seq: 48_210,
        prev: Some(48_150),
        stamp: stamp(),
        shape: shape("meter-01", &points),
        readings: (0..).zip(samples).map(|(point, sample)| Reading { point, sample }).collect(),
    }
}

#[test]
fn the_message_is_the_documented_one() {
    let expected = concat!(
        r#"{"schema":"fieldspool/1","gateway":"plant7-gw1","run":"00000017-9f3c2a10","lane":"live","batches":["#,
        r#"{"device":"meter-01","seq":48210,"n":4,"prev":48150,"time":"2026-11-20T12:23:02.123456Z","#,
        r#""points":{"voltage_l1":null,"power":-1520,"energy_import":20771.35,"alarm":false},"#,
        r#""bad":{"voltage_l1":"exception 2"}}]}"#
    );
    assert_eq!(message(&example()), expected);
}

#[test]
fn what_is_not_as_usual_has_a_key_and_the_usual_has_none() {
    let mut odd = example();
    odd.prev = None;
    odd.stamp.clock = ClockQuality::Unsynced;
    let mut two = odd.readings[..2].to_vec();
    two[0].sample = Sample::uncertain(Value::F32(253.1), Cause::AboveLimit);
    odd.readings = two.into();
    let text = message(&odd);
    assert!(
        text.contains(concat!(
            r#""n":2,"prev":null,"time":"2026-11-20T12:23:02.123456Z","clock":"unsynced","#,
            r#""points":{"voltage_l1":253.1,"power":-1520},"uncertain":{"voltage_l1":"above limit"}}"#
        )),
        "{text}"
    );
    odd.stamp.clock = ClockQuality::Corrected;
    assert!(message(&odd).contains(r#""clock":"corrected""#));
}

#[test]
fn a_float_prints_as_its_shortest_digits() {
    let print = |value: Value| {
        let mut out = Vec::new();
        super::value(&mut out, &value, None);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(print(Value::F32(0.1)), "0.1");
    assert_eq!(print(Value::F32(16_777_216.0)), "16777216");
    assert_eq!(print(Value::F64(0.1)), "0.1");
    assert_eq!(print(Value::F64(2.5e300)).parse(), Ok(2.5e300));
    assert!(print(Value::F64(2.5e300)).len() < 10);
    assert_eq!(print(Value::F64(20771.35)), "20771.35");
    assert_eq!(print(Value::F64(f64::NAN)), "null");
    assert_eq!(print(Value::F32(f32::INFINITY)), "null");
}

#[test]
fn an_integer_no_double_holds_is_a_string_where_the_point_says_so() {
    let print = |value: Value, json_string: bool| {
        let meta = PointMeta { name: "x".into(), kind: value.kind(), unit: "".into(), json_string };
        let mut out = Vec::new();
        super::value(&mut out, &value, Some(&meta));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(print(Value::Uint(u64::MAX), true), r#""18446744073709551615""#);
    assert_eq!(print(Value::Uint(u64::MAX), false), "18446744073709551615");
    assert_eq!(print(Value::Int(i64::MIN), true), r#""-9223372036854775808""#);
    assert_eq!(print(Value::Uint(1 << 53), true), "9007199254740992");
    assert_eq!(print(Value::Uint((1 << 53) + 1), true), r#""9007199254740993""#);
    assert_eq!(print(Value::Int(-7), true), "-7");
}

#[test]
fn text_of_any_kind_is_escaped() {
    let mut batch = example();
    batch.shape = shape("meter-01", &[("serial", ValueKind::Text)]);
    let nasty = "<b>\"quoted\" \\ \u{1} \u{7f} \u{fffd} über";
    batch.readings = vec![Reading { point: 0, sample: Sample::good(Value::Text(nasty.into())) }].into();
    let json: Json = serde_json::from_str(&message(&batch)).unwrap();
    assert_eq!(json["batches"][0]["points"]["serial"], nasty);
}

#[test]
fn a_batch_that_does_not_fit_is_left_out_whole() {
    let mut message = Message::new("g", RUN, Lane::Backlog, 600);
    let mut taken = 0;
    while push(&mut message, taken * 4, 4) {
        taken += 1;
    }
    assert!(taken > 1);
    assert!(message.len() <= 600);
    let length = message.len();
    let text = message.finish();
    assert_eq!(text.len(), length);
    let json: Json = serde_json::from_slice(&text).unwrap();
    assert_eq!(json["batches"].as_array().map(Vec::len), usize::try_from(taken).ok());
    assert_eq!(json["lane"], "backlog");
}

#[test]
fn a_batch_larger_than_the_limit_still_travels_alone() {
    let mut message = Message::new("g", RUN, Lane::Backlog, 600);
    assert!(push(&mut message, 0, 500));
    assert!(!push(&mut message, 500, 1));
    assert!(message.len() > 600);
}

#[test]
fn times_are_those_of_the_calendar() {
    for (us, text) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
        (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        (i64::MIN, "0000-01-01T00:00:00.000000Z"),
        (i64::MAX, "9999-12-31T23:59:59.999999Z"),
    ] {
        let mut out = Vec::new();
        time(&mut out, us);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{text}\""));
    }
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::Uint),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::F32),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::F64),
        any::<String>().prop_map(|s| Value::Text(s.into())),
    ];
    prop_oneof![
        4 => value.clone().prop_map(Sample::good),
        1 => value.prop_map(|v| Sample::uncertain(v, Cause::BelowLimit)),
        1 => any::<u8>().prop_map(|code| Sample::bad(Cause::Exception(code))),
    ]
}

/// What a receiver reads, as the value that was sent.
fn same(json: &Json, value: &Value) -> bool {
    match value {
        Value::Bool(b) => json.as_bool() == Some(*b),
        Value::Int(i) => json.as_i64() == Some(*i),
        Value::Uint(u) => json.as_u64() == Some(*u),
        // The tree's own reader may miss the last bit; the digits themselves are judged below.
        Value::F32(f) => json
            .as_f64()
            .is_some_and(|x| (x - f64::from(*f)).abs() <= f64::from(f.abs().max(f32::MIN_POSITIVE)) * 1e-6),
        Value::F64(f) => {
            json.as_f64().is_some_and(|x| (x - f).abs() <= f.abs().max(f64::MIN_POSITIVE) * 1e-15)
        }
        Value::Text(t) => json.as_str() == Some(t),
    }
}

proptest! {
    #[test]
    fn every_batch_reads_back(
        samples in proptest::collection::vec(any_sample(), 1..40),
        seq in any::<u64>(),
        wall_us in any::<i64>(),
    ) {
        let names: Vec<String> = (0..samples.len()).map(|i| format!("p{i}")).collect();
        let points: Vec<(&str, ValueKind)> = names.iter().map(|n| (n.as_str(), ValueKind::F64)).collect();
        let batch = Batch {
            run: RUN,
            seq,
            prev: None,
            stamp: Stamp { wall_us, mono_us: 0, boot: BootId(0), clock: ClockQuality::Synced },
            shape: shape("d", &points),
            readings: (0..).zip(samples.iter().cloned()).map(|(point, sample)| Reading { point, sample }).collect(),
        };
        let json: Json = serde_json::from_str(&message(&batch)).unwrap();
        let got = &json["batches"][0];
        prop_assert_eq!(got["seq"].as_u64(), Some(seq));
        prop_assert_eq!(got["n"].as_u64(), Some(samples.len() as u64));
        for (name, sample) in names.iter().zip(&samples) {
            let (bad, uncertain) = (&got["bad"][name], &got["uncertain"][name]);
            match sample.quality {
                Quality::Good => prop_assert!(bad.is_null() && uncertain.is_null()),
                Quality::Uncertain(c) => prop_assert_eq!(uncertain, &Json::from(c.to_string())),
                Quality::Bad(c) => prop_assert_eq!(bad, &Json::from(c.to_string())),
            }
            match &sample.value {
                Some(value) => prop_assert!(same(&got["points"][name], value), "{} {:?}", got["points"][name], value),
                None => prop_assert!(got["points"][name].is_null()),
            }
        }
    }

    #[test]
    fn a_floats_digits_read_back_to_the_last_bit(single in any::<f32>(), double in any::<f64>()) {
        prop_assume!(single.is_finite() && double.is_finite());
        let print = |value: Value| {
            let mut out = Vec::new();
            super::value(&mut out, &value, None);
            String::from_utf8(out).unwrap()
        };
        prop_assert_eq!(print(Value::F32(single)).parse::<f32>(), Ok(single));
        prop_assert_eq!(print(Value::F64(double)).parse::<f64>(), Ok(double));
    }

    #[test]
    fn every_time_reads_back(wall_us in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
        let mut out = Vec::new();
        time(&mut out, wall_us);
        let text = String::from_utf8(out).unwrap();
        let read = time::OffsetDateTime::parse(text.trim_matches('"'), &time::format_description::well_known::Rfc3339);
        prop_assert_eq!(read.unwrap().unix_timestamp_nanos(), i128::from(wall_us) * 1000);
    }
}
