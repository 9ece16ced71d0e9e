//! The state directory: its lock, whether it survives a power cut, the sidecar with the run, the reserve, and the bound of
//! quarantines. How a file gets there is in `aside`.
//!
//! The lock is an flock on the directory itself, so that it works on a read-only file system and leaves no file behind.
//! The sidecar `run` holds the last run as text; it is written, fsynced, renamed, and the directory fsynced.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs;

use super::store::{StoreError, log_of};
use super::{SpoolError, aside, rescue};
use crate::model::RunId;
use crate::mounts;

/// Looked at whenever another file is set aside: quarantined files that were searched stay in this many folders at most, and within [`QUARANTINE_BYTES_MAX`]; the oldest go.
/// Those that nobody has searched to the end stay as long as they take no more room than as many spools with the default cap.
pub(super) const QUARANTINES_MAX: usize = 3;

/// Bytes of all quarantines together: 1 GiB. Those that nobody has searched to the end do not go for them.
pub(super) const QUARANTINE_BYTES_MAX: u64 = 1 << 30;

/// Folders that nobody has searched, at most: each is searched at each start.
pub(super) const UNSEARCHED_MAX: usize = 64;

/// Held as long as the spool is open.
#[derive(Debug)]
pub(super) struct Lock {
    _directory: Flock<File>,
}

/// Makes the directory if it is missing, and locks it.
pub(super) fn lock(directory: &Path) -> Result<Lock, SpoolError> {
    let unavailable = |error: io::Error| SpoolError::Unavailable(format!("{}: {error}", directory.display()));
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o750).create(directory)
        && !directory.is_dir()
    {
        return Err(unavailable(error));
    }
    let opened = File::open(directory).map_err(unavailable)?;
    match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Lock { _directory: held }),
        Err((file, Errno::EWOULDBLOCK)) => {
            Err(SpoolError::Locked { directory: directory.to_owned(), pid: holder(&file) })
        }
        Err((_, error)) => Err(unavailable(error.into())),
    }
}

/// Whether another process holds the lock, and which, if the kernel lists it. Takes no lock itself: that could keep a
/// daemon from starting.
pub fn in_use(directory: &Path) -> Option<u32> {
    holder(&File::open(directory).ok()?)
}

/// The process that holds the lock, as the kernel lists it: `1: FLOCK ADVISORY WRITE 812 b3:02:1234 0 EOF`.
fn holder(directory: &File) -> Option<u32> {
    let inode = format!(":{}", directory.metadata().ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let ours = words.next()? == "FLOCK";
        let pid = words.nth(2)?;
        (ours && words.next()?.ends_with(&inode)).then(|| pid.parse().ok())?
    })
}

/// File systems that a power cut takes with it, or whose server answers for what is on its disk, by the magic number
/// that statfs gives (linux/magic.h).
const NOT_DURABLE: [(u32, &str); 6] = [
    (0x0102_1994, "tmpfs, memory"),
    (0x8584_58f6, "ramfs, memory"),
    (0x0000_6969, "nfs, a network file system"),
    (0xff53_4d42, "cifs, a network file system"),
    (0xfe53_4d42, "smb, a network file system"),
    (0x0102_1997, "9p, a shared file system"),
];
const OVERLAY: u32 = 0x794c_7630;

/// Why a power cut would take the directory with it, if it would.
pub fn not_durable(directory: &Path) -> Option<String> {
    let magic = magic(directory)?;
    if magic == OVERLAY {
        return overlay_in_memory(directory);
    }
    NOT_DURABLE.iter().find(|(known, _)| *known == magic).map(|(_, words)| (*words).to_owned())
}

/// The magic number is 32 bits, in a type that is wider on some machines.
fn magic(directory: &Path) -> Option<u32> {
    let kind = statfs::statfs(directory).ok()?.filesystem_type().0.to_le_bytes();
    kind.first_chunk().map(|low| u32::from_le_bytes(*low))
}

/// An overlay keeps what is written in its upper directory: that one decides.
fn overlay_in_memory(directory: &Path) -> Option<String> {
    let upper = mounts::below(directory)?.first()?.option("upperdir")?;
    // Seen from inside a container the path may not exist: then nothing is known, and nothing is claimed.
    let tmpfs = magic(Path::new(&upper))? == NOT_DURABLE[0].0;
    tmpfs.then(|| "an overlay over tmpfs, memory".to_owned())
}

