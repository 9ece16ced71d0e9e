//! The watchdog means progress: each loop answered a ping within its own deadline, or systemd is not told that we live.
//!
//! Each loop of the main runtime, and each bus, beats its [`Pulse`] whenever it turns, and turns at least once in some seconds; the
//! spool's two threads are asked "are you there?" by their own queues. [`keep`] looks at [`Heartbeat::stuck`] before it
//! says WATCHDOG=1, so one task that hangs alone is noticed like a runtime that hangs whole. A commit that fails with an error is an answer. A
//! thread that the kernel holds in a system call (state D: a sick disk, a sick driver) has the longer deadline: killing it
//! would lose what the disk might still take, and the kernel would not let it die anyway.
//!
//! All probing tasks live on the main runtime: if that hangs, nothing is told to systemd at all.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::notify;
use crate::log::Tail;
use crate::spool::SpoolError;
use crate::status::Board;

/// The deadlines of one loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Between two answers.
    pub turn: Duration,
    /// Between two answers while the kernel holds the thread in a system call.
    pub call: Duration,
}

#[derive(Debug)]
struct Loop {
    name: String,
    deadlines: Deadlines,
    beaten_ms: AtomicU64,
    done: AtomicBool,
}

/// All loops that are watched. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    loops: Arc<Mutex<Vec<Arc<Loop>>>>,
}

/// One loop's side. Dropping it ends the watch: the loop is over, which the supervisor learns by other means.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    own: Arc<Loop>,
}

impl Heartbeat {
    /// Nothing watched yet.
    pub fn new(start: Instant) -> Self {
        Self { start, loops: Arc::default() }
    }

    /// Watches one more loop; it counts as having beaten at `now`.
    pub fn watch(&self, name: &str, deadlines: Deadlines, now: Instant) -> Pulse {
        let own = Arc::new(Loop {
            name: name.to_owned(),
            deadlines,
            beaten_ms: AtomicU64::new(millis(self.start, now)),
            done: AtomicBool::new(false),
        });
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|known| !known.done.load(Ordering::Relaxed));
        loops.push(Arc::clone(&own));
        Pulse { start: self.start, own }
    }

    /// The loops that missed their deadline, by name, with the time since their last beat.
    /// `held`: whether the kernel holds the loop's thread in a system call ([`held_by_kernel`]).
    pub fn stuck(&self, now: Instant, held: impl Fn(&str) -> bool) -> Vec<(String, Duration)> {
        let now = millis(self.start, now);
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|known| !known.done.load(Ordering::Relaxed));
        let late = |known: &Arc<Loop>| {
            let quiet = Duration::from_millis(now.saturating_sub(known.beaten_ms.load(Ordering::Relaxed)));
            let Deadlines { turn, call } = known.deadlines;
            let stuck = quiet > turn && (quiet > call || !held(&known.name));
            stuck.then(|| (known.name.clone(), quiet))
        };
        loops.iter().filter_map(late).collect()
    }
}

impl Pulse {
    /// The loop answered.
    pub fn beat(&self, now: Instant) {
        self.own.beaten_ms.store(millis(self.start, now), Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.own.done.store(true, Ordering::Relaxed);
    }
}

/// How often the STATUS line is brought up to date, and the loops are looked at without a watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The task: tells systemd that we live as long as nothing is stuck, and what waits; says it loudly if something is.
pub(super) async fn keep(heartbeat: Heartbeat, board: Board, tail: Tail, stop: CancellationToken) {
    let watched = notify::watchdog_period();
    // Half the period, as sd_watchdog_enabled(3) recommends.
    let every = watched.map_or(LOOK_EVERY, |period| (period / 2).min(LOOK_EVERY));
    let start = heartbeat.start;
    let mut line = String::new();
    let mut settled = Instant::now();
    loop {
        let now = Instant::now();
        let stuck = heartbeat.stuck(now, held_by_kernel);
        for (name, quiet) in &stuck {
            let (error, elapsed) = (format!("{name} makes no progress"), format!("{} s", quiet.as_secs()));
            tracing::error!(error, elapsed, "a loop is stuck; systemd is not told that we live");
        }
        if stuck.is_empty() && watched.is_some() {
            notify::alive();
        }
        let news = board.read(notify::status_line);
        if news != line {
            notify::status(&news);
            line = news;
        }
        if now.duration_since(settled) >= Duration::from_secs(60) {
            settled = now;
            tail.settle();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(left(start, every)) => {}
        }
    }
}

/// Until the next whole number of steps since the start: all who look that often wake up together, once.
fn left(start: Instant, every: Duration) -> Duration {
    let (every, now) = (every.max(Duration::from_millis(1)), tokio::time::Instant::now().into_std());
    let into = now.saturating_duration_since(start).as_nanos() % every.as_nanos();
    every.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or_default()))
}

