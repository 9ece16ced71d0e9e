//! The audit: walks what waits on the disk and compares it with the ledger, so that nothing that was counted as stored goes
//! missing in silence.
//!
//! SQLite notices some damage only when it walks over it, and some never: a page between that points elsewhere makes blocks
//! unreachable, a flipped bit makes a header lie. Blocks have consecutive numbers, and each waiting reading must be in one of
//! them. The audit runs once after opening, over the headings; when a block cannot be decoded, or the drain comes to its end
//! and something should still wait, over the blocks with their checksums.
//!
//! What comes of it: a few damaged blocks cost themselves, are made empty, and what was in them is recorded as lost. Blocks that are
//! not where they must be send the whole file to quarantine, where the search of all its pages may find them.
//!
//! Works in pieces, so that it can run beside sampling.

use std::collections::BTreeMap;

use super::Writer;
use crate::model::RunId;
use crate::model::event::{Body, GapCause};
use crate::spool::api::Keep;
use crate::spool::block::{self, BlockFault, Header};
use crate::spool::inner::Inner;
use crate::spool::ledger::Intervals;
use crate::spool::ring::{self, Heading, Spot};
use crate::spool::store::{Store, StoreError, Trouble};

/// Headings, or blocks, looked at in one turn.
const PIECE: usize = 64;

/// More damaged blocks than these send the file to quarantine.
const BAD_BLOCKS_MAX: usize = 4;

/// A walk over what waits.
#[derive(Debug)]
pub(super) struct Audit {
    /// Blocks are read whole and decoded.
    deep: bool,
    /// Number of the next block.
    at: u64,
    /// What each run had stored when the walk began.
    durable: BTreeMap<RunId, u64>,
    covered: BTreeMap<RunId, Intervals>,
    /// A number is missing between the oldest and the newest block.
    hole: bool,
    bad: Vec<Spot>,
    /// It was begun for damaged blocks that had to go.
    unread: bool,
}

/// Stretches of readings: run, first, one past the last.
pub(super) type Held = Vec<(RunId, u64, u64)>;

/// What is missing.
struct Missing {
    run: RunId,
    first: u64,
    next: u64,
}

impl Audit {
    fn new(deep: bool, inner: &Inner) -> Self {
        Self {
            deep,
            at: inner.floor,
            durable: inner.ledger.runs.iter().map(|(run, books)| (*run, books.durable)).collect(),
            covered: BTreeMap::new(),
            hole: false,
            bad: Vec::new(),
            unread: false,
        }
    }

    /// Looks at a piece. `true`: that was the last.
    fn piece(&mut self, store: &Store) -> Result<bool, StoreError> {
        let Some(extent) = store.ring() else { return Ok(true) };
        // What was evicted meanwhile is booked.
        self.at = self.at.max(extent.oldest.number);
        let connection = store.connection();
        let found = ring::locate(connection, self.at)?;
        let headings = found.map_or(Ok(Vec::new()), |from| ring::headings(connection, from, PIECE))?;
        if headings.is_empty() {
            self.hole |= self.at <= extent.newest.number;
            return Ok(true);
        }
        for heading in headings {
            if !ring::stands(connection, heading.spot)? {
                return Err(StoreError::Foreign("a block is not found by its place".to_owned()));
            }
            self.hole |= heading.spot.number != self.at;
            self.at = heading.spot.number.max(self.at) + 1;
            match self.held(store, &heading)? {
                Some(held) => {
                    for (run, first, next) in held {
                        self.covered.entry(run).or_default().insert(first, next);
                    }
                }
                None if heading.bytes > 0 => self.bad.push(heading.spot),
                // Made empty by an audit before.
                None => {}
            }
        }
        Ok(false)
    }

    /// The stretches that a block holds; `None`: it cannot be read. A heading alone tells only if nothing is missing between its
    /// ends, as it is in a block of what a rescue has found.
    fn held(&self, store: &Store, heading: &Heading) -> Result<Option<Held>, StoreError> {
        if !self.deep {
            let Some(header) = heading.header else { return Ok(None) };
            if header.is_whole() {
                return Ok(Some(vec![(header.run, header.first, header.next)]));
            }
        }
        let Some(block) = ring::block(store.connection(), heading.spot)? else { return Ok(None) };
        one_by_one(store, &block)
    }

    /// Many at once are not single blocks but a page that says wrongly where its cells are: the search finds them.
    fn many_are_bad(&self) -> bool {
        self.bad.len() > BAD_BLOCKS_MAX
    }

    fn missing(&self, inner: &Inner) -> Vec<Missing> {
        let none = Intervals::default();
        let mut missing = Vec::new();
        for (run, durable) in &self.durable {
            let Some(books) = inner.ledger.runs.get(run) else { continue };
            let covered = self.covered.get(run).unwrap_or(&none);
            for (first, next) in books.settled.missing(0, *durable) {
                let stretches = covered.missing(first, next).into_iter();
                missing.extend(stretches.map(|(first, next)| Missing { run: *run, first, next }));
            }
        }
        missing
    }
}

