//! `fieldspool check`: everything that is wrong, to be wondered at, or not checked, and what will be polled.
//!
//! The text goes to standard output as it is; the exit code is 0, 66 (nothing there to check) or 78 (faults).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use fieldspool_drivers::bus::{BusSpec, Link};

use super::document::Data;
use super::fault::{Fault, Unchecked};
use super::folders::Folders;
use super::meaning::{self, Machine, Reading};
use super::words::{duration_words, one_line};
use super::{Gathered, gather, surroundings};

/// Nothing is wrong.
const EXIT_OK: u8 = 0;
/// There is no such file (sysexits EX_NOINPUT).
const EXIT_NO_INPUT: u8 = 66;
/// Where only files and ports have faults: `run` warns of each and starts.
const STARTS_ALL_THE_SAME: &str =
    "the text is right: the daemon starts with it, reads what it can, and warns of the rest";

/// Why a request of the plan may ask for more than its points.
const WIDER: &str = "a Modbus RTU request may read registers between its points, and one or two (8 or 16 coils) beyond them: answers \
                     of one length could be taken for each other";

/// Something is wrong (sysexits EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

/// What `fieldspool check` prints and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Lines for standard output.
    pub text: String,
    /// Exit code.
    pub exit: u8,
}

/// Checks a folder, a configuration file or a profile; without a path the standard folders. `now_us` is the wall
/// clock, µs since 1970, for the certificates.
pub fn check(path: Option<&Path>, plan: bool, now_us: i64) -> CheckReport {
    let folders = Folders::of(path);
    if let Some(path) = path.filter(|path| !path.exists()) {
        let text = one_line(&format!("{}: there is no such file or folder", path.display())) + "\n";
        return CheckReport { text, exit: EXIT_NO_INPUT };
    }
    check_in(&folders, plan, now_us)
}

/// As [`check`], with the folders given.
pub fn check_in(folders: &Folders, plan: bool, now_us: i64) -> CheckReport {
    let mut gathered = gather(folders, Machine::this());
    if let Some(report) = profile(folders, &gathered) {
        return report;
    }
    let text_is_right = gathered.faults.is_empty() && gathered.unread.is_empty();
    let look = surroundings::look(&gathered.pointers, now_us);
    gathered.faults.extend(look.faults);
    gathered.warnings.extend(look.warnings);
    gathered.unchecked.extend(look.unchecked);
    gathered.tidy();
    let mut text = findings(&gathered);
    if plan {
        plan_words(&gathered, &mut text);
    }
    summary(&gathered, folders, &mut text);
    if text_is_right && !gathered.faults.is_empty() {
        line(&mut text, format_args!("{STARTS_ALL_THE_SAME}"));
    }
    let exit = if gathered.faults.is_empty() { EXIT_OK } else { EXIT_CONFIG };
    CheckReport { text, exit }
}

fn findings(gathered: &Gathered) -> String {
    let mut text = String::new();
    for fault in &gathered.faults {
        line(&mut text, format_args!("{fault}"));
    }
    for warning in &gathered.warnings {
        line(&mut text, format_args!("{}", warning_words(warning)));
    }
    for unchecked in &gathered.unchecked {
        line(&mut text, format_args!("{unchecked}"));
    }
    for path in &gathered.ignored {
        let hint = format!("{}: hint: this file is not read: its name does not end in .toml", path.display());
        line(&mut text, format_args!("{}", one_line(&hint)));
    }
    text
}

/// A warning as it is printed: the place first, as compilers do.
pub(super) fn warning_words(warning: &Fault) -> String {
    let mut marked = warning.clone();
    marked.what = format!("warning: {}", warning.what);
    marked.to_string()
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _infallible = writeln!(text, "{words}");
}

fn counted(number: usize, one: &str) -> String {
    let plural = match one {
        "bus" => "buses".to_owned(),
        other => format!("{other}s"),
    };
    if number == 1 { format!("1 {one}") } else { format!("{number} {plural}") }
}

fn summary(gathered: &Gathered, folders: &Folders, text: &mut String) {
    let config = &gathered.draft;
    let devices: usize = config.buses.iter().map(|bus| bus.spec.devices.len()).sum();
    let points: usize =
        config.buses.iter().flat_map(|bus| &bus.spec.devices).map(|device| device.points.len()).sum();
    let counts = format!(
        "{}, {}, {}, {}",
        counted(gathered.files, "file"),
        counted(config.buses.len(), "bus"),
        counted(devices, "device"),
        counted(points, "point"),
    );
    let nothing_seen = gathered.files == 0 && !gathered.unchecked.is_empty();
    let mut verdict = match gathered.faults.len() {
        0 if nothing_seen => Vec::new(),
        0 => vec!["ok".to_owned()],
        faults => vec![counted(faults, "fault")],
    };
    if !gathered.warnings.is_empty() {
        verdict.push(counted(gathered.warnings.len(), "warning"));
    }
    if !gathered.unchecked.is_empty() {
        verdict.push(not_checked(&gathered.unchecked));
    }
    if gathered.files == 0 && gathered.faults.is_empty() && gathered.unchecked.is_empty() {
        let looked: Vec<String> = folders.config.iter().map(|folder| folder.display().to_string()).collect();
        line(text, format_args!("no configuration in {}: nothing is polled", looked.join(", ")));
        return;
    }
    line(text, format_args!("{counts}: {}", verdict.join(", ")));
}

