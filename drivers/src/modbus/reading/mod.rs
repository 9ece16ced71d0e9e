//! A poll of a Modbus group while it happens: asks its requests one after the other, and puts the answers into the
//! samples.
//!
//! Every point has a sample from the beginning, bad, so a poll can end at any time. A request that a device refuses is
//! replaced by narrower ones at once. One that the device ignores, or hangs up at, is left out; when all others have
//! been asked, one of those is tried again if the poll has the time ([`retry`]), so that a retry costs no point that the
//! device answers for. Nor do its debts ([`held`]): what may not be sent because of them is not said to be silent.

mod held;
mod retry;

use std::time::{Duration, Instant};

use tokio_modbus::ExceptionCode;

use crate::bus::{Outcome, Poll};
use crate::modbus::asked::Asked;
use crate::modbus::client::{Envelope, Plan};
use crate::modbus::decode;
use crate::modbus::ignored::Presence;
use crate::modbus::plan::{Request, Shape};
use crate::modbus::transaction::{Answer, Failure};
use crate::point::Scaling;
use crate::value::{Cause, Sample};

/// A poll while it happens.
pub(in crate::modbus) struct Reading<'a> {
    scalings: &'a [Option<&'a Scaling>],
    samples: Vec<(u16, Sample)>,
    began: Instant,
    at: Option<Instant>,
    turnaround: Option<Duration>,
    /// When the device answered last, or was found to ignore a request in its wide form only.
    heard: Option<Instant>,
    asked: bool,
    /// Shapes whose answers came damaged; those of retries do not count.
    damaged: Vec<Shape>,
    /// Functions of which a request could not be sent, for the first time.
    held: Vec<u8>,
    held_until: Option<Instant>,
    /// What the next poll begins with: it could not be sent now, and it was its turn or a damaged one stands before it.
    first_held: Option<usize>,
    /// Places of the samples that say nothing if the device answers.
    unsaid: Vec<usize>,
    link_down: bool,
    /// A request was left out, or its silence was expected.
    left_out: bool,
}

/// What to do after a request.
enum Next {
    /// Go on with the request after it.
    Forward,
    /// It was replaced: ask what stands in its place.
    Again,
    /// The poll is over, and the next one begins with the request after it.
    Stop,
    /// The poll is over, and the next one begins with it: it could not be sent.
    NotSent,
}

