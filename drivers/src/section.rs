//! How settings reach a driver: one table of the configuration, asked key by key.
//!
//! A driver owns the shape of its settings and describes it by asking. The daemon owns the file: it implements
//! [`Section`] over a parsed document, so it knows the place of every key, reports what nobody asked for as
//! unknown ("did you mean ..."), and collects all faults instead of stopping at the first.
//!
//! The rule for a driver: ask for every key it knows, in every case, and return `None` only at the end. A `None`
//! from an asking method means "absent, or a fault already reported"; `has` tells the two apart.

use std::ops::RangeInclusive;
use std::time::Duration;

/// One table of the configuration.
pub trait Section {
    /// Whether the key is there at all, with a right value or a wrong one.
    fn has(&self, key: &str) -> bool;

    /// A string.
    fn text(&mut self, key: &'static str) -> Option<String>;

    /// An integer within `range`; outside it is a fault that names the range.
    fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64>;

    /// A finite number, integer or float.
    fn number(&mut self, key: &'static str) -> Option<f64>;

    /// `true` or `false`.
    fn flag(&mut self, key: &'static str) -> Option<bool>;

    /// A duration as text with a unit, `"250ms"`, `"10s"`, `"5min"`, within `range`.
    fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration>;

    /// One of `choices`, as its index; anything else is a fault with the nearest choice as a hint.
    fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Option<usize>;

    /// A list of numbers.
    fn numbers(&mut self, key: &'static str) -> Option<Vec<f64>>;

    /// A list of strings.
    fn texts(&mut self, key: &'static str) -> Option<Vec<String>>;

    /// Reports a fault in the meaning of `key` (of the whole table if `key` is absent): what is wrong, and what to do.
    fn fault(&mut self, key: &'static str, what: String, remedy: String);

    /// Reports what can be and is probably not meant.
    fn warn(&mut self, key: &'static str, what: String, remedy: String);
}
