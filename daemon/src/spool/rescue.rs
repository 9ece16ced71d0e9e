//! The rescue of a file that was set aside: takes what [`salvage`](super::salvage) finds back into the backlog, and says in the end
//! what was saved and what was lost.
//!
//! A readings is taken back if nobody has confirmed it and it has not been found before. When everything was looked at, the
//! numbered readings that did not turn up are booked as damaged and recorded as gaps; run ends and gaps that may have
//! waited in the lost file are written again, since the receiver needs them for its proof.
//!
//! A folder whose search has ended holds a file `salvaged`; one without is searched again after a restart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Intervals, UNFOLDED};
use super::salvage::Salvage;
use super::shared::{Inner, off_the_lock};
use super::store::FILE;
use crate::model::event::{Body, GapCause};
use crate::model::{Batch, RunId, Stamp};

/// Salvage runs beside sampling: at most this long a turn.
const TURN: Duration = Duration::from_millis(50);

/// Name of the mark that a folder was searched to the end.
const DONE: &str = "salvaged";

/// A file being searched.
#[derive(Debug)]
pub(super) struct Rescue {
    salvage: Salvage,
    found: String,
    folder: PathBuf,
    saved: BTreeMap<RunId, Intervals>,
    /// Found, and not stored yet because the commit failed.
    unstored: Vec<Arc<Batch>>,
    last_wall_us: BTreeMap<RunId, i64>,
    /// Up to where each run was durable when the file was set aside.
    at_risk: BTreeMap<RunId, u64>,
}

impl Rescue {
    /// Begins to search `file`; `found` says what was wrong with it, `at_risk` how far each run was durable.
    pub(super) fn begin(file: &Path, found: String, at_risk: BTreeMap<RunId, u64>) -> io::Result<Self> {
        off_the_lock();
        Ok(Self {
            salvage: Salvage::open(file)?,
            found,
            folder: file.parent().unwrap_or(Path::new(".")).to_owned(),
            saved: BTreeMap::new(),
            unstored: Vec::new(),
            last_wall_us: BTreeMap::new(),
            at_risk,
        })
    }

    /// Searches on, for a turn. `None`: everything was looked at.
    pub(super) fn search(&mut self) -> Option<Vec<Batch>> {
        off_the_lock();
        self.salvage.step(TURN)
    }

    /// Of what the search found, the readings to be stored again.
    pub(super) fn take_back(&mut self, batches: Vec<Batch>, inner: &mut Inner) -> Vec<Arc<Batch>> {
        for (run, books) in &self.salvage.books {
            if inner.ledger.is_folded(*run) {
                continue;
            }
            if !inner.ledger.runs.contains_key(run) {
                inner.ledger.runs.insert(*run, books.clone());
                inner.dirty.insert(*run);
            }
            let at_risk = self.at_risk.entry(*run).or_insert(books.durable);
            *at_risk = (*at_risk).max(books.durable);
        }
        let mut back = Vec::new();
        let mut fresh: BTreeMap<RunId, Intervals> = BTreeMap::new();
        for batch in batches {
            let (run, first, next) = (batch.run, batch.seq, batch.end());
            if inner.ledger.is_folded(run) {
                continue;
            }
            let wall_us = self.last_wall_us.entry(run).or_insert(batch.stamp.wall_us);
            *wall_us = (*wall_us).max(batch.stamp.wall_us);
            if run != inner.run {
                let books = inner.ledger.runs.entry(run).or_default();
                books.durable = books.durable.max(next);
                let at_risk = self.at_risk.entry(run).or_insert(next);
                *at_risk = (*at_risk).max(next);
            }
            let saved = self.saved.get(&run).is_some_and(|saved| saved.covers(first, next));
            let fresh = fresh.entry(run).or_default();
            if inner.ledger.settled(run, first, next) || saved || fresh.covers(first, next) {
                continue;
            }
            fresh.insert(first, next);
            inner.dirty.insert(run);
            back.push(Arc::new(batch));
        }
        back.sort_by_key(|batch| (batch.run, batch.seq));
        back
    }

    /// These are on the disk again.
    pub(super) fn stored(&mut self, batches: &[Arc<Batch>]) {
        for batch in batches {
            self.saved.entry(batch.run).or_default().insert(batch.seq, batch.end());
        }
    }

    /// These could not be stored now, and are tried again before the search goes on.
    pub(super) fn keep_unstored(&mut self, batches: Vec<Arc<Batch>>) {
        self.unstored = batches;
    }

    /// What has to be tried again.
    pub(super) fn take_unstored(&mut self) -> Vec<Arc<Batch>> {
        std::mem::take(&mut self.unstored)
    }

    /// Books what did not turn up, and records the outcome.
    pub(super) fn finish(&mut self, inner: &mut Inner, stamp: Stamp) {
        let none = Intervals::default();
        let (mut lost, mut saved) = (0, 0);
        for (run, durable) in &self.at_risk {
            let own = self.saved.get(run).unwrap_or(&none);
            saved += own.total();
            let open = inner.ledger.runs.get(run).map(|books| books.settled.missing(0, *durable));
            for (first, next) in open.unwrap_or_default() {
                for (first, next) in own.missing(first, next) {
                    lost += next - first;
                    inner.lose(*run, first, next, GapCause::Damaged);
                }
            }
        }
        say_again(inner, &self.last_wall_us, stamp);
        tracing::warn!(saved, lost, "the damaged spool was searched to its end");
        inner.record(Body::Corruption { found: std::mem::take(&mut self.found), saved, lost }, stamp);
    }

    /// Notes that the folder was searched to its end.
    pub(super) fn mark_done(&self) {
        off_the_lock();
        if let Err(error) = File::create(self.folder.join(DONE)) {
            tracing::warn!(%error, "the salvaged folder cannot be marked: it is searched again after a restart");
        }
    }
}

/// How far each run is durable now.
pub(super) fn at_risk(inner: &Inner) -> BTreeMap<RunId, u64> {
    inner.ledger.runs.iter().map(|(run, books)| (*run, books.durable)).collect()
}

/// Run ends and gaps that may have waited in a file that is gone are recorded again: the receiver needs them for its proof.
/// What is only booked yet, and not recorded, is recorded by the next commit and not here.
pub(super) fn say_again(inner: &mut Inner, last_wall_us: &BTreeMap<RunId, i64>, stamp: Stamp) {
    let mut again = Vec::new();
    for (run, books) in &inner.ledger.runs {
        let mut recorded = books.lost.clone();
        for (_, first, next, _) in inner.gaps.iter().filter(|(of, ..)| of == run) {
            recorded.remove(*first, *next);
        }
        let gap = |(first, next)| Body::Gap { of: *run, first, next, cause: GapCause::Damaged };
        again.extend(recorded.iter().map(gap));
        // The end of a run that had been folded was sent, and is not known any more.
        if *run != inner.run && books.durable < UNFOLDED {
            let (next_seq, last_wall_us) = (books.durable, last_wall_us.get(run).copied());
            again.push(Body::RunEnd { ended: *run, next_seq, clean: false, last_wall_us });
        }
    }
    for body in again {
        inner.record(body, stamp);
    }
}

/// A quarantine that was not searched to its end: the newest.
pub(super) fn unfinished(directory: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(directory.join("quarantine")).ok()?.flatten().map(|entry| entry.path());
    let newest = folders.max()?;
    let file = newest.join(FILE);
    (file.exists() && !newest.join(DONE).exists()).then_some(file)
}
