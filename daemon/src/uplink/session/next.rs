//! What to do next, and when to ask again.

use std::time::Instant;

use super::super::records::State;
use super::super::words::{Cause, End};
use super::{Action, CLOSE_WITHIN, Phase, Session};

impl Session {
    /// The next thing to do at `now`; to be asked until there is none.
    pub(in crate::uplink) fn next(&mut self, now: Instant) -> Option<Action> {
        if !self.confirmed.is_empty() {
            return Some(Action::Confirm(std::mem::take(&mut self.confirmed)));
        }
        if let Some((what, why)) = self.dead.pop_front() {
            return Some(Action::DeadLetter(what, why));
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Connecting;
                self.numbers.connects += 1;
                Some(Action::Connect)
            }
            Phase::Waiting { .. } | Phase::Connecting => None,
            Phase::Up => self.next_up(now),
            Phase::Leaving { .. } => self.next_leaving(now),
            Phase::Done => Some(Action::Done),
        }
    }

    fn next_up(&mut self, now: Instant) -> Option<Action> {
        if let Some(end) = self.given_up(now) {
            return Some(Action::GiveUp(end));
        }
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
            self.live.keep_newest_only(false);
            if std::mem::take(&mut self.from_the_start) {
                self.backlog.reset();
            }
        }
        if self.live.dropped > self.live_lost {
            self.live_lost = self.live.dropped;
            self.backlog.rewind(now);
        }
        self.compose(now).or_else(|| {
            let wanted = self.pause.is_none();
            wanted.then(|| self.backlog.question(now)).flatten().map(Action::Span)
        })
    }

    fn given_up(&self, now: Instant) -> Option<End> {
        let line = self.line.as_ref()?;
        if let Some(end) = &line.useless {
            return Some(end.clone());
        }
        (!self.flight.is_empty() && now >= line.progress + self.settings.ack_timeout).then(|| {
            End::new(
                Cause::Network,
                format!(
                    "the broker has acknowledged nothing for {} s: the connection is given up",
                    self.settings.ack_timeout.as_secs()
                ),
            )
        })
    }

    fn next_leaving(&mut self, now: Instant) -> Option<Action> {
        let Phase::Leaving { for_good, until, said, left } = self.phase else { return None };
        if self.line.is_none() || until <= now {
            return Some(Action::GiveUp(End::new(Cause::Ours, "stopped")));
        }
        if left {
            return None;
        }
        let window = self.line.as_ref().map_or(1, |line| line.window);
        if !said {
            if self.flight.len() >= window {
                return None;
            }
            self.phase = Phase::Leaving { for_good, until, said: true, left };
            return Some(self.status(now, State::Stopped));
        }
        if !self.flight.is_empty() {
            return None;
        }
        let until = until.min(now + CLOSE_WITHIN);
        self.phase = Phase::Leaving { for_good, until, said, left: true };
        Some(Action::Leave)
    }

    /// When [`Session::next`] is to be asked again although nothing happens.
    pub(in crate::uplink) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } | Phase::Leaving { until, .. } => Some(until),
            Phase::Connecting | Phase::Done => None,
            Phase::Up => {
                let line = self.line.as_ref()?;
                let watchdog = (!self.flight.is_empty()).then(|| line.progress + self.settings.ack_timeout);
                // What cannot go now is no reason to wake up: an acknowledgement or the end of the pause is.
                let free = !self.is_full();
                let status = free.then_some(line.status_at);
                let gathered =
                    (free && self.takes_data() && !self.live.is_empty()).then(|| self.live_due()).flatten();
                let backlog = if self.pause.is_none() { self.backlog.due() } else { None };
                [watchdog, status, gathered, self.pause, backlog].into_iter().flatten().min()
            }
        }
    }

    /// From when on waiting live batches may go, if not at once.
    pub(super) fn live_due(&self) -> Option<Instant> {
        if self.settings.live_every.is_zero() {
            return None;
        }
        self.live_opened.map(|at| at + self.settings.live_every)
    }
}
