//! Where a configuration came from, and whether that is gone.
//!
//! A folder that is not mounted looks like one that nobody ever wrote to. So while a configuration is in force, absence is
//! not the user's word (P9): a folder of its files that a reload finds gone, replaced by another one without a file, or with all
//! the rest without any, refuses the reload, although the other folders may have files enough. Another folder with files of its own
//! is taken: that is how people replace a configuration, and it cannot be told from what lies under a mount that was lost. What a user does on purpose is told
//! apart: a file removed from a folder that is still the same, while others are left somewhere, is an ordinary change; and a
//! file without a line in it says that nothing is to be read.
//!
//! The same folder is the same device, inode and time of birth: an empty mount point is another one than what was mounted on
//! it. Where a folder cannot be told from another one, it counts as another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Config;

/// What tells a folder from another one of the same name.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

/// A folder in which configuration files may lie, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name.
    pub folder: PathBuf,
    /// `None` if it changed while it was read.
    pub(super) identity: Option<Identity>,
    /// A `*.toml` lies in it.
    pub(super) has_files: bool,
    /// One of them has a say, or takes another one's away.
    pub(super) counts: bool,
}

impl Origin {
    /// The folder as it is now; `None` if there is none.
    fn now(folder: &Path) -> Option<Self> {
        let is_file = |entry: fs::DirEntry| is_configuration(&entry);
        let has_files = fs::read_dir(folder).ok()?.flatten().any(is_file);
        Some(Self { folder: folder.to_path_buf(), identity: identity(folder), has_files, counts: has_files })
    }

    fn is_the_same(&self, now: &Self) -> bool {
        self.identity.is_some() && self.identity == now.identity
    }
}

/// What tells a folder from another one; `None` if it is not there.
pub(super) fn identity(folder: &Path) -> Option<Identity> {
    let metadata = fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

/// It is named like a configuration file.
pub(super) fn is_configuration(entry: &fs::DirEntry) -> bool {
    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    entry.path().extension().is_some_and(|extension| extension == "toml") && !hidden
}

impl Config {
    /// What of this configuration's folders is gone where `new` was read, or could not be: in words, with what to do; `None` if
    /// nothing is.
    pub fn vanished(&self, new: Option<&Self>) -> Option<String> {
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
        let gone: Vec<(&Origin, &str)> = origins()
            .zip(&now)
            .filter_map(|(old, now)| match now {
                None => Some((old, "the configuration folder is gone")),
                Some(now) if now.has_files || (any_left && old.is_the_same(now)) => None,
                Some(_) => Some((old, "no configuration file (*.toml) is left")),
            })
            .collect();
        let what: Vec<String> =
            gone.iter().map(|(old, what)| format!("{}: {what}", old.folder.display())).collect();
        let idle: Vec<String> =
            gone.iter().map(|(old, _)| old.folder.join("idle.toml").display().to_string()).collect();
        // A start that would be refused is no way out.
        let restart = if new.is_some() { ", or restart" } else { "" };
        (!gone.is_empty()).then(|| {
            format!(
                "{}; bring it back and reload; to read nothing from there on purpose, put an empty file there ({}) and \
                 reload{restart}",
                what.join("; "),
                idle.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Folders, Loaded, load};
    use super::*;

    /// An image's folder and one that is mounted, each with a bus.
    struct Two {
        dir: tempfile::TempDir,
    }

    impl Two {
        fn new() -> Self {
            let two = Self { dir: tempfile::tempdir().unwrap() };
            for (name, bus) in
                [("lib/site.toml", "roof"), ("etc/plant.toml", "hall"), ("etc/late.toml", "yard")]
            {
                two.write(name, &format!("[bus.{bus}.link.modbus-tcp]\nhost = \"127.0.0.1\"\n"));
            }
            two
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn remove(&self, name: &str) {
            fs::remove_file(self.dir.path().join(name)).unwrap();
        }

        fn read(&self) -> Loaded {
            let config = ["lib", "run", "etc"].map(|folder| self.dir.path().join(folder));
            load(&Folders { config: config.into(), profiles: Vec::new(), named: false })
        }

        fn config(&self) -> Config {
            let loaded = self.read();
            loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.faults))
        }

        /// What a reload would say.
        fn vanished(&self, old: &Config) -> Option<String> {
            old.vanished(self.read().config.as_ref())
        }
    }

    #[test]
    fn one_of_two_folders_that_is_not_mounted_refuses_the_reload() {
        let two = Two::new();
        let old = two.config();
        assert_eq!(old.buses.len(), 3);
        assert_eq!(two.vanished(&old), None);
        let (etc, away) = (two.dir.path().join("etc"), two.dir.path().join("away"));
        fs::rename(&etc, &away).unwrap();
        let said = two.vanished(&old).unwrap();
        assert!(
            said.starts_with(&format!("{}: the configuration folder is gone; ", etc.display())),
            "{said}"
        );
        assert!(said.contains("etc/idle.toml") && said.ends_with("and reload, or restart"), "{said}");
        // The mount point, without what was mounted on it.
        fs::create_dir(&etc).unwrap();
        let said = two.vanished(&old).unwrap();
        assert!(said.starts_with(&format!("{}: no configuration file", etc.display())), "{said}");
        assert!(!said.contains("/lib"), "{said}");
        // What is left has a fault, too: what is missing is said first.
        two.write("lib/site.toml", "[bus.\n");
        let said = two.vanished(&old).unwrap();
        assert!(said.contains("no configuration file") && said.ends_with("and reload"), "{said}");
        two.write("lib/site.toml", "");
        // An empty file is the user's word; so is what was away.
        two.write("etc/idle.toml", "");
        assert_eq!(two.vanished(&old), None);
        fs::remove_dir_all(&etc).unwrap();
        fs::rename(&away, &etc).unwrap();
        assert_eq!(two.vanished(&old), None);
    }

    #[test]
    fn a_file_that_was_named_by_itself_does_not_bind_the_folder_around_it() {
        let two = Two::new();
        let file = two.dir.path().join("etc/plant.toml");
        let read = || load(&Folders { config: vec![file.clone()], profiles: Vec::new(), named: true });
        let old = read().config.unwrap();
        assert_eq!(old.vanished(read().config.as_ref()), None);
        two.remove("etc/plant.toml");
        two.remove("etc/late.toml");
        let gone = read();
        assert_eq!(old.vanished(gone.config.as_ref()), None);
        assert!(gone.refusal().unwrap().contains("etc/plant.toml: cannot be read"), "the read refuses it");
    }

    #[test]
    fn a_file_that_is_removed_or_replaced_on_purpose_is_an_ordinary_change() {
        let two = Two::new();
        let old = two.config();
        two.remove("etc/late.toml");
        assert_eq!(two.vanished(&old), None, "one drop-in of two");
        two.remove("etc/plant.toml");
        assert_eq!(
            two.vanished(&old),
            None,
            "the last one, but the folder is the same and the image has a file"
        );
        two.remove("lib/site.toml");
        let said = two.vanished(&old).unwrap();
        assert!(
            said.contains("lib: no configuration file") && said.contains("etc: no configuration file"),
            "{said}"
        );

        let two = Two::new();
        let old = two.config();
        two.write("etc/site.toml", "");
        let replaced = two.config();
        assert_eq!(old.vanished(Some(&replaced)), None, "a file that replaces one of an earlier folder");
        fs::remove_dir_all(two.dir.path().join("lib")).unwrap();
        assert_eq!(two.vanished(&replaced), None, "what had no say is not missed");
        assert!(two.vanished(&old).is_some());
    }
}
