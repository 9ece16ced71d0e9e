//! A log line as text: the message, then its fields as `name=value`. Control characters are escaped, lengths
//! bounded: nothing that an instrument, a broker or a file sends can forge a line or flood a terminal.

use std::fmt::Write;

use tracing::field::{Field, Visit};

/// Longest value of one field in bytes; the rest is cut and marked.
const VALUE_MAX: usize = 512;

/// What was recorded with an event or a span.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// The message; empty for spans.
    pub(super) message: String,
    /// Name and value, in the order of the code.
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Words {
    fn put(&mut self, field: &Field, value: &str) {
        let clean = escape(value);
        if field.name() == "message" {
            self.message = clean;
        } else if ["log.file", "log.line", "log.module_path"].contains(&field.name()) {
            // Where in another's source it was said: nothing that helps here, and the path of a build machine.
        } else {
            self.fields.retain(|(name, _)| *name != field.name());
            self.fields.push((field.name(), clean));
        }
    }

    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The line: message, fields of the spans around it that it does not give itself, its own fields, and how many
    /// like it were held back.
    pub(super) fn line(&self, around: &[(&'static str, String)], held: u64) -> String {
        let mut line = self.message.clone();
        let outer = around.iter().filter(|(name, _)| self.get(name).is_none());
        for (name, value) in outer.chain(&self.fields) {
            if value.is_empty() || value.contains([' ', '=', '"']) {
                let _ = write!(line, " {name}=\"{}\"", value.replace('"', "\\\""));
            } else {
                let _ = write!(line, " {name}={value}");
            }
        }
        if held > 0 {
            let _ = write!(line, " ({held} more like it since the last such line)");
        }
        line
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
}

/// Replaces control characters (and the Unicode marks that reverse a line's direction) by their escapes, and cuts at [`VALUE_MAX`].
pub fn escape(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(VALUE_MAX));
    for c in text.chars() {
        if clean.len() >= VALUE_MAX {
            clean.push('…');
            break;
        }
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push_str("\\t"),
            '\r' => clean.push_str("\\r"),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => {
                clean.extend(c.escape_unicode());
            }
            c if c.is_control() => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_line_or_move_the_cursor() {
        assert_eq!(escape("a\nERROR b\r\x1b[2J\u{7f}\u{202e}"), "a\\nERROR b\\r\\u{1b}[2J\\u{7f}\\u{202e}");
        assert_eq!(escape(&"x".repeat(10_000)).chars().count(), VALUE_MAX + 1);
    }

    #[test]
    fn a_line_names_the_device_and_what_was_held_back() {
        let words = Words {
            message: "device silent".into(),
            fields: vec![("device", "meter-01".into()), ("error", "no answer in 1 s".into())],
        };
        let around = [("bus", "hall".to_owned()), ("device", "outer".to_owned())];
        assert_eq!(
            words.line(&around, 7),
            "device silent bus=hall device=meter-01 error=\"no answer in 1 s\" (7 more like it since the last such line)"
        );
    }
}
