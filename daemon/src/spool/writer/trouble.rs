//! Trouble: a disk that fails, a file that is damaged, a block or a batch that is. How it is said, healed and booked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Broken, Copied, RETRY_FIRST, Writer};
use crate::spool::SpoolError;
use crate::spool::api::Confirmed;
use crate::spool::aside::{self, QUARANTINE};
use crate::spool::gaps::Gap;
use crate::spool::inner::Inner;
use crate::spool::ledger::Ledger;
use crate::spool::store::{DeadLetter, StoreError, Trouble};
use crate::spool::{copy, directory, enter, open, rescue};

/// The longest pause between attempts to use a disk that failed: it is back within 60 s of its cause going away.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Refusals further apart than this have nothing to do with each other.
const REFUSED_APART: Duration = Duration::from_secs(120);

/// On a full disk a file does not grow, but for this: one that has just begun must hold something, and the reserve is given.
const LEAST_ON_A_FULL_DISK: u64 = 256 * 1024;

/// A reserve for which there was no room is tried again after this.
pub(in crate::spool) const RESERVE_AGAIN: Duration = Duration::from_secs(60);

/// The copy of the books is no older than this.
const COPY_EVERY: Duration = Duration::from_secs(3600);

/// One that cannot be written is tried again after this.
pub(in crate::spool) const COPY_AGAIN: Duration = Duration::from_secs(10);

impl Writer {
    /// Drops the connection, and says when it is tried again.
    pub(super) fn fail(&mut self, trouble: Trouble, why: &str, undo_from: Option<(u64, i64)>) {
        if let Some(store) = self.store.take() {
            store.forsake();
        }
        let now = self.now;
        // SQLite has one word for all that happens to its index and its log.
        let no_space = trouble == Trouble::Disk && directory::has_no_space(self.directory());
        let trouble = match trouble {
            _ if no_space => Trouble::Full,
            Trouble::Unread if self.is_refused_for_good() => Trouble::Damage,
            trouble => trouble,
        };
        let (state, words) = match trouble {
            Trouble::Full => ("full", "no space left on the disk: free some"),
            Trouble::ReadOnly => ("read-only", "the state directory cannot be written"),
            Trouble::Disk | Trouble::Unread => ("failing", "the disk fails"),
            Trouble::Damage => ("damaged", "the file is damaged"),
            Trouble::Newer => ("failing", "the file is a newer program's and is in the way"),
        };
        if trouble == Trouble::Full {
            self.full = true;
            directory::give_searched(self.directory(), directory::is_full);
        }
        let given = trouble == Trouble::Full && directory::give_reserve(self.directory());
        // An attempt that only reopened the file has not healed anything.
        let before = self.broken.take().or_else(|| self.proving.take());
        if before.as_ref().is_none_or(|before| before.state != state) {
            tracing::warn!(error = %why, state, "the spool cannot store; readings stay in memory and are tried again");
        }
        // What has to go out of the way goes at once, but not again and again on a disk that damages every file.
        let lately = |at: Instant| now.saturating_duration_since(at) < RETRY_MAX * 2;
        let at_once = trouble.folder().is_some() && !self.set_aside.is_some_and(lately);
        // Before another program takes what was the reserve.
        let at_once = at_once || (given && before.is_none());
        let pause = before.as_ref().map_or(RETRY_FIRST, |before| before.pause);
        // What may have to be undone is what the first failure left: later ones did not get that far.
        let undo_from = before.and_then(|before| before.undo_from).or(undo_from);
        self.broken = Some(Broken {
            state,
            folder: trouble.folder(),
            why: format!("{words} ({why})"),
            retry_at: if at_once { now } else { now + pause },
            pause: (pause * 2).min(RETRY_MAX),
            undo_from,
        });
    }

    /// Whether the file is open, and that opening of it is this one.
    pub(super) fn has_open(&self, generation: u64) -> bool {
        generation == self.shared.generation.load(Ordering::Acquire) && self.store.is_some()
    }

    /// The disk has refused a part of the file now. `true`: it has done so again and again, for so long that it never will give it (a card
    /// with a bad sector). The file counts as damaged then: it goes out of the way, and gives the search what can be read.
    pub(super) fn is_refused_for_good(&mut self) -> bool {
        let near = |last: Instant| self.now.saturating_duration_since(last) < REFUSED_APART;
        let since = self.refused.filter(|(_, last)| near(*last)).map_or(self.now, |(since, _)| since);
        self.refused = Some((since, self.now));
        self.now.saturating_duration_since(since) >= rescue::PATIENCE
    }

