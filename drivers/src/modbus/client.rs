//! The owner of a Modbus line: what a poll of a group asks, and what its answers make of the samples.
//!
//! It keeps the plan of every group and learns in it: a request that a device refuses (exception 2 or 3) or never
//! answers in its wide form is replaced by narrower ones, at once, until the point that the device does not have stands
//! alone. What was learned is forgotten after an hour, in case the device was only starting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_modbus::ExceptionCode;

use super::plan::{self, Item, Request};
use super::rtu::Line;
use super::tcp::Connection;
use super::transaction::{Answer, Ask, Failure};
use super::{Device, RtuLink, RtuTcpLink, TcpLink, decode};
use crate::bus::{Address, BusSpec, Counters, DeviceSpec, Group, Link, Outcome, Poll};
use crate::point::{Point, Scaling, Source};
use crate::value::{Cause, Sample};

/// How long a plan that was narrowed stays so.
const RELEARN_AFTER: Duration = Duration::from_secs(3_600);

/// So many silences of a request that has never been answered, and it is asked without its guesses.
const SILENCES_UNPROVEN: u8 = 3;

/// The owner of a Modbus line.
#[derive(Debug)]
pub(crate) struct Client {
    spec: Arc<BusSpec>,
    line: Envelope,
    /// By device, by group.
    plans: Vec<Vec<Plan>>,
}

/// How requests travel.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one for each bus
enum Envelope {
    Rtu(Line),
    Tcp(Connection),
}

/// The requests of one group.
#[derive(Debug)]
struct Plan {
    wide: Vec<Request>,
    now: Vec<Planned>,
    /// When the wide requests are tried again.
    relearn_at: Option<Instant>,
    /// Which request goes first: after a silence the next one does, because a device may ignore one alone.
    first: usize,
}

#[derive(Debug)]
struct Planned {
    request: Request,
    answered: bool,
    silences: u8,
}

impl Planned {
    fn new(request: Request) -> Self {
        Self { request, answered: false, silences: 0 }
    }
}

impl Plan {
    fn new(wide: Vec<Request>) -> Self {
        let now = wide.iter().cloned().map(Planned::new).collect();
        Self { wide, now, relearn_at: None, first: 0 }
    }

    /// Replaces a request by narrower ones. `false`: nothing is left to cut.
    fn narrow(&mut self, index: usize, now: Instant) -> bool {
        let Some(parts) = self.now.get(index).and_then(|planned| planned.request.narrower()) else {
            return false;
        };
        self.now.splice(index..=index, parts.into_iter().map(Planned::new));
        self.relearn_at.get_or_insert(now + RELEARN_AFTER);
        true
    }

    fn relearn(&mut self, now: Instant) {
        if self.relearn_at.is_some_and(|at| now >= at) {
            *self = Self::new(std::mem::take(&mut self.wide));
        }
    }
}

/// The Modbus points among `points`, with their places.
fn items<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<Item> {
    points
        .enumerate()
        .filter_map(|(slot, point)| match &point.source {
            Source::Modbus(source) => Some(Item { slot, source: *source }),
            Source::Line(_) => None,
        })
        .collect()
}

fn modbus_device(device: &DeviceSpec) -> Option<&Device> {
    match &device.address {
        Address::Modbus(device) => Some(device),
        Address::Line(_) => None,
    }
}

/// The requests of each group of a device. `distinct`: with shapes of their own, for lines without transaction ids.
pub(super) fn requests_of(device: &DeviceSpec, distinct: bool) -> Vec<Vec<Request>> {
    let Some(modbus) = modbus_device(device) else { return Vec::new() };
    let points =
        |group: &Group| items(group.points.iter().filter_map(|&p| device.points.get(usize::from(p))));
    let mut groups: Vec<Vec<Request>> =
        device.groups.iter().map(|group| plan::merged(&points(group), modbus)).collect();
    if distinct {
        plan::make_distinct(groups.iter_mut().flatten(), modbus);
    }
    groups
}

/// Whether answers carry nothing that tells them apart but their shape.
pub(super) fn needs_distinct_shapes(link: &Link) -> bool {
    !matches!(link, Link::ModbusTcp(_))
}

impl Client {
    pub(crate) fn tcp(link: &TcpLink, spec: Arc<BusSpec>) -> Self {
        Self::new(Envelope::Tcp(Connection::new(link)), spec)
    }

    pub(crate) fn rtu(link: &RtuLink, spec: Arc<BusSpec>) -> Self {
        Self::new(Envelope::Rtu(Line::serial(link)), spec)
    }

    pub(crate) fn rtu_tcp(link: &RtuTcpLink, spec: Arc<BusSpec>) -> Self {
        Self::new(Envelope::Rtu(Line::network(link)), spec)
    }

