//! The copy: what the small tables say, once more, in a file of its own beside the spool.
//!
//! A page of blocks that is lost costs those blocks. The page of the dictionary would cost every block that uses it, and the page
//! of the books would make everything wait again that was confirmed. So both stand here too, for the
//! [`salvage`](super::salvage), and for a start that finds its file gone or [older than this](super::forgotten). Written when the
//! spool is opened, when a shape comes up, once an hour and when it is closed; read at a start, and by a search. Before the file is brought to a newer schema the first line says so: an update that ends right
//! after that, and is rolled back, leaves a newer file, not one that looks damaged.
//!
//! ```text
//! spool.db-copy   lines of JSON, each sealed (see `records`)
//!   {"spool": id, "open": .., "schema": ..}    the first line. "open": not closed since; "schema": the version of the file
//!   {"shape": id, "body": text}                a row of table `shape`. A second one of an id: the file shows another body now
//!   {"id": .., "floor": .., ...}               the row of table `spool`
//!   {"run": .., "durable": .., ...}            the books of a run, as in table `run`
//! ```
//!
//! It may be older than the spool. That does no harm: shapes never change, what was settled stays settled, and books that know of a
//! later request to send again count as newer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::dictionary::{Dictionary, body_of};
use super::ledger::{Ledger, RunBooks};
use super::records::{Mark, books_of, books_text, mark_of, mark_text, run_of, seal, sealed};
use crate::model::RunId;

/// Behind the name of the spool's file.
pub(super) const SUFFIX: &str = "-copy";

/// A line is no longer than the shape of a device with all its points.
const LINE_MAX: u64 = 64 * 1024 * 1024;

/// Bodies of one shape: that which was copied first, and another that the file showed later.
const BODIES_MAX: usize = 2;

/// What a copy says.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// The spool's own row.
    pub(super) mark: Option<Mark>,
    /// The spool was not closed since.
    pub(super) open: bool,
    /// The version of the file's schema.
    pub(super) schema: Option<i64>,
    /// Number and body.
    pub(super) shapes: Vec<(u32, String)>,
    /// Books, not beyond what is durable.
    pub(super) books: Vec<(RunId, RunBooks)>,
}

#[derive(Deserialize)]
struct Line {
    open: Option<bool>,
    schema: Option<i64>,
    id: Option<String>,
    shape: Option<u32>,
    body: Option<String>,
    run: Option<i64>,
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(SUFFIX);
    path.push(suffix);
    path.into()
}

impl Copy {
    /// The copy beside a spool's file; empty if there is none. Lines that are damaged are left out.
    pub(super) fn read(file: &Path) -> Self {
        Self::read_until(file, |_| false)
    }

    /// The spool's own row alone, which is among the first.
    pub(super) fn mark(file: &Path) -> Option<Mark> {
        Self::read_until(file, |copy| copy.mark.is_some()).mark
    }

    fn read_until(file: &Path, enough: impl Fn(&Self) -> bool) -> Self {
        let mut copy = Self::default();
        let Ok(opened) = File::open(beside(file, "")) else { return copy };
        let mut lines = BufReader::new(opened);
        let mut line = Vec::new();
        while !enough(&copy) {
            line.clear();
            match (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return copy,
                Ok(_) => copy.take(String::from_utf8_lossy(&line).trim_end()),
            }
        }
        copy
    }

    /// The first line alone.
    pub(super) fn head(file: &Path) -> Self {
        let mut copy = Self::default();
        let mut line = String::new();
        if let Ok(opened) = File::open(beside(file, ""))
            && BufReader::new(opened).take(4096).read_line(&mut line).is_ok()
        {
            copy.take(line.trim_end());
        }
        copy
    }

    fn take(&mut self, text: &str) {
        let Some(line) = sealed(text).and_then(|text| serde_json::from_str::<Line>(text).ok()) else {
            return;
        };
        match line {
            Line { open: Some(open), schema, .. } => (self.open, self.schema) = (open, schema),
            Line { id: Some(_), .. } => self.mark = mark_of(text),
            Line { shape: Some(id), body: Some(body), .. } => self.shapes.push((id, body)),
            Line { run: Some(run), .. } => {
                let run = run_of(run);
                self.books.extend(books_of(run, text).map(|books| (run, books)));
            }
            _ => {}
        }
    }
}

/// Says in the copy that the file is about to be of a newer schema; the rest of it stays. A copy that does not say its schema
/// may be of any, and none is made.
pub(super) fn announce(file: &Path, schema: i64) -> io::Result<()> {
    let path = beside(file, "");
    if Copy::head(file).schema.is_none() {
        return Ok(());
    }
    let text = fs::read(&path)?;
    let first = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (first, rest) = text.split_at(first);
    let mut first: Value = serde_json::from_slice(first)?;
    if let Some(line) = first.as_object_mut() {
        line.remove("crc");
        line.insert("schema".to_owned(), schema.into());
    }
    replace(file, |out| {
        write!(out, "{}", seal(first.to_string()))?;
        out.write_all(rest)
    })
}

/// Writes the copy anew: complete or not at all.
pub(super) fn write(
    file: &Path,
    (mark, open, schema): (&Mark, bool, i64),
    dictionary: &Dictionary,
    ledger: &Ledger,
) -> io::Result<()> {
    let shapes = shapes(file, mark, dictionary);
    replace(file, |out| {
        writeln!(out, "{}", seal(json!({"spool": mark.id, "open": open, "schema": schema}).to_string()))?;
        writeln!(out, "{}", mark_text(mark))?;
        for (id, body) in shapes {
            writeln!(out, "{}", seal(json!({"shape": id, "body": body}).to_string()))?;
        }
        for (run, books) in &ledger.runs {
            writeln!(out, "{}", books_text(*run, &books.for_disk()))?;
        }
        Ok(())
    })
}

/// Those that the copy has, and then what the file has beside them. A page of the file may have changed since: what is sealed here stays,
/// and a body that differs stands behind it.
fn shapes(file: &Path, mark: &Mark, dictionary: &Dictionary) -> Vec<(u32, String)> {
    let copy = Copy::read(file);
    let own = copy.mark.is_some_and(|known| known.id == mark.id);
    let mut shapes = if own { copy.shapes } else { Vec::new() };
    let mut known: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (id, body) in &shapes {
        known.entry(*id).or_default().push(crc32c::crc32c(body.as_bytes()));
    }
    for (id, entry) in dictionary.entries() {
        let body = body_of(&entry.shape);
        let before = known.get(&id).map_or(&[][..], Vec::as_slice);
        if crc32c::crc32c(&body) == entry.crc && before.len() < BODIES_MAX && !before.contains(&entry.crc) {
            shapes.push((id, String::from_utf8_lossy(&body).into_owned()));
        }
    }
    shapes
}

fn replace(file: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let (new, old) = (beside(file, ".new"), beside(file, ""));
    let written = || {
        let mut out = BufWriter::new(File::create(&new)?);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, &old)
    };
    // On a full disk it was made, and keeps room that others need.
    written().inspect_err(|_| drop(fs::remove_file(&new)))?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}
