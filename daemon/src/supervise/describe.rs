//! One configuration, told to each part in the part's own words: shapes and rules for intake, names and trends for
//! viewers, meta for the broker, sections for the status board. Pure.

use std::sync::Arc;

use fieldspool_drivers::bus::DeviceSpec;

use crate::config::{Config, ConfiguredBus, DeviceInfo, Reporting};
use crate::intake::{Device, Rule};
use crate::live;
use crate::model::{PointMeta, Shape};
use crate::status::{BusStatus, DeviceStatus};
use crate::uplink;

/// The devices of a bus as intake knows them.
pub(super) fn intake(gateway: &Arc<str>, bus: &ConfiguredBus) -> Vec<Device> {
    devices(bus)
        .map(|(spec, info)| Device { shape: shape(gateway, spec, info), rules: rules(info) })
        .collect()
}

fn devices(bus: &ConfiguredBus) -> impl Iterator<Item = (&DeviceSpec, &DeviceInfo)> {
    bus.spec.devices.iter().zip(&bus.devices)
}

fn shape(gateway: &Arc<str>, spec: &DeviceSpec, info: &DeviceInfo) -> Arc<Shape> {
    let points = info.points.iter().map(|info| PointMeta {
        name: Arc::clone(&info.name),
        kind: info.kind,
        unit: Arc::clone(&info.unit),
        json_string: info.json_string,
    });
    Arc::new(Shape::new(Arc::clone(gateway), Arc::clone(&spec.name), points.collect()))
}

fn rules(info: &DeviceInfo) -> Vec<Rule> {
    let rule = |point: &Reporting| Rule {
        on_change: point.deadband.or(point.on_change.then_some(0.0)),
        heartbeat: point.heartbeat,
    };
    info.reporting.iter().map(rule).collect()
}

/// All devices as viewers know them.
pub(super) fn viewers(config: &Config) -> Vec<live::DeviceInfo> {
    let device = |bus: &ConfiguredBus, spec: &DeviceSpec, info: &DeviceInfo| live::DeviceInfo {
        device: Arc::clone(&spec.name),
        bus: Arc::clone(&bus.spec.name),
        label: Arc::clone(&info.label),
        points: Arc::clone(&info.points),
    };
    config
        .buses
        .iter()
        .flat_map(|bus| devices(bus).map(move |(spec, info)| device(bus, spec, info)))
        .collect()
}

/// All devices as the broker's subscribers are told.
pub(super) fn meta(config: &Config) -> Vec<uplink::DeviceMeta> {
    let device = |(spec, info): (&DeviceSpec, &DeviceInfo)| uplink::DeviceMeta {
        device: Arc::clone(&spec.name),
        label: Arc::clone(&info.label),
        headline: info
            .headline
            .iter()
            .filter_map(|&index| Some(info.points.get(usize::from(index))?.name.to_string()))
            .collect(),
        points: Arc::clone(&info.points),
    };
    config.buses.iter().flat_map(|bus| devices(bus)).map(device).collect()
}

/// The section of a bus on the board before its first poll.
pub(super) fn board(bus: &ConfiguredBus) -> BusStatus {
    let device = |(spec, info): (&DeviceSpec, &DeviceInfo)| DeviceStatus {
        name: spec.name.to_string(),
        label: info.label.to_string(),
        address: spec.address.words(),
        ..DeviceStatus::default()
    };
    BusStatus {
        name: bus.spec.name.to_string(),
        driver: bus.spec.link.tag().to_owned(),
        place: bus.spec.link.place(),
        devices: devices(bus).map(device).collect(),
        ..BusStatus::default()
    }
}
