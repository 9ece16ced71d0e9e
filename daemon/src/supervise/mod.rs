//! The process: start, stop, reload, and what systemd is told.

pub mod crash_loop;
pub mod identity;
pub mod notify;
pub mod watchdog;
