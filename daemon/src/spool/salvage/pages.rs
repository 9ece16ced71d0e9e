//! Pages of a damaged file and of its log, and the records on them ([`record`](super::record)). Trusts no tree, no free list and no page's own list of cells.
//!
//! SQLite's file format, sections 1.5, 1.6, 2.1 and 4.2. Three views, because each can hold what the others hide:
//! * **whole**: what SQLite would see: the log's frames up to the last commit whose chain of checksums holds, over the file;
//! * **file**: pages of the file that the log replaces, for a log that was damaged after it had been written back;
//! * **loose**: every frame of the log by itself, with the nearest frames for its overflow pages: what lies behind a damaged
//!   frame, and what is left of older rounds.
//!
//! A page that the disk does not give (EIO) is passed over and counted: that is no damage of the file, and another try may get it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::record::{Record, columns, is_block, name_on, takes, varint};
use crate::spool::ledger::Intervals;
use crate::spool::store::log_of;

/// No record of ours is longer: a block of texts at their longest.
const RECORD_MAX: usize = 64 * 1024 * 1024;

/// Our own page size, for a file whose first page is gone.
const OUR_SIZE: u16 = 1024;
const _: () = assert!(OUR_SIZE as u64 == crate::spool::schema::PAGE_SIZE);

/// The page of table `spool`: the first table that was made (see `schema`), and one row never needs another root.
const NAMED_PAGE: u32 = 2;

/// Digits, of 32, in which a name may differ from itself: two that are drawn agree in the others once in 10^22 times.
const SAME_NAME: usize = 8;

/// A frame of the log: its head, then a page.
const FRAME_HEAD: u64 = 24;

/// Where the first frame begins.
const FRAMES_AT: u64 = 32;

/// How a record may begin before the magic of its block: payload length, row id, header and block number.
const BEFORE_MAGIC: usize = 40;

/// Numbers of the log's frames among those of pages.
const LOG_PAGES: u64 = 1 << 32;

