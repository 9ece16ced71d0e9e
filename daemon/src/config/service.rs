//! The user that the package's service runs as: what it may do with a file, and how it gets one of its own.
//!
//! A cure that is pasted as root must be harmless wherever the path leads: owner and mode are changed only of what lies in the
//! folder of the configuration itself. Of anything else (`/etc/passwd`, a key of the web server) the service gets a copy.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use nix::unistd::{Group, User};

/// Its name.
pub(super) const USER: &str = "fieldspool";

/// Whether a user lacks one of these permissions (4 read, 2 write, 1 enter) on a thing of these owners and this mode.
pub(super) fn lacks(user: &User, metadata: &fs::Metadata, wanted: u32) -> bool {
    let mode = metadata.mode();
    if metadata.uid() == user.uid.as_raw() {
        return mode & (wanted << 6) != wanted << 6;
    }
    let in_group = metadata.gid() == user.gid.as_raw()
        || Group::from_gid(metadata.gid().into())
            .ok()
            .flatten()
            .is_some_and(|group| group.mem.contains(&user.name));
    let bits = if in_group { wanted << 3 } else { wanted };
    mode & bits != bits
}

/// Whether the service's user, if there is one on this machine, cannot read a file of these owners and this mode.
pub(super) fn is_locked_out(metadata: &fs::Metadata) -> bool {
    matches!(User::from_name(USER), Ok(Some(user)) if lacks(&user, metadata, 0o4))
}

/// How a secret gets an owner and a mode with which only the service reads it. `named_in`: the configuration file that names it.
pub(super) fn make_private(path: &Path, named_in: &Path) -> String {
    let shown = shell_word(path);
    if is_own(path, named_in) {
        return format!("run: sudo chown {USER}: {shown} && sudo chmod 600 {shown}");
    }
    let folder = named_in.parent().unwrap_or(Path::new(""));
    let copy = shell_word(&folder.join(path.file_name().unwrap_or_default()));
    format!(
        "leave it as it is, and name a copy that is the service's own: sudo install -o {USER} -g {USER} -m 600 {shown} {copy}"
    )
}

/// It lies, all links followed, in the folder of the configuration that names it, and that is no folder of the whole machine.
fn is_own(path: &Path, named_in: &Path) -> bool {
    let folder = named_in.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(real), Ok(folder)) = (fs::canonicalize(path), fs::canonicalize(folder)) else { return false };
    !is_everybodys(&folder) && real.starts_with(&folder)
}

/// Whether the group of a file or folder may be changed, with all below it, without taking it from somebody else.
pub(super) fn may_be_given(path: &Path) -> bool {
    let Ok(real) = fs::canonicalize(path) else { return false };
    let folder = if real.is_dir() { Some(real.as_path()) } else { real.parent() };
    folder.is_some_and(|folder| !is_everybodys(folder))
}

/// A folder of the whole machine (`/etc`), or somebody's home.
fn is_everybodys(folder: &Path) -> bool {
    let depth = folder.components().filter(|part| matches!(part, Component::Normal(_))).count();
    depth < if folder.starts_with("/home") { 3 } else { 2 }
}

/// A path as a shell takes it.
pub(super) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-+:@".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
