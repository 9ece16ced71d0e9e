//! What can be wrong with the file, and what is to be done about it: errors are sorted here, once.

use std::ffi::c_int;
use std::io::ErrorKind;

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_ERROR, SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};

use crate::spool::aside::{NEWER, QUARANTINE};
use crate::spool::block;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says so.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// No spool of ours, or its small tables make no sense.
    #[error("{0}")]
    Foreign(String),
    /// The state directory cannot be used.
    #[error("{0}")]
    Directory(#[from] std::io::Error),
    /// The disk does not give all of it.
    #[error("{0}")]
    Unread(String),
    /// Made by a newer program.
    #[error("schema {0}")]
    Newer(i64),
    /// The batch breaks a rule; it would fail for ever.
    #[error("{0}")]
    Unencodable(#[from] block::Unencodable),
    /// A reader kept the log from being emptied.
    #[error("a reader is in the way")]
    Busy,
    /// Nothing that may be overwritten, and no room.
    #[error("the spool is at its cap and nothing in it may go")]
    NoRoom,
    /// What has to make room is on the wire: the commit waits for it.
    #[error("what has to make room is on its way to the server")]
    OnTheWire,
    /// The disk is full, and everything in the spool still waits to be sent.
    #[error("the disk is full, and nothing that is stored can go for it")]
    NoSpace,
}

/// What kind of trouble an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No space left.
    Full,
    /// The file system is read-only, or not ours to write.
    ReadOnly,
    /// The disk does not give a part of the file or its log (EIO): for now, or for ever.
    Unread,
    /// Anything else between us and the disk.
    Disk,
    /// The content is damaged.
    Damage,
    /// The file is a newer program's.
    Newer,
}

impl Trouble {
    /// The folder that the file goes to before another one begins, if that is the way out.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Damage => Some(QUARANTINE),
            Self::Newer => Some(NEWER),
            Self::Full | Self::ReadOnly | Self::Unread | Self::Disk => None,
        }
    }
}

impl StoreError {
    /// Sorts it.
    pub fn trouble(&self) -> Trouble {
        let Self::Sqlite(error) = self else {
            return match self {
                Self::Foreign(_) => Trouble::Damage,
                Self::Unread(_) => Trouble::Unread,
                Self::Newer(_) => Trouble::Newer,
                Self::NoSpace => Trouble::Full,
                Self::Directory(error) => match error.kind() {
                    ErrorKind::StorageFull => Trouble::Full,
                    ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Trouble::ReadOnly,
                    _ => Trouble::Disk,
                },
                _ => Trouble::Disk,
            };
        };
        // SQLITE_ERROR: a format it does not know, or a table that our statements do not find. Our statements are right.
        // SHORT_READ: the file ends before a page that it should have.
        let damage = |code: c_int| code & 0xff == SQLITE_ERROR || code == SQLITE_IOERR_SHORT_READ;
        // CORRUPTFS: its word for a read that gave EIO while it opened the file; within a statement it calls that damage.
        let unread = |code: c_int| [SQLITE_IOERR_READ, SQLITE_IOERR_CORRUPTFS].contains(&code);
        match error.sqlite_error().map(|error| error.extended_code) {
            Some(code) if damage(code) => return Trouble::Damage,
            Some(code) if unread(code) => return Trouble::Unread,
            _ => {}
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Trouble::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Trouble::ReadOnly,
            // None: a column of another type, text that is no text. Only damage makes these.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => Trouble::Damage,
            Some(_) => Trouble::Disk,
        }
    }
}
