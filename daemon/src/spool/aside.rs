//! Setting a file aside: it, its log and its index go together into a folder of their own, whatever a power cut leaves of
//! the way there.
//!
//! A log apart from its file loses what was stored and not yet written back. So the destination is written down first, in the file
//! `aside` of the state directory, and whoever opens the spool looks there first and completes what was begun. The file
//! moves last: where it is in the folder, everything is.
//!
//! What is done is a list of [`Step`]s, so that a test can cut it everywhere. Between two steps that sync the state
//! directory any of them may be lost. Renames are taken to be atomic, as they are on every journaling file system.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::open;
use super::store::FILE;
use crate::model::RunId;

/// The folder of what is damaged.
pub(super) const QUARANTINE: &str = "quarantine";

/// The folder of what a newer program has made.
pub(super) const NEWER: &str = "newer";

/// The file that says where to.
const MARKER: &str = "aside";

/// What belongs to the file and moves before it.
const BESIDE: [&str; 3] = ["-shm", "-wal", super::copy::SUFFIX];

/// One operation on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Make a folder, unless it is there.
    Folder(PathBuf),
    /// Write a file, fsynced; what cannot be written whole is not left there.
    Write(PathBuf, String),
    /// Rename, unless it is gone from there.
    Rename(PathBuf, PathBuf),
    /// Remove, unless it is gone.
    Remove(PathBuf),
    /// Make durable what changed in a folder.
    Sync(PathBuf),
}

impl Step {
    fn perform(&self) -> io::Result<()> {
        let gone_is_fine = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        match self {
            Self::Folder(path) => fs::create_dir_all(path),
            Self::Write(path, text) => {
                let write = || {
                    let mut file = File::create(path)?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                };
                // On a full disk it was made, and nothing came into it.
                write().inspect_err(|_| drop(fs::remove_file(path)))
            }
            Self::Rename(from, to) => gone_is_fine(fs::rename(from, to)),
            Self::Remove(path) => gone_is_fine(fs::remove_file(path)),
            Self::Sync(folder) => File::open(folder)?.sync_all(),
        }
    }
}

/// Moves the file, its log and its index together out of the way, to `folder/<run>`; gives the new place of the file.
/// Nothing is changed in them.
pub(super) fn set_aside(file: &Path, folder: &str, run: RunId) -> io::Result<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let arrived = finish(directory)?;
    if !file.try_exists()? {
        if let Some(to) = arrived {
            // It had been on its way since a failure before.
            return Ok(to);
        }
        // Removed, and its log and its copy tell of it all the same: a folder without a file is none.
        File::create_new(file)?.sync_all()?;
    }
    let (mut there, mut told) = (Vec::new(), true);
    for kind in kinds(directory) {
        match entries(&kind) {
            Ok(entries) => there.extend(entries),
            Err(_) => told = false,
        }
    }
    // One that failed before it had written down where to has left it empty.
    there.retain(|folder| !fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()));
    // Where the disk does not tell what is there, a number that is drawn makes it a name that nothing has, behind the others.
    let name = if told { name(&there, run) } else { format!("{run}.{}", open::random_part() | 1 << 31) };
    for step in begin(directory, folder, &name).iter().chain(&complete(directory, folder, &name)?) {
        step.perform()?;
    }
    Ok(directory.join(folder).join(name).join(FILE))
}

/// A name that is behind those of all folders of this run, also of those that went before the newest.
fn name(there: &[PathBuf], run: RunId) -> String {
    let run = run.to_string();
    let own = there.iter().map(|folder| age(folder)).filter(|(of, _)| *of == run);
    match own.map(|(_, again)| again).max() {
        Some(again) => format!("{run}.{}", again.saturating_add(1)),
        None => run,
    }
}

/// All folders of what was set aside: of damaged files and of those of newer programs, as far as the disk tells. What somebody else put
/// there is his, if it is no folder.
pub(super) fn folders(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        kinds(directory).iter().flat_map(|kind| entries(kind).unwrap_or_default()).collect();
    found.retain(|path| path.is_dir());
    found
}

/// Where they lie.
pub(super) fn kinds(directory: &Path) -> [PathBuf; 2] {
    [NEWER, QUARANTINE].map(|kind| directory.join(kind))
}

