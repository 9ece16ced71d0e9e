//! What a line of instruments will be asked, and what cannot be meant: words for `check`, `check --plan` and the page.

use super::fields;
use super::listener::beginning;
use super::settings::{Device, Link};
use crate::bus::{Address, DeviceSpec, PlannedRequest, SpecFault};

/// What an instrument sends at once; its real length shows only on the line.
const ANSWER_BYTES_EXPECTED: u32 = 64;

/// How a device is reached, as it is shown to a person.
pub fn words(device: &Device) -> String {
    match (&device.query, &device.select) {
        (Some(query), _) => format!("query \"{}\"", query.escape_ascii()),
        (None, Some(select)) => format!("listen for {select}"),
        (None, None) => "listen".to_owned(),
    }
}

/// What each group costs: the query and an answer of ordinary length.
pub fn planned(link: &Link, devices: &[DeviceSpec]) -> Vec<PlannedRequest> {
    let mut plan = Vec::new();
    for (device, address) in lines(devices) {
        let query = address.query.as_ref().map_or(0, |query| u32::try_from(query.len()).unwrap_or(u32::MAX));
        let cost = link.port.character_time().saturating_mul(ANSWER_BYTES_EXPECTED + query);
        let groups = devices.get(device).map_or(0, |spec| spec.groups.len());
        plan.extend((0..groups).map(|group| PlannedRequest { device, group, words: words(address), cost }));
    }
    plan
}

/// All faults in the meaning of the instruments of one line: those whose sentences or answers could be mistaken for
/// another's (P5).
pub fn faults(devices: &[DeviceSpec]) -> Vec<SpecFault> {
    let mut faults = Vec::new();
    let talkers = lines(devices).filter(|(_, device)| device.query.is_none()).count();
    let terminator =
        lines(devices).find(|(_, device)| device.query.is_none()).map(|(_, device)| &device.terminator);
    for (index, device) in lines(devices) {
        let mut fault = |what: &str, remedy: &str| {
            faults.push(SpecFault { device: index, point: None, what: what.into(), remedy: remedy.into() });
        };
        if device.query.is_some() {
            if talkers > 0 {
                fault(
                    "a queried instrument shares its line with one that talks by itself",
                    "give each a serial port of its own: their answers cannot be told apart",
                );
            } else if let Some((what, remedy)) = mistaken(devices, index) {
                fault(&what, remedy);
            }
            continue;
        }
        if talkers > 1 && takes_any_line(devices, index) {
            fault(
                "several instruments talk on this line, and this one would take every sentence for its own",
                "add `select`, the beginning of its sentences, such as `select = \"WIMWV\"`",
            );
        }
        if terminator.is_some_and(|first| *first != device.terminator) {
            fault(
                "the instruments that talk on this line end their sentences differently",
                "give all of them the same `terminator`",
            );
        }
    }
    faults
}

/// How a queried instrument could take another's answer, which came late or was more than one line, for its own. Of two
/// whose answers begin alike the second is told.
fn mistaken(devices: &[DeviceSpec], index: usize) -> Option<(String, &'static str)> {
    let any = takes_any_line(devices, index);
    let mistakes = |other: &usize| {
        any || *other < index
            && !takes_any_line(devices, *other)
            && fields::begin_alike(&beginnings(devices, index), &beginnings(devices, *other))
    };
    let other = lines(devices).map(|(other, _)| other).filter(|other| *other != index).find(mistakes)?;
    let other = devices.get(other).map_or("", |spec| &spec.name);
    Some(if any {
        let what = format!(
            "this queried instrument would take any line for its answer, also a late one of \"{other}\""
        );
        (
            what,
            "add `select`, the beginning of its answers, such as `select = \"01\"`, or give it a port of its own",
        )
    } else {
        let what =
            format!("its answers begin like those of \"{other}\": a late one could be taken for the other's");
        (what, "make `select` so long that they differ, or give each a serial port of its own")
    })
}

fn takes_any_line(devices: &[DeviceSpec], index: usize) -> bool {
    beginnings(devices, index).contains(&None)
}

/// What the lines begin with that count for an instrument.
fn beginnings(devices: &[DeviceSpec], index: usize) -> Vec<Option<&str>> {
    let Some((spec, Address::Line(device))) = devices.get(index).map(|spec| (spec, &spec.address)) else {
        return Vec::new();
    };
    spec.points.iter().map(|point| beginning(device, point)).collect()
}

fn lines(devices: &[DeviceSpec]) -> impl Iterator<Item = (usize, &Device)> {
    devices.iter().enumerate().filter_map(|(index, spec)| match &spec.address {
        Address::Line(device) => Some((index, device)),
        Address::Modbus(_) => None,
    })
}
