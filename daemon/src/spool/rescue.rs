//! The rescue: takes what files that were set aside still hold back into the backlog, and says in the end what was saved and
//! what was lost.
//!
//! Two kinds of folder: `quarantine/RUN` holds a damaged file, which is searched page by page ([`salvage`](super::salvage)); `newer/RUN`
//! holds the file of a newer program, which is read in order when this program knows its schema ([`taken_back`](super::taken_back)).
//!
//! A reading is taken back if nobody has confirmed it and it has not been found before, with its own run and seq. Records that
//! were not sent are taken back under their own names. When all folders were searched, the numbered readings that did not turn up
//! are booked as damaged and recorded as gaps; run ends and gaps that cannot be found among the records are written again, since
//! the receiver needs them for its proof.
//!
//! Pages that the disk does not give at the moment may come later: such a folder is searched again after a while, [`PAUSES`] times.
//! Until then what is missing counts as waiting, because what a gap record has called lost must not turn up afterwards. What could
//! not be read in the end is named in the report.
//!
//! A folder that was searched to its end gets a file `salvaged`, once the outcome is on the disk; one without is searched
//! again after a restart. A newer file that was whole is removed instead.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::{Intervals, RunBooks, UNFOLDED};
use super::records::Mark;
use super::salvage::{Salvage, Small};
use super::schema::Schema;
use super::shared::{Inner, off_the_lock};
use super::store::{self, FILE};
use super::taken_back::TakenBack;
use crate::model::event::{Body, Event, GapCause};
use crate::model::{Batch, RunId, Stamp};

/// Salvage runs beside sampling: so many pages a turn.
const PAGES_A_TURN: u32 = 1024;

/// Records taken back in one commit.
const RECORDS_A_TURN: usize = 256;

/// After these pauses a folder is searched again, if the disk did not give all of it.
const PAUSES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

/// Name of the mark that a folder was searched to the end.
const DONE: &str = "salvaged";

/// A file being searched.
#[derive(Debug)]
enum Search {
    Pages(Box<Salvage>),
    InOrder(Box<TakenBack>),
}

/// What a search has learned and nobody has taken yet.
#[derive(Debug, Default)]
struct Learned {
    books: BTreeMap<RunId, RunBooks>,
    mark: Mark,
    settled: BTreeMap<RunId, Intervals>,
    records: Vec<(Event, bool)>,
}

/// What records that were found say: it need not be said again.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Runs that have an end record, and where it says that they end.
    ended: BTreeMap<RunId, u64>,
    gaps: BTreeMap<RunId, Intervals>,
}

/// What goes back into the spool in one commit.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Readings.
    pub(super) batches: Vec<Arc<Batch>>,
    /// Records, under their own names.
    pub(super) events: Vec<Arc<Event>>,
}

impl Piece {
    /// Nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.events.is_empty()
    }
}

/// What is to be done with a folder once the outcome is on the disk.
#[derive(Debug)]
pub(super) struct Searched {
    folder: PathBuf,
    remove: bool,
    /// What could not be looked at, in words.
    unread: Option<String>,
}

/// Folders being searched, one after the other.
#[derive(Debug)]
pub(super) struct Rescue {
    schema: &'static Schema,
    /// What was wrong with the file, in words; `None` while nothing is known to be damaged.
    found: Option<String>,
    /// Not yet begun; the newest, which knows most, last.
    folders: Vec<PathBuf>,
    search: Option<(PathBuf, Search)>,
    searched: Vec<Searched>,
    /// Of which the disk did not give all, to be searched again.
    later: Vec<PathBuf>,
    /// How often that was done, and when it is done again.
    again: (usize, Option<Instant>),
    /// What lies in the spool's own file already: of this life, or taken back before a restart.
    present: Option<BTreeMap<RunId, Intervals>>,
    saved: BTreeMap<RunId, Intervals>,
    /// Found, and not stored yet because the commit failed.
    unstored: Option<Piece>,
    learned: Learned,
    records: Vec<Arc<Event>>,
    /// Names of records that were found: a folder may be searched twice, and two may hold the same.
    taken: HashSet<(RunId, u64)>,
    last_wall_us: BTreeMap<RunId, i64>,
    /// Up to where each run was durable.
    at_risk: BTreeMap<RunId, u64>,
    /// Runs that files found here had folded away.
    folded: Vec<(RunId, RunId)>,
    /// Runs whose books nobody has found yet.
    unknown: BTreeSet<RunId>,
    said: Said,
}

