//! A rescue that is cut off after any of its turns, and the one that follows it too: in the end each reading and each record is there
//! once, and no run is said to end twice.

use std::collections::BTreeMap;

use super::taken_back::{Life, NEXT};
use super::*;
use crate::spool::schema::{self, Schema};
use crate::spool::shared::Command;
use crate::spool::verify;

/// Searched in many small pieces.
fn small(directory: &Path) -> SpoolSettings {
    SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory) }
}

/// The state directory with its folders, as a kill leaves it.
pub(super) fn copy_whole(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir_all(&to).expect("made");
            copy_into(&path, &to);
        } else if !path.to_string_lossy().ends_with("-shm") {
            std::fs::copy(path, to).expect("copied");
        }
    }
}

/// What must be there, and what may.
#[derive(Clone, Default)]
struct Book {
    waits: BTreeSet<(RunId, u64)>,
    /// Confirmed, and perhaps not known to be on the disk.
    settled: BTreeSet<(RunId, u64)>,
    /// Where runs end, and whether in order.
    ends: BTreeMap<RunId, (u64, bool)>,
}

impl Book {
    fn confirm(&mut self, life: &Life, batch: &Arc<Batch>) {
        life.spool.confirm(&[Confirmed::from(&**batch)]);
        self.waits.remove(&(batch.run, batch.seq));
        self.settled.insert((batch.run, batch.seq));
    }

    /// Two lives, one killed and one ended in order, with a refused batch and a record of a device.
    fn begin(directory: &Path, known: &'static Schema) -> Self {
        let (mut book, shape) = (Self::default(), big_shape());
        for in_order in [false, true] {
            let mut life = Life::begin(small(directory), known);
            let run = life.spool.run;
            for i in 0..25 {
                let batch = big(run, i * 10, &shape);
                life.store(&batch);
                book.waits.insert((run, batch.seq));
                if i < 5 {
                    book.confirm(&life, &batch);
                }
                if i == 12 && in_order {
                    let now = life.now;
                    life.spool.dead_letter(vec![Confirmed::from(&*batch)], "no", now).expect("stored");
                    book.waits.remove(&(run, batch.seq));
                }
            }
            life.spool.record(Body::Device { device: "meter".into(), answering: in_order }, stamp(1));
            book.ends.insert(run, (250, in_order));
            life.now += Duration::from_secs(11);
            life.turn();
            if in_order {
                life.close();
            }
        }
        book
    }

    /// A life with a rescue in it, of so many turns, that is cut off.
    fn live(&mut self, directory: &Path, known: &'static Schema, turns: usize) {
        let mut life = Life::begin(small(directory), known);
        let mut plant = Plant::new(life.spool.run);
        for turn in 0..turns {
            // Books are written in the middle of it too.
            life.now += Duration::from_millis(500);
            if turn % 6 == 2 {
                let batch = plant.batch();
                life.store(&batch);
                self.waits.insert((batch.run, batch.seq));
                if turns.is_multiple_of(2) {
                    // Nothing that the file knows of waits when it is cut off.
                    self.confirm(&life, &batch);
                }
            } else {
                life.turn();
            }
            if turn == 20 {
                let found: Vec<_> = life.waiting().0;
                found.iter().take(5).for_each(|batch| self.confirm(&life, batch));
            }
        }
        assert_eq!(life.spool.committed().next_seq, plant.seq);
        self.ends.insert(plant.run, (plant.seq, false));
    }

