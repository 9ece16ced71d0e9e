//! A child process that does not outlive the demo.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::{DemoError, folder};

/// See the file.
pub(super) struct Child {
    name: &'static str,
    process: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts it, with its words going to `log`. It dies with this process, and does not get the terminal's Ctrl-C:
    /// the demo stops its children in order.
    pub(super) fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self, DemoError> {
        let mut start = || {
            let out = OpenOptions::new().create(true).append(true).open(log)?;
            command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
            command.process_group(0);
            for inherited in
                ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "LISTEN_FDS"]
            {
                command.env_remove(inherited);
            }
            crate::sys::die_with_parent(&mut command);
            command.spawn()
        };
        let process = start().map_err(DemoError::system(format!("cannot start {name}")))?;
        Ok(Self { name, process, log: log.to_owned() })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(DemoError::Ended {
                name: self.name,
                status: status.to_string(),
                log: folder::tail(&self.log),
            }),
            Err(error) => Err(DemoError::System(format!("cannot wait for {}", self.name), error)),
        }
    }

    /// Asks it to end, waits, and after `budget` ends it; with no budget at all, ends it at once.
    pub(super) async fn stop(mut self, budget: Duration) {
        if !budget.is_zero() {
            self.signal(Signal::SIGTERM);
            let _in_time = tokio::time::timeout(budget, self.ended()).await;
        }
        self.signal(Signal::SIGKILL);
        // It is dead, or dying of the one signal that cannot be refused: this returns.
        let _reaped = self.process.wait();
    }

    async fn ended(&mut self) {
        let Ok(mut changed) = signal(SignalKind::child()) else { return };
        while matches!(self.process.try_wait(), Ok(None)) {
            changed.recv().await;
        }
    }

    /// Sends nothing once it was waited for: its number may belong to another process by then.
    fn signal(&mut self, signal: Signal) {
        if matches!(self.process.try_wait(), Ok(None))
            && let Ok(pid) = i32::try_from(self.process.id())
        {
            // It ended in this instant: that is what was wanted.
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }
}
