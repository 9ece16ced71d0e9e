//! One table of the configuration, asked key by key: the daemon's side of [`Section`].
//!
//! A table may have layers (a device's own words over those of its profile): the first that has a key gives the
//! value, and a fault names the place where that value stands. Whoever reads a table asks for every key it knows,
//! then calls [`Table::finish`], which reports the keys that nobody asked for. Nothing stops at the first fault.

mod section;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fieldspool_drivers::Section;

use super::document::{Data, Entry, Node, Tree};
use super::fault::{Fault, Place};
use super::words::{did_you_mean, quoted};

/// Longest text that any key takes, bytes.
pub(super) const TEXT_MAX: usize = 1024;

/// Collects what is found, from everywhere at once.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) faults: RefCell<Vec<Fault>>,
    pub(super) warnings: RefCell<Vec<Fault>>,
    /// Some file has syntax errors: nothing may be called missing.
    pub(super) damaged: Cell<bool>,
    /// What could not be read for a reason that may pass by itself.
    pub(super) passing: RefCell<BTreeSet<Arc<Path>>>,
}

impl Findings {
    /// Nothing is wrong but what may pass by itself.
    pub(super) fn may_pass(&self, faults: &[Fault]) -> bool {
        let passing = self.passing.borrow();
        let passes = |place: &Place| place.line == 0 && passing.contains(&place.file);
        !faults.is_empty() && faults.iter().all(|fault| fault.place.as_ref().is_some_and(passes))
    }

    pub(super) fn fault(&self, place: Place, key: String, what: String, remedy: String) {
        self.faults.borrow_mut().push(Fault { place: Some(place), key, what, remedy, is_syntax: false });
    }

    pub(super) fn warn(&self, place: Place, key: String, what: String, remedy: String) {
        self.warnings.borrow_mut().push(Fault { place: Some(place), key, what, remedy, is_syntax: false });
    }
}

#[derive(Clone, Debug)]
struct Layer<'a> {
    tree: &'a Tree,
    path: String,
    place: Place,
    /// Keys that are known in this layer although nobody asks for them.
    also: &'static [&'static str],
    /// Keys that do not count in this layer.
    barred: &'static [&'static str],
}

impl<'a> Layer<'a> {
    fn new(tree: &'a Tree, path: String, place: Place) -> Self {
        Self { tree, path, place, also: &[], barred: &[] }
    }

