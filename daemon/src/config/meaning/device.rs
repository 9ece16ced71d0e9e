//! `[bus.NAME.device]`: one device, its profile below it, and its points in groups.
//!
//! A device's own words count before its profile's, key by key, for points too. What only a device can say (its unit
//! id, its label, how often) a profile may not, and what only a profile says (`name`, `source`, `factory`) a device
//! may not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::Section;
use fieldspool_drivers::bus::{Address, Defaults, DeviceSpec, Group, Protocol};
use fieldspool_drivers::modbus;
use fieldspool_drivers::point::Point;

use super::bus::{HEARTBEAT, NAME_REMEDY, PERIOD, is_name};
use super::{Reading, free_text, point};
use crate::config::document::{self, Entry};
use crate::config::fault::Place;
use crate::config::table::Table;
use crate::config::words::{did_you_mean, quoted};
use crate::config::{DeviceInfo, Reporting};
use crate::model::PointInfo;

/// Longest label, characters.
pub(super) const LABEL_MAX: usize = 128;

/// Most points of one device: its last poll must fit into memory many times over.
const POINTS_MAX: usize = 10_000;

/// Keys that a profile has for itself.
const PROFILE_ONLY: &[&str] = &["name", "source", "factory"];

/// Keys that belong to one device and no other.
const DEVICE_ONLY: &[&str] = &["unit_id", "profile", "label", "only", "period", "heartbeat"];

/// What a device or point has from above unless it says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inherited {
    pub(super) period: Duration,
    pub(super) heartbeat: Duration,
}

/// A device, and where it and its points stand.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) spec: DeviceSpec,
    pub(super) info: DeviceInfo,
    pub(super) place: (Place, String),
    pub(super) points: Vec<(Place, String)>,
    /// Its own address has a fault: this one stands in for it, so that what is wrong with its points is said at once.
    pub(super) stands_in: bool,
}

/// Reads one device; its faults are reported.
pub(super) fn read(
    entry: &Entry,
    own: Table<'_>,
    protocol: Protocol,
    inherited: Inherited,
    reading: &mut Reading<'_>,
) -> Placed {
    let findings = reading.findings;
    if !is_name(&entry.key) {
        let what = format!("{} cannot be the name of a device", quoted(&entry.key));
        findings.fault(entry.key_place.clone(), parent(own.path()), what, NAME_REMEDY.to_owned());
    }
    let path = own.path().to_owned();
    let (mut table, profile) = with_profile(own, reading);
    let label = free_text(&mut table, "label", LABEL_MAX);
    let address = protocol.address(&mut table);
    let inherited = Inherited {
        period: table.duration("period", PERIOD).unwrap_or(inherited.period),
        heartbeat: table.duration("heartbeat", HEARTBEAT).unwrap_or(inherited.heartbeat),
    };
    let map = profile.as_ref().and_then(|name| reading.profiles.get(&**name)).map(|map| &map.file);
    let points = points(&mut table, protocol, inherited, map);
    table.finish();
    let name = Arc::from(entry.key.as_str());
    let Points { specs, infos, reporting, places, groups, headline } = points;
    let points = shared(profile.as_ref(), infos, reading);
    let stands_in = address.is_none();
    let address = address.unwrap_or_else(|| Address::Modbus(modbus::Device::new(1)));
    Placed {
        spec: DeviceSpec { name, address, points: specs, groups },
        info: DeviceInfo { label, profile, headline, points, reporting },
        place: (entry.key_place.clone(), path),
        points: places,
        stands_in,
    }
}

/// Checks a profile by itself, as if a device that says nothing more used it; how many points it has.
pub(in crate::config) fn profile_alone(name: &str, protocol: Protocol, reading: &mut Reading<'_>) -> usize {
    let unit_id = match protocol {
        Protocol::Modbus => "unit_id = 1,",
        Protocol::Line => "",
    };
    let text = format!("check = {{ {unit_id} profile = \"{}\" }}", name.escape_default());
    let document = document::parse(&Arc::from(Path::new("")), &text);
    let mut all =
        Table::new(&document.tree, String::new(), Place::file(Arc::from(Path::new(""))), reading.findings);
    let inherited = Inherited { period: Duration::from_secs(10), heartbeat: Duration::from_secs(60) };
    let read = all.named().into_iter().map(|(entry, table)| read(entry, table, protocol, inherited, reading));
    read.map(|placed| placed.spec.points.len()).sum()
}

/// The device's table over its profile's, and the profile's name.
fn with_profile<'a>(mut own: Table<'a>, reading: &Reading<'a>) -> (Table<'a>, Option<Arc<str>>) {
    let Some(name) = own.text("profile") else { return (own, None) };
    let Some(profile) = reading.profiles.get(&name) else {
        // A profile that is there and could not be read has had its own fault.
        // One that nobody finds may lie in a folder that cannot be read now.
        let may_come = !reading.findings.passing.borrow().is_empty();
        if !is_profile_name(&name) {
            let what = format!("{} cannot be the name of a profile", quoted(&name));
            let remedy = "write the name of a file in profiles/, without its folder and without .toml";
            own.fault("profile", what, remedy.to_owned());
        } else if !may_come && !reading.profile_names.contains(&name) {
            let known = reading.profile_names.iter().map(String::as_str);
            let remedy = did_you_mean(&name, known, || {
                format!("put it into profiles/{}.toml beside the configuration", name.escape_debug())
            });
            own.fault("profile", format!("there is no profile {}", quoted(&name)), remedy);
        }
        return (own, None);
    };
    let place = Place { file: Arc::clone(&profile.file), line: 1, column: 1 };
    let mut below = Table::new(&profile.tree, String::new(), place, reading.findings);
    profile_keys(&mut below);
    let table = own.over(below.restricted(PROFILE_ONLY, DEVICE_ONLY));
    (table, Some(Arc::from(name)))
}