/// What these blocks hold, by their numbers, as their checksums prove it: for whom it would settle readings. A head tells of what lies
/// between its ends too, which may wait elsewhere; then it is the batches that count. `true`: some block proves nothing.
pub(super) fn proved(store: &Store, headings: &[Heading]) -> Result<(Vec<(u64, Held)>, bool), StoreError> {
    let (mut all, mut unread) = (Vec::new(), false);
    for heading in headings {
        let mut held = None;
        // One that is empty was found damaged before.
        if heading.header.is_some()
            && let Some(block) = ring::block(store.connection(), heading.spot)?
            && let Ok((header, _)) = Header::checked(&block)
        {
            let whole = vec![(header.run, header.first, header.next)];
            held = if header.is_whole() { Some(whole) } else { one_by_one(store, &block)? };
        }
        unread |= held.is_none() && heading.bytes > 0;
        all.push((heading.spot.number, held.unwrap_or_default()));
    }
    Ok((all, unread))
}

/// The batches of a block; `None`: it cannot be read.
fn one_by_one(store: &Store, block: &[u8]) -> Result<Option<Held>, StoreError> {
    match block::decode(block, store.dictionary()) {
        Ok(batches) => Ok(Some(batches.iter().map(|batch| (batch.run, batch.seq, batch.end())).collect())),
        Err(fault @ BlockFault::Dictionary(_)) => Err(StoreError::Foreign(fault.to_string())),
        Err(_) => Ok(None),
    }
}

impl Writer {
    /// Begins a walk over the headings, if something waits and no rescue is to add to it.
    pub(in crate::spool) fn begin_audit(&mut self) {
        self.audit(false);
    }

    /// Begins a walk, unless one runs that sees as much. While files are being searched, what waits is not all there yet.
    pub(super) fn audit(&mut self, deep: bool) {
        let inner = self.shared.lock();
        let idle = self.auditing.as_ref().is_none_or(|audit| deep && !audit.deep);
        if idle && self.rescue.is_none() && self.store.is_some() && (deep || inner.ledger.sums().waiting > 0)
        {
            self.auditing = Some(Audit::new(deep, &inner));
        }
    }

    /// What was confirmed waits again, maybe behind the walk under way: it would not be found, and be called damaged.
    pub(super) fn audit_anew(&mut self) {
        if let Some(Audit { deep, unread, .. }) = self.auditing.take() {
            self.auditing = Some(Audit { unread, ..Audit::new(deep, &self.shared.lock()) });
        }
    }

    /// One piece of a walk for the rescue, which must know what is there already. Gives what it found at the end. What is missing may be
    /// in the folders; blocks that are missing in the middle are in this file, where only a search of its pages finds them.
    pub(super) fn walk(&mut self) -> Option<BTreeMap<RunId, Intervals>> {
        let store = self.store.as_ref()?;
        let mut audit = self.auditing.take().unwrap_or_else(|| Audit::new(false, &self.shared.lock()));
        match audit.piece(store) {
            Ok(true) if audit.hole || audit.many_are_bad() => {
                self.fail(Trouble::Damage, "stored blocks cannot be found where they must be", None);
            }
            Ok(true) => return Some(audit.covered),
            Ok(false) => self.auditing = Some(audit),
            Err(error) => self.fail(error.trouble(), &error.to_string(), None),
        }
        None
    }

    /// One piece of the walk.
    pub(super) fn go_on_auditing(&mut self) {
        if self.rescue.is_some() {
            return;
        }
        if self.unread && self.auditing.is_none() {
            self.audit(true);
            if let Some(audit) = &mut self.auditing {
                (audit.unread, self.unread) = (true, false);
            }
        }
        let (Some(store), Some(mut audit)) = (&self.store, self.auditing.take()) else { return };
        match audit.piece(store) {
            Ok(false) => self.auditing = Some(audit),
            Ok(true) => self.audited(&audit),
            Err(error) => self.fail(error.trouble(), &error.to_string(), None),
        }
    }

    fn audited(&mut self, audit: &Audit) {
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        let missing = audit.missing(&inner);
        let readings: u64 = missing.iter().map(|missing| missing.next - missing.first).sum();
        if missing.is_empty() && !audit.hole && audit.bad.is_empty() {
            return;
        }
        if !audit.deep {
            // Headings may lie: the blocks themselves decide.
            drop(inner);
            return self.audit(true);
        }
        let many = audit.many_are_bad();
        // With `keep = "unsent"` confirmed readings are never written, and a crash may forget that they were confirmed.
        let never_written = inner.settings.keep == Keep::Unsent;
        let known = never_written || audit.unread || !audit.bad.is_empty();
        if audit.hole || many || (readings > 0 && !known) {
            drop(inner);
            let what = format!("{readings} stored readings cannot be found where they must be");
            return self.fail(Trouble::Damage, &what, None);
        }
        for Missing { run, first, next } in missing {
            inner.lose(run, first, next, GapCause::Damaged);
        }
        let found = format!("{} stored blocks are damaged", audit.bad.len());
        if !audit.bad.is_empty() {
            tracing::warn!(lost = readings, error = %found, "damage in the spool");
            inner.must_record(Body::Corruption { found, saved: 0, lost: readings }, (shared.now)());
            // Confirmed readings lay in them too.
            inner.ledger.lacks_blocks();
            let runs: Vec<_> = inner.ledger.runs.keys().copied().collect();
            inner.dirty.extend(runs);
        }
        // With the commit that books the loss: emptied before it, and cut in between, they would make the file look as if it hid
        // what was in them.
        self.emptying.extend(&audit.bad);
    }
}
