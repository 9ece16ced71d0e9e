//! System tests: the real binary against peers that nobody here wrote (libmodbus, mosquitto, Chromium), one module for
//! each promise. What they share stands in `support`.
//!
//! Nothing here sleeps to wait: every wait is for a condition, with a deadline after which the test fails and shows
//! the gateway's log. Ports are free ones; directories are temporary.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, missing_docs, unreachable_pub)]
// Configurations are built of readable pieces; speed is of no interest here.
#![allow(clippy::format_collect, clippy::format_push_string)]

mod support;

mod bad_input;
mod cuts;
mod demo;
mod export;
mod gaps;
mod identity;
mod layering;
mod neighbours;
mod outage;
mod page;
mod process;
mod receiver;
mod resend;
mod serial;
mod shipped;
mod storage;
mod values;
