//! Salvage: what can still be read from a damaged file, page by page, without SQLite.
//!
//! Trusts no tree and no free list: every page is looked at by itself. A page that looks like a leaf of a table is
//! taken apart cell by cell (SQLite file format, sections 1.5 and 2.1; overflow chains are followed); a record that holds a
//! `block` proves itself by magic and CRC-32C, a `shape` by its JSON and by the fingerprints of the blocks that use it.
//! Pages of the log replace those of the file: frames up to the last commit whose checksum chain holds (section 4.2).
//!
//! What it finds may be more than what was in the spool at the end: pages on the free list still hold blocks that were
//! evicted. They are true readings with their own names, so giving them again is a duplicate at worst.
//!
//! Works in steps, so that it can run beside sampling: one [`Salvage::step`] takes at most the time it is given.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::block::{self, HEADER_LENGTH, MAGIC};
use super::dictionary::Dictionary;
use super::ledger::RunBooks;
use super::records::{books_of, run_of};
use crate::model::{Batch, RunId};

/// No record of ours is longer: a block of texts at their longest.
const RECORD_MAX: usize = 64 * 1024 * 1024;

/// Pages of the file, with those of the log over them.
struct Pages {
    file: File,
    log: Option<File>,
    size: usize,
    count: u32,
    /// Page number to place in the log.
    newer: HashMap<u32, u64>,
}

/// A damaged file being searched.
pub struct Salvage {
    pages: Pages,
    /// Next page to look at.
    at: u32,
    pass: Pass,
    dictionary: Dictionary,
    /// Books of the runs that could be read.
    pub books: BTreeMap<RunId, RunBooks>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Dictionary and books first: blocks cannot be read without.
    Small,
    Blocks,
    Done,
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage")
            .field("at", &self.at)
            .field("pages", &self.pages.count)
            .finish_non_exhaustive()
    }
}

impl Salvage {
    /// Opens a file that was set aside.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let pages = Pages::open(File::open(path)?, File::open(log).ok())?;
        Ok(Self {
            pages,
            at: 1,
            pass: Pass::Small,
            dictionary: Dictionary::default(),
            books: BTreeMap::new(),
        })
    }

    /// Goes on for as long as it is given; gives the batches it found. `None`: everything was looked at.
    pub fn step(&mut self, budget: Duration) -> Option<Vec<Batch>> {
        let started = Instant::now();
        let mut found = Vec::new();
        while self.pass != Pass::Done {
            if self.at > self.pages.count {
                self.at = 1;
                self.pass = if self.pass == Pass::Small { Pass::Blocks } else { Pass::Done };
                continue;
            }
            let page = self.at;
            self.at += 1;
            for record in self.pages.records(page) {
                match self.pass {
                    Pass::Small => self.small(&record),
                    _ => found.extend(self.block(&record)),
                }
            }
            if started.elapsed() >= budget {
                return Some(found);
            }
        }
        if found.is_empty() { None } else { Some(found) }
    }

    /// A row of `shape` or `run`.
    fn small(&mut self, record: &Record) {
        match &*record.columns {
            [Column::Null, Column::Other(body)] => {
                if let Ok(id) = u32::try_from(record.rowid) {
                    self.dictionary.insert(id, body);
                }
            }
            [Column::Null, _, _, Column::Other(books)] => {
                if let Some(books) = std::str::from_utf8(books).ok().and_then(books_of) {
                    // Free pages hold older copies: what was settled stays settled, so the longest is the newest.
                    let newest = self.books.entry(run_of(record.rowid)).or_default();
                    let age = |books: &RunBooks| (books.durable, books.settled.total());
                    if age(&books) >= age(newest) {
                        *newest = books;
                    }
                }
            }
            _ => {}
        }
    }

    /// A row of `block`.
    fn block(&self, record: &Record) -> Vec<Batch> {
        let [Column::Null, _, Column::Other(head), Column::Other(body)] = &*record.columns else {
            return Vec::new();
        };
        if head.len() != HEADER_LENGTH || !head.starts_with(&MAGIC) {
            return Vec::new();
        }
        let bytes = [&head[..], &body[..]].concat();
        block::decode(&bytes, &self.dictionary).unwrap_or_default()
    }
}

/// One value of a record.
enum Column {
    Null,
    Number,
    /// Text or blob.
    Other(Vec<u8>),
}

/// One cell of a table's leaf.
struct Record {
    rowid: i64,
    columns: Vec<Column>,
}

impl Pages {
    fn open(file: File, log: Option<File>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut header = [0; 18];
        // A file whose first page is gone still has our page size.
        let read = file.read_exact_at(&mut header, 0);
        let size = u16::from_be_bytes([header[16], header[17]]);
        let known = header.starts_with(b"SQLite format 3\0") && size.is_power_of_two() && size >= 512;
        let size = if read.is_ok() && known { usize::from(size) } else { usize::from(OUR_SIZE) };
        let mut pages = Self { file, log, size, count: 0, newer: HashMap::new() };
        pages.read_log();
        let in_file = u32::try_from(length / size as u64).unwrap_or(u32::MAX);
        pages.count = in_file.max(pages.newer.keys().max().copied().unwrap_or_default());
        Ok(pages)
    }