/// What lies in one of these. An error: the disk does not tell.
pub(super) fn entries(kind: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(kind) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if is_no_folder(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// There is none of that name, or it is no folder.
pub(super) fn is_no_folder(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Orders folders by when they were made: by the run in the name, and then by how many there were of it.
pub(super) fn age(folder: &Path) -> (String, u32) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    match name.split_once('.') {
        Some((run, again)) => (run.to_owned(), again.parse().unwrap_or_default()),
        None => (name.into_owned(), 0),
    }
}

/// The counter of the newest run that has set a file aside. A life that was cut off right after that is remembered nowhere
/// else: if the next one had its counter too, nobody could say which of their folders is the older.
pub(super) fn last_counter(directory: &Path) -> u32 {
    let folders = folders(directory);
    let runs = folders.iter().filter_map(|folder| age(folder).0.parse::<RunId>().ok());
    runs.map(|run| run.counter).max().unwrap_or_default()
}

/// Completes what a power cut or a failing disk interrupted; gives the place of the file, if there was something to do. Must
/// be called before anything opens the spool. An error: the spool must not be opened yet.
pub(super) fn finish(directory: &Path) -> io::Result<Option<PathBuf>> {
    let text = match fs::read(directory.join(MARKER)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((folder, name)) = destination(&text) else {
        // Not ours: it moves nothing anywhere.
        Step::Remove(directory.join(MARKER)).perform()?;
        return Ok(None);
    };
    for step in complete(directory, folder, name)? {
        step.perform()?;
    }
    Ok(Some(directory.join(folder).join(name).join(FILE)))
}

/// Whether a file is on its way: what is still in the state directory is not the whole spool.
pub(super) fn unfinished(directory: &Path) -> bool {
    directory.join(MARKER).exists()
}

/// The folder exists and the destination is written down.
fn begin(directory: &Path, folder: &str, name: &str) -> Vec<Step> {
    let new = directory.join(format!("{MARKER}.new"));
    vec![
        Step::Folder(directory.join(folder).join(name)),
        Step::Sync(directory.join(folder)),
        Step::Sync(directory.to_owned()),
        Step::Write(new.clone(), format!("{folder}/{name}\n")),
        Step::Rename(new, directory.join(MARKER)),
        Step::Sync(directory.to_owned()),
    ]
}

/// Everything is in the folder and nothing is written down any more. May be done again from the start at any time.
fn complete(directory: &Path, folder: &str, name: &str) -> io::Result<Vec<Step>> {
    let to = directory.join(folder).join(name);
    let moved = |suffix: &str| {
        let name = format!("{FILE}{suffix}");
        Step::Rename(directory.join(&name), to.join(name))
    };
    let mut steps = vec![Step::Folder(to.clone())];
    // Where the file has arrived, a file in its old place is another one: it began after that. A disk that cannot tell must not
    // have the one take the place of the other.
    if !to.join(FILE).try_exists()? {
        steps.extend(BESIDE.map(moved));
        steps.extend([Step::Sync(to.clone()), Step::Sync(directory.to_owned())]);
        steps.extend([moved(""), Step::Sync(to.clone()), Step::Sync(directory.to_owned())]);
    }
    steps.extend([Step::Remove(directory.join(MARKER)), Step::Sync(directory.to_owned())]);
    Ok(steps)
}

/// The text of the marker: one of our two folders, and a name in it.
fn destination(text: &str) -> Option<(&str, &str)> {
    let (folder, name) = text.trim_end().split_once('/')?;
    let known = folder == QUARANTINE || folder == NEWER;
    let plain = name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    (known && plain).then_some((folder, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [&str; 3] = ["", "-wal", "-shm"];

    fn spool(directory: &Path, content: &str) {
        for suffix in PARTS {
            fs::write(directory.join(format!("{FILE}{suffix}")), format!("{content}{suffix}"))
                .expect("written");
        }
    }

    fn parts(folder: &Path) -> Vec<String> {
        let read = |suffix: &&str| fs::read_to_string(folder.join(format!("{FILE}{suffix}"))).ok();
        PARTS.iter().filter_map(read).collect()
    }

    /// Performs the first `cut` steps, but not those since the last sync of the state directory that `lost` names.
    fn cut(directory: &Path, steps: &[Step], cut: usize, lost: usize) {
        let synced = |step: &Step| *step == Step::Sync(directory.to_owned());
        let safe = steps[..cut].iter().rposition(synced).map_or(0, |at| at + 1);
        for (at, step) in steps[..cut].iter().enumerate() {
            if at < safe || lost >> (at - safe) & 1 == 0 {
                // What rests on a lost step is lost too.
                let _ = step.perform();
            }
        }
    }

    /// How many ways there are to lose steps before a cut.
    fn ways(directory: &Path, steps: &[Step], cut: usize) -> usize {
        let synced = |step: &Step| *step == Step::Sync(directory.to_owned());
        1 << (cut - steps[..cut].iter().rposition(synced).map_or(0, |at| at + 1))
    }

    /// Either untouched where it was, or all of it in the folder.
    fn together(directory: &Path, to: &Path) {
        let (here, there) = (parts(directory), parts(to));
        let all = ["damaged", "damaged-wal", "damaged-shm"];
        assert!((here == all && there.is_empty()) || (here.is_empty() && there == all), "{here:?} {there:?}");
    }

    #[test]
    fn a_power_cut_anywhere_in_a_quarantine_leaves_file_and_log_together() {
        let steps = |directory: &Path| {
            let mut steps = begin(directory, "quarantine", "00000001-0000000a");
            steps.extend(complete(directory, "quarantine", "00000001-0000000a").expect("told"));
            steps
        };
        let (mut cuts, mut at) = (0, 0);
        loop {
            let mut lost = 0;
            loop {
                let directory = tempfile::tempdir().expect("a directory");
                let directory = directory.path();
                let to = directory.join("quarantine/00000001-0000000a");
                spool(directory, "damaged");
                let steps = steps(directory);
                cut(directory, &steps, at, lost);
                // The completion may be cut too, everywhere.
                let marked = fs::read_to_string(directory.join(MARKER)).unwrap_or_default();
                if destination(&marked).is_some() {
                    let again = complete(directory, "quarantine", "00000001-0000000a").expect("told");
                    cut(directory, &again, lost * 5 % (again.len() + 1), lost);
                }
                finish(directory).expect("completes");
                together(directory, &to);
                assert!(!unfinished(directory));
                cuts += 1;
                lost += 1;
                if lost == ways(directory, &steps, at) {
                    break;
                }
            }
            at += 1;
            let directory = Path::new("d");
            if at > steps(directory).len() {
                break;
            }
        }
        assert!(cuts > 40, "{cuts} cuts");
    }

    #[test]
    fn folders_that_the_disk_does_not_list_keep_no_damaged_file_in_the_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        spool(directory, "damaged");
        std::os::unix::fs::symlink("newer", directory.join("newer")).expect("a loop");
        let to =
            set_aside(&directory.join(FILE), "quarantine", RunId { counter: 1, random: 10 }).expect("moved");
        together(directory, to.parent().expect("a folder"));
        let (run, again) = age(to.parent().expect("a folder"));
        assert!(run == "00000001-0000000a" && again >= 1 << 31, "{}", to.display());
    }

    #[test]
    fn a_fresh_file_is_not_taken_for_the_one_that_was_set_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        spool(directory, "damaged");
        let run = RunId { counter: 1, random: 10 };
        let to = set_aside(&directory.join(FILE), "quarantine", run).expect("moved");
        spool(directory, "fresh");
        // The removal of the marker did not reach the disk.
        fs::write(directory.join(MARKER), "quarantine/00000001-0000000a\n").expect("written");
        assert_eq!(finish(directory).expect("completes"), Some(to.clone()));
        assert_eq!(parts(directory), ["fresh", "fresh-wal", "fresh-shm"]);
        assert_eq!(parts(to.parent().expect("a folder")), ["damaged", "damaged-wal", "damaged-shm"]);
    }

    #[test]
    fn the_folder_that_a_failed_attempt_has_left_empty_is_used_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        spool(directory, "damaged");
        let run = RunId { counter: 1, random: 10 };
        // The folder is made; then the marker cannot be written: no room, or as here, something is in its place.
        let bar = directory.join("aside.new");
        fs::create_dir(&bar).expect("made");
        for _ in 0..3 {
            set_aside(&directory.join(FILE), QUARANTINE, run).expect_err("barred");
        }
        fs::remove_dir(&bar).expect("there");
        let to = set_aside(&directory.join(FILE), QUARANTINE, run).expect("moved");
        assert_eq!(to, directory.join("quarantine/00000001-0000000a").join(FILE));
        assert_eq!(folders(directory).len(), 1, "empty ones would push real ones out");
        together(directory, to.parent().expect("a folder"));
    }

    #[test]
    fn what_a_full_disk_did_not_take_of_the_destination_is_not_left_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        spool(directory, "damaged");
        let (run, new) = (RunId { counter: 1, random: 10 }, directory.join("aside.new"));
        // It can be made, and takes not a byte.
        std::os::unix::fs::symlink("/dev/full", &new).expect("made");
        set_aside(&directory.join(FILE), QUARANTINE, run).expect_err("full");
        assert!(new.symlink_metadata().is_err(), "it is left");
        assert_eq!(parts(directory), ["damaged", "damaged-wal", "damaged-shm"], "in its place");
        let to = set_aside(&directory.join(FILE), QUARANTINE, run).expect("moved");
        together(directory, to.parent().expect("a folder"));
    }

    #[test]
    fn the_next_folder_of_a_run_is_behind_all_others_of_it() {
        let run = RunId { counter: 1, random: 10 };
        let there = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(name(&[], run), "00000001-0000000a");
        assert_eq!(name(&there(&["q/00000001-0000000a"]), run), "00000001-0000000a.1");
        // Those before it were searched, and are gone.
        let mut folders = there(&["q/00000001-0000000a.10", "q/00000001-0000000a.9", "n/00000001-00000009"]);
        assert_eq!(name(&folders, run), "00000001-0000000a.11");
        folders.sort_by_key(|folder| age(folder));
        assert_eq!(
            folders,
            there(&["n/00000001-00000009", "q/00000001-0000000a.9", "q/00000001-0000000a.10"])
        );
    }

    #[test]
    fn a_marker_that_is_not_ours_moves_nothing() {
        for text in
            ["", "quarantine", "quarantine/../x", "/etc/1", "quarantine/1/2", "other/1", "quarantine/"]
        {
            let directory = tempfile::tempdir().expect("a directory");
            spool(directory.path(), "good");
            fs::write(directory.path().join(MARKER), text).expect("written");
            assert_eq!(finish(directory.path()).expect("completes"), None, "{text}");
            assert_eq!(parts(directory.path()).len(), 3, "{text}");
        }
    }
}
