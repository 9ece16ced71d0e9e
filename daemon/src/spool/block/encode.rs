//! Batches to a block. Quick: one pass a column, no allocation but the output and one table of the points used.

use std::collections::HashMap;
use std::sync::Arc;

use fieldspool_drivers::{Quality, Sample};

use super::bytes::{put_varint, put_zigzag};
use super::values::Before;
use super::{
    CLOCK, CRC_AT, GAP, HEADER_LENGTH, Header, MAGIC, NO_PREV, PREV, QUALITY, READINGS_MAX, SPARSE, VERSION,
    checksum,
};
use crate::model::{Batch, BootId, ClockQuality};
use crate::spool::dictionary::Dictionary;

/// The batches are not such as intake makes. Says which rule they break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be stored: {0}")]
pub struct Unencodable(pub &'static str);

/// The shapes and boots of a block, and where each shape's points begin in the table of values before.
struct Tables {
    shapes: Vec<u32>,
    bases: Vec<usize>,
    points: usize,
    boots: Vec<BootId>,
    fingerprint: u32,
    /// Per batch: index of its shape.
    index: Vec<usize>,
}

/// Encodes batches of one run, ascending, with shapes that the dictionary knows. Replaces what `out` holds.
pub fn encode(
    batches: &[Arc<Batch>],
    dictionary: &Dictionary,
    out: &mut Vec<u8>,
) -> Result<Header, Unencodable> {
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
        return Err(Unencodable("no batch"));
    };
    check(batches)?;
    let tables = tables(batches, dictionary)?;
    out.clear();
    out.resize(HEADER_LENGTH, 0);
    let walls = batches.iter().map(|batch| batch.stamp.wall_us);
    let mut header = Header {
        length: 0,
        run: first.run,
        first: first.seq,
        next: last.end(),
        readings: u32::try_from(batches.iter().map(|batch| batch.readings.len()).sum::<usize>())
            .map_err(|_| Unencodable("too many readings"))?,
        batches: u32::try_from(batches.len()).map_err(|_| Unencodable("too many batches"))?,
        wall_min: walls.clone().min().unwrap_or_default(),
        wall_max: walls.max().unwrap_or_default(),
        fingerprint: tables.fingerprint,
    };
    put_tables(&tables, out);
    put_batches(batches, &tables, header.wall_min, out);
    put_readings(batches, &tables, out);
    header.length = u32::try_from(out.len()).map_err(|_| Unencodable("too long"))?;
    put_header(&header, out);
    Ok(header)
}

fn check(batches: &[Arc<Batch>]) -> Result<(), Unencodable> {
    let mut readings = 0;
    let mut next = 0;
    for batch in batches {
        if batch.run != batches[0].run {
            return Err(Unencodable("two runs"));
        }
        if batch.readings.is_empty() || batch.seq < next || batch.seq.checked_add(batch.n()).is_none() {
            return Err(Unencodable("sequence numbers that do not ascend"));
        }
        if batch.readings.iter().any(|reading| usize::from(reading.point) >= batch.shape.points.len()) {
            return Err(Unencodable("a reading of a point that its shape does not have"));
        }
        next = batch.end();
        readings += batch.readings.len();
    }
    if readings > READINGS_MAX { Err(Unencodable("too many readings")) } else { Ok(()) }
}

fn tables(batches: &[Arc<Batch>], dictionary: &Dictionary) -> Result<Tables, Unencodable> {
    let mut tables = Tables {
        shapes: Vec::new(),
        bases: Vec::new(),
        points: 0,
        boots: Vec::new(),
        fingerprint: 0,
        index: Vec::with_capacity(batches.len()),
    };
    let mut by_id = HashMap::new();
    for batch in batches {
        let id = dictionary.id(&batch.shape).ok_or(Unencodable("a shape without entry"))?;
        let index = *by_id.entry(id).or_insert(tables.shapes.len());
        if index == tables.shapes.len() {
            let crc = dictionary.entry(id).ok_or(Unencodable("a shape without entry"))?.crc;
            tables.fingerprint = crc32c::crc32c_append(tables.fingerprint, &crc.to_le_bytes());
            tables.shapes.push(id);
            tables.bases.push(tables.points);
            tables.points += batch.shape.points.len();
        }
        tables.index.push(index);
        if !tables.boots.contains(&batch.stamp.boot) {
            tables.boots.push(batch.stamp.boot);
        }
    }
    Ok(tables)
}

fn put_tables(tables: &Tables, out: &mut Vec<u8>) {
    put_varint(out, tables.boots.len() as u64);
    for boot in &tables.boots {
        out.extend(boot.0.to_le_bytes());
    }
    put_varint(out, tables.shapes.len() as u64);
    for id in &tables.shapes {
        put_varint(out, u64::from(*id));
    }
}

/// The columns with one entry a batch.
fn put_batches(batches: &[Arc<Batch>], tables: &Tables, wall_min: i64, out: &mut Vec<u8>) {
    let flags_at = out.len();
    out.resize(flags_at + batches.len(), 0);
    for index in &tables.index {
        put_varint(out, *index as u64);
    }
    put_points(batches, flags_at, out);
    put_places(batches, tables, flags_at, out);
    put_stamps(batches, tables, wall_min, flags_at, out);
    for (i, batch) in batches.iter().enumerate() {
        if batch.readings.iter().any(|reading| quality_code(&reading.sample) != 0) {
            out[flags_at + i] |= QUALITY;
            put_qualities(batch, out);
        }
    }
}

