//! The folders of what was set aside: which stay, which go, and in which order they are searched.

use super::*;
use crate::spool::directory as bounds;

/// A folder in which a file of so many bytes was set aside. It takes no room: nothing stands in it.
fn folder(directory: &Path, name: &str, bytes: u64) -> std::path::PathBuf {
    let folder = directory.join(name);
    std::fs::create_dir_all(&folder).expect("made");
    let file = std::fs::File::create(folder.join(store::FILE)).expect("made");
    file.set_len(bytes).expect("made long");
    folder
}

#[test]
fn a_folder_that_nobody_has_searched_to_the_end_does_not_go_for_its_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = |at: u32| directory.path().join(format!("quarantine/0000000{at}-0000000a"));
    for at in 1..=3 {
        self::folder(
            directory.path(),
            &format!("quarantine/0000000{at}-0000000a"),
            bounds::QUARANTINE_BYTES_MAX,
        );
    }
    let stay = || (1..=3).filter(|at| folder(*at).exists()).collect::<Vec<_>>();
    bounds::bound_quarantines(directory.path()).expect("bounded");
    assert_eq!(stay(), [1, 2, 3], "they may hold the only copy");
    std::fs::write(folder(2).join("salvaged"), "").expect("marked");
    bounds::bound_quarantines(directory.path()).expect("bounded");
    assert_eq!(stay(), [1, 3], "what was searched goes");
}

#[test]
fn newer_files_that_were_searched_and_stay_go_like_quarantines_and_others_never() {
    let directory = tempfile::tempdir().expect("a directory");
    let all = [("newer", 1), ("newer", 2), ("newer", 3), ("newer", 4), ("quarantine", 5), ("quarantine", 6)];
    let folder = |(kind, at): (&str, u32)| directory.path().join(format!("{kind}/0000000{at}-0000000a"));
    for one in all {
        self::folder(directory.path(), &format!("{}/0000000{}-0000000a", one.0, one.1), 0);
        if one.1 != 4 {
            std::fs::write(folder(one).join("salvaged"), "").expect("marked");
        }
    }
    bounds::bound_quarantines(directory.path()).expect("bounded");
    let stay: Vec<_> = all.into_iter().filter(|one| folder(*one).exists()).map(|(_, at)| at).collect();
    assert_eq!(stay, [3, 4, 5, 6]);
}

#[test]
fn folders_that_no_file_has_reached_push_out_none_that_holds_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let only = folder(directory.path(), "quarantine/00000013-0000000a", 1000);
    // The power went again and again, each time before the file had moved.
    let empty: Vec<_> = (14..20)
        .map(|at| directory.path().join(format!("quarantine/000000{at}-0000000a")))
        .inspect(|path| std::fs::create_dir(path).expect("made"))
        .collect();
    bounds::bound_quarantines(directory.path()).expect("bounded");
    assert!(only.exists(), "the only copy of its readings");
    assert!(empty.iter().all(|path| !path.exists()), "they hold nothing");
}

#[test]
fn of_files_that_nobody_has_searched_a_fourth_stays_while_there_is_room_and_then_the_oldest_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let all: Vec<_> = (1..=5)
        .map(|at| folder(directory.path(), &format!("quarantine/0000000{at}-0000000a"), 1000))
        .collect();
    let stay = || all.iter().map(|path| path.exists()).collect::<Vec<_>>();
    bounds::bound_quarantines(directory.path()).expect("bounded");
    assert_eq!(stay(), [true; 5], "they may hold the only copy");
    let room = 3 * bounds::bytes_max_default(directory.path());
    folder(directory.path(), "quarantine/00000003-0000000a", room);
    bounds::bound_quarantines(directory.path()).expect("bounded");
    assert_eq!(stay(), [false, false, true, true, true]);
}

#[test]
fn a_life_that_died_while_it_set_a_file_aside_is_older_than_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    // It is remembered nowhere else: the file is gone from its place, and the sidecar was still to be written.
    folder(directory.path(), "quarantine/00000013-ffffffff", 0);
    let now = Instant::now();
    let spool =
        crate::spool::stepped::Stepped::open(settings(directory.path()), Board::default(), || stamp(0), now);
    assert_eq!(spool.expect("opens").run.counter, 14, "else chance would say which folder is the older");
}

#[test]
fn a_full_disk_takes_what_was_searched_the_oldest_first_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    for at in [2, 1, 3, 4] {
        let folder = folder(directory.path(), &format!("quarantine/0000000{at}-0000000a"), 100);
        if at != 2 {
            std::fs::write(folder.join("salvaged"), "").expect("marked");
        }
    }
    let stay = || {
        let there = |at: &u32| directory.path().join(format!("quarantine/0000000{at}-0000000a")).exists();
        (1..=4).filter(there).collect::<Vec<u32>>()
    };
    bounds::give_searched(directory.path(), |_| stay().len() > 3);
    assert_eq!(stay(), [2, 3, 4], "until there is room");
    bounds::give_searched(directory.path(), |_| true);
    assert_eq!(stay(), [2], "it may hold the only copy");
}
