//! The configuration: from files to what the daemon is told to do.
//!
//! The road: [`folders`] finds and reads the files, `document` makes trees of them in which every key and value knows
//! its place, `meaning` turns the merged tree into a [`Config`], `surroundings` looks at what the configuration
//! points to (certificates, keys, ports), [`report`] prints it all for `fieldspool check`, [`mod@diff`] compares two, `origin` says whether
//! the files of one are gone.
//!
//! Promises: all faults at once, each with file, line and column and what to do; a text that is not understood is
//! never half applied (P9); what N.0 accepts, all N.x accept. No input makes it panic. Not here: the shape of a
//! driver's settings (each driver asks for its own through `Section`), and opening anything that is polled.
//!
//! A fault of the *text* leaves no [`Config`]. What is wrong *around* it (an expired certificate, a key that others
//! can read) is a fault for `check`, and does not keep the daemon from sampling.

mod document;
mod meaning;
mod origin;
mod service;
mod slips;
mod state_directory;
mod surroundings;
mod table;
mod words;

pub mod diff;
pub mod fault;
pub mod folders;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::bus::BusSpec;

use crate::model::PointInfo;
use crate::page::PageConfig;
use crate::spool::SpoolSettings;
use crate::uplink::UplinkConfig;

pub use diff::{Change, diff};
pub use fault::{Fault, Place, Unchecked};
pub use folders::Folders;
pub use origin::Origin;
pub use report::{CheckReport, check};
pub(crate) use words::duration;

use document::Tree;
use folders::Reader;
use meaning::{Machine, Pointer, PointsTo, Reading};
use table::Findings;

/// Everything the daemon is told. Each part takes its own slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Gateway id: `gateway`, else the common name of the client certificate, else (without uplink) the host name.
    pub gateway: Arc<str>,
    /// First 16 hexadecimal digits of the SHA-256 over the files that had a say; 16 zeros if there was none.
    pub hash: String,
    /// The folders in which its files may lie and that are there; the folder of a file that was named by itself is not among them.
    pub from: Vec<Origin>,
    /// `[uplink]`; without it nothing is sent, and everything is kept.
    pub uplink: Option<UplinkConfig>,
    /// `[spool]` and `state_directory`.
    pub spool: SpoolSettings,
    /// `runtime_directory`, else `$RUNTIME_DIRECTORY`, else `/run/fieldspool`.
    pub runtime_directory: PathBuf,
    /// `[page]`; `None` with `page = false`.
    pub page: Option<PageConfig>,
    /// `[bus.*]`, in the order of the files. None at all means idle. Shared with whoever runs or asks a bus.
    pub buses: Vec<Arc<ConfiguredBus>>,
    /// `trust_rtc`: the machine's own clock is good without NTP.
    pub trust_rtc: bool,
}

/// A bus, and what the daemon adds to what its driver is told.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredBus {
    /// For the driver.
    pub spec: Arc<BusSpec>,
    /// Parallel to `spec.devices`.
    pub devices: Vec<DeviceInfo>,
}

/// What the daemon knows of a device beside how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// What people call it; empty if not given.
    pub label: Arc<str>,
    /// Name of its profile, if it has one.
    pub profile: Option<Arc<str>>,
    /// Points to be shown beside the name, as indices.
    pub headline: Vec<u16>,
    /// Parallel to the device's points. Devices of one profile that say nothing else about them share one list.
    pub points: Arc<[PointInfo]>,
    /// Parallel to the device's points.
    pub reporting: Vec<Reporting>,
}

/// Which readings of a point are reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reporting {
    /// A number that moved no further than this since the last report is not reported; implies `on_change`.
    pub deadband: Option<f64>,
    /// Only changes are reported, and one reading each `heartbeat`.
    pub on_change: bool,
    /// Longest silence of a point that is reported on change, and of the `bad` readings of a silent device;
    /// 1 s to 1 day, default 60 s.
    pub heartbeat: Duration,
}

impl Config {
    /// Nothing is polled.
    pub fn is_idle(&self) -> bool {
        self.buses.is_empty()
    }
}

/// What came of reading the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration; `None` if its text has faults or a file of it could not be read.
    pub config: Option<Config>,
    /// What is wrong with the text, by place.
    pub faults: Vec<Fault>,
    /// What is right and yet worth a word.
    pub warnings: Vec<Fault>,
    /// What could not be read as this user.
    pub unchecked: Vec<Unchecked>,
    /// Nothing is wrong but that something could not be read, for a reason that may pass by itself: a disk that is not there yet.
    pub may_pass: bool,
    pointers: Vec<Pointer>,
}

