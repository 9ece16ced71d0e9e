//! Which files count, and reading them.
//!
//! All `*.toml` directly in a folder count, in the order of their names; a file in a later folder replaces one of the
//! same name in an earlier one, and one that is a link to `/dev/null` only takes the earlier one away. Profiles are
//! the files in `profiles/` of each folder and follow the same rule. What cannot be read as this user is noted and
//! left out; what is too large or no plain text is a fault, and so is a folder that is there and cannot be listed, or that is a link
//! to nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest;

use super::document::{self, Data, Document, Entry, Tree};
use super::fault::{Fault, Place, Unchecked};
use super::origin::{self, Origin};
use super::table::Findings;

/// Where the configuration lies unless `--config` says otherwise; later ones win.
pub const STANDARD: [&str; 3] = ["/usr/lib/fieldspool", "/run/fieldspool", "/etc/fieldspool"];

/// Longest file, bytes: a thousand devices with their own register maps stay below it.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Folders with `*.toml`, later ones win; or a single file.
    pub config: Vec<PathBuf>,
    /// Folders of profiles, later ones win.
    pub profiles: Vec<PathBuf>,
    /// The place was named by a person: if there is nothing, that is a fault.
    pub named: bool,
}

impl Folders {
    /// The standard folders.
    pub fn standard() -> Self {
        Self {
            config: STANDARD.iter().map(PathBuf::from).collect(),
            profiles: standard_profiles(),
            named: false,
        }
    }

    /// One folder, or one file, and the profiles beside it; the standard profiles stay known.
    pub fn given(path: &Path) -> Self {
        let mut profiles = standard_profiles();
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        if !path.is_dir() {
            // Examples lie in a folder beside that of the profiles.
            profiles.push(folder.join("../profiles"));
        }
        profiles.push(folder.join("profiles"));
        Self { config: vec![path.to_path_buf()], profiles, named: true }
    }

    /// [`Folders::given`] or, without a path, [`Folders::standard`].
    pub fn of(path: Option<&Path>) -> Self {
        path.map_or_else(Self::standard, Self::given)
    }
}

fn standard_profiles() -> Vec<PathBuf> {
    STANDARD.iter().map(|folder| Path::new(folder).join("profiles")).collect()
}

/// Reads files, and remembers what it read and what it could not.
pub(super) struct Reader<'a> {
    pub(super) findings: &'a Findings,
    pub(super) unchecked: Vec<Unchecked>,
    /// Number of files read, profiles included.
    pub(super) files: usize,
    /// Files of the configuration's folders that look like configuration and are not read, for their name.
    pub(super) ignored: BTreeSet<PathBuf>,
    /// Folders of configuration files that are there.
    pub(super) from: Vec<Origin>,
    hash: digest::Context,
}

/// A register map that devices share.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) tree: Tree,
    pub(super) file: Arc<Path>,
}

