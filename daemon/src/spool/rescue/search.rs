//! The search of the rescue: one folder after the other, in order or page by page, and once more where the disk did not give
//! all of it. It reads, and changes nothing in the spool; what it learned lies ready for who keeps the books.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Rescue;
use super::folders::{Searched, is_kind, is_newer, look};
use crate::model::event::Event;
use crate::model::{Batch, RunId};
use crate::spool::aside;
use crate::spool::ledger::{Intervals, RunBooks};
use crate::spool::records::Mark;
use crate::spool::salvage::{LogFault, Salvage, Small, log_fault};
use crate::spool::shared::off_the_lock;
use crate::spool::store::{DeadLetter, FILE, StoreError, Trouble};
use crate::spool::taken_back::TakenBack;

/// After these pauses a folder is searched again, if the disk did not give all of it.
const PAUSES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

/// All of them: what the disk has not given by then it never will, as far as anybody can tell.
pub(in crate::spool) const PATIENCE: Duration =
    Duration::from_secs(PAUSES[0].as_secs() + PAUSES[1].as_secs() + PAUSES[2].as_secs());

/// A file being searched.
#[derive(Debug)]
pub(super) enum Search {
    Pages(Box<Salvage>),
    InOrder(Box<TakenBack>),
}

/// What a search has learned and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pub(super) books: BTreeMap<RunId, RunBooks>,
    pub(super) mark: Mark,
    pub(super) settled: BTreeMap<RunId, Intervals>,
    pub(super) above: BTreeMap<RunId, Intervals>,
    pub(super) records: Vec<(Event, bool)>,
    pub(super) letters: Vec<DeadLetter>,
    /// By a file that is read in order.
    pub(super) whole: bool,
}

impl Rescue {
    /// Whether there is nothing to do but to wait for the disk to give what it did not give.
    pub(in crate::spool) fn rests(&self) -> bool {
        self.again_at.is_some()
    }

    /// Everything was looked at that could be: begins to wait, or to look again. `true`: nothing more can be done now.
    pub(in crate::spool) fn wait_for_the_disk(&mut self, now: Instant) -> bool {
        let idle = self.search.is_none() && self.folders.is_empty() && self.took_all();
        if !idle || self.later.is_empty() || self.unstored.is_some() {
            return false;
        }
        let tries = self.later.iter().filter_map(|place| self.tries.get(place)).max();
        let pause = tries.and_then(|tries| PAUSES.get(tries - 1)).copied().unwrap_or_default();
        if now < *self.again_at.get_or_insert(now + pause) {
            return true;
        }
        self.again_at = None;
        let again = std::mem::take(&mut self.later);
        self.search_these(look(&again, self.schema));
        false
    }

    /// Searches on, over so many pages. `None`: everything was looked at.
    pub(in crate::spool) fn search(&mut self, pages: u32) -> Option<Vec<Batch>> {
        off_the_lock();
        loop {
            match self.search.take() {
                Some((folder, Search::Pages(mut salvage))) => {
                    let found = salvage.step(pages);
                    if let Some(Small { books, mark, records }) = salvage.learned() {
                        self.learned = Learned { books, mark, records, ..Learned::default() };
                    }
                    self.learned.settled = std::mem::take(&mut salvage.settled);
                    self.learned.above = std::mem::take(&mut salvage.above);
                    match found {
                        Some(found) => {
                            self.search = Some((folder, Search::Pages(salvage)));
                            return Some(found);
                        }
                        None => self.searched_pages(folder, &salvage),
                    }
                    self.learned.letters = salvage.take_letters();
                    // What was learned is taken before the next folder is begun.
                    return Some(Vec::new());
                }
                Some((folder, Search::InOrder(mut file))) => match file.step() {
                    Ok(Some(found)) => {
                        self.learned.records = std::mem::take(&mut file.records);
                        self.learned.letters = std::mem::take(&mut file.letters);
                        self.search = Some((folder, Search::InOrder(file)));
                        return Some(found);
                    }
                    Ok(None) => self.read_in_order(folder, &file),
                    Err(error) => self.not_in_order(folder, &error),
                },
                None => {
                    // Letters are as long as batches: those of many folders together find no place in memory.
                    if !self.took_all() {
                        return Some(Vec::new());
                    }
                    let Some(folder) = self.folders.pop() else {
                        return (!self.later.is_empty()).then(Vec::new);
                    };
                    self.begin_folder(folder);
                }
            }
        }
    }

    fn begin_folder(&mut self, folder: PathBuf) {
        if is_newer(&folder) {
            match self.open_in_order(&folder.join(FILE)) {
                Ok(mut file) => {
                    self.learned.books = std::mem::take(&mut file.books);
                    (self.learned.mark, self.learned.whole) = (file.mark.clone(), true);
                    tracing::info!(folder = %folder.display(), "a spool that was set aside can be read now; it is taken back");
                    self.search = Some((folder, Search::InOrder(Box::new(file))));
                    return;
                }
                Err(error) => return self.not_in_order(folder, &error),
            }
        }
        self.begin_pages(folder);
    }

