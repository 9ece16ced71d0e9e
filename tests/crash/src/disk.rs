//! A disk that forgets: what was written and not synced, and what of it is left when the power goes.
//!
//! One disk a thread, over the files of one directory. The files themselves always show what the running program would
//! see; here stands beside each what the medium holds for sure (`durable`) and what is on its way (`unsynced`). When
//! the power goes each unsynced sector of 512 bytes is there or is not, alone or in order, or is torn to garbage; growth
//! and truncation of the file likewise. Renames, new and removed names are whole and in order, as a journalling file
//! system keeps them; a removal is undone at times if nothing was synced after it.
//!
//! What it believes of the medium, as SQLite does: a sector is written whole or stays as it was, and a write leaves the
//! bytes beside its own alone (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::survive::{Change, Luck, apply, survive};

/// Files beside SQLite's are small, but for the reserve, whose content is of no interest.
const SMALL: u64 = 64 * 1024;

thread_local! {
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// What is wrong with the disk, or planted in the program that uses it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// This share of the syncs does nothing and says that it did: a card that lies.
    pub dropped_syncs: f64,
    /// This share of the syncs fails and leaves a part unwritten for good, which the page cache still shows.
    pub failed_syncs: f64,
    /// `synchronous=NORMAL` in place of what the program asks for.
    pub normal: bool,
    /// The log is written back at this many pages, so that short lives see it too.
    pub checkpoint: Option<u32>,
}

/// A file that SQLite has written.
#[derive(Debug)]
struct Medium {
    path: PathBuf,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// A sync has failed: what shows is not what is there.
    apart: bool,
    /// Locks of the log's index: how many share a slot, -1 if one has it alone.
    locks: [i32; 8],
}

/// The answer to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Do it.
    Go,
    /// Do it, and then there is no power: report a failure.
    Last,
    /// There is no power, or the operation fails.
    Fail,
}

/// One disk.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    /// All chance of this disk.
    pub random: Rng,
    media: Vec<Medium>,
    operations: u64,
    cut_at: Option<u64>,
    off: bool,
    /// Small files that are not SQLite's: as they were at their last sync.
    synced: HashMap<PathBuf, Vec<u8>>,
    /// ... and as the running program saw them when the power went.
    at_the_cut: Vec<(PathBuf, Option<Vec<u8>>)>,
    /// Removed since the last sync of anything.
    undead: Vec<(PathBuf, Vec<u8>)>,
    /// In force.
    pub faults: Faults,
    /// So many more syncs, and then one that fails.
    sync_to_fail: Option<u64>,
    /// Syncs that were dropped or failed.
    pub bad_syncs: u64,
    /// Of all operations, in order: equal for equal lives.
    trace: DefaultHasher,
    /// The pragmas that come now are our own.
    setting_up: bool,
}

/// Puts a disk under this thread; everything below `root` is on it from now on, and durable as it is.
pub fn insert(root: &Path, seed: u64) {
    let mut disk = Disk {
        root: root.to_owned(),
        random: Rng::with_seed(seed),
        media: Vec::new(),
        operations: 0,
        cut_at: None,
        off: false,
        synced: HashMap::new(),
        at_the_cut: Vec::new(),
        undead: Vec::new(),
        faults: Faults::default(),
        sync_to_fail: None,
        bad_syncs: 0,
        trace: DefaultHasher::new(),
        setting_up: false,
    };
    disk.settle();
    DISK.with(|slot| *slot.borrow_mut() = Some(disk));
}

/// Takes the disk away: files are plain files again.
pub fn remove() {
    DISK.with(|slot| *slot.borrow_mut() = None);
}

/// Speaks with the disk of this thread; `None` if there is none.
pub fn with<T>(ask: impl FnOnce(&mut Disk) -> T) -> Option<T> {
    // While the disk itself looks at files, and while the thread ends, it is out of the way.
    DISK.try_with(|slot| slot.try_borrow_mut().ok()?.as_mut().map(ask)).ok()?
}

impl Disk {
    /// Cuts the power at the `k`th operation from now on.
    pub fn arm(&mut self, k: u64) {
        self.cut_at = Some(self.operations + k);
    }

    /// No cut from now on.
    pub fn disarm(&mut self) {
        self.cut_at = None;
    }

    /// The `n`th sync from now on fails, from 1.
    pub fn fail_sync(&mut self, n: u64) {
        self.sync_to_fail = Some(n);
    }

    /// No sync is to fail from now on; gives whether the one that was to did.
    pub fn fail_no_sync(&mut self) -> bool {
        self.sync_to_fail.take().is_none()
    }

    /// Counts a sync; whether it is the one that fails.
    fn sync_fails(&mut self) -> bool {
        let left = self.sync_to_fail.map(|n| n.saturating_sub(1));
        self.sync_to_fail = left.filter(|left| *left > 0);
        left == Some(0)
    }

