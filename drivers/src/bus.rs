//! The list of drivers, and the one owner of a line.
//!
//! A [`Bus`] owns one serial port or one TCP endpoint. Everything that goes over the line passes through its
//! `&mut self`: one transaction at a time. It is told what to poll and until when; *when* to poll is the daemon's
//! schedule. It opens its line at the first poll and again after a failure, with its own back-off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::point::Point;
use crate::value::Sample;
use crate::{line, modbus};

/// What the configuration says about a line, by driver. The names of the variants in kebab case are the tags
/// under `[bus.NAME.link.TAG]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// `modbus-tcp`
    ModbusTcp(modbus::TcpLink),
    /// `modbus-rtu`
    ModbusRtu(modbus::RtuLink),
    /// `modbus-rtu-tcp`: RTU frames through a terminal server.
    ModbusRtuTcp(modbus::RtuTcpLink),
    /// `serial-line`: an instrument that speaks lines of text.
    SerialLine(line::Link),
}

/// What the configuration says about a device on a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// A unit id and what its requests may look like.
    Modbus(modbus::Device),
    /// A query, or none for an instrument that talks by itself.
    Line(line::Device),
}

/// A bus with its devices, ready to be opened.
#[derive(Clone, Debug, PartialEq)]
pub struct BusSpec {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The line.
    pub link: Link,
    /// Its devices; polls name them by their index here.
    pub devices: Vec<DeviceSpec>,
}

/// A device and what is polled of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpec {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// How the line reaches it.
    pub address: Address,
    /// All its points; samples name them by their index here.
    pub points: Vec<Point>,
    /// Which points are polled together, by period, shortest first.
    pub groups: Vec<Group>,
}

/// Points of one device that are polled together and form one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// How often.
    pub period: Duration,
    /// Indices into [`DeviceSpec::points`], ascending.
    pub points: Vec<u16>,
}

/// What one poll of a group brought. Every point of the group has exactly one sample, in the group's order,
/// unless the outcome is `Held`: then nothing was asked and `samples` is empty.
#[derive(Clone, Debug)]
pub struct Poll {
    /// (index of the point, its sample).
    pub samples: Vec<(u16, Sample)>,
    /// When the first answer began to arrive (when the last request ended, if there was none).
    pub at: Instant,
    /// What happened to the device as a whole.
    pub outcome: Outcome,
    /// How long the line was in use.
    pub busy: Duration,
}

/// What a poll says about its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At least one believed answer (an exception is an answer).
    Answered {
        /// From the end of the request to the first byte of the answer; the slowest of this poll.
        turnaround: Duration,
    },
    /// No believed answer before the deadline; the line itself works.
    Silent,
    /// The port or connection is down; the reason is in [`Counters::last_error`].
    LinkDown,
    /// Nothing was sent: a late answer of equal shape may still arrive until then (bus debt, P5). Poll something
    /// else and come back.
    Held {
        /// When this group may be asked again.
        until: Instant,
    },
}

/// What the line has seen since the daemon started, by kind. All monotonic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests written.
    pub requests: u64,
    /// Believed answers.
    pub answers: u64,
    /// Answers that were exceptions, by code 0 to 255 summed.
    pub exceptions: u64,
    /// No answer in time.
    pub timeouts: u64,
    /// CRC or checksum errors.
    pub crc_errors: u64,
    /// Whole frames that answered no open request: late, doubled, or another master's.
    pub foreign_frames: u64,
    /// Frames of a wrong length or structure.
    pub bad_frames: u64,
    /// Echoes of our own requests, stripped.
    pub echoes: u64,
    /// Times the port or connection was opened.
    pub opens: u64,
    /// Bytes received and sent.
    pub bytes: u64,
    /// Why the line is down, or was last, in words for a technician; `None` while all is well.
    pub last_error: Option<Arc<str>>,
}

/// One planned request, for `check --plan` and the page.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRequest {
    /// Index of the device.
    pub device: usize,
    /// Index of the group in the device.
    pub group: usize,
    /// In the protocol's words: `unit 1, input registers 52 to 75 (24)`.
    pub words: String,
    /// Time the line is in use for it at the link's speed with the expected turnaround; zero on TCP.
    pub cost: Duration,
}
