//! SIGHUP: the new configuration is read and checked whole; then only what changed is touched (P9).
//!
//! A faulty one leaves everything as it is: one line in the log for each reload, with the first fault and how many more there are, a
//! sentence on the page and in `status`, and a record for the receivers. So does one whose folder or files are gone: that is a card that was pulled or a disk
//! that is not mounted sooner than anybody's wish. Keys that cannot change while the daemon runs keep their value and are named;
//! the rest is applied.

use std::path::Path;
use std::time::{Duration, Instant};

use super::gateway::Gateway;
use super::opening;
use super::{RunError, notify};
use crate::config::{self, Change, Config};
use crate::intake;
use crate::log::ANSWER;
use crate::model::event::Body;
use crate::spool;

/// For one bus, the page or the uplink to end before its successor starts.
const END_WITHIN: Duration = Duration::from_secs(2);
/// For the files to be read. A sick disk must not hold the supervisor.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Before a faulty file is read a second time.
const HALF_WRITTEN: Duration = Duration::from_millis(300);
/// The end of every sentence about a key that cannot change while the daemon runs.
const WAITS: &str = "until the next start (sudo systemctl restart fieldspool)";

/// Why a configuration is not taken.
#[derive(Debug)]
struct Refusal {
    /// Each in one line.
    faults: Vec<String>,
    /// `fieldspool check` finds them too. What is gone it cannot miss, and a disk that is slow now may be quick then.
    check_finds_it: bool,
}

impl Refusal {
    fn now(why: String) -> Self {
        Self { faults: vec![why], check_finds_it: false }
    }
}

impl From<RunError> for Refusal {
    fn from(error: RunError) -> Self {
        let faults = match error {
            RunError::Config(faults) | RunError::Unread(faults) => faults,
            other => vec![other.to_string()],
        };
        Self { faults, check_finds_it: true }
    }
}

/// A configuration with which the daemon would start: one that it takes now and refuses after the next power cut
/// would leave the gateway dead. One whose files are gone is none: at a start it means that nothing is to be read, but not while
/// `old` is in force.
fn startable(place: Option<&Path>, old: &Config) -> Result<Config, Refusal> {
    let read = super::load(place);
    if let Some(gone) = old.vanished(read.as_ref().ok()) {
        return Err(Refusal::now(gone));
    }
    let new = read?;
    spool::durability(&new.spool).map_err(RunError::from)?;
    Ok(new)
}

impl Gateway {
    /// Reads the configuration anew and applies it, or says why not.
    pub(super) async fn reload(&mut self) {
        notify::reloading();
        let mut read = self.read().await;
        if read.is_err() {
            // Somebody may be writing it just now: an editor's half a file is not the user's word.
            tokio::time::sleep(HALF_WRITTEN).await;
            read = self.read().await;
        }
        match read {
            Ok(new) => self.apply(new).await,
            Err(why) => self.refuse(why).await,
        }
        notify::ready();
    }