/// Whether a file in `profiles/` could be called so.
fn is_profile_name(name: &str) -> bool {
    let ends_in_toml = Path::new(name).extension().is_some_and(|end| end == "toml");
    !name.is_empty() && !name.starts_with('.') && !name.contains('/') && !ends_in_toml
}

/// The list that another device of the profile has too, if it is the same.
fn shared(profile: Option<&Arc<str>>, infos: Vec<PointInfo>, reading: &mut Reading<'_>) -> Arc<[PointInfo]> {
    let Some(profile) = profile else { return infos.into() };
    match reading.points_of_profiles.get(profile) {
        Some(known) if **known == *infos => Arc::clone(known),
        Some(_) => infos.into(),
        None => {
            let points: Arc<[PointInfo]> = infos.into();
            reading.points_of_profiles.insert(Arc::clone(profile), Arc::clone(&points));
            points
        }
    }
}

/// What a profile says about itself.
fn profile_keys(table: &mut Table<'_>) {
    for key in ["name", "source"] {
        let _for_people_only = free_text(table, key, 512);
    }
    if let Some(mut factory) = table.table("factory") {
        let _for_people_only = (
            factory.integer("speed", 300..=4_000_000),
            factory.text("format"),
            factory.integer("unit_id", 0..=255),
        );
        factory.finish();
    }
}

/// The points of a device; the lists are parallel.
#[derive(Debug, Default)]
struct Points {
    specs: Vec<Point>,
    infos: Vec<PointInfo>,
    reporting: Vec<Reporting>,
    places: Vec<(Place, String)>,
    groups: Vec<Group>,
    headline: Vec<u16>,
}

/// `map`: the file of its profile.
fn points(
    table: &mut Table<'_>,
    protocol: Protocol,
    inherited: Inherited,
    map: Option<&Arc<Path>>,
) -> Points {
    let defaults = match table.table("defaults") {
        Some(mut defaults) => {
            let read = protocol.defaults(&mut defaults);
            defaults.finish();
            read.unwrap_or_default()
        }
        None => Defaults::default(),
    };
    let mut all = table.table("points");
    let empty = all.as_ref().is_none_or(Table::is_empty);
    let mut described = all.as_mut().map(Table::named).unwrap_or_default();
    if empty && table.is_whole() {
        no_points(table, map);
    }
    if described.len() > POINTS_MAX {
        table.fault(
            "points",
            format!("{} points", described.len()),
            format!("at most {POINTS_MAX} a device"),
        );
        described.truncate(POINTS_MAX);
    }
    let names: Vec<&str> = described.iter().map(|(entry, _)| entry.key.as_str()).collect();
    let only = table.texts("only");
    // Without its profile a device has no points that could be known.
    let known = !empty || !table.has("profile");
    let known_points = |table: &mut Table<'_>, key, wanted: &[String]| {
        if known {
            known_points(table, key, wanted, &names);
        }
    };
    known_points(table, "only", only.as_deref().unwrap_or_default());
    if only.as_ref().is_some_and(Vec::is_empty) {
        let remedy = "name the points that are wanted, or remove it: then all are polled".to_owned();
        table.fault("only", "an empty list leaves no point".to_owned(), remedy);
    }
    let headline = table.texts("headline").unwrap_or_default();
    known_points(table, "headline", &headline);

    let mut points = Points::default();
    let mut groups: BTreeMap<Duration, Vec<u16>> = BTreeMap::new();
    for (entry, table) in described {
        let place = (entry.key_place.clone(), table.path().to_owned());
        let Some((spec, info, reporting)) = point::read(entry, table, (protocol, &defaults), inherited)
        else {
            continue;
        };
        let wanted = only.as_ref().is_none_or(|only| only.contains(&entry.key));
        let (true, Ok(index)) = (wanted, u16::try_from(points.specs.len())) else { continue };
        groups.entry(spec.period).or_default().push(index);
        points.specs.push(spec);
        points.infos.push(info);
        points.reporting.push(reporting);
        points.places.push(place);
    }
    let index_of = |name: &String| points.specs.iter().position(|point| *point.name == **name);
    let headline =
        headline.iter().filter_map(index_of).filter_map(|index| u16::try_from(index).ok()).collect();
    points.headline = headline;
    for &index in &points.headline {
        points.infos[usize::from(index)].headline = true;
    }
    points.groups = groups.into_iter().map(|(period, points)| Group { period, points }).collect();
    points
}

/// Nothing would be polled: the device would be said to be well for ever.
fn no_points(table: &mut Table<'_>, map: Option<&Arc<Path>>) {
    match map {
        Some(file) => {
            let place = Place { file: Arc::clone(file), line: 1, column: 1 };
            let what = "a profile without points, and a device of it that has none of its own".to_owned();
            table.fault_at(place, String::new(), what, "add [points]".to_owned());
        }
        // A profile that does not exist has had its own fault.
        None if table.has("profile") => {}
        None => {
            let remedy = "name a profile, or add points = { ... }".to_owned();
            table.fault("points", "a device without points".to_owned(), remedy);
        }
    }
}

/// Reports names that are no points of the device.
fn known_points(table: &mut Table<'_>, key: &'static str, wanted: &[String], names: &[&str]) {
    for name in wanted.iter().filter(|name| !names.contains(&name.as_str())) {
        let remedy = did_you_mean(name, names.iter().copied(), || "name points of this device".to_owned());
        table.fault(key, format!("there is no point {}", quoted(name)), remedy);
    }
}

/// The path of the table around a table.
pub(super) fn parent(path: &str) -> String {
    path.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned()
}
