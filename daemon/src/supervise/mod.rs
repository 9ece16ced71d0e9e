//! The process: what is wired to what, how it starts, stops and takes a new configuration.
//!
//! [`run`] is called once. Reading order: [`Gateway::start`](gateway::Gateway::start) in `gateway` is the wiring diagram;
//! `opening` is what comes before it;
//! `buses` and `tasks` start and end what runs; `reload` applies what changed; `stop` ends all in stages; `desk` answers the
//! command line; `watchdog`, `notify`, `crash_loop`, `identity` and `link` look after the process itself.
//!
//! Nobody uses this module but the command line. The first task that ends unasked ends the process, with exit code
//! 70; systemd starts it anew. A panic aborts it (release profile): half a gateway is worse than a restart.

mod buses;
pub mod crash_loop;
mod describe;
mod desk;
mod gateway;
pub mod identity;
mod link;
pub mod notify;
mod opening;
mod reload;
mod stop;
mod tasks;
mod unwritten;
pub mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock;
use crate::config::folders::Folders;
use crate::config::{self, Config, Unchecked};
use crate::log::{self, Verbosity};
use crate::spool::SpoolError;
use crate::sys;
use gateway::Gateway;
use link::Link;

/// A configuration that cannot be read is tried again this often, and for so long before the process ends. Less than systemd's
/// patience with a start.
const UNREAD_AGAIN: Duration = Duration::from_millis(500);
const UNREAD_FOR: Duration = Duration::from_secs(20);

/// Why the daemon does not run (any more). The words are for the log and the terminal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has faults; a person mends them. Each is one line.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// A file of the configuration cannot be read now, for a reason that may pass by itself; systemd tries again.
    #[error("{}\nthis may pass by itself; it is tried again", .0.join("\n"))]
    Unread(Vec<String>),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Threads, signals or sockets cannot be had; systemd tries again.
    #[error("the system refuses what the daemon needs to start ({0}); it is tried again")]
    System(#[from] io::Error),
    /// A part ended by itself: a fault of this program.
    #[error("{0} ended by itself; the process is started anew")]
    PartEnded(String),
}

impl RunError {
    /// sysexits.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Spool(error) => error.exit_code(),
            Self::System(_) | Self::Unread(_) => 75,
            Self::PartEnded(_) => 70,
        }
    }
}

/// Runs the daemon until it is told to stop. `place`: a folder or file given by `--config`.
pub fn run(place: Option<&Path>, verbosity: Verbosity) -> Result<(), RunError> {
    sys::give_freed_memory_back();
    let tail = log::init(verbosity);
    let config = load_at_last(place)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_MAX)
        .build()?;
    let ended = runtime.block_on(life(config, place.map(Path::to_owned), tail));
    // A thread that the kernel holds must not keep the process from ending.
    runtime.shutdown_background();
    ended
}

/// The configuration to start with. What may pass by itself is waited for, a disk that is mounted a moment later: for a
/// configuration with faults systemd does not try again, and would log it each second if it did.
#[allow(clippy::disallowed_methods, reason = "nothing runs yet that could wait in another way")]
fn load_at_last(place: Option<&Path>) -> Result<Config, RunError> {
    let until = Instant::now() + UNREAD_FOR;
    let mut said = false;
    loop {
        match load(place) {
            Err(RunError::Unread(faults)) if Instant::now() < until => {
                if !std::mem::replace(&mut said, true) {
                    let error = faults.join("; ");
                    tracing::warn!(%error, "the configuration cannot be read now; it is tried again");
                }
                std::thread::sleep(UNREAD_AGAIN);
            }
            loaded => return loaded,
        }
    }
}

/// The configuration in force, or all that is wrong with it. What is worth a word is logged.
fn load(place: Option<&Path>) -> Result<Config, RunError> {
    let loaded = config::load(&Folders::of(place));
    if loaded.config.is_some() {
        for warning in &loaded.warnings {
            tracing::warn!(error = %warning, "the configuration is right, but");
        }
        for finding in loaded.look_around(clock::wall_us()) {
            tracing::warn!(error = %finding, "what the configuration points to is not right");
        }
    }
    loaded.config.ok_or_else(|| {
        // Of a folder that may not be read, what lies in it need not be told.
        let unread = loaded.unchecked.iter();
        let unread = unread.filter(|file| {
            !loaded
                .unchecked
                .iter()
                .any(|other| file.path != other.path && file.path.starts_with(&other.path))
        });
        let why =
            loaded.faults.iter().map(ToString::to_string).chain(unread.map(Unchecked::denied)).collect();
        if loaded.may_pass { RunError::Unread(why) } else { RunError::Config(why) }
    })
}

