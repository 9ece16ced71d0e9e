//! What a start could not write down, because the disk took nothing then: tried again every minute.
//!
//! These are the small files of the state directory that a start replaces: the run beside the spool, the start counted against a crash
//! loop, and the machine that uses the gateway id. The spool itself is not meant: its writer tries again on its own. Until one of both
//! is written the run exists in memory only, which is said among the warnings, and taken back here. What still cannot be written after
//! that costs what its own module says, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::crash_loop::Starts;
use super::identity::{self, Machine};
use super::opening::since_boot;
use crate::config::Config;
use crate::model::RunId;
use crate::spool;
use crate::status::{Board, Status};

/// Said while neither the spool nor the run beside it could be written.
pub(super) const VOLATILE: &str =
    "The state directory cannot be written: what is read now is lost with the power";

/// How long after a try the next one comes.
const EVERY: Duration = Duration::from_secs(60);

/// What is still to be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    state: PathBuf,
    run: Option<RunId>,
    starts: Option<Starts>,
    /// The gateway id with this machine.
    identity: bool,
}

impl Unwritten {
    /// What a start has not written down; `None`: nothing.
    pub(super) fn after_start(config: &Config, run: RunId, starts: &Starts) -> Option<Self> {
        let state = config.spool.directory.clone();
        let left = Self {
            run: (!spool::remembers(&state, run)).then_some(run),
            starts: (!starts.are_remembered()).then(|| starts.clone()),
            identity: config.uplink.is_some()
                && identity::compare(&state, &config.gateway, &Machine::read()).is_err(),
            state,
        };
        (!left.is_nothing()).then_some(left)
    }

    fn is_nothing(&self) -> bool {
        self.run.is_none() && self.starts.is_none() && !self.identity
    }

    /// Tries once. Gives what a person must know who used the gateway id before, if that could be told only now. Blocks.
    fn try_again(&mut self, gateway: &str, machine: &Machine, since_boot: Duration) -> Option<String> {
        let state = &self.state;
        // Gone, or on a disk that had no room for it, or was not there yet. What fails here fails below, too.
        let _ = std::fs::create_dir_all(state);
        self.run.take_if(|run| spool::write_sidecar(state, *run).is_ok());
        // A life that has lasted counts no more.
        self.starts.take_if(|starts| starts.lasted(since_boot).is_some() || starts.remember().is_ok());
        if !self.identity {
            return None;
        }
        let told = identity::look(state, gateway, machine);
        self.identity = told.is_err();
        told.ok().flatten()
    }

    /// Tries until all is written, or `stop`.
    pub(super) async fn keep_trying(self, board: Board, stop: CancellationToken) {
        let mut left = self;
        while !left.is_nothing() {
            let gateway = board.read(|status| status.gateway.id.clone());
            let trying = async {
                tokio::time::sleep(EVERY).await;
                // A disk that stalls holds one thread, and no other try begins meanwhile.
                let again = move || (left.try_again(&gateway, &Machine::read(), since_boot()), left);
                tokio::task::spawn_blocking(again).await
            };
            let tried = tokio::select! {
                () = stop.cancelled() => return,
                tried = trying => tried,
            };
            let Ok((warning, after)) = tried else { break };
            left = after;
            if let Some(warning) = &warning {
                tracing::error!(error = %warning, "a person must look after this gateway");
            }
            board.update(|status| {
                left.take_back(status);
                status.gateway.warnings.extend(warning);
            });
            if left.is_nothing() {
                tracing::info!("what this start could not write down is written now");
            }
        }
        stop.cancelled().await;
    }

    /// Takes the warning back once the run is on the disk, beside the spool or in it.
    fn take_back(&self, status: &mut Status) {
        if self.run.is_none() || status.spool.state == "ok" {
            status.gateway.warnings.retain(|warning| warning != VOLATILE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::model::BootId;

    const RUN: RunId = RunId { counter: 9, random: 7 };
    const YOUNG: Duration = Duration::from_secs(90);

    fn machine() -> Machine {
        Machine::Fixed("0123456789abcdef0123456789abcdef".into())
    }

    /// The next file of each name can be made, and takes not a byte.
    fn fill(state: &Path) {
        for name in ["run.new", "starts.new", "identity.new"] {
            symlink("/dev/full", state.join(name)).unwrap();
        }
    }

    fn names(state: &Path) -> Vec<String> {
        let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// All of a start.
    fn all(state: &Path) -> Unwritten {
        let starts = Starts::begin(state, BootId(7), Duration::from_secs(30));
        assert!(!starts.are_remembered());
        Unwritten { state: state.to_owned(), run: Some(RUN), starts: Some(starts), identity: true }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_written_once_it_does_and_nothing_empty_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut left = all(dir.path());
        let starts = left.starts.clone().unwrap();
        for _ in 0..2 {
            fill(dir.path());
            assert_eq!(left.try_again("gw1", &machine(), YOUNG), None);
            assert!(left.run.is_some() && left.starts.is_some() && left.identity, "{left:?}");
            assert_eq!(names(dir.path()), [""; 0]);
        }
        assert_eq!(left.try_again("gw1", &machine(), YOUNG), None);
        assert!(left.is_nothing(), "{left:?}");
        assert_eq!(names(dir.path()), ["identity", "run", "starts"]);
        assert!(spool::remembers(dir.path(), RUN) && starts.are_remembered());
    }

    #[test]
    fn a_state_directory_that_could_not_be_made_is_made_once_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::write(&disk, "").unwrap();
        let mut left = all(&disk.join("state"));
        assert_eq!(left.try_again("gw1", &machine(), YOUNG), None);
        assert!(left.run.is_some() && left.starts.is_some() && left.identity, "{left:?}");
        fs::remove_file(&disk).unwrap();
        assert_eq!(left.try_again("gw1", &machine(), YOUNG), None);
        assert!(left.is_nothing(), "{left:?}");
        assert_eq!(names(&disk.join("state")), ["identity", "run", "starts"]);
    }

    #[test]
    fn a_start_that_has_lasted_is_not_counted_late_and_another_machine_is_told_late() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity"), format!("gw1\n{}\n", "f".repeat(32))).unwrap();
        let mut left = all(dir.path());
        let told = left.try_again("gw1", &machine(), Duration::from_secs(630)).unwrap();
        assert!(told.contains("used on another machine"), "{told}");
        assert!(left.is_nothing(), "{left:?}");
        assert_eq!(names(dir.path()), ["identity", "run"]);
    }

    #[test]
    fn the_warning_is_taken_back_when_the_run_is_on_the_disk_and_not_before() {
        for (run, state, stays) in [
            (Some(RUN), "full", true),
            (Some(RUN), "", true),
            (Some(RUN), "ok", false),
            (None, "full", false),
        ] {
            let left = Unwritten { state: PathBuf::new(), run, starts: None, identity: true };
            let mut status = Status::default();
            status.gateway.warnings = vec!["Another one".into(), VOLATILE.into()];
            state.clone_into(&mut status.spool.state);
            left.take_back(&mut status);
            assert_eq!(status.gateway.warnings.len(), 1 + usize::from(stays), "{run:?} {state:?}");
        }
    }
}