    /// Opens the file again after trouble.
    pub(super) fn heal(&mut self) {
        let Some(broken) = self.broken.as_ref() else { return };
        if let Some(folder) = broken.folder {
            let why = broken.why.clone();
            let run = self.shared.lock().run;
            let given_up = match open::put_aside(&self.file, folder, run) {
                Ok((_, given_up)) => given_up,
                Err(error) => return self.still_in_the_way(&error),
            };
            self.shared.lock().give_up(given_up, (self.shared.now)());
            tracing::error!(error = %why, "the spool cannot be used: set aside, a fresh one begins");
            (self.set_aside, self.refused) = (Some(self.now), None);
            self.begin_rescue(Some(why).filter(|_| folder == QUARANTINE));
        }
        match self.reopen() {
            // Opening is not storing: healed is what has committed.
            Ok(()) => self.proving = self.broken.take(),
            Err(error) => self.fail(error.trouble(), &error.to_string(), None),
        }
    }

    /// The file cannot be set aside now. It stays what it is: taken for a disk that fails, it would be opened and written to, or
    /// be missed where half of the way has brought it.
    fn still_in_the_way(&mut self, error: &std::io::Error) {
        let now = self.now;
        let Some(broken) = &mut self.broken else { return };
        if broken.pause < RETRY_MAX {
            tracing::error!(%error, "the spool that cannot be used cannot be set aside; readings stay in memory and it is tried again");
        }
        broken.retry_at = now + broken.pause;
        broken.pause = (broken.pause * 2).min(RETRY_MAX);
    }

    /// What the next commit has to take out: blocks and records from these numbers on, which a failed commit may have left.
    /// It goes with the commit that brings them again: alone it would leave books that tell of readings which are
    /// not there, and readings evicted without their record.
    pub(super) fn undo_from(&self) -> Option<(u64, i64)> {
        self.proving.as_ref().and_then(|proving| proving.undo_from)
    }

    /// Blocks from this number on come again; without an undo there are none.
    pub(super) fn undone(&self) -> u64 {
        self.undo_from().map_or(u64::MAX, |(block, _)| block)
    }

    pub(super) fn reopen(&mut self) -> Result<(), StoreError> {
        let arrived = aside::finish(self.directory())?;
        let first = self.mark.id.is_empty();
        let (mut store, found) = open::open_file(&self.file, (self.bytes_max, self.shared.schema), first)?;
        self.full &= directory::is_full(self.directory());
        if self.full {
            store.keep_length(LEAST_ON_A_FULL_DISK)?;
            store.begin_log_anew()?;
        } else if !store.empty_log()? {
            return Err(StoreError::Busy);
        }
        let adopted = found.mark.id != self.mark.id;
        if adopted {
            // Also what reached its folder only now, and what went back into a file that is gone.
            let why = arrived.and(self.broken.as_ref().map(|broken| broken.why.clone()));
            self.begin_rescue(why);
            // Their rows are in the other file.
            let growing: Vec<_> =
                self.growing.iter().filter_map(|(_, event)| Gap::told_by(&event.body)).collect();
            enter::adopt(&self.shared, &mut store, found, self.rescue.is_some(), &growing)?;
            (self.open_gap, self.emptying) = (None, Vec::new());
            self.growing.clear();
            if let Some(broken) = &mut self.broken {
                broken.undo_from = None;
            }
        } else if self.broken.as_ref().is_some_and(|broken| broken.undo_from.is_some()) {
            // The failed commit may have landed, and folded runs away that are not folded here: all rows go with the next books.
            let mut inner = self.shared.lock();
            let runs: Vec<_> = inner.ledger.runs.keys().copied().collect();
            inner.dirty.extend(runs);
            self.fold_due = self.now;
        }
        // What has run before is kept by the file that came with it, or by this life.
        let running = self.mark.running_s;
        self.mark = store.mark()?;
        if self.mark.running_s > running && self.began.1 == 0 {
            self.began.1 = self.mark.running_s;
        }
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.store = Some(store);
        self.stands_on();
        if adopted {
            self.begin_audit();
            // Its blocks and rows are numbered from the beginning: who walks the backlog would wait behind them.
            self.shared.committed.send_modify(|committed| committed.resends += 1);
        }
        Ok(())
    }

    /// Remembers which file the store has open, and keeps a reserve beside it.
    pub(super) fn stands_on(&mut self) {
        self.identity = directory::identity(&self.file);
        self.count_letters();
        self.take_reserve();
    }

