//! The owner of a Modbus line: which requests a poll of a group asks, and what was learned about them.
//!
//! It keeps the plan of every group and learns in it: a request that a device refuses (exception 2 or 3) or never
//! answers in its wide form is replaced by narrower ones, at once, until the point that the device does not have stands
//! alone. What was learned is forgotten after an hour, in case the device was only starting (after a minute, if it
//! answered nothing at all then); if it is learned again at once, after ever longer times, up to a day. What a device
//! ignores although it answers others is left out, and tried again now and then: [`ignored`](super::ignored) decides.
//! While it is left out, the request that it was a part of stays narrowed: else its neighbours would be bad each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asked::{Asked, IfHeld};
use super::hang_ups::HangUps;
use super::ignored::{Ignored, Presence, Retries};
use super::plan::{self, Item, Request};
use super::reading::Reading;
use super::rtu::Line;
use super::tcp::Connection;
use super::transaction::{Answer, Ask, Failure};
use super::{Device, RtuLink, RtuTcpLink, TcpLink};
use crate::bus::{Address, BusSpec, Counters, DeviceSpec, Group, Link, Outcome, Poll};
use crate::point::{Point, Scaling, Source};

/// How long a plan that was narrowed stays so: the first time, and at most.
const RELEARN_AFTER: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(86_400));

/// The same if that was while its device was in doubt: it may have been away, and takes what it is asked when it is back.
const RELEARN_IN_DOUBT: Duration = Duration::from_secs(60);

/// So many silences of a request that has never been answered, and it is asked without its guesses. One is enough if it was
/// narrowed before and its parts were answered.
const SILENCES_UNPROVEN: u8 = 3;

/// The owner of a Modbus line.
#[derive(Debug)]
pub(crate) struct Client {
    spec: Arc<BusSpec>,
    line: Envelope,
    /// By device, by group.
    plans: Vec<Vec<Plan>>,
    /// By device.
    presence: Vec<Presence>,
    retries: Retries,
}

/// How requests travel.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one for each bus
pub(super) enum Envelope {
    Rtu(Line),
    Tcp(Connection),
}

/// The requests of one group.
#[derive(Debug)]
pub(super) struct Plan {
    wide: Vec<Request>,
    pub(super) now: Vec<Planned>,
    /// When the wide requests are tried again, ...
    relearn_at: Option<Instant>,
    /// ... how long after they were narrowed, ...
    relearn_after: Duration,
    /// ... and when that was done last.
    relearned: Option<Instant>,
    /// Which request goes first: after a silence the next one does, because a device may ignore one alone.
    pub(super) first: usize,
    /// Polls in a row that had no time for a retry that was due.
    pub(super) passed_over: u8,
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) request: Request,
    pub(super) answered: bool,
    pub(super) silences: u8,
    pub(super) ignored: Ignored,
    /// So many of its last answers came damaged, ...
    pub(super) damaged: u8,
    /// ... and so it is not asked before then, ...
    pub(super) rests_until: Option<Instant>,
    /// ... and goes last in this poll.
    pub(super) last: bool,
    /// It was to go last in a poll that did not come to it.
    pub(super) not_reached: bool,
    /// It could not be sent before this, the first time since it was last asked.
    pub(super) held: Option<Instant>,
}

impl Planned {
    fn new(request: Request, ignored: Ignored) -> Self {
        Self {
            request,
            answered: false,
            silences: 0,
            ignored,
            damaged: 0,
            rests_until: None,
            last: false,
            not_reached: false,
            held: None,
        }
    }

