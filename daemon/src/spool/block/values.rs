//! Values in a block: one token each, packed against the value before of the same point in the same block.
//!
//! ```text
//! token byte = mode * 16 + parameter
//!   0 SAME      the value before again
//!   1 DECIMAL   a float m / 10^parameter (0 to 6, computed in f64, then rounded to f32 if it is one); zigzag of m minus
//!               the m before if that was DECIMAL with the same parameter, else minus 0
//!   2 HEAD      a float; its bits XOR the bits before (0 at first), big-endian, leading zero bytes left out:
//!               `parameter` bytes follow
//!   3 TAIL      as HEAD, but trailing zero bytes are left out
//!   4 INTEGER   zigzag of the value minus the one before (0 at first)
//!   5 BOOL      the parameter
//!   6 TEXT      varint length, UTF-8
//!   7 OTHER     the value is not of the point's kind: parameter 0 bool (1 byte), 1 int (8), 2 uint (8), 3 f32 (4),
//!               4 f64 (8), all little-endian, 5 text (varint length, UTF-8). Changes nothing of what comes "before".
//! ```
//!
//! DECIMAL is what makes scaled values small: 230.1 is 2301 and one digit, 3 bytes instead of 9.

use std::sync::Arc;

use fieldspool_drivers::{Value, ValueKind};

use super::BlockFault;
use super::bytes::{Bytes, put_varint, put_zigzag};

const SAME: u8 = 0;
const DECIMAL: u8 = 1;
const HEAD: u8 = 2;
const TAIL: u8 = 3;
const INTEGER: u8 = 4;
const BOOL: u8 = 5;
const TEXT: u8 = 6;
const OTHER: u8 = 7;

const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
/// Beyond it a decimal is no shorter than the bits, and f64 no longer holds every integer.
const MANTISSA_MAX: f64 = 9_007_199_254_740_992.0;
/// An f32 is worth a decimal only while its zigzag fits three bytes.
const MANTISSA_MAX_F32: f64 = 1_048_576.0;
const F32_DIGITS: usize = 4;

/// What is remembered of one point inside a block.
#[derive(Clone, Default)]
pub(super) struct Before {
    seen: bool,
    bits: u64,
    mantissa: i64,
    /// Parameter of the last DECIMAL; `None` after anything else.
    digits: Option<u8>,
    /// Floats of this point do not come as short decimals: stop looking.
    raw: bool,
    text: Option<Arc<str>>,
}

impl Before {
    /// Appends the token of a value of a point of `kind`.
    pub(super) fn put(&mut self, kind: ValueKind, value: &Value, out: &mut Vec<u8>) {
        match (kind, value) {
            (ValueKind::F64, Value::F64(float)) => self.put_f64(*float, out),
            (ValueKind::F32, Value::F32(float)) => self.put_f32(*float, out),
            (ValueKind::Int, Value::Int(int)) => self.put_integer(int.cast_unsigned(), out),
            (ValueKind::Uint, Value::Uint(uint)) => self.put_integer(*uint, out),
            (ValueKind::Bool, Value::Bool(bool)) => out.push(BOOL << 4 | u8::from(*bool)),
            (ValueKind::Text, Value::Text(text)) => {
                if self.text.as_ref() == Some(text) {
                    out.push(SAME << 4);
                    return;
                }
                out.push(TEXT << 4);
                put_text(text, out);
                self.text = Some(text.clone());
            }
            (_, other) => put_other(other, out),
        }
    }

    fn put_integer(&mut self, bits: u64, out: &mut Vec<u8>) {
        if self.seen && self.bits == bits {
            out.push(SAME << 4);
            return;
        }
        out.push(INTEGER << 4);
        put_zigzag(out, bits.wrapping_sub(self.bits).cast_signed());
        self.seen = true;
        self.bits = bits;
    }