    fn new(line: Envelope, spec: Arc<BusSpec>) -> Self {
        let distinct = needs_distinct_shapes(&spec.link);
        let plans = spec
            .devices
            .iter()
            .map(|device| requests_of(device, distinct).into_iter().map(Plan::new).collect())
            .collect();
        Self { spec, line, plans }
    }

    pub(crate) async fn poll(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        let plan = self.plans.get_mut(device).and_then(|groups| groups.get_mut(group));
        let spec = self.spec.devices.get(device);
        let (Some(plan), Some(spec)) = (plan, spec) else { return Reading::new(&[], &[]).poll() };
        let points = spec.groups.get(group).map(|group| group.points.as_slice()).unwrap_or_default();
        let scalings: Vec<Option<&Scaling>> =
            points.iter().map(|&point| spec.points.get(usize::from(point)).map(|p| &p.scaling)).collect();
        let unit = modbus_device(spec).map_or(0, |device| device.unit_id);
        let mut reading = Reading::new(points, &scalings);
        reading.ask_all(&mut self.line, unit, plan, deadline).await;
        reading.poll()
    }

    pub(crate) async fn read(&mut self, device: usize, points: &[Point], deadline: Instant) -> Poll {
        let Some(modbus) = self.spec.devices.get(device).and_then(modbus_device) else {
            return Reading::new(&[], &[]).poll();
        };
        let mut plan = Plan::new(plan::merged(&items(points.iter()), modbus));
        let indices: Vec<u16> = (0..=u16::MAX).take(points.len()).collect();
        let scalings: Vec<Option<&Scaling>> = points.iter().map(|point| Some(&point.scaling)).collect();
        let mut reading = Reading::new(&indices, &scalings);
        reading.ask_all(&mut self.line, modbus.unit_id, &mut plan, deadline).await;
        reading.poll()
    }

    pub(crate) async fn idle(&mut self, until: Instant) {
        match &mut self.line {
            Envelope::Rtu(line) => line.idle(until).await,
            Envelope::Tcp(connection) => connection.idle(until).await,
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        match &self.line {
            Envelope::Rtu(line) => line.counters(),
            Envelope::Tcp(connection) => connection.counters(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        match &self.line {
            Envelope::Rtu(line) => line.is_up(),
            Envelope::Tcp(connection) => connection.is_up(),
        }
    }
}

impl Envelope {
    async fn transact(&mut self, ask: Ask, deadline: Instant) -> Result<Answer, Failure> {
        match self {
            Self::Rtu(line) => line.transact(ask, deadline).await,
            Self::Tcp(connection) => connection.transact(ask, deadline).await,
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Self::Rtu(line) => line.data(),
            Self::Tcp(connection) => connection.data(),
        }
    }
}

/// A poll while it happens.
struct Reading<'a> {
    scalings: &'a [Option<&'a Scaling>],
    samples: Vec<(u16, Sample)>,
    began: Instant,
    at: Option<Instant>,
    turnaround: Option<Duration>,
    asked: bool,
    held_until: Option<Instant>,
    link_down: bool,
}

/// What to do after a request.
enum Next {
    /// Go on with the request after it.
    Forward,
    /// It was replaced: ask what stands in its place.
    Again,
    /// The poll is over.
    Stop,
}

impl<'a> Reading<'a> {
    fn new(points: &[u16], scalings: &'a [Option<&'a Scaling>]) -> Self {
        Self {
            scalings,
            samples: points.iter().map(|&point| (point, Sample::bad(Cause::Silent))).collect(),
            began: Instant::now(),
            at: None,
            turnaround: None,
            asked: false,
            held_until: None,
            link_down: false,
        }
    }

    async fn ask_all(&mut self, line: &mut Envelope, unit: u8, plan: &mut Plan, deadline: Instant) {
        plan.relearn(self.began);
        let first = if plan.first < plan.now.len() { plan.first } else { 0 };
        // Requests are replaced while this walks over them: count what is left behind the place, round the end.
        let (mut index, mut left) = (first, plan.now.len());
        while left > 0 {
            let before = plan.now.len();
            let Some(planned) = plan.now.get(index) else { break };
            let ask = Ask::new(unit, &planned.request);
            let result = line.transact(ask, deadline).await;
            match self.take(result, line.data(), plan, index) {
                Next::Forward => {
                    left -= 1;
                    index = (index + 1) % plan.now.len().max(1);
                }
                Next::Again => left = left + plan.now.len() - before,
                Next::Stop => {
                    plan.first = index + usize::from(!self.link_down);
                    return;
                }
            }
            if left > 0 && Instant::now() >= deadline {
                plan.first = index;
                return;
            }
        }
        plan.first = 0;
    }

