//! Between SQLite, the system and the [`disk`]: all unsafe code of this crate.
//!
//! Two doors lead to the medium, and the program under test must know of neither. SQLite goes through a VFS that is registered as
//! the default one: it hands everything to the VFS of unix, so that locks, shared memory and the visible content are
//! the real ones, but asks the disk first, and syncs nothing. The rest of the program goes through libc: `rename`, `unlink`, `unlinkat`,
//! `rmdir`, `mkdir`, `fsync` and `fdatasync` are defined here, the linker prefers them to libc's, and they ask the disk too before they make the
//! system call. A thread without a disk is served as ever.
#![expect(unsafe_code, reason = "a VFS and functions of libc are C; each block has its argument")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::libc;
use rusqlite::ffi;

use crate::disk::{self, Fate};

/// The VFS that does the work.
static UNIX: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

/// Our part of an open file; the part of unix's VFS follows at [`REAL`].
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    /// Its number on the disk.
    file: Option<usize>,
}

/// Where the other part begins: as aligned as anything in C.
const REAL: usize = size_of::<Handle>().next_multiple_of(16);

/// Makes the VFS the default one of this process. Connections that are open stay what they are.
pub fn register() {
    static DONE: Once = Once::new();
    // SAFETY: SQLite gives the default VFS or null; it is never unregistered, so the pointer stays good. Ours is a copy of it with its own
    // name, size and `open`, and is leaked because SQLite keeps the pointer for ever. Its other functions do not look at
    // the VFS they are called with but for its data, which is copied too (os_unix.c).
    DONE.call_once(|| unsafe {
        assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK, "SQLite starts");
        let unix = ffi::sqlite3_vfs_find(ptr::null());
        assert!(!unix.is_null(), "SQLite has a VFS");
        UNIX.store(unix, Ordering::Release);
        let mut ours = *unix;
        ours.szOsFile += c_int::try_from(REAL).expect("small");
        ours.zName = c"forgetful".as_ptr();
        ours.pNext = ptr::null_mut();
        ours.xOpen = Some(open);
        let ours = Box::leak(Box::new(ours));
        assert_eq!(ffi::sqlite3_vfs_register(ours, 1), ffi::SQLITE_OK, "the VFS is taken");
        assert_eq!(ffi::sqlite3_auto_extension(Some(set_up)), ffi::SQLITE_OK, "and the set-up");
    });
}

/// The part of unix's VFS.
///
/// # Safety
/// `file` is one that [`open`] was given, so that the memory behind it is ours.
unsafe fn real(file: *mut ffi::sqlite3_file) -> (*mut ffi::sqlite3_file, &'static ffi::sqlite3_io_methods) {
    // SAFETY: SQLite allocates `szOsFile` bytes, which is [`REAL`] more than unix needs. Its methods are a static table.
    unsafe {
        let real = file.byte_add(REAL);
        (real, &*(*real).pMethods)
    }
}

/// # Safety
/// As [`real`].
unsafe fn number(file: *mut ffi::sqlite3_file) -> Option<usize> {
    // SAFETY: `open` has written the handle.
    unsafe { (*file.cast::<Handle>()).file }
}

