//! Whether the spool could lie where it is told to. Only looked at: nothing is made or written here.
//!
//! The answer is for whoever will write there: for `fieldspool check` the service's user if this machine has one, for the daemon
//! itself. What may not be looked at is not judged. A state directory that nobody named is systemd's to make, and only has to be
//! no file.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, User, access, geteuid};

use super::service::{USER, lacks, shell_word};

/// Who will write there.
#[derive(Clone, Debug)]
pub(super) enum Writer {
    /// This process.
    Us,
    /// The service, which is somebody else.
    Service(User),
}

impl Writer {
    /// Of whom `fieldspool check` asks: without such a user, and if it is asked by that user, of itself.
    pub(super) fn of_service() -> Self {
        Self::of(USER).unwrap_or(Self::Us)
    }

    /// Somebody else.
    pub(super) fn of(name: &str) -> Option<Self> {
        let user = User::from_name(name).ok().flatten()?;
        (user.uid != geteuid()).then_some(Self::Service(user))
    }

    /// A folder of another user that this one may not look into. Without a service's user here the gateway runs as whoever starts it,
    /// maybe as that one: that it could not write there is more than can be known.
    pub(super) fn cannot_tell(&self, directory: &Path) -> bool {
        let is_anothers =
            fs::metadata(directory).is_ok_and(|folder| folder.is_dir() && folder.uid() != geteuid().as_raw());
        let is_closed = || access(directory, AccessFlags::R_OK | AccessFlags::X_OK).is_err();
        let no_service = || matches!((self, User::from_name(USER)), (Self::Us, Ok(None)));
        is_anothers && is_closed() && no_service()
    }

    fn may_write(&self, folder: &Path) -> bool {
        match self {
            // The kernel knows of read-only mounts and sandboxes too.
            Self::Us => access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
            Self::Service(user) => fs::metadata(folder).is_ok_and(|metadata| !lacks(user, &metadata, 0o3)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Us => "by this user".to_owned(),
            Self::Service(_) => format!("by the service's user {USER}"),
        }
    }
}

/// What keeps the spool from lying there, and what to do; `None` if nothing is known to. `named`: by a person, with `state_directory`.
pub(super) fn obstacle(directory: &Path, named: bool, writer: &Writer) -> Option<(String, String)> {
    let shown = directory.display();
    let there = nearest(directory)?;
    let another = "name a folder: state_directory = \"/var/lib/fieldspool\"".to_owned();
    if !there.is_dir() {
        return Some((format!("{} is not a directory", there.display()), another));
    }
    let lost =
        directory.ancestors().find(|path| path.is_symlink() && path.starts_with(there) && *path != there);
    if let Some(link) = lost {
        let what = if link == directory { String::new() } else { format!("{shown} does not exist: ") };
        let what = format!("{what}{} is a link that leads nowhere", link.display());
        return Some((what, format!("mount its disk, or {another}")));
    }
    if !named || writer.may_write(there) {
        return None;
    }
    // Owner and mode of what is there already are never to be changed: it may be anybody's.
    let own = if there == directory { directory.join("fieldspool") } else { directory.to_owned() };
    let (what, then) = if there == directory {
        let then = format!(", and name that: state_directory = \"{}\"", own.display());
        (format!("{shown} cannot be written {}", writer.name()), then)
    } else {
        let made =
            format!("{shown} does not exist, and cannot be made in {} {}", there.display(), writer.name());
        (made, String::new())
    };
    let own = shell_word(&own);
    let make = format!("run: sudo install -d -o {USER} -g {USER} -m 750 {own}{then}");
    let allow =
        format!("the unit must allow it too: sudo systemctl edit fieldspool, [Service] ReadWritePaths={own}");
    Some((what, format!("{make}; {allow}")))
}

/// The directory itself, or the nearest above it that is there; `None` if this user may not see.
fn nearest(directory: &Path) -> Option<&Path> {
    for path in directory.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        match path.try_exists() {
            Ok(true) => return Some(path),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(_) => return None,
        }
    }
    None
}
