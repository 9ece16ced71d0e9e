//! What the merged tree means: top-level keys here, one module for each part below.
//!
//! Every part reads its whole table in every case, so that all faults come at once; what could not be read is filled
//! with the default and never used, because a fault leaves no configuration.

mod bus;
mod device;
mod gateway;
mod page;
mod point;
mod spool;
mod uplink;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldspool_drivers::Section;
use fieldspool_drivers::bus::Protocol;

use super::Config;
use super::document::{Data, Tree};
use super::fault::{Place, Unchecked};
use super::folders::Profile;
use super::table::{Findings, Table};
use super::words::quoted;
use crate::model::PointInfo;
use crate::spool::SpoolSettings;

pub(super) use bus::share;
pub(super) use device::profile_alone;

/// All protocols, the likelier first.
pub(super) const PROTOCOLS: [Protocol; 2] = [Protocol::Modbus, Protocol::Line];

/// What the text does not say and the machine does.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) state_directory: PathBuf,
    pub(super) runtime_directory: PathBuf,
    pub(super) host_name: String,
}

impl Machine {
    /// As systemd and the kernel say.
    pub(super) fn this() -> Self {
        // systemd joins several directories with colons; ours is the first.
        let directory = |variable: &str, otherwise: &str| {
            let value = std::env::var(variable).unwrap_or_default();
            let first = value.split(':').next().unwrap_or_default();
            PathBuf::from(if first.is_empty() { otherwise } else { first })
        };
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            state_directory: directory("STATE_DIRECTORY", "/var/lib/fieldspool"),
            runtime_directory: directory("RUNTIME_DIRECTORY", "/run/fieldspool"),
            host_name: host_name.trim().to_owned(),
        }
    }
}

/// What every part needs while it reads.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) findings: &'a Findings,
    pub(super) profiles: &'a BTreeMap<String, Profile>,
    pub(super) profile_names: &'a [String],
    pub(super) machine: Machine,
    pub(super) unchecked: Vec<Unchecked>,
    /// What the first device of a profile made of its points.
    pub(super) points_of_profiles: BTreeMap<Arc<str>, Arc<[PointInfo]>>,
    /// What the configuration points to, for a look at the surroundings.
    pub(super) pointers: Vec<Pointer>,
}

/// Something outside the configuration that it points to.
#[derive(Clone, Debug)]
pub(super) struct Pointer {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) to: PointsTo,
}

#[derive(Clone, Debug)]
pub(super) enum PointsTo {
    /// Certificates of authorities.
    Authorities(PathBuf),
    /// A chain and its key; `client` for the uplink's.
    Identity { cert: PathBuf, key: PathBuf, client: bool },
    /// A file with a secret in its first line.
    Secret(PathBuf),
    /// A serial port.
    SerialPort(PathBuf),
    /// The state directory, whether it must survive a power cut, and whether a person named it.
    State { directory: PathBuf, required: bool, named: bool },
}

/// Reads everything.
pub(super) fn config(tree: &Tree, reading: &mut Reading<'_>) -> Config {
    let nowhere = Place::file(Arc::from(Path::new("")));
    let top = tree.entries.first().map_or(nowhere, |entry| Place::file(Arc::clone(&entry.key_place.file)));
    let mut table = Table::new(tree, String::new(), top, reading.findings);
    let buses = bus::all(&mut table, reading);
    let uplink = uplink::read(&mut table, reading);
    let gateway = gateway::read(&mut table, uplink.as_ref(), reading);
    let page = page::read(&mut table, reading);
    let trust_rtc = table.flag("trust_rtc").unwrap_or(false);
    let state_directory = path(&mut table, "state_directory");
    let state_directory = state_directory.unwrap_or_else(|| reading.machine.state_directory.clone());
    let spool = spool::read(&mut table, state_directory);
    if let Some((place, key)) = table.spot("state_directory").filter(|_| !tree.entries.is_empty()) {
        let (directory, required) = (spool.directory.clone(), spool.require_durable);
        let to = PointsTo::State { directory, required, named: table.has("state_directory") };
        reading.pointers.push(Pointer { place, key, to });
    }
    let runtime_directory = path(&mut table, "runtime_directory");
    let runtime_directory = runtime_directory.unwrap_or_else(|| reading.machine.runtime_directory.clone());
    table.finish();
    // Of which files it is made, who read them adds.
    let (hash, from) = (String::new(), Vec::new());
    Config { gateway, hash, from, uplink, spool, runtime_directory, page, buses, trust_rtc }
}

/// The configuration of a machine that has none.
pub(super) fn nothing(machine: &Machine) -> Config {
    Config {
        gateway: Arc::from(""),
        hash: String::new(),
        from: Vec::new(),
        uplink: None,
        spool: SpoolSettings::new(&machine.state_directory),
        runtime_directory: machine.runtime_directory.clone(),
        page: None,
        buses: Vec::new(),
        trust_rtc: false,
    }
}

/// The names of all profiles that devices ask for.
pub(super) fn profiles_asked_for(tree: &Tree) -> Vec<String> {
    let table = |tree: &'_ Tree, key: &str| match &tree.get(key)?.node.data {
        Data::Table(inner) => Some(inner.clone()),
        _ => None,
    };
    let mut names = Vec::new();
    for bus in table(tree, "bus").into_iter().flat_map(|buses| buses.entries) {
        let Data::Table(bus) = bus.node.data else { continue };
        for device in table(&bus, "device").into_iter().flat_map(|devices| devices.entries) {
            let Data::Table(device) = device.node.data else { continue };
            if let Some(Data::Text(name)) = device.get("profile").map(|entry| &entry.node.data) {
                names.push(name.clone());
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// A path; a relative one counts from the folder of the file that names it.
fn path(table: &mut Table<'_>, key: &'static str) -> Option<PathBuf> {
    let text = table.text(key)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        table.fault(key, format!("{} is no path", quoted(&text)), "write a path".to_owned());
        return None;
    }
    let (place, _) = table.spot(key)?;
    let folder = place.file.parent().unwrap_or(Path::new(""));
    Some(folder.join(text))
}

/// Text for people: no control characters, none that turn the direction of writing, at most `max` characters.
fn free_text(table: &mut Table<'_>, key: &'static str, max: usize) -> Arc<str> {
    let Some(text) = table.text(key) else { return Arc::default() };
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if let Some(bad) = text.chars().find(|c| c.is_control() || turns(*c)) {
        let what = format!("a control character, U+{:04X}, in a text for people", u32::from(bad));
        table.fault(key, what, "remove it".to_owned());
        return Arc::default();
    }
    let length = text.chars().count();
    if length > max {
        table.fault(key, format!("a text of {length} characters"), format!("at most {max}"));
        return Arc::default();
    }
    if text.is_empty() { Arc::default() } else { Arc::from(text) }
}
