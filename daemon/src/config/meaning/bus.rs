//! `[bus.NAME]`: one link, its devices, and what is wrong with them together.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldspool_drivers::Section;
use fieldspool_drivers::bus::{Address, BusSpec, DeviceSpec, Link};

use super::device::{self, Inherited, Placed};
use super::{Pointer, PointsTo, Reading};
use crate::config::ConfiguredBus;
use crate::config::document::{self, Data, Entry};
use crate::config::fault::Place;
use crate::config::table::{Findings, Table, join};
use crate::config::words::{did_you_mean, either, nearest, quoted};

/// Range of every `period`.
pub(super) const PERIOD: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);

/// Range of every `heartbeat`.
pub(super) const HEARTBEAT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(60);

/// A line takes its time, and so does whatever stands behind a terminal server.
const PERIOD_SERIAL: Duration = Duration::from_secs(10);
const PERIOD_TCP: Duration = Duration::from_secs(1);

/// Above this share of its time a line has no room for a device that is slow to answer.
const LOAD_MAX: f64 = 0.8;

/// What the buses read so far have for themselves.
#[derive(Default)]
struct Taken {
    /// Place of each link, and the name of its bus.
    links: Vec<(String, String)>,
    /// By name of a device: the name of its bus, and where it stands.
    devices: HashMap<String, (String, Place)>,
}

/// All buses.
pub(super) fn all(top: &mut Table<'_>, reading: &mut Reading<'_>) -> Vec<Arc<ConfiguredBus>> {
    let Some(mut buses) = top.table("bus") else { return Vec::new() };
    let mut read = Vec::new();
    let mut taken = Taken::default();
    for (entry, mut table) in buses.named() {
        if !is_name(&entry.key) {
            let what = format!("{} cannot be the name of a bus", quoted(&entry.key));
            reading.findings.fault(entry.key_place.clone(), "bus".to_owned(), what, NAME_REMEDY.to_owned());
        }
        let bus = one(&entry.key, &mut table, reading, &mut taken);
        table.finish();
        read.extend(bus.map(Arc::new));
    }
    read
}

/// What a wrong name of a bus or device should be.
pub(super) const NAME_REMEDY: &str = "write 1 to 64 of A-Z a-z 0-9 _ -, and free text as label";

