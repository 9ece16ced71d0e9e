//! Who else has a serial port open: a look through `/proc`, for error messages only.
//!
//! Without root, the open files of other users' processes cannot be read. Then the known culprits are looked for
//! by name: a login prompt names its port on its command line, ModemManager and brltty probe every port.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has the port open, or is known to open such ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name, at most 15 characters (`/proc/PID/comm`).
    pub name: String,
    /// Seen with the port open; else only suspected by its name.
    pub seen: bool,
}

impl Holder {
    /// How a technician frees the port from this process.
    pub fn remedy(&self, path: &Path) -> String {
        let tty = path.file_name().map_or_else(|| "ttyS0".into(), |name| name.to_string_lossy());
        match self.name.as_str() {
            "agetty" | "getty" | "login" => {
                format!(
                    "a login prompt runs on it: `sudo systemctl disable --now serial-getty@{tty}.service`"
                )
            }
            "brltty" => {
                "brltty takes every USB adapter for a braille display: `sudo apt purge brltty` or `sudo \
                         systemctl mask --now brltty.service brltty-udev.service`"
                    .into()
            }
            "ModemManager" => "ModemManager probes every port for modems: `sudo systemctl mask --now \
                               ModemManager.service`"
                .into(),
            "fieldspool" => {
                "another fieldspool, or another bus of this one, uses it: one port belongs to one bus".into()
            }
            name => format!("stop {name}: `sudo kill {}`", self.pid),
        }
    }
}

/// The processes that have `path` open, and, if none can be seen, those suspected by name. The calling process
/// is listed too, if it has the port open.
pub fn holders(path: &Path) -> Vec<Holder> {
    search(path, |_| true)
}

/// Login prompts on the port: each answer of an instrument would be typed into them. Cheap enough for every opening,
/// because only processes of these names are looked into.
pub(super) fn logins(path: &Path) -> Vec<Holder> {
    search(path, |name| matches!(name, "agetty" | "getty" | "login"))
}

fn search(path: &Path, of_interest: fn(&str) -> bool) -> Vec<Holder> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Ok(device) = fs::metadata(&real) else { return Vec::new() };
    let mut seen = Vec::new();
    let mut suspects = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
        if !of_interest(&name) {
            continue;
        }
        if has_open(&process, &real, device.rdev()) {
            seen.push(Holder { pid, name, seen: true });
        } else if is_suspect(&process, &name, &real) {
            suspects.push(Holder { pid, name, seen: false });
        }
    }
    if seen.is_empty() { suspects } else { seen }
}

/// Whether one of the process's readable file descriptors is this device. Compared by device number, so that
/// every link name counts; the path is a shortcut that saves most of the stat calls.
fn has_open(process: &Path, real: &Path, rdev: u64) -> bool {
    fs::read_dir(process.join("fd")).into_iter().flatten().flatten().any(|fd| {
        let Ok(target) = fs::read_link(fd.path()) else { return false };
        target == real
            || (target.starts_with("/dev")
                && fs::metadata(&target).is_ok_and(|m| rdev != 0 && m.rdev() == rdev))
    })
}

fn is_suspect(process: &Path, name: &str, real: &Path) -> bool {
    let tty = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        "agetty" | "getty" => {
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            arguments.split(|b| *b == 0).any(|word| {
                let word = word.strip_prefix(b"/dev/").unwrap_or(word);
                !tty.is_empty() && word == tty.as_bytes()
            })
        }
        "ModemManager" | "brltty" => tty.starts_with("ttyUSB") || tty.starts_with("ttyACM"),
        _ => false,
    }
}
