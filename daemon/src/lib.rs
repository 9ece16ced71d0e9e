//! fieldspool: polls instruments, keeps every reading in a spool, publishes it, and shows the plant live.

pub mod model;

mod sys;

pub mod clock;

pub mod config;

pub mod schedule;

pub mod intake;

pub mod spool;

pub mod status;

pub mod log;
pub mod uplink;

pub mod live;

pub mod page;

pub mod control;

pub mod supervise;

pub mod cli;
pub mod demo;
