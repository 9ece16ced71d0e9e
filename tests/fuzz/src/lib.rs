//! What the fuzz targets share: a dictionary, batches out of arbitrary bytes, seals for mutated blocks, equality to the last
//! bit, and a meter of memory ([`memory`]).
//!
//! Each target is a law, said at its top; a panic is how it is broken. `fuzz.sh` builds them on stable Rust and runs them.

pub mod memory;

use std::sync::{Arc, LazyLock};

use fieldspool::model::{Batch, BootId, ClockQuality, PointMeta, Reading, RunId, Shape, Stamp};
use fieldspool::spool::block::{HEADER_LENGTH, MAGIC};
use fieldspool::spool::dictionary::{Dictionary, body_of};
use fieldspool_drivers::{Cause, Quality, Sample, Value, ValueKind};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

const KINDS: [ValueKind; 6] =
    [ValueKind::F64, ValueKind::F32, ValueKind::Int, ValueKind::Uint, ValueKind::Bool, ValueKind::Text];

/// Shapes 1 to 4: one point of text, all kinds twice, forty of 32-bit floats, three of unsigned numbers.
pub static SHAPES: LazyLock<[Arc<Shape>; 4]> = LazyLock::new(|| {
    let shape = |device: &str, kinds: &[ValueKind]| {
        let point = |(at, kind): (usize, &ValueKind)| PointMeta {
            name: format!("p{at}").into(),
            kind: *kind,
            unit: "V".into(),
            json_string: at % 2 == 1,
        };
        let points = kinds.iter().enumerate().map(point).collect();
        Arc::new(Shape::new("plant7-gw1".into(), device.into(), points))
    };
    [
        shape("text", &[ValueKind::Text]),
        shape("all", &[KINDS, KINDS].concat()),
        shape("analyser", &[ValueKind::F32; 40]),
        shape("meter", &[ValueKind::Uint; 3]),
    ]
});

/// The dictionary that knows them.
pub static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
    let mut dictionary = Dictionary::default();
    for (id, shape) in (1..).zip(&*SHAPES) {
        assert!(dictionary.insert(id, &body_of(shape)));
    }
    dictionary
});

/// Gives a block the length, the fingerprint and the checksum that its content asks for, so that what comes behind them is
/// reached.
pub fn seal(block: &mut [u8]) {
    if block.len() < HEADER_LENGTH {
        return;
    }
    block[..4].copy_from_slice(&MAGIC);
    block[4..6].copy_from_slice(&1_u16.to_le_bytes());
    let length = u32::try_from(block.len()).expect("short");
    block[8..12].copy_from_slice(&length.to_le_bytes());
    let print = fingerprint(&block[HEADER_LENGTH..]).unwrap_or_default();
    block[64..68].copy_from_slice(&print.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..]);
    block[12..16].copy_from_slice(&sum.to_le_bytes());
}

/// Of the shapes that a body lists.
fn fingerprint(body: &[u8]) -> Option<u32> {
    let mut rest = body;
    let mut varint = |skip: u64| {
        rest = rest.get(usize::try_from(skip).ok()?..)?;
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
    };
    let boots = varint(0)?;
    let shapes = varint(boots.checked_mul(16)?)?;
    let mut print = 0;
    for _ in 0..shapes {
        let crc = DICTIONARY.entry(u32::try_from(varint(0)?).ok()?)?.crc;
        print = crc32c::crc32c_append(print, &crc.to_le_bytes());
    }
    Some(print)
}

