//! Salvage: what can still be read from a damaged file, page by page, without SQLite.
//!
//! Every page and every frame of the log is looked at by itself ([`pages`]), and what is found proves itself: a `block` by
//! magic and CRC-32C, the rows of the small tables by their seals (see `records`), a `shape` by the fingerprints of the blocks that
//! use it. What the [`copy`](super::copy) beside the file says counts first.
//!
//! What it finds may be more than what was in the spool at the end: free pages and old frames of the log still hold blocks that
//! were evicted. They are true readings with their own names, so giving them again is a duplicate at worst.
//!
//! Works in steps, so that it can run beside sampling. Memory is bounded
//! by the longest block, the small tables, and [`RECORDS_MAX`].

mod letter;
mod pages;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;

use super::block::{self, BlockFault, HEADER_LENGTH, Header, READINGS_MAX};
use super::copy::Copy;
use super::dictionary::Dictionary;
use super::ledger::{End, Intervals, RunBooks};
use super::records::{Mark, books_of, event_of, mark_of, run_of};
use super::store::DeadLetter;
use crate::model::event::Event;
use crate::model::{Batch, RunId};
use pages::{Pages, View};
use record::{Column, Record};

/// Records that are kept; the table holds fewer.
const RECORDS_MAX: usize = 20_000;

/// Blocks that are damaged and can say what they were about.
const CLAIMS_MAX: usize = 100_000;

/// Dictionary and books first: blocks cannot be read, or judged, without.
const PASSES: [(Pass, View); 6] = [
    (Pass::Small, View::Whole),
    (Pass::Small, View::File),
    (Pass::Small, View::Loose),
    (Pass::Blocks, View::Whole),
    (Pass::Blocks, View::File),
    (Pass::Blocks, View::Loose),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Small,
    Blocks,
}

/// What the small tables gave.
#[derive(Debug)]
pub struct Small {
    /// Books of the runs.
    pub books: BTreeMap<RunId, RunBooks>,
    /// The spool's own row.
    pub mark: Mark,
    /// Records, and whether they were sent.
    pub records: Vec<(Event, bool)>,
}

/// A damaged file being searched.
pub struct Salvage {
    pages: Pages,
    /// Next page or frame to look at, from 1.
    at: u32,
    pass: usize,
    dictionary: Dictionary,
    /// Other bodies under the same numbers: one of the two is damaged.
    others: Dictionary,
    names: HashSet<(RunId, u64)>,
    /// Books of the runs that could be read.
    books: BTreeMap<RunId, RunBooks>,
    /// Records that could be read, and whether they were sent.
    records: Vec<(Event, bool)>,
    told: bool,
    /// The spool's own row. Blocks below its floor were settled.
    mark: Mark,
    /// What lay below the floor.
    pub settled: BTreeMap<RunId, Intervals>,
    /// What lay above it: so it waited, in whole or in part.
    pub above: BTreeMap<RunId, Intervals>,
    /// What damaged blocks said that they held: first and one past the last.
    pub claims: BTreeMap<RunId, BTreeMap<u64, u64>>,
    claimed: usize,
    /// Dead letters, by their row, which tells their order, and their name.
    letters: BTreeMap<(i64, i64, i64), DeadLetter>,
    letters_bytes: usize,
    lettered: HashSet<(RunId, u64)>,
    /// Runs whose books are final.
    pub ended: BTreeSet<RunId>,
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage").field("at", &self.at).field("pass", &self.pass).finish_non_exhaustive()
    }
}

/// Why SQLite must not open a file together with its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFault {
    /// It is that of another spool, and would be written into this one's file.
    Foreign,
    /// It is damaged where SQLite would silently leave out what was stored behind it.
    Damaged,
    /// The disk does not give all of it now: what is wrong with it nobody knows.
    Unread,
}

/// What is wrong with the log beside a file, if it is anything that SQLite does not notice.
pub fn log_fault(path: &Path) -> Option<LogFault> {
    let pages = Pages::open(path).ok()?;
    if pages.log_is_foreign() {
        Some(LogFault::Foreign)
    } else if pages.log_is_unread() {
        Some(LogFault::Unread)
    } else {
        pages.log_is_damaged().then_some(LogFault::Damaged)
    }
}

