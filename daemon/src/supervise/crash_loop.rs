//! Tells a crash loop: [`STARTS`] starts within [`WINDOW`] without a stop in order. Then the gateway starts in safe
//! mode, sampling and storing only, so that a poison reading or a broker's message cannot keep it from its first duty.
//!
//! The memory is the file `starts` in the state directory: one line for each start since the last stop in order, with
//! the boot and its CLOCK_BOOTTIME in seconds. Wall time is not asked: it may be wrong and may jump. A gateway that reboots in a loop
//! has a crash loop too, so starts of earlier boots count, by their number: how old they are nobody knows. But a life that lasts for
//! [`WINDOW`] takes all lines away, its own too, so that none counts which was followed by a good time; that is what people are told
//! (`words::CRASH_LOOP`). A power cut is a stop out of order as well, and five power cuts during one installation afternoon must not
//! end in safe mode: lines of other boots count at most [`OTHER_BOOTS`]. What cannot be read counts as nothing; what cannot be
//! written is tried again (`unwritten`).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::BootId;
use crate::spool::SpoolError;

/// So many starts in [`WINDOW`] are a loop.
const STARTS: usize = 5;
/// ... within so much running time.
const WINDOW: Duration = Duration::from_secs(600);
/// Starts of earlier boots count as at most so many: one reboot may be part of a loop, power cuts alone are not.
const OTHER_BOOTS: usize = 2;
/// Lines kept.
const LINES_MAX: usize = 16;

/// One start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    boot: BootId,
    seconds: u64,
}

/// The starts since the last stop in order, this one included.
#[derive(Clone, Debug)]
pub struct Starts {
    path: PathBuf,
    starts: Vec<Start>,
}

impl Starts {
    /// Reads the file and adds this start.
    pub fn begin(state: &Path, boot: BootId, since_boot: Duration) -> Self {
        let path = state.join("starts");
        let mut starts = fs::read_to_string(&path).map(|text| parse(&text)).unwrap_or_default();
        starts.push(Start { boot, seconds: since_boot.as_secs() });
        let surplus = starts.len().saturating_sub(LINES_MAX);
        starts.drain(..surplus);
        Self { path, starts }
    }

    /// Whether this start is the last of a loop.
    pub fn looping(&self) -> bool {
        let Some(now) = self.starts.last() else { return false };
        let same_boot = |start: &&Start| start.boot == now.boot;
        let recent = |start: &&Start| now.seconds.saturating_sub(start.seconds) <= WINDOW.as_secs();
        let here = self.starts.iter().filter(same_boot).filter(recent).count();
        let before = self.starts.iter().filter(|start| start.boot != now.boot).count().min(OTHER_BOOTS);
        // Earlier boots matter only while this boot is young: after ten minutes of running they are no loop.
        let before = if now.seconds <= WINDOW.as_secs() { before } else { 0 };
        here + before >= STARTS
    }

    /// Told `since_boot` at every turn. A life that has lasted ends every loop: gives the file that is to be removed then, once.
    pub(super) fn lasted(&mut self, since_boot: Duration) -> Option<PathBuf> {
        let began = self.starts.last()?.seconds;
        if since_boot.as_secs().saturating_sub(began) < WINDOW.as_secs() {
            return None;
        }
        self.starts.clear();
        Some(self.path.clone())
    }

    /// Writes this start down, so that the next one sees it.
    pub fn remember(&self) -> io::Result<()> {
        write_whole(&self.path, &self.text())
    }

    /// This start is written down.
    pub(super) fn are_remembered(&self) -> bool {
        fs::read(&self.path).is_ok_and(|found| found == self.text().as_bytes())
    }

    fn text(&self) -> String {
        self.starts.iter().fold(String::new(), |mut text, start| {
            let _ = writeln!(text, "{:032x} {}", start.boot.0, start.seconds);
            text
        })
    }

