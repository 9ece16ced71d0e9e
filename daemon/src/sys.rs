//! The daemon crate's one door to system calls that have no safe wrapper.
//!
//! Each function states why its call is sound. Nothing else in the crate may use `unsafe`.
#![allow(unsafe_code)]

use nix::libc;

/// Whether the kernel considers its clock set: `adjtimex` without `STA_UNSYNC` (adjtimex(2)). An NTP client clears
/// that flag when it has found the time; a machine that nobody told the time has it set. `None` if the call fails,
/// as in the unit's sandbox.
pub(crate) fn clock_is_synced() -> Option<bool> {
    // SAFETY: `timex` is a plain C structure for which all-zero is a valid value, and `modes = 0` asks for a
    // read-only call: the kernel only writes into the structure, which lives until the call returns.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex)
    };
    (state >= 0).then_some(timex.status & libc::STA_UNSYNC == 0)
}
