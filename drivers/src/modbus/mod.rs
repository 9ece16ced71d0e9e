//! Modbus: addresses, types, requests, and the three ways they travel (TCP, RTU, RTU over TCP).

use std::time::Duration;

use crate::value::ValueKind;

/// Settings of `modbus-tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpLink {
    /// Host name or address.
    pub host: String,
    /// TCP port, 502 unless said.
    pub port: u16,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// Settings of `modbus-rtu`.
#[derive(Clone, Debug, PartialEq)]
pub struct RtuLink {
    /// Path of the serial port.
    pub port: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// Settings of `modbus-rtu-tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct RtuTcpLink {
    /// Host name or address of the terminal server.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// A Modbus device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// 1 to 247 on serial lines; 0 and 255 also on TCP.
    pub unit_id: u8,
}

/// Where in a Modbus device a value stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// 0-based protocol address.
    pub address: u16,
}

impl Source {
    /// The variant of the raw value.
    pub fn kind(&self) -> ValueKind {
        ValueKind::Uint
    }
}