    /// The start did not happen because another instance holds the state directory: it counts for nobody.
    pub(super) fn not_ours(mut self, error: &SpoolError) -> io::Result<()> {
        if matches!(error, SpoolError::Locked { .. }) {
            self.starts.pop();
            return self.remember();
        }
        Ok(())
    }

    /// A stop in order: the count begins anew.
    pub fn stopped_in_order(&self) -> io::Result<()> {
        forget(&self.path)
    }
}

/// Removes the file: no start counts any more.
pub(super) fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse(text: &str) -> Vec<Start> {
    let line = |line: &str| {
        let (boot, seconds) = line.split_once(' ')?;
        Some(Start { boot: BootId(u128::from_str_radix(boot, 16).ok()?), seconds: seconds.parse().ok()? })
    };
    text.lines().take(1_000).filter_map(line).collect()
}

/// Replaces a small file as a whole: a reader sees the old text or the new one. Not synced: losing it costs nothing but memory.
pub(super) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // On a full disk it was made, and nothing came into it.
        drop(fs::remove_file(new));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId(7);

    fn start(dir: &Path, boot: BootId, seconds: u64) -> Starts {
        let starts = Starts::begin(dir, boot, Duration::from_secs(seconds));
        starts.remember().unwrap();
        starts
    }

    #[test]
    fn the_fifth_start_in_ten_minutes_is_a_loop() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..4 {
            assert!(!start(dir.path(), BOOT, 1_000 + n * 100).looping(), "start {n}");
        }
        assert!(start(dir.path(), BOOT, 1_500).looping());
        assert!(!start(dir.path(), BOOT, 2_300).looping(), "ten quiet minutes end it");
    }

    #[test]
    fn people_are_told_the_numbers_that_are_counted() {
        let told = format!("{STARTS} starts in a row, none of which lasted {} min", WINDOW.as_secs() / 60);
        assert!(crate::page::words::CRASH_LOOP.starts_with(&told), "{told}");
    }

    #[test]
    fn a_life_that_lasted_counts_against_no_later_boot() {
        let lasts = |starts: &mut Starts, seconds| match starts.lasted(Duration::from_secs(seconds)) {
            Some(file) => forget(&file).is_ok(),
            None => false,
        };
        for (life, looping) in [(599, true), (600, false)] {
            let dir = tempfile::tempdir().unwrap();
            for boot in [1, 2] {
                let mut starts = start(dir.path(), BootId(boot), 30);
                assert_eq!(lasts(&mut starts, 30 + life), !looping);
                assert!(!lasts(&mut starts, 30 + life), "only once, if at all");
            }
            // Perhaps a year later.
            let last = [30, 40, 50].map(|seconds| start(dir.path(), BOOT, seconds).looping());
            assert_eq!(last, [false, false, looping], "after lives of {life} s");
        }
    }

    #[test]
    fn a_stop_in_order_begins_the_count_anew() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..20 {
            let starts = start(dir.path(), BOOT, 1_000 + n);
            assert!(!starts.looping(), "start {n}");
            starts.stopped_in_order().unwrap();
        }
    }

    #[test]
    fn power_cuts_alone_are_no_crash_loop() {
        let dir = tempfile::tempdir().unwrap();
        for boot in 0..10 {
            assert!(!start(dir.path(), BootId(boot), 30).looping(), "boot {boot}");
        }
        assert!(!start(dir.path(), BootId(9), 40).looping());
        assert!(start(dir.path(), BootId(9), 50).looping(), "three starts in a young boot after others");
    }

    #[test]
    fn garbage_in_the_file_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("starts"), b"\xff\xfe garbage").unwrap();
        assert!(!start(dir.path(), BOOT, 1).looping());
        fs::write(dir.path().join("starts"), "zz 1\n\n12\n7 99999999999999999999999\n").unwrap();
        assert!(!start(dir.path(), BOOT, 1).looping());
    }
}
