//! An ext4 of its own on a loop device, whose power can be cut and which can be made to fail. Needs root and loop mounts.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers;

/// A mounted file system. Unmounted when dropped.
pub struct Disk {
    dir: tempfile::TempDir,
    /// How often it had to move to another image.
    moved: Cell<u32>,
}

impl Disk {
    /// Makes and mounts one of `megabytes`; an error says what this machine refused.
    pub fn mount(megabytes: u64) -> Result<Self, String> {
        let disk = Self { dir: tempfile::tempdir().unwrap(), moved: Cell::new(0) };
        fs::File::create(disk.image()).unwrap().set_len(megabytes << 20).unwrap();
        fs::create_dir(disk.folder()).unwrap();
        done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount_again()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join(format!("image{}", self.moved.get()))
    }

    /// Cuts its power: what was not synced is gone. Whoever uses it gets errors until it is mounted again.
    pub fn cut(&self) {
        done(Command::new(peers::program("power_cut")).arg(self.folder())).unwrap();
    }

    /// The power comes back. Nobody may have a file of it open.
    pub fn power_on(&self) {
        done(Command::new("umount").arg(self.folder())).unwrap();
        let old = self.image();
        let attached = Command::new("losetup").arg("-j").arg(&old).output().unwrap();
        if !attached.stdout.is_empty() {
            // A process with mounts of its own (a browser's sandbox) was begun meanwhile and still holds this one: mounted again,
            // it would be the one whose power is off.
            self.moved.set(self.moved.get() + 1);
            done(Command::new("cp").arg("--sparse=always").args([&old, &self.image()])).unwrap();
            fs::remove_file(old).unwrap();
        }
        self.mount_again().unwrap();
    }

    /// What a dying card does to a file system: from now on it is read-only, under those who have its files open.
    pub fn abort(&self) {
        // mount(8) reports the abort that it asked for as an error.
        let _ = done(Command::new("mount").args(["-o", "remount,abort"]).arg(self.folder()));
        let probe = fs::write(self.folder().join("probe"), "x");
        assert!(probe.is_err(), "an aborted file system takes nothing");
    }

    fn mount_again(&self) -> Result<(), String> {
        done(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.folder()))
    }

    /// A folder on it that takes the place of `path`.
    pub fn take_place_of(&self, path: &Path) {
        let there = self.folder().join("var");
        fs::create_dir(&there).unwrap();
        fs::remove_dir(path).unwrap();
        std::os::unix::fs::symlink(&there, path).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a gateway that is dropped later may still have a file open.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder()).output();
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
