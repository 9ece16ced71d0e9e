//! The one module of this crate with `unsafe`: two ioctls on serial ports that no safe wrapper covers, and the
//! registration of file descriptors with the runtime.
//!
//! Why it is sound: a registered descriptor must stay open and the same while it is registered; the types
//! here own theirs, cannot be made to give it up through a shared reference, and `AsyncFd` hands out no other.
//! Each ioctl is called on a descriptor borrowed for the call, with a pointer to a `repr(C)`
//! structure of exactly the kernel's size that lives through the call, and the kernel keeps no pointer to it.
//! The layouts are those of `linux/serial.h` and are part of the kernel's stable interface. The request numbers
//! come from libc, which knows the architectures that differ.
//!
//! Both ioctls are untested on hardware; a driver that does not know them answers ENOTTY, which is returned.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::timerfd::TimerFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const SER_RS485_ENABLED: u32 = 1 << 0;
const SER_RS485_RTS_ON_SEND: u32 = 1 << 1;
const ASYNC_LOW_LATENCY: libc::c_int = 1 << 13;

/// `struct serial_rs485`: flags, two delays in milliseconds, five words reserved.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SerialRs485 {
    flags: u32,
    delay_rts_before_send: u32,
    delay_rts_after_send: u32,
    padding: [u32; 5],
}

/// `struct serial_struct`. Only `flags` is ours; the rest is read, and written back as it was.
#[repr(C)]
pub(crate) struct SerialStruct {
    kind: libc::c_int,
    line: libc::c_int,
    port: libc::c_uint,
    irq: libc::c_int,
    flags: libc::c_int,
    xmit_fifo_size: libc::c_int,
    custom_divisor: libc::c_int,
    baud_base: libc::c_int,
    close_delay: libc::c_ushort,
    io_type: libc::c_char,
    reserved_char: [libc::c_char; 1],
    hub6: libc::c_int,
    closing_wait: libc::c_ushort,
    closing_wait2: libc::c_ushort,
    iomem_base: usize,
    iomem_reg_shift: libc::c_ushort,
    port_high: libc::c_uint,
    iomap_base: libc::c_ulong,
}

// The sizes the kernel copies: 8 words, and 72 bytes where pointers have 64 bits (60 where they have 32).
const _: () = assert!(size_of::<SerialRs485>() == 32);
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SerialStruct>() == 72);
#[cfg(target_pointer_width = "32")]
const _: () = assert!(size_of::<SerialStruct>() == 60);

nix::ioctl_write_ptr_bad!(tiocsrs485, libc::TIOCSRS485, SerialRs485);
nix::ioctl_read_bad!(tiocgserial, libc::TIOCGSERIAL, SerialStruct);
nix::ioctl_write_ptr_bad!(tiocsserial, libc::TIOCSSERIAL, SerialStruct);

/// Lets the kernel drive the direction of an RS-485 transceiver: RTS high while sending. Delays are rounded up
/// to whole milliseconds.
pub(crate) fn set_rs485(port: &impl AsRawFd, before: Duration, after: Duration) -> Result<(), Errno> {
    let millis = |delay: Duration| u32::try_from(delay.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
    let wanted = SerialRs485 {
        flags: SER_RS485_ENABLED | SER_RS485_RTS_ON_SEND,
        delay_rts_before_send: millis(before),
        delay_rts_after_send: millis(after),
        padding: [0; 5],
    };
    // SAFETY: see the module's text; the descriptor is open for the length of the borrow.
    unsafe { tiocsrs485(port.as_raw_fd(), &raw const wanted) }?;
    Ok(())
}

/// Asks the driver to hand over each byte as it arrives.
pub(crate) fn set_low_latency(port: &impl AsRawFd) -> Result<(), Errno> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut current: SerialStruct = unsafe { std::mem::zeroed() };
    // SAFETY: see the module's text.
    unsafe { tiocgserial(port.as_raw_fd(), &raw mut current) }?;
    current.flags |= ASYNC_LOW_LATENCY;
    // SAFETY: see the module's text.
    unsafe { tiocsserial(port.as_raw_fd(), &raw const current) }?;
    Ok(())
}

/// A timer that can be waited for.
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

impl Timer {
    /// The timer, to be set and read.
    pub(crate) fn get(&self) -> &TimerFd {
        &self.0
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers a non-blocking timer with the runtime that this is called in.
pub(crate) fn register_timer(timer: TimerFd) -> io::Result<AsyncFd<Timer>> {
    // SAFETY: `Timer` owns its descriptor and gives out only a shared reference, which cannot close it.
    Ok(unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?)
}

/// Registers a non-blocking descriptor with the runtime that this is called in.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