/// The task that asks a thread of the spool whether it turns, and beats its pulse with the answer.
pub(super) async fn ping<F>(ask: impl Fn() -> F, pulse: Pulse, stop: CancellationToken)
where
    F: Future<Output = Result<(), SpoolError>>,
{
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // A closed spool answers nothing more: the stop is under way, or the thread is gone and its pulse ends here.
            answer = ask() => if answer.is_ok() { pulse.beat(tokio::time::Instant::now().into_std()) },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(left(pulse.start, LOOK_EVERY)) => {}
        }
    }
}

/// Whether a thread of this process is in uninterruptible sleep (proc(5), `stat`, state D). Thread names are cut at 15 bytes by the
/// kernel.
pub fn held_by_kernel(thread: &str) -> bool {
    let cut = thread.get(..15).unwrap_or(thread);
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return false };
    tasks.flatten().any(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        state_of(&stat).is_some_and(|(name, state)| name == cut && state == 'D')
    })
}

/// Name and state in a line of `/proc/PID/task/TID/stat`; the name may itself contain brackets and spaces.
fn state_of(stat: &str) -> Option<(&str, char)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    Some((name, after.chars().next()?))
}

fn millis(start: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines = Deadlines { turn: Duration::from_secs(20), call: Duration::from_secs(600) };

    #[test]
    fn a_loop_that_stops_beating_is_named() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let heartbeat = Heartbeat::new(start);
        let spool = heartbeat.watch("spool", DEADLINES, start);
        let bus = heartbeat.watch("bus-hall", DEADLINES, start);
        bus.beat(at(15));
        assert_eq!(heartbeat.stuck(at(21), |_| false), [("spool".to_owned(), Duration::from_secs(21))]);
        spool.beat(at(22));
        assert!(heartbeat.stuck(at(30), |_| false).is_empty());
        drop(bus);
        spool.beat(at(100));
        assert!(heartbeat.stuck(at(101), |_| false).is_empty(), "a loop that ended is not stuck");
    }

    #[test]
    fn a_thread_held_by_the_kernel_has_the_longer_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let heartbeat = Heartbeat::new(start);
        let _spool = heartbeat.watch("spool", DEADLINES, start);
        assert!(heartbeat.stuck(at(600), |name| name == "spool").is_empty());
        assert_eq!(heartbeat.stuck(at(600), |_| false).len(), 1);
        assert_eq!(heartbeat.stuck(at(601), |_| true).len(), 1, "ten minutes are enough even so");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_answers_no_more_stops_beating() {
        let now = || tokio::time::Instant::now().into_std();
        let heartbeat = Heartbeat::new(now());
        let pulse = heartbeat.watch("spool-reader", DEADLINES, now());
        let answers = Arc::new(AtomicBool::new(true));
        let asked = answers.clone();
        let ask = move || {
            let answers = asked.load(Ordering::Relaxed);
            async move { if answers { Ok(()) } else { std::future::pending().await } }
        };
        let task = tokio::spawn(ping(ask, pulse, CancellationToken::new()));
        tokio::time::sleep(DEADLINES.turn * 10).await;
        assert!(heartbeat.stuck(now(), |_| false).is_empty());
        answers.store(false, Ordering::Relaxed);
        tokio::time::sleep(DEADLINES.turn * 2).await;
        assert_eq!(heartbeat.stuck(now(), |_| false).len(), 1);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_look_equally_often_wake_up_together() {
        let start = tokio::time::Instant::now().into_std();
        for ms in [1, 700, 4_998, 12_345] {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let before = tokio::time::Instant::now().into_std() - start;
            tokio::time::sleep(left(start, LOOK_EVERY)).await;
            let at = tokio::time::Instant::now().into_std() - start;
            assert!(
                at > before && at.saturating_sub(before) <= LOOK_EVERY + Duration::from_millis(1),
                "{before:?} {at:?}"
            );
            let late = at.as_millis() % LOOK_EVERY.as_millis();
            assert!(late <= 1, "{late} ms beside the common moment");
        }
    }

    #[test]
    fn the_state_of_a_thread_is_read_behind_its_name() {
        assert_eq!(state_of("812 (bus-a) D (x) S 1 812"), Some(("bus-a) D (x", 'S')));
        assert_eq!(state_of("812 (spool) D 1 812"), Some(("spool", 'D')));
        assert_eq!(state_of("garbage"), None);
        assert!(!held_by_kernel("no such thread"));
    }
}
