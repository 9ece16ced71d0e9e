//! Pages of a damaged file and of its log, and the records on them. Trusts no tree, no free list and no page's own list of cells.
//!
//! SQLite's file format, sections 1.5, 1.6, 2.1 and 4.2. Three views, because each can hold what the others hide:
//! * **whole**: what SQLite would see: the log's frames up to the last commit whose chain of checksums holds, over the file;
//! * **file**: pages of the file that the log replaces, for a log that was damaged after it had been written back;
//! * **loose**: every frame of the log by itself, with the nearest frames for its overflow pages: what lies behind a damaged
//!   frame, and what is left of older rounds.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// No record of ours is longer: a block of texts at their longest.
const RECORD_MAX: usize = 64 * 1024 * 1024;

/// Our own page size, for a file whose first page is gone.
const OUR_SIZE: u16 = 1024;
const _: () = assert!(OUR_SIZE as u64 == crate::spool::schema::PAGE_SIZE);

/// A frame of the log: its head, then a page.
const FRAME_HEAD: u64 = 24;

/// Where the first frame begins.
const FRAMES_AT: u64 = 32;

/// How a record may begin before the magic of its block: payload length, row id, header and block number.
const BEFORE_MAGIC: usize = 40;

/// A way to look at file and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    File,
    Loose,
}

/// Pages of the file, with those of the log over them.
pub(super) struct Pages {
    file: File,
    log: Option<File>,
    size: usize,
    in_file: u32,
    count: u32,
    /// Page number to place in the log, as far as the chain of checksums holds.
    newer: HashMap<u32, u64>,
    /// Page number of each frame of the log, whatever its checksum says.
    frames: Vec<u32>,
    /// Frames of each page, ascending.
    frames_of: HashMap<u32, Vec<u32>>,
    /// A commit of the log's present round lies behind a frame that is damaged.
    torn: bool,
}

/// One value of a record.
pub(super) enum Column {
    Null,
    Number(i64),
    /// Text or blob.
    Other(Vec<u8>),
}

/// One cell of a table's leaf.
pub(super) struct Record {
    pub(super) rowid: i64,
    pub(super) columns: Vec<Column>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Pages {
    /// Opens a file and the log beside it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let (file, log) = (File::open(path)?, File::open(log).ok());
        let length = file.metadata()?.len();
        let mut header = [0; 18];
        // A file whose first page is gone still has our page size.
        let read = file.read_exact_at(&mut header, 0);
        let size = u16::from_be_bytes([header[16], header[17]]);
        let known = header.starts_with(b"SQLite format 3\0") && size.is_power_of_two() && size >= 512;
        let size = if read.is_ok() && known { usize::from(size) } else { usize::from(OUR_SIZE) };
        // A last page that was cut off is looked at too, as far as it is there.
        let in_file = u32::try_from(length.div_ceil(size as u64)).unwrap_or(u32::MAX);
        let mut pages = Self {
            file,
            log,
            size,
            in_file,
            count: in_file,
            newer: HashMap::new(),
            frames: Vec::new(),
            frames_of: HashMap::new(),
            torn: false,
        };
        pages.read_log();
        pages.count = in_file.max(pages.newer.keys().max().copied().unwrap_or_default());
        Ok(pages)
    }

    /// Frames of the log: all of them, and those up to the last commit as far as the checksums hold.
    fn read_log(&mut self) {
        let Some(log) = &self.log else { return };
        let mut header = [0; 32];
        if log.read_exact_at(&mut header, 0).is_err() {
            return;
        }
        let big_endian = word(&header, 0) == 0x377f_0683;
        let mut sum = checksum(big_endian, (0, 0), &header[..24]);
        let mut holds = (big_endian || word(&header, 0) == 0x377f_0682)
            && usize::try_from(word(&header, 8)).ok() == Some(self.size)
            && sum == (word(&header, 24), word(&header, 28));
        let whole_header = holds;
        let mut frame = vec![0; 24 + self.size];
        let mut place = FRAMES_AT;
        let (mut pending, mut commits_behind, mut more_behind) = (Vec::new(), false, false);
        while log.read_exact_at(&mut frame, place).is_ok() {
            let page = word(&frame, 0);
            let ours = frame[8..16] == header[16..24];
            if holds {
                sum = checksum(big_endian, sum, &frame[..8]);
                sum = checksum(big_endian, sum, &frame[24..]);
                holds = ours && sum == (word(&frame, 16), word(&frame, 20));
            }
            if holds {
                pending.push((page, place + FRAME_HEAD));
                if word(&frame, 4) != 0 {
                    self.newer.extend(pending.drain(..));
                }
            } else if ours {
                more_behind |= commits_behind;
                commits_behind |= word(&frame, 4) != 0;
            }
            let at = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
            self.frames_of.entry(page).or_default().push(at);
            self.frames.push(page);
            place += frame.len() as u64;
        }
        // One commit without a sync may be torn by a power cut. The next one begins when it is on the disk.
        self.torn = more_behind || (!whole_header && !self.frames.is_empty());
    }

    /// Readings that were on the disk may stand in the log behind a damaged frame, where SQLite does not look.
    pub(super) fn log_is_damaged(&self) -> bool {
        self.torn
    }

    /// How many pages or frames a view has.
    pub(super) fn count(&self, view: View) -> u32 {
        match view {
            View::Whole => self.count,
            View::File => self.in_file,
            View::Loose => u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
        }
    }

