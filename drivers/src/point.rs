//! One named value of a device: where it stands and how its raw value becomes a sample.
//!
//! Where it stands ([`Source`]) belongs to a protocol; what happens to the raw number ([`Scaling`]) is the same
//! for all. Deadband, heartbeat, label and unit are the daemon's business and do not appear here.

use std::sync::Arc;
use std::time::Duration;

use crate::value::ValueKind;
use crate::{line, modbus};

/// A point as a driver needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// `[a-z][a-z0-9_]{0,63}`, unique in its device.
    pub name: Arc<str>,
    /// Where in the device the value stands.
    pub source: Source,
    /// From the raw value to the sample.
    pub scaling: Scaling,
    /// How often it is polled. Points of one device with one period are polled together and form one batch.
    pub period: Duration,
}

impl Point {
    /// The variant that every value of this point has. Scaling makes a 64-bit float of any number.
    pub fn kind(&self) -> ValueKind {
        let raw = match &self.source {
            Source::Modbus(source) => source.kind(),
            Source::Line(source) => source.kind(),
        };
        match raw {
            ValueKind::Bool | ValueKind::Text => raw,
            _ if self.scaling.is_identity() => raw,
            _ => ValueKind::F64,
        }
    }
}

/// Where in a device a value stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A register, part of one, or a coil.
    Modbus(modbus::Source),
    /// A field in an instrument's line of text.
    Line(line::Source),
}

/// `value = raw × scale + offset`, rounded to `decimals`; then sentinels and limits.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Scaling {
    /// Factor; `None` is 1.
    pub scale: Option<f64>,
    /// Added after the factor, in the point's unit; `None` is 0.
    pub offset: Option<f64>,
    /// Digits after the decimal point, 0 to 9: scaled values are rounded to them, half away from zero. An unscaled
    /// value is never rounded; there, `decimals` is a hint for display.
    pub decimals: Option<u8>,
    /// Raw values that mean "no value", compared before scaling.
    pub sentinels: Vec<f64>,
    /// Below this, in the point's unit, a value is uncertain.
    pub min: Option<f64>,
    /// Above this, in the point's unit, a value is uncertain.
    pub max: Option<f64>,
}

impl Scaling {
    /// Whether a raw number passes unchanged.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none() && self.offset.is_none()
    }
}
