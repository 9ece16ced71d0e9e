//! The format of a block: every batch of one commit window, in columns. Enough to write a reader in any language.
//!
//! Numbers in the header are little-endian. `varint` is LEB128 of an unsigned 64-bit number (7 bits a byte, lowest first,
//! high bit: more follow). `zigzag` maps a signed number to an unsigned one: `(n << 1) ^ (n >> 63)`. All sums wrap.
//!
//! ```text
//! header, 68 bytes
//!   0 magic "FSB1"      4 version u16 = 1    6 zero u16         8 length of header and body u32
//!  12 CRC-32C u32 of bytes 0..12 and 16..length
//!  16 run: counter u32, random u32          24 first seq u64   32 one past the last seq u64
//!  40 readings u32     44 batches u32       48 least wall clock i64, µs   56 greatest wall clock i64, µs
//!     a run is written as its counter in eight decimal digits, `-`, its random part in eight hexadecimal ones
//!  64 fingerprint u32: CRC-32C of the CRC-32Cs (u32 each) of the bodies of the shapes used, in the order of the list
//! body
//!   boots    varint count, then 16 bytes each (little-endian)
//!   shapes   varint count, then the varint id of each (distinct): rows of table `shape`
//!   then columns; one entry a batch, in order of the batches, where the flags ask for one
//!   flags    1 byte: 1 GAP, 2 PREV, 4 NO_PREV, 8 CLOCK, 16 SPARSE, 32 QUALITY
//!   shape    varint index into the list
//!   points   if SPARSE: varint n, then n zigzags of the index minus one more than the index before (first: minus 0).
//!            Else n is the number of the shape's points, and the indices are 0, 1, 2, ...
//!   gap      if GAP: zigzag of seq minus the end of the batch before (first batch: minus first seq)
//!   prev     if PREV: varint of seq minus prev. Else prev is the seq of the batch before of the same shape in this
//!            block, or none if there is none, or none if NO_PREV
//!   wall     zigzag of the difference to the batch before (first batch: to the least wall clock)
//!   mono     zigzag of the difference to the batch before (first batch: to 0) minus that of `wall`
//!   clock    if CLOCK: varint of boot index * 4 + (0 synced, 1 unsynced, 2 corrected). Else as the batch before
//!            (first batch: synced, boot index 0)
//!   quality  if QUALITY: pairs varint code, varint how many readings, until n are covered. Else all codes are 0.
//!            code = cause * 8 + (0 good, 1 uncertain, 2 bad) * 2 + (1 if the value is there although bad, or is
//!            missing although not bad); cause is 0 for good, else the kind * 256 + detail: 1 silent, 2 link down,
//!            3 exception (detail: its Modbus code), 4 bad frame, 5 sentinel, 6 not a number, 7 below limit, 8 above limit,
//!            9 unreadable, 10 overflow
//!   values   for each reading with a value one token, see `values`
//! ```
//!
//! `tests/format/read_spool.py` is a reader written from this page and those of `schema`, `dictionary` and `values` alone; a test holds
//! it against this one. Bytes behind `length` are padding. Promises: decoding what was encoded gives equal batches; decoding any bytes neither
//! panics nor takes more memory than [`READINGS_MAX`] readings and the input's own length.

mod bytes;
mod decode;
mod encode;
mod values;

#[cfg(test)]
pub(super) mod tests;

pub use decode::decode;
pub use encode::{Unencodable, encode};

use bytes::Bytes;

use crate::model::RunId;

/// A block holds at most this many readings: 1 MiB is more than they take decoded, texts apart.
pub const READINGS_MAX: usize = 16 * 1024;

/// Length of the header.
pub const HEADER_LENGTH: usize = 68;

/// What a page scan looks for.
pub const MAGIC: [u8; 4] = *b"FSB1";

const VERSION: u16 = 1;
const CRC_AT: usize = 12;

