//! Buses and bytes: how fieldspool talks to instruments.
//!
//! This crate stands at the wire end of the road `bus → batch → spool and live lane → broker and page`. It turns
//! a description of a bus into samples and counters. It knows no MQTT, no SQLite, no wall clock and no
//! configuration file: settings reach it through [`Section`], time as [`std::time::Instant`].
//!
//! Reading order: [`value`] (what a sample is), [`section`] (how settings arrive), [`point`] (what is asked of a
//! device), [`bus`] (the list of drivers and the one owner of a line), then one driver, [`modbus`] first.
//!
//! Promises: no wrong value (P5), a total deadline for each transaction, bounded buffers on any input, no panic
//! on outside data. A fault is a [`value::Cause`] on the samples it concerns and a counter on the bus.
//!
//! Adding a driver touches three files: `src/<driver>.rs`, the list in `src/bus.rs`, `config/examples/<driver>.toml`.

pub mod value;

pub mod section;

pub mod point;

pub mod bus;

pub mod serial_port;

pub mod modbus;

pub mod line;

pub mod simulator;

mod sys;

pub use section::Section;
pub use value::{Cause, Quality, Sample, Value, ValueKind};