/// Batches as intake makes them, and worse, out of arbitrary bytes.
///
/// # Errors
/// Bytes that are not enough.
pub fn batches(bytes: &mut Unstructured<'_>) -> Result<Vec<Arc<Batch>>> {
    let run = RunId { counter: bytes.arbitrary()?, random: bytes.arbitrary()? };
    let mut seq = u64::from(bytes.arbitrary::<u32>()?);
    let mut batches = Vec::new();
    while !bytes.is_empty() && batches.len() < 64 {
        let shape = bytes.choose(&*SHAPES)?.clone();
        if bytes.ratio(1, 8)? {
            seq += u64::from(bytes.arbitrary::<u16>()?);
        }
        let clock =
            *bytes.choose(&[ClockQuality::Synced, ClockQuality::Unsynced, ClockQuality::Corrected])?;
        let boot = BootId(u128::from(bytes.int_in_range(0..=2_u8)?));
        let stamp = Stamp { wall_us: bytes.arbitrary()?, mono_us: bytes.arbitrary()?, boot, clock };
        let points = u16::try_from(shape.points.len()).expect("few");
        let mut readings = Vec::new();
        if bytes.arbitrary()? {
            for point in 0..points {
                readings.push(reading(bytes, &shape, point)?);
            }
        } else {
            for _ in 0..bytes.int_in_range(1..=9)? {
                let point = bytes.int_in_range(0..=points - 1)?;
                readings.push(reading(bytes, &shape, point)?);
            }
        }
        let batch = Batch { run, seq, prev: bytes.arbitrary()?, stamp, shape, readings: readings.into() };
        seq = batch.end();
        batches.push(Arc::new(batch));
    }
    Ok(batches)
}

fn reading(bytes: &mut Unstructured<'_>, shape: &Shape, point: u16) -> Result<Reading> {
    let kind =
        if bytes.ratio(1, 16)? { *bytes.choose(&KINDS)? } else { shape.points[usize::from(point)].kind };
    let value = if bytes.ratio(1, 8)? { None } else { Some(value(bytes, kind)?) };
    let mut cause = || Ok(Cause::from_code(bytes.arbitrary::<u16>()? % 0x0c00));
    let quality = match cause()? {
        Some(cause) if bytes.arbitrary()? => Quality::Uncertain(cause),
        Some(cause) => Quality::Bad(cause),
        None => Quality::Good,
    };
    Ok(Reading { point, sample: Sample { value, quality } })
}

fn value(bytes: &mut Unstructured<'_>, kind: ValueKind) -> Result<Value> {
    let decimal = bytes.arbitrary::<bool>()?;
    let mut scaled = || Ok(f64::from(bytes.arbitrary::<i32>()?) / 10_f64.powi(bytes.int_in_range(0..=6)?));
    #[expect(clippy::cast_possible_truncation, reason = "any float will do")]
    Ok(match kind {
        ValueKind::F64 if decimal => Value::F64(scaled()?),
        ValueKind::F32 if decimal => Value::F32(scaled()? as f32),
        ValueKind::F64 => Value::F64(f64::from_bits(bytes.arbitrary()?)),
        ValueKind::F32 => Value::F32(f32::from_bits(bytes.arbitrary()?)),
        ValueKind::Int if decimal => Value::Int(i64::from(bytes.arbitrary::<i16>()?)),
        ValueKind::Int => Value::Int(bytes.arbitrary()?),
        ValueKind::Uint if decimal => Value::Uint(u64::from(bytes.arbitrary::<u16>()?)),
        ValueKind::Uint => Value::Uint(bytes.arbitrary()?),
        ValueKind::Bool => Value::Bool(decimal),
        ValueKind::Text => Value::Text(bytes.arbitrary::<&str>()?.into()),
    })
}

/// Equal to the last bit: NaNs and the sign of zero included, which `==` does not see.
#[must_use]
pub fn same(a: &Batch, b: &Batch) -> bool {
    let value = |a: &Value, b: &Value| match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    };
    let reading = |(a, b): (&Reading, &Reading)| {
        let values = match (&a.sample.value, &b.sample.value) {
            (Some(a), Some(b)) => value(a, b),
            (None, None) => true,
            _ => false,
        };
        values && (a.point, a.sample.quality) == (b.point, b.sample.quality)
    };
    (a.run, a.seq, a.prev, a.stamp, &a.shape) == (b.run, b.seq, b.prev, b.stamp, &b.shape)
        && a.readings.len() == b.readings.len()
        && a.readings.iter().zip(&b.readings).all(reading)
}