    /// The new configuration, or all that is wrong with it.
    async fn read(&self) -> Result<Config, Refusal> {
        let (place, old) = (self.place.clone(), self.config.clone());
        // Files on a slow card must not hold up the buses of this runtime.
        let reading = tokio::task::spawn_blocking(move || startable(place.as_deref(), &old));
        match tokio::time::timeout(READ_WITHIN, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(panicked)) => Err(Refusal::now(format!("reading it failed: {panicked}"))),
            Err(_) => {
                let seconds = READ_WITHIN.as_secs();
                Err(Refusal::now(format!("its files cannot be read within {seconds} s: see dmesg")))
            }
        }
    }

    async fn refuse(&mut self, Refusal { faults, check_finds_it }: Refusal) {
        let first = faults.first().cloned().unwrap_or_default();
        let more = faults.len().saturating_sub(1);
        let why = if more == 0 { first } else { format!("{first} (and {more} more: fieldspool check)") };
        tracing::error!(target: ANSWER, count = faults.len(), error = %why, "the new configuration is refused, the old one stays");
        self.common.board.update(|status| {
            status.gateway.config_refused = Some(why.clone());
            status.gateway.check_finds_it = check_finds_it;
        });
        self.record(Body::Config { hash: self.config.hash.clone(), refused: Some(why) }).await;
    }

    async fn apply(&mut self, new: Config) {
        let changes = config::diff(&self.config, &new);
        let new_id = self.gateway_id_is_free() && self.config.gateway != new.gateway;
        let mut refused = Vec::new();
        for change in &changes {
            if let Change::Refused { key, was, wanted } = change {
                if new_id && *key == "gateway" {
                    continue;
                }
                tracing::warn!(
                    error = format!("{key} stays {was}, {wanted} needs a restart"),
                    "a part of the new configuration waits for the next start"
                );
                refused.push(format!("{key} stays {was} {WAITS}"));
            }
        }
        let old = std::mem::replace(&mut self.config, new);
        if !new_id {
            self.config.gateway = old.gateway;
        }
        self.config.spool.directory = old.spool.directory;
        self.config.runtime_directory = old.runtime_directory;
        if changes.contains(&Change::TrustRtc) {
            self.config.trust_rtc = old.trust_rtc;
            refused.push(format!("trust_rtc stays {} {WAITS}", old.trust_rtc));
        }
        let clone = self.meet(new_id, old.uplink.is_none());
        self.apply_to_buses(&changes).await;
        self.apply_to_parts(&changes).await;
        let hash = self.config.hash.clone();
        let why = (!refused.is_empty()).then(|| refused.join("; "));
        self.common.board.update(|status| {
            status.gateway.config_hash.clone_from(&hash);
            status.gateway.config_refused = None;
            status.gateway.warnings.retain(|warning| !warning.ends_with(WAITS));
            status.gateway.warnings.extend(refused.iter().cloned().chain(clone));
            status.gateway.idle = self.config.is_idle();
        });
        self.record(Body::Config { hash, refused: why }).await;
        tracing::info!(target: ANSWER, count = changes.len(), "the new configuration is in force; changes");
    }

    /// Whether the gateway id was used for nothing yet: an installation that idles under its host name gets its id with its first
    /// configuration.
    fn gateway_id_is_free(&self) -> bool {
        let nothing_read =
            self.config.is_idle() && self.common.board.read(|status| status.spool.numbered == 0);
        nothing_read && self.uplink.is_none()
    }

    /// A new id, or an id that is used on the network from now on: shown, and compared with who used it before.
    fn meet(&self, new_id: bool, first_uplink: bool) -> Option<String> {
        let id = &self.config.gateway;
        if new_id {
            tracing::info!(error = %id, "nothing was read under the old gateway id; the new one is taken");
            self.common.board.update(|status| status.gateway.id = id.to_string());
        }
        (new_id || first_uplink).then(|| opening::used_elsewhere(&self.config)).flatten()
    }

    /// Ends first, starts later: the port of a bus may now belong to another one.
    async fn apply_to_buses(&mut self, changes: &[Change]) {
        let board = self.common.board.clone();
        for change in changes {
            // Each may take its whole time.
            self.pulse.beat(Instant::now());
            if let Change::BusRemoved(name) | Change::BusChanged(name) = change
                && !self.buses.end(name, &board, END_WITHIN).await
            {
                tracing::warn!(bus = %name, "the bus did not end in time; its line may stay busy");
            }
        }
        // What the ended buses brought is taken before their slots get new descriptions.
        self.describe_all().await;
        for change in changes {
            let (Change::BusDescribed(name) | Change::BusAdded(name) | Change::BusChanged(name)) = change
            else {
                continue;
            };
            let Some(bus) = self.config.buses.iter().find(|bus| *bus.spec.name == **name) else { continue };
            if matches!(change, Change::BusDescribed(_)) {
                self.buses.describe(bus, &board);
            } else {
                self.buses.place(bus, &board);
            }
        }
        self.describe_all().await;
        if let Err(error) = self.buses.start(&self.common, &mut self.tasks) {
            tracing::error!(%error, "a bus cannot be started; reload again to retry");
        }
        self.desk.describe(&self.config, &self.buses);
    }

    async fn apply_to_parts(&mut self, changes: &[Change]) {
        if changes.contains(&Change::Spool) {
            self.spool.reconfigure(self.config.spool.clone());
            let store_first = self.config.spool.commit_every.is_zero();
            let _ = self.intake.send(intake::task::Command::StoreFirst(store_first)).await;
        }
        if changes.contains(&Change::Uplink) {
            match (&mut self.uplink, self.config.uplink.clone()) {
                (Some((uplink, _)), Some(config)) => uplink.reconfigure(config),
                (Some((_, running)), None) => {
                    let _ = self.intake.send(intake::task::Command::Uplink(None)).await;
                    running.end(END_WITHIN).await;
                    self.uplink = None;
                    self.common.board.update(|status| status.uplink = crate::status::UplinkStatus::default());
                }
                (None, _) => self.start_uplink().await,
            }
        } else if let Some((uplink, _)) = &self.uplink {
            // Certificates may have changed behind the same names: a reload cuts a wait short.
            uplink.kick();
        }
        if changes.contains(&Change::Page) {
            if let Some(mut page) = self.page.take() {
                self.desk.page(None);
                page.end(END_WITHIN).await;
            }
            self.start_page();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_the_next_start_would_refuse_is_refused_by_the_reload() {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        for (required, taken) in [(false, true), (true, false)] {
            let text = format!(
                "state_directory = {:?}\n[spool]\nrequire_durable = {required}\n",
                memory.path().display().to_string()
            );
            std::fs::write(memory.path().join("a.toml"), text).unwrap();
            let old = super::super::load(Some(memory.path())).unwrap();
            let read = startable(Some(memory.path()), &old);
            assert_eq!(read.is_ok(), taken, "{read:?}");
            assert!(read.err().is_none_or(|refusal| refusal.check_finds_it));
        }
    }

    #[test]
    fn of_what_is_gone_the_page_does_not_say_that_check_would_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "trust_rtc = true\n").unwrap();
        let old = super::super::load(Some(folder.path())).unwrap();
        std::fs::write(&file, "trust_rtc = 3\n").unwrap();
        assert!(startable(Some(folder.path()), &old).unwrap_err().check_finds_it);
        std::fs::remove_file(&file).unwrap();
        let gone = startable(Some(folder.path()), &old).unwrap_err();
        assert!(!gone.check_finds_it && gone.faults[0].contains("no configuration file"), "{gone:?}");
    }
}