const GAP: u8 = 1;
const PREV: u8 = 2;
const NO_PREV: u8 = 4;
const CLOCK: u8 = 8;
const SPARSE: u8 = 16;
const QUALITY: u8 = 32;

/// What a block is about, without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of header and body.
    pub length: u32,
    /// The run of all its readings.
    pub run: RunId,
    /// Its first sequence number.
    pub first: u64,
    /// One past its last.
    pub next: u64,
    /// How many readings; less than `next - first` if some between were confirmed or dropped before.
    pub readings: u32,
    /// How many batches.
    pub batches: u32,
    /// Least wall clock of its batches, µs.
    pub wall_min: i64,
    /// Greatest wall clock of its batches, µs.
    pub wall_max: i64,
    /// Which dictionary entries it was written with.
    pub fingerprint: u32,
}

/// Why bytes are not a block that this program can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    /// No magic, or shorter than it says.
    #[error("no block")]
    NoBlock,
    /// Made by a newer program.
    #[error("block version {0}")]
    Version(u16),
    /// The checksum does not fit: damage.
    #[error("checksum")]
    Checksum,
    /// A dictionary entry is missing or is not the one it was written with.
    #[error("shape {0} is missing or another one")]
    Dictionary(u32),
    /// The checksum fits and the content makes no sense: not made by this program.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl Header {
    /// Every number between its ends is one of its readings.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.next.saturating_sub(self.first) == u64::from(self.readings)
    }

    /// Reads a header. The checksum is not looked at, but what no block can say of itself is refused.
    pub fn read(block: &[u8]) -> Result<Self, BlockFault> {
        let mut bytes = Bytes::new(block);
        let short = |_| BlockFault::NoBlock;
        if bytes.array::<4>().map_err(short)? != MAGIC {
            return Err(BlockFault::NoBlock);
        }
        let version = u16::from_le_bytes(bytes.array().map_err(short)?);
        if version != VERSION {
            return Err(BlockFault::Version(version));
        }
        bytes.array::<2>().map_err(short)?;
        let length = bytes.u32().map_err(short)?;
        bytes.u32().map_err(short)?;
        let run = RunId { counter: bytes.u32().map_err(short)?, random: bytes.u32().map_err(short)? };
        let header = Self {
            length,
            run,
            first: bytes.u64().map_err(short)?,
            next: bytes.u64().map_err(short)?,
            readings: bytes.u32().map_err(short)?,
            batches: bytes.u32().map_err(short)?,
            wall_min: i64::from_le_bytes(bytes.array().map_err(short)?),
            wall_max: i64::from_le_bytes(bytes.array().map_err(short)?),
            fingerprint: bytes.u32().map_err(short)?,
        };
        if header.is_possible() { Ok(header) } else { Err(BlockFault::Malformed("its head")) }
    }

    /// At least a batch and a reading, and no more readings than numbers.
    fn is_possible(&self) -> bool {
        let span = self.next.checked_sub(self.first);
        span.is_some_and(|span| u64::from(self.readings) <= span)
            && (1..=self.readings).contains(&self.batches)
    }

    /// Reads the header of a block whose checksum fits; gives the body too.
    pub fn checked(block: &[u8]) -> Result<(Self, &[u8]), BlockFault> {
        let header = Self::read(block)?;
        let length = usize::try_from(header.length).map_err(|_| BlockFault::NoBlock)?;
        let whole = block.get(..length).ok_or(BlockFault::NoBlock)?;
        let body = whole.get(HEADER_LENGTH..).ok_or(BlockFault::NoBlock)?;
        let said = Bytes::new(&whole[CRC_AT..]).u32().map_err(|_| BlockFault::NoBlock)?;
        if said != checksum(whole) {
            return Err(BlockFault::Checksum);
        }
        Ok((header, body))
    }
}

/// CRC-32C of everything but the checksum itself. `whole` holds at least a header.
fn checksum(whole: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&whole[..CRC_AT]), &whole[CRC_AT + 4..])
}