impl Profile {
    /// The settings with which the instrument leaves the factory, in words.
    pub(super) fn factory(&self) -> Option<String> {
        let Data::Table(factory) = &self.tree.get("factory")?.node.data else { return None };
        let words = |entry: &Entry| match &entry.node.data {
            Data::Text(text) => Some(format!("{} {text}", entry.key)),
            Data::Integer(number) => Some(format!("{} {number}", entry.key)),
            _ => None,
        };
        let words: Vec<String> = factory.entries.iter().filter_map(words).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(findings: &'a Findings) -> Self {
        let hash = digest::Context::new(&digest::SHA256);
        Self { findings, unchecked: Vec::new(), files: 0, ignored: BTreeSet::new(), from: Vec::new(), hash }
    }

    /// All configuration files of the folders, merged.
    pub(super) fn configuration(&mut self, folders: &Folders) -> Tree {
        let mut merged = Tree::default();
        let before: Vec<_> = folders.config.iter().map(|folder| origin::mounts_of(folder)).collect();
        let files = self.listed(&folders.config, folders.named);
        let paths = winners(&files);
        for path in paths.iter().filter(|path| has_a_say(path)) {
            let Some(document) = self.document(path) else { continue };
            let mut faults = Vec::new();
            document::merge(&mut merged, document.tree, &mut Vec::new(), &mut faults);
            self.findings.faults.borrow_mut().extend(faults);
        }
        let is_in = |folder: &Path, paths: &[PathBuf]| paths.iter().any(|path| path.parent() == Some(folder));
        for (folder, mut mounts) in folders.config.iter().zip(before).filter(|(folder, _)| folder.is_dir()) {
            let still = origin::mounts_of(folder);
            if !mounts.first().zip(still.first()).is_some_and(|(before, now)| before.is(now)) {
                mounts.clear();
            }
            let (has_files, counts) = (is_in(folder, &files), is_in(folder, &paths));
            self.from.push(Origin { folder: folder.clone(), mounts, has_files, counts });
        }
        merged
    }

    /// The profiles of these names that exist.
    pub(super) fn profiles(&mut self, folders: &Folders, names: &[String]) -> BTreeMap<String, Profile> {
        let paths = self.effective(&folders.profiles, false);
        let mut profiles = BTreeMap::new();
        for path in paths {
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if !names.iter().any(|wanted| wanted == name) {
                continue;
            }
            let name = name.to_owned();
            if let Some(document) = self.document(&path) {
                let file = Arc::from(path.as_path());
                profiles.insert(name, Profile { tree: document.tree, file });
            }
        }
        profiles
    }

    /// Names of all profiles there are.
    pub(super) fn profile_names(&mut self, folders: &Folders) -> Vec<String> {
        let stem = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        self.effective(&folders.profiles, false).iter().filter_map(stem).collect()
    }

    /// First 16 hexadecimal digits of the hash over all files read, in order; zeros if there was none.
    pub(super) fn hash(self) -> String {
        if self.files == 0 {
            return "0".repeat(16);
        }
        let first =
            self.hash.finish().as_ref().iter().take(8).fold(0, |first, byte| first << 8 | u64::from(*byte));
        format!("{first:016x}")
    }

    /// The files that count, by name.
    fn effective(&mut self, folders: &[PathBuf], named: bool) -> Vec<PathBuf> {
        let mut paths = winners(&self.listed(folders, named));
        paths.retain(|path| has_a_say(path));
        paths
    }

    /// All files of these folders. A folder that is not there is none; one that cannot be listed to its end is a fault: what it
    /// holds may be the half that matters.
    fn listed(&mut self, folders: &[PathBuf], named: bool) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in folders {
            if folder.is_file() {
                files.push(folder.clone());
                continue;
            }
            match fs::read_dir(folder) {
                Ok(entries) => self.list(folder, entries, &mut files),
                Err(error) if !named && is_absent(&error) && !leads_nowhere(folder) => {}
                Err(error) => self.not_read(folder, &error),
            }
        }
        files
    }

    pub(super) fn list(
        &mut self,
        folder: &Path,
        entries: impl Iterator<Item = std::io::Result<fs::DirEntry>>,
        files: &mut Vec<PathBuf>,
    ) {
        for entry in entries {
            match entry {
                Ok(entry) if origin::is_configuration(&entry) => files.push(entry.path()),
                Ok(entry) if origin::is_meant(&entry) => {
                    self.ignored.insert(entry.path());
                }
                Ok(_) => {}
                Err(error) => return self.not_read(folder, &error),
            }
        }
    }

