//! The requests of a poll that are expected to be in vain: a retry of what is left out, and a sign of life in place of a
//! group that is ignored as a whole.
//!
//! When a retry is due [`ignored`](crate::modbus::ignored) says. Nothing of it is held against the device.

use std::time::Instant;

use super::{Next, Reading, is_of_a_gateway};
use crate::modbus::asked::Asked;
use crate::modbus::client::Envelope;
use crate::modbus::transaction::{Answer, Ask, Failure};
use crate::value::Cause;

/// So many polls in a row without the time for a retry that is due, and the next one begins with it.
pub(super) const PASSED_OVER: u8 = 10;

impl Reading<'_> {
    /// Tries one of the requests again that are left out, if there is time.
    pub(super) async fn try_again(&mut self, line: &mut Envelope, to: &mut Asked<'_>, deadline: Instant) {
        let began = Instant::now();
        let waiting = to.longest_waiting(began);
        let in_time = self.has_time(to, deadline);
        to.plan.passed_over =
            if in_time || waiting.is_none() { 0 } else { to.plan.passed_over.saturating_add(1) };
        let Some(index) = waiting.filter(|_| in_time) else { return };
        let Some(ask) = to.ask(index) else { return };
        let before = to.plan.now.len();
        let until = to.ends(self.began, self.heard, deadline);
        let next = match line.transact(ask, until).await {
            Ok(answer) if !answer.exception.is_some_and(is_of_a_gateway) => {
                self.take(Ok(answer), line.data(), to, index)
            }
            vain => {
                self.in_vain(vain, to, index, began);
                Next::Forward
            }
        };
        if let Next::Again = next {
            let parts = to.plan.now.len() + 1 - before;
            self.walk(line, to, (index, parts), deadline).await;
        }
    }

    /// A retry brought nothing: that was expected, and says nothing about the device.
    fn in_vain(&mut self, result: Result<Answer, Failure>, to: &mut Asked<'_>, index: usize, began: Instant) {
        self.left_out = true;
        let cause = match result {
            Ok(answer) => answer.exception.map(Cause::Exception),
            Err(Failure::Silent) => Some(Cause::Silent),
            Err(Failure::Damaged | Failure::NeverQuiet) => Some(Cause::BadFrame),
            Err(Failure::LinkDown | Failure::HungUp) => {
                self.line_is_down();
                None
            }
            Err(Failure::Held(until)) => {
                self.held_until = Some(until);
                to.held(index, until);
                return;
            }
        };
        to.retried(index, cause, began);
        if let Some(cause) = cause {
            self.mark(to.plan, index, cause);
        }
    }

    /// Asks something else than the group, to see whether the device is there.
    pub(in crate::modbus) async fn look_for(
        &mut self,
        line: &mut Envelope,
        ask: Ask,
        to: &mut Asked<'_>,
        deadline: Instant,
    ) {
        self.mark_left_out(to);
        match line.transact(ask, deadline).await {
            Ok(answer) if !answer.exception.is_some_and(is_of_a_gateway) => {
                (self.at, self.turnaround) = (Some(answer.at), Some(answer.turnaround));
                to.presence.answered();
                // All of its polls may come while another group leaves the device in doubt.
                self.try_again(line, to, deadline).await;
            }
            Err(Failure::Held(until)) => self.held_until = Some(until),
            Err(Failure::LinkDown | Failure::HungUp) => self.line_is_down(),
            Err(Failure::Damaged) => {
                self.asked = true;
                self.damaged.push((ask.function, ask.data_bytes));
            }
            Ok(_) | Err(Failure::Silent | Failure::NeverQuiet) => self.asked = true,
        }
    }
}
