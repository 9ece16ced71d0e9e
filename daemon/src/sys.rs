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

/// Makes the child of `command` get SIGKILL when the thread that starts it ends, however that comes about
/// (PR_SET_PDEATHSIG, prctl(2)).
pub(crate) fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;

    let parent = nix::unistd::getpid();
    let in_the_child = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have died before the call; then nobody would send the signal.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are two system calls without
    // allocation or lock, and errors made of plain numbers.
    unsafe { command.pre_exec(in_the_child) };
}
