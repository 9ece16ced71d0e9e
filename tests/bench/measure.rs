//! What a process costs: processor time, peak memory, sectors written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Processor time of all threads of a process so far (`/proc/PID/task/*/schedstat`, nanoseconds).
pub fn processor_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Memory of a process, KiB: `VmHWM` (peak resident), `VmRSS` (resident).
pub fn memory(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// An ext4 of its own on a loop device, so that sectors written can be counted.
pub struct Disk {
    pub folder: PathBuf,
    image: PathBuf,
    device: String,
}

/// Bytes of an ext4 block unless something else is measured: what mke2fs takes from 512 MiB on. Smaller ones get 1 024.
pub const BLOCK: u64 = 4096;

/// What mkfs would leave for the kernel to write later, in the background of a measurement.
const AT_ONCE: &str = "lazy_itable_init=0,lazy_journal_init=0";

impl Disk {
    /// With blocks of so many bytes. `None` where this user may not mount.
    pub fn mount(under: &Path, block: u64) -> Option<Self> {
        let (image, folder) = (under.join("disk.img"), under.join("disk"));
        fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        fs::create_dir_all(&folder).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
        let made = done(
            Command::new("mkfs.ext4").args(["-q", "-F", "-E", AT_ONCE, "-b", &block.to_string()]).arg(&image),
        ) && done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder));
        if !made {
            return None;
        }
        let output = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&folder).output().unwrap();
        let device = String::from_utf8(output.stdout).unwrap().trim().trim_start_matches("/dev/").to_owned();
        Some(Self { folder, image, device })
    }

    /// The state directory on it; made if need be.
    pub fn state(&self) -> PathBuf {
        let state = self.folder.join("var");
        fs::create_dir_all(&state).unwrap();
        state
    }

    /// Bytes written to the device so far; everything pending is written first.
    pub fn written(&self) -> u64 {
        Command::new("sync").status().unwrap();
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.device)).unwrap();
        // Field 7: sectors of 512 bytes written (Documentation/block/stat.rst).
        text.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
        let _ = fs::remove_file(&self.image);
    }
}

/// Who measured: processor, cores, kernel, commit.
pub fn machine() -> String {
    let word = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split(':').nth(1))
        .unwrap_or("?")
        .trim()
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = word("git", &["rev-parse", "--short", "HEAD"]);
    format!("{cpu}, {cores} cores, Linux {}, commit {commit}", word("uname", &["-r"]))
}
