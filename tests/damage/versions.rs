//! Versions: an update, an update that is rolled back with a backlog, and what a step to a newer schema leaves behind.

use std::collections::BTreeSet;
use std::path::Path;

use fieldspool::model::event::Body;
use fieldspool::model::{Batch, RunId};
use fieldspool::spool::Confirmed;
use fieldspool::spool::schema::{self, Schema, Step};
use fieldspool::spool::store::Store;
use rusqlite::{Connection, Transaction};

use crate::plant::{Plant, Random, Taken, copy};

/// The next version: one more column for blocks, one more table.
static NEXT: Schema = Schema { version: 2, steps: &[Step { from: 1, apply: add }] };

/// A next version whose step fails half-way.
static BROKEN: Schema = Schema { version: 2, steps: &[Step { from: 1, apply: break_off }] };

fn add(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE block ADD COLUMN note TEXT; CREATE TABLE extra (id INTEGER PRIMARY KEY, body TEXT) STRICT;
         INSERT INTO extra (body) SELECT 'block ' || number FROM block;",
    )
}

fn break_off(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    add(transaction)?;
    transaction.execute_batch("INSERT INTO nowhere VALUES (1)")
}

type Name = (RunId, u64);

/// What was stored over all lives.
#[derive(Default)]
struct Stored {
    all: Vec<Batch>,
    confirmed: BTreeSet<Name>,
}

impl Stored {
    /// A life: stores some, confirms some, and is cut off or ends in order.
    fn live(&mut self, directory: &Path, known: &'static Schema, random: &mut Random, in_order: bool) {
        let mut taken = Taken::open_as(directory, known);
        let mut plant = Plant::new(taken.spool.run);
        for _ in 0..30 {
            let batch = plant.batch(random);
            taken.store(batch.clone());
            if in_order && random.below(3) == 0 {
                taken.spool.confirm(&[Confirmed::from(&*batch)]);
                self.confirmed.insert((batch.run, batch.seq));
            }
            self.all.push(Batch::clone(&batch));
        }
        let now = taken.now;
        if in_order {
            taken.spool.close(true, now).expect("closes");
        }
    }

