//! Whether the broker refuses what it is sent, although the connection stands. Pure.
//!
//! Begins with the first refusal on a connection and lasts until nothing that was refused waits any more: what comes and goes with
//! each message would be said, and taken back, all day. With MQTT 3.1.1 a broker has no word for it, and nobody can know.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Kind, Sent, Session};
use crate::status::Refusing;

/// What was refused on one connection.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Why, the newest.
    why: Option<String>,
    /// Devices whose description was refused; empty: the status. At most all devices.
    about: BTreeSet<Arc<str>>,
}

impl Refused {
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(super) fn data(&mut self, why: &str) {
        self.why = Some(why.to_owned());
    }

    pub(super) fn about(&mut self, sent: &Sent, why: &str) {
        self.data(why);
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

    /// A status or a description.
    pub(super) fn on_about(&mut self, sent: &Sent, refusal: Option<&str>) {
        debug_assert!(matches!(sent.kind, Kind::Status | Kind::Meta), "data has its own way");
        let Some(line) = &mut self.line else { return };
        match refusal {
            Some(why) => line.refused.about(sent, why),
            None => line.refused.accepted_about(sent),
        }
    }
}
