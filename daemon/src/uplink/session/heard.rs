//! What the session is told, and what it remembers of it; what follows from it is asked for by `next`.

use std::sync::Arc;
use std::time::Instant;

use super::super::client::Granted;
use super::super::pace::Pace;
use super::super::words::{Cause, End};
use super::super::{ClockCorrection, DeviceMeta};
use super::refused::Refused;
use super::{CLOCKS_MAX, CLOSE_WITHIN, Line, Phase, Session, Settings, UNREADABLE_MAX};
use crate::model::{Batch, RunId};
use crate::spool::{Committed, Confirmed, Span};

impl Session {
    /// A batch for the live lane.
    pub(in crate::uplink) fn offer(&mut self, batch: Arc<Batch>) {
        self.live.push(batch);
    }

    /// A batch did not reach this session's queue; the spool has it.
    pub(in crate::uplink) fn missed(&mut self, now: Instant) {
        self.backlog.rewind(now);
    }

    /// Something was stored: of this run everything below `next_seq`.
    /// The backlog lane is only concerned if more waits than what is on its way already, or if something is late on its way to the disk.
    pub(in crate::uplink) fn on_stored(&mut self, stored: Committed) {
        let own = |one: &Confirmed| match *one {
            Confirmed::Batch { run, seq, n } if run == self.settings.run && seq + n <= stored.next_seq => n,
            _ => 0,
        };
        let on_its_way: u64 = self.in_flight.iter().map(own).sum();
        if stored.records > 0 || stored.waiting > on_its_way || stored.late > 0 {
            self.backlog.stored();
        }
    }

    /// Something that was confirmed waits again, perhaps behind the cursor.
    pub(in crate::uplink) fn on_resend(&mut self) {
        self.backlog.reset();
    }

    /// The spool's answer to [`Action::Span`], and up to where this run is settled by its books. That no span came says nothing
    /// of that: what waits may lie in a file that was set aside, and is still searched for.
    pub(in crate::uplink) fn on_span(&mut self, now: Instant, span: Option<Span>, settled_to: u64) {
        let grouped = self.settings.topics.backlog.has_device();
        self.backlog.answer(now, span, grouped);
        // A dead letter waits no more as soon as the spool knows of it, and is settled when it is stored.
        if self.dying.is_empty() {
            self.settled.jump(settled_to);
        }
    }

    /// The spool could not answer.
    pub(in crate::uplink) fn on_no_span(&mut self, now: Instant) {
        self.backlog.unanswered(now);
    }

    /// What the devices are.
    pub(in crate::uplink) fn on_meta(&mut self, devices: Vec<DeviceMeta>) {
        if devices != self.devices {
            self.devices = devices;
            self.forget_descriptions();
            if let Some(line) = &mut self.line {
                line.meta = (0..self.devices.len()).collect();
            }
        }
    }

    /// The clock was set.
    pub(in crate::uplink) fn on_clock(&mut self, correction: ClockCorrection) {
        self.clocks.retain(|known| known.boot != correction.boot);
        if self.clocks.len() >= CLOCKS_MAX {
            self.clocks.pop_front();
        }
        self.clocks.push_back(correction);
    }

    /// A record in the backlog says so. One of another life takes nobody's place: the present boot's may be the oldest here.
    pub(super) fn on_recorded_clock(&mut self, run: RunId, correction: ClockCorrection) {
        let known = self.clocks.iter().any(|known| known.boot == correction.boot);
        if run == self.settings.run || known || self.clocks.len() < CLOCKS_MAX {
            self.on_clock(correction);
        }
    }

    /// A new configuration: leave in order, and connect with it. Who would go on showing the gateway as online, because its
    /// next birth goes elsewhere, is told `stopped`.
    pub(in crate::uplink) fn on_config(&mut self, now: Instant, settings: Settings) {
        let moves = settings.broker != self.settings.broker
            || settings.topics.status != self.settings.topics.status
            || settings.gateway != self.settings.gateway;
        match self.phase {
            Phase::Up => self.leave(now + CLOSE_WITHIN, (false, moves)),
            Phase::Waiting { .. } => self.kick(now),
            // The attempt under way is to the old broker, as the old client; there is nothing to wait for.
            Phase::Connecting => self.leave(now, (false, false)),
            // It leaves for an earlier configuration, and may have thought that it would be back under the same name.
            Phase::Leaving { for_good: false, left: false, .. } if moves && self.line.is_some() => {
                self.leave(now + CLOSE_WITHIN, (false, true));
            }
            Phase::Leaving { .. } | Phase::Done => {}
        }
        if self.line.is_some() {
            self.next_settings = Some(settings);
        } else {
            self.settings = settings;
        }
    }

    /// Try now instead of waiting.
    pub(in crate::uplink) fn kick(&mut self, now: Instant) {
        if let Phase::Waiting { until } = &mut self.phase
            && self.backoff.may_kick(now)
        {
            *until = (*until).min(now);
        }
    }

    /// Publish `stopped`, wait for its PUBACK, disconnect; at the latest at `until` it is over.
    pub(in crate::uplink) fn on_stop(&mut self, until: Instant) {
        match self.phase {
            Phase::Up => self.leave(until, (true, true)),
            Phase::Leaving { left, .. } => {
                self.phase = Phase::Leaving { for_good: true, until, said: left, left };
            }
            Phase::Waiting { .. } | Phase::Connecting | Phase::Done => self.phase = Phase::Done,
        }
    }

    /// `say`: with `stopped` as the last word.
    pub(super) fn leave(&mut self, until: Instant, (for_good, say): (bool, bool)) {
        self.phase = Phase::Leaving { for_good, until, said: !say, left: false };
    }

    /// CONNACK.
    pub(in crate::uplink) fn on_connected(&mut self, now: Instant, granted: Granted) {
        let window = self.window(granted);
        let useless = if granted.receive_max == 0 {
            Some(End::new(
                Cause::Refused,
                "the broker allows no message in flight (Receive Maximum 0): check its settings",
            ))
        } else if !granted.qos1 {
            Some(End::new(
                Cause::Refused,
                "the broker takes no QoS 1, so nothing sent would be safe: use another broker",
            ))
        } else {
            None
        };
        self.line = Some(Line {
            since: now,
            granted,
            window,
            progress: now,
            acks: 0,
            status_at: now,
            meta: (0..self.devices.len()).collect(),
            pace: Pace::new(now),
            refused: Refused::default(),
            useless,
        });
        self.live.keep_newest_only(false);
        self.live_opened = None;
        self.live_upto = None;
        self.pause = None;
        self.backlog.reset();
        self.trouble = None;
        // A stop may have come while the CONNACK was on its way.
        if self.phase == Phase::Connecting {
            self.phase = Phase::Up;
        }
    }

    /// Most messages in flight.
    pub(super) fn window(&self, granted: Granted) -> usize {
        if self.unreadable >= UNREADABLE_MAX {
            return 1;
        }
        usize::from(self.settings.window.min(granted.receive_max)).max(1)
    }
}
