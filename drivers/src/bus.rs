//! The list of drivers, and the one owner of a line.
//!
//! A [`Bus`] owns one serial port or one TCP endpoint. Everything that goes over the line passes through its
//! `&mut self`: one transaction at a time. It is told what to poll and until when; *when* to poll is the daemon's
//! schedule. It opens its line at the first poll and again after a failure, with its own back-off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::point::{Point, Scaling, Source};
use crate::value::Sample;
use crate::{Section, line, modbus};

/// So long after its beginning a poll ends at the latest that asks more requests than its deadline has the time for: its
/// neighbours wait for it.
pub const GOES_ON_MAX: Duration = Duration::from_secs(20);

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

impl Link {
    /// The tags that [`Link::from_section`] knows.
    pub fn tags() -> &'static [&'static str] {
        &["modbus-tcp", "modbus-rtu", "modbus-rtu-tcp", "serial-line"]
    }

    /// Reads the table under a tag. `None` for an unknown tag, or when a fault was reported.
    pub fn from_section(tag: &str, section: &mut dyn Section) -> Option<Self> {
        match tag {
            "modbus-tcp" => modbus::TcpLink::from_section(section).map(Self::ModbusTcp),
            "modbus-rtu" => modbus::RtuLink::from_section(section).map(Self::ModbusRtu),
            "modbus-rtu-tcp" => modbus::RtuTcpLink::from_section(section).map(Self::ModbusRtuTcp),
            "serial-line" => line::Link::from_section(section).map(Self::SerialLine),
            _ => None,
        }
    }

    /// The tag of this link.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::ModbusTcp(_) => "modbus-tcp",
            Self::ModbusRtu(_) => "modbus-rtu",
            Self::ModbusRtuTcp(_) => "modbus-rtu-tcp",
            Self::SerialLine(_) => "serial-line",
        }
    }

    /// Where the line is: the path of the port, or `host:port`.
    pub fn place(&self) -> String {
        match self {
            Self::ModbusTcp(link) => link.endpoint.to_string(),
            Self::ModbusRtu(link) => link.port.path.clone(),
            Self::ModbusRtuTcp(link) => link.endpoint.to_string(),
            Self::SerialLine(link) => link.port.path.clone(),
        }
    }

    /// What is spoken on it.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::ModbusTcp(_) | Self::ModbusRtu(_) | Self::ModbusRtuTcp(_) => Protocol::Modbus,
            Self::SerialLine(_) => Protocol::Line,
        }
    }

    /// The serial port behind it, if there is one.
    pub fn serial_port(&self) -> Option<&str> {
        match self {
            Self::ModbusRtu(link) => Some(&link.port.path),
            Self::SerialLine(link) => Some(&link.port.path),
            Self::ModbusTcp(_) | Self::ModbusRtuTcp(_) => None,
        }
    }

    /// Longest wait for one answer to begin.
    pub fn timeout(&self) -> Duration {
        match self {
            Self::ModbusTcp(link) => link.timeout,
            Self::ModbusRtu(link) => link.timeout,
            Self::ModbusRtuTcp(link) => link.timeout,
            Self::SerialLine(link) => link.timeout,
        }
    }
}

/// What is spoken on a line: decides which keys a device and a point have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Modbus in any of its three envelopes.
    Modbus,
    /// Lines of text.
    Line,
}

/// What the `defaults` table of a profile says for all its points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// Keys of Modbus points.
    pub modbus: modbus::Defaults,
    /// Keys of all points.
    pub scaling: Scaling,
}

impl Protocol {
    /// Reads what a `defaults` table may say. Without one: `Defaults::default()`.
    pub fn defaults(self, section: &mut dyn Section) -> Option<Defaults> {
        let modbus = match self {
            Self::Modbus => modbus::Defaults::from_section(section),
            Self::Line => modbus::Defaults::default(),
        };
        Some(Defaults { modbus, scaling: Scaling::from_section(section, &Scaling::default()) })
    }

    /// Reads how the line reaches a device, from the device's table.
    pub fn address(self, section: &mut dyn Section) -> Option<Address> {
        match self {
            Self::Modbus => modbus::Device::from_section(section).map(Address::Modbus),
            Self::Line => Some(Address::Line(line::Device::from_section(section))),
        }
    }

    /// Reads where a point stands and how it is scaled, from the point's table.
    pub fn source_and_scaling(
        self,
        section: &mut dyn Section,
        defaults: &Defaults,
    ) -> Option<(Source, Scaling)> {
        let scaling = Scaling::from_section(section, &defaults.scaling);
        match self {
            Self::Modbus => {
                let source = modbus::Source::from_section(section, defaults.modbus)?;
                let scaling = source.checked(scaling, section);
                Some((Source::Modbus(source), scaling))
            }
            Self::Line => Some((Source::Line(line::Source::from_section(section)?), scaling)),
        }
    }
}

/// What the configuration says about a device on a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// A unit id and what its requests may look like.
    Modbus(modbus::Device),
    /// A query, or none for an instrument that talks by itself.
    Line(line::Device),
}