    fn judge(&self, directory: &Path, known: &'static Schema, pages: bool, at: &str) {
        let mut life = Life::begin(small(directory), known);
        life.settle();
        let (batches, events) = life.waiting();
        let mut found = BTreeSet::new();
        for batch in batches {
            assert!(found.insert((batch.run, batch.seq)), "{at}: {} {} is there twice", batch.run, batch.seq);
        }
        let missing: Vec<_> = self.waits.difference(&found).collect();
        assert!(missing.is_empty(), "{at}: {missing:?} are missing");
        let may: BTreeSet<_> = self.waits.union(&self.settled).copied().collect();
        assert!(found.is_subset(&may), "{at}: {:?}", found.difference(&may).collect::<Vec<_>>());
        let mut names = BTreeSet::new();
        let (mut ends, mut gaps, mut devices) = (BTreeMap::new(), Vec::new(), 0);
        for event in events {
            assert!(names.insert((event.run, event.number)), "{at}: twice: {event:?}");
            match event.body {
                Body::RunEnd { ended, next_seq, clean, .. } => {
                    let before = ends.insert(ended, (next_seq, clean));
                    assert_eq!(before, None, "{at}: two ends of {ended}: {:?}", (next_seq, clean));
                }
                Body::Gap { first, next, cause, .. } => gaps.push((first, next, cause.word())),
                Body::Device { .. } => devices += 1,
                Body::Corruption { lost: 0, .. } if pages => {}
                ref other => panic!("{at}: {other:?}"),
            }
        }
        assert_eq!(ends, self.ends, "{at}");
        assert_eq!(gaps, [(120, 130, "dead_letter")], "{at}");
        assert_eq!(devices, 2, "{at}");
        let aside = std::fs::read_dir(directory.join("quarantine")).map_or(0, Iterator::count);
        assert_eq!(aside, usize::from(pages), "{at}: no sound file is set aside");
        life.close();
        if !pages {
            // A file of a made-up schema.
            return;
        }
        let faults = verify::file(&directory.join(store::FILE), |_| {}).expect("readable").faults;
        assert_eq!(faults, Vec::<String>::new(), "{at}");
    }
}

/// Cuts a rescue after each of its turns up to `turns`, and one in three times the one that follows.
fn cut_everywhere(directory: &Path, known: &'static Schema, book: &Book, (pages, turns): (bool, usize)) {
    for turn in 0..turns {
        let mut book = book.clone();
        let cut = copy_whole(directory);
        book.live(cut.path(), known, turn);
        let mut cut = copy_whole(cut.path());
        if turn % 3 == 0 {
            book.live(cut.path(), known, turn * 7 % turns);
            cut = copy_whole(cut.path());
        }
        book.judge(cut.path(), known, pages, &format!("cut after {turn} turns"));
    }
}

#[test]
fn a_search_of_pages_that_is_cut_off_anywhere_gives_each_reading_and_each_record_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let book = Book::begin(directory.path(), &schema::CURRENT);
    lose_first_page(&directory.path().join(store::FILE));
    cut_everywhere(directory.path(), &schema::CURRENT, &book, (true, 60));
}

#[test]
fn a_file_that_is_taken_back_is_cut_off_anywhere_and_gives_each_reading_and_each_record_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut book = Book::begin(directory.path(), &NEXT);
    book.live(directory.path(), &schema::CURRENT, 3);
    let directory = copy_whole(directory.path());
    cut_everywhere(directory.path(), &NEXT, &book, (false, 15));
}

/// The records of what a life had lost lie in the file that it sets aside. Its row in the next file tells of the loss, and nothing else does.
#[test]
fn a_loss_whose_record_went_with_the_file_is_told_whenever_the_rescue_is_cut_off() {
    for how in ["not at all", "a power cut", "in order"] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut life = Life::begin(small(directory.path()), &schema::CURRENT);
        let (run, shape) = (life.spool.run, big_shape());
        let mut plant = Plant::new(run);
        let batches: Vec<_> = (0..5).map(|_| plant.batch()).collect();
        for batch in &batches {
            life.store(batch);
        }
        for at in 1..60 {
            life.store(&big(run, at * 10, &shape));
        }
        let now = life.now;
        life.spool.dead_letter(vec![Confirmed::from(&*batches[1])], "no", now).expect("stored");
        let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
        file.execute_batch("PRAGMA secure_delete = ON; DELETE FROM event").expect("gone");
        let busy: i64 =
            file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).expect("a row");
        assert_eq!(busy, 0, "no copy of it is left");
        drop(file);
        let generation = life.spool.generation();
        life.spool.tell(Command::FileDamaged { generation, what: "damaged".into() });
        life.turn();
        assert!(life.spool.busy(), "searching");
        let cut = copy_whole(directory.path());
        let mut life = match how {
            "a power cut" => Life::begin(small(cut.path()), &schema::CURRENT),
            "in order" => {
                life.close();
                Life::begin(small(directory.path()), &schema::CURRENT)
            }
            _ => life,
        };
        life.settle();
        life.now += Duration::from_secs(20);
        life.settle();
        let (waits, events) = life.waiting();
        let told = gaps(&events, run, GapCause::DeadLetter);
        assert_eq!(told, numbers(&batches[1..2]), "{how}: {events:?}");
        assert_eq!(numbers(&waits).union(&told).count(), 600, "{how}");
    }
}
