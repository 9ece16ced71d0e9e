//! fieldspool: polls instruments, keeps every reading in a spool, publishes it, and shows the plant live.
//!
//! The modules stand in the order of the flow: [`model`] (what travels), [`config`] (what the daemon is told),
//! [`schedule`] (when to poll), [`intake`] (sample → reading → batch), [`spool`] (what is kept), [`uplink`] (what is sent),
//! [`live`] and [`page`] (what a technician sees), [`status`] (how it all is), [`control`] and [`cli`] (what a person asks),
//! [`supervise`] (the wiring). Begin with `model` and `supervise`; `daemon/ARCHITECTURE.md` has the map.
//!
//! # Promises, and the tests that guard them so far
//!
//! * P1 A reading counted as stored survives the end of the process and a power cut: `tests/crash` on a simulated
//!   disk, `tests/cuts` with the real binary, `tests/outage.rs`, `spool::tests`.
//! * P2 A power cut costs at most one window and one commit, at the cap up to 10 s more: `tests/crash`, after every turn of the writer;
//!   `spool::tests::wire`.
//! * P3 What leaves the backlog unacknowledged (room, age, a refusal for good, damage) leaves a gap record: `spool::tests`,
//!   `tests/damage`, judged in `tests/outage.rs`.
//! * P4 `(gateway, run, seq)` never repeats and names immutable content: `intake::tests`, `tests/crash`,
//!   `tests/receiver/receiver.py`.
//! * P5 No wrong value: the RTU engine's simulated line in `fieldspool-drivers`, `tests/values.rs`.
//! * P6 Silent devices cost at most their share: `schedule::due` in virtual time, `tests/neighbours.rs`; requests that a
//!   device ignores: `modbus::ignored` of the drivers.
//! * P7 Sampling never waits: every queue is bounded and drops by a written rule; `tests/outage.rs` and
//!   `tests/storage.rs` count the polls.
//! * P8 Live first: `uplink::session`.
//! * P9 A bad configuration never replaces a good one: `tests/process.rs`.
//! * P10 Faults heal by themselves: `tests/identity.rs`, `tests/serial.rs`, `tests/storage.rs`, `spool::tests`.

pub mod model;

mod sys;

mod mounts;

pub mod clock;

pub mod config;

pub mod schedule;

pub mod intake;

pub mod spool;

pub mod uplink;

pub mod live;

pub mod page;

pub mod status;

pub mod log;

pub mod control;

pub mod supervise;

pub mod cli;

pub mod demo;