impl Rescue {
    /// Begins to search what has not been searched to its end; `found` says what was wrong with the newest. `None`: there is nothing.
    pub(super) fn begin(
        directory: &Path,
        found: Option<String>,
        schema: &'static Schema,
        at_risk: BTreeMap<RunId, u64>,
    ) -> Option<Self> {
        off_the_lock();
        let folders = unfinished(directory, schema);
        let damaged = folders.iter().any(|folder| !is_newer(folder));
        let found = found.or_else(|| damaged.then(|| "a salvage that had not ended".to_owned()));
        (!folders.is_empty()).then(|| Self {
            schema,
            found,
            folders,
            search: None,
            searched: Vec::new(),
            later: Vec::new(),
            again: (0, None),
            present: None,
            saved: BTreeMap::new(),
            unstored: None,
            learned: Learned::default(),
            records: Vec::new(),
            taken: HashSet::new(),
            last_wall_us: BTreeMap::new(),
            at_risk,
            folded: Vec::new(),
            unknown: BTreeSet::new(),
            said: Said::default(),
        })
    }

    /// What was wrong, for one that begins anew.
    pub(super) fn reason(self) -> Option<String> {
        self.found
    }

    /// What was wrong with a damaged file that is being searched, and how many readings were saved so far.
    pub(super) fn so_far(&self) -> Option<(&str, u64)> {
        Some((self.found.as_deref()?, self.saved.values().map(Intervals::total).sum()))
    }

    /// Whether it is known what lies in the spool's own file.
    pub(super) fn knows_present(&self) -> bool {
        self.present.is_some()
    }

    /// What lies in the spool's own file: readings, and records, of this life or taken back before a restart.
    pub(super) fn know_present(&mut self, present: BTreeMap<RunId, Intervals>, records: &[Event]) {
        self.present = Some(present);
        for event in records {
            self.taken.insert((event.run, event.number));
            self.said(&event.body);
        }
    }

    /// This need not be said again.
    fn said(&mut self, body: &Body) {
        match *body {
            Body::RunEnd { ended, next_seq, .. } => {
                let end = self.said.ended.entry(ended).or_default();
                *end = (*end).max(next_seq);
            }
            Body::Gap { of, first, next, .. } => {
                self.said.gaps.entry(of).or_default().insert(first, next);
            }
            _ => {}
        }
    }

    /// Nothing was left of a run: what turns up of it is history.
    fn is_folded(&self, run: RunId, inner: &Inner) -> bool {
        let within = |(first, last): &(RunId, RunId)| (*first..=*last).contains(&run);
        let folded = self.folded.iter().any(within) && !inner.ledger.runs.contains_key(&run);
        folded || inner.ledger.is_folded(run)
    }

    fn is_present(&self, run: RunId, first: u64, next: u64) -> bool {
        let present = self.present.as_ref().and_then(|present| present.get(&run));
        present.is_some_and(|present| present.covers(first, next))
    }

    /// Whether there is nothing to do but to wait for the disk to give what it did not give.
    pub(super) fn rests(&self) -> bool {
        self.again.1.is_some()
    }

    /// Everything was looked at that could be: begins to wait, or to look again. `true`: nothing more can be done now.
    pub(super) fn wait_for_the_disk(&mut self, now: Instant) -> bool {
        let idle = self.search.is_none() && self.folders.is_empty() && self.records.is_empty();
        if !idle || self.later.is_empty() || self.unstored.is_some() {
            return false;
        }
        let (tries, due) = &mut self.again;
        let pause = PAUSES.get(*tries).copied().unwrap_or_default();
        if now < *due.get_or_insert(now + pause) {
            return true;
        }
        self.again = (*tries + 1, None);
        self.folders = std::mem::take(&mut self.later);
        false
    }

