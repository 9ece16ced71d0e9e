//! The rescue: takes what files that were set aside still hold back into the backlog, and says in the end what was saved and
//! what was lost.
//!
//! Two kinds of folder: `quarantine/RUN` holds a damaged file, which is searched page by page ([`salvage`](super::salvage)); `newer/RUN`
//! holds the file of a newer program, which is read in order when this program knows its schema ([`taken_back`](super::taken_back)).
//!
//! A reading is taken back if nobody has confirmed it and it has not been found before, with its own run and seq. Records that were
//! not sent are taken back under their own names, and so are dead letters: they count already. Of the clock also what was sent, if readings that
//! come back need it. When all folders were searched, the numbered readings that did not turn up
//! are booked as damaged and recorded as gaps; run ends and gaps that cannot be found among the records are written again, since
//! the receiver needs them for its proof.
//!
//! What is set aside is safe where it is. So a reading or a dead letter that finds no room waits for it, while the drain makes some; nothing that
//! waits in the spool's own file goes for it, and what is known of the runs is told before. What this file and those that were whole
//! have said of a run is not said again: a receiver takes a second, other end of a run for a fault.
//!
//! Pages that the disk does not give at the moment may come later: such a folder is searched again after a while, some times;
//! older ones wait for it, and have their own tries. Until then what is missing counts as waiting, because what a gap record has called
//! lost must not turn up afterwards. What could not be read in the end is named in the report.
//!
//! A folder that was searched to its end gets a file `salvaged`, once the outcome is on the disk; one without is searched
//! again after a restart. A newer file that held all that its books tell is removed instead.

mod clocks;
mod floors;
mod folders;
mod learn;
mod said;
mod search;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::inner::Inner;
use super::ledger::{Intervals, RunBooks};
use super::schema::Schema;
use super::shared::off_the_lock;
use super::store::{DeadLetter, RunRow};
use crate::model::event::{Body, Event, GapCause};
use crate::model::{Batch, RunId, Stamp};
use clocks::Clocks;
use floors::Floors;
pub(super) use folders::{Searched, awaits, is_done, is_newer, mark};
use folders::{Unfinished, unfinished};
pub(super) use said::{Said, say_again};
pub(super) use search::PATIENCE;
use search::{Learned, Search};

/// What goes back into the spool in one commit.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Readings.
    pub(super) batches: Vec<Arc<Batch>>,
    /// Records, under their own names.
    pub(super) events: Vec<Arc<Event>>,
    /// Dead letters.
    pub(super) letters: Vec<DeadLetter>,
}

/// What lies in the spool's own file when a rescue begins: of this life, or taken back before a restart.
#[derive(Debug)]
pub(super) struct Present {
    /// Readings that wait.
    pub(super) readings: BTreeMap<RunId, Intervals>,
    /// Rows of its runs.
    pub(super) rows: Vec<RunRow>,
    /// Records, sent or not.
    pub(super) records: Vec<Event>,
}

/// What memory knows when a rescue begins.
#[derive(Debug)]
pub(super) struct Memory {
    /// The present life.
    own: RunId,
    /// How far each run is durable.
    at_risk: BTreeMap<RunId, u64>,
    /// Records that are still to be stored. A commit that failed may have written them all the same.
    records: HashSet<(RunId, u64)>,
}

impl Memory {
    pub(super) fn of(inner: &Inner) -> Self {
        Self {
            own: inner.run,
            at_risk: inner.ledger.runs.iter().map(|(run, books)| (*run, books.durable)).collect(),
            records: inner.events.iter().map(|event| (event.run, event.number)).collect(),
        }
    }
}

