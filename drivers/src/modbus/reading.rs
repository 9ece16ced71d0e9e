//! A poll of a Modbus group while it happens: asks its requests one after the other, and puts the answers into the
//! samples.
//!
//! Every point has a sample from the beginning, bad, so a poll can end at any time. A request that a device refuses is
//! replaced by narrower ones at once; one that the device ignores is left out.

use std::time::{Duration, Instant};

use tokio_modbus::ExceptionCode;

use super::client::{Envelope, Plan};
use super::decode;
use super::ignored::{Presence, Retries, Turn};
use super::plan::Request;
use super::transaction::{Answer, Ask, Failure};
use crate::bus::{Outcome, Poll};
use crate::point::Scaling;
use crate::value::{Cause, Sample};

/// So many silences of a request that has never been answered, and it is asked without its guesses.
const SILENCES_UNPROVEN: u8 = 3;

/// A poll while it happens.
pub(super) struct Reading<'a> {
    scalings: &'a [Option<&'a Scaling>],
    samples: Vec<(u16, Sample)>,
    began: Instant,
    at: Option<Instant>,
    turnaround: Option<Duration>,
    asked: bool,
    /// An answer came damaged; that of a retry does not count.
    damaged: bool,
    held_until: Option<Instant>,
    link_down: bool,
    /// A request was left out, or its silence was expected.
    left_out: bool,
}

/// Whom a poll asks, and what is known of it.
pub(super) struct Asked<'a> {
    pub(super) unit: u8,
    pub(super) plan: &'a mut Plan,
    pub(super) presence: &'a mut Presence,
    /// `None`: those of this group do not count.
    pub(super) retries: Option<&'a mut Retries>,
    /// Of the bus and the device, for the log.
    pub(super) names: (&'a str, &'a str),
}

