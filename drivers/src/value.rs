//! What a driver returns for one point: a value or the reason why there is none.
//!
//! Not here: stamps, sequence numbers, names. Those make a sample a reading, and the daemon's intake adds them.
//! A missing value is information: it has a [`Cause`], is stored and sent like any other.

use std::fmt;
use std::sync::Arc;

const TEXT_BYTES_MAX: usize = 256;

/// The value of one point after decoding and scaling.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A coil, a discrete input or one bit of a register.
    Bool(bool),
    /// A signed integer that was neither scaled nor offset.
    Int(i64),
    /// An unsigned integer that was neither scaled nor offset.
    Uint(u64),
    /// A 32-bit float as the device sent it; always finite.
    F32(f32),
    /// A 64-bit float, or any scaled number, rounded to the point's `decimals`; always finite.
    F64(f64),
    /// Text; control characters are already replaced, at most 256 bytes.
    Text(Arc<str>),
}

/// Which variant of [`Value`] a point yields. Fixed for the life of a point; part of its identity in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueKind {
    /// [`Value::Bool`]
    Bool,
    /// [`Value::Int`]
    Int,
    /// [`Value::Uint`]
    Uint,
    /// [`Value::F32`]
    F32,
    /// [`Value::F64`]
    F64,
    /// [`Value::Text`]
    Text,
}

impl Value {
    /// The variant of this value.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::Bool(_) => ValueKind::Bool,
            Self::Int(_) => ValueKind::Int,
            Self::Uint(_) => ValueKind::Uint,
            Self::F32(_) => ValueKind::F32,
            Self::F64(_) => ValueKind::F64,
            Self::Text(_) => ValueKind::Text,
        }
    }

    /// Text as an instrument sent it, made safe to show and to log: trailing spaces and NULs go; invalid UTF-8,
    /// control characters and characters that change the direction of text or have no width become U+FFFD; at most
    /// 256 bytes.
    pub fn text(bytes: &[u8]) -> Self {
        let lossy = String::from_utf8_lossy(bytes);
        let mut text = String::with_capacity(lossy.len().min(TEXT_BYTES_MAX));
        for c in lossy.trim_end_matches([' ', '\0']).chars() {
            let c = if c.is_control() || is_invisible(c) { char::REPLACEMENT_CHARACTER } else { c };
            if text.len() + c.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            text.push(c);
        }
        Self::Text(text.into())
    }

    /// The value as a number, for deadbands and trends; `None` for text.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Bool(b) => Some(f64::from(u8::from(b))),
            Self::Int(i) => Some(i as f64),
            Self::Uint(u) => Some(u as f64),
            Self::F32(f) => Some(f64::from(f)),
            Self::F64(f) => Some(f),
            Self::Text(_) => None,
        }
    }
}

/// Characters that reorder or hide their neighbours (Unicode Bidirectional Algorithm, UAX 9, 2; format characters).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Whether a value can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quality {
    /// The device answered and the value lies within its limits.
    Good,
    /// There is a value, and a reason to doubt it.
    Uncertain(Cause),
    /// There is no value.
    Bad(Cause),
}

/// Why a sample is bad or uncertain. The words of `Display` are part of the message format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The device did not answer in time.
    Silent,
    /// The port or connection to the bus is down.
    LinkDown,
    /// The device answered with a Modbus exception code (Modbus Application Protocol V1.1b3, 7).
    Exception(u8),
    /// Something arrived that cannot be believed: CRC, length, unit id, function or checksum.
    BadFrame,
    /// The value is one that the device's manual says means "no value".
    Sentinel,
    /// Not a number or infinite.
    NotANumber,
    /// Below the point's lower limit.
    BelowLimit,
    /// Above the point's upper limit.
    AboveLimit,
    /// The instrument's text does not hold a value where the point says it does.
    Unreadable,
    /// The scaled value does not fit its type.
    Overflow,
}

impl Cause {
    /// A number for storage, never reused: the cause in the high byte, its detail in the low byte.
    pub fn code(self) -> u16 {
        match self {
            Self::Silent => 0x0100,
            Self::LinkDown => 0x0200,
            Self::Exception(code) => 0x0300 | u16::from(code),
            Self::BadFrame => 0x0400,
            Self::Sentinel => 0x0500,
            Self::NotANumber => 0x0600,
            Self::BelowLimit => 0x0700,
            Self::AboveLimit => 0x0800,
            Self::Unreadable => 0x0900,
            Self::Overflow => 0x0a00,
        }
    }

    /// The inverse of [`Cause::code`]; `None` for a number this version does not know.
    pub fn from_code(code: u16) -> Option<Self> {
        let [high, low] = code.to_be_bytes();
        Some(match (high, low) {
            (0x01, 0) => Self::Silent,
            (0x02, 0) => Self::LinkDown,
            (0x03, exception) => Self::Exception(exception),
            (0x04, 0) => Self::BadFrame,
            (0x05, 0) => Self::Sentinel,
            (0x06, 0) => Self::NotANumber,
            (0x07, 0) => Self::BelowLimit,
            (0x08, 0) => Self::AboveLimit,
            (0x09, 0) => Self::Unreadable,
            (0x0a, 0) => Self::Overflow,
            _ => return None,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("silent"),
            Self::LinkDown => f.write_str("link down"),
            Self::Exception(code) => write!(f, "exception {code}"),
            Self::BadFrame => f.write_str("bad frame"),
            Self::Sentinel => f.write_str("sentinel"),
            Self::NotANumber => f.write_str("not a number"),
            Self::BelowLimit => f.write_str("below limit"),
            Self::AboveLimit => f.write_str("above limit"),
            Self::Unreadable => f.write_str("unreadable"),
            Self::Overflow => f.write_str("overflow"),
        }
    }
}

/// One point, once: a value, or none, and how far to trust it. `value` is `None` exactly when `quality` is `Bad`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The value, if there is one.
    pub value: Option<Value>,
    /// Whether to trust it, and why not.
    pub quality: Quality,
}

impl Sample {
    /// A value without doubts.
    pub fn good(value: Value) -> Self {
        Self { value: Some(value), quality: Quality::Good }
    }

    /// A value to be doubted.
    pub fn uncertain(value: Value, cause: Cause) -> Self {
        Self { value: Some(value), quality: Quality::Uncertain(cause) }
    }

    /// No value.
    pub fn bad(cause: Cause) -> Self {
        Self { value: None, quality: Quality::Bad(cause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_safe_to_show() {
        let shown = |bytes: &[u8]| match Value::text(bytes) {
            Value::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(b"EM24-DIN  \0\0"), "EM24-DIN");
        assert_eq!(shown(b"\0\0"), "");
        assert_eq!(shown(b"a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(shown("ab\u{202e}cd\u{200b}".as_bytes()), "ab\u{fffd}cd\u{fffd}");
        assert_eq!(shown(b"\xff\xfeV"), "\u{fffd}\u{fffd}V");
        assert_eq!(shown("ä".repeat(200).as_bytes()).len(), 256);
        assert_eq!(shown(&[0xff; 250]).len(), 255, "whole characters only");
    }

    #[test]
    fn every_cause_survives_its_code() {
        let mut known = 0;
        for code in 0..=u16::MAX {
            if let Some(cause) = Cause::from_code(code) {
                assert_eq!(cause.code(), code);
                known += 1;
            }
        }
        assert_eq!(known, 9 + 256, "nine plain causes and 256 exception codes");
    }
}