    fn get(&self, key: &str) -> Option<&'a Entry> {
        self.tree.get(key).filter(|_| !self.barred.contains(&key))
    }

    /// The table under an entry of this one.
    fn inner(&self, entry: &'a Entry) -> Option<Layer<'a>> {
        match &entry.node.data {
            Data::Table(tree) => Some(Self::new(tree, join(&self.path, &entry.key), entry.key_place.clone())),
            _ => None,
        }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Table<'a> {
    layers: Vec<Layer<'a>>,
    asked: Vec<&'static str>,
    findings: &'a Findings,
}

impl<'a> Table<'a> {
    /// A table without layers. `place` is where a fault of the whole table is shown.
    pub(super) fn new(tree: &'a Tree, path: String, place: Place, findings: &'a Findings) -> Self {
        Self { layers: vec![Layer::new(tree, path, place)], asked: Vec::new(), findings }
    }

    fn sibling(&self) -> Table<'a> {
        Table { layers: Vec::new(), asked: Vec::new(), findings: self.findings }
    }

    /// Puts `other` below this table: its keys count where this one has none.
    pub(super) fn over(mut self, other: Table<'a>) -> Table<'a> {
        self.layers.extend(other.layers);
        self
    }

    /// Lets the keys of `also` stand here unasked, and those of `barred` not at all.
    pub(super) fn restricted(
        mut self,
        also: &'static [&'static str],
        barred: &'static [&'static str],
    ) -> Table<'a> {
        for layer in &mut self.layers {
            (layer.also, layer.barred) = (also, barred);
        }
        self
    }

    /// Path of the table in its document.
    pub(super) fn path(&self) -> &str {
        self.layers.first().map_or("", |layer| layer.path.as_str())
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> Option<Place> {
        self.layers.first().map(|layer| layer.place.clone())
    }

    /// Marks a key as known.
    fn ask(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    fn find(&self, key: &str) -> Option<(&Layer<'a>, &'a Entry)> {
        self.layers.iter().find_map(|layer| Some((layer, layer.get(key)?)))
    }

    /// All files could be read to their end: what is missing here is missing.
    pub(super) fn is_whole(&self) -> bool {
        !self.findings.damaged.get()
    }

    /// No layer has any key.
    pub(super) fn is_empty(&self) -> bool {
        self.layers.iter().all(|layer| layer.tree.entries.is_empty())
    }

    /// The value of a key and where it stands.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Node> {
        self.ask(key);
        self.find(key).map(|(_, entry)| &entry.node)
    }

    /// The table under a key, with all its layers; `None` if no layer has one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        self.ask(key);
        let mut inner = self.sibling();
        for layer in &self.layers {
            let Some(entry) = layer.get(key) else { continue };
            match layer.inner(entry) {
                Some(found) => inner.layers.push(found),
                None => self.wrong_kind(key, entry, "a table", String::new()),
            }
        }
        (!inner.layers.is_empty()).then_some(inner)
    }

    /// The tables under this table, by name, each with its layers; names from the lowest layer first, so that a
    /// profile's points keep their order. For tables whose keys are names.
    pub(super) fn named(&mut self) -> Vec<(&'a Entry, Table<'a>)> {
        let mut names: Vec<(&'a Entry, Table<'a>)> = Vec::new();
        for layer in self.layers.iter().rev() {
            // Keys of one layer are unique: only those of the layers below can be the same.
            let below = names.len();
            for entry in &layer.tree.entries {
                let Some(found) = layer.inner(entry) else {
                    let path = join(&layer.path, &entry.key);
                    let what =
                        format!("{} is {}, a table is needed", quoted(&entry.key), entry.node.data.words());
                    let remedy = format!("write {} = {{ ... }}", entry.key);
                    self.findings.fault(entry.key_place.clone(), path, what, remedy);
                    continue;
                };
                match names.iter_mut().take(below).find(|(old, _)| old.key == entry.key) {
                    Some((old, table)) => {
                        *old = entry;
                        table.layers.insert(0, found);
                    }
                    None => names.push((entry, Table { layers: vec![found], ..self.sibling() })),
                }
            }
        }
        names
    }

    fn wrong_kind(&self, key: &str, entry: &Entry, wanted: &str, remedy: String) {
        let words = entry.node.data.words();
        let what = match &entry.node.data {
            Data::Other(_) => format!("{words}, {wanted} is needed"),
            data => format!("{} is {words}, {wanted} is needed", shown(data)),
        };
        self.findings.fault(entry.node.place.clone(), join(self.path_of(key), key), what, remedy);
    }

    fn path_of(&self, key: &str) -> &str {
        self.find(key).map_or(self.path(), |(layer, _)| layer.path.as_str())
    }

    /// A fault somewhere else than at a key of this table.
    pub(super) fn fault_at(&self, place: Place, path: String, what: String, remedy: String) {
        self.findings.fault(place, path, what, remedy);
    }

    /// Where a key stands (else the table), and its path.
    pub(super) fn spot(&self, key: &str) -> Option<(Place, String)> {
        match self.find(key) {
            Some((layer, entry)) => Some((entry.node.place.clone(), join(&layer.path, key))),
            None => Some((self.place()?, self.path().to_owned())),
        }
    }

    /// An integer of one's own kind that a text stands for; `read` gives `None` for what it does not understand.
    pub(super) fn parsed<T, E>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
        words: impl FnOnce(E) -> (String, String),
    ) -> Option<T> {
        let text = self.text(key)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                let (what, remedy) = words(error);
                self.fault(key, what, remedy);
                None
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for layer in &self.layers {
            for entry in &layer.tree.entries {
                let key = entry.key.as_str();
                let barred = layer.barred.contains(&key);
                if (self.asked.contains(&key) && !barred) || layer.also.contains(&key) {
                    continue;
                }
                let mut known: Vec<&str> = self.asked.iter().chain(layer.also).copied().collect();
                known.retain(|known| !layer.barred.contains(known));
                known.sort_unstable();
                let (what, remedy) = if barred && self.asked.contains(&key) {
                    (
                        format!("{} is not for all devices of a kind", quoted(key)),
                        "write it at each device".to_owned(),
                    )
                } else {
                    let remedy = did_you_mean(key, known.iter().copied(), || {
                        format!("known here: {}", known.join(", "))
                    });
                    (format!("unknown key {}", quoted(key)), remedy)
                };
                self.findings.fault(entry.key_place.clone(), layer.path.clone(), what, remedy);
            }
        }
    }
}

/// A key's path as it could be typed; names from outside are made harmless.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key.len() <= 64
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let key = if bare { key.to_owned() } else { quoted(key) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A value for a message.
fn shown(data: &Data) -> String {
    match data {
        Data::Text(text) => quoted(text),
        Data::Integer(number) => number.to_string(),
        Data::Large(number) => number.to_string(),
        Data::Float(number) => format!("{number:?}"),
        Data::Flag(flag) => flag.to_string(),
        Data::List(_) => "[...]".to_owned(),
        Data::Table(_) => "{ ... }".to_owned(),
        Data::Other(_) => "this".to_owned(),
    }
}

/// A finite number.
fn number_of(data: &Data) -> Option<f64> {
    match data {
        // Every integer that makes sense as a factor, a limit or a sentinel is far below 2^53.
        Data::Integer(number) => Some(*number as f64),
        Data::Float(number) if number.is_finite() => Some(*number),
        _ => None,
    }
}

/// What to do about a value of the wrong kind where a number is needed.
fn unquote(data: &Data) -> String {
    match data {
        Data::Large(number) => format!("write it as a float: {number}.0"),
        Data::Text(text) if text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
            format!("write {}, without quotes", text.trim())
        }
        _ => String::new(),
    }
}