    /// Where there was no room for it this is done again: a start on a full disk has given the reserve for its file, and is in no trouble
    /// that would end.
    fn take_reserve(&mut self) {
        if self.store.is_some() && !self.full {
            let taken = directory::take_reserve(self.directory());
            self.reserve_due = (!taken).then_some(self.now + RESERVE_AGAIN);
        }
    }

    /// The cap is another one, or what a full disk forbade is allowed.
    pub(super) fn obey_the_cap(&mut self) {
        let Some(store) = &mut self.store else { return };
        let mut done = store.set_bytes_max(self.bytes_max);
        if self.full {
            done = done.and_then(|()| store.keep_length(LEAST_ON_A_FULL_DISK));
        }
        if let Err(error) = done {
            self.fail(error.trouble(), &error.to_string(), None);
        }
    }

    /// Somebody may have removed or replaced the file under us: what is written to it then is gone with the process.
    pub(super) fn watch_file(&mut self) {
        if self.store.is_some() && directory::identity(&self.file) != self.identity {
            tracing::error!("the spool's file was removed or replaced; a fresh one begins");
            self.fail(Trouble::Disk, "the file was removed or replaced", None);
        }
        if self.full && self.store.is_some() && !directory::is_full(self.directory()) {
            // There is room again: what the full disk forbade is allowed.
            self.full = false;
            self.obey_the_cap();
            self.stands_on();
        }
        if self.reserve_due.is_some_and(|due| due <= self.now) {
            self.take_reserve();
        }
    }

    /// The first commit after trouble: now it stores again.
    pub(super) fn proved(&mut self) {
        if self.proving.take().is_some() {
            tracing::info!("the spool stores again");
        }
        self.mark_searched();
    }

    pub(super) fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// Writes the copy of the small tables, when there is a reason: a new file, a new shape, an hour, the end.
    pub(super) fn keep_copy(&mut self, open: bool) {
        let Some(store) = &self.store else { return };
        let state = Copied { file: self.identity, next_shape: store.dictionary().next_id(), open };
        if self.copied == Some(state) && self.now < self.copy_due {
            return;
        }
        // Written without the lock: appending must not wait for the disk.
        let ledger = recorded_books(&self.shared.lock());
        let head = (&self.mark, open, self.shared.schema.version);
        let written = copy::write(&self.file, head, store.dictionary(), &ledger);
        if let Err(error) = &written {
            tracing::debug!(%error, "the copy of the small tables cannot be written");
        }
        let again = if written.is_ok() { COPY_EVERY } else { COPY_AGAIN };
        (self.copied, self.copy_due) = (Some(state), self.now + again);
    }

    /// What was refused becomes dead letters; the answers come with the commits.
    pub(super) fn take_refusals(&mut self) {
        if self.store.is_none() && self.full {
            return;
        }
        for (refused, reason, reply) in std::mem::take(&mut self.refusals) {
            match self.dead_letter(&refused, &reason) {
                Ok(()) => self.letters.push(reply),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
    }

    /// Reads what was refused.
    fn dead_letter(&mut self, refused: &[Confirmed], reason: &str) -> Result<(), SpoolError> {
        let at_us = (self.shared.now)().wall_us;
        let Some(store) = &self.store else {
            return Err(SpoolError::Unavailable("the disk fails; it stays in the backlog".to_owned()));
        };
        let mut batches = BTreeMap::new();
        let (floor, stored) = {
            let inner = self.shared.lock();
            let mut stored = BTreeSet::new();
            for one in refused {
                let Confirmed::Batch { run, seq, .. } = *one else { continue };
                match inner.in_memory(seq).filter(|batch| batch.run == run) {
                    Some(batch) => _ = batches.insert((run, seq), batch),
                    None => _ = stored.insert((run, seq)),
                }
            }
            (inner.floor, stored)
        };
        batches.extend(open::find_batches(store, floor, stored).unwrap_or_default());
        for one in refused {
            let (name, batch) = match *one {
                Confirmed::Batch { run, seq, n } => ((run, seq, n), batches.remove(&(run, seq))),
                Confirmed::Event { run, number } => ((run, number, 0), None),
            };
            self.dying.push_back(DeadLetter { at_us, reason: reason.to_owned(), name, batch });
        }
        Ok(())
    }
}

/// The books, of the present run no further than the records on the disk tell.
fn recorded_books(inner: &Inner) -> Ledger {
    let mut ledger = inner.ledger.clone();
    if let Some((books, at)) = ledger.runs.get_mut(&inner.run).zip(inner.unrecorded) {
        books.durable = books.durable.min(at);
    }
    ledger
}