    /// There is no power.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Of everything that was asked of it, in order.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Whether a path lies on it.
    pub fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.root)
    }

    /// Whether a pragma is answered here, and has no effect.
    pub fn answers(&self, pragma: &str) -> bool {
        !self.setting_up
            && ((self.faults.normal && pragma == "synchronous")
                || (self.faults.checkpoint.is_some() && pragma == "wal_autocheckpoint"))
    }

    /// What a new connection is told first.
    pub fn begin_set_up(&mut self) -> Option<String> {
        let normal = self.faults.normal.then(|| "PRAGMA synchronous = NORMAL;".to_owned());
        let pages = self.faults.checkpoint.map(|pages| format!("PRAGMA wal_autocheckpoint = {pages};"));
        let pragmas: String = normal.into_iter().chain(pages).collect();
        self.setting_up = !pragmas.is_empty();
        self.setting_up.then_some(pragmas)
    }

    /// From now on the pragmas are the program's.
    pub fn end_set_up(&mut self) {
        self.setting_up = false;
    }

    /// Counts an operation.
    fn step(&mut self, kind: u8, path: usize, at: u64, length: usize) -> Fate {
        if self.off {
            return Fate::Fail;
        }
        self.operations += 1;
        (kind, path, at, length).hash(&mut self.trace);
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            self.cut();
            return Fate::Last;
        }
        Fate::Go
    }

    /// The power goes now, if it has not gone yet.
    pub fn cut(&mut self) {
        if self.off {
            return;
        }
        self.off = true;
        self.cut_at = None;
        self.at_the_cut = others(&self.root, &self.media);
    }

    /// SQLite opens a file: gives its number, or none without power.
    pub fn open(&mut self, path: &Path) -> Option<usize> {
        if self.off {
            return None;
        }
        self.undead.retain(|(dead, _)| dead != path);
        if let Some(at) = self.media.iter().position(|medium| medium.path == path) {
            return Some(at);
        }
        // A name that is new is there at once, as a rename is.
        let durable = fs::read(path).unwrap_or_default();
        self.media.push(Medium {
            path: path.to_owned(),
            durable,
            unsynced: Vec::new(),
            apart: false,
            locks: [0; 8],
        });
        Some(self.media.len() - 1)
    }

    /// SQLite takes or gives back locks of the log's index. `false`: another connection is in the way.
    pub fn lock(&mut self, file: usize, slots: std::ops::Range<usize>, lock: bool, shared: bool) -> bool {
        let Some(slots) = self.media.get_mut(file).and_then(|medium| medium.locks.get_mut(slots)) else {
            return false;
        };
        if lock && !slots.iter().all(|held| if shared { *held >= 0 } else { *held == 0 }) {
            return false;
        }
        for held in slots {
            *held += if lock == shared { 1 } else { -1 };
        }
        true
    }

    /// SQLite writes.
    pub fn write(&mut self, file: usize, at: u64, bytes: &[u8]) -> Fate {
        let fate = self.step(1, file, at, bytes.len());
        if fate != Fate::Fail {
            self.media[file].unsynced.push(Change::Write(at, bytes.to_vec()));
        }
        fate
    }

    /// SQLite truncates.
    pub fn truncate(&mut self, file: usize, length: u64) -> Fate {
        let fate = self.step(2, file, length, 0);
        if fate != Fate::Fail {
            self.media[file].unsynced.push(Change::Truncate(length));
        }
        fate
    }

    /// SQLite syncs.
    pub fn sync(&mut self, file: usize) -> Fate {
        let fate = self.step(3, file, 0, 0);
        if fate != Fate::Go {
            return fate;
        }
        if self.faults.dropped_syncs > 0.0 && self.random.f64() < self.faults.dropped_syncs {
            self.bad_syncs += 1;
            return Fate::Go;
        }
        let changes = std::mem::take(&mut self.media[file].unsynced);
        let failed = self.faults.failed_syncs > 0.0 && self.random.f64() < self.faults.failed_syncs;
        if self.sync_fails() || failed {
            self.bad_syncs += 1;
            let luck = Luck::draw(&mut self.random, changes.len());
            self.media[file].apart = true;
            let durable = &mut self.media[file].durable;
            survive(durable, &changes, luck, &mut self.random);
            return Fate::Fail;
        }
        for change in &changes {
            apply(&mut self.media[file].durable, change);
        }
        self.undead.clear();
        Fate::Go
    }

    /// Names in the trace, as seen from the root.
    fn name(&mut self, path: &Path) {
        path.strip_prefix(&self.root).unwrap_or(path).hash(&mut self.trace);
    }

    /// A name goes. [`Fate::Last`] leaves to chance whether it went.
    pub fn unlink(&mut self, path: &Path) -> Fate {
        self.name(path);
        let content = if self.off { None } else { fs::read(path).ok() };
        let fate = self.coin(4);
        if fate == Fate::Go {
            self.media.retain_mut(|medium| {
                // Numbers of open files stay what they are.
                if medium.path == path {
                    medium.path = PathBuf::new();
                }
                true
            });
            self.synced.remove(path);
            self.undead.extend(content.map(|content| (path.to_owned(), content)));
        }
        fate
    }

    /// A name changes.
    pub fn rename(&mut self, from: &Path, to: &Path) -> Fate {
        self.name(from);
        self.name(to);
        let fate = self.coin(5);
        if fate == Fate::Go {
            for medium in &mut self.media {
                if medium.path == to {
                    medium.path = PathBuf::new();
                } else if medium.path == from {
                    to.clone_into(&mut medium.path);
                }
            }
            match self.synced.remove(from) {
                Some(content) => drop(self.synced.insert(to.to_owned(), content)),
                None => drop(self.synced.remove(to)),
            }
        }
        fate
    }

    /// A directory comes.
    pub fn mkdir(&mut self, path: &Path) -> Fate {
        self.name(path);
        self.coin(6)
    }

    /// A file or a directory is synced, not by SQLite.
    pub fn fsync(&mut self, path: &Path) -> Fate {
        self.name(path);
        let fate = self.step(7, 0, 0, 0);
        if fate == Fate::Go && self.sync_fails() {
            self.bad_syncs += 1;
            return Fate::Fail;
        }
        if fate == Fate::Go {
            self.undead.clear();
            // Written onto itself: what shows is what is there.
            if let Some(medium) = self.media.iter_mut().find(|medium| medium.path == path) {
                medium.durable = fs::read(path).unwrap_or_default();
                medium.unsynced.clear();
            }
            if let Some(content) = small(path) {
                self.synced.insert(path.to_owned(), content);
            }
        }
        fate
    }

    /// Whole and in order: at the cut it is done or not.
    fn coin(&mut self, kind: u8) -> Fate {
        match self.step(kind, 0, 0, 0) {
            Fate::Last => Fate::Fail,
            fate => fate,
        }
    }

    /// Lays out what is left, and gives power again. Nothing of the running program may be left.
    pub fn lay_out(&mut self) {
        self.cut();
        let mut media = std::mem::take(&mut self.media);
        media.retain(|medium| !medium.path.as_os_str().is_empty());
        let files = others(&self.root, &[]);
        for medium in &mut media {
            let luck = Luck::draw(&mut self.random, medium.unsynced.len());
            survive(&mut medium.durable, &medium.unsynced, luck, &mut self.random);
            if medium.apart || !medium.unsynced.is_empty() {
                put(&medium.path, &medium.durable);
            }
        }
        let mut left: Vec<PathBuf> = media.iter().map(|medium| medium.path.clone()).collect();
        for (path, content) in std::mem::take(&mut self.at_the_cut) {
            let synced = self.synced.get(&path);
            let Some(content) = content else {
                left.push(path);
                continue;
            };
            match (synced == Some(&content), self.random.u8(0..3)) {
                (true, _) | (_, 0) => put(&path, &content),
                (_, 1) if synced.is_none() => continue,
                _ => put(&path, synced.map_or(&[], Vec::as_slice)),
            }
            left.push(path);
        }
        for (path, content) in std::mem::take(&mut self.undead) {
            if !left.contains(&path) && self.random.bool() {
                put(&path, &content);
                left.push(path);
            }
        }
        for (path, _) in files.iter().filter(|(path, _)| !left.contains(path)) {
            drop(fs::remove_file(path));
        }
        // The index of the log is not synced by anybody: nothing, or anything.
        if self.random.u8(0..4) == 0 {
            let noise: Vec<u8> = std::iter::repeat_with(|| self.random.u8(..)).take(32 * 1024).collect();
            put(&self.root.join("spool.db-shm"), &noise);
        }
        self.settle();
    }

    /// Everything is durable as it is.
    fn settle(&mut self) {
        self.off = false;
        self.cut_at = None;
        self.media.clear();
        self.undead.clear();
        self.synced = others(&self.root, &[])
            .into_iter()
            .filter_map(|(path, content)| Some((path, content?)))
            .collect();
    }
}

fn put(path: &Path, content: &[u8]) {
    if let Some(folder) = path.parent() {
        // A file that comes back brings its folder along.
        fs::create_dir_all(folder).expect("the scratch directory takes a folder");
    }
    fs::write(path, content).expect("the scratch directory takes a file");
}

fn small(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.is_file() && metadata.len() <= SMALL && !is_sqlite(path) { fs::read(path).ok() } else { None }
}

fn is_sqlite(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spool.db"))
}

/// All files below a directory that are no media; the content of the small ones.
fn others(directory: &Path, media: &[Medium]) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(others(&path, media));
        } else if !path.to_string_lossy().ends_with("-shm") && media.iter().all(|medium| medium.path != path)
        {
            let content = small(&path);
            found.push((path, content));
        }
    }
    found
}