impl Loaded {
    /// Why there is no configuration, in one line; `None` if there is one.
    pub fn refusal(&self) -> Option<String> {
        if self.config.is_some() {
            return None;
        }
        let all = self.faults.len() + self.unchecked.len();
        let first = self.faults.first().map(ToString::to_string);
        let first = first.or_else(|| self.unchecked.first().map(Unchecked::denied)).unwrap_or_default();
        Some(if all > 1 { format!("{first} (and {} more: fieldspool check)", all - 1) } else { first })
    }

    /// A look at what the configuration points to: files and ports. None of it makes the configuration invalid;
    /// each is one line for the log. `now_us` is the wall clock, µs since 1970.
    pub fn look_around(&self, now_us: i64) -> Vec<String> {
        // Of its directory the spool says later what is wrong, but not what to do. Whether it is durable it says by itself, and a
        // bus what is wrong with its port.
        let state = self.pointers.iter().filter_map(surroundings::state_for_us);
        let mut pointers = self.pointers.clone();
        pointers.retain(|pointer| !matches!(pointer.to, PointsTo::State { .. } | PointsTo::SerialPort(_)));
        let look = surroundings::look(&pointers, now_us);
        look.faults.into_iter().chain(state).chain(look.warnings).map(|found| found.to_string()).collect()
    }
}

/// Reads the configuration.
pub fn load(folders: &Folders) -> Loaded {
    let gathered = gather(folders, Machine::this());
    let whole = gathered.faults.is_empty() && gathered.unread.is_empty();
    Loaded {
        config: whole.then_some(gathered.draft),
        faults: gathered.faults,
        warnings: gathered.warnings,
        unchecked: gathered.unchecked,
        may_pass: gathered.may_pass,
        pointers: gathered.pointers,
    }
}

/// Everything that reading brings, before anybody judges it.
#[derive(Debug)]
struct Gathered {
    /// Complete only if there is no fault and nothing unread.
    draft: Config,
    tree: Tree,
    files: usize,
    /// Not read, for their name.
    ignored: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    unchecked: Vec<Unchecked>,
    /// Of `unchecked`, those without which the draft is not the configuration.
    unread: Vec<PathBuf>,
    may_pass: bool,
    pointers: Vec<Pointer>,
    /// By profile: how its instruments come from the factory.
    factory: BTreeMap<String, String>,
}

impl Gathered {
    /// By place, each once: a fault in a profile concerns every device that uses it.
    fn tidy(&mut self) {
        for findings in [&mut self.faults, &mut self.warnings] {
            findings.sort();
            findings.dedup();
        }
        // What follows from a syntax error on the same line is no news.
        let line = |fault: &Fault| fault.place.clone().map(|place| (place.file, place.line));
        let slips: BTreeSet<_> =
            self.faults.iter().filter(|fault| fault.is_syntax).filter_map(line).collect();
        self.faults.retain(|fault| fault.is_syntax || !line(fault).is_some_and(|line| slips.contains(&line)));
        self.unchecked.dedup();
    }
}

fn gather(folders: &Folders, machine: Machine) -> Gathered {
    gather_with(folders, machine, &[], meaning::config)
}

fn gather_with(
    folders: &Folders,
    machine: Machine,
    profiles: &[String],
    read: impl FnOnce(&Tree, &mut Reading<'_>) -> Config,
) -> Gathered {
    let findings = Findings::default();
    let mut reader = Reader::new(&findings);
    let tree = reader.configuration(folders);
    let mut wanted = meaning::profiles_asked_for(&tree);
    wanted.extend_from_slice(profiles);
    let profile_names = reader.profile_names(folders);
    let profiles = reader.profiles(folders, &wanted);
    let mut reading = Reading {
        findings: &findings,
        profiles: &profiles,
        profile_names: &profile_names,
        machine,
        unchecked: std::mem::take(&mut reader.unchecked),
        points_of_profiles: BTreeMap::new(),
        pointers: Vec::new(),
    };
    let draft = read(&tree, &mut reading);
    let (unchecked, pointers) = (reading.unchecked, reading.pointers);
    let (files, ignored) = (reader.files, std::mem::take(&mut reader.ignored));
    let draft = Config { from: std::mem::take(&mut reader.from), hash: reader.hash(), ..draft };
    let mut gathered = Gathered {
        draft,
        files,
        ignored,
        faults: findings.faults.take(),
        warnings: findings.warnings.take(),
        unread: unchecked.iter().map(|unchecked| unchecked.path.clone()).collect(),
        unchecked,
        may_pass: false,
        pointers,
        factory: profiles
            .iter()
            .filter_map(|(name, profile)| Some((name.clone(), profile.factory()?)))
            .collect(),
        tree,
    };
    gathered.tidy();
    // Who may not read a file needs a person, whatever else is wrong.
    gathered.may_pass = gathered.unread.is_empty() && findings.may_pass(&gathered.faults);
    gathered
}

#[cfg(test)]
mod tests;