    fn put_f64(&mut self, float: f64, out: &mut Vec<u8>) {
        let bits = float.to_bits();
        if self.seen && self.bits == bits {
            out.push(SAME << 4);
            return;
        }
        let fits = |mantissa: f64, power: f64| (mantissa / power).to_bits() == bits;
        let found = self.decimal(float, POWERS.len(), MANTISSA_MAX, fits);
        self.put_float(found, bits, 8, out);
    }

    fn put_f32(&mut self, float: f32, out: &mut Vec<u8>) {
        let bits = float.to_bits();
        if self.seen && self.bits == u64::from(bits) {
            out.push(SAME << 4);
            return;
        }
        let fits = |mantissa: f64, power: f64| narrow(mantissa / power).to_bits() == bits;
        let found = self.decimal(f64::from(float), F32_DIGITS, MANTISSA_MAX_F32, fits);
        self.put_float(found, u64::from(bits), 4, out);
    }

    /// The float as a short decimal, if it is one: the digits of the value before first.
    fn decimal(
        &self,
        float: f64,
        powers: usize,
        most: f64,
        fits: impl Fn(f64, f64) -> bool,
    ) -> Option<(u8, i64)> {
        if self.raw {
            return None;
        }
        let guess = usize::from(self.digits.unwrap_or(0));
        for digits in std::iter::once(guess).chain((0..powers).filter(|digits| *digits != guess)) {
            let power = *POWERS.get(digits)?;
            let mantissa = (float * power).round();
            let negative_zero = mantissa == 0.0 && mantissa.is_sign_negative();
            if mantissa.abs() < most && !negative_zero && fits(mantissa, power) {
                #[allow(clippy::cast_possible_truncation)] // below 2^53 and whole, and digits below 7
                return Some((digits as u8, mantissa as i64));
            }
        }
        None
    }

    fn put_float(&mut self, decimal: Option<(u8, i64)>, bits: u64, width: usize, out: &mut Vec<u8>) {
        if let Some((digits, mantissa)) = decimal {
            out.push(DECIMAL << 4 | digits);
            let base = if self.digits == Some(digits) { self.mantissa } else { 0 };
            put_zigzag(out, mantissa.wrapping_sub(base));
            self.digits = Some(digits);
            self.mantissa = mantissa;
        } else {
            let all = (bits ^ self.bits).to_be_bytes();
            let changed = &all[8 - width..];
            let head = changed.iter().take_while(|byte| **byte == 0).count();
            let tail = changed.iter().rev().take_while(|byte| **byte == 0).count();
            let (mode, kept) =
                if tail > head { (TAIL, &changed[..width - tail]) } else { (HEAD, &changed[head..]) };
            out.push(mode << 4 | kept.len().to_le_bytes()[0]);
            out.extend_from_slice(kept);
            self.digits = None;
            self.raw = true;
        }
        self.seen = true;
        self.bits = bits;
    }

    /// Reads one token.
    pub(super) fn get(&mut self, kind: ValueKind, bytes: &mut Bytes<'_>) -> Result<Value, BlockFault> {
        let token = bytes.byte()?;
        let parameter = token & 0x0f;
        match (token >> 4, kind) {
            (OTHER, _) => return get_other(parameter, bytes),
            (SAME, ValueKind::Text) => {
                return self.text.clone().map(Value::Text).ok_or(BlockFault::Malformed("no text before"));
            }
            (TEXT, ValueKind::Text) => {
                let text = get_text(bytes)?;
                self.text = Some(text.clone());
                return Ok(Value::Text(text));
            }
            (BOOL, ValueKind::Bool) => return Ok(Value::Bool(parameter == 1)),
            (SAME, ValueKind::Int | ValueKind::Uint | ValueKind::F32 | ValueKind::F64) if self.seen => {}
            (INTEGER, ValueKind::Int | ValueKind::Uint) => {
                self.bits = self.bits.wrapping_add(bytes.zigzag()?.cast_unsigned());
            }
            (DECIMAL, ValueKind::F32 | ValueKind::F64) => self.get_decimal(kind, parameter, bytes)?,
            (mode @ (HEAD | TAIL), ValueKind::F32) => self.get_changed::<4>(mode, parameter, bytes)?,
            (mode @ (HEAD | TAIL), ValueKind::F64) => self.get_changed::<8>(mode, parameter, bytes)?,
            _ => return Err(BlockFault::Malformed("a token that does not fit its point")),
        }
        self.seen = true;
        match kind {
            ValueKind::Int => Ok(Value::Int(self.bits.cast_signed())),
            ValueKind::Uint => Ok(Value::Uint(self.bits)),
            ValueKind::F32 => u32::try_from(self.bits)
                .map(|bits| Value::F32(f32::from_bits(bits)))
                .map_err(|_| BlockFault::Malformed("an f32 beyond 32 bits")),
            _ => Ok(Value::F64(f64::from_bits(self.bits))),
        }
    }

