//! The folders of what was set aside: which are still to be searched, and what becomes of those that were.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::model::RunId;
use crate::spool::aside;
use crate::spool::copy::Copy;
use crate::spool::salvage::log_fault;
use crate::spool::schema::Schema;
use crate::spool::shared::off_the_lock;
use crate::spool::store::{self, FILE, StoreError};

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
    !unfinished(directory, schema).is_empty()
}

/// What is still to be searched.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// Folders that were not searched to their end and can be, oldest first.
    pub(super) folders: Vec<PathBuf>,
    /// Places of which the disk does not tell whether they are such folders, or hold some, and what it says. They keep nothing from being
    /// stored, but for lost nothing is taken before they were looked at some times.
    pub(super) unclear: Vec<(PathBuf, String)>,
}

impl Unfinished {
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.unclear.is_empty()
    }

    /// In which life each of them was set aside. `None`: there may be others.
    pub(super) fn lives(&self) -> Option<HashSet<RunId>> {
        let places = self.folders.iter().chain(self.unclear.iter().map(|(place, _)| place));
        places.map(|place| aside::age(place).0.parse().ok()).collect()
    }
}

pub(super) fn unfinished(directory: &Path, schema: &Schema) -> Unfinished {
    look(&aside::kinds(directory), schema)
}

/// Looks at places: `newer` and `quarantine` themselves, or what lies in them.
pub(super) fn look(places: &[PathBuf], schema: &Schema) -> Unfinished {
    let mut found = Unfinished::default();
    for place in places {
        let entries = if is_kind(place) { aside::entries(place) } else { Ok(vec![place.clone()]) };
        match entries {
            Ok(entries) => entries.into_iter().for_each(|entry| look_at(entry, schema, &mut found)),
            Err(error) => found.unclear.push((place.clone(), error.to_string())),
        }
    }
    found.folders.sort_by_key(|folder| aside::age(folder));
    found
}

/// Not a folder of one file, but where they all lie.
pub(super) fn is_kind(place: &Path) -> bool {
    place.file_name().is_some_and(|name| name == aside::NEWER || name == aside::QUARANTINE)
}

fn look_at(folder: PathBuf, schema: &Schema, found: &mut Unfinished) {
    let file = folder.join(FILE);
    match std::fs::metadata(&file) {
        Ok(_) if is_done(&folder) => {}
        Ok(_) => match is_newer(&folder).then(|| is_unknown(&file, schema)).transpose() {
            Ok(Some(true)) => {}
            Ok(_) => found.folders.push(folder),
            Err(error) => found.unclear.push((folder, error.to_string())),
        },
        Err(error) if aside::is_no_folder(&error) => {}
        // We may enter what we have made.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(folder = %folder.display(), "this folder is not ours to search: it is left alone");
        }
        Err(error) => found.unclear.push((folder, error.to_string())),
    }
}

/// Whether a file in `newer` is still newer than this program: then it is left alone, whatever is wrong with it. Its copy came with it, and
/// nobody writes that but with the file. An error: nobody can tell now.
fn is_unknown(file: &Path, schema: &Schema) -> Result<bool, StoreError> {
    let told = Copy::head(file).schema;
    if told.is_some_and(|own| own > schema.version) {
        return Ok(true);
    }
    match store::newer(file, schema) {
        Ok(Some(_)) => Ok(true),
        _ if told.is_some() => Ok(false),
        // SQLite leaves out what stands behind a damaged frame: its version may.
        Ok(None) if log_fault(file).is_some() => {
            Err(StoreError::Foreign("its log is damaged, and may be that of a newer program".to_owned()))
        }
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    }
}
