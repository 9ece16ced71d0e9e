//! What a poll does on a line without transaction ids about the debts of its device: which requests have to wait for an
//! answer that is still owed, and which go last because they leave one.
//!
//! What is owed, and for how long, the RTU engine's ledger says; on a line with transaction ids nothing is ever held. A
//! request that has to wait for ever would be the fault here: so what is held goes first in the next poll where it would
//! else be held again, and what is damaged again and again goes last and waits for it. So that another group is not held for
//! ever, what is damaged again rests for longer than its answer is owed.

use std::time::Instant;

use super::Reading;
use crate::modbus::asked::{Asked, IfHeld};
use crate::modbus::client::Envelope;
use crate::modbus::transaction::Ask;
use crate::value::Cause;

impl Reading<'_> {
    /// Until when a poll of a seldom polled group waits, so that all of it can be asked. On a line that is down it does not: it
    /// has that to say.
    pub(super) fn begins_later(line: &mut Envelope, to: &mut Asked<'_>) -> Option<Instant> {
        if to.if_held != IfHeld::ComeBack || to.presence.is_in_doubt() || !line.is_up() {
            return None;
        }
        let all = to.plan.now.len();
        let held = |index: usize| {
            let planned = to.plan.now.get(index).filter(|planned| !planned.ignored.is_left_out())?;
            let until = line.held(Ask::new(to.unit, &planned.request))?;
            to.is_first_hold(index, until).then_some(until)
        };
        (0..all).filter_map(held).max()
    }

    /// A request could not be sent, and may not be before `until`.
    pub(super) fn held(&mut self, to: &mut Asked<'_>, index: usize, until: Instant) {
        self.held_until = Some(self.held_until.map_or(until, |held| held.min(until)));
        // One that is always damaged would else keep it from being asked for ever.
        let shape = to.plan.now.get(index).map(|planned| planned.request.shape());
        if to.is_held_anew(index, until) {
            self.held.extend(shape.map(|(function, _)| function));
        }
        if index == to.plan.first || shape.is_some_and(|shape| self.damaged.contains(&shape)) {
            self.first_held.get_or_insert(index);
        }
        if to.if_held == IfHeld::SayNothing && to.is_first_hold(index, until) {
            let items = to.plan.now.get(index).into_iter().flat_map(|planned| &planned.request.items);
            self.unsaid.extend(items.map(|item| item.slot));
        }
    }

    /// Asks what goes last because it came damaged, when all others have been asked. Where one of them could not be, what is
    /// of its function waits for it: a new debt would make it wait again. What rests is damaged as it was, while the line is up.
    pub(super) async fn ask_last(
        &mut self,
        line: &mut Envelope,
        to: &mut Asked<'_>,
        deadline: Instant,
    ) -> Option<usize> {
        let held = std::mem::take(&mut self.held);
        let mut index = 0;
        while let (in_time, Some(planned)) = (self.has_time(to, deadline), to.plan.now.get_mut(index)) {
            let function = planned.request.table.function();
            if std::mem::take(&mut planned.last) && !planned.ignored.is_left_out() {
                if planned.rests() && line.is_up() {
                    self.damaged.push(planned.request.shape());
                    self.mark(to.plan, index, Cause::BadFrame);
                } else if held.contains(&function) {
                    self.mark(to.plan, index, Cause::BadFrame);
                } else if !in_time {
                    planned.last = true;
                    to.last_not_reached();
                    return Some(index);
                } else if let cut_off @ Some(_) = self.walk(line, to, (index, 1), deadline).await {
                    return cut_off;
                }
            }
            index += 1;
        }
        None
    }
}
