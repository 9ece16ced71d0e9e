//! The backlog lane's place in the spool: a cursor, the span in hand, and what is not to be sent again now. Pure.
//!
//! The cursor only goes forward; what it passed without sending (in flight in the live lane, refused for a while) is
//! found again by beginning anew, which costs little: the spool gives only what waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::spool::{Confirmed, Cursor, Item, Span};

/// Tries of a message that the broker refuses for good.
pub(super) const TRIES_MAX: u32 = 3;
/// First wait before a refused message is tried again; doubles.
const REFUSED_WAIT: Duration = Duration::from_secs(2);
/// Refused batches and records that are remembered. One more, and what else is like it (of its device, or a record) waits until half
/// of these are settled: so each comes to its end with few tries, instead of all being tried for ever.
pub(super) const REFUSALS_MAX: usize = 4096;
/// Confirmations remembered while a span is in hand; one more, and the span is fetched anew.
const SETTLED_MAX: usize = 65_536;
/// Least time between two beginnings.
const REWIND_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    /// The next span is to be asked for.
    Wanted,
    /// It has been asked for.
    Asked,
    /// There is a span in hand.
    InHand,
    /// Nothing waits behind the cursor.
    End,
}

/// Times a message was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) tries: u32,
    /// Messages that the broker had accepted when it refused this one first.
    pub(super) accepted: u64,
    until: Instant,
    /// The walk that met it last.
    walk: u64,
}