    fn read_from_log(&self, place: u64, bytes: &mut [u8]) -> bool {
        self.log.as_ref().is_some_and(|log| log.read_exact_at(bytes, place).is_ok())
    }

    fn read_from_file(&self, page: u32, bytes: &mut [u8]) -> bool {
        let at = (u64::from(page.max(1)) - 1) * self.size as u64;
        bytes.fill(0);
        // What is cut off reads as zeros.
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(read @ 1..) => filled += read,
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        filled > 0
    }

    /// A page as record number `from` of a view sees it.
    fn read(&self, (view, from): (View, u32), page: u32, bytes: &mut [u8]) -> bool {
        let place = |frame: u32| FRAMES_AT + u64::from(frame) * (FRAME_HEAD + self.size as u64) + FRAME_HEAD;
        let place = match view {
            View::Whole => self.newer.get(&page).copied(),
            View::File => None,
            View::Loose => {
                let nearest = |frames: &Vec<u32>| frames.iter().copied().min_by_key(|at| at.abs_diff(from));
                self.frames_of.get(&page).and_then(nearest).map(place)
            }
        };
        match place {
            Some(place) => self.read_from_log(place, bytes),
            None => self.read_from_file(page, bytes),
        }
    }

    /// The records of a page, from 1 on, or of a frame.
    pub(super) fn records(&self, view: View, at: u32) -> Vec<Record> {
        let page = match view {
            View::Whole => at,
            View::File if self.newer.contains_key(&at) => at,
            View::File => return Vec::new(),
            View::Loose => self.frames.get(at as usize - 1).copied().unwrap_or_default(),
        };
        let from = (view, if view == View::Loose { at - 1 } else { at });
        let mut bytes = vec![0; self.size];
        if !self.read(from, page, &mut bytes) {
            return Vec::new();
        }
        let start = if page == 1 { 100 } else { 0 };
        let mut found = Vec::new();
        let mut known = HashSet::new();
        if bytes[start] == 0x0d {
            let cells = usize::from(u16::from_be_bytes([bytes[start + 3], bytes[start + 4]]));
            for pointer in bytes[start + 8..].chunks_exact(2).take(cells) {
                let at = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
                if known.insert(at) {
                    found.extend(self.record(from, &bytes, at));
                }
            }
        }
        // Cells whose pointer is damaged: a block is known by its magic, and proves itself by its checksum.
        for magic in bytes.windows(4).enumerate().filter(|(_, four)| **four == crate::spool::block::MAGIC) {
            for at in magic.0.saturating_sub(BEFORE_MAGIC)..magic.0 {
                if known.insert(at) {
                    found.extend(self.record(from, &bytes, at).filter(is_block));
                }
            }
        }
        found
    }

    fn record(&self, from: (View, u32), page: &[u8], at: usize) -> Option<Record> {
        let mut cell = page.get(at..)?;
        let length = usize::try_from(varint(&mut cell)?).ok().filter(|length| *length <= RECORD_MAX)?;
        let rowid = varint(&mut cell)?.cast_signed();
        // Before any chain is followed: the columns must take what the cell says.
        if !takes(cell, length) {
            return None;
        }
        let payload = self.payload(from, cell, length)?;
        Some(Record { rowid, columns: columns(&payload)? })
    }

    /// The payload of a cell, its overflow pages included.
    fn payload(&self, from: (View, u32), cell: &[u8], length: usize) -> Option<Vec<u8>> {
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
            if next == 0 || !self.read(from, next, &mut page) {
                return None;
            }
            next = u32::from_be_bytes(*page.first_chunk()?);
            let left = length - payload.len();
            payload.extend_from_slice(&page[4..(4 + left).min(self.size)]);
        }
        Some(payload)
    }
}

fn is_block(record: &Record) -> bool {
    matches!(&*record.columns, [Column::Null, Column::Number(_), Column::Other(head), ..]
        if head.starts_with(&crate::spool::block::MAGIC))
}

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

/// Whether the head of a record accounts for all its bytes.
fn takes(payload: &[u8], length: usize) -> bool {
    let mut rest = payload;
    let Some(header) = varint(&mut rest).and_then(|header| usize::try_from(header).ok()) else {
        return false;
    };
    let Some(mut types) = payload.get(payload.len() - rest.len()..header) else { return false };
    let mut sum = header;
    while !types.is_empty() {
        let Some(kind) = varint(&mut types) else { return false };
        let bytes = match kind {
            1..=6 => [1, 2, 3, 4, 6, 8][usize::try_from(kind).unwrap_or(1) - 1],
            0 | 8 | 9 => 0,
            7 | 10 | 11 => return false,
            kind => usize::try_from((kind - 12) / 2).unwrap_or(usize::MAX),
        };
        sum = sum.saturating_add(bytes);
    }
    sum == length
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
            kind @ 1..=6 => {
                let length = [1, 2, 3, 4, 6, 8][usize::try_from(kind).ok()? - 1];
                (Column::Number(integer(body.get(..length)?)), length)
            }
            kind @ (8 | 9) => (Column::Number(i64::from(kind == 9)), 0),
            // Floats and what is reserved: none of our tables has them.
            7 | 10 | 11 => return None,
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

/// A big-endian integer of up to eight bytes, with its sign.
fn integer(bytes: &[u8]) -> i64 {
    let sign = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if sign { -1 } else { 0 }, |number, byte| number << 8 | i64::from(*byte))
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
