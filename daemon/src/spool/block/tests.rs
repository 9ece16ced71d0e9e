//! The laws of the codec: what was encoded comes back, and no bytes can hurt.

use std::sync::Arc;

use fieldspool_drivers::{Cause, Quality, Sample, Value, ValueKind};
use proptest::prelude::*;

use super::values::narrow;
use super::{BlockFault, CRC_AT, HEADER_LENGTH, Header, checksum, decode, encode};
use crate::model::{Batch, BootId, ClockQuality, PointMeta, Reading, RunId, Shape, Stamp};
use crate::spool::dictionary::{Dictionary, body_of};

pub(crate) fn shape(device: &str, kinds: &[ValueKind]) -> Arc<Shape> {
    let point = |(i, kind): (usize, &ValueKind)| PointMeta {
        name: format!("point_{i}").into(),
        kind: *kind,
        unit: "V".into(),
        json_string: i % 2 == 1,
    };
    Arc::new(Shape::new("plant7".into(), device.into(), kinds.iter().enumerate().map(point).collect()))
}

fn dictionary(shapes: &[Arc<Shape>]) -> Dictionary {
    let mut dictionary = Dictionary::default();
    for shape in shapes {
        let id = dictionary.next_id();
        assert!(dictionary.insert(id, &body_of(shape)));
        dictionary.remember(shape);
    }
    dictionary
}

const KINDS: [ValueKind; 6] =
    [ValueKind::F64, ValueKind::F32, ValueKind::Int, ValueKind::Uint, ValueKind::Bool, ValueKind::Text];

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-300_i64..300).prop_map(Value::Int),
        any::<u64>().prop_map(Value::Uint),
        any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        (-90_000_i32..90_000, 0..5).prop_map(|(m, e)| Value::F64(f64::from(m) / 10_f64.powi(e))),
        (-9000_i16..9000).prop_map(|m| Value::F32(f32::from(m) / 10.0)),
        Just(Value::F64(-0.0)),
        Just(Value::F32(-0.0)),
        ".{0,8}".prop_map(|text| Value::Text(text.into())),
    ]
}

fn quality() -> impl Strategy<Value = Quality> {
    let cause = || any::<u16>().prop_filter_map("known", |code| Cause::from_code(code % 0x0b00));
    prop_oneof![
        4 => Just(Quality::Good),
        1 => cause().prop_map(Quality::Uncertain),
        1 => cause().prop_map(Quality::Bad),
    ]
}

fn sample() -> impl Strategy<Value = Sample> {
    (proptest::option::weighted(0.9, value()), quality())
        .prop_map(|(value, quality)| Sample { value, quality })
}

/// What intake could ever make, and worse.
fn batches() -> impl Strategy<Value = Vec<Arc<Batch>>> {
    let batch = (
        0..2_usize,
        proptest::collection::vec((0..6_u16, sample()), 1..9),
        prop_oneof![9 => Just(0_u64), 1 => any::<u32>().prop_map(u64::from)],
        proptest::option::of(any::<u64>()),
        (any::<i64>(), any::<u64>(), 0..2_u8, 0..3_u8),
        any::<bool>(),
    );
    (any::<u32>(), proptest::collection::vec(batch, 1..12)).prop_map(|(first, drafts)| {
        let shapes = [shape("a", &KINDS), shape("b", &KINDS)];
        let mut seq = u64::from(first);
        let mut batches = Vec::new();
        for (at, readings, gap, prev, (wall_us, mono_us, boot, clock), full) in drafts {
            seq += gap;
            let readings: Vec<_> = if full {
                (0..6_u16)
                    .zip(readings.into_iter().cycle())
                    .map(|(point, (_, sample))| (point, sample))
                    .collect()
            } else {
                readings
            };
            let clock =
                [ClockQuality::Synced, ClockQuality::Unsynced, ClockQuality::Corrected][usize::from(clock)];
            let batch = Batch {
                run: RunId { counter: 17, random: first },
                seq,
                prev,
                stamp: Stamp { wall_us, mono_us, boot: BootId(u128::from(boot)), clock },
                shape: shapes[at].clone(),
                readings: readings.into_iter().map(|(point, sample)| Reading { point, sample }).collect(),
            };
            seq = batch.end();
            batches.push(Arc::new(batch));
        }
        batches
    })
}