    fn get_decimal(&mut self, kind: ValueKind, digits: u8, bytes: &mut Bytes<'_>) -> Result<(), BlockFault> {
        let power = POWERS.get(usize::from(digits)).ok_or(BlockFault::Malformed("too many digits"))?;
        let base = if self.digits == Some(digits) { self.mantissa } else { 0 };
        self.mantissa = base.wrapping_add(bytes.zigzag()?);
        self.digits = Some(digits);
        let float = self.mantissa as f64 / power;
        self.bits = if kind == ValueKind::F32 { u64::from(narrow(float).to_bits()) } else { float.to_bits() };
        Ok(())
    }

    fn get_changed<const WIDTH: usize>(
        &mut self,
        mode: u8,
        kept: u8,
        bytes: &mut Bytes<'_>,
    ) -> Result<(), BlockFault> {
        let kept = bytes.take(usize::from(kept))?;
        let mut changed = [0; 8];
        let from = if mode == HEAD { 8usize.checked_sub(kept.len()) } else { Some(8 - WIDTH) };
        let place = from
            .filter(|from| *from >= 8 - WIDTH)
            .and_then(|from| changed.get_mut(from..from + kept.len()))
            .ok_or(BlockFault::Malformed("more bytes than the float has"))?;
        place.copy_from_slice(kept);
        self.bits ^= u64::from_be_bytes(changed);
        self.digits = None;
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation)] // rounding to f32 is what the format says
pub(super) fn narrow(float: f64) -> f32 {
    float as f32
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn get_text(bytes: &mut Bytes<'_>) -> Result<Arc<str>, BlockFault> {
    let length = bytes.count(bytes.left())?;
    let text = std::str::from_utf8(bytes.take(length)?).map_err(|_| BlockFault::Malformed("not UTF-8"))?;
    Ok(Arc::from(text))
}

fn put_other(value: &Value, out: &mut Vec<u8>) {
    let kind = |code: u8| OTHER << 4 | code;
    match value {
        Value::Bool(bool) => out.extend([kind(0), u8::from(*bool)]),
        Value::Int(int) => {
            out.push(kind(1));
            out.extend(int.to_le_bytes());
        }
        Value::Uint(uint) => {
            out.push(kind(2));
            out.extend(uint.to_le_bytes());
        }
        Value::F32(float) => {
            out.push(kind(3));
            out.extend(float.to_bits().to_le_bytes());
        }
        Value::F64(float) => {
            out.push(kind(4));
            out.extend(float.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            out.push(kind(5));
            put_text(text, out);
        }
    }
}

fn get_other(kind: u8, bytes: &mut Bytes<'_>) -> Result<Value, BlockFault> {
    Ok(match kind {
        0 => Value::Bool(bytes.byte()? == 1),
        1 => Value::Int(bytes.u64()?.cast_signed()),
        2 => Value::Uint(bytes.u64()?),
        3 => Value::F32(f32::from_bits(bytes.u32()?)),
        4 => Value::F64(f64::from_bits(bytes.u64()?)),
        5 => Value::Text(get_text(bytes)?),
        _ => return Err(BlockFault::Malformed("a kind that does not exist")),
    })
}