fn put_points(batches: &[Arc<Batch>], flags_at: usize, out: &mut Vec<u8>) {
    for (i, batch) in batches.iter().enumerate() {
        let in_order = batch.readings.iter().enumerate().all(|(at, r)| usize::from(r.point) == at);
        if in_order && batch.readings.len() == batch.shape.points.len() {
            continue;
        }
        out[flags_at + i] |= SPARSE;
        put_varint(out, batch.n());
        let mut expected = 0;
        for reading in &batch.readings {
            put_zigzag(out, i64::from(reading.point) - expected);
            expected = i64::from(reading.point) + 1;
        }
    }
}

fn put_places(batches: &[Arc<Batch>], tables: &Tables, flags_at: usize, out: &mut Vec<u8>) {
    let mut expected = batches[0].seq;
    for (i, batch) in batches.iter().enumerate() {
        if batch.seq != expected {
            out[flags_at + i] |= GAP;
            put_zigzag(out, batch.seq.wrapping_sub(expected).cast_signed());
        }
        expected = batch.end();
    }
    let mut prevs = vec![None; tables.shapes.len()];
    for (i, batch) in batches.iter().enumerate() {
        let expected = prevs[tables.index[i]].replace(batch.seq);
        match batch.prev {
            prev if prev == expected => {}
            None => out[flags_at + i] |= NO_PREV,
            Some(prev) => {
                out[flags_at + i] |= PREV;
                put_varint(out, batch.seq.wrapping_sub(prev));
            }
        }
    }
}

fn put_stamps(batches: &[Arc<Batch>], tables: &Tables, wall_min: i64, flags_at: usize, out: &mut Vec<u8>) {
    let wall_steps = || {
        let before = std::iter::once(wall_min).chain(batches.iter().map(|batch| batch.stamp.wall_us));
        batches.iter().zip(before).map(|(batch, before)| batch.stamp.wall_us.wrapping_sub(before))
    };
    wall_steps().for_each(|step| put_zigzag(out, step));
    let mut before = 0;
    for (batch, wall_step) in batches.iter().zip(wall_steps()) {
        let mono_step = batch.stamp.mono_us.wrapping_sub(before).cast_signed();
        put_zigzag(out, mono_step.wrapping_sub(wall_step));
        before = batch.stamp.mono_us;
    }
    let mut before = 0;
    for (i, batch) in batches.iter().enumerate() {
        let boot = tables.boots.iter().position(|boot| *boot == batch.stamp.boot).unwrap_or_default();
        let code = boot as u64 * 4 + clock_code(batch.stamp.clock);
        if code != before {
            out[flags_at + i] |= CLOCK;
            put_varint(out, code);
            before = code;
        }
    }
}

fn put_qualities(batch: &Batch, out: &mut Vec<u8>) {
    let mut codes = batch.readings.iter().map(|reading| quality_code(&reading.sample)).peekable();
    while let Some(code) = codes.next() {
        let mut run = 1;
        while codes.next_if_eq(&code).is_some() {
            run += 1;
        }
        put_varint(out, code);
        put_varint(out, run);
    }
}

fn put_readings(batches: &[Arc<Batch>], tables: &Tables, out: &mut Vec<u8>) {
    let mut before = vec![Before::default(); tables.points];
    for (batch, index) in batches.iter().zip(&tables.index) {
        let base = tables.bases[*index];
        for reading in &batch.readings {
            let point = usize::from(reading.point);
            if let Some(value) = &reading.sample.value {
                before[base + point].put(batch.shape.points[point].kind, value, out);
            }
        }
    }
}

fn put_header(header: &Header, out: &mut [u8]) {
    let mut place = 0;
    let mut put = |bytes: &[u8]| {
        out[place..place + bytes.len()].copy_from_slice(bytes);
        place += bytes.len();
    };
    put(&MAGIC);
    put(&VERSION.to_le_bytes());
    put(&[0; 2]);
    put(&header.length.to_le_bytes());
    put(&[0; 4]);
    put(&header.run.counter.to_le_bytes());
    put(&header.run.random.to_le_bytes());
    put(&header.first.to_le_bytes());
    put(&header.next.to_le_bytes());
    put(&header.readings.to_le_bytes());
    put(&header.batches.to_le_bytes());
    put(&header.wall_min.to_le_bytes());
    put(&header.wall_max.to_le_bytes());
    put(&header.fingerprint.to_le_bytes());
    let crc = checksum(out);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

fn clock_code(clock: ClockQuality) -> u64 {
    match clock {
        ClockQuality::Synced => 0,
        ClockQuality::Unsynced => 1,
        ClockQuality::Corrected => 2,
    }
}

fn quality_code(sample: &Sample) -> u64 {
    let (cause, quality) = match sample.quality {
        Quality::Good => (0, 0),
        Quality::Uncertain(cause) => (u64::from(cause.code()), 1),
        Quality::Bad(cause) => (u64::from(cause.code()), 2),
    };
    let odd = sample.value.is_some() == (quality == 2);
    cause * 8 + quality * 2 + u64::from(odd)
}
