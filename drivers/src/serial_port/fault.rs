//! Why a serial port cannot be used, in words for a technician, with what to do.
//!
//! The port is examined by asking the system step by step instead of trusting one error code: the same code
//! means absent, busy or forbidden depending on the step that gave it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgroups};

use super::holders::{Holder, holders, logins};

/// What is wrong with a port, by who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortFaultKind {
    /// No such device: cable or path. May heal by itself when the adapter is plugged in.
    Absent,
    /// The path names something that is not a serial port.
    NotAPort,
    /// This user may not open it.
    Forbidden,
    /// Another process has it.
    Busy,
    /// The device file exists, but there is no working hardware behind it.
    Dead,
    /// The driver refuses the settings: speed, format or RS-485.
    Refused,
}

/// A port that cannot be used: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PortFault {
    /// Its kind.
    pub kind: PortFaultKind,
    /// One line, with the path in it.
    pub what: String,
    /// What a technician does about it.
    pub remedy: String,
    /// For [`PortFaultKind::Busy`]: who has it, as far as this user can see.
    pub holders: Vec<Holder>,
}

impl PortFault {
    fn new(kind: PortFaultKind, what: String, remedy: String) -> Self {
        Self { kind, what, remedy, holders: Vec::new() }
    }

    /// The driver does not take the settings.
    pub(super) fn refused(what: String, remedy: String) -> Self {
        Self::new(PortFaultKind::Refused, what, remedy)
    }
}

impl fmt::Display for PortFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Looks whether `path` can be used as a serial port, without changing it. For `fieldspool check`, and for
/// words when opening has failed. A port that the calling process itself has open is no fault.
pub fn examine(path: &Path) -> Result<(), PortFault> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(forbidden(path, &error)),
        Err(_) => return Err(absent(path)),
    };
    if !metadata.file_type().is_char_device() {
        return Err(PortFault::new(
            PortFaultKind::NotAPort,
            format!("{shown} is not a serial port but a {}", kind_of(&metadata)),
            "name a device such as /dev/ttyUSB0".into(),
        ));
    }
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            return Err(match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                Errno::EACCES | Errno::EPERM => forbidden(path, &error),
                Errno::EBUSY => busy(path, &others(path)),
                Errno::ENOENT => absent(path),
                _ => dead(path, &error.to_string()),
            });
        }
    };
    if let Err(errno) = nix::sys::termios::tcgetattr(&file) {
        return Err(match errno {
            Errno::ENOTTY => PortFault::new(
                PortFaultKind::NotAPort,
                format!("{shown} is a device, but not a serial port"),
                "name a device such as /dev/ttyUSB0".into(),
            ),
            _ => dead(path, errno.desc()),
        });
    }
    // root opens a locked port all the same: only the lock itself tells. Closing the file gives it back.
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err();
    let others = others(path);
    let login = logins(path);
    if !login.is_empty() {
        return Err(busy(path, &login));
    }
    if locked && !others.is_empty() {
        return Err(busy(path, &others));
    }
    Ok(())
}

fn others(path: &Path) -> Vec<Holder> {
    holders(path).into_iter().filter(|holder| holder.pid != std::process::id()).collect()
}

/// The port is locked: by whom, and how to free it.
pub(super) fn busy(path: &Path, holders: &[Holder]) -> PortFault {
    let shown = path.display();
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let names: Vec<String> = holders
        .iter()
        .map(|h| format!("{} (pid {}){}", h.name, h.pid, if h.seen { "" } else { ", probably" }))
        .collect();
    let (what, remedy) = match holders.first() {
        Some(first) => (format!("{shown} is in use by {}", names.join(" and ")), first.remedy(&real)),
        None => (
            format!("{shown} is in use by another process"),
            format!("find it with `sudo fuser -v {}`, then stop it", real.display()),
        ),
    };
    PortFault { kind: PortFaultKind::Busy, what, remedy, holders: holders.to_vec() }
}

fn absent(path: &Path) -> PortFault {
    let listed = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().display().to_string())
            .collect();
        names.sort();
        names.truncate(8);
        names
    };
    let mut present = listed("/dev/serial/by-id");
    if present.is_empty() {
        present = listed("/dev/serial/by-path");
    }
    let remedy = remedy_of_absent(path, &present);
    PortFault::new(PortFaultKind::Absent, format!("{} does not exist", path.display()), remedy)
}