/// # Safety
/// `path` is a C string or null.
unsafe fn path_of(path: *const c_char) -> PathBuf {
    if path.is_null() {
        return PathBuf::new();
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    PathBuf::from(OsStr::from_bytes(bytes))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a file of `szOsFile` bytes and a name that lives as long as it is open. If unix does not open
    // it, our methods stay null, and SQLite does not use the file.
    unsafe {
        let path = path_of(name);
        (*file).pMethods = ptr::null();
        let ours = disk::with(|disk| disk.holds(&path)).unwrap_or_default();
        if ours && disk::with(|disk| disk.is_off()).unwrap_or_default() {
            return ffi::SQLITE_CANTOPEN;
        }
        let unix = UNIX.load(Ordering::Acquire);
        let Some(open) = (*unix).xOpen else { return ffi::SQLITE_CANTOPEN };
        let real = file.byte_add(REAL);
        let done = open(unix, name, real, flags, out);
        if done == ffi::SQLITE_OK {
            let number = if ours { disk::with(|disk| disk.open(&path)).flatten() } else { None };
            (*file.cast::<Handle>()).file = number;
            (*file).pMethods = &raw const METHODS;
        }
        done
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Two: shared memory, no mapping of the file itself.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// One function that unix's VFS does as it is.
macro_rules! forward {
    ($name:ident, $method:ident, ($($argument:ident: $kind:ty),*) -> $result:ty, $none:expr) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) -> $result {
            // SAFETY: the file and the arguments are SQLite's own, and go on as they came.
            unsafe {
                let (real, methods) = real(file);
                methods.$method.map_or($none, |method| method(real $(, $argument)*))
            }
        }
    };
}

forward!(close, xClose, () -> c_int, ffi::SQLITE_IOERR);
forward!(size, xFileSize, (size: *mut ffi::sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
forward!(lock, xLock, (level: c_int) -> c_int, ffi::SQLITE_IOERR);
forward!(unlock, xUnlock, (level: c_int) -> c_int, ffi::SQLITE_IOERR);
forward!(check_lock, xCheckReservedLock, (held: *mut c_int) -> c_int, ffi::SQLITE_IOERR);
forward!(sector, xSectorSize, () -> c_int, 512);
forward!(characteristics, xDeviceCharacteristics, () -> c_int, 0);
forward!(shm_map, xShmMap, (page: c_int, size: c_int, extend: c_int, at: *mut *mut c_void) -> c_int, ffi::SQLITE_IOERR);
forward!(shm_barrier, xShmBarrier, () -> (), ());
forward!(shm_unmap, xShmUnmap, (delete: c_int) -> c_int, ffi::SQLITE_IOERR);

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the arguments are SQLite's own, and go on as they came.
    unsafe {
        if number(file).is_some() && disk::with(|disk| disk.is_off()).unwrap_or_default() {
            return ffi::SQLITE_IOERR_READ;
        }
        let (real, methods) = real(file);
        methods.xRead.map_or(ffi::SQLITE_IOERR_READ, |read| read(real, to, length, at))
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives `length` readable bytes at `from`; nothing is kept of them but a copy.
    unsafe {
        let (Ok(bytes), Ok(place)) = (usize::try_from(length), u64::try_from(at)) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), bytes);
        let fate = number(file).and_then(|file| disk::with(|disk| disk.write(file, place, bytes)));
        if fate.is_some_and(|fate| fate != Fate::Go) {
            return ffi::SQLITE_IOERR_WRITE;
        }
        let (real, methods) = real(file);
        methods.xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(real, from, length, at))
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: as `read`.
    unsafe {
        let asked = u64::try_from(length).unwrap_or_default();
        let fate = number(file).and_then(|file| disk::with(|disk| disk.truncate(file, asked)));
        if fate.is_some_and(|fate| fate != Fate::Go) {
            return ffi::SQLITE_IOERR_TRUNCATE;
        }
        let (real, methods) = real(file);
        methods.xTruncate.map_or(ffi::SQLITE_IOERR_TRUNCATE, |truncate| truncate(real, length))
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: `file` is one of ours. The files lie in memory: a real sync would do nothing.
    let number = unsafe { number(file) };
    match number.and_then(|file| disk::with(|disk| disk.sync(file))) {
        None | Some(Fate::Go) => ffi::SQLITE_OK,
        Some(_) => ffi::SQLITE_IOERR_FSYNC,
    }
}

/// Locks of the log's index. All connections of a disk are of one thread, so a table does for what fcntl would, in a
/// fraction of the time.
unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: as `read`.
    unsafe {
        let slots =
            usize::try_from(offset).unwrap_or_default()..usize::try_from(offset + n).unwrap_or_default();
        let (lock, shared) = (flags & ffi::SQLITE_SHM_LOCK != 0, flags & ffi::SQLITE_SHM_SHARED != 0);
        match number(file).and_then(|file| disk::with(|disk| disk.lock(file, slots, lock, shared))) {
            Some(true) => ffi::SQLITE_OK,
            Some(false) => ffi::SQLITE_BUSY,
            None => {
                let (real, methods) = real(file);
                methods.xShmLock.map_or(ffi::SQLITE_IOERR, |method| method(real, offset, n, flags))
            }
        }
    }
}

/// Answers the pragmas that a planted fault has taken over; hands on the rest.
unsafe extern "C" fn control(file: *mut ffi::sqlite3_file, what: c_int, with: *mut c_void) -> c_int {
    // SAFETY: for a pragma `with` is an array of three strings: answer, name, argument or null (sqlite3.h). The rest as `read`.
    unsafe {
        if what == ffi::SQLITE_FCNTL_PRAGMA && number(file).is_some() {
            let words = with.cast::<*const c_char>();
            let (name, argument) = (path_of(*words.add(1)), *words.add(2));
            let name = name.to_string_lossy().to_lowercase();
            if !argument.is_null() && disk::with(|disk| disk.answers(&name)).unwrap_or_default() {
                return ffi::SQLITE_OK;
            }
        }
        let (real, methods) = real(file);
        methods.xFileControl.map_or(ffi::SQLITE_NOTFOUND, |control| control(real, what, with))
    }
}

/// Each new connection: what a fault asks for, before the program sets it up.
unsafe extern "C" fn set_up(
    connection: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let Some(pragmas) = disk::with(disk::Disk::begin_set_up).flatten() else { return ffi::SQLITE_OK };
    let pragmas = CString::new(pragmas).expect("no zero in it");
    // SAFETY: SQLite calls this with a connection that is open, and the text lives on to the end of the call.
    let done =
        unsafe { ffi::sqlite3_exec(connection, pragmas.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) };
    disk::with(disk::Disk::end_set_up);
    done
}

/// Asks the disk about a name; without one, or elsewhere, it goes.
fn ask(path: &Path, question: impl FnOnce(&mut disk::Disk) -> Fate) -> bool {
    let path = std::path::absolute(path).unwrap_or_default();
    let fate = disk::with(|disk| if disk.holds(&path) { question(disk) } else { Fate::Go });
    if fate.is_some_and(|fate| fate != Fate::Go) {
        Errno::EIO.set();
        return false;
    }
    true
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller gives two C strings, as for libc's; the system call is the one libc makes.
    unsafe {
        let (old, new) = (path_of(from), path_of(to));
        if !ask(&old, |disk| disk.rename(&old, &new)) {
            return -1;
        }
        answer(libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0))
    }
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: as `rename`.
    unsafe {
        let name = path_of(path);
        if !ask(&name, |disk| disk.unlink(&name)) {
            return -1;
        }
        answer(libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0))
    }
}

