//! Modbus: addresses, types, requests, and the three ways they travel (TCP, RTU, RTU over TCP).
//!
//! Reading order: [`settings`] and [`source`] (what the configuration says), [`plan`] (which requests), [`decode`]
//! (what answers mean), [`transaction`], then the two envelopes, [`tcp`] and [`rtu`], and [`client`] with
//! [`reading`], which join them, [`asked`] and [`ignored`] (what a device never answers), [`hang_ups`] (a gateway that
//! closes the connection).
//!
//! Promises: no wrong value (an answer is believed only if everything the envelope offers says that it answers the
//! request), one deadline for each transaction, bounded memory on any input, a line that stays usable after a cancelled
//! poll. It only reads: functions 1 to 4.
//!
//! The framing is our own in both envelopes. tokio-modbus, whose servers play the devices in our tests and in the
//! simulated plant, matches RTU answers by unit and function alone: after one late answer every further one
//! belongs to the request before it, with a right check sum and without an error.

mod asked;
mod backoff;
mod client;
mod decode;
mod faults;
mod hang_ups;
mod ignored;
mod plan;
mod reading;
mod rtu;
mod settings;
mod source;
mod tcp;
#[cfg(test)]
mod tests;
mod transaction;

use std::time::Duration;

use crate::bus::{Address, BusSpec, Link, PlannedRequest};

pub(crate) use client::Client;
pub(crate) use faults::faults;
#[cfg(fuzzing)]
pub use rtu::fuzzed;
pub use settings::{COILS_MAX, Device, Echo, Endpoint, REGISTERS_MAX, RtuLink, RtuTcpLink, TcpLink};
pub use source::{Defaults, Order, Source, Table, Type};

/// What most instruments need to answer on a serial line.
const TURNAROUND_EXPECTED: Duration = Duration::from_millis(20);

/// The longest time that a request of this bus can take, unanswered.
pub(crate) fn longest_request(bus: &BusSpec) -> Duration {
    let distinct = client::needs_distinct_shapes(&bus.link);
    let requests = bus.devices.iter().flat_map(|device| client::requests_of(device, distinct)).flatten();
    let data_bytes = requests.map(|request| request.data_bytes()).max().unwrap_or_default();
    match &bus.link {
        Link::ModbusRtu(link) => rtu::longest(&rtu::serial_timing(link), data_bytes),
        Link::ModbusRtuTcp(link) => rtu::longest(&rtu::network_timing(link), data_bytes),
        link => link.timeout(),
    }
}

/// The requests of every group of every device.
pub(crate) fn planned(bus: &BusSpec) -> Vec<PlannedRequest> {
    let distinct = client::needs_distinct_shapes(&bus.link);
    let mut planned = Vec::new();
    for (device, spec) in bus.devices.iter().enumerate() {
        let Address::Modbus(address) = &spec.address else { continue };
        for (group, requests) in client::requests_of(spec, distinct).iter().enumerate() {
            planned.extend(requests.iter().map(|request| PlannedRequest {
                device,
                group,
                words: request.words(address.unit_id),
                cost: match &bus.link {
                    Link::ModbusRtu(link) => plan::wire_time(
                        request,
                        link.port.character_time(),
                        rtu::silence(&link.port),
                        TURNAROUND_EXPECTED,
                    ),
                    _ => Duration::ZERO,
                },
            }));
        }
    }
    planned
}
