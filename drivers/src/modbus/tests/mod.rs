//! What every Modbus line promises, on all three: through [`Bus`], against devices played by a script, and against
//! the servers of tokio-modbus.

mod contract;
mod foreign_servers;
mod hang_ups;
mod held;
mod ignored;
mod narrowed;
mod peer;
mod retries;
mod settings;

use std::time::{Duration, Instant};

use super::{Device, Order, Source, Table, Type};
use crate::bus::{Address, Bus, BusSpec, DeviceSpec, Group, Link, Outcome, Poll};
use crate::point::{self, Point, Scaling};
use crate::value::{Quality, Sample, Value};

/// A bus with one group a device; each device has these points.
fn spec(link: Link, units: &[u8], points: &[(Table, u16, Type)]) -> BusSpec {
    let point = |(slot, &(table, address, kind)): (usize, &(Table, u16, Type))| Point {
        name: format!("p{slot}").into(),
        source: point::Source::Modbus(Source { table, address, kind, order: Order::BIG }),
        scaling: Scaling::default(),
        period: Duration::from_secs(1),
    };
    let device = |&unit: &u8| DeviceSpec {
        name: format!("meter-{unit}").into(),
        address: Address::Modbus(Device::new(unit)),
        points: points.iter().enumerate().map(point).collect(),
        groups: vec![Group {
            period: Duration::from_secs(1),
            points: (0..u16::try_from(points.len()).unwrap()).collect(),
        }],
    };
    BusSpec { name: "hall".into(), link, devices: units.iter().map(device).collect() }
}

fn soon(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

fn samples(poll: &Poll) -> Vec<Sample> {
    poll.samples.iter().map(|(_, sample)| sample.clone()).collect()
}

fn is_answered(poll: &Poll) -> bool {
    matches!(poll.outcome, Outcome::Answered { .. })
}

fn uints(values: &[u64]) -> Vec<Sample> {
    values.iter().map(|&value| Sample::good(Value::Uint(value))).collect()
}

/// Polls, listening while the group is held, until something else than `Held` comes.
async fn poll_unheld(bus: &mut Bus, device: usize, within: Duration) -> Poll {
    loop {
        let poll = bus.poll(device, 0, Instant::now() + within).await;
        let Outcome::Held { until } = poll.outcome else { return poll };
        assert!(poll.samples.is_empty());
        bus.idle(until).await;
    }
}

fn has_no_value(poll: &Poll) -> bool {
    poll.samples.iter().all(|(_, sample)| sample.value.is_none() && matches!(sample.quality, Quality::Bad(_)))
}