impl Asked<'_> {
    /// What to do with a request now.
    fn turn(&mut self, index: usize) -> Option<(Turn, Ask)> {
        let planned = self.plan.now.get_mut(index)?;
        let turn = planned.ignored.turn(*self.presence, self.retries.as_deref_mut(), Instant::now());
        let ask = Ask::new(self.unit, &planned.request);
        self.say(index);
        Some((turn, ask))
    }

    /// Says in the log that a request is left out, and that it is back.
    fn say(&mut self, index: usize) {
        let Some(planned) = self.plan.now.get_mut(index) else { return };
        let Some(left_out) = planned.ignored.edge() else { return };
        let ((bus, device), request) = (self.names, planned.request.words(self.unit));
        if left_out {
            tracing::warn!(
                %bus, %device, %request,
                "device answers, but not for this request: left out, and tried again with growing pauses"
            );
        } else {
            tracing::info!(%bus, %device, %request, "device answers for this request again");
        }
    }

    /// Nothing came for a request, or a gateway says so.
    fn silent(&mut self, index: usize, cause: Cause) {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.ignored.silent(*self.presence, cause, Instant::now());
        }
    }
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
    pub(super) fn new(points: &[u16], scalings: &'a [Option<&'a Scaling>]) -> Self {
        Self {
            scalings,
            samples: points.iter().map(|&point| (point, Sample::bad(Cause::Silent))).collect(),
            began: Instant::now(),
            at: None,
            turnaround: None,
            asked: false,
            damaged: false,
            held_until: None,
            link_down: false,
            left_out: false,
        }
    }

    pub(super) async fn ask_all(&mut self, line: &mut Envelope, to: &mut Asked<'_>, deadline: Instant) {
        to.plan.relearn(self.began);
        let first = if to.plan.first < to.plan.now.len() { to.plan.first } else { 0 };
        // Requests are replaced while this walks over them: count what is left behind the place, round the end.
        let (mut index, mut left) = (first, to.plan.now.len());
        while left > 0 {
            let before = to.plan.now.len();
            let Some((turn, ask)) = to.turn(index) else { break };
            let next = if let Turn::LeaveOut(cause) = turn {
                self.left_out = true;
                self.mark(to.plan, index, cause);
                Next::Forward
            } else {
                let began = Instant::now();
                let result = line.transact(ask, deadline).await;
                if let (Turn::Retry, Some(retries)) = (turn, &mut to.retries) {
                    retries.made(began, Instant::now());
                }
                self.take(result, line.data(), to, (index, turn))
            };
            match next {
                Next::Forward => {
                    left -= 1;
                    index = (index + 1) % to.plan.now.len().max(1);
                }
                Next::Again => left = left + to.plan.now.len() - before,
                Next::Stop => {
                    to.plan.first = index + usize::from(!self.link_down);
                    return;
                }
            }
            if left > 0 && Instant::now() >= deadline {
                to.plan.first = index;
                return;
            }
        }
        to.plan.first = 0;
    }

    /// Asks something else than the group, to see whether the device is there.
    pub(super) async fn look_for(
        &mut self,
        line: &mut Envelope,
        ask: Ask,
        to: &mut Asked<'_>,
        deadline: Instant,
    ) {
        for index in 0..to.plan.now.len() {
            if let Some((Turn::LeaveOut(cause), _)) = to.turn(index) {
                self.mark(to.plan, index, cause);
            }
        }
        match line.transact(ask, deadline).await {
            Ok(answer) if !answer.exception.is_some_and(is_of_a_gateway) => {
                (self.at, self.turnaround) = (Some(answer.at), Some(answer.turnaround));
                to.presence.answered();
            }
            Err(Failure::Held(until)) => self.held_until = Some(until),
            Err(Failure::LinkDown) => self.line_is_down(),
            Err(Failure::Damaged) => (self.asked, self.damaged) = (true, true),
            Ok(_) | Err(Failure::Silent | Failure::NeverQuiet) => self.asked = true,
        }
    }

    /// Puts the outcome of one request into the samples.
    fn take(
        &mut self,
        result: Result<Answer, Failure>,
        data: &[u8],
        to: &mut Asked<'_>,
        (index, turn): (usize, Turn),
    ) -> Next {
        let Some(planned) = to.plan.now.get_mut(index) else { return Next::Stop };
        match result {
            Ok(answer @ Answer { exception: Some(code), .. }) if is_of_a_gateway(code) => {
                to.silent(index, Cause::Exception(code));
                self.mark(to.plan, index, Cause::Exception(code));
                if turn == Turn::Retry {
                    self.left_out = true;
                    return Next::Forward;
                }
                self.asked = true;
                self.at.get_or_insert(answer.at);
                if self.turnaround.is_none() {
                    self.mark_unasked(to.plan, Cause::Exception(code));
                    return Next::Stop;
                }
                Next::Forward
            }
            Ok(answer) => {
                self.asked = true;
                self.at.get_or_insert(answer.at);
                self.turnaround = self.turnaround.max(Some(answer.turnaround));
                planned.ignored.answered();
                to.presence.answered();
                to.say(index);
                match answer.exception {
                    Some(code) => self.refused(code, to.plan, index),
                    None => self.believe(data, to.plan, index),
                }
            }
            Err(Failure::Silent) => {
                to.silent(index, Cause::Silent);
                if turn == Turn::Retry {
                    self.left_out = true;
                    return Next::Forward;
                }
                self.asked = true;
                self.unanswered(to.plan, index)
            }
            Err(Failure::Damaged) => {
                self.mark(to.plan, index, Cause::BadFrame);
                if turn == Turn::Retry {
                    to.silent(index, Cause::BadFrame);
                    self.left_out = true;
                } else {
                    (self.asked, self.damaged) = (true, true);
                }
                Next::Forward
            }
            Err(Failure::NeverQuiet) => {
                self.asked = true;
                self.mark(to.plan, index, Cause::BadFrame);
                Next::Stop
            }
            Err(Failure::Held(until)) => {
                self.held_until = Some(self.held_until.map_or(until, |held| held.min(until)));
                Next::Forward
            }
            Err(Failure::LinkDown) => {
                self.line_is_down();
                Next::Stop
            }
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

    /// Nothing came. A device may ignore what it does not have of a request that has never been answered.
    fn unanswered(&mut self, plan: &mut Plan, index: usize) -> Next {
        let Some(planned) = plan.now.get_mut(index) else { return Next::Stop };
        planned.silences = planned.silences.saturating_add(1);
        if !planned.answered && planned.silences >= SILENCES_UNPROVEN && planned.request.has_guesses() {
            plan.narrow(index, Instant::now());
        }
        if self.turnaround.is_some() { Next::Forward } else { Next::Stop }
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
    pub(super) fn poll(self, presence: Presence) -> Poll {
        let now = Instant::now();
        let outcome = match (self.turnaround, self.held_until) {
            (Some(turnaround), _) => Outcome::Answered { turnaround },
            _ if self.link_down => Outcome::LinkDown,
            (None, Some(until)) if !self.asked => Outcome::Held { until },
            // The device answers other groups, and not this one: known, and not asked again.
            (None, None) if self.left_out && !self.asked && !presence.is_in_doubt() => {
                Outcome::Answered { turnaround: Duration::ZERO }
            }
            _ if self.damaged => Outcome::Damaged,
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

/// A gateway's words for a device that does not answer it.
fn is_of_a_gateway(code: u8) -> bool {
    matches!(
        ExceptionCode::new(code),
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice
    )
}