/// Folders being searched, one after the other.
#[derive(Debug)]
pub(super) struct Rescue {
    schema: &'static Schema,
    /// The present life: how far it came is known better than any file tells.
    own: RunId,
    /// What was wrong with the file, in words; `None` while nothing is known to be damaged.
    found: Option<String>,
    /// Not yet begun; the newest, which knows most, last.
    folders: Vec<PathBuf>,
    search: Option<(PathBuf, Search)>,
    searched: Vec<Searched>,
    /// Of which the disk did not give all, to be searched again, and what waits for these.
    later: Vec<PathBuf>,
    /// How often the disk did not give all of a place.
    tries: BTreeMap<PathBuf, usize>,
    /// When they are searched again.
    again_at: Option<Instant>,
    /// What lies in the spool's own file already: of this life, or taken back before a restart.
    present: Option<BTreeMap<RunId, Intervals>>,
    saved: BTreeMap<RunId, Intervals>,
    /// Found, and not stored yet because the commit failed, or there is no room.
    unstored: Option<Piece>,
    waits_for_room: bool,
    learned: Learned,
    records: Vec<Arc<Event>>,
    clocks: Clocks,
    letters: VecDeque<DeadLetter>,
    /// How many were left where they are.
    letters_left: usize,
    /// Names of records that were found, or that memory stores by itself: a folder may be searched twice, and two may hold the same.
    taken: HashSet<(RunId, u64)>,
    last_wall_us: BTreeMap<RunId, i64>,
    /// Up to where each run was durable.
    at_risk: BTreeMap<RunId, u64>,
    /// Lives in which the files were set aside that were not searched when this began. `None`: the disk does not tell.
    lives: Option<HashSet<RunId>>,
    /// Runs that files found here had folded away.
    folded: Vec<(RunId, RunId)>,
    floors: Floors,
    said: Said,
}

/// Books of a run of which readings were found, and its books were not yet.
fn unfound() -> RunBooks {
    RunBooks { unfound: true, ..RunBooks::default() }
}

impl Rescue {
    /// Begins to search what has not been searched to its end; `found` says what was wrong with the newest. `None`: there is nothing.
    pub(super) fn begin(
        directory: &Path,
        found: Option<String>,
        schema: &'static Schema,
        Memory { own, at_risk, records }: Memory,
    ) -> Option<Self> {
        off_the_lock();
        let unfinished = unfinished(directory, schema);
        if unfinished.is_empty() {
            return None;
        }
        let mut rescue = Self {
            schema,
            own,
            found,
            folders: Vec::new(),
            search: None,
            searched: Vec::new(),
            later: Vec::new(),
            tries: BTreeMap::new(),
            again_at: None,
            present: None,
            saved: BTreeMap::new(),
            unstored: None,
            waits_for_room: false,
            learned: Learned::default(),
            records: Vec::new(),
            clocks: Clocks::default(),
            letters: VecDeque::new(),
            letters_left: 0,
            taken: records,
            last_wall_us: BTreeMap::new(),
            at_risk,
            lives: unfinished.lives(),
            folded: Vec::new(),
            floors: Floors::default(),
            said: Said::default(),
        };
        rescue.search_these(unfinished);
        Some(rescue)
    }

    /// Begins with these folders, and what is not clear is looked at again later.
    fn search_these(&mut self, Unfinished { folders, unclear }: Unfinished) {
        if folders.iter().any(|folder| !is_newer(folder)) {
            self.found.get_or_insert_with(|| "a salvage that had not ended".to_owned());
        }
        self.folders = folders;
        for (place, what) in unclear {
            let what = format!("{} could not be looked at: {what}", place.display());
            self.unclear(place, what);
        }
    }

    /// What was wrong, for one that begins anew.
    pub(super) fn reason(self) -> Option<String> {
        self.found
    }

    /// What was wrong with a damaged file that is being searched, how many readings were saved so far, and whether there is
    /// no room for more. A file that is taken back in order takes no time worth telling, unless it waits for room.
    pub(super) fn so_far(&self) -> Option<(&str, u64, bool)> {
        let newer = self.waits_for_room.then_some("the file of a newer program was set aside");
        let found = self.found.as_deref().or(newer)?;
        Some((found, self.saved.values().map(Intervals::total).sum(), self.waits_for_room))
    }