/// Equal to the last bit: NaNs and the sign of zero included, which `==` does not see.
fn bits(batches: &[Batch]) -> String {
    let value = |value: &Value| match value {
        Value::F32(float) => format!("f32 {:x}", float.to_bits()),
        Value::F64(float) => format!("f64 {:x}", float.to_bits()),
        other => format!("{other:?}"),
    };
    let reading =
        |r: &Reading| format!("{} {:?} {:?}", r.point, r.sample.value.as_ref().map(value), r.sample.quality);
    let batch = |b: &Batch| {
        let readings: Vec<_> = b.readings.iter().map(reading).collect();
        format!("{} {} {:?} {:?} {} {readings:?}\n", b.run, b.seq, b.prev, b.stamp, b.shape.device)
    };
    batches.iter().map(batch).collect()
}

fn refit_checksum(block: &mut [u8]) {
    let crc = checksum(block).to_le_bytes();
    block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_comes_back_to_the_last_bit(batches in batches()) {
        let dictionary = dictionary(&[shape("z", &[]), batches[0].shape.clone(), shape("a", &KINDS), shape("b", &KINDS)]);
        let mut block = Vec::new();
        let header = encode(&batches, &dictionary, &mut block).expect("as intake makes them");
        prop_assert_eq!(Header::read(&block), Ok(header));
        block.extend([0xff; 9]); // padding
        let back = decode(&block, &dictionary).expect("what was encoded");
        let plain: Vec<_> = batches.iter().map(|batch| Batch::clone(batch)).collect();
        prop_assert_eq!(bits(&back), bits(&plain));
        prop_assert!(back.iter().zip(&plain).all(|(a, b)| a.shape == b.shape));
        prop_assert_eq!(header.next, plain[plain.len() - 1].end());
    }

    #[test]
    fn changed_bytes_are_refused_by_the_checksum(batches in batches(), at in any::<usize>(), bit in 0..8_u8) {
        let dictionary = dictionary(&[shape("a", &KINDS), shape("b", &KINDS)]);
        let mut block = Vec::new();
        encode(&batches, &dictionary, &mut block).expect("as intake makes them");
        let at = at % block.len();
        block[at] ^= 1 << bit;
        prop_assert!(decode(&block, &dictionary).is_err());
    }

    #[test]
    fn forged_bytes_neither_panic_nor_take_more_than_the_bound(
        batches in batches(),
        forged in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..20),
        cut in any::<usize>(),
    ) {
        let dictionary = dictionary(&[shape("a", &KINDS), shape("b", &KINDS)]);
        let mut block = Vec::new();
        encode(&batches, &dictionary, &mut block).expect("as intake makes them");
        for (at, byte) in forged {
            let at = at % block.len();
            block[at] = byte;
        }
        let length = u32::try_from(block.len()).expect("short");
        if cut % 3 == 0 {
            block.truncate(HEADER_LENGTH.max(cut % block.len()));
        }
        let length = length.min(u32::try_from(block.len()).expect("short"));
        block[8..12].copy_from_slice(&length.to_le_bytes());
        refit_checksum(&mut block);
        if let Ok(batches) = decode(&block, &dictionary) {
            prop_assert!(batches.iter().map(|batch| batch.readings.len()).sum::<usize>() <= super::READINGS_MAX);
        }
    }

    #[test]
    fn noise_is_no_block(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&noise, &Dictionary::default()).is_err());
    }
}