/// What to do about a port that is not there; `present`: adapters that are. A name tells whether an adapter was meant, or a port of
/// the board (`ttyS0`, `ttyAMA0`, `ttymxc2`, and `serial0` of the Raspberry Pi), which has no plug to be pulled.
pub(super) fn remedy_of_absent(path: &Path, present: &[String]) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let adapter = path.starts_with("/dev/serial") || name.contains("usb") || name.contains("acm");
    let built_in = path.parent() == Some(Path::new("/dev"))
        && ["tty", "serial"]
            .iter()
            .any(|begin| name.strip_prefix(begin).is_some_and(|rest| !rest.is_empty()));
    let present = (!present.is_empty()).then(|| format!("present are: {}", present.join(", ")));
    match (adapter, present) {
        (false, present) if built_in => {
            let enable = "if that is a port of the board itself, enable it in the board's configuration (Raspberry Pi: \
                          `enable_uart=1` in config.txt, or raspi-config)";
            present.map_or_else(|| enable.to_owned(), |present| format!("{enable}; {present}"))
        }
        (_, Some(present)) => present,
        (true, None) => {
            "no USB serial adapter is plugged in (`dmesg | tail` shows what the kernel sees)".to_owned()
        }
        (false, None) => "check the path; `ls -l /dev/serial/by-id` lists the adapters".to_owned(),
    }
}

fn dead(path: &Path, reason: &str) -> PortFault {
    PortFault::new(
        PortFaultKind::Dead,
        format!("{} exists, but no working port stands behind it ({reason})", path.display()),
        "unplug and replug the adapter; for a built-in port, enable it in the board's configuration".into(),
    )
}

fn forbidden(path: &Path, error: &io::Error) -> PortFault {
    let user =
        User::from_uid(geteuid()).ok().flatten().map_or_else(|| geteuid().to_string(), |user| user.name);
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let shown = real.display();
    let Ok(metadata) = fs::metadata(&real) else {
        return PortFault::new(
            PortFaultKind::Forbidden,
            format!("{user} may not look at {shown} ({error})"),
            format!("give the folder that holds it the right mode: `namei -l {shown}` shows which"),
        );
    };
    let group = Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten();
    let group_name = group.as_ref().map_or_else(|| metadata.gid().to_string(), |group| group.name.clone());
    let owner = User::from_uid(Uid::from_raw(metadata.uid())).ok().flatten();
    let owner_name = owner.map_or_else(|| metadata.uid().to_string(), |owner| owner.name);
    let mode = metadata.mode() & 0o777;
    let what =
        format!("{user} may not open {shown} (owner {owner_name}, group {group_name}, mode {mode:03o})");
    let member = metadata.gid() == getegid().as_raw()
        || getgroups().is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == metadata.gid()));
    let group_may = mode & 0o060 == 0o060;
    let remedy = if error.raw_os_error() == Some(libc::EPERM) || (member && group_may) {
        "the service's sandbox forbids it: `sudo systemctl edit fieldspool`, add `[Service]` and `DeviceAllow=char-* rw`"
            .to_owned()
    } else if group_may && metadata.gid() != 0 {
        format!(
            "`sudo usermod -aG {group_name} {user}`, then `sudo systemctl restart fieldspool` (or log in again)"
        )
    } else {
        let name = real.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let family = name.trim_end_matches(|c: char| c.is_ascii_digit());
        format!(
            "`echo 'SUBSYSTEM==\"tty\", KERNEL==\"{family}*\", GROUP=\"dialout\", MODE=\"0660\"' | sudo tee \
             /etc/udev/rules.d/60-serial.rules && sudo udevadm control --reload && sudo udevadm trigger`"
        )
    };
    PortFault::new(PortFaultKind::Forbidden, what, remedy)
}

fn kind_of(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "folder"
    } else if kind.is_block_device() {
        "disk"
    } else if kind.is_file() {
        "file"
    } else {
        "pipe or socket"
    }
}
