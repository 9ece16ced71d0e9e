//! What cannot be, although each part of it reads well: values that overlap, end outside their table or do not fit
//! a request, unit ids used twice.

use std::collections::HashMap;

use super::source::{Source, Type};
use crate::bus::{Address, BusSpec, DeviceSpec, SpecFault};
use crate::point;

/// All faults of a Modbus bus.
pub(crate) fn faults(bus: &BusSpec) -> Vec<SpecFault> {
    let mut faults = Vec::new();
    let serial = bus.link.serial_port().is_some() || matches!(bus.link, crate::bus::Link::ModbusRtuTcp(_));
    let mut units: HashMap<u8, usize> = HashMap::new();
    for (index, device) in bus.devices.iter().enumerate() {
        let Address::Modbus(address) = &device.address else { continue };
        let unit = address.unit_id;
        let mut fault = |what, remedy| faults.push(SpecFault { device: index, point: None, what, remedy });
        if serial && !(1..=247).contains(&unit) {
            fault(
                format!("unit id {unit} cannot be polled on a serial line"),
                "a device there has a unit id of 1 to 247; look at its display or its switches".into(),
            );
        }
        if let Some(other) = units.insert(unit, index).and_then(|other| bus.devices.get(other)) {
            fault(
                format!("{} has unit id {unit} too", other.name),
                "two instruments of one bus need two unit ids; if it is one instrument, put all its points \
                 into one profile"
                    .into(),
            );
        }
        of_points(index, device, address.max_registers, &mut faults);
    }
    faults
}

fn of_points(index: usize, device: &DeviceSpec, max_registers: u16, faults: &mut Vec<SpecFault>) {
    let mut placed: Vec<(usize, Source)> = Vec::new();
    for (point, spec) in device.points.iter().enumerate() {
        let point::Source::Modbus(source) = &spec.source else { continue };
        let mut fault =
            |what, remedy| faults.push(SpecFault { device: index, point: Some(point), what, remedy });
        let last = u32::from(source.address) + u32::from(source.registers()) - 1;
        if last > 65_535 {
            fault(
                format!("{source} would end at {last}, past the end of the table"),
                format!(
                    "the last address is 65535: begin at {} or lower",
                    65_536 - u32::from(source.registers())
                ),
            );
        } else if !source.table.is_bits() && source.registers() > max_registers {
            fault(
                format!("{source} does not fit a request of {max_registers} registers"),
                format!("raise `max_registers` of the device to {}", source.registers()),
            );
        } else {
            placed.push((point, *source));
        }
    }
    placed.sort_by_key(|(point, source)| (source.table, source.address, *point));
    let mut widest: Option<(usize, Source)> = None;
    for (point, source) in placed {
        if let Some((other, before)) = widest
            && let Some(name) = device.points.get(other).map(|point| &point.name)
            && overlaps(&before, &source)
        {
            faults.push(SpecFault {
                device: index,
                point: Some(point),
                what: format!("{source} lies partly inside `{name}` ({before})"),
                remedy: "compare address and type of both with the manual; a value of 32 bits takes two registers, \
                         of 64 bits four"
                    .into(),
            });
        }
        let end = |source: &Source| u32::from(source.address) + u32::from(source.registers());
        if widest.is_none_or(|(_, w)| w.table != source.table || end(&w) <= end(&source)) {
            widest = Some((point, source));
        }
    }
}

/// Whether two values share registers without being two views of the same ones. `a` does not begin after `b`.
fn overlaps(a: &Source, b: &Source) -> bool {
    let same = a.address == b.address && a.registers() == b.registers();
    // A bit is a view by its nature: status words of 32 bits, flags inside a string.
    let a_bit = matches!(b.kind, Type::Bit(_));
    a.table == b.table
        && !same
        && !a_bit
        && u32::from(b.address) < u32::from(a.address) + u32::from(a.registers())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::{Device, RtuLink};
    use super::super::source::{Order, Table};
    use super::*;
    use crate::bus::Link;
    use crate::point::{Point, Scaling};
    use crate::serial_port::PortSettings;

    fn bus(devices: &[(u8, &[(u16, Type)])]) -> BusSpec {
        let device = |(unit, points): &(u8, &[(u16, Type)])| DeviceSpec {
            name: format!("meter-{unit}").into(),
            address: Address::Modbus(Device::new(*unit)),
            points: points
                .iter()
                .enumerate()
                .map(|(i, &(address, kind))| Point {
                    name: format!("p{i}").into(),
                    source: point::Source::Modbus(Source {
                        table: Table::Input,
                        address,
                        kind,
                        order: Order::BIG,
                    }),
                    scaling: Scaling::default(),
                    period: Duration::from_secs(1),
                })
                .collect(),
            groups: Vec::new(),
        };
        BusSpec {
            name: "hall".into(),
            link: Link::ModbusRtu(RtuLink::new(PortSettings::new("/dev/ttyUSB0"))),
            devices: devices.iter().map(device).collect(),
        }
    }

    fn found(devices: &[(u8, &[(u16, Type)])]) -> Vec<(usize, Option<usize>)> {
        faults(&bus(devices)).iter().map(|fault| (fault.device, fault.point)).collect()
    }

    #[test]
    fn a_value_inside_another_is_a_fault_and_two_views_of_one_value_are_not() {
        assert_eq!(found(&[(1, &[(0, Type::F32), (1, Type::U16)])]), [(0, Some(1))]);
        assert_eq!(found(&[(1, &[(0, Type::F32), (1, Type::F32)])]), [(0, Some(1))]);
        assert_eq!(found(&[(1, &[(0, Type::F64), (4, Type::U16), (2, Type::U16)])]), [(0, Some(2))]);
        assert_eq!(found(&[(1, &[(0, Type::F32), (0, Type::U32), (2, Type::F32)])]), []);
        assert_eq!(found(&[(1, &[(0, Type::U16), (0, Type::Bit(1)), (0, Type::Bit(2))])]), []);
        assert_eq!(found(&[(1, &[(0, Type::U32), (1, Type::Bit(1))])]), []);
    }

    #[test]
    fn a_value_past_the_end_of_its_table_is_a_fault() {
        assert_eq!(found(&[(1, &[(65_535, Type::F32)])]), [(0, Some(0))]);
        assert_eq!(found(&[(1, &[(65_534, Type::F32), (65_535, Type::U16)])]), [(0, Some(1))]);
        assert_eq!(found(&[(1, &[(65_534, Type::F32)])]), []);
    }

    #[test]
    fn a_unit_id_used_twice_or_impossible_on_the_line_is_a_fault() {
        let faults = faults(&bus(&[(1, &[]), (2, &[]), (1, &[]), (0, &[]), (248, &[])]));
        let at: Vec<usize> = faults.iter().map(|fault| fault.device).collect();
        assert_eq!(at, [2, 3, 4]);
        assert!(faults[0].what.contains("meter-1"), "{:?}", faults[0]);
    }
}
