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
    /// Of the first message that was refused so, and not of each one that follows.
    why: Option<Why>,
    /// Devices whose description was refused; empty: the status. At most all devices.
    about: BTreeSet<Arc<str>>,
}

/// A reason.
#[derive(Debug)]
struct Why {
    code: u8,
    words: String,
    /// Where the message went that they name; once another one is taken there, the next refusal is named.
    topic: Option<String>,
}

impl Refused {
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_ref().map(|why| &*why.words)
    }

    pub(super) fn data(&mut self, code: u8, words: &str, topic: String) {
        if self.why.as_ref().is_none_or(|known| known.code != code || known.topic.is_none()) {
            self.why = Some(Why { code, words: words.to_owned(), topic: Some(topic) });
        }
    }

    pub(super) fn about(&mut self, sent: &Sent, (code, why): (u8, &str), topic: String) {
        self.data(code, why, topic);
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

    /// A message was taken: what was refused may be settled by now, or the topic that was named for it is open.
    pub(super) fn forget_refused(&mut self, sent: &Sent) {
        let named = self.line.as_ref().and_then(|line| line.refused.why.as_ref()?.topic.clone());
        let is_open = named.is_some_and(|topic| topic == self.topic_of(sent));
        let over = self.refused().is_none();
        let Some(refused) = self.line.as_mut().map(|line| &mut line.refused) else { return };
        if over {
            refused.why = None;
        } else if let Some(why) = refused.why.as_mut().filter(|_| is_open) {
            why.topic = None;
        }
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
        let topic = self.topic_of(sent);
        let Some(line) = &mut self.line else { return };
        if let Some(refusal) = refusal {
            line.refused.about(sent, refusal, topic);
        } else {
            line.refused.accepted_about(sent);
            self.forget_refused(sent);
        }
    }
}