/// Whether a bus or device may be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn one(
    name: &str,
    table: &mut Table<'_>,
    reading: &mut Reading<'_>,
    taken: &mut Taken,
) -> Option<ConfiguredBus> {
    let (tag, link) = link(table, reading);
    if let Some((link, place, key)) = &link {
        same_place(name, link, (place, key), &mut taken.links, reading);
    }
    let is_whole = link.is_some();
    let link = link.map(|(link, ..)| link).or_else(|| stand_in(tag.as_deref()?));
    let protocol = link.as_ref().map(Link::protocol);
    let tcp = tag.as_deref() == Some("modbus-tcp");
    let inherited = Inherited {
        period: table.duration("period", PERIOD).unwrap_or(if tcp { PERIOD_TCP } else { PERIOD_SERIAL }),
        heartbeat: table.duration("heartbeat", HEARTBEAT).unwrap_or(HEARTBEAT_DEFAULT),
    };
    let mut devices = Vec::new();
    let mut described = table.table("device");
    for (entry, device) in described.iter_mut().flat_map(Table::named) {
        same_device(name, entry, device.path(), &mut taken.devices, reading);
        if let Some(protocol) = protocol {
            devices.push(device::read(entry, device, protocol, inherited, reading));
        }
    }
    if described.as_ref().is_none_or(Table::is_empty) && table.is_whole() {
        let remedy = format!("add [{}.device]", table.path());
        table.warn("device", "no devices: nothing is polled here".to_owned(), remedy);
    }
    lend_addresses(&mut devices);
    let mut spec = BusSpec { name: Arc::from(name), link: link?, devices: Vec::new() };
    let (mut infos, mut places, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for Placed { spec: device, info, place, points, stands_in } in devices {
        spec.devices.push(device);
        infos.push(info);
        places.push((place, points));
        whole.push(!stands_in);
    }
    together(&spec, &places, reading);
    let (mut of_specs, mut of_infos) = (whole.iter(), whole.iter());
    spec.devices.retain(|_| of_specs.next().is_some_and(|whole| *whole));
    infos.retain(|_| of_infos.next().is_some_and(|whole| *whole));
    if !is_whole {
        return None;
    }
    load(&spec, table);
    Some(ConfiguredBus { spec: Arc::new(spec), devices: infos })
}

/// The tag under `link`, and the link with the place and path of its table.
fn link(table: &mut Table<'_>, reading: &mut Reading<'_>) -> (Option<String>, Option<(Link, Place, String)>) {
    if let Some(Data::Text(tag)) = table.value("link").map(|node| &node.data) {
        return (link_as_text(tag, table).map(str::to_owned), None);
    }
    let all = table.table("link");
    // What a syntax error has swallowed is not missing.
    let none =
        if table.has("link") { all.as_ref().is_some_and(Table::is_empty) && table.is_whole() } else { true };
    let mut links = all.map(|mut links| links.named()).unwrap_or_default();
    if none {
        let remedy = format!("add [{}.link.TAG] with one of {}", table.path(), Link::tags().join(", "));
        table.fault("link", "a bus without a link".to_owned(), remedy);
    }
    if let [_, (second, _), ..] = links.as_slice() {
        let what = "a second link: a bus is one line".to_owned();
        let path = join(table.path(), "link");
        reading.findings.fault(second.key_place.clone(), path, what, "make it a bus of its own".to_owned());
        return (None, None);
    }
    let link_path = join(table.path(), "link");
    let Some((entry, mut table)) = links.pop() else { return (None, None) };
    let Some(tag) = Link::tags().iter().find(|tag| **tag == entry.key) else {
        let remedy = did_you_mean(&entry.key, Link::tags().iter().copied(), || {
            format!("write {}", either(Link::tags()))
        });
        let what = format!("unknown link {}", quoted(&entry.key));
        reading.findings.fault(entry.key_place.clone(), link_path, what, remedy);
        // The devices are checked as if that had been typed.
        return (nearest(&entry.key, Link::tags().iter().copied()).map(str::to_owned), None);
    };
    let link = Link::from_section(tag, &mut table);
    if let Some((port, (place, key))) = link.as_ref().and_then(Link::serial_port).zip(table.spot("port")) {
        reading.pointers.push(Pointer { place, key, to: PointsTo::SerialPort(port.into()) });
    }
    let placed = table.spot(if table.has("port") { "port" } else { "host" });
    table.finish();
    (Some((*tag).to_owned()), link.zip(placed).map(|(link, (place, key))| (link, place, key)))
}

/// A link of this kind for one that has a fault of its own: what is wrong with its devices is to be said at once, not only when that
/// is mended. Never opened, and never asked how fast it is.
fn stand_in(tag: &str) -> Option<Link> {
    let file: Arc<Path> = Arc::from(Path::new(""));
    ["port = \"/dev/null\"", "host = \"localhost\"\nport = 502"].into_iter().find_map(|text| {
        let (document, findings) = (document::parse(&file, text), Findings::default());
        let place = Place::file(Arc::clone(&file));
        Link::from_section(tag, &mut Table::new(&document.tree, String::new(), place, &findings))
    })
}

/// Gives each device whose own unit id has a fault one that no other has. One for which none is left is left out.
fn lend_addresses(devices: &mut Vec<Placed>) {
    let unit_id = |placed: &Placed| match &placed.spec.address {
        Address::Modbus(device) => Some(device.unit_id),
        Address::Line(_) => None,
    };
    let taken: Vec<u8> = devices.iter().filter(|placed| !placed.stands_in).filter_map(unit_id).collect();
    let mut free = (1..=247).rev().filter(|id| !taken.contains(id));
    devices.retain_mut(|placed| match &mut placed.spec.address {
        Address::Modbus(device) if placed.stands_in => {
            free.next().inspect(|id| device.unit_id = *id).is_some()
        }
        _ => true,
    });
}

/// `link = "modbus-tcp"`: the kind is right, its settings have no place. The tag that was meant.
fn link_as_text(text: &str, table: &mut Table<'_>) -> Option<&'static str> {
    let tags = Link::tags();
    let tag = tags.iter().copied().find(|tag| *tag == text).or_else(|| nearest(text, tags.iter().copied()));
    let remedy = match tag {
        Some(tag) => format!("write [{}.link.{tag}], and its settings below it", table.path()),
        None => format!("write [{}.link.TAG] with one of {}", table.path(), tags.join(", ")),
    };
    table.fault("link", format!("{} is a text, a table is needed", quoted(text)), remedy);
    tag
}

/// Two buses on one line would talk into each other's answers.
fn same_place(
    name: &str,
    link: &Link,
    (place, key): (&Place, &str),
    taken: &mut Vec<(String, String)>,
    reading: &Reading<'_>,
) {
    let real = match link.serial_port() {
        // by-id, by-path and ttyUSB0 are names of one thing.
        Some(port) => {
            std::fs::canonicalize(port).map_or_else(|_| port.to_owned(), |path| path.display().to_string())
        }
        None => link.place(),
    };
    let Some((_, other)) = taken.iter().find(|(there, _)| *there == real) else {
        taken.push((real, name.to_owned()));
        return;
    };
    let what = format!("bus {} is on {} already", quoted(other), link.place());
    let remedy = format!("move the devices of this bus to bus {}", quoted(other));
    if link.tag() == "modbus-tcp" {
        reading.findings.warn(place.clone(), key.to_owned(), what, remedy);
    } else {
        reading.findings.fault(place.clone(), key.to_owned(), what, remedy);
    }
}

/// A device is known by its name alone to whoever comes after its bus: topics, intake, the spool, history, the page. Two of one
/// name would be taken for each other.
fn same_device(
    bus: &str,
    entry: &Entry,
    path: &str,
    taken: &mut HashMap<String, (String, Place)>,
    reading: &Reading<'_>,
) {
    let Some((other, there)) = taken.get(&entry.key) else {
        taken.insert(entry.key.clone(), (bus.to_owned(), entry.key_place.clone()));
        return;
    };
    let name = quoted(&entry.key);
    let what = format!("a second device {name}, the first is at {there} on bus {}", quoted(other));
    let remedy =
        "give one of them another name: readings are sent, stored and shown under it; a label may repeat";
    reading.findings.fault(entry.key_place.clone(), path.to_owned(), what, remedy.to_owned());
}

type DevicePlaces = ((Place, String), Vec<(Place, String)>);

/// What the driver finds wrong when it sees the devices together.
fn together(spec: &BusSpec, places: &[DevicePlaces], reading: &Reading<'_>) {
    for fault in spec.faults() {
        let Some(((device, device_path), points)) = places.get(fault.device) else { continue };
        let (place, path) = fault
            .point
            .and_then(|point| points.get(point))
            .cloned()
            .unwrap_or_else(|| (device.clone(), device_path.clone()));
        reading.findings.fault(place, path, fault.what, fault.remedy);
    }
}

/// Share of its time that a line is in use; 0 where it cannot be foretold.
pub(in crate::config) fn share(spec: &BusSpec) -> f64 {
    let period =
        |device: &DeviceSpec, group: usize| device.groups.get(group).map(|group| group.period.as_secs_f64());
    spec.plan()
        .iter()
        .filter_map(|request| {
            let period = period(spec.devices.get(request.device)?, request.group)?;
            Some(request.cost.as_secs_f64() / period.max(0.001))
        })
        .sum()
}

fn load(spec: &BusSpec, table: &mut Table<'_>) {
    let share = share(spec);
    if share > LOAD_MAX {
        let what = format!("polling takes {:.0} % of the line's time", share * 100.0);
        let cure = "poll less often (period), fewer points (only), at a higher speed, or on a second line";
        table.warn("period", what, format!("{cure}; fieldspool check --plan shows each request"));
    }
}