    /// A file whose schema this program knows cannot be read in order. If it is not for damage, that is tried again before its pages are
    /// searched: they tell less. The pages of a file that is still newer are none of ours.
    fn not_in_order(&mut self, folder: PathBuf, error: &StoreError) {
        let may_pass = error.trouble().folder().is_none() && self.has_tries(&folder);
        if may_pass || error.trouble() == Trouble::Newer {
            return self.unclear(folder, error.to_string());
        }
        tracing::warn!(%error, folder = %folder.display(), "a newer spool cannot be read in order; it is searched page by page");
        self.found.get_or_insert(error.to_string());
        self.begin_pages(folder);
    }

    /// SQLite leaves out, without a word, what stands behind a damaged frame of the log: then books and blocks agree, and both lack it.
    fn open_in_order(&self, file: &Path) -> Result<TakenBack, StoreError> {
        match log_fault(file) {
            Some(LogFault::Unread) => Err(StoreError::Unread("the disk does not give its log".to_owned())),
            Some(_) => Err(StoreError::Foreign("the log of a newer spool is damaged".to_owned())),
            None => TakenBack::open(file, self.schema),
        }
    }

    fn begin_pages(&mut self, folder: PathBuf) {
        match Salvage::open(&folder.join(FILE)) {
            Ok(salvage) => self.search = Some((folder, Search::Pages(Box::new(salvage)))),
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "the damaged spool cannot be searched");
                if error.kind() != io::ErrorKind::NotFound {
                    self.older_wait(&folder);
                    self.unread(folder, format!("it could not be opened: {error}"));
                }
            }
        }
    }

    /// Of a place the disk did not tell what is in it: later, or never. What may be a newer program's is not marked then: the next start
    /// looks at it again.
    pub(super) fn unclear(&mut self, place: PathBuf, what: String) {
        self.older_wait(&place);
        if !self.put_off(&place, &what) && !is_kind(&place) && !is_newer(&place) {
            self.searched.push(Searched { folder: place, remove: false, unread: Some(what) });
        }
    }

    /// What is older than this waits for it, as long as that is tried again: the newest file that has a run knows most of it. Books of an
    /// older one would take their place, and what was confirmed or refused since would be sent again. What lies where nothing was listed may be
    /// newer than all.
    fn older_wait(&mut self, place: &Path) {
        if !self.has_tries(place) {
            return;
        }
        let is_older = |folder: &mut PathBuf| is_kind(place) || aside::age(folder) < aside::age(place);
        self.later.extend(self.folders.extract_if(.., is_older));
    }

    /// Of a file that is ours to search the disk did not give everything: later, or never.
    fn unread(&mut self, folder: PathBuf, what: String) {
        if !self.put_off(&folder, &what) {
            self.searched.push(Searched { folder, remove: false, unread: Some(what) });
        }
    }

    /// Keeps a place for the next try. `false`: there is none, and the report names it.
    fn put_off(&mut self, place: &Path, what: &str) -> bool {
        tracing::warn!(folder = %place.display(), error = %what, "what was set aside could not be read whole");
        if self.has_tries(place) {
            *self.tries.entry(place.to_owned()).or_default() += 1;
            self.later.push(place.to_owned());
            return true;
        }
        self.found = self.found.take().map(|found| format!("{found}; {what}")).or(Some(what.to_owned()));
        false
    }

    /// Whether what the disk does not give now of this place is asked for again. Who only waited for another has all tries left.
    fn has_tries(&self, place: &Path) -> bool {
        self.tries.get(place).is_none_or(|tries| *tries < PAUSES.len())
    }

    fn searched_pages(&mut self, folder: PathBuf, salvage: &Salvage) {
        for (run, claims) in salvage.claims.iter().filter(|(run, _)| **run != self.own) {
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

    /// A file that holds what its books say has said what its books say. One that does not is searched page by page.
    fn read_in_order(&mut self, folder: PathBuf, file: &TakenBack) {
        let missing = file.missing();
        if file.damaged > 0 || missing > 0 {
            let found = format!(
                "{} blocks of a newer spool are damaged, {missing} of its readings are not in their place",
                file.damaged
            );
            tracing::warn!(error = %found, folder = %folder.display(), "it is searched page by page");
            self.found.get_or_insert(found);
            return self.begin_pages(folder);
        }
        for (run, books) in file.runs() {
            if file.ended.contains(run) {
                self.said.end(*run, u64::MAX);
            }
            self.said.losses(*run, books);
        }
        self.searched.push(Searched { folder, remove: true, unread: None });
    }
}