/// In place of libc's: what removes a folder with all that is in it.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as `rename`.
    unsafe {
        let mut name = path_of(path);
        if folder != libc::AT_FDCWD && name.is_relative() {
            name = std::fs::read_link(format!("/proc/self/fd/{folder}")).unwrap_or_default().join(name);
        }
        if !ask(&name, |disk| disk.unlink(&name)) {
            return -1;
        }
        answer(libc::syscall(libc::SYS_unlinkat, folder, path, flags))
    }
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: as `unlinkat`.
    unsafe { unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR) }
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: libc::mode_t) -> c_int {
    // SAFETY: as `rename`.
    unsafe {
        let name = path_of(path);
        if !ask(&name, |disk| disk.mkdir(&name)) {
            return -1;
        }
        answer(libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode))
    }
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(file: c_int) -> c_int {
    let path = std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap_or_default();
    if !ask(&path, |disk| disk.fsync(&path)) {
        return -1;
    }
    // SAFETY: the number of a file, or an error.
    unsafe { answer(libc::syscall(libc::SYS_fsync, file)) }
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    // SAFETY: as `fsync`.
    unsafe { fsync(file) }
}

/// What a system call says is 0 or -1 here.
fn answer(said: libc::c_long) -> c_int {
    if said == 0 { 0 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_std_does_with_names_and_syncs_is_asked_of_the_disk() {
        let scratch = std::env::temp_dir().join(format!("fieldspool-crash-sys-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).expect("a scratch directory");
        disk::insert(&scratch, 1);
        let count = || disk::with(|disk| disk.operations());
        let file = std::fs::File::create(scratch.join("a")).expect("a file");
        file.sync_all().expect("synced");
        assert_eq!(count(), Some(1), "fsync");
        std::fs::rename(scratch.join("a"), scratch.join("b")).expect("renamed");
        assert_eq!(count(), Some(2), "rename");
        std::fs::create_dir(scratch.join("c")).expect("made");
        assert_eq!(count(), Some(3), "mkdir");
        std::fs::remove_dir(scratch.join("c")).expect("removed");
        assert_eq!(count(), Some(4), "rmdir");
        std::fs::create_dir_all(scratch.join("d/e")).expect("made");
        std::fs::remove_dir_all(scratch.join("d")).expect("removed");
        assert_eq!(count(), Some(9), "mkdir of the inner one, of both, and both removed");
        disk::with(disk::Disk::cut);
        assert!(std::fs::remove_file(scratch.join("b")).is_err(), "no power");
        disk::remove();
        std::fs::remove_dir_all(&scratch).expect("removed");
    }
}