    /// Searches on, for a turn. `None`: everything was looked at.
    pub(super) fn search(&mut self) -> Option<Vec<Batch>> {
        off_the_lock();
        loop {
            match self.search.take() {
                Some((folder, Search::Pages(mut salvage))) => {
                    let found = salvage.step(PAGES_A_TURN);
                    if let Some(Small { books, mark, records }) = salvage.learned() {
                        self.learned = Learned { books, mark, records, ..Learned::default() };
                    }
                    self.learned.settled = std::mem::take(&mut salvage.settled);
                    match found {
                        Some(found) => {
                            self.search = Some((folder, Search::Pages(salvage)));
                            return Some(found);
                        }
                        None => self.searched_pages(folder, &salvage),
                    }
                    // What was learned is taken before the next folder is begun.
                    return Some(Vec::new());
                }
                Some((folder, Search::InOrder(mut file))) => match file.step() {
                    Ok(Some(found)) => {
                        self.learned.records = std::mem::take(&mut file.records);
                        self.search = Some((folder, Search::InOrder(file)));
                        return Some(found);
                    }
                    Ok(None) => self.read_in_order(folder, &file),
                    Err(error) => {
                        tracing::warn!(%error, folder = %folder.display(), "a newer spool is damaged; it is searched page by page");
                        self.found.get_or_insert(error.to_string());
                        self.begin_pages(folder);
                    }
                },
                None => {
                    let Some(folder) = self.folders.pop() else {
                        let ended = self.records.is_empty() && self.later.is_empty();
                        return (!ended).then(Vec::new);
                    };
                    self.begin_folder(folder);
                }
            }
        }
    }

    fn begin_folder(&mut self, folder: PathBuf) {
        if is_newer(&folder) {
            match TakenBack::open(&folder.join(FILE), self.schema) {
                Ok(mut file) => {
                    let ended = std::mem::take(&mut file.ended).into_iter();
                    self.said.ended.extend(ended.map(|run| (run, u64::MAX)));
                    self.learned.books = std::mem::take(&mut file.books);
                    self.learned.mark = file.mark.clone();
                    tracing::info!(folder = %folder.display(), "a spool that was set aside can be read now; it is taken back");
                    self.search = Some((folder, Search::InOrder(Box::new(file))));
                    return;
                }
                Err(error) => {
                    self.found.get_or_insert(error.to_string());
                }
            }
        }
        self.begin_pages(folder);
    }