impl<'a> Reading<'a> {
    pub(in crate::modbus) fn new(points: &[u16], scalings: &'a [Option<&'a Scaling>]) -> Self {
        Self {
            scalings,
            samples: points.iter().map(|&point| (point, Sample::bad(Cause::Silent))).collect(),
            began: Instant::now(),
            at: None,
            turnaround: None,
            heard: None,
            asked: false,
            damaged: Vec::new(),
            held: Vec::new(),
            held_until: None,
            first_held: None,
            unsaid: Vec::new(),
            link_down: false,
            left_out: false,
        }
    }

    pub(in crate::modbus) async fn ask_all(
        &mut self,
        line: &mut Envelope,
        to: &mut Asked<'_>,
        deadline: Instant,
    ) {
        to.plan.relearn(self.began);
        self.mark_left_out(to);
        if let Some(until) = Self::begins_later(line, to) {
            self.held_until = Some(until);
            return;
        }
        // Else it would never be made: its neighbours give up one poll for it.
        let passed_over = to.plan.passed_over >= retry::PASSED_OVER;
        if passed_over {
            self.try_again(line, to, deadline).await;
            if !self.has_time(to, deadline) {
                return;
            }
        }
        let all = to.plan.now.len();
        to.plan.first = if to.plan.first < all { to.plan.first } else { 0 };
        to.put_last();
        let mut cut_off = self.walk(line, to, (to.plan.first, all), deadline).await;
        if cut_off.is_none() {
            cut_off = self.ask_last(line, to, deadline).await;
        } else {
            to.last_not_reached();
        }
        // What goes before a damaged one keeps its place: behind it, it would be held.
        let same = if self.damaged.is_empty() { 0 } else { to.plan.first };
        to.plan.first = cut_off.or(self.first_held).unwrap_or(same);
        let stopped = cut_off.is_some() && self.has_time(to, deadline);
        // What is held is still to be asked.
        if !stopped && !passed_over && self.held_until.is_none() {
            self.try_again(line, to, deadline).await;
        }
    }

    /// Whether another request may be sent. One that is cut off would count as silent, and on a line without transaction
    /// ids it would be owed. Half of the longest time that a request can take is enough: a poll has all of it only to the very
    /// millisecond.
    fn has_time(&self, to: &Asked<'_>, deadline: Instant) -> bool {
        Instant::now() + to.retries.longest() / 2 <= to.ends(self.began, self.heard, deadline)
    }

    /// Asks so many requests, from a place on and round the end, but for those left out. Returns where the next poll
    /// is to begin, if this one is over.
    async fn walk(
        &mut self,
        line: &mut Envelope,
        to: &mut Asked<'_>,
        (mut index, mut left): (usize, usize),
        deadline: Instant,
    ) -> Option<usize> {
        // Requests are replaced while this walks over them: count what is left behind the place, round the end.
        while left > 0 {
            let before = to.plan.now.len();
            let next = if let Some(cause) = to.leave_out(index) {
                self.left_out = true;
                self.mark(to.plan, index, cause);
                Next::Forward
            } else if to.plan.now.get(index).is_some_and(|planned| planned.last) {
                Next::Forward
            } else {
                let until = to.ends(self.began, self.heard, deadline);
                let result = line.transact(to.ask(index)?, until).await;
                if result == Err(Failure::Damaged) {
                    to.damaged(index, line.hold_off());
                }
                self.take(result, line.data(), to, index)
            };
            match next {
                Next::Forward => {
                    left -= 1;
                    index = (index + 1) % to.plan.now.len().max(1);
                }
                Next::Again => left = left + to.plan.now.len() - before,
                Next::Stop => return Some(index + 1),
                Next::NotSent => return Some(index),
            }
            if left > 0 && !self.has_time(to, deadline) {
                return Some(index);
            }
        }
        None
    }

    /// Puts the outcome of one request into the samples.
    fn take(
        &mut self,
        result: Result<Answer, Failure>,
        data: &[u8],
        to: &mut Asked<'_>,
        index: usize,
    ) -> Next {
        if !matches!(result, Err(Failure::Held(_) | Failure::NeverQuiet | Failure::LinkDown)) {
            to.sent(index);
        }
        match result {
            Ok(answer @ Answer { exception: Some(code), .. }) if is_of_a_gateway(code) => {
                self.at.get_or_insert(answer.at);
                self.mark(to.plan, index, Cause::Exception(code));
                let next = self.unanswered(to, index, Cause::Exception(code));
                if matches!(next, Next::Stop) {
                    self.mark_unasked(to.plan, Cause::Exception(code));
                }
                next
            }
            Ok(answer) => {
                self.asked = true;
                self.at.get_or_insert(answer.at);
                self.turnaround = self.turnaround.max(Some(answer.turnaround));
                self.heard = Some(Instant::now());
                to.answered(index);
                match answer.exception {
                    Some(code) => self.refused(code, to.plan, index),
                    None => self.believe(data, to.plan, index),
                }
            }
            Err(Failure::Silent) => self.unanswered(to, index, Cause::Silent),
            Err(Failure::Damaged) => {
                self.asked = true;
                if let Some(planned) = to.plan.now.get(index) {
                    self.damaged.push(planned.request.shape());
                }
                self.mark(to.plan, index, Cause::BadFrame);
                Next::Forward
            }
            Err(Failure::NeverQuiet) => {
                self.asked = true;
                self.mark(to.plan, index, Cause::BadFrame);
                Next::Stop
            }
            Err(Failure::Held(until)) => {
                self.held(to, index, until);
                Next::Forward
            }
            Err(Failure::LinkDown) => {
                self.line_is_down();
                Next::NotSent
            }
            // As if it had been ignored: else each poll would begin with it, and none would come further.
            Err(Failure::HungUp) => {
                self.unanswered(to, index, Cause::Silent);
                self.line_is_down();
                Next::Stop
            }
        }
    }

    /// Nothing came for a request, or a gateway says so.
    fn unanswered(&mut self, to: &mut Asked<'_>, index: usize, cause: Cause) -> Next {
        self.asked = true;
        let narrowed = to.silent(index, cause);
        match self.turnaround {
            // Of a device that may not be there one request a poll is enough.
            _ if narrowed && !to.presence.is_in_doubt() => {
                self.heard = Some(Instant::now());
                Next::Again
            }
            Some(_) => Next::Forward,
            None => Next::Stop,
        }
    }

    fn line_is_down(&mut self) {
        self.link_down = true;
        for (_, sample) in &mut self.samples {
            if *sample == Sample::bad(Cause::Silent) {
                *sample = Sample::bad(Cause::LinkDown);
            }
        }
    }

    fn believe(&mut self, data: &[u8], plan: &mut Plan, index: usize) -> Next {
        let Some(planned) = plan.now.get_mut(index) else { return Next::Stop };
        (planned.answered, planned.silences) = (true, 0);
        self.decode(&planned.request, data);
        Next::Forward
    }

    /// The answer was an exception of the device itself.
    fn refused(&mut self, code: u8, plan: &mut Plan, index: usize) -> Next {
        match ExceptionCode::new(code) {
            // The request was too wide, or a point is not there.
            ExceptionCode::IllegalDataAddress | ExceptionCode::IllegalDataValue
                if plan.narrow(index, Instant::now()) =>
            {
                Next::Again
            }
            _ => {
                self.mark(plan, index, Cause::Exception(code));
                Next::Forward
            }
        }
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

    /// Points of what is left out are bad for the reason that they had, however far the poll comes.
    fn mark_left_out(&mut self, to: &mut Asked<'_>) {
        for index in 0..to.plan.now.len() {
            if let Some(cause) = to.leave_out(index) {
                self.mark(to.plan, index, cause);
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

    /// What the poll brought from a device of which this is known.
    pub(in crate::modbus) fn poll(self, presence: Presence) -> Poll {
        let now = Instant::now();
        let outcome = match (self.turnaround, self.held_until) {
            (Some(turnaround), _) => Outcome::Answered { turnaround },
            _ if self.link_down => Outcome::LinkDown,
            (None, Some(until)) if !self.asked => Outcome::Held { until },
            // The device answers other groups, and not this one: known, and not asked again.
            (None, None) if self.left_out && !self.asked && !presence.is_in_doubt() => {
                Outcome::Answered { turnaround: Duration::ZERO }
            }
            _ if !self.damaged.is_empty() => Outcome::Damaged,
            _ => Outcome::Silent,
        };
        let held = matches!(outcome, Outcome::Held { .. });
        let answered = matches!(outcome, Outcome::Answered { .. });
        let is_said = |slot: &usize| !(answered && self.unsaid.contains(slot));
        let samples = self.samples.into_iter().enumerate().filter(|(slot, _)| is_said(slot));
        Poll {
            samples: if held { Vec::new() } else { samples.map(|(_, sample)| sample).collect() },
            at: self.at.unwrap_or(now),
            outcome,
            busy: if held || (self.link_down && !self.asked) { Duration::ZERO } else { now - self.began },
        }
    }
}

/// A gateway's words for a device that does not answer it.
fn is_of_a_gateway(code: u8) -> bool {
    matches!(
        ExceptionCode::new(code),
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice
    )
}
