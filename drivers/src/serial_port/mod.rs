//! Serial ports: settings, opening with an exclusive lock, faults in a technician's words, precise silence.
//!
//! One place for every driver that speaks over a serial port. A [`SerialPort`] is a byte stream with two
//! promises: it never waits for the wire to drain (flushing is a no-op, because the kernel's drain blocks the
//! whole thread for the length of a frame and, on some USB adapters, for ever), and an adapter that vanished is an
//! error, never an endless stream of empty reads. Whoever sees the error drops the port at once: holding it makes
//! the kernel give the returning adapter another number.
//!
//! Not here: framing, retries and the back-off of reopening. Those belong to the driver that owns the line.
//!
//! Untested on hardware: RS-485 direction through the kernel ([`Rs485`]) and the low-latency flag.

mod fault;
mod holders;
mod open;
mod settings;
mod timer;

pub use fault::{PortFault, PortFaultKind, examine};
pub use holders::{Holder, holders};
pub use open::SerialPort;
pub use settings::{Format, Parity, PortSettings, Rs485};
pub use timer::{PreciseTimer, precise_sleep_until};

#[cfg(test)]
mod tests;
