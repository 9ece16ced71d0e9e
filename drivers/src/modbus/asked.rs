//! The device that a poll asks: what is known of its requests and of itself, and what the log says of that.
//!
//! It asks nothing: [`reading`](super::reading) does, and tells here what came of it. A place that the plan does not
//! have changes nothing.

use std::time::{Duration, Instant};

use super::client::{Plan, Planned};
use super::ignored::{Presence, Retries};
use super::transaction::Ask;
use crate::bus::GOES_ON_MAX;
use crate::value::Cause;

/// What came damaged again rests so long at most, or two hold-offs if that is longer: it is to be back within a minute (P10).
const REST_MAX: Duration = Duration::from_secs(30);

/// Whom a poll asks, and what is known of it.
pub(super) struct Asked<'a> {
    pub(super) unit: u8,
    pub(super) plan: &'a mut Plan,
    pub(super) presence: &'a mut Presence,
    pub(super) retries: &'a mut Retries,
    pub(super) if_held: IfHeld,
    /// Of the bus and the device, for the log.
    pub(super) names: (&'a str, &'a str),
}

/// What a poll does about a request that may not be sent yet, because an answer of its shape to another one is still owed.
/// That says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfHeld {
    /// Its points have no sample: the group is polled again before long.
    SayNothing,
    /// The poll begins later: the next one would be far.
    ComeBack,
    /// Its points are silent: nobody polls again.
    SaySilent,
}

impl Asked<'_> {
    /// What a request is on the line.
    pub(super) fn ask(&self, index: usize) -> Option<Ask> {
        self.plan.now.get(index).map(|planned| Ask::new(self.unit, &planned.request))
    }

    /// `Some`: the request is not asked now, and its points are bad for this reason.
    pub(super) fn leave_out(&mut self, index: usize) -> Option<Cause> {
        let cause = self.plan.now.get_mut(index)?.ignored.leave_out(*self.presence, Instant::now());
        self.say(index);
        cause
    }

    /// The request that is to be tried again first, if any may be; none of a device that may not be there.
    pub(super) fn longest_waiting(&self, now: Instant) -> Option<usize> {
        let due =
            |(index, planned): (usize, &Planned)| Some((planned.ignored.due(self.retries, now)?, index));
        let waiting = self.plan.now.iter().enumerate().filter_map(due);
        waiting.min().map(|(_, index)| index).filter(|_| !self.presence.is_in_doubt())
    }

    /// When a poll ends that began then and heard the device last then. Its deadline has the time for the requests as they
    /// were planned; narrowed, they are more. So it goes on as long as they are answered, with one silence between: a
    /// device that goes away meanwhile costs its neighbours two time-outs, and not one for each. (A read that nobody
    /// repeats has the time of two requests, however many it takes.)
    pub(super) fn ends(&self, began: Instant, heard: Option<Instant>, deadline: Instant) -> Instant {
        let more = self.plan.is_narrowed() || self.if_held == IfHeld::SaySilent;
        let heard = heard.filter(|_| more);
        let goes_on = heard.map(|heard| (heard + self.retries.longest() * 2).min(began + GOES_ON_MAX));
        goes_on.map_or(deadline, |until| until.max(deadline))
    }

    /// Nothing came for a request, or a gateway says so. Whether it was replaced by narrower ones.
    pub(super) fn silent(&mut self, index: usize, cause: Cause) -> bool {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.ignored.silent(*self.presence, cause);
        }
        self.plan.unanswered(index, self.presence.is_in_doubt(), Instant::now())
    }

    /// What came damaged goes last in this poll: on a line without transaction ids no exception is believed while its answer
    /// is owed. Of a device that may be away each request has its turn. (One poll without an answer may be for want of belief.)
    /// So has what the last poll, which was cut off, did not come to: it would never be asked again.
    pub(super) fn put_last(&mut self) {
        let away = self.presence.silences() > 1;
        for planned in &mut self.plan.now {
            planned.last = planned.damaged > 0 && !away && (planned.rests() || !planned.not_reached);
            planned.not_reached = false;
        }
    }

    /// The poll is cut off before what goes last has its turn.
    pub(super) fn last_not_reached(&mut self) {
        self.plan.now.iter_mut().for_each(|planned| planned.not_reached = planned.last);
    }

    /// The answer to a request came damaged. If it is asked again whenever it may be, the next poll leaves it owed before other groups
    /// have their turn, and what they ask of its shape is held for ever. So after the second time it rests for two `hold_off`s,
    /// then for four and eight: longer than its answer is owed.
    pub(super) fn damaged(&mut self, index: usize, hold_off: Duration) {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.damaged = planned.damaged.saturating_add(1);
            let longer = hold_off * (1 << (planned.damaged - 1).min(3));
            planned.rests_until = Some(Instant::now() + longer.min(REST_MAX.max(hold_off * 2)));
        }
    }

    /// A request was tried again since `began`, in vain. `None`: the line went down with it; its points keep their reason.
    pub(super) fn retried(&mut self, index: usize, cause: Option<Cause>, began: Instant) {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.ignored.retried(cause, began, self.retries, Instant::now());
        }
    }

    /// A request may not be sent until then.
    pub(super) fn held(&mut self, index: usize, until: Instant) {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.ignored.held(until);
        }
    }

    /// A request that is not left out may not be sent before `until`. Whether that is so for the first time since it was
    /// last asked, and then it was not silent: only what something else owes is no silence of its own, and what is held
    /// again and again must not go unsaid.
    pub(super) fn is_first_hold(&mut self, index: usize, until: Instant) -> bool {
        let is_silent = self.plan.now.get(index).is_none_or(|planned| planned.silences > 0);
        !is_silent && self.is_held_anew(index, until)
    }

    /// The same, silent or not: others need not wait for what is held again and again.
    pub(super) fn is_held_anew(&mut self, index: usize, until: Instant) -> bool {
        let planned = self.plan.now.get_mut(index);
        planned.is_some_and(|planned| Instant::now() < *planned.held.get_or_insert(until))
    }

    /// A request was sent.
    pub(super) fn sent(&mut self, index: usize) {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.held = None;
        }
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, index: usize) {
        if let Some(planned) = self.plan.now.get_mut(index) {
            planned.ignored.answered(self.retries);
            (planned.damaged, planned.rests_until) = (0, None);
        }
        self.presence.answered();
        self.say(index);
    }

    /// Says in the log why it is silent.
    pub(super) fn say_hung_up(&self) {
        let ((bus, device), unit_id) = (self.names, self.unit);
        tracing::warn!(%bus, %device, unit_id, "connection is closed when this device is asked: taken for its silence");
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
}