/// Ten devices of a hundred points, once: what one second of a plant looks like.
pub(crate) fn plant(devices: usize, points: usize, second: u64, shapes: &[Arc<Shape>]) -> Vec<Arc<Batch>> {
    let per_second = (devices * points) as u64;
    let reading = |device: usize, point: usize| {
        let phase = (second as f64 / 60.0 + (device * 7 + point) as f64).sin();
        let value = match point % 4 {
            0 => Value::F64((2300.0 + 35.0 * phase).round() / 10.0),
            1 => Value::F64(((1000 + point) as f64 * 100.0 + second as f64 * 3.0).round() / 100.0),
            2 => Value::F32(narrow(50.0 + 0.05 * phase)),
            _ => Value::Uint(40_000 + second % 9),
        };
        Reading { point: u16::try_from(point).expect("few"), sample: Sample::good(value) }
    };
    let batch = |device: usize| {
        let seq = second * per_second + (device * points) as u64;
        let at = second * 1_000_000 + device as u64 * 97_003;
        Arc::new(Batch {
            run: RunId { counter: 17, random: 5 },
            seq,
            prev: seq.checked_sub(per_second),
            stamp: Stamp {
                wall_us: 1_795_000_000_000_000 + i64::try_from(at).expect("soon"),
                mono_us: 77_000_000 + at,
                boot: BootId(7),
                clock: ClockQuality::Synced,
            },
            shape: shapes[device].clone(),
            readings: (0..points).map(|point| reading(device, point)).collect(),
        })
    };
    (0..devices).map(batch).collect()
}

pub(crate) fn plant_shapes(devices: usize, points: usize) -> Vec<Arc<Shape>> {
    let kinds: Vec<_> = (0..points)
        .map(|point| [ValueKind::F64, ValueKind::F64, ValueKind::F32, ValueKind::Uint][point % 4])
        .collect();
    (0..devices).map(|device| shape(&format!("meter-{device:02}"), &kinds)).collect()
}

#[test]
fn a_reading_of_a_plant_takes_at_most_twelve_bytes() {
    for (devices, points) in [(10, 100), (40, 1), (10, 4)] {
        let shapes = plant_shapes(devices, points);
        let dictionary = dictionary(&shapes);
        let mut block = Vec::new();
        encode(&plant(devices, points, 100, &shapes), &dictionary, &mut block).expect("a plant");
        let each = block.len() as f64 / (devices * points) as f64;
        eprint_bytes(devices, points, each);
        let bound = if devices * points >= 1000 { 6.0 } else { 17.0 };
        assert!(each <= bound, "{devices} devices of {points} points: {each:.2} bytes a reading");
    }
}

#[allow(clippy::print_stderr)] // shown by `cargo test -- --nocapture` only
fn eprint_bytes(devices: usize, points: usize, each: f64) {
    eprintln!("{devices} devices x {points} points: {each:.2} bytes a reading");
}

#[test]
fn a_block_of_another_dictionary_is_refused() {
    let shapes = plant_shapes(1, 4);
    let mut block = Vec::new();
    encode(&plant(1, 4, 3, &shapes), &dictionary(&shapes), &mut block).expect("a plant");
    assert_eq!(decode(&block, &Dictionary::default()), Err(BlockFault::Dictionary(1)));
    let other = dictionary(&plant_shapes(1, 5));
    assert_eq!(decode(&block, &other), Err(BlockFault::Dictionary(1)));
}

#[test]
fn a_head_that_no_block_can_have_is_refused_without_a_look_at_the_checksum() {
    let shapes = plant_shapes(2, 4);
    let mut block = Vec::new();
    let header = encode(&plant(2, 4, 3, &shapes), &dictionary(&shapes), &mut block).expect("a plant");
    let put = |at: usize, bytes: &[u8]| {
        let mut block = block.clone();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        Header::read(&block)
    };
    assert_eq!(put(24, &header.first.to_le_bytes()), Ok(header));
    let more = header.readings + 1;
    for refused in [
        put(24, &header.next.to_le_bytes()),
        put(24, &u64::MAX.to_le_bytes()),
        put(32, &0_u64.to_le_bytes()),
        put(40, &more.to_le_bytes()),
        put(40, &0_u32.to_le_bytes()),
        put(44, &0_u32.to_le_bytes()),
    ] {
        assert!(matches!(refused, Err(BlockFault::Malformed(_))), "{refused:?}");
    }
}
