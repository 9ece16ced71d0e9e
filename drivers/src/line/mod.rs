//! Line-oriented serial instruments: free-running (NMEA-like) or query and answer.

use crate::value::ValueKind;

/// Settings of `serial-line`.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Path of the serial port.
    pub port: String,
}

/// An instrument on the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {}

/// Where in the instrument's text a value stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {}

impl Source {
    /// The variant of the raw value.
    pub fn kind(&self) -> ValueKind {
        ValueKind::F64
    }
}
