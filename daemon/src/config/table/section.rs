//! What a driver asks of a table, key by key: the daemon's side of [`Section`].

use std::ops::RangeInclusive;
use std::time::Duration;

use fieldspool_drivers::Section;

use super::super::document::Data;
use super::super::words::{duration, duration_words, either, nearest, quoted};
use super::{TEXT_MAX, Table, join, number_of, shown, unquote};

impl Section for Table<'_> {
    fn warn(&mut self, key: &'static str, what: String, remedy: String) {
        self.ask(key);
        if let Some((place, path)) = self.spot(key) {
            self.findings.warn(place, path, what, remedy);
        }
    }

    fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        match &entry.node.data {
            Data::Text(text) if text.len() > TEXT_MAX => {
                let what = format!("a text of {} bytes", text.len());
                self.fault(key, what, format!("at most {TEXT_MAX} bytes"));
                None
            }
            Data::Text(text) => Some(text.clone()),
            other => {
                let remedy = match other {
                    Data::Integer(_) | Data::Float(_) | Data::Flag(_) => {
                        format!("write {}, with quotes", quoted(&shown(other)))
                    }
                    _ => String::new(),
                };
                self.wrong_kind(key, entry, "a text", remedy);
                None
            }
        }
    }

    fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        match entry.node.data {
            Data::Integer(number) if range.contains(&number) => Some(number),
            ref number @ (Data::Integer(_) | Data::Large(_)) => {
                let remedy = format!("write a number from {} to {}", range.start(), range.end());
                self.fault(key, format!("{} is out of range", shown(number)), remedy);
                None
            }
            ref other => {
                self.wrong_kind(key, entry, "an integer", unquote(other));
                None
            }
        }
    }

    fn number(&mut self, key: &'static str) -> Option<f64> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        let number = number_of(&entry.node.data);
        if number.is_none() {
            self.wrong_kind(key, entry, "a finite number", unquote(&entry.node.data));
        }
        number
    }

    fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        match &entry.node.data {
            Data::Flag(flag) => Some(*flag),
            other => {
                let remedy = match other {
                    Data::Text(text) if text == "true" || text == "false" => {
                        format!("write {text}, without quotes")
                    }
                    _ => "write true or false".to_owned(),
                };
                self.wrong_kind(key, entry, "true or false", remedy);
                None
            }
        }
    }

    fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        match &entry.node.data {
            Data::Text(text) => match duration(text) {
                Some(duration) if range.contains(&duration) => Some(duration),
                Some(_) => {
                    let (least, most) = (duration_words(*range.start()), duration_words(*range.end()));
                    let what = format!("{} is out of range", quoted(text));
                    self.fault(key, what, format!("write a duration from {least} to {most}"));
                    None
                }
                None => {
                    let what = format!("{} is not a duration", quoted(text));
                    self.fault(key, what, "write a number and us, ms, s, min, h or d: \"10s\"".to_owned());
                    None
                }
            },
            number @ (Data::Integer(_) | Data::Float(_)) => {
                let number = shown(number);
                let fits = |unit| {
                    duration(&format!("{number}{unit}")).is_some_and(|duration| range.contains(&duration))
                };
                let remedy = if fits("s") {
                    format!("for seconds write \"{number}s\"")
                } else if fits("ms") {
                    format!("for milliseconds write \"{number}ms\"")
                } else {
                    let (least, most) = (duration_words(*range.start()), duration_words(*range.end()));
                    format!("write a duration from {least} to {most}")
                };
                self.fault(key, format!("{number} has no unit"), remedy);
                None
            }
            _ => {
                self.wrong_kind(key, entry, "a duration", "write it like \"10s\"".to_owned());
                None
            }
        }
    }

    fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Option<usize> {
        let text = self.text(key)?;
        if let Some(index) = choices.iter().position(|choice| *choice == text) {
            return Some(index);
        }
        let remedy = match nearest(&text, choices.iter().copied()) {
            Some(near) => format!("did you mean {}?", quoted(near)),
            None => format!("write {}", either(choices)),
        };
        self.fault(key, format!("{} is not known here", quoted(&text)), remedy);
        None
    }

    fn numbers(&mut self, key: &'static str) -> Option<Vec<f64>> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        let numbers = match &entry.node.data {
            Data::List(items) => items.iter().map(|item| number_of(&item.data)).collect(),
            other => number_of(other).map(|number| vec![number]),
        };
        if numbers.is_none() {
            let large = match &entry.node.data {
                Data::List(items) => items.iter().find(|item| matches!(item.data, Data::Large(_))),
                _ => Some(&entry.node).filter(|node| matches!(node.data, Data::Large(_))),
            };
            match large {
                Some(item) => {
                    let what = format!("{} is {}", shown(&item.data), item.data.words());
                    let path = join(self.path_of(key), key);
                    self.fault_at(item.place.clone(), path, what, unquote(&item.data));
                }
                None => {
                    self.wrong_kind(
                        key,
                        entry,
                        "a list of finite numbers",
                        "write it like [65535]".to_owned(),
                    );
                }
            }
        }
        numbers
    }

    fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.ask(key);
        let (_, entry) = self.find(key)?;
        let text_of = |data: &Data| match data {
            Data::Text(text) if text.len() <= TEXT_MAX => Some(text.clone()),
            _ => None,
        };
        let texts = match &entry.node.data {
            Data::List(items) => items.iter().map(|item| text_of(&item.data)).collect(),
            other => text_of(other).map(|text| vec![text]),
        };
        if texts.is_none() {
            self.wrong_kind(key, entry, "a list of texts", "write it like [\"a\", \"b\"]".to_owned());
        }
        texts
    }

    fn fault(&mut self, key: &'static str, what: String, remedy: String) {
        self.ask(key);
        // What a syntax error has swallowed is not missing.
        if !self.has(key) && self.findings.damaged.get() {
            return;
        }
        if let Some((place, path)) = self.spot(key) {
            self.findings.fault(place, path, what, remedy);
        }
    }
}
