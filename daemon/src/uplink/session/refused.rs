//! Whether the broker refuses what it is sent, although the connection stands. Pure.
//!
//! Begins with the first refusal on a connection and lasts until nothing that was refused waits any more: what comes and goes with
//! each message would be said, and taken back, all day. With MQTT 3.1.1 a broker has no word for it, and nobody can know.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Kind, Sent, Session};
use crate::spool::Confirmed;
use crate::status::Refusing;

/// What was refused on one connection.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The reason's code, and in words: of the first message that was refused so, and not of each one that follows.
    why: Option<(u8, String)>,
    /// Devices whose description was refused; empty: the status. At most all devices.
    about: BTreeSet<Arc<str>>,
}

impl Refused {
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_ref().map(|(_, why)| &**why)
    }

    pub(super) fn data(&mut self, code: u8, why: &str) {
        if self.why.as_ref().is_none_or(|(known, _)| *known != code) {
            self.why = Some((code, why.to_owned()));
        }
    }

    pub(super) fn about(&mut self, sent: &Sent, (code, why): (u8, &str)) {
        self.data(code, why);
        self.about.insert(sent.device.clone());
    }

    pub(super) fn accepted_about(&mut self, sent: &Sent) {
        self.about.remove(&sent.device);
    }
}

impl Session {
    /// What the broker refuses now, and why; `None` without a connection.
    pub(in crate::uplink) fn refused(&self) -> Option<(Refusing, &str)> {
        let refused = &self.line.as_ref()?.refused;
        let why = refused.why()?;
        let what = if !self.pause_step.is_zero() {
            Refusing::All
        } else if self.backlog.remembers_refused() {
            Refusing::Some
        } else if !refused.about.is_empty() {
            Refusing::About
        } else {
            return None;
        };
        Some((what, why))
    }

    /// Descriptions that were refused are tried again with the next status: somebody may have corrected the access list.
    pub(super) fn describe_again(&mut self) {
        let Some(line) = &mut self.line else { return };
        for (at, device) in self.devices.iter().enumerate() {
            if line.refused.about.contains(&device.device) && !line.meta.contains(&at) {
                line.meta.push_back(at);
            }
        }
    }

    /// The devices are others now: of those that are gone nothing is refused.
    pub(super) fn forget_descriptions(&mut self) {
        if let Some(line) = &mut self.line {
            line.refused.about.retain(|device| device.is_empty());
        }
    }

    /// Where a message went.
    pub(super) fn topic_of(&self, sent: &Sent) -> String {
        let topics = &self.settings.topics;
        let is_record = sent.what.first().is_some_and(|one| matches!(one, Confirmed::Event { .. }));
        let template = match sent.kind {
            Kind::Status => &topics.status,
            Kind::Meta => &topics.meta,
            Kind::Live => &topics.live,
            Kind::Backlog if is_record => &topics.event,
            Kind::Backlog => &topics.backlog,
        };
        template.topic(&self.settings.gateway, &sent.device)
    }

    /// A status or a description.
    pub(super) fn on_about(&mut self, sent: &Sent, refusal: Option<(u8, &str)>) {
        debug_assert!(matches!(sent.kind, Kind::Status | Kind::Meta), "data has its own way");
        let Some(line) = &mut self.line else { return };
        match refusal {
            Some(refusal) => line.refused.about(sent, refusal),
            None => line.refused.accepted_about(sent),
        }
    }
}