async fn life(config: Config, place: Option<PathBuf>, tail: log::Tail) -> Result<(), RunError> {
    // Before anything else: a signal during a long opening must not kill the process unasked.
    let mut signals = Signals::new()?;
    let opening = Gateway::start(config, place, tail);
    let mut gateway = tokio::select! {
        started = opening => started?,
        () = signals.stop() => return Ok(()),
    };
    notify::ready();
    let ended = reign(&mut gateway, &mut signals, Link::watch(), TURN_EVERY).await;
    if let Err(error) = &ended {
        tracing::error!(%error, "a part of the daemon ended by itself; stopping");
    }
    notify::stopping();
    gateway.stop(ended.is_ok()).await;
    ended
}

/// Until the end: obeys signals, waits for parts that end, and shows the watchdog that it turns.
async fn reign(
    gateway: &mut Gateway,
    signals: &mut Signals,
    mut link: Link,
    turn_every: Duration,
) -> Result<(), RunError> {
    loop {
        gateway.pulse.beat(Instant::now());
        gateway.lasts(opening::since_boot());
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(()),
                // A reload may wait for buses that do not end; a stop does not wait for a reload.
                Asked::Reload => tokio::select! {
                    () = gateway.reload() => {}
                    () = signals.stop() => return Ok(()),
                },
            },
            name = gateway.part_ended() => return Err(RunError::PartEnded(name)),
            () = link.came_up() => gateway.network_came_up(),
            () = tokio::time::sleep(turn_every) => {}
        }
    }
}

/// The signals that are obeyed. Once asked for, they never kill the process, so a second SIGTERM during the stop is safe.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Waits for a stop. A reload that is asked for meanwhile stays asked for: the files may have been read before.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Threads for what blocks: names that are looked up, files of a reload, the page's certificate. A look-up cannot be called
/// off, so one that timed out leaves its thread behind until the resolver gives up too (resolv.conf(5): 30 s at most as it comes).
const BLOCKING_MAX: usize = 32;
/// The supervisor turns at least so often.
const TURN_EVERY: Duration = Duration::from_secs(10);
/// How much longer systemd is asked to wait while the spool opens, and how often.
const OPENING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};
    use tokio::sync::mpsc;

    use super::*;
    use crate::intake::task::Command;
    use watchdog::{Deadlines, Heartbeat};

    const TURN: Duration = Duration::from_secs(1);

    /// Looks at a condition until it is met.
    async fn until(what: &str, met: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !met() {
            assert!(Instant::now() < end, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Held by who sends signals to this process: all listen.
    static RAISING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    #[tokio::test]
    async fn a_reload_that_is_asked_for_while_another_one_is_under_way_is_not_lost() {
        let _alone = RAISING.lock().await;
        let mut signals = Signals::new().unwrap();
        let mut heard = signal(SignalKind::hangup()).unwrap();
        raise(Signal::SIGHUP).unwrap();
        tokio::select! {
            biased;
            () = signals.stop() => panic!("nobody asked for a stop"),
            _ = heard.recv() => {}
        }
        let asked = tokio::select! {
            biased;
            asked = signals.next() => Some(asked),
            () = std::future::ready(()) => None,
        };
        assert_eq!(asked, Some(Asked::Reload));
    }

    /// One that idles, its state in `s`.
    async fn idle(folder: &Path) -> Gateway {
        let place = folder.display();
        let text =
            format!("page = false\nstate_directory = \"{place}/s\"\nruntime_directory = \"{place}/r\"\n");
        std::fs::write(folder.join("a.toml"), text).unwrap();
        let config = load(Some(folder)).unwrap();
        Gateway::start(config, Some(folder.to_owned()), log::Tail::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_life_of_ten_minutes_forgets_the_starts_before_it_and_a_shorter_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let began = opening::since_boot();
        let mut gateway = idle(folder.path()).await;
        let starts = folder.path().join("s/starts");
        gateway.lasts(began + Duration::from_secs(590));
        assert!(starts.exists());
        gateway.lasts(opening::since_boot() + Duration::from_secs(600));
        until("the count is taken away", || !starts.exists()).await;
    }

    #[tokio::test]
    async fn a_supervisor_that_hangs_in_a_reload_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let _alone = RAISING.lock().await;
        let mut signals = Signals::new().unwrap();
        let mut gateway = idle(folder.path()).await;
        // Intake takes no command any more: whoever tells it something waits for ever.
        let (intake, _nobody) = mpsc::channel(1);
        intake.send(Command::StoreFirst(false)).await.unwrap();
        gateway.intake = intake;
        let begun = Instant::now();
        let heartbeat = Heartbeat::new(begun);
        gateway.pulse = heartbeat.watch("supervisor", Deadlines { turn: TURN, call: TURN }, begun);
        let stuck = || !heartbeat.stuck(Instant::now(), |_| false).is_empty();
        let watching = async {
            until("it turns although nothing happens", || begun.elapsed() > TURN * 2 && !stuck()).await;
            raise(Signal::SIGHUP).unwrap();
            until("the supervisor is stuck", stuck).await;
        };
        tokio::select! {
            _ = reign(&mut gateway, &mut signals, Link::watch(), TURN / 20) => panic!("it ended"),
            () = watching => {}
        }
    }
}