/// Of a folder, all that lies in it is unknown.
pub(super) fn not_checked(unchecked: &[Unchecked]) -> String {
    let folders = unchecked.iter().filter(|unchecked| unchecked.path.is_dir()).count();
    let counts = [(unchecked.len() - folders, "file"), (folders, "folder")];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, one)| counted(*count, one)).collect();
    format!("{} not checked", counts.join(" and "))
}

/// A file that is a profile is checked as one.
fn profile(folders: &Folders, gathered: &Gathered) -> Option<CheckReport> {
    let [path] = folders.config.as_slice() else { return None };
    let is_profile = path.is_file()
        && matches!(gathered.tree.get("points").map(|entry| &entry.node.data), Some(Data::Table(_)))
        && ["bus", "uplink", "gateway"].iter().all(|key| gathered.tree.get(key).is_none());
    if !is_profile {
        return None;
    }
    let name = path.file_stem()?.to_str()?.to_owned();
    let alone = Folders { config: Vec::new(), profiles: vec![path.parent()?.to_path_buf()], named: false };
    // Which protocol it is for, a profile does not say: the one that understands most of it.
    let (points, best) = meaning::PROTOCOLS
        .iter()
        .map(|protocol| {
            gathered_profile(&alone, &name, |reading| meaning::profile_alone(&name, *protocol, reading))
        })
        .min_by_key(|(_, gathered)| gathered.faults.len())?;
    let mut text = findings(&best);
    let verdict = if best.faults.is_empty() { "ok".to_owned() } else { counted(best.faults.len(), "fault") };
    line(&mut text, format_args!("profile {name}, {}: {verdict}", counted(points, "point")));
    let exit = if best.faults.is_empty() { EXIT_OK } else { EXIT_CONFIG };
    Some(CheckReport { text, exit })
}

fn gathered_profile(
    folders: &Folders,
    name: &str,
    read: impl FnOnce(&mut Reading<'_>) -> usize,
) -> (usize, Gathered) {
    let mut points = 0;
    let gathered = super::gather_with(folders, Machine::this(), &[name.to_owned()], |_, reading| {
        points = read(reading);
        meaning::nothing(&reading.machine)
    });
    (points, gathered)
}

/// What will be polled, and what it costs.
fn plan_words(gathered: &Gathered, text: &mut String) {
    let buses = &gathered.draft.buses;
    for bus in buses {
        let spec = &bus.spec;
        line(text, format_args!("bus {}: {} {}", spec.name, spec.link.tag(), spec.link.place()));
        requests(spec, text);
        let readings: f64 = spec
            .devices
            .iter()
            .flat_map(|device| &device.groups)
            .map(|group| group.points.len() as f64 / group.period.as_secs_f64().max(0.001))
            .fold(0.0, |sum, each| sum + each);
        let share = meaning::share(spec);
        let busy = if share > 0.0 {
            format!("{:.1} % of the line's time", share * 100.0)
        } else {
            "the time this takes depends on the network and the devices".to_owned()
        };
        line(text, format_args!("  in all {readings:.2} readings a second; {busy}"));
        let used: BTreeSet<&str> =
            bus.devices.iter().filter_map(|device| device.profile.as_deref()).collect();
        for (name, words) in gathered.factory.iter().filter(|(name, _)| used.contains(name.as_str())) {
            line(text, format_args!("  {name} comes from the factory with {words}"));
        }
    }
    let is_rtu = |spec: &BusSpec| matches!(spec.link, Link::ModbusRtu(_) | Link::ModbusRtuTcp(_));
    if buses.iter().any(|bus| is_rtu(&bus.spec) && !bus.spec.devices.is_empty()) {
        line(text, format_args!("{WIDER}"));
    }
}

/// A line for each request: device, period, what is asked, time, share.
fn requests(spec: &BusSpec, text: &mut String) {
    let plan = spec.plan();
    let rows: Vec<[String; 5]> = plan
        .iter()
        .filter_map(|request| {
            let device = spec.devices.get(request.device)?;
            let period = device.groups.get(request.group)?.period;
            let cost = request.cost.as_secs_f64();
            let costs = !request.cost.is_zero();
            let share = cost / period.as_secs_f64().max(0.001) * 100.0;
            Some([
                device.name.to_string(),
                format!("every {}", duration_words(period)),
                request.words.clone(),
                if costs { format!("{:.1} ms", cost * 1e3) } else { String::new() },
                if costs { format!("{share:.2} %") } else { String::new() },
            ])
        })
        .collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let mut words = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // The two numbers at the end stand under each other.
            let padding = " ".repeat(width - cell.chars().count().min(width));
            let (before, after) = if column > 2 { (padding.as_str(), "") } else { ("", padding.as_str()) };
            words.extend(["  ", before, cell, after]);
        }
        line(text, format_args!("{}", words.trim_end()));
    }
}