    /// Frames of the log up to the last commit, as far as the checksums hold.
    fn read_log(&mut self) {
        let Some(log) = &self.log else { return };
        let mut header = [0; 32];
        if log.read_exact_at(&mut header, 0).is_err() {
            return;
        }
        let word = |bytes: &[u8], at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let big_endian = match word(&header, 0) {
            0x377f_0683 => true,
            0x377f_0682 => false,
            _ => return,
        };
        let mut sum = checksum(big_endian, (0, 0), &header[..24]);
        if usize::try_from(word(&header, 8)).ok() != Some(self.size)
            || sum != (word(&header, 24), word(&header, 28))
        {
            return;
        }
        let mut frame = vec![0; 24 + self.size];
        let mut place = 32;
        let mut pending = Vec::new();
        while log.read_exact_at(&mut frame, place).is_ok() {
            sum = checksum(big_endian, sum, &frame[..8]);
            sum = checksum(big_endian, sum, &frame[24..]);
            if frame[8..16] != header[16..24] || sum != (word(&frame, 16), word(&frame, 20)) {
                return;
            }
            pending.push((word(&frame, 0), place + 24));
            if word(&frame, 4) != 0 {
                self.newer.extend(pending.drain(..));
            }
            place += frame.len() as u64;
        }
    }

    fn read(&self, page: u32, bytes: &mut [u8]) -> bool {
        let at = (u64::from(page) - 1) * self.size as u64;
        match (self.newer.get(&page), &self.log) {
            (Some(place), Some(log)) => log.read_exact_at(bytes, *place).is_ok(),
            _ => self.file.read_exact_at(bytes, at).is_ok(),
        }
    }

    /// The records of a page, if it is a leaf of a table.
    fn records(&self, page: u32) -> Vec<Record> {
        let mut bytes = vec![0; self.size];
        if !self.read(page, &mut bytes) {
            return Vec::new();
        }
        let start = if page == 1 { 100 } else { 0 };
        if bytes[start] != 0x0d {
            return Vec::new();
        }
        let cells = usize::from(u16::from_be_bytes([bytes[start + 3], bytes[start + 4]]));
        let pointers = bytes[start + 8..].chunks_exact(2).take(cells);
        let cell =
            |pointer: &[u8]| self.record(&bytes, usize::from(u16::from_be_bytes([pointer[0], pointer[1]])));
        pointers.filter_map(cell).collect()
    }

    fn record(&self, page: &[u8], at: usize) -> Option<Record> {
        let mut cell = page.get(at..)?;
        let length = usize::try_from(varint(&mut cell)?).ok().filter(|length| *length <= RECORD_MAX)?;
        let rowid = varint(&mut cell)?.cast_signed();
        let payload = self.payload(cell, length)?;
        Some(Record { rowid, columns: columns(&payload)? })
    }

    /// The payload of a cell, its overflow pages included.
    fn payload(&self, cell: &[u8], length: usize) -> Option<Vec<u8>> {
        let most = self.size - 35;
        if length <= most {
            return cell.get(..length).map(<[u8]>::to_vec);
        }
        let least = (self.size - 12) * 32 / 255 - 23;
        let exact = least + (length - least) % (self.size - 4);
        let local = if exact <= most { exact } else { least };
        let mut payload = cell.get(..local)?.to_vec();
        let mut next = u32::from_be_bytes(*cell.get(local..)?.first_chunk()?);
        let mut page = vec![0; self.size];
        // Each page adds bytes: a chain that runs in a circle ends with the length.
        while payload.len() < length {
            if next == 0 || next > self.count || !self.read(next, &mut page) {
                return None;
            }
            next = u32::from_be_bytes(*page.first_chunk()?);
            let left = length - payload.len();
            payload.extend_from_slice(&page[4..(4 + left).min(self.size)]);
        }
        Some(payload)
    }
}

/// Our own page size, for a file whose first page is gone.
const OUR_SIZE: u16 = 1024;
const _: () = assert!(OUR_SIZE as u64 == super::schema::PAGE_SIZE);

/// SQLite's varint: 7 bits a byte, highest first; the ninth byte gives all eight.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if at == 8 {
            return Some(number << 8 | u64::from(*byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

/// The columns of a record.
fn columns(payload: &[u8]) -> Option<Vec<Column>> {
    let mut rest = payload;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = payload.get(payload.len() - rest.len()..header)?;
    let mut body = payload.get(header..)?;
    let mut columns = Vec::new();
    while !types.is_empty() {
        let (column, length) = match varint(&mut types)? {
            0 => (Column::Null, 0),
            kind @ 1..=4 => (Column::Number, usize::try_from(kind).ok()?),
            5 => (Column::Number, 6),
            6 | 7 => (Column::Number, 8),
            8 | 9 => (Column::Number, 0),
            10 | 11 => return None,
            kind => {
                let length = usize::try_from((kind - 12) / 2).ok()?;
                (Column::Other(body.get(..length)?.to_vec()), length)
            }
        };
        body = body.get(length..)?;
        columns.push(column);
    }
    Some(columns)
}

/// The running checksum of the log over whole pairs of words.
fn checksum(big_endian: bool, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    for pair in bytes.chunks_exact(8) {
        first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
    }
    (first, second)
}
