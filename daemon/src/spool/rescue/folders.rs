//! The folders of what was set aside: which are still to be searched, and what becomes of those that were.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::spool::aside;
use crate::spool::schema::Schema;
use crate::spool::shared::off_the_lock;
use crate::spool::store::{self, FILE};

/// Name of the mark that a folder was searched to the end.
const DONE: &str = "salvaged";

/// What is to be done with a folder once the outcome is on the disk.
#[derive(Debug)]
pub(in crate::spool) struct Searched {
    pub(super) folder: PathBuf,
    pub(super) remove: bool,
    /// What could not be looked at, in words.
    pub(super) unread: Option<String>,
}

/// The outcome is on the disk: these folders need not be searched again.
pub(in crate::spool) fn mark(searched: Vec<Searched>) {
    off_the_lock();
    for Searched { folder, remove, unread } in searched {
        let done = if remove {
            std::fs::remove_dir_all(&folder)
        } else {
            let text = unread.unwrap_or_default();
            File::create(folder.join(DONE)).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
        };
        if let Err(error) = done {
            tracing::warn!(%error, folder = %folder.display(), "a searched folder cannot be marked: it is searched again after a restart");
        }
    }
}

/// Whether it is the file of a newer program, and not a damaged one.
pub(in crate::spool) fn is_newer(folder: &Path) -> bool {
    folder.parent().and_then(Path::file_name).is_some_and(|name| name == aside::NEWER)
}

/// Whether a folder was searched to its end.
pub(in crate::spool) fn is_done(folder: &Path) -> bool {
    folder.join(DONE).exists()
}

/// Whether a rescue is to begin, or to go on, with this state directory; also if the disk does not tell.
pub(in crate::spool) fn awaits(directory: &Path, schema: &Schema) -> bool {
    unfinished(directory, schema).map_or(true, |folders| !folders.is_empty())
}

/// Folders that were not searched to their end and can be, oldest first.
pub(super) fn unfinished(directory: &Path, schema: &Schema) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for folder in aside::folders(directory)? {
        let file = folder.join(FILE);
        let readable = || !is_newer(&folder) || store::newer(&file, schema).is_none();
        if file.try_exists()? && !is_done(&folder) && readable() {
            folders.push(folder);
        }
    }
    folders.sort_by_key(|folder| aside::age(folder));
    Ok(folders)
}
