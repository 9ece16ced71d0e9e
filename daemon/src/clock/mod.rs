//! The only place that asks for the wall clock: stamps for readings, and the news that the clock was set.
//!
//! Gateways boot without a clock. A stamp therefore carries the wall clock as shown, the boot clock, the boot id
//! and how far the wall clock can be trusted. When the clock is first set in a boot, one `clock` record says by how
//! much the earlier stamps are wrong; receivers and the backlog apply it. Nothing in the daemon orders, expires or
//! schedules by wall time.
//!
//! [`ClockWatch`] is the pure part: it is told what the clocks show and decides. [`Clock`] asks the kernel, and where
//! the unit's sandbox forbids that, [`timedate`]. There is one clock in the process, and everybody stamps by it: a stamp reads
//! two clocks of the kernel and a decision that is there, and waits for nobody.

mod timedate;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use timedate::Told;

use crate::model::event::Body;
use crate::model::{BootId, ClockQuality, Stamp};
use crate::sys;

/// What the clocks showed at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Wall clock, µs since 1970 UTC.
    pub wall_us: i64,
    /// CLOCK_BOOTTIME, µs.
    pub mono_us: u64,
    /// The kernel says that somebody set the clock.
    pub synced: bool,
}

/// Decides how stamps are to be trusted, and notices the moment the clock is first set.
#[derive(Clone, Debug)]
pub struct ClockWatch {
    boot: BootId,
    trust_rtc: bool,
    /// Wall minus boot clock while nobody had set it; `None` once it was set, or when it is trusted from the start.
    unsynced_base_us: Option<i64>,
    set: bool,
}

impl ClockWatch {
    /// Begins with what the clocks show at start. `trust_rtc`: the user vouches for the clock as it is.
    pub fn new(boot: BootId, trust_rtc: bool, first: Shown) -> Self {
        let set = trust_rtc || first.synced;
        Self { boot, trust_rtc, unsynced_base_us: (!set).then(|| base_us(first)), set }
    }

    /// Whether stamps taken now can be trusted.
    pub fn quality(&self) -> ClockQuality {
        if self.set { ClockQuality::Synced } else { ClockQuality::Unsynced }
    }

    /// The wall clock of a stamp at a moment when the clocks showed `wall_us` and `mono_us`.
    ///
    /// Until [`look`](Self::look) has noticed that the clock was set, stamps go on by the clock as it was: they say
    /// `unsynced`, and what says so is corrected by the offset, which must not be added to a time that is already true.
    pub fn wall_us(&self, wall_us: i64, mono_us: u64) -> i64 {
        self.unsynced_base_us.map_or(wall_us, |base| base.saturating_add_unsigned(mono_us))
    }

    /// Looks again. Returns the record to write when the clock has been set since the last look, once per boot and run.
    ///
    /// A step while unsynced (a person typing `date`, a saved time restored) moves the base, so the offset is that
    /// of the stamps since the last step; older ones of this boot stay as wrong as they were shown.
    pub fn look(&mut self, now: Shown) -> Option<Body> {
        if self.set {
            // Losing the server later does not make a clock that was set a wrong one.
            return None;
        }
        let base = self.unsynced_base_us.replace(base_us(now)).unwrap_or_else(|| base_us(now));
        if !now.synced && !self.trust_rtc {
            return None;
        }
        self.set = true;
        self.unsynced_base_us = None;
        Some(Body::Clock {
            boot: self.boot,
            offset_us: base_us(now).saturating_sub(base),
            at_mono_us: now.mono_us,
        })
    }
}

/// Wall minus boot clock: constant while nobody touches the wall clock.
fn base_us(shown: Shown) -> i64 {
    shown.wall_us.saturating_sub_unsigned(shown.mono_us)
}

/// The kernel's clocks, and a [`ClockWatch`] over them. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Locked for a copy or a comparison, never while anything is asked.
    watch: Arc<Mutex<ClockWatch>>,
    /// Who tells whether the clock is set, where the kernel may not be asked.
    told: Option<Arc<Told>>,
}

impl Clock {
    /// Asks the kernel for the boot id and the clocks. Once in a process: where the kernel may not be asked this starts a
    /// thread, and waits half a second for its first answer.
    pub fn new(trust_rtc: bool) -> Self {
        let ask = !trust_rtc && sys::clock_is_synced().is_none();
        let told =
            ask.then(|| Told::start(Path::new(timedate::SYSTEM_BUS), timedate::AT_START)).and_then(|told| {
                told.inspect_err(|error| tracing::warn!(%error, "clock not watched: stamps stay unsynced"))
                    .ok()
            });
        Self::over(trust_rtc, told)
    }

    fn over(trust_rtc: bool, told: Option<Told>) -> Self {
        let watch = ClockWatch::new(boot_id(), trust_rtc, shown(told.as_ref()));
        Self { watch: Arc::new(Mutex::new(watch)), told: told.map(Arc::new) }
    }

    fn watch(&self) -> MutexGuard<'_, ClockWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stamp for something that happened at `at`, not long ago.
    pub fn stamp(&self, at: Instant) -> Stamp {
        let ago_us = u64::try_from(at.elapsed().as_micros()).unwrap_or(0);
        let shown_us = wall_us().saturating_sub_unsigned(ago_us);
        let mono_us = mono_us().saturating_sub(ago_us);
        let watch = self.watch();
        Stamp { wall_us: watch.wall_us(shown_us, mono_us), mono_us, boot: watch.boot, clock: watch.quality() }
    }