    /// Everything that nobody confirmed waits once, every run is proved to its end, and nothing is said to be lost.
    fn is_there(&self, taken: &mut Taken) {
        let (batches, events) = taken.settle();
        let mut waiting: Vec<_> = batches.iter().map(|batch| Batch::clone(batch)).collect();
        waiting.sort_by_key(|batch| (batch.run, batch.seq));
        let expected: Vec<_> = self
            .all
            .iter()
            .filter(|batch| !self.confirmed.contains(&(batch.run, batch.seq)))
            .cloned()
            .collect();
        assert_eq!(waiting.len(), expected.len());
        assert!(waiting == expected, "what waits is what was stored");
        let mut ended = BTreeSet::new();
        for event in events {
            match &event.body {
                Body::RunEnd { ended: run, next_seq, .. } => {
                    let end = self.all.iter().filter(|batch| batch.run == *run).map(Batch::end).max();
                    assert_eq!(*next_seq, end.unwrap_or_default());
                    ended.insert(*run);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(self.all.iter().all(|batch| ended.contains(&batch.run)), "each run is proved to its end");
    }
}

fn version(file: &Path) -> i64 {
    // In a copy: who opens and closes a spool that was cut off takes its log away.
    let copy = copy(file.parent().expect("a directory"));
    let file = Connection::open(copy.path().join("spool.db")).expect("opens");
    file.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a number")
}

#[test]
fn an_update_that_is_rolled_back_and_made_again_loses_nothing() {
    for (seed, in_order) in [(1, true), (2, false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, file) = (directory.path(), directory.path().join("spool.db"));
        let (mut random, mut stored) = (Random(seed), Stored::default());
        stored.live(path, &schema::CURRENT, &mut random, in_order);
        stored.live(path, &NEXT, &mut random, in_order);
        // Rolled back, twice, with an update in between.
        for _ in 0..2 {
            let before = std::fs::read(&file).expect("there");
            stored.live(path, &schema::CURRENT, &mut random, in_order);
            let aside: Vec<_> = std::fs::read_dir(path.join("newer")).expect("there").flatten().collect();
            assert_eq!(aside.len(), 1);
            let now = std::fs::read(aside[0].path().join("spool.db")).expect("there");
            assert!(now == before, "untouched");
            assert_eq!(version(&file), 1);
            let mut taken = Taken::open_as(path, &NEXT);
            stored.is_there(&mut taken);
            assert_eq!(std::fs::read_dir(path.join("newer")).expect("there").count(), 0, "taken back");
            drop(taken);
            assert_eq!(version(&file), 2);
        }
    }
}

#[test]
fn an_update_that_dies_right_after_its_step_is_rolled_back_and_made_again_without_loss() {
    for (seed, in_order) in [(5, true), (6, false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, file) = (directory.path(), directory.path().join("spool.db"));
        let (mut random, mut stored) = (Random(seed), Stored::default());
        stored.live(path, &schema::CURRENT, &mut random, in_order);
        drop(Store::open_as(&file, u64::MAX, "", &NEXT).expect("the step is done"));
        assert_eq!(version(&file), 2);
        stored.live(path, &schema::CURRENT, &mut random, in_order);
        assert_eq!(version(&file), 1);
        assert!(!path.join("quarantine").exists(), "it is newer, not damaged");
        let mut taken = Taken::open_as(path, &NEXT);
        stored.is_there(&mut taken);
        assert_eq!(std::fs::read_dir(path.join("newer")).expect("there").count(), 0, "taken back");
    }
}

#[test]
fn an_update_that_dies_before_its_step_leaves_an_older_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, file) = (directory.path(), directory.path().join("spool.db"));
    let (mut random, mut stored) = (Random(7), Stored::default());
    stored.live(path, &schema::CURRENT, &mut random, true);
    Store::open_as(&file, u64::MAX, "", &BROKEN).expect_err("the step fails");
    stored.live(path, &schema::CURRENT, &mut random, true);
    assert!(!path.join("newer").exists() && !path.join("quarantine").exists());
    stored.is_there(&mut Taken::open_as(path, &schema::CURRENT));
}

#[test]
fn a_newer_file_that_is_damaged_gives_back_what_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let (mut random, mut stored) = (Random(3), Stored::default());
    stored.live(path, &NEXT, &mut random, true);
    stored.live(path, &schema::CURRENT, &mut random, true);
    let aside = std::fs::read_dir(path.join("newer")).expect("there").flatten().next().expect("one");
    let file = aside.path().join("spool.db");
    let mut bytes = std::fs::read(&file).expect("there");
    bytes[..1024].fill(0);
    std::fs::write(&file, bytes).expect("written");
    let (batches, events) = Taken::open_as(path, &NEXT).settle();
    let expected = stored.all.len() - stored.confirmed.len();
    assert_eq!(batches.len(), expected);
    let said = events.iter().find_map(|event| match event.body {
        Body::Corruption { saved, lost, .. } => Some((saved, lost)),
        _ => None,
    });
    assert!(matches!(said, Some((1.., 0))), "{said:?}");
}

#[test]
fn a_step_to_a_newer_schema_happens_whole_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, file) = (directory.path(), directory.path().join("spool.db"));
    let (mut random, mut stored) = (Random(4), Stored::default());
    stored.live(path, &schema::CURRENT, &mut random, true);
    drop(Taken::open_as(path, &BROKEN));
    assert_eq!(version(&file), 1);
    let columns = "SELECT count(*) FROM pragma_table_info('block') WHERE name = 'note'";
    let columns: i64 =
        Connection::open(&file).expect("opens").query_row(columns, [], |row| row.get(0)).expect("a number");
    assert_eq!(columns, 0);
    let mut taken = Taken::open_as(path, &NEXT);
    stored.is_there(&mut taken);
    drop(taken);
    assert_eq!(version(&file), 2);
    let extra: i64 = Connection::open(&file)
        .expect("opens")
        .query_row("SELECT count(*) FROM extra", [], |row| row.get(0))
        .expect("a number");
    assert_eq!(extra, 30);
}