/// Stretches of pages that could not be read which are told apart.
const UNREAD_STRETCHES: usize = 4096;

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
    /// There is a log, and it could not be opened.
    log_refused: bool,
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
    /// The disk did not give all of the log, so that nobody knows whether it is damaged.
    log_unread: bool,
    /// Pages that the disk did not give, those of the log from [`LOG_PAGES`] on.
    unread: RefCell<Intervals>,
    /// Pages that the disk is to refuse.
    #[cfg(test)]
    refused: HashSet<u32>,
    /// The log names another spool than the file does: it is left out of every view.
    foreign: bool,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Pages {
    /// Opens a file and the log beside it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, log) = (File::open(path)?, File::open(log_of(path)));
        let log_refused = log.as_ref().err().is_some_and(|error| error.kind() != io::ErrorKind::NotFound);
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
            log: log.ok(),
            log_refused,
            size,
            in_file,
            count: in_file,
            newer: HashMap::new(),
            frames: Vec::new(),
            frames_of: HashMap::new(),
            torn: false,
            log_unread: false,
            unread: RefCell::default(),
            #[cfg(test)]
            refused: tests::refused(path),
            foreign: false,
        };
        pages.read_log();
        pages.log_unread = pages.unread() > 0;
        #[cfg(test)]
        {
            pages.log_unread |= tests::log_is_refused(path);
        }
        pages.leave_out_a_foreign_log();
        pages.count = in_file.max(pages.newer.keys().max().copied().unwrap_or_default());
        Ok(pages)
    }

    /// Frames of the log: all of them, and those up to the last commit as far as the checksums hold.
    fn read_log(&mut self) {
        let Some(log) = &self.log else { return };
        let length = log.metadata().map_or(0, |found| found.len());
        let mut header = [0; 32];
        match read_whole(log, &mut header, 0) {
            Read::All => {}
            Read::End => return,
            Read::Failed => return self.could_not_read(LOG_PAGES),
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
        loop {
            match read_whole(log, &mut frame, place) {
                Read::All => {}
                // Nobody knows what it is. It is not for the chain, and its head is no other frame's.
                Read::Failed if place < length => {
                    self.could_not_read(LOG_PAGES + self.frames.len() as u64);
                    frame.fill(0);
                }
                Read::End | Read::Failed => break,
            }
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

    /// A log goes by its place alone: laid beside another spool, SQLite would write it into that one's file. Both must
    /// say who they are for this; what cannot be read says nothing. Names are drawn: two that are nearly the same are one of which
    /// bits have flipped. The seal of the row is not asked for, since the rest of a long row may stand on pages that the log
    /// does not have.
    fn leave_out_a_foreign_log(&mut self) {
        let named = |view| {
            let mut page = vec![0; self.size];
            let there = view == View::File || self.newer.contains_key(&NAMED_PAGE);
            (there && self.read((view, 0), NAMED_PAGE, &mut page)).then(|| name_on(&page)).flatten()
        };
        let (Some(own), Some(other)) = (named(View::File), named(View::Whole)) else { return };
        let differs = own.iter().zip(other).filter(|(own, other)| **own != *other).count();
        if differs <= SAME_NAME {
            return;
        }
        self.foreign = true;
        self.log = None;
        self.newer.clear();
        self.frames.clear();
        self.frames_of.clear();
    }

    /// The log belongs to another spool.
    pub(super) fn log_is_foreign(&self) -> bool {
        self.foreign
    }

    /// Readings that were on the disk may stand in the log behind a damaged frame, where SQLite does not look.
    pub(super) fn log_is_damaged(&self) -> bool {
        self.torn
    }

    /// The disk did not give all of the log: what looks like damage may be none, and the other way round.
    pub(super) fn log_is_unread(&self) -> bool {
        self.log_unread
    }

    /// How many pages or frames a view has.
    pub(super) fn count(&self, view: View) -> u32 {
        match view {
            View::Whole => self.count,
            View::File => self.in_file,
            View::Loose => u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
        }
    }

    /// How many pages and frames the disk did not give.
    pub(super) fn unread(&self) -> u64 {
        self.unread.borrow().total()
    }

    /// For a search a log that could not be opened is one that was not read. To open the file SQLite must open the log, and says why it
    /// cannot: that may be for somebody to set right, and not for the disk.
    pub(super) fn miss_a_refused_log(&self) {
        if self.log_refused {
            self.could_not_read(LOG_PAGES);
        }
    }

    fn could_not_read(&self, page: u64) {
        let mut unread = self.unread.borrow_mut();
        // Beyond that the number is what it was: many.
        if unread.count() < UNREAD_STRETCHES {
            unread.insert(page, page + 1);
        }
    }

    fn read_from_log(&self, place: u64, bytes: &mut [u8]) -> bool {
        let Some(log) = &self.log else { return false };
        let read = read_whole(log, bytes, place);
        if read == Read::Failed {
            self.could_not_read(LOG_PAGES + (place - FRAMES_AT) / (FRAME_HEAD + self.size as u64));
        }
        read == Read::All
    }

    fn read_from_file(&self, page: u32, bytes: &mut [u8]) -> bool {
        let at = (u64::from(page.max(1)) - 1) * self.size as u64;
        bytes.fill(0);
        #[cfg(test)]
        if self.refused.contains(&page) {
            self.could_not_read(u64::from(page));
            return false;
        }
        // What is cut off reads as zeros.
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(read @ 1..) => filled += read,
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.could_not_read(u64::from(page));
                    return false;
                }
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

/// What reading gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    All,
    /// The file ends there.
    End,
    /// The disk does not give it.
    Failed,
}

fn read_whole(file: &File, bytes: &mut [u8], at: u64) -> Read {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Read::All,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Read::End,
        Err(_) => Read::Failed,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that a test lets the disk refuse: their numbers, one a line, in a file `unreadable` of the state directory.
    pub(super) fn refused(path: &Path) -> HashSet<u32> {
        let text =
            path.ancestors().find_map(|folder| std::fs::read_to_string(folder.join("unreadable")).ok());
        text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The whole log, by a file `unreadable-log`.
    pub(super) fn log_is_refused(path: &Path) -> bool {
        path.with_file_name("unreadable-log").exists()
    }
}
