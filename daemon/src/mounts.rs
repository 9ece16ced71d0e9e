//! What is mounted where, as the kernel lists it for this process (/proc/self/mountinfo, proc_pid_mountinfo(5)).
//!
//! The one place that reads the list. A folder's mount is found by the id that the kernel gives for the open folder and not by
//! comparing names, so that a link, and a mount over another one, are taken for what they are. What follows from a mount is the business
//! of those who ask.
//!
//! It promises nothing where /proc is not there: then nothing is known. A line that is not understood is left out.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, major, minor};

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The kernel gives it anew once the mount is gone.
    pub(crate) id: u64,
    /// The mount on which it is mounted.
    parent: u64,
    /// `major:minor` of its file system.
    pub(crate) device: String,
    /// Which folder of the file system is the mount's root.
    pub(crate) root: String,
    /// Where it is mounted.
    pub(crate) point: String,
    /// Options of the file system.
    options: String,
}

impl Mount {
    fn of_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let parent = words.next()?.parse().ok()?;
        let device = words.next()?.to_owned();
        let (root, point) = (plain(words.next()?), plain(words.next()?));
        // Some optional words, a hyphen, the kind of file system, its source.
        let options = words.skip_while(|word| *word != "-").nth(3)?.to_owned();
        Some(Self { id, parent, device, root, point, options })
    }

    /// What is known without the list.
    pub(crate) fn unlisted(device: u64) -> Self {
        let device = format!("{}:{}", major(device), minor(device));
        let nothing = String::new;
        Self { id: 0, parent: 0, device, root: nothing(), point: nothing(), options: nothing() }
    }

    /// The same folder of the same file system in the same place, whether or not it was away in between.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (&self.point, &self.device, &self.root) == (&other.point, &other.device, &other.root)
    }

    /// It was found in the list: where it is mounted is known.
    pub(crate) fn is_listed(&self) -> bool {
        !self.point.is_empty()
    }

    /// The value of an option of the file system.
    pub(crate) fn option(&self, name: &str) -> Option<String> {
        self.options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('=')).map(plain)
    }
}

/// Without the escapes for space, tab, line end and backslash: `\040` is a space.
fn plain(word: &str) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = |digits: &[u8; 3]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        let escaped = behind.split_first_chunk().filter(|_| *first == b'\\');
        let escaped = escaped.and_then(|(digits, behind)| Some((code(digits)?, behind)));
        let (byte, behind) = escaped.unwrap_or((*first, behind));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines of such a list.
pub(crate) fn parse(list: &str) -> Vec<Mount> {
    list.lines().filter_map(Mount::of_line).collect()
}

/// All mounts that this process sees.
pub(crate) fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&String::from_utf8_lossy(&fs::read("/proc/self/mountinfo")?)))
}

/// The mount on which a folder lies, then the one below that, down to the root's. `None`: that cannot be known.
pub(crate) fn below(folder: &Path) -> Option<Vec<Mount>> {
    // Needs no right to read it. As a directory, so that one that is mounted when somebody looks is.
    let open = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd())).ok()?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    let found = stack(&all().ok()?, id);
    (!found.is_empty()).then_some(found)
}

/// Where the file system of a folder is mounted. `None`: that cannot be known. Not the folder's own mount: the service manager may have
/// put the folder over itself to let only it be written to.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let own = below(folder)?.into_iter().next()?;
    Some(whole(&all().ok()?, &own).to_owned())
}

/// Where most of a mount's file system is to be seen.
fn whole<'a>(all: &'a [Mount], own: &'a Mount) -> &'a str {
    let same = all.iter().filter(|mount| mount.device == own.device && own.root.starts_with(&mount.root));
    same.min_by_key(|mount| mount.root.len()).map_or(&own.point, |mount| &mount.point)
}

/// The mount of this id and those below it.
pub(crate) fn stack(all: &[Mount], id: u64) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    let mut next = Some(id);
    while let Some(mount) = next.and_then(|id| all.iter().find(|mount| mount.id == id)) {
        // Where this process has its root, the mount below is not in the list, or is itself.
        if found.iter().any(|seen| seen.id == mount.id) {
            break;
        }
        next = Some(mount.parent);
        found.push(mount.clone());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
22 1 179:2 / / rw,relatime shared:1 - ext4 /dev/mmcblk0p2 rw
40 22 0:35 / /data\\040one ro,nosuid shared:9 master:2 - overlay overlay rw,lowerdir=/l,upperdir=/run/u\\134p\\040per,workdir=/w
41 40 8:1 /conf\\011ig /data\\040one/etc rw - vfat /dev/sda1 rw

half a line
1 1 0:2 / / rw - rootfs rootfs rw
";

    #[test]
    fn a_list_of_mounts_is_read_with_its_escapes_and_optional_words() {
        let all = parse(LIST);
        let points: Vec<_> = all.iter().map(|mount| mount.point.as_str()).collect();
        assert_eq!(points, ["/", "/data one", "/data one/etc", "/"]);
        assert_eq!(all[2].root, "/conf\tig");
        assert_eq!(all[1].option("upperdir").as_deref(), Some("/run/u\\p per"));
        assert_eq!(all[1].option("upper"), None);
        assert_eq!(plain("\\04 \\999 \\ \\"), "\\04 \\999 \\ \\", "no escape");
    }

    #[test]
    fn below_a_mount_stands_what_it_is_mounted_on_down_to_the_root() {
        let all = parse(LIST);
        let ids = |id| stack(&all, id).iter().map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!(ids(41), [41, 40, 22, 1], "and ends where it is mounted on itself");
        assert_eq!(ids(99), [0; 0]);
    }

    #[test]
    fn a_folder_that_is_mounted_over_itself_lies_on_the_file_system_around_it() {
        let sandbox = "\
22 1 179:2 / / ro - ext4 /dev/mmcblk0p2 ro
30 22 179:3 / /data rw - ext4 /dev/mmcblk0p3 rw
31 30 179:3 /fieldspool /data/fieldspool rw - ext4 /dev/mmcblk0p3 rw
32 22 179:2 /var/lib/fieldspool /var/lib/fieldspool rw - ext4 /dev/mmcblk0p2 rw
";
        let all = parse(sandbox);
        let seen: Vec<_> = all.iter().map(|mount| whole(&all, mount)).collect();
        assert_eq!(seen, ["/", "/data", "/data", "/"]);
        assert_eq!(file_system(Path::new("/proc/self")).as_deref(), Some("/proc"));
    }

    #[test]
    fn what_lies_below_a_folder_of_this_machine_is_found_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/self", &link).unwrap();
        let found = below(&link).unwrap();
        assert_eq!(found[0].point, "/proc");
        assert_eq!(below(&dir.path().join("nowhere")), None);
    }
}