    fn document(&mut self, path: &Path) -> Option<Document> {
        let file: Arc<Path> = Arc::from(path);
        let bytes = match read(path) {
            Ok(Ok(bytes)) => bytes,
            Ok(Err((what, remedy))) => {
                self.fault(Place::file(file), what, remedy);
                return None;
            }
            Err(error) => {
                self.not_read(path, &error);
                return None;
            }
        };
        self.files += 1;
        // Name and length go in too, so that moving text from one file to the next is a change.
        self.hash.update(path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default());
        self.hash.update(&(bytes.len() as u64).to_be_bytes());
        self.hash.update(&bytes);
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let place = document::end_of(&file, &String::from_utf8_lossy(good));
                self.fault(place, "not a text in UTF-8".to_owned(), "save the file as UTF-8".to_owned());
                return None;
            }
        };
        let document = document::parse(&file, text);
        self.findings.faults.borrow_mut().extend(document.faults.iter().cloned());
        if document.damaged {
            self.findings.damaged.set(true);
        }
        Some(document)
    }

    fn fault(&self, place: Place, what: String, remedy: String) {
        self.findings.damaged.set(true);
        self.findings.faults.borrow_mut().push(Fault {
            place: Some(place),
            key: String::new(),
            what,
            remedy,
            is_syntax: true,
        });
    }

    /// A file or folder that could not be read: this user's limits are noted, anything else is a fault.
    fn not_read(&mut self, path: &Path, error: &std::io::Error) {
        if error.kind() == ErrorKind::PermissionDenied {
            self.findings.damaged.set(true);
            let why = "this user may not read it; run as root, or as the user fieldspool".to_owned();
            self.unchecked.push(Unchecked { path: path.to_path_buf(), why });
        } else {
            let file: Arc<Path> = Arc::from(path);
            if may_pass(path, error) {
                self.findings.passing.borrow_mut().insert(Arc::clone(&file));
            }
            let remedy = match error.kind() {
                ErrorKind::NotFound => "check the path",
                _ => "check the disk and the path",
            };
            self.fault(Place::file(file), format!("cannot be read: {error}"), remedy.to_owned());
        }
    }
}

/// There is nothing of this name, nor could there be.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A link on the way leads to what is not there, as to a disk that is not mounted yet.
fn leads_nowhere(path: &Path) -> bool {
    path.ancestors().any(|part| part.is_symlink() && matches!(part.try_exists(), Ok(false)))
}

/// Whether a thing that cannot be read may be readable in a while without anybody's help: what a link leads to is not there, or
/// a disk or a server does not answer.
fn may_pass(path: &Path, error: &std::io::Error) -> bool {
    use nix::errno::Errno as E;
    match error.raw_os_error().map(E::from_raw) {
        Some(E::ENOENT) => leads_nowhere(path),
        Some(
            E::EIO
            | E::EREMOTEIO
            | E::ENODEV
            | E::ENXIO
            | E::ENOMEDIUM
            | E::ESHUTDOWN
            | E::ESTALE
            | E::ETIMEDOUT
            | E::ENOTCONN
            | E::ECONNREFUSED
            | E::ECONNRESET
            | E::ECONNABORTED
            | E::EHOSTDOWN
            | E::EHOSTUNREACH
            | E::ENETDOWN
            | E::ENETUNREACH
            | E::EINTR
            | E::EAGAIN
            | E::EBUSY
            | E::ENOMEM
            | E::EMFILE
            | E::ENFILE,
        ) => true,
        _ => false,
    }
}

/// Of files of one name the one in the latest folder, by name.
fn winners(files: &[PathBuf]) -> Vec<PathBuf> {
    let by_name: BTreeMap<_, _> =
        files.iter().map(|path| (path.file_name().map(ToOwned::to_owned), path.clone())).collect();
    by_name.into_values().collect()
}

/// It is more than a link that takes another file away.
fn has_a_say(path: &Path) -> bool {
    !fs::canonicalize(path).is_ok_and(|real| real == Path::new("/dev/null"))
}

/// A file's bytes, or why it is none of ours.
fn read(path: &Path) -> std::io::Result<Result<Vec<u8>, (String, String)>> {
    let metadata = fs::metadata(path)?;
    // Opening a pipe would wait for its other end for ever.
    if !metadata.is_file() {
        return Ok(Err((
            "not a plain file".to_owned(),
            "remove it, or put a text file in its place".to_owned(),
        )));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        let what = format!("longer than {} MiB", FILE_MAX >> 20);
        return Ok(Err((what, "split it, or remove what is not configuration".to_owned())));
    }
    Ok(Ok(bytes))
}
