//! A poll of a Modbus group while it happens: asks its requests one after the other, and puts the answers into the
//! samples.
//!
//! Every point has a sample from the beginning, bad, so a poll can end at any time. A request that a device refuses is
//! replaced by narrower ones at once.

use std::time::{Duration, Instant};

use tokio_modbus::ExceptionCode;

use super::client::{Envelope, Plan};
use super::decode;
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
    pub(super) fn new(points: &[u16], scalings: &'a [Option<&'a Scaling>]) -> Self {
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

    pub(super) async fn ask_all(
        &mut self,
        line: &mut Envelope,
        unit: u8,
        plan: &mut Plan,
        deadline: Instant,
    ) {
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

    pub(super) fn poll(self) -> Poll {
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
