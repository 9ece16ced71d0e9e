//! What a reload says of folders that are gone, by real ones and by lists of mounts.

use super::super::{Folders, Loaded, load};
use super::*;

/// An image's folder and one of the user's, each with a bus.
struct Two {
    dir: tempfile::TempDir,
}

impl Two {
    fn new() -> Self {
        let two = Self { dir: tempfile::tempdir().unwrap() };
        for (name, bus) in [("lib/site.toml", "roof"), ("etc/plant.toml", "hall"), ("etc/late.toml", "yard")]
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
fn one_of_two_folders_that_is_gone_refuses_the_reload() {
    let two = Two::new();
    let old = two.config();
    assert_eq!(old.buses.len(), 3);
    assert_eq!(two.vanished(&old), None);
    let (etc, away) = (two.dir.path().join("etc"), two.dir.path().join("away"));
    fs::rename(&etc, &away).unwrap();
    let said = two.vanished(&old).unwrap();
    assert!(said.starts_with(&format!("{}: the configuration folder is gone; ", etc.display())), "{said}");
    assert!(said.contains("etc/idle.toml") && said.ends_with("and reload, or restart"), "{said}");
    assert!(!said.contains("/lib"), "{said}");
    // What is left has a fault, too: what is missing is said first.
    two.write("lib/site.toml", "[bus.\n");
    let said = two.vanished(&old).unwrap();
    assert!(said.contains("folder is gone") && said.ends_with("and reload"), "{said}");
    two.write("lib/site.toml", "");
    // An empty file is the user's word; so is what was away.
    two.write("etc/idle.toml", "");
    assert_eq!(two.vanished(&old), None);
    fs::remove_dir_all(&etc).unwrap();
    fs::rename(&away, &etc).unwrap();
    assert_eq!(two.vanished(&old), None);
}

/// The image with its card, and what may be mounted over the folder.
const ROOT: &str = "22 1 179:2 / / rw - ext4 /dev/root rw\n30 22 179:3 / /data rw - ext4 /dev/data rw\n";
const OVER_ETC: &str = "40 22 179:3 /conf /etc/fieldspool rw - ext4 /dev/data rw\n";
const STICK: &str = "41 40 8:1 / /etc/fieldspool rw - vfat /dev/sda1 rw\n";

/// What a reload says of the folder `etc` that was on the last mount of one list, and with the other list is on the mount of
/// this id, with its files or without one. Files are left in `lib`.
fn said_of_etc(before: &str, after: &str, id: u64, files: bool) -> Option<String> {
    let two = Two::new();
    let (mut old, mut new) = (two.config(), two.config());
    let (before, after) = (mounts::parse(before), mounts::parse(after));
    for (config, all, id, files) in
        [(&mut old, &before, before.last().unwrap().id, true), (&mut new, &after, id, files)]
    {
        let etc = config.from.iter_mut().find(|origin| origin.folder.ends_with("etc")).unwrap();
        (etc.mounts, etc.has_files) = (mounts::stack(all, id), files);
    }
    old.vanished_from(Some(&new), &after)
}

#[test]
fn a_mount_that_is_gone_refuses_the_reload_whatever_lies_under_it() {
    for files in [true, false] {
        for (before, after, on) in [
            ([ROOT, OVER_ETC].concat(), ROOT.to_owned(), 22),
            // One that was mounted over another one, on the same folder.
            ([ROOT, OVER_ETC, STICK].concat(), [ROOT, OVER_ETC].concat(), 40),
            // Both at once.
            ([ROOT, OVER_ETC, STICK].concat(), ROOT.to_owned(), 22),
            // The folder is a link to one of /data.
            (ROOT.to_owned(), ROOT.lines().next().unwrap().to_owned(), 22),
        ] {
            let said = said_of_etc(&before, &after, on, files).unwrap();
            let point = if before == ROOT { "/data" } else { "/etc/fieldspool" };
            assert!(said.contains(&format!("etc: what was mounted on {point} is gone; ")), "{said}");
            assert!(said.ends_with("and reload, or restart to take what is there now"), "{said}");
            assert!(!said.contains("idle.toml"), "an empty file would not be taken: {said}");
        }
    }
}

#[test]
fn a_folder_that_went_with_its_mount_or_behind_its_link_is_not_to_be_filled_with_an_empty_file() {
    let said = |before: &str, after: &str, change: &dyn Fn(&Path)| {
        let two = Two::new();
        let mut old = two.config();
        let before = mounts::parse(before);
        let etc = old.from.iter_mut().find(|origin| origin.folder.ends_with("etc")).unwrap();
        etc.mounts = mounts::stack(&before, before.last().unwrap().id);
        change(&two.dir.path().join("etc"));
        old.vanished_from(two.read().config.as_ref(), &mounts::parse(after)).unwrap()
    };
    // It lay in a folder of the mount; or its link leads to one: what is left of both is nothing.
    let remove: &dyn Fn(&Path) = &|etc| fs::remove_dir_all(etc).unwrap();
    let dangle: &dyn Fn(&Path) = &|etc| {
        fs::remove_dir_all(etc).unwrap();
        std::os::unix::fs::symlink("/nowhere/conf", etc).unwrap();
    };
    let root = ROOT.lines().next().unwrap();
    // A start is refused behind a link that leads nowhere.
    for (change, restart) in [(remove, ", or restart to take what is there now"), (dangle, "")] {
        let said = said(ROOT, root, change);
        let gone = "etc: what was mounted on /data is gone; bring it back and reload";
        assert!(said.ends_with(&format!("{gone}{restart}")), "{said}");
    }
    let link = said(ROOT, ROOT, dangle);
    assert!(link.ends_with("etc leads nowhere; bring it back and reload"), "{link}");
    // The mount stands, or nobody knows.
    for after in [ROOT, ""] {
        let said = said(ROOT, after, remove);
        assert!(said.contains("folder is gone") && said.contains("etc/idle.toml"), "{said}");
    }
}

#[test]
fn another_mount_with_files_is_taken_and_one_without_is_not() {
    let cases = [
        ("mounted over the folder", ROOT.lines().next().unwrap().to_owned(), [ROOT, OVER_ETC].concat(), 40),
        ("over a mount", [ROOT, OVER_ETC].concat(), [ROOT, OVER_ETC, STICK].concat(), 41),
        (
            "in place of one",
            [ROOT, OVER_ETC].concat(),
            ROOT.to_owned() + &STICK.replace("41 40", "41 22"),
            41,
        ),
        (
            "another folder of the same disk",
            [ROOT, OVER_ETC].concat(),
            ROOT.to_owned() + &OVER_ETC.replace("/conf", "/next"),
            40,
        ),
        ("a link that points elsewhere now", ROOT.to_owned(), ROOT.to_owned(), 22),
    ];
    for (what, before, after, on) in cases {
        assert_eq!(said_of_etc(&before, &after, on, true), None, "{what}");
        let said = said_of_etc(&before, &after, on, false).unwrap();
        assert!(said.contains("etc: no configuration file"), "{what}: {said}");
    }
    let said = said_of_etc(ROOT, ROOT, 99, true).unwrap();
    assert!(said.contains("changed while it was read"), "{said}");
}

#[test]
fn the_last_file_of_a_folder_may_be_removed_on_purpose_while_its_mount_is_the_same() {
    // Mounted anew meanwhile, under another number.
    let again = [ROOT, &OVER_ETC.replace("40 22", "77 22")].concat();
    assert_eq!(said_of_etc(&[ROOT, OVER_ETC].concat(), &again, 77, false), None);
    let two = Two::new();
    let old = two.config();
    // What a first write does to a folder of an overlay: it is another inode.
    let etc = two.dir.path().join("etc");
    fs::rename(&etc, two.dir.path().join("away")).unwrap();
    fs::create_dir(&etc).unwrap();
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
    assert_eq!(two.vanished(&old), None, "the last one, but the folder is the same and the image has a file");
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
