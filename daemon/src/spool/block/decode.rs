//! A block to batches. Trusts nothing: the bytes may come from a damaged file.

use std::sync::Arc;

use fieldspool_drivers::{Cause, Quality, Sample, Value};

use super::bytes::Bytes;
use super::values::Before;
use super::{BlockFault, CLOCK, GAP, Header, NO_PREV, PREV, QUALITY, READINGS_MAX, SPARSE};
use crate::model::{Batch, BootId, ClockQuality, Reading, Shape, Stamp};
use crate::spool::dictionary::Dictionary;

const ODD: BlockFault = BlockFault::Malformed("numbers that do not fit each other");

/// One batch while its columns are read.
struct Draft {
    flags: u8,
    shape: usize,
    seq: u64,
    prev: Option<u64>,
    wall_us: i64,
    mono_us: u64,
    boot: BootId,
    clock: ClockQuality,
    points: Vec<u16>,
    codes: Vec<u64>,
}

/// The shapes of a block, and where each one's points begin in the table of values before.
struct Shapes {
    list: Vec<Arc<Shape>>,
    bases: Vec<usize>,
    points: usize,
}

/// Decodes a block, checksum and dictionary included.
pub fn decode(block: &[u8], dictionary: &Dictionary) -> Result<Vec<Batch>, BlockFault> {
    let (header, body) = Header::checked(block)?;
    let mut bytes = Bytes::new(body);
    let boots = boots(&mut bytes)?;
    let shapes = shapes(&mut bytes, &header, dictionary)?;
    let mut drafts = drafts(&mut bytes, &header, &shapes)?;
    points(&mut bytes, &header, &shapes, &mut drafts)?;
    places(&mut bytes, &header, shapes.list.len(), &mut drafts)?;
    stamps(&mut bytes, &header, &boots, &mut drafts)?;
    qualities(&mut bytes, &mut drafts)?;
    let batches = values(&mut bytes, header, &shapes, drafts)?;
    if bytes.left() > 0 { Err(BlockFault::Malformed("bytes behind the last value")) } else { Ok(batches) }
}

fn boots(bytes: &mut Bytes<'_>) -> Result<Vec<BootId>, BlockFault> {
    let count = bytes.count(bytes.left() / 16)?;
    (0..count).map(|_| Ok(BootId(u128::from_le_bytes(bytes.array()?)))).collect()
}

fn shapes(bytes: &mut Bytes<'_>, header: &Header, dictionary: &Dictionary) -> Result<Shapes, BlockFault> {
    let count = bytes.count(bytes.left())?;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(u32::try_from(bytes.varint()?).map_err(|_| ODD)?);
    }
    let mut found = Shapes { list: Vec::with_capacity(count), bases: Vec::with_capacity(count), points: 0 };
    let mut fingerprint = 0;
    for id in &ids {
        let entry = dictionary.entry(*id).ok_or(BlockFault::Dictionary(*id))?;
        fingerprint = crc32c::crc32c_append(fingerprint, &entry.crc.to_le_bytes());
        found.bases.push(found.points);
        found.points += entry.shape.points.len();
        found.list.push(entry.shape.clone());
    }
    if fingerprint != header.fingerprint {
        return Err(BlockFault::Dictionary(ids.first().copied().unwrap_or_default()));
    }
    // Each shape once: the table of values before is then bounded by the dictionary itself.
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) { Err(ODD) } else { Ok(found) }
}

fn drafts(bytes: &mut Bytes<'_>, header: &Header, shapes: &Shapes) -> Result<Vec<Draft>, BlockFault> {
    let count = usize::try_from(header.batches).map_err(|_| ODD)?;
    if count > READINGS_MAX {
        return Err(ODD);
    }
    let flags = bytes.take(count)?;
    let draft = |flags: &u8| {
        let shape = usize::try_from(bytes.varint()?).map_err(|_| ODD)?;
        if shape >= shapes.list.len() {
            return Err(ODD);
        }
        Ok(Draft {
            flags: *flags,
            shape,
            seq: 0,
            prev: None,
            wall_us: 0,
            mono_us: 0,
            boot: BootId(0),
            clock: ClockQuality::Synced,
            points: Vec::new(),
            codes: Vec::new(),
        })
    };
    flags.iter().map(draft).collect()
}

fn points(
    bytes: &mut Bytes<'_>,
    header: &Header,
    shapes: &Shapes,
    drafts: &mut [Draft],
) -> Result<(), BlockFault> {
    let mut room = usize::try_from(header.readings).map_err(|_| ODD)?;
    if room > READINGS_MAX {
        return Err(ODD);
    }
    for draft in drafts {
        let own = shapes.list[draft.shape].points.len();
        let sparse = draft.flags & SPARSE != 0;
        let n = if sparse { bytes.count(room)? } else { own };
        if n == 0 {
            return Err(ODD);
        }
        room = room.checked_sub(n).ok_or(ODD)?;
        let mut expected = 0_i64;
        draft.points.reserve_exact(n);
        for _ in 0..n {
            let step = if sparse { bytes.zigzag()? } else { 0 };
            let point = expected.checked_add(step).and_then(|point| u16::try_from(point).ok()).ok_or(ODD)?;
            if usize::from(point) >= own {
                return Err(ODD);
            }
            draft.points.push(point);
            expected = i64::from(point) + 1;
        }
    }
    if room == 0 { Ok(()) } else { Err(ODD) }
}

