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

/// How many characters fit into a line of the terminal on standard output; `None` if it is no terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    // SAFETY: `winsize` is a plain C structure for which all-zero is valid; TIOCGWINSZ (ioctl_tty(2)) only writes
    // into it, and it lives until the call returns. Standard output may be closed: then the call fails.
    let (result, size) = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let result = libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size);
        (result, size)
    };
    (result == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Gives freed memory back to the system: glibc's thresholds grow with use and then keep the peak of every thread; fixed
/// at 128 KiB they do not (mallopt(3)). To be called before the first thread starts. Elsewhere than on glibc: nothing.
pub(crate) fn give_freed_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        const BYTES: libc::c_int = 128 * 1024;
        // SAFETY: mallopt only sets parameters of the allocator and takes two integers; no other thread runs yet. A
        // refused parameter leaves the default, which costs memory and nothing else.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, BYTES);
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