impl Address {
    /// As it is shown to a person: `unit 1`.
    pub fn words(&self) -> String {
        match self {
            Self::Modbus(device) => format!("unit {}", device.unit_id),
            Self::Line(device) => line::plan::words(device),
        }
    }
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

/// A fault in the meaning of a bus: each part is right, together they cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecFault {
    /// Index of the device.
    pub device: usize,
    /// Index of the point, if it is about one.
    pub point: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl BusSpec {
    /// Whether the bus wants a thread of its own: everything with a serial port, for the timing of silence.
    pub fn needs_thread(&self) -> bool {
        self.link.serial_port().is_some()
    }

    /// Every request of every group, for `check --plan` and the page.
    pub fn plan(&self) -> Vec<PlannedRequest> {
        match &self.link {
            Link::SerialLine(link) => line::plan::planned(link, &self.devices),
            _ => modbus::planned(self),
        }
    }

    /// Longest time that one request of the plan can hold the line: with slow speeds and long answers much more
    /// than the timeout. A poll with less time than this for each request cuts answers off.
    pub fn longest_request(&self) -> Duration {
        match &self.link {
            Link::SerialLine(_) => self.link.timeout(),
            _ => modbus::longest_request(self),
        }
    }

    /// All faults in the meaning: overlaps, values past the end of their table, unit ids used twice, ...
    pub fn faults(&self) -> Vec<SpecFault> {
        match self.link.protocol() {
            Protocol::Modbus => modbus::faults(self),
            Protocol::Line => line::plan::faults(&self.devices),
        }
    }
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

/// What one poll of a group brought. Every point of the group has exactly one sample, in the group's order, with two
/// exceptions: if the outcome is `Held`, nothing was asked and `samples` is empty; and of a group that is polled more
/// often than a bus debt can last, points that could not be asked because of one have none while the device answers.
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
    /// At least one believed answer (an exception is an answer). Also: the device answers, but never for this group
    /// (other words of an instrument that talks by itself; requests that it ignores); then no turnaround, but zero.
    Answered {
        /// From the end of the request to the first byte of the answer; the slowest of this poll.
        turnaround: Duration,
    },
    /// No believed answer before the deadline; the line itself works.
    Silent,
    /// No believed answer, but something that was meant for one: its check sum or its length is wrong. Somebody is there;
    /// whether it is the device show its other groups.
    Damaged,
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
    /// No answer in time, or a gateway that hung up at this device.
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

/// The one owner of a line.
#[derive(Debug)]
pub struct Bus {
    name: Arc<str>,
    driver: Driver,
    /// The line was down at the last poll; the log has one line for each edge.
    down: bool,
}

#[derive(Debug)]
enum Driver {
    Modbus(Box<modbus::Client>),
    Line(Box<line::Driver>),
}

impl Bus {
    /// Prepares a bus. Does no I/O: the line is opened by the first poll, inside the runtime that polls.
    pub fn open_lazily(spec: impl Into<Arc<BusSpec>>) -> Self {
        let spec = spec.into();
        let name = Arc::clone(&spec.name);
        let driver = match &spec.link {
            Link::SerialLine(link) => {
                Driver::Line(Box::new(line::Driver::new(Arc::clone(&name), link.clone(), &spec.devices)))
            }
            Link::ModbusTcp(link) => Driver::Modbus(Box::new(modbus::Client::tcp(&link.clone(), spec))),
            Link::ModbusRtu(link) => Driver::Modbus(Box::new(modbus::Client::rtu(&link.clone(), spec))),
            Link::ModbusRtuTcp(link) => {
                Driver::Modbus(Box::new(modbus::Client::rtu_tcp(&link.clone(), spec)))
            }
        };
        Self { name, driver, down: false }
    }

    /// Asks for all points of a group and returns by `deadline`, which has the time for its requests as planned. With more
    /// of them, because a device refused one as a whole, it goes on while they are answered, for [`GOES_ON_MAX`]. May be
    /// dropped at any time: the line stays usable. While the line is down it returns at once, or tries to open it if its
    /// back-off has passed.
    ///
    /// A device or group that the spec does not have yields an empty poll.
    pub async fn poll(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        let poll = match &mut self.driver {
            Driver::Modbus(client) => client.poll(device, group, deadline).await,
            Driver::Line(line) => line.poll(device, group, deadline).await,
        };
        self.log_edge(poll.outcome == Outcome::LinkDown);
        poll
    }

    fn log_edge(&mut self, down: bool) {
        if down && !self.down {
            let error = self.counters().last_error.as_deref().unwrap_or_default();
            tracing::warn!(bus = %self.name, %error, "bus is down; it is opened again by itself");
        } else if self.down && !down {
            tracing::info!(bus = %self.name, "bus is up again");
        }
        self.down = down;
    }

    /// Asks once for points that need not be in the spec, of one device; samples name them by their index in
    /// `points`. For commissioning: `fieldspool read`. It goes on behind `deadline` like a poll. Never [`Outcome::Held`] unless nothing could be asked.
    pub async fn read(&mut self, device: usize, points: &[Point], deadline: Instant) -> Poll {
        match &mut self.driver {
            Driver::Modbus(client) => client.read(device, points, deadline).await,
            Driver::Line(line) => line.read(device, points, deadline).await,
        }
    }

    /// Listens to the line until `until`, while the schedule has nothing to ask. Cancel-safe. Sees a vanished
    /// adapter or a closed connection at once, and late answers before they can be mistaken.
    pub async fn idle(&mut self, until: Instant) {
        match &mut self.driver {
            Driver::Modbus(client) => client.idle(until).await,
            Driver::Line(line) => line.idle(until).await,
        }
    }

    /// What the line has seen.
    pub fn counters(&self) -> &Counters {
        match &self.driver {
            Driver::Modbus(client) => client.counters(),
            Driver::Line(line) => line.counters(),
        }
    }

    /// Whether the port or connection is open.
    pub fn is_up(&self) -> bool {
        match &self.driver {
            Driver::Modbus(client) => client.is_up(),
            Driver::Line(line) => line.is_up(),
        }
    }
}
