//! Where a configuration came from, and whether that is gone.
//!
//! A folder that is not mounted looks like one that nobody ever wrote to, or like the one that an image brought. So while a configuration
//! is in force, absence is not the user's word (P9). A reload is refused if a folder of its files
//!
//! * is gone;
//! * shows what lay under its mount, because the mount is gone, whatever files lie there: to take those on purpose, one restarts;
//! * has no file left, and another mount came to its place, or all the other folders have none either: a file without a line in it
//!   says that nothing is to be read;
//! * changed its mount while it was read.
//!
//! All else is the user's doing: a file removed while others are left somewhere, a folder that another one with files has replaced, a
//! disk with files that is mounted over the folder, a link that points elsewhere now.
//!
//! What a folder is, its mount says: where that is, its device and the root in it. Inode and time of birth would not do: on an overlay
//! the first write changes them. Where the list of mounts cannot be read, only another device is noticed. Not noticed: a mount that held nothing but a
//! link to the folder, and that of a file that was named by itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Config;
use crate::mounts::{self, Mount};

/// A folder in which configuration files may lie, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name.
    pub folder: PathBuf,
    /// Its mount, and those below; empty if that changed while the files were read.
    pub(super) mounts: Vec<Mount>,
    /// A `*.toml` lies in it.
    pub(super) has_files: bool,
    /// One of them has a say, or takes another one's away.
    pub(super) counts: bool,
}

/// Why a folder is not what it was.
enum Missing<'a> {
    Gone,
    /// Its name leads through this link, which leads nowhere: no file can be put there.
    Link(PathBuf),
    NoFile,
    /// Mounted there.
    Mount(&'a str),
    Changed,
}

impl Origin {
    /// The folder as it is now; `None` if there is none.
    fn now(folder: &Path) -> Option<Self> {
        let is_file = |entry: fs::DirEntry| is_configuration(&entry);
        let has_files = fs::read_dir(folder).ok()?.flatten().any(is_file);
        Some(Self { folder: folder.to_path_buf(), mounts: mounts_of(folder), has_files, counts: has_files })
    }

    /// Whether it is still what it was where `now` was found. Files are left in one of the folders, or in none; `mounted`: all mounts.
    fn missing(&self, now: Option<&Self>, any_left: bool, mounted: &[Mount]) -> Option<Missing<'_>> {
        let Some(now) = now else { return Some(self.gone(mounted)) };
        let Some(on) = now.mounts.first() else { return Some(Missing::Changed) };
        let own = self.mounts.first();
        let lay_below = self.mounts.iter().skip(1).any(|below| below.is(on));
        match own.filter(|own| lay_below && !mounted.iter().any(|mount| mount.is(own))) {
            Some(own) => Some(Missing::Mount(&own.point)),
            None if now.has_files || (any_left && own.is_some_and(|own| own.is(on))) => None,
            None => Some(Missing::NoFile),
        }
    }

    /// Why it is gone. With its mount, if that is listed no more: a folder made in its place would be refused as well.
    fn gone(&self, mounted: &[Mount]) -> Missing<'_> {
        let own = self.mounts.first().filter(|own| own.is_listed() && !mounted.is_empty());
        if let Some(own) = own.filter(|own| !mounted.iter().any(|mount| mount.is(own))) {
            return Missing::Mount(&own.point);
        }
        let leads_nowhere = |path: &&Path| path.is_symlink() && fs::metadata(path).is_err();
        let link = self.folder.ancestors().find(leads_nowhere);
        link.map_or(Missing::Gone, |link| Missing::Link(link.to_owned()))
    }
}

/// The mount of a folder, and those below; empty if it is not there.
pub(super) fn mounts_of(folder: &Path) -> Vec<Mount> {
    let Ok(metadata) = fs::metadata(folder) else { return Vec::new() };
    mounts::below(folder).unwrap_or_else(|| vec![Mount::unlisted(metadata.dev())])
}

/// It is named like a configuration file.
pub(super) fn is_configuration(entry: &fs::DirEntry) -> bool {
    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    entry.path().extension().is_some_and(|extension| extension == "toml") && !hidden
}

/// It is named as configuration is elsewhere: somebody may think that it counts.
pub(super) fn is_meant(entry: &fs::DirEntry) -> bool {
    const ENDS: [&str; 7] = ["toml", "conf", "cfg", "ini", "yaml", "yml", "json"];
    let (path, name) = (entry.path(), entry.file_name());
    let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
    let hidden = name.as_encoded_bytes().starts_with(b".");
    !hidden && end.is_some_and(|end| ENDS.contains(&end.as_str())) && !path.is_dir()
}

impl Config {
    /// What of this configuration's folders is gone where `new` was read, or could not be: in words, with what to do; `None` if
    /// nothing is.
    pub fn vanished(&self, new: Option<&Self>) -> Option<String> {
        self.vanished_from(new, &mounts::all().unwrap_or_default())
    }

    fn vanished_from(&self, new: Option<&Self>, mounted: &[Mount]) -> Option<String> {
        let origins = || self.from.iter().filter(|origin| origin.counts);
        let now: Vec<Option<Origin>> = origins()
            .map(|old| match new {
                Some(new) => new.from.iter().find(|now| now.folder == old.folder).cloned(),
                None => Origin::now(&old.folder),
            })
            .collect();
        let any_left = match new {
            Some(new) => new.from.iter().any(|now| now.has_files),
            None => now.iter().flatten().any(|now| now.has_files),
        };
        let missing = origins().zip(&now);
        let missing: Vec<(&Path, Missing<'_>)> = missing
            .filter_map(|(old, now)| Some((&*old.folder, old.missing(now.as_ref(), any_left, mounted)?)))
            .collect();
        (!missing.is_empty()).then(|| refusal(&missing, new.is_some()))
    }
}

/// What is missing and what to do. A start that would be refused is no way out, and neither are empty files that cannot be put
/// everywhere.
fn refusal(missing: &[(&Path, Missing<'_>)], startable: bool) -> String {
    let mut idle = Vec::new();
    let what: Vec<String> = missing
        .iter()
        .map(|(folder, what)| {
            if matches!(what, Missing::Gone | Missing::NoFile) {
                idle.push(folder.join("idle.toml").display().to_string());
            }
            let what = match what {
                Missing::Gone => "the configuration folder is gone".to_owned(),
                Missing::Link(link) => format!("the link {} leads nowhere", link.display()),
                Missing::NoFile => "no configuration file (*.toml) is left".to_owned(),
                Missing::Mount(point) => format!("what was mounted on {point} is gone"),
                Missing::Changed => "what is mounted there changed while it was read".to_owned(),
            };
            format!("{}: {what}", folder.display())
        })
        .collect();
    let mut said = format!("{}; bring it back and reload", what.join("; "));
    let can_idle = idle.len() == missing.len();
    if can_idle {
        let idle = idle.join(", ");
        said += "; to read nothing from there on purpose, put an empty file there (";
        said += &idle;
        said += ") and reload";
    }
    if startable {
        said.push_str(if can_idle { ", or restart" } else { ", or restart to take what is there now" });
    }
    said
}

#[cfg(test)]
mod tests;