    /// Looks at the clock; to be called about once a second until it was set, by one caller. The record, if the clock was just
    /// set.
    pub fn look(&self) -> Option<Body> {
        if self.is_synced() {
            return None;
        }
        let now = shown(self.told.as_deref());
        self.watch().look(now)
    }

    /// Whether stamps can be trusted.
    pub fn is_synced(&self) -> bool {
        self.watch().set
    }
}

/// Wall clock now, µs since 1970 UTC. For display and for validity of certificates, never for ordering.
pub fn wall_us() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, i64::wrapping_neg),
    }
}

/// CLOCK_BOOTTIME now, µs: runs through suspend, never jumps.
fn mono_us() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| t.tv_sec() * 1_000_000 + t.tv_nsec() / 1_000);
    u64::try_from(now).unwrap_or(0)
}

fn shown(told: Option<&Told>) -> Shown {
    let synced = sys::clock_is_synced().unwrap_or_else(|| told.is_some_and(Told::is_synced));
    Shown { wall_us: wall_us(), mono_us: mono_us(), synced }
}

/// The kernel's id of this boot; zero where /proc does not tell.
fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    BootId(u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId(7);

    fn at(wall_us: i64, mono_us: u64, synced: bool) -> Shown {
        Shown { wall_us, mono_us, synced }
    }

    #[test]
    fn the_first_setting_of_the_clock_yields_one_record_with_its_offset() {
        let mut watch = ClockWatch::new(BOOT, false, at(1_000_000, 500_000, false));
        assert_eq!(watch.quality(), ClockQuality::Unsynced);
        assert_eq!(watch.look(at(2_000_000, 1_500_000, false)), None);
        let set = watch.look(at(1_700_000_003_000_000, 2_500_000, true));
        assert_eq!(
            set,
            Some(Body::Clock { boot: BOOT, offset_us: 1_700_000_000_000_000, at_mono_us: 2_500_000 }),
            "the clock showed 3.0 s at boot time 2.5 s and now shows 1 700 000 003 s"
        );
        assert_eq!(watch.quality(), ClockQuality::Synced);
        assert_eq!(watch.look(at(5, 3_500_000, true)), None, "once per run");
    }

    #[test]
    fn a_clock_that_was_set_before_the_start_needs_no_record() {
        let mut watch = ClockWatch::new(BOOT, false, at(1_700_000_000_000_000, 1, true));
        assert_eq!(watch.quality(), ClockQuality::Synced);
        assert_eq!(
            watch.look(at(1_700_000_001_000_000, 2, false)),
            None,
            "losing the server is not unsetting"
        );
        assert_eq!(watch.quality(), ClockQuality::Synced);
    }

    #[test]
    fn a_stamp_between_the_setting_and_its_discovery_is_right_after_correction() {
        let mut watch = ClockWatch::new(BOOT, false, at(1_000_000, 500_000, false));
        // The clock is set at boot time 1.0 s; a sample is taken at 1.2 s, and `look` comes at 1.5 s.
        let stamped = watch.wall_us(1_700_000_001_200_000, 1_200_000);
        assert_eq!(watch.quality(), ClockQuality::Unsynced);
        let set = watch.look(at(1_700_000_001_500_000, 1_500_000, true));
        let Some(Body::Clock { offset_us, at_mono_us: 1_500_000, .. }) = set else { panic!("{set:?}") };
        assert_eq!(stamped + offset_us, 1_700_000_001_200_000, "the true time of the sample");
        assert_eq!(watch.wall_us(1_700_000_002_000_000, 2_000_000), 1_700_000_002_000_000);
    }

    #[test]
    fn a_trusted_rtc_is_believed_from_the_start() {
        let watch = ClockWatch::new(BOOT, true, at(1, 1, false));
        assert_eq!(watch.quality(), ClockQuality::Synced);
    }

    #[test]
    fn stamps_ask_nobody_however_many_and_whoever_takes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let bus = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // Nobody answers, as when timedated hangs.
        let told = Told::start(&path, std::time::Duration::from_millis(1)).unwrap();
        let clock = Clock::over(false, Some(told));
        let takes: Vec<Box<dyn Fn() -> Stamp + Send + Sync>> = (0..8)
            .map(|_| clock.clone())
            .map(|clock| -> Box<dyn Fn() -> Stamp + Send + Sync> {
                Box::new(move || clock.stamp(Instant::now()))
            })
            .collect();
        for _ in 0..10 {
            assert!(takes.iter().all(|take| take().wall_us > 0));
            clock.look();
        }
        // The one connection of the one thread, and no other.
        let _first = bus.accept().unwrap();
        bus.set_nonblocking(true).unwrap();
        assert_eq!(bus.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_clone_learns_what_the_one_who_looks_found() {
        let clock = Clock::over(true, None);
        *clock.watch() = ClockWatch::new(BOOT, false, at(1_000_000, 500_000, false));
        let page = clock.clone();
        assert_eq!(page.stamp(Instant::now()).clock, ClockQuality::Unsynced);
        assert!(clock.watch().look(at(2_000_000, 600_000, true)).is_some());
        assert!(page.is_synced());
        assert_eq!(page.stamp(Instant::now()).clock, ClockQuality::Synced);
    }

    #[test]
    fn a_stamp_is_taken_back_to_the_moment_of_reading() {
        let clock = Clock::new(true);
        let at = Instant::now();
        let early = clock.stamp(at);
        while at.elapsed().as_millis() < 3 {
            std::hint::spin_loop();
        }
        let late = clock.stamp(at);
        assert!((late.wall_us - early.wall_us).abs() < 1_000, "{} µs apart", late.wall_us - early.wall_us);
        assert!(late.mono_us.abs_diff(early.mono_us) < 1_000);
    }
}
