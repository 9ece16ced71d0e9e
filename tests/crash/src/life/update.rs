//! An update under cuts: a spool of the older version with a backlog, opened by a program that knows a newer schema, the power
//! cut anywhere in that, again and again, until the file is of the newer version.
//!
//! The schema is synthetic and has two steps, one of which rewrites every block, so that the transaction is far longer than
//! SQLite's cache and much of it stands in the log before its commit. After each cut the file is looked at without the program
//! under test: it is of the older version or of the newer one, in its number and in everything that the steps make. What waits
//! is judged by the [`Book`](crate::book::Book), as ever.

use std::fs;

use fieldspool::spool::schema::{self, Schema, Step};
use rusqlite::{Connection, Transaction};

use super::{Bench, Planted, is_off};
use crate::book::Verdict;
use crate::disk;

/// The program after the update.
static NEWER: Schema =
    Schema { version: 3, steps: &[Step { from: 1, apply: widen }, Step { from: 2, apply: count }] };

/// ... with a bug: a cut between its two transactions leaves the first.
static IN_TWO: Schema =
    Schema { version: 3, steps: &[Step { from: 1, apply: widen }, Step { from: 2, apply: count_apart }] };

fn widen(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE block ADD COLUMN note TEXT;
         UPDATE block SET note = 'of number ' || number || ', widened in an update';",
    )
}

fn count(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE extra (id INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;
         INSERT INTO extra (number) SELECT number FROM block;
         CREATE TABLE extra_count (n INTEGER NOT NULL) STRICT;
         INSERT INTO extra_count (n) SELECT count(*) FROM block;",
    )
}

fn count_apart(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("COMMIT; BEGIN")?;
    count(transaction)
}

impl Bench {
    /// The whole schedule of an update: a life of the older program, the update under cuts, a life of the newer program that ends
    /// in a cut, and the delivery of everything.
    pub(super) fn update(&mut self) -> Verdict<()> {
        self.open(false)?;
        for _ in 0..self.random.u32(4..24) {
            self.step()?;
        }
        if self.random.bool() {
            self.stop_and_start()?;
        }
        self.known = if self.plan.planted == Planted::TwoTransactions { &IN_TWO } else { &NEWER };
        self.rest();
        // How long the update is nobody knows beforehand: one that is not reached falls at rest.
        while self.version()? == schema::VERSION && self.tally.cuts < self.plan.cuts {
            let far = [12, 100, 1000, 5000][self.random.usize(0..4)];
            let k = self.random.u64(1..=far);
            disk::with(|disk| disk.arm(k));
            self.start()?;
            self.tally.in_recovery += u64::from(is_off());
            self.rest();
            self.tally.updates.0 += u64::from(self.version()? == schema::VERSION);
        }
        self.tally.updates.1 += u64::from(self.version()? != schema::VERSION);
        self.open(true)?;
        if self.version()? != self.known.version {
            return Err("the update was not made".to_owned());
        }
        for _ in 0..self.random.u32(1..8) {
            self.step()?;
        }
        self.power_cut()?;
        self.version()?;
        self.deliver()
    }

    /// The power goes, and comes back with nothing running.
    fn rest(&mut self) {
        disk::with(disk::Disk::cut);
        self.cut_us = self.now_us();
        self.tally.cuts += 1;
        self.spool = None;
        disk::with(disk::Disk::lay_out);
    }

    /// Which version the file is of, seen in a copy, so that the log stays as it is. An error: it is between two versions.
    fn version(&self) -> Verdict<i64> {
        let look = self.directory.with_extension("look");
        let read = || -> rusqlite::Result<(i64, i64, i64, i64)> {
            let file = Connection::open(look.join("spool.db"))?;
            let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0));
            let version = number("PRAGMA user_version")?;
            let note = number("SELECT count(*) FROM pragma_table_info('block') WHERE name = 'note'")?;
            let tables = number("SELECT count(*) FROM sqlite_master WHERE name IN ('extra', 'extra_count')")?;
            let short = if tables == 2 {
                number("SELECT (SELECT count(*) FROM extra) - n FROM extra_count")?
            } else {
                0
            };
            Ok((version, note, tables, short))
        };
        fs::create_dir_all(&look).expect("a scratch directory");
        for suffix in ["", "-wal"] {
            let name = format!("spool.db{suffix}");
            drop(fs::remove_file(look.join(&name)));
            drop(fs::copy(self.directory.join(&name), look.join(&name)));
        }
        let found = read();
        drop(fs::remove_dir_all(&look));
        match found {
            // Without any table: cut off before the first life had made them.
            Ok((version @ (0 | 1), 0, 0, _)) => Ok(version.max(schema::VERSION)),
            Ok((3, 1, 2, 0)) => Ok(3),
            other => Err(format!("the file is between two versions: {other:?}")),
        }
    }
}