/// The columns `gap` and `prev`.
fn places(
    bytes: &mut Bytes<'_>,
    header: &Header,
    shapes: usize,
    drafts: &mut [Draft],
) -> Result<(), BlockFault> {
    let mut expected = header.first;
    for draft in drafts.iter_mut() {
        let step = if draft.flags & GAP == 0 { 0 } else { bytes.zigzag()?.cast_unsigned() };
        draft.seq = expected.wrapping_add(step);
        if draft.seq < expected {
            return Err(ODD);
        }
        expected = draft.seq.checked_add(draft.points.len() as u64).ok_or(ODD)?;
    }
    if expected != header.next {
        return Err(ODD);
    }
    let mut prevs = vec![None; shapes];
    for draft in drafts {
        let before = prevs[draft.shape].replace(draft.seq);
        draft.prev = if draft.flags & PREV != 0 {
            Some(draft.seq.wrapping_sub(bytes.varint()?))
        } else if draft.flags & NO_PREV != 0 {
            None
        } else {
            before
        };
    }
    Ok(())
}

/// The columns `wall`, `mono` and `clock`.
fn stamps(
    bytes: &mut Bytes<'_>,
    header: &Header,
    boots: &[BootId],
    drafts: &mut [Draft],
) -> Result<(), BlockFault> {
    let mut wall_us = header.wall_min;
    for draft in drafts.iter_mut() {
        wall_us = wall_us.wrapping_add(bytes.zigzag()?);
        draft.wall_us = wall_us;
    }
    let (mut wall_us, mut mono_us) = (header.wall_min, 0_u64);
    for draft in drafts.iter_mut() {
        let step = draft.wall_us.wrapping_sub(wall_us).wrapping_add(bytes.zigzag()?);
        mono_us = mono_us.wrapping_add(step.cast_unsigned());
        wall_us = draft.wall_us;
        draft.mono_us = mono_us;
    }
    let mut code = 0;
    for draft in drafts {
        if draft.flags & CLOCK != 0 {
            code = bytes.varint()?;
        }
        draft.clock = match code % 4 {
            0 => ClockQuality::Synced,
            1 => ClockQuality::Unsynced,
            2 => ClockQuality::Corrected,
            _ => return Err(ODD),
        };
        let boot = usize::try_from(code / 4).map_err(|_| ODD)?;
        draft.boot = *boots.get(boot).ok_or(ODD)?;
    }
    Ok(())
}

fn qualities(bytes: &mut Bytes<'_>, drafts: &mut [Draft]) -> Result<(), BlockFault> {
    for draft in drafts.iter_mut().filter(|draft| draft.flags & QUALITY != 0) {
        let n = draft.points.len();
        draft.codes.reserve_exact(n);
        while draft.codes.len() < n {
            let code = bytes.varint()?;
            let run = bytes.count(n - draft.codes.len())?;
            if run == 0 {
                return Err(ODD);
            }
            draft.codes.resize(draft.codes.len() + run, code);
        }
    }
    Ok(())
}

fn values(
    bytes: &mut Bytes<'_>,
    header: Header,
    shapes: &Shapes,
    drafts: Vec<Draft>,
) -> Result<Vec<Batch>, BlockFault> {
    let mut before = vec![Before::default(); shapes.points];
    let mut batches = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let (shape, base) = (&shapes.list[draft.shape], shapes.bases[draft.shape]);
        let mut readings = Vec::with_capacity(draft.points.len());
        for (at, point) in draft.points.iter().copied().enumerate() {
            let (quality, has_value) = quality(draft.codes.get(at).copied().unwrap_or_default())?;
            let index = usize::from(point);
            let value: Option<Value> = if has_value {
                Some(before[base + index].get(shape.points[index].kind, bytes)?)
            } else {
                None
            };
            readings.push(Reading { point, sample: Sample { value, quality } });
        }
        batches.push(Batch {
            run: header.run,
            seq: draft.seq,
            prev: draft.prev,
            stamp: Stamp {
                wall_us: draft.wall_us,
                mono_us: draft.mono_us,
                boot: draft.boot,
                clock: draft.clock,
            },
            shape: shape.clone(),
            readings: readings.into(),
        });
    }
    Ok(batches)
}

/// A quality code: the quality, and whether a value follows.
fn quality(code: u64) -> Result<(Quality, bool), BlockFault> {
    let cause = || {
        let cause = u16::try_from(code / 8).ok().and_then(Cause::from_code);
        cause.ok_or(BlockFault::Malformed("a cause that this version does not know"))
    };
    let odd = code % 2 == 1;
    Ok(match code / 2 % 4 {
        0 if code < 2 => (Quality::Good, !odd),
        1 => (Quality::Uncertain(cause()?), !odd),
        2 => (Quality::Bad(cause()?), odd),
        _ => return Err(ODD),
    })
}