/// The default cap: the smaller of 1 GiB and a quarter of the file system.
pub(super) fn bytes_max_default(directory: &Path) -> u64 {
    const MOST: u64 = 1 << 30;
    let Ok(found) = statfs::statfs(directory) else { return MOST };
    let size = found.blocks().saturating_mul(u64::try_from(found.block_size()).unwrap_or(4096));
    MOST.min(size / 4).max(super::BYTES_MAX_LEAST)
}

/// The run that the sidecar remembers.
pub(super) fn read_sidecar(directory: &Path) -> Option<RunId> {
    fs::read_to_string(directory.join("run")).ok()?.trim().parse().ok()
}

/// Whether the sidecar remembers this run.
pub fn remembers(directory: &Path, run: RunId) -> bool {
    read_sidecar(directory) == Some(run)
}

/// Remembers a run. A start does; this is for what it could not write. Blocks.
pub fn write_sidecar(directory: &Path, run: RunId) -> io::Result<()> {
    let (new, old) = (directory.join("run.new"), directory.join("run"));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{run}")?;
        file.sync_all()?;
        fs::rename(&new, &old)
    };
    if let Err(error) = write() {
        // On a full disk it was made, and nothing came into it.
        drop(fs::remove_file(&new));
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

/// What had to go before anybody had searched it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// How many spools.
    pub(super) files: u64,
    /// All their bytes.
    pub(super) bytes: u64,
}

impl GivenUp {
    /// For the record.
    pub(super) fn words(self) -> String {
        let Self { files, bytes } = self;
        let what = match files {
            1 => format!("1 damaged spool of {bytes} bytes"),
            _ => format!("{files} damaged spools of {bytes} bytes together"),
        };
        format!("{what} removed without having been searched: there is no room for more")
    }

    fn take(&mut self, folder: &Path) {
        let bytes = bytes_of(folder).unwrap_or_default();
        if remove(folder) {
            tracing::error!(folder = %folder.display(), "a damaged spool goes without having been searched: there is no room for more");
            self.files += 1;
            self.bytes += bytes;
        }
    }
}

/// Removes quarantines beyond their bounds, the oldest first; the newest stays whatever its size, and so do those that were not
/// searched while there is room for them. Says which of those had to go.
pub(super) fn bound_quarantines(directory: &Path) -> GivenUp {
    let mut found = aside::folders(directory);
    // The power went before a file had come there: it holds nothing, and must not push out one that does. This removes no other.
    found.retain(|path| fs::remove_dir(path).is_err());
    // A newer file that was taken back whole is removed by that. One that stays was searched, and is like these.
    found.retain(|path| !rescue::is_newer(path) || rescue::is_done(path));
    found.sort_by_key(|path| aside::age(path));
    let (searched, mut unsearched): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|path| rescue::is_done(path));
    let mut given_up = GivenUp::default();
    // On a card that damages every file the first holds most, and those that come after it next to nothing.
    while unsearched.len() > UNSEARCHED_MAX {
        let older = unsearched.split_last().map_or(&[][..], |(_newest, older)| older);
        // Of a folder that the disk does not list nobody knows: it is not the one that holds least.
        let size = |(_, path): &(usize, &PathBuf)| bytes_of(path).unwrap_or(u64::MAX);
        let Some((least, _)) = older.iter().enumerate().min_by_key(size) else { break };
        given_up.take(&unsearched.remove(least));
    }
    let room = bytes_max_default(directory).saturating_mul(QUARANTINES_MAX as u64);
    let mut bytes = 0;
    // Those that nobody has searched to the end stay longest, then the newest.
    for (at, path) in unsearched.iter().rev().chain(searched.iter().rev()).enumerate() {
        bytes += bytes_of(path).unwrap_or_default();
        let crowded = at >= QUARANTINES_MAX;
        if at < unsearched.len() {
            // A rescue may wait for room for days: until it has ended, the folder holds what is nowhere else.
            if crowded && bytes > room {
                given_up.take(path);
            }
        } else if crowded || (at > 0 && bytes > QUARANTINE_BYTES_MAX) {
            remove(path);
        }
    }
    given_up
}