impl Salvage {
    /// Opens a file that was set aside.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut salvage = Self {
            pages: Pages::open(path)?,
            at: 1,
            pass: 0,
            dictionary: Dictionary::default(),
            others: Dictionary::default(),
            names: HashSet::new(),
            books: BTreeMap::new(),
            records: Vec::new(),
            told: false,
            mark: Mark::default(),
            settled: BTreeMap::new(),
            above: BTreeMap::new(),
            claims: BTreeMap::new(),
            claimed: 0,
            letters: BTreeMap::new(),
            letters_bytes: 0,
            lettered: HashSet::new(),
            ended: BTreeSet::new(),
        };
        salvage.pages.miss_a_refused_log();
        let copy = Copy::read(path);
        for (id, body) in copy.shapes {
            salvage.shape(id, body.as_bytes());
        }
        salvage.newer_mark(copy.mark);
        for (run, books) in copy.books {
            if !copy.open {
                salvage.ended.insert(run);
            }
            salvage.newer_books(run, books);
        }
        Ok(salvage)
    }

    /// How many pages of file and log the disk did not give so far: what stands there was not looked at.
    pub fn unread(&self) -> u64 {
        self.pages.unread()
    }

    /// Looks at so many pages; gives the batches it found. `None`: everything was looked at.
    pub fn step(&mut self, pages: u32) -> Option<Vec<Batch>> {
        let mut found = Vec::new();
        let mut left = pages;
        while let Some((pass, view)) = PASSES.get(self.pass) {
            if self.at > self.pages.count(*view) {
                self.at = 1;
                self.pass += 1;
                continue;
            }
            let at = self.at;
            self.at += 1;
            for record in self.pages.records(*view, at) {
                match pass {
                    Pass::Small => self.small(&record),
                    Pass::Blocks => found.extend(self.block(&record)),
                }
            }
            left = left.saturating_sub(1);
            if left == 0 {
                return Some(found);
            }
        }
        if found.is_empty() { None } else { Some(found) }
    }

    /// Books and records, once: when all pages were looked at for them.
    pub fn learned(&mut self) -> Option<Small> {
        let all = PASSES.get(self.pass).is_none_or(|(pass, _)| *pass == Pass::Blocks);
        (all && !std::mem::replace(&mut self.told, true)).then(|| {
            let (books, records) = (std::mem::take(&mut self.books), std::mem::take(&mut self.records));
            Small { books, mark: self.mark.clone(), records }
        })
    }

    /// A row of `shape`, `spool`, `run` or `event`.
    fn small(&mut self, record: &Record) {
        let text = |bytes: &'_ [u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        match &*record.columns {
            [Column::Null, Column::Other(body), ..] if record.rowid == 1 && self.mark(body) => {}
            [Column::Null, Column::Other(body), ..] => {
                if let Ok(id) = u32::try_from(record.rowid) {
                    self.shape(id, body);
                }
            }
            [
                Column::Null,
                Column::Number(ended),
                last_wall @ (Column::Null | Column::Number(_)),
                Column::Other(books),
                ..,
            ] => {
                let run = run_of(record.rowid);
                if let Some(mut books) = text(books).and_then(|text| books_of(run, &text)) {
                    if *ended != 0 {
                        self.ended.insert(run);
                    }
                    let last_wall_us = if let Column::Number(us) = last_wall { Some(*us) } else { None };
                    books.end = books.end.or(End::of_row(*ended, last_wall_us));
                    self.newer_books(run, books);
                }
            }
            [
                Column::Null,
                Column::Number(run),
                Column::Number(number),
                Column::Number(sent),
                Column::Other(body),
                ..,
            ] => {
                let (run, number) = (run_of(*run), number.cast_unsigned());
                if let Some(event) = text(body).and_then(|text| event_of(run, number, &text))
                    && self.records.len() < RECORDS_MAX
                    && self.names.insert((run, number))
                {
                    self.records.push((event, *sent != 0));
                }
            }
            _ => {}
        }
    }

    /// The first is taken for the true one, which the blocks that use it prove or not.
    fn shape(&mut self, id: u32, body: &[u8]) {
        match self.dictionary.entry(id) {
            None => self.dictionary.insert(id, body),
            Some(known) if known.crc == crc32c::crc32c(body) => true,
            Some(_) => self.others.insert(id, body),
        };
    }

    fn mark(&mut self, body: &[u8]) -> bool {
        let mark = std::str::from_utf8(body).ok().and_then(mark_of);
        let found = mark.is_some();
        self.newer_mark(mark);
        found
    }

    fn newer_mark(&mut self, mark: Option<Mark>) {
        let age = |mark: &Mark| (mark.counter, mark.running_s, mark.confirmed, mark.floor);
        if let Some(mark) = mark.filter(|mark| age(mark) > age(&self.mark)) {
            self.mark = mark;
        }
    }

    /// Free pages and the log hold older copies: what was settled stays settled until it is to be sent again, so of as many
    /// requests the longest is the newest.
    fn newer_books(&mut self, run: RunId, books: RunBooks) {
        let newest = self.books.entry(run).or_default();
        let age = |books: &RunBooks| (books.durable, books.resends, books.settled.total(), !books.unfound);
        let end = books.end.or(newest.end);
        if age(&books) >= age(newest) {
            *newest = books;
        }
        newest.end = end;
    }

    /// A row of `block`.
    fn block(&mut self, record: &Record) -> Vec<Batch> {
        let [Column::Null, Column::Number(number), Column::Other(head), Column::Other(body), ..] =
            &*record.columns
        else {
            self.letter(record);
            return Vec::new();
        };
        if head.len() != HEADER_LENGTH {
            return Vec::new();
        }
        let bytes = [&head[..], &body[..]].concat();
        let decoded = match block::decode(&bytes, &self.dictionary) {
            Err(BlockFault::Dictionary(_)) => block::decode(&bytes, &self.others),
            decoded => decoded,
        };
        let Ok(batches) = decoded else {
            self.claim(&bytes);
            return Vec::new();
        };
        let below = number.cast_unsigned() < self.mark.floor;
        let side = if below { &mut self.settled } else { &mut self.above };
        for batch in &batches {
            side.entry(batch.run).or_default().insert(batch.seq, batch.end());
        }
        batches
    }

    /// A block that cannot be read may still say what it was about. Believed only where it goes on from what is known.
    fn claim(&mut self, bytes: &[u8]) {
        let Ok(header) = Header::read(bytes) else { return };
        let Header { run, first, next, readings, .. } = header;
        let readings = u64::from(readings);
        let likely = first < next && readings <= READINGS_MAX as u64 && next - first == readings;
        if likely && self.claimed < CLAIMS_MAX {
            self.claimed += 1;
            self.claims.entry(run).or_default().entry(first).or_insert(next);
        }
    }
}
