//! Where each kind of message goes: templates, as they are typed.

use std::str::FromStr;

use super::{Unusable, unusable};

/// Where each kind of message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// `live`: readings as they come. May have `{device}`.
    pub live: Template,
    /// `backlog`: readings from the spool. May have `{device}`.
    pub backlog: Template,
    /// `event`: records. No `{device}`.
    pub event: Template,
    /// `status`: health, birth and will. No `{device}`.
    pub status: Template,
    /// `meta`: what the points mean. Must have `{device}`.
    pub meta: Template,
}

impl Default for Topics {
    fn default() -> Self {
        let template = |text: &str| Template(text.to_owned());
        Self {
            live: template("fieldspool/{gateway}/live/{device}"),
            backlog: template("fieldspool/{gateway}/backlog/{device}"),
            event: template("fieldspool/{gateway}/event"),
            status: template("fieldspool/{gateway}/status"),
            meta: template("fieldspool/{gateway}/meta/{device}"),
        }
    }
}

impl Topics {
    /// What is wrong with the five together: (key, what, remedy).
    pub fn faults(&self) -> Vec<(&'static str, Unusable)> {
        let mut faults = Vec::new();
        let mut fault = |key, what: &str, remedy: &str| {
            faults.push((key, Unusable { what: what.to_owned(), remedy: remedy.to_owned() }));
        };
        if !self.meta.has_device() {
            fault("meta", "without {device} each device would overwrite the others", "add {device}");
        }
        if self.event.has_device() {
            fault("event", "records belong to the gateway, not to a device", "leave {device} out");
        }
        if self.status.has_device() {
            fault("status", "the status belongs to the gateway, not to a device", "leave {device} out");
        }
        let all = [
            ("backlog", &self.backlog),
            ("event", &self.event),
            ("status", &self.status),
            ("meta", &self.meta),
            ("live", &self.live),
        ];
        for (i, (key, template)) in all.iter().enumerate() {
            if let Some((other, _)) = all.iter().skip(i + 1).find(|(_, t)| t == template) {
                fault(key, &format!("the same topic as {other}"), "give each kind of message its own topic");
            }
        }
        faults
    }
}

/// A topic with `{gateway}` and `{device}` to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// Longest topic we send, bytes. MQTT allows 65 535 (MQTT 5 1.5.4); names we fill in have at most 64 bytes each.
const TOPIC_MAX: usize = 1024;

impl FromStr for Template {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        if text.is_empty() || text.len() > TOPIC_MAX {
            return unusable(
                format!("a topic of {} bytes", text.len()),
                format!("a topic has 1 to {TOPIC_MAX} bytes"),
            );
        }
        if text.contains(['+', '#']) {
            return unusable(
                "a wildcard in a topic that is published to",
                "remove + and #: they are for subscribers",
            );
        }
        if text.chars().any(char::is_control) {
            return unusable("a control character in a topic", "remove it");
        }
        if text.starts_with('$') {
            return unusable("topics that begin with $ belong to the broker", "begin with another character");
        }
        let mut rest = text.replace("{gateway}", "").replace("{device}", "");
        if let Some(at) = rest.find(['{', '}']) {
            rest.drain(..at);
            return unusable(format!("{rest:?} is no placeholder"), "there are two: {gateway} and {device}");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Template {
    /// Messages carry one device each.
    pub fn has_device(&self) -> bool {
        self.0.contains("{device}")
    }

    /// The topic.
    pub fn topic(&self, gateway: &str, device: &str) -> String {
        let mut topic = String::with_capacity(self.0.len() + gateway.len() + device.len());
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            topic.push_str(before);
            // What else stands in braces was refused.
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            topic.push_str(if name == "gateway" { gateway } else { device });
            rest = after;
        }
        topic.push_str(rest);
        topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_filled_in() {
        let template: Template = "plant/{gateway}/{device}/x".parse().unwrap();
        assert_eq!(template.topic("gw1", "meter-01"), "plant/gw1/meter-01/x");
        assert!(template.has_device());
    }

    #[test]
    fn topics_that_cannot_be_published_to_are_refused() {
        for text in ["", "a/+/b", "a/#", "$SYS/x", "a/{point}", "a/{device", "a\0b"] {
            assert!(text.parse::<Template>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn topics_that_would_mix_messages_are_refused() {
        assert_eq!(Topics::default().faults(), []);
        let same = Topics {
            live: "x/{device}".parse().unwrap(),
            meta: "x/{device}".parse().unwrap(),
            ..Topics::default()
        };
        assert_eq!(same.faults().len(), 1);
        let bare = Topics { meta: "x".parse().unwrap(), ..Topics::default() };
        assert_eq!(bare.faults().iter().map(|f| f.0).collect::<Vec<_>>(), ["meta"]);
    }
}