    /// Whether it is known what lies in the spool's own file.
    pub(super) fn knows_present(&self) -> bool {
        self.present.is_some()
    }

    /// Whether nothing that was learned is still to be stored.
    fn took_all(&self) -> bool {
        self.records.is_empty() && self.letters.is_empty()
    }

    /// So many dead letters found no room and stay in their folders, until these have to make room.
    pub(super) fn left_letters(&mut self, many: usize) {
        self.letters_left += many;
    }

    /// These are on the disk again.
    pub(super) fn stored(&mut self, batches: &[Arc<Batch>]) {
        for batch in batches {
            self.saved.entry(batch.run).or_default().insert(batch.seq, batch.end());
        }
    }

    /// This could not be stored now, and is tried again before the search goes on. `for_room`: not before there is room.
    pub(super) fn keep_unstored(&mut self, piece: Piece, for_room: bool) {
        (self.unstored, self.waits_for_room) = (Some(piece), for_room);
    }

    /// Whether there is nothing to do but to wait for room.
    pub(super) fn waits_for_room(&self) -> bool {
        self.waits_for_room
    }

    /// What has to be tried again.
    pub(super) fn take_unstored(&mut self) -> Option<Piece> {
        self.waits_for_room = false;
        self.unstored.take()
    }

    /// Books what did not turn up, and records the outcome. When that is on the disk, the folders can be marked.
    pub(super) fn finish(mut self, inner: &mut Inner, stamp: Stamp) -> Vec<Searched> {
        self.take_books(inner);
        let none = Intervals::default();
        let (mut lost, mut saved) = (0, 0);
        for (run, durable) in &self.at_risk {
            let Some(books) = inner.ledger.runs.get_mut(run) else { continue };
            books.durable = books.durable.max(*durable);
            books.blockless.all_below(books.durable);
            let own = self.saved.get(run).unwrap_or(&none);
            saved += own.total();
            let present = self.present.as_ref().and_then(|present| present.get(run)).unwrap_or(&none);
            // A gap record of it was found, and not the books that knew it: it is lost as that says, and not said again.
            for (first, next, cause) in self.said.causes(*run) {
                let elsewhere = own.missing(first, next.min(*durable)).into_iter();
                for (first, next) in elsewhere.flat_map(|(first, next)| present.missing(first, next)) {
                    books.lose(first, next, cause);
                }
            }
            for (first, next) in self.settled_by_floors(*run, books.unfound) {
                books.confirm(first, next);
            }
            let missing = books.settled.missing(0, *durable).into_iter();
            let missing = missing.flat_map(|(first, next)| own.missing(first, next));
            for (first, next) in missing.flat_map(|(first, next)| present.missing(first, next)) {
                lost += next - first;
                inner.lose(*run, first, next, GapCause::Damaged);
            }
        }
        say_again(inner, &self.last_wall_us, &self.said, stamp);
        // From now on each of their rows says that the run has ended.
        inner.ledger.runs.values_mut().for_each(|books| books.unfound = false);
        let runs: Vec<_> = inner.ledger.runs.keys().copied().collect();
        inner.dirty.extend(runs);
        if self.letters_left > 0 {
            self.searched.iter_mut().for_each(|searched| searched.remove = false);
            tracing::warn!(
                count = self.letters_left,
                "refused messages of a file that was set aside find no room on the full disk: they stay in its folder, as long as that need not make room"
            );
        }
        if lost > 0 {
            // Somebody may want to look for it.
            self.searched.iter_mut().for_each(|searched| searched.remove = false);
            self.found
                .get_or_insert("not all that was stored in a file that was set aside was found".to_owned());
        }
        if let Some(found) = self.found {
            tracing::warn!(saved, lost, error = %found, "the damaged spool was searched to its end");
            inner.must_record(Body::Corruption { found, saved, lost }, stamp);
        } else {
            tracing::info!(saved, lost, "a spool that was set aside was taken back");
        }
        self.searched
    }
}
