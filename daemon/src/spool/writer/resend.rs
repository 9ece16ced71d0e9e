//! The request to send confirmed readings again, a piece each turn: what a piece found is on the disk before the next one
//! is looked for, and the answer comes when all of it is.

use tokio::sync::{oneshot, watch};

use super::Writer;
use crate::spool::SpoolError;
use crate::spool::again::Search;
use crate::spool::api::{Asked, Resent};
use crate::spool::store::{StoreError, Trouble};

/// Requests at a time: each walks the whole ring.
const RESENDS_MAX: usize = 4;

/// What a rescue books in the end is what did not wait when it began: a reading that waits again since would be called damaged.
const SEARCHING: (&str, &str) = (
    "the spool takes back what was set aside",
    "ask again when `fieldspool spool status` says that it is done",
);

const FAILING: (&str, &str) = ("the disk fails", "ask again");

/// A request under way.
#[derive(Debug)]
pub(super) struct Resend {
    search: Search,
    progress: watch::Sender<f64>,
    reply: oneshot::Sender<Result<Resent, SpoolError>>,
}

impl Writer {
    pub(super) fn begin_resend(
        &mut self,
        asked: Asked,
        progress: watch::Sender<f64>,
        reply: oneshot::Sender<Result<Resent, SpoolError>>,
    ) {
        let begun = match &self.store {
            _ if self.resends.len() >= RESENDS_MAX => Err(SpoolError::Unavailable(
                "it is searched for others to be sent again; try later".to_owned(),
            )),
            None => Err(SpoolError::Unavailable("the disk fails; try again when it is well".to_owned())),
            _ if self.rescue.is_some() => {
                Err(SpoolError::Unavailable(format!("{}; {}", SEARCHING.0, SEARCHING.1)))
            }
            Some(store) => {
                // A statement of its own: what follows reads the disk, without the lock.
                let admitted = Search::admit(asked, &self.shared.lock().ledger);
                admitted.map_err(SpoolError::NotThere).and_then(|asked| {
                    Search::begin(asked, store.connection())
                        .map_err(|error| SpoolError::Unavailable(error.to_string()))
                })
            }
        };
        match begun {
            Ok(search) => self.resends.push_back(Resend { search, progress, reply }),
            // Who asked may have gone.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// One piece of the request that is under way.
    pub(super) fn resend(&mut self) {
        let Some(mut resend) = self.resends.pop_front() else { return };
        let Some(store) = &self.store else {
            self.refuse(resend, FAILING);
            return;
        };
        if self.rescue.is_some() {
            self.refuse(resend, SEARCHING);
            return;
        }
        let pieces = match resend.search.step(store.connection(), store.dictionary()) {
            Ok(pieces) => pieces,
            Err(error) => {
                let words = error.to_string();
                self.refuse(resend, (&words, "ask again"));
                self.trouble_of(&error);
                return;
            }
        };
        let ended = pieces.is_none();
        let changed = {
            let mut guard = self.shared.lock();
            let inner = &mut *guard;
            let changed = resend.search.take(pieces.unwrap_or_default(), &mut inner.ledger, &mut inner.floor);
            inner.dirty.extend(&changed);
            !changed.is_empty()
        };
        if ended {
            self.again = resend.search.runs();
            self.resent_records = 0;
        }
        if changed {
            self.audit_anew();
        }
        if changed || ended {
            self.books_due = self.now;
            self.lose_patience();
            if !self.commit_window(self.now, None) {
                self.refuse(resend, FAILING);
                return;
            }
        }
        resend.progress.send_replace(resend.search.progress());
        if ended {
            let pressed = self.pressed(&resend.search);
            let resent = resend.search.finish(&self.shared.lock().ledger, (self.resent_records, pressed));
            tracing::info!(count = resent.readings, "confirmed readings are sent again");
            self.shared.committed.send_modify(|committed| committed.resends += 1);
            // Who asked may have gone; it is done all the same.
            drop(resend.reply.send(Ok(resent)));
        } else {
            self.resends.push_front(resend);
        }
    }

    /// How many are next to make room. A file that cannot be read for that says so to the next commit.
    fn pressed(&self, search: &Search) -> u64 {
        let Some(store) = &self.store else { return 0 };
        let (ledger, floor) = {
            let inner = self.shared.lock();
            (inner.ledger.clone(), inner.floor)
        };
        search.pressed(store, &ledger, floor).unwrap_or_default()
    }

    /// It ends in the middle: what was found before waits again, and the person asks once more.
    fn refuse(&mut self, resend: Resend, (why, then): (&str, &str)) {
        self.shared.committed.send_modify(|committed| committed.resends += 1);
        for resend in std::iter::once(resend).chain(std::mem::take(&mut self.resends)) {
            let words = format!("{why}; what was found until then waits to be sent: {then}");
            drop(resend.reply.send(Err(SpoolError::Unavailable(words))));
        }
    }

    fn trouble_of(&mut self, error: &StoreError) {
        if error.trouble() == Trouble::Damage {
            self.fail(Trouble::Damage, &error.to_string(), None);
        }
    }
}