    fn begin_pages(&mut self, folder: PathBuf) {
        match Salvage::open(&folder.join(FILE)) {
            Ok(salvage) => self.search = Some((folder, Search::Pages(Box::new(salvage)))),
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "the damaged spool cannot be searched");
                if error.kind() != io::ErrorKind::NotFound {
                    self.unread(folder, format!("it could not be opened: {error}"));
                }
            }
        }
    }

    /// The disk did not give everything: later, or never.
    fn unread(&mut self, folder: PathBuf, what: String) {
        tracing::warn!(folder = %folder.display(), error = %what, "a damaged spool could not be read whole");
        if self.again.0 < PAUSES.len() {
            self.later.push(folder);
            return;
        }
        self.found = self.found.take().map(|found| format!("{found}; {what}")).or(Some(what.clone()));
        self.searched.push(Searched { folder, remove: false, unread: Some(what) });
    }

    fn searched_pages(&mut self, folder: PathBuf, salvage: &Salvage) {
        for (run, claims) in &salvage.claims {
            // A damaged newest block is known by what it says of itself, if it goes on where the books end.
            let Some(durable) = self.at_risk.get_mut(run).filter(|_| !salvage.ended.contains(run)) else {
                continue;
            };
            let next = |at: u64| claims.range(..=at).map(|(_, next)| *next).find(|next| *next > at);
            while let Some(further) = next(*durable) {
                *durable = further;
            }
        }
        match salvage.unread() {
            0 => self.searched.push(Searched { folder, remove: false, unread: None }),
            many => self.unread(folder, format!("{many} of its pages could not be read")),
        }
    }

    fn read_in_order(&mut self, folder: PathBuf, file: &TakenBack) {
        if file.damaged > 0 {
            self.found.get_or_insert(format!("{} blocks of a newer spool are damaged", file.damaged));
        }
        self.searched.push(Searched { folder, remove: file.damaged == 0, unread: None });
    }

    /// What the search has learned of books and records, given to those who keep them.
    fn take_books(&mut self, inner: &mut Inner) {
        let Learned { books, mark, settled, records } = std::mem::take(&mut self.learned);
        let folded = mark.ledger();
        if inner.ledger.folded.is_empty() {
            // A file that has just begun: the sums of the one before go on.
            inner.ledger.folded_confirmed += folded.folded_confirmed;
            inner.ledger.folded_losses.add(&folded.folded_losses);
            inner.ledger.folded = folded.folded;
        } else {
            self.folded.extend(folded.folded);
        }
        for (run, books) in books {
            if inner.ledger.is_folded(run) {
                continue;
            }
            let at_risk = self.at_risk.entry(run).or_insert(books.durable);
            *at_risk = (*at_risk).max(books.durable);
            if self.unknown.remove(&run) || !inner.ledger.runs.contains_key(&run) {
                let durable = inner.ledger.runs.get(&run).map_or(0, |known| known.durable);
                let durable = books.durable.max(durable);
                inner.ledger.runs.insert(run, RunBooks { durable, ..books });
                inner.dirty.insert(run);
            }
        }
        for (run, settled) in settled {
            if self.is_folded(run, inner) {
                continue;
            }
            // Without books, what lies below the floor tells what was settled.
            if self.unknown.contains(&run) || !inner.ledger.runs.contains_key(&run) {
                let end = settled.iter().map(|(_, next)| next).max().unwrap_or_default();
                self.unknown.insert(run);
                inner.ledger.runs.entry(run).or_default().confirm(0, end);
            }
        }
        for (event, sent) in records {
            self.said(&event.body);
            if self.taken.insert((event.run, event.number)) && !sent {
                self.records.push(Arc::new(event));
            }
        }
    }

    /// Of what the search found, what is to be stored again.
    pub(super) fn take_back(&mut self, batches: Vec<Batch>, inner: &mut Inner) -> Piece {
        self.take_books(inner);
        let mut back = Vec::new();
        let mut fresh: BTreeMap<RunId, Intervals> = BTreeMap::new();
        for batch in batches {
            let (run, first, next) = (batch.run, batch.seq, batch.end());
            if self.is_folded(run, inner) {
                continue;
            }
            if inner.ledger.is_folded(run) {
                continue;
            }
            let wall_us = self.last_wall_us.entry(run).or_insert(batch.stamp.wall_us);
            *wall_us = (*wall_us).max(batch.stamp.wall_us);
            if run != inner.run {
                if !inner.ledger.runs.contains_key(&run) {
                    self.unknown.insert(run);
                }
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
            if self.is_present(run, first, next) {
                self.saved.entry(run).or_default().insert(first, next);
                continue;
            }
            fresh.insert(first, next);
            inner.dirty.insert(run);
            back.push(Arc::new(batch));
        }
        back.sort_by_key(|batch| (batch.run, batch.seq));
        let events = self.records.drain(..self.records.len().min(RECORDS_A_TURN)).collect();
        Piece { batches: back, events }
    }

    /// These are on the disk again.
    pub(super) fn stored(&mut self, batches: &[Arc<Batch>]) {
        for batch in batches {
            self.saved.entry(batch.run).or_default().insert(batch.seq, batch.end());
        }
    }

    /// This could not be stored now, and is tried again before the search goes on.
    pub(super) fn keep_unstored(&mut self, piece: Piece) {
        self.unstored = Some(piece);
    }

    /// What has to be tried again.
    pub(super) fn take_unstored(&mut self) -> Option<Piece> {
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
            let own = self.saved.get(run).unwrap_or(&none);
            saved += own.total();
            let present = self.present.as_ref().and_then(|present| present.get(run)).unwrap_or(&none);
            let missing = books.settled.missing(0, *durable).into_iter();
            let missing = missing.flat_map(|(first, next)| own.missing(first, next));
            for (first, next) in missing.flat_map(|(first, next)| present.missing(first, next)) {
                lost += next - first;
                inner.lose(*run, first, next, GapCause::Damaged);
            }
        }
        say_again(inner, &self.last_wall_us, &self.said, stamp);
        if let Some(found) = self.found {
            tracing::warn!(saved, lost, error = %found, "the damaged spool was searched to its end");
            inner.must_record(Body::Corruption { found, saved, lost }, stamp);
        } else {
            tracing::info!(saved, lost, "a spool that was set aside was taken back");
        }
        self.searched
    }
}

