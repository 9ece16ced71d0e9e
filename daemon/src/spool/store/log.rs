//! The write-ahead log: where it lies, and its length, which is given once, in zeros, behind the first commit of a connection.
//!
//! A commit that makes the log longer costs the file system a journal entry, three or four blocks of its own; one that
//! overwrites costs what it writes. SQLite overwrites from its first checkpoint on, which a quiet gateway reaches after an
//! hour, and a log that was written back at a stop begins anew. Zeros are no frames: recovery ends where they begin.
//! Never before SQLite's own header: a log of zeros from its beginning on is one whose header was overwritten, and what stood in it
//! is looked for.
//!
//! Best effort: on a disk that is full the log grows as it always did, into room that is its own either way.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::spool::schema::{CHECKPOINT_BYTES, PAGE_SIZE};

/// With the headers: 32 bytes of the log, 24 of each frame (SQLite file format, 4.1).
const LENGTH: u64 = 32 + CHECKPOINT_BYTES / PAGE_SIZE * (PAGE_SIZE + 24);

const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// The log beside a file.
pub fn log_of(file: &Path) -> PathBuf {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Makes the log of a file as long as it is when it is written back. `false`: SQLite has not begun it yet, nothing was done. Only the
/// thread that commits may do so.
pub(super) fn lengthen(file: &Path) -> io::Result<bool> {
    // SQLite has made it. Where SQLite has files of its own there is none, and nothing to do.
    let mut log = File::options().write(true).open(log_of(file))?;
    let length = log.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(false);
    }
    let mut left = LENGTH.saturating_sub(length);
    while left > 0 {
        let now = left.min(ZEROS.len() as u64);
        log.write_all(ZEROS.get(..usize::try_from(now).unwrap_or(0)).unwrap_or_default())?;
        left -= now;
    }
    Ok(true)
}