/// `None`: the disk does not list it.
fn bytes_of(folder: &Path) -> Option<u64> {
    let own = |entry: fs::DirEntry| entry.metadata().map_or(0, |metadata| metadata.len());
    Some(fs::read_dir(folder).ok()?.flatten().map(own).sum())
}

fn remove(folder: &Path) -> bool {
    let removed = fs::remove_dir_all(folder);
    if let Err(error) = &removed {
        tracing::warn!(folder = %folder.display(), %error, "an old quarantine cannot be removed");
    }
    removed.is_ok()
}

/// Space held for bad times: given free when the disk is full, so that the log can be written and old rows be taken.
const RESERVE: (&str, u64) = ("reserve", 1024 * 1024);

/// Takes the reserve, if it is not there yet. `false`: there is no space for it, and none is kept.
pub(super) fn take_reserve(directory: &Path) -> bool {
    let (name, bytes) = RESERVE;
    let path = directory.join(name);
    if path.metadata().is_ok_and(|metadata| metadata.len() == bytes) {
        return true;
    }
    if space(directory).is_some_and(|space| space < bytes) {
        return false;
    }
    // `off_t` has 32 bits on armhf.
    let length = bytes.try_into().unwrap_or_default();
    let taken = File::create(&path).and_then(|file| Ok(nix::fcntl::posix_fallocate(&file, 0, length)?));
    if let Err(error) = &taken {
        tracing::debug!(%error, "no space for a reserve");
        drop(fs::remove_file(path));
    }
    taken.is_ok()
}

/// Whether the file system has less space than a spool needs to go on growing: the reserve, the log and a few windows.
pub(super) fn is_full(directory: &Path) -> bool {
    const ENOUGH: u64 = 4 * 1024 * 1024;
    space(directory).is_some_and(|space| space < ENOUGH)
}

/// Whether the next page may find no place.
pub(super) fn has_no_space(directory: &Path) -> bool {
    const NEXT: u64 = 64 * 1024;
    space(directory).is_some_and(|space| space < NEXT)
}

/// Bytes that the file system has left; `None`: it does not say.
pub(super) fn space(directory: &Path) -> Option<u64> {
    #[cfg(test)]
    if directory.join("no-space").exists() {
        return Some(0);
    }
    let found = statfs::statfs(directory).ok()?;
    Some(found.blocks_available().saturating_mul(u64::try_from(found.block_size()).unwrap_or(4096)))
}

/// Writes the log of a file that nobody writes now onto itself and syncs it. After a failed fsync the kernel may take pages for
/// written that the disk never got: whoever reads the log believes what a power cut would take. Written again, they are
/// there, or this fails too.
pub(super) fn write_log_again(file: &Path) -> Result<(), StoreError> {
    let log = match File::options().read(true).write(true).open(log_of(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        log => log?,
    };
    let unread = |error: io::Error| StoreError::Unread(format!("the disk does not give its log: {error}"));
    let mut piece = vec![0; 64 * 1024];
    let mut at = 0;
    loop {
        let length = log.read_at(&mut piece, at).map_err(unread)?;
        if length == 0 {
            return Ok(log.sync_all()?);
        }
        log.write_all_at(&piece[..length], at)?;
        at += length as u64;
    }
}

/// On a full disk: gives up what was set aside and searched to its end, the oldest first, until the disk is no longer full.
/// What could be saved of it is in the spool; what the disk is full of may be that.
pub(super) fn give_searched(directory: &Path, is_full: impl Fn(&Path) -> bool) {
    let mut searched = aside::folders(directory);
    searched.retain(|path| rescue::is_done(path));
    searched.sort_by_key(|path| aside::age(path));
    for path in searched {
        if !is_full(directory) {
            return;
        }
        tracing::warn!(folder = %path.display(), "the disk is full: a damaged spool that was searched to its end goes");
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(folder = %path.display(), %error, "it cannot be removed");
        }
    }
}

/// Gives the reserve free. `false`: there is none.
pub(super) fn give_reserve(directory: &Path) -> bool {
    fs::remove_file(directory.join(RESERVE.0)).is_ok()
}

/// What a path points at: device and inode.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