#[derive(Debug)]
pub(super) struct Backlog {
    cursor: Cursor,
    fetch: Fetch,
    items: VecDeque<Item>,
    /// Confirmed since the span in hand was asked for.
    settled: HashSet<Confirmed>,
    refused: HashMap<Confirmed, Refusal>,
    /// There was no room to remember that something of these devices was refused; empty: a record.
    crowded: HashSet<Arc<str>>,
    /// Beginnings from the oldest waiting item.
    walk: u64,
    /// Begin anew at the end, or at this time if the end was reached.
    rewind: Option<Instant>,
    /// An answer to a question asked before a reset is not for us.
    stale: bool,
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self {
            cursor: Cursor::START,
            fetch: Fetch::Wanted,
            items: VecDeque::new(),
            settled: HashSet::new(),
            refused: HashMap::new(),
            crowded: HashSet::new(),
            walk: 0,
            rewind: None,
            stale: false,
        }
    }

    /// From the oldest waiting item again.
    pub(super) fn reset(&mut self) {
        self.cursor = Cursor::START;
        self.items.clear();
        self.rewind = None;
        if self.fetch == Fetch::Asked {
            self.stale = true;
        } else {
            self.fetch = Fetch::Wanted;
        }
    }

    /// The connection is over, and a question with it: its answer does not come.
    pub(super) fn forget(&mut self) {
        self.reset();
        self.stale = false;
        self.fetch = Fetch::Wanted;
    }

    /// Something was passed without being sent: begin anew, not before `at`.
    pub(super) fn rewind(&mut self, at: Instant) {
        self.rewind = Some(self.rewind.map_or(at, |before| before.min(at)));
    }

    /// Something was stored.
    pub(super) fn stored(&mut self) {
        if self.fetch == Fetch::End {
            self.fetch = Fetch::Wanted;
        }
    }

    /// The question for the spool, if one is due.
    pub(super) fn question(&mut self, now: Instant) -> Option<Cursor> {
        if self.fetch == Fetch::End && self.rewind.is_some_and(|at| at <= now) {
            self.rewind = None;
            self.cursor = Cursor::START;
            self.fetch = Fetch::Wanted;
        }
        if self.fetch != Fetch::Wanted {
            return None;
        }
        self.fetch = Fetch::Asked;
        self.settled.clear();
        if self.cursor == Cursor::START {
            self.walk += 1;
        }
        Some(self.cursor)
    }

    /// The spool's answer. `grouped`: a message carries one device, so batches of a device are brought together; their
    /// order per device stays. No span: nothing behind the cursor can be given now.
    pub(super) fn answer(&mut self, now: Instant, span: Option<Span>, grouped: bool) {
        if std::mem::take(&mut self.stale) {
            self.fetch = Fetch::Wanted;
            return;
        }
        let Some(span) = span else {
            self.fetch = Fetch::End;
            self.forget_unmet(now);
            if let Some(at) = &mut self.rewind {
                *at = (*at).max(now + REWIND_WAIT);
            }
            return;
        };
        self.cursor = span.next;
        self.items = span.items.into();
        self.fetch = if self.items.is_empty() { Fetch::Wanted } else { Fetch::InHand };
        if grouped {
            self.items.make_contiguous().sort_by(|a, b| place(a).cmp(&place(b)));
        }
    }

    /// The spool could not answer; ask again later.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.stale = false;
        self.fetch = Fetch::End;
        self.rewind(now + REWIND_WAIT);
    }

    /// When something is due although nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.fetch == Fetch::End { self.rewind } else { None }
    }

    /// Something was refused, and is to be tried again.
    pub(super) fn remembers_refused(&self) -> bool {
        !self.refused.is_empty() || !self.crowded.is_empty()
    }

    /// The item that goes next.
    pub(super) fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    /// Takes the item that goes next.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        if self.items.is_empty() && self.fetch == Fetch::InHand {
            self.fetch = Fetch::Wanted;
        }
        item
    }

    /// Confirmed or dead-lettered: not to be sent again.
    pub(super) fn settle(&mut self, now: Instant, what: &[Confirmed]) {
        for one in what {
            self.refused.remove(one);
        }
        self.make_room(now);
        if matches!(self.fetch, Fetch::Asked | Fetch::InHand) {
            self.settled.extend(what);
            if self.settled.len() > SETTLED_MAX {
                self.reset();
            }
        }
    }

    /// A walk has come to it. Not to be sent now: settled, or refused and its wait not over, or like what is refused and cannot be
    /// remembered. `device`: its own, empty for a record.
    pub(super) fn skips(&mut self, now: Instant, what: &Confirmed, device: &str) -> bool {
        if self.settled.contains(what) {
            return true;
        }
        let Some(refusal) = self.refused.get_mut(what) else { return self.crowded.contains(device) };
        refusal.walk = self.walk;
        let until = refusal.until;
        if until > now {
            self.rewind(until);
        }
        until > now
    }

    /// A whole walk has not met these: they do not wait any more, and would take the room of those that do.
    fn forget_unmet(&mut self, now: Instant) {
        let walk = self.walk;
        self.refused.retain(|_, refusal| refusal.walk == walk);
        self.make_room(now);
    }

    /// What waited for room is tried, once there is enough.
    fn make_room(&mut self, now: Instant) {
        if !self.crowded.is_empty() && self.refused.len() <= REFUSALS_MAX / 2 {
            self.crowded.clear();
            self.rewind(now);
        }
    }

    /// The broker refused it, of this device; empty for a record. `accepted`: messages it has accepted so far.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        what: Confirmed,
        device: &Arc<str>,
        accepted: u64,
    ) -> Refusal {
        let first = Refusal { tries: 0, accepted, until: now, walk: self.walk };
        if self.refused.len() >= REFUSALS_MAX && !self.refused.contains_key(&what) {
            self.crowded.insert(device.clone());
            return first;
        }
        let refusal = self.refused.entry(what).or_insert(first);
        refusal.walk = self.walk;
        refusal.tries += 1;
        refusal.until = now + REFUSED_WAIT * 2_u32.pow(refusal.tries.min(5));
        let refusal = *refusal;
        self.rewind(refusal.until);
        refusal
    }
}

/// Where an item stands in a span whose batches are brought together by device.
fn place(item: &Item) -> Option<(crate::model::RunId, &str, &str)> {
    match item {
        Item::Event(_) => None,
        Item::Batch(batch) => Some((batch.run, &batch.shape.gateway, &batch.shape.device)),
    }
}