    /// Puts the outcome of one request into the samples.
    fn take(&mut self, result: Result<Answer, Failure>, data: &[u8], plan: &mut Plan, index: usize) -> Next {
        let Some(planned) = plan.now.get_mut(index) else { return Next::Stop };
        match result {
            Ok(answer) => {
                self.asked = true;
                self.at.get_or_insert(answer.at);
                if let Some(code) = answer.exception {
                    return self.refused(code, answer.turnaround, plan, index);
                }
                (planned.answered, planned.silences) = (true, 0);
                self.turnaround = self.turnaround.max(Some(answer.turnaround));
                self.decode(&planned.request, data);
                Next::Forward
            }
            Err(Failure::Silent) => {
                self.asked = true;
                planned.silences = planned.silences.saturating_add(1);
                if !planned.answered && planned.silences >= SILENCES_UNPROVEN && planned.request.has_guesses()
                {
                    plan.narrow(index, Instant::now());
                }
                if self.turnaround.is_some() { Next::Forward } else { Next::Stop }
            }
            Err(Failure::Damaged) => {
                self.asked = true;
                self.mark(plan, index, Cause::BadFrame);
                Next::Forward
            }
            Err(Failure::NeverQuiet) => {
                self.asked = true;
                self.mark(plan, index, Cause::BadFrame);
                Next::Stop
            }
            Err(Failure::Held(until)) => {
                self.held_until = Some(self.held_until.map_or(until, |held| held.min(until)));
                Next::Forward
            }
            Err(Failure::LinkDown) => {
                self.link_down = true;
                for (_, sample) in &mut self.samples {
                    if *sample == Sample::bad(Cause::Silent) {
                        *sample = Sample::bad(Cause::LinkDown);
                    }
                }
                Next::Stop
            }
        }
    }

    /// The answer was an exception.
    fn refused(&mut self, code: u8, turnaround: Duration, plan: &mut Plan, index: usize) -> Next {
        match ExceptionCode::new(code) {
            // A gateway's words for a device that does not answer it.
            ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => {
                self.mark(plan, index, Cause::Exception(code));
                if self.turnaround.is_none() {
                    self.mark_unasked(plan, Cause::Exception(code));
                    return Next::Stop;
                }
                return Next::Forward;
            }
            // The request was too wide, or a point is not there.
            ExceptionCode::IllegalDataAddress | ExceptionCode::IllegalDataValue
                if plan.narrow(index, Instant::now()) =>
            {
                self.turnaround = self.turnaround.max(Some(turnaround));
                return Next::Again;
            }
            _ => {}
        }
        self.turnaround = self.turnaround.max(Some(turnaround));
        self.mark(plan, index, Cause::Exception(code));
        Next::Forward
    }

    fn decode(&mut self, request: &Request, data: &[u8]) {
        for item in &request.items {
            let Some((_, sample)) = self.samples.get_mut(item.slot) else { continue };
            let scaling = self.scalings.get(item.slot).copied().flatten();
            *sample = match decode::value(&item.source, data, request.address) {
                Some(raw) => match scaling {
                    Some(scaling) => scaling.apply(raw),
                    None => Sample::good(raw),
                },
                None => Sample::bad(Cause::BadFrame),
            };
        }
    }

    fn mark(&mut self, plan: &Plan, index: usize, cause: Cause) {
        for item in plan.now.get(index).into_iter().flat_map(|planned| &planned.request.items) {
            if let Some((_, sample)) = self.samples.get_mut(item.slot) {
                *sample = Sample::bad(cause);
            }
        }
    }

    /// A gateway said it for one request; what was not asked gets the same reason.
    fn mark_unasked(&mut self, plan: &Plan, cause: Cause) {
        for item in plan.now.iter().flat_map(|planned| &planned.request.items) {
            if let Some((_, sample)) = self.samples.get_mut(item.slot)
                && *sample == Sample::bad(Cause::Silent)
            {
                *sample = Sample::bad(cause);
            }
        }
    }

    fn poll(self) -> Poll {
        let now = Instant::now();
        let outcome = match (self.turnaround, self.held_until) {
            (Some(turnaround), _) => Outcome::Answered { turnaround },
            _ if self.link_down => Outcome::LinkDown,
            (None, Some(until)) if !self.asked => Outcome::Held { until },
            _ => Outcome::Silent,
        };
        let held = matches!(outcome, Outcome::Held { .. });
        Poll {
            samples: if held { Vec::new() } else { self.samples },
            at: self.at.unwrap_or(now),
            outcome,
            busy: if held || (self.link_down && !self.asked) { Duration::ZERO } else { now - self.began },
        }
    }
}
