//! The folders of what was set aside: which stay, which go, and in which order they are searched.

use super::taken_back::Life;
use super::*;
use crate::spool::directory as bounds;
use crate::spool::schema;
use crate::spool::shared::Command;

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
    bounds::bound_quarantines(directory.path());
    assert_eq!(stay(), [1, 2, 3], "they may hold the only copy");
    std::fs::write(folder(2).join("salvaged"), "").expect("marked");
    bounds::bound_quarantines(directory.path());
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
    bounds::bound_quarantines(directory.path());
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
    bounds::bound_quarantines(directory.path());
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
    bounds::bound_quarantines(directory.path());
    assert_eq!(stay(), [true; 5], "they may hold the only copy");
    let room = 3 * bounds::bytes_max_default(directory.path());
    folder(directory.path(), "quarantine/00000003-0000000a", room);
    bounds::bound_quarantines(directory.path());
    assert_eq!(stay(), [false, false, true, true, true]);
}

#[test]
fn on_a_card_that_damages_every_file_those_that_hold_least_go_unsearched_and_the_first_and_the_newest_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let many = bounds::UNSEARCHED_MAX as u64 + 2;
    // The first holds most, the newest least; of the others two hold less than the rest.
    let bytes = |at| match at {
        1 => 1_000_000,
        20 => 90,
        40 => 80,
        last if last == many => 1,
        at => 100 + at % 5,
    };
    let all: Vec<_> = (1..=many)
        .map(|at| folder(directory.path(), &format!("quarantine/{at:08}-0000000a"), bytes(at)))
        .collect();
    let given_up = bounds::bound_quarantines(directory.path());
    assert_eq!((given_up.files, given_up.bytes), (2, 170));
    let gone: Vec<_> = (1..=many).zip(&all).filter(|(_, path)| !path.exists()).map(|(at, _)| at).collect();
    assert_eq!(gone, [20, 40]);
    let given_up = bounds::bound_quarantines(directory.path());
    assert_eq!(given_up, bounds::GivenUp::default(), "and no more than that");
}

/// A life whose file was damaged after a thousand readings, of which the first ten are confirmed, and whose rescue has only begun; and
/// where that file is now. The others that wait to be searched are as many as may, and bigger.
fn rescue_begun(directory: &Path) -> (Life, std::path::PathBuf) {
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory) };
    let mut life = Life::begin(capped, &schema::CURRENT);
    let (run, shape) = (life.spool.run, big_shape());
    let all: Vec<_> = (0..100).map(|i| big(run, i * 10, &shape)).collect();
    for batch in &all {
        life.store(batch);
    }
    life.spool.confirm(&[Confirmed::from(&*all[0])]);
    damage(&mut life);
    let first = directory.join(format!("quarantine/{run}"));
    while life.waiting().0.is_empty() {
        life.turn();
    }
    assert!(first.exists() && life.spool.busy(), "only a part of it was saved");
    for at in 1..bounds::UNSEARCHED_MAX {
        let path = folder(directory, &format!("quarantine/00000000-{at:08x}"), 2000);
        std::fs::File::create(path.join("more")).expect("made").set_len(8 << 20).expect("made long");
    }
    (life, first)
}

fn damage(life: &mut Life) {
    life.now += Duration::from_secs(120);
    life.spool.tell(Command::FileDamaged { generation: life.spool.generation(), what: "a page".into() });
    life.turn();
}

/// One file is said to have gone unsearched, and each reading of the run waits or is told lost; those that wait.
fn judge_given_up(life: &mut Life, run: RunId) -> BTreeSet<u64> {
    life.settle();
    let (batches, events) = life.waiting();
    let (saved, lost) = (numbers(&batches), gaps(&events, run, GapCause::Damaged));
    assert!(!lost.is_empty() && saved.is_disjoint(&lost));
    assert_eq!(saved.union(&lost).copied().collect::<BTreeSet<_>>(), (10..1000).collect());
    let said = |event: &Arc<Event>| match &event.body {
        Body::Corruption { found, saved, lost } => Some((found.clone(), *saved, *lost)),
        _ => None,
    };
    let said: Vec<_> = events.iter().filter_map(said).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].0.starts_with("1 damaged spool of "), "{said:?}");
    assert!(said[0].0.contains("removed without having been searched"), "{said:?}");
    assert_eq!((said[0].1, said[0].2, said[1].2), (0, 0, lost.len() as u64));
    life.board.read(|status| {
        assert_eq!((status.spool.unsearched, status.spool.damaged), (1, lost.len() as u64));
        assert_eq!(status.spool.salvage.as_ref().map(|salvage| salvage.lost), Some(lost.len() as u64));
    });
    saved
}

#[test]
fn what_goes_unsearched_is_recorded_and_what_it_alone_held_is_told_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut life, first) = rescue_begun(directory.path());
    damage(&mut life);
    assert!(!first.exists(), "it holds least");
    let run = life.spool.run;
    assert!(!judge_given_up(&mut life, run).is_empty());
}

#[test]
fn what_goes_unsearched_at_a_start_is_told_although_of_the_newest_file_only_the_copy_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (life, first) = rescue_begun(directory.path());
    let run = life.spool.run;
    drop(life);
    let file = directory.path().join(store::FILE);
    for path in [store::log_of(&file), file] {
        let length = path.metadata().expect("there").len();
        std::fs::write(path, vec![7; usize::try_from(length).expect("short")]).expect("written");
    }
    let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
    assert!(!first.exists(), "it holds least");
    assert!(judge_given_up(&mut life, run).is_empty());
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