/// The outcome is on the disk: these folders need not be searched again.
pub(super) fn mark(searched: Vec<Searched>) {
    off_the_lock();
    for Searched { folder, remove, unread } in searched {
        let done = if remove {
            std::fs::remove_dir_all(&folder)
        } else {
            let text = unread.unwrap_or_default();
            File::create(folder.join(DONE)).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
        };
        if let Err(error) = done {
            tracing::warn!(%error, folder = %folder.display(), "a searched folder cannot be marked: it is searched again after a restart");
        }
    }
}

/// How far each run is durable now.
pub(super) fn at_risk(inner: &Inner) -> BTreeMap<RunId, u64> {
    inner.ledger.runs.iter().map(|(run, books)| (*run, books.durable)).collect()
}

/// Run ends and gaps that may have waited in a file that is gone are recorded again: the receiver needs them for its proof.
/// What is only booked yet, and not recorded, is recorded by the next commit and not here.
pub(super) fn say_again(inner: &mut Inner, last_wall_us: &BTreeMap<RunId, i64>, said: &Said, stamp: Stamp) {
    let mut again = Vec::new();
    for (run, books) in &inner.ledger.runs {
        let mut recorded = books.lost.clone();
        for (_, first, next, _) in inner.gaps.iter().filter(|(of, ..)| of == run) {
            recorded.remove(*first, *next);
        }
        for (first, next) in said.gaps.get(run).into_iter().flat_map(Intervals::iter) {
            recorded.remove(first, next);
        }
        let gap = |(first, next)| Body::Gap { of: *run, first, next, cause: GapCause::Damaged };
        again.extend(recorded.iter().map(gap));
        // The end of a run that had been folded was sent, and is not known any more.
        // One that was said before everything was found falls short.
        let told = said.ended.get(run).is_some_and(|end| *end >= books.durable);
        if *run != inner.run && books.durable < UNFOLDED && !told {
            let (next_seq, last_wall_us) = (books.durable, last_wall_us.get(run).copied());
            again.push(Body::RunEnd { ended: *run, next_seq, clean: false, last_wall_us });
        }
    }
    for body in again {
        inner.must_record(body, stamp);
    }
}

fn is_newer(folder: &Path) -> bool {
    folder.parent().and_then(Path::file_name).is_some_and(|name| name == "newer")
}

/// Whether a folder was searched to its end.
pub(super) fn is_done(folder: &Path) -> bool {
    folder.join(DONE).exists()
}

/// Folders that were not searched to their end and can be, oldest first: they are named by run.
fn unfinished(directory: &Path, schema: &Schema) -> Vec<PathBuf> {
    let all = ["newer", "quarantine"].into_iter().flat_map(|kind| {
        let folders = std::fs::read_dir(directory.join(kind)).into_iter().flatten().flatten();
        folders.map(|entry| entry.path()).collect::<Vec<_>>()
    });
    let readable = |folder: &PathBuf| {
        let file = folder.join(FILE);
        file.exists() && !is_done(folder) && (!is_newer(folder) || store::newer(&file, schema).is_none())
    };
    let mut folders: Vec<_> = all.filter(readable).collect();
    folders.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    folders
}