    /// Whether it is not asked now, because it came damaged again.
    pub(super) fn rests(&self) -> bool {
        self.damaged > 1 && self.rests_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Plan {
    pub(super) fn new(wide: Vec<Request>) -> Self {
        let now = wide.iter().map(|request| Planned::new(request.clone(), Ignored::default())).collect();
        let relearn_after = RELEARN_AFTER.0;
        Self { wide, now, relearn_at: None, relearn_after, relearned: None, first: 0, passed_over: 0 }
    }

    /// Replaces a request by narrower ones. `false`: nothing is left to cut.
    pub(super) fn narrow(&mut self, index: usize, now: Instant) -> bool {
        let Some(planned) = self.now.get(index) else { return false };
        let Some(parts) = planned.request.narrower() else { return false };
        let ignored = planned.ignored.successor();
        self.now.splice(index..=index, parts.into_iter().map(|part| Planned::new(part, ignored.clone())));
        if self.relearn_at.is_none() {
            let in_vain = self.relearned.is_some_and(|at| now < at + self.relearn_after);
            let (first, most) = RELEARN_AFTER;
            self.relearn_after = if in_vain { (self.relearn_after * 2).clamp(first, most) } else { first };
            self.relearn_at = Some(now + self.relearn_after);
        }
        true
    }

    /// Nothing came for a request of a device that is `in_doubt` or not. A device may ignore what it does not have of one that
    /// has never been answered. Whether it was replaced by narrower ones.
    pub(super) fn unanswered(&mut self, index: usize, in_doubt: bool, now: Instant) -> bool {
        let Some(planned) = self.now.get_mut(index) else { return false };
        planned.silences = planned.silences.saturating_add(1);
        let unproven = !planned.answered && planned.silences >= SILENCES_UNPROVEN;
        let narrowed = unproven && planned.request.has_guesses() && self.narrow(index, now);
        if narrowed && in_doubt {
            (self.relearn_at, self.relearn_after) = (Some(now + RELEARN_IN_DOUBT), RELEARN_IN_DOUBT);
        }
        narrowed
    }

    pub(super) fn relearn(&mut self, now: Instant) {
        if self.relearn_at.is_none_or(|at| now < at) {
            return;
        }
        let mut known = std::mem::take(&mut self.now);
        for wide in &self.wide {
            let (parts, others): (Vec<_>, Vec<_>) =
                known.into_iter().partition(|part| part.request.shares_points_with(wide));
            known = others;
            let is_wide = parts.iter().any(|part| part.request == *wide);
            if is_wide || parts.iter().any(|part| part.ignored.is_left_out()) {
                self.now.extend(parts);
            } else {
                let known = parts.iter().any(|part| part.answered);
                let silences = if known { SILENCES_UNPROVEN - 1 } else { 0 };
                self.now.push(Planned { silences, ..Planned::new(wide.clone(), Ignored::default()) });
                self.relearned = Some(now);
            }
        }
        let narrowed = self.now.iter().any(|planned| !self.wide.contains(&planned.request));
        self.relearn_at = narrowed.then(|| now + self.relearn_after);
    }

    /// Whether it asks more requests than were planned.
    pub(super) fn is_narrowed(&self) -> bool {
        self.relearn_at.is_some()
    }

    /// No retry of what is left out is due now.
    fn put_off(&mut self, retries: &mut Retries, now: Instant) {
        for planned in &mut self.now {
            planned.ignored.put_off(retries, now);
        }
    }

    /// Whether nothing is left to ask.
    fn is_left_out(&self) -> bool {
        self.now.iter().all(|planned| planned.ignored.is_left_out())
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
        let presence = vec![Presence::default(); spec.devices.len()];
        let retries = Retries::new(super::longest_request(&spec));
        Self { spec, line, plans, presence, retries }
    }

    pub(crate) async fn poll(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        let sign = self.sign_of_life(device, group);
        let plan = self.plans.get_mut(device).and_then(|groups| groups.get_mut(group));
        let (spec, presence) = (self.spec.devices.get(device), self.presence.get_mut(device));
        let (Some(plan), Some(spec), Some(presence)) = (plan, spec, presence) else {
            return Reading::new(&[], &[]).poll(Presence::default());
        };
        let points = spec.groups.get(group).map(|group| group.points.as_slice()).unwrap_or_default();
        let scalings: Vec<Option<&Scaling>> =
            points.iter().map(|&point| spec.points.get(usize::from(point)).map(|p| &p.scaling)).collect();
        let unit = modbus_device(spec).map_or(0, |device| device.unit_id);
        let mut reading = Reading::new(points, &scalings);
        let names = (&*self.spec.name, &*spec.name);
        let period = spec.groups.get(group).map(|group| group.period).unwrap_or_default();
        let if_held = if period <= self.line.hold_off() { IfHeld::SayNothing } else { IfHeld::ComeBack };
        let mut asked = Asked { unit, plan, presence, retries: &mut self.retries, if_held, names };
        match sign {
            Some((_, ask)) => reading.look_for(&mut self.line, ask, &mut asked, deadline).await,
            None => reading.ask_all(&mut self.line, &mut asked, deadline).await,
        }
        let poll = reading.poll(*asked.presence);
        if self.line.hang_ups().edge(unit) {
            asked.say_hung_up();
        }
        let unanswered = matches!(poll.outcome, Outcome::Silent | Outcome::Damaged);
        if unanswered || poll.outcome == Outcome::LinkDown {
            asked.plan.put_off(asked.retries, Instant::now());
        }
        if unanswered {
            asked.presence.silent();
        }
        if let (Some(((group, index), _)), Outcome::Answered { .. }) = (sign, &poll.outcome)
            && let Some(plan) = self.plans.get_mut(device).and_then(|groups| groups.get_mut(group))
            && let Some(planned) = plan.now.get_mut(index)
        {
            planned.ignored.answered(&mut self.retries);
        }
        poll
    }

    /// What to ask in place of a group that is ignored as a whole, where nobody knows whether the device is there:
    /// something else, with its group and place there. What it has answered goes first; after each silence the next.
    fn sign_of_life(&self, device: usize, group: usize) -> Option<((usize, usize), Ask)> {
        let (groups, presence) = (self.plans.get(device)?, self.presence.get(device)?);
        let ignored = groups.get(group).is_some_and(|plan| !plan.now.is_empty() && plan.is_left_out());
        if !ignored || (!presence.is_in_doubt() && self.is_up()) {
            return None;
        }
        let unit = modbus_device(self.spec.devices.get(device)?)?.unit_id;
        let all = groups.iter().enumerate().flat_map(|(group, plan)| {
            plan.now.iter().enumerate().map(move |(index, planned)| ((group, index), planned))
        });
        let mut known: Vec<_> = all.filter(|(_, planned)| !planned.ignored.is_left_out()).collect();
        known.sort_by_key(|(_, planned)| !planned.answered);
        let tried = usize::try_from(presence.silences().saturating_sub(1)).unwrap_or_default();
        let (place, planned) = known.get(tried.checked_rem(known.len())?)?;
        Some((*place, Ask::new(unit, &planned.request)))
    }

    pub(crate) async fn read(&mut self, device: usize, points: &[Point], deadline: Instant) -> Poll {
        let Some(modbus) = self.spec.devices.get(device).and_then(modbus_device) else {
            return Reading::new(&[], &[]).poll(Presence::default());
        };
        let mut plan = Plan::new(plan::merged(&items(points.iter()), modbus));
        let indices: Vec<u16> = (0..=u16::MAX).take(points.len()).collect();
        let scalings: Vec<Option<&Scaling>> = points.iter().map(|point| Some(&point.scaling)).collect();
        let mut reading = Reading::new(&indices, &scalings);
        let (mut presence, mut retries) = (Presence::default(), Retries::new(self.retries.longest()));
        let asked = &mut Asked {
            unit: modbus.unit_id,
            plan: &mut plan,
            presence: &mut presence,
            retries: &mut retries,
            if_held: IfHeld::SaySilent,
            names: ("", ""),
        };
        reading.ask_all(&mut self.line, asked, deadline).await;
        reading.poll(presence)
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
        self.line.is_up()
    }
}

impl Envelope {
    pub(super) async fn transact(&mut self, ask: Ask, deadline: Instant) -> Result<Answer, Failure> {
        match self {
            Self::Rtu(line) => line.transact(ask, deadline).await,
            Self::Tcp(connection) => connection.transact(ask, deadline).await,
        }
    }

    /// Until when a request may not be sent.
    pub(super) fn held(&mut self, ask: Ask) -> Option<Instant> {
        match self {
            Self::Rtu(line) => line.held(ask),
            Self::Tcp(_) => None,
        }
    }

    /// For how long one may not be sent, at most.
    pub(super) fn hold_off(&self) -> Duration {
        match self {
            Self::Rtu(line) => line.hold_off(),
            Self::Tcp(_) => Duration::ZERO,
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::Rtu(line) => line.data(),
            Self::Tcp(connection) => connection.data(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::Rtu(line) => line.is_up(),
            Self::Tcp(connection) => connection.is_up(),
        }
    }

    /// What is known of a peer's hanging up.
    fn hang_ups(&mut self) -> &mut HangUps {
        match self {
            Self::Rtu(line) => line.hang_ups(),
            Self::Tcp(connection) => connection.hang_ups(),
        }
    }
}
