//! A TOML text as a tree in which every key and every value knows its place.
//!
//! Parsing goes on after a syntax error, so that all of them are reported at once; the tree then lacks what could
//! not be understood, and [`Document::damaged`] says so, lest something be called missing that only was not read.
//! Trees of several files merge: tables join, a later scalar or list replaces an earlier one, and a device that is
//! described twice is a fault that names both places.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place};
use super::slips::{self, Slip};
use super::words::quoted;

/// Most syntax errors that are told of one file; for each the text is searched.
const SLIPS_MAX: usize = 200;

/// One file, parsed.
#[derive(Debug)]
pub(super) struct Document {
    /// What stands in it.
    pub(super) tree: Tree,
    /// Syntax errors.
    pub(super) faults: Vec<Fault>,
    /// The tree lacks something because of them.
    pub(super) damaged: bool,
}

/// A table, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Keys are unique.
    pub(super) entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) data: Data,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Text(String),
    Integer(i64),
    /// Beyond what TOML promises, and within 64 bits.
    Large(u64),
    Float(f64),
    Flag(bool),
    List(Vec<Node>),
    Table(Tree),
    /// A date, a time, or a number too large for 64 bits; as it is called in a message.
    Other(&'static str),
}

impl Data {
    /// What it is called in a message.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Large(_) => "an integer beyond 63 bits",
            Self::Float(_) => "a number with a decimal point",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(words) => words,
        }
    }
}

impl Tree {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Parses one file's text.
pub(super) fn parse(file: &Arc<Path>, text: &str) -> Document {
    // A byte order mark is no part of the text; some editors on Windows write one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<Fault> = errors
        .iter()
        .take(SLIPS_MAX)
        .map(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            let Slip { at, what, remedy } = slips::slip(error.message(), text, at);
            Fault { place: Some(lines.place(at)), key: String::new(), what, remedy, is_syntax: true }
        })
        .collect();
    // One slip often makes the parser stumble several times on the same line: its first word on it is the useful one.
    faults.sort_by_key(|fault| fault.place.as_ref().map_or((0, 0), |place| (place.line, place.column)));
    faults.dedup_by_key(|fault| fault.place.as_ref().map(|place| place.line));
    let damaged = !faults.is_empty();
    Document { tree: tree(root.into_inner(), &lines), faults, damaged }
}

/// Takes the parser's tree apart as it goes: both at once would be the largest thing in the daemon's life.
fn tree(table: DeTable<'_>, lines: &Lines<'_>) -> Tree {
    let mut entries: Vec<(usize, Entry)> = table
        .into_iter()
        .map(|(key, value)| {
            let start = key.span().start;
            let node = node(value, lines, start);
            (start, Entry { key: key.into_inner().into_owned(), key_place: lines.place(start), node })
        })
        .collect();
    entries.sort_by_key(|(start, _)| *start);
    Tree { entries: entries.into_iter().map(|(_, entry)| entry).collect() }
}

fn node(value: Spanned<DeValue<'_>>, lines: &Lines<'_>, key_start: usize) -> Node {
    let value_start = value.span().start;
    let data = match value.into_inner() {
        DeValue::String(text) => Data::Text(text.into_owned()),
        DeValue::Integer(digits) => {
            let large = || u64::from_str_radix(digits.as_str(), digits.radix()).map(Data::Large);
            i64::from_str_radix(digits.as_str(), digits.radix())
                .map(Data::Integer)
                .or_else(|_| large())
                .unwrap_or(Data::Other("a number beyond 64 bits"))
        }
        DeValue::Float(digits) => {
            digits.as_str().parse().map_or(Data::Other("a strange number"), Data::Float)
        }
        DeValue::Boolean(flag) => Data::Flag(flag),
        DeValue::Datetime(_) => Data::Other("a date or time"),
        DeValue::Array(items) => {
            Data::List(items.into_iter().map(|item| node(item, lines, value_start)).collect())
        }
        DeValue::Table(table) => Data::Table(tree(table, lines)),
    };
    // A table with a header is best pointed to by its name in that header, as its key is.
    let start = match data {
        Data::Table(_) => key_start,
        _ => value_start,
    };
    Node { place: lines.place(start), data }
}

/// Where a text ends.
pub(super) fn end_of(file: &Arc<Path>, text: &str) -> Place {
    Lines::new(file, text).place(text.len())
}

/// From byte offsets to lines and columns.
struct Lines<'a> {
    file: &'a Arc<Path>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a Arc<Path>, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        // Characters are counted by the bytes that begin one.
        let column = 1 + before.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: Arc::clone(self.file), line: small(line.max(1)), column: small(column) }
    }
}

/// Lays `over` on `base`. `path` is where both stand in their documents.
pub(super) fn merge(base: &mut Tree, over: Tree, path: &mut Vec<String>, faults: &mut Vec<Fault>) {
    for entry in over.entries {
        let Some(old) = base.entries.iter_mut().find(|old| old.key == entry.key) else {
            base.entries.push(entry);
            continue;
        };
        let is_device = path.len() == 3
            && path.first().is_some_and(|key| key == "bus")
            && path.last().is_some_and(|key| key == "device");
        path.push(entry.key.clone());
        if is_device {
            faults.push(Fault {
                place: Some(entry.key_place.clone()),
                key: path.join("."),
                what: format!("device {} is described twice, first at {}", quoted(&entry.key), old.key_place),
                remedy: "keep one of the two, or give one another name".to_owned(),
                is_syntax: false,
            });
        } else {
            lay(old, entry, path, faults);
        }
        path.pop();
    }
}

fn lay(old: &mut Entry, new: Entry, path: &mut Vec<String>, faults: &mut Vec<Fault>) {
    match (&mut old.node.data, new.node.data) {
        (Data::Table(base), Data::Table(over)) => merge(base, over, path, faults),
        (Data::Table(_), data) | (_, data @ Data::Table(_)) => faults.push(Fault {
            place: Some(new.key_place),
            key: path.join("."),
            what: format!("{} here, and something else at {}", data.words(), old.key_place),
            remedy: "make both a table, or remove one".to_owned(),
            is_syntax: false,
        }),
        (_, data) => {
            old.key_place = new.key_place;
            old.node = Node { place: new.node.place, data };
        }
    }
}
