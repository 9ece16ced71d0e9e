//! Silence to the fraction of a millisecond.
//!
//! The runtime's own timer counts whole milliseconds: a wait of 1.75 ms takes more than 3. A timerfd is waited
//! for like a socket and is late only by the scheduler, 0.1 to 0.3 ms on an idle board; it is never early.

use std::io;
use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// A timer of its own, for the one task that owns a bus. Made inside a runtime.
#[derive(Debug)]
pub struct PreciseTimer {
    timer: AsyncFd<sys::Timer>,
}

impl PreciseTimer {
    /// A timer that is not running. Fails when the process has no file descriptor left, or outside a runtime.
    pub fn new() -> io::Result<Self> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Self { timer: sys::register_timer(timer)? })
    }

    /// Returns at `deadline`, never before; at once if it has passed. Cancel-safe.
    pub async fn sleep_until(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // Setting the timer also clears an expiration that a cancelled wait has left behind.
            let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
            self.timer.get_ref().get().set(expiration, TimerSetTimeFlags::empty())?;
            let mut ready = self.timer.readable_mut().await?;
            // The wait does not block: the descriptor is O_NONBLOCK, and "would block" clears the readiness.
            if let Ok(waited) = ready.try_io(|timer| Ok(timer.get_ref().get().wait()?)) {
                waited?;
            }
        }
    }
}

/// [`PreciseTimer::sleep_until`] for an occasional wait; falls back to the runtime's timer if no descriptor is left.
pub async fn precise_sleep_until(deadline: Instant) {
    if let Ok(mut timer) = PreciseTimer::new()
        && timer.sleep_until(deadline).await.is_ok()
    {
        return;
    }
    tokio::time::sleep_until(deadline.into()).await;
}
