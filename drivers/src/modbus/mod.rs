//! Modbus: addresses, types, requests, and the three ways they travel (TCP, RTU, RTU over TCP).

mod settings;
mod source;

use std::time::Instant;

use crate::bus::{BusSpec, Counters, PlannedRequest, Poll, SpecFault};
use crate::point::Point;

pub use settings::{COILS_MAX, Device, Echo, Endpoint, REGISTERS_MAX, RtuLink, RtuTcpLink, TcpLink};
pub use source::{Defaults, Order, Source, Table, Type};

/// The requests of every group.
pub(crate) fn planned(_bus: &BusSpec) -> Vec<PlannedRequest> {
    Vec::new()
}

/// Faults in the meaning of a bus.
pub(crate) fn faults(_bus: &BusSpec) -> Vec<SpecFault> {
    Vec::new()
}

/// The owner of a Modbus line.
#[derive(Debug)]
pub(crate) struct Client {
    spec: BusSpec,
    counters: Counters,
}

impl Client {
    pub(crate) fn new(spec: BusSpec) -> Self {
        Self { spec, counters: Counters::default() }
    }

    pub(crate) async fn poll(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        tokio::time::sleep_until(deadline.min(Instant::now()).into()).await;
        let points = self.spec.devices.get(device).and_then(|d| d.groups.get(group));
        Poll::link_down(points.map(|g| g.points.as_slice()).unwrap_or_default())
    }

    pub(crate) async fn read(&mut self, _device: usize, points: &[Point], deadline: Instant) -> Poll {
        tokio::time::sleep_until(deadline.min(Instant::now()).into()).await;
        let indices: Vec<u16> = (0..u16::try_from(points.len()).unwrap_or(u16::MAX)).collect();
        Poll::link_down(&indices)
    }

    pub(crate) async fn idle(&mut self, until: Instant) {
        tokio::time::sleep_until(until.into()).await;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn is_up(&self) -> bool {
        self.counters.opens > 0
    }
}
