//! Gap records of losses, and the bound on their number.
//!
//! A loss that touches the newest record grows it. When all the same more than [`GAPS_MAX`] records wait (nobody takes them, and a
//! flaky disk makes many small holes), neighbours of one run and one cause are told as one: the nearest first, until half of the
//! bound is left. What they say stays exact in number ([`Body::Gaps`]), so nothing is dropped in silence. The bound is
//! [`GAPS_MAX`], or one for each run and cause if those are more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Writer;
use super::window::Window;
use crate::model::event::{Body, Event, GapCause};
use crate::model::{RunId, Stamp};
use crate::spool::inner::{Gap, Inner};
use crate::spool::store::{Store, StoreError, gap_rows};

/// Gap records that wait, at most.
pub(in crate::spool) const GAPS_MAX: usize = 1000;

/// What is told of a stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    first: u64,
    next: u64,
    lost: u64,
    rows: Vec<i64>,
}

impl Writer {
    /// Makes gap records of losses; one that touches the newest grows it, unless a reader has given that out.
    pub(super) fn gap_records(
        &mut self,
        inner: &mut Inner,
        gaps: Vec<Gap>,
        window: &mut Window,
        (grows, stamp): (bool, Stamp),
    ) {
        for (of, first, next, cause) in gaps {
            if let Some((id, event)) = self.open_gap.as_mut().filter(|_| grows)
                && let Body::Gap { of: its, next: end, cause: why, .. } = event.body
                && (its, end, why) == (of, first, cause)
            {
                let mut grown = Event::clone(event);
                if let Body::Gap { next: end, .. } = &mut grown.body {
                    *end = next;
                }
                *event = Arc::new(grown);
                window.grown.retain(|(grown, _)| grown != id);
                window.grown.push((*id, event.clone()));
                continue;
            }
            let body = Body::Gap { of, first, next, cause };
            let event = Event { run: inner.run, number: inner.next_event, stamp, body };
            inner.next_event += 1;
            window.open_gap = Some(window.events.len());
            window.events.push(Arc::new(event));
        }
    }

    /// The gap records on the disk, if too many wait: all of them are read.
    pub(super) fn many_gaps(
        &mut self,
        store: &Store,
        window: &Window,
    ) -> Result<Vec<(i64, Event)>, StoreError> {
        if self.gaps_waiting <= GAPS_MAX || !window.gone.is_empty() {
            return Ok(Vec::new());
        }
        let rows = gap_rows(store.connection())?;
        self.gaps_waiting = rows.len();
        Ok(if rows.len() > GAPS_MAX { rows } else { Vec::new() })
    }

    /// Tells many gaps as few; `rows`: those on the disk, if too many wait.
    pub(super) fn bound_gaps(
        &mut self,
        rows: Vec<(i64, Event)>,
        inner: &mut Inner,
        window: &mut Window,
        stamp: Stamp,
    ) {
        let mut told: BTreeMap<(RunId, GapCause), Vec<Told>> = BTreeMap::new();
        for (id, event) in rows {
            // On its way out, or growing just now.
            if inner.sent.contains(&(event.run, event.number))
                || window.grown.iter().any(|(grown, _)| *grown == id)
            {
                continue;
            }
            let (key, first, next, lost) = match event.body {
                Body::Gap { of, first, next, cause } => {
                    ((of, cause), first, next, next.saturating_sub(first))
                }
                Body::Gaps { of, first, next, lost, cause } => ((of, cause), first, next, lost),
                _ => continue,
            };
            told.entry(key).or_default().push(Told { first, next, lost, rows: vec![id] });
        }
        for ((of, cause), Told { first, next, lost, rows }) in fewer(told, GAPS_MAX / 2) {
            let body = if lost == next - first {
                Body::Gap { of, first, next, cause }
            } else {
                Body::Gaps { of, first, next, lost, cause }
            };
            let event = Event { run: inner.run, number: inner.next_event, stamp, body };
            inner.next_event += 1;
            window.events.push(Arc::new(event));
            window.gone.extend(rows);
        }
        if self.open_gap.as_ref().is_some_and(|(id, _)| window.gone.contains(id)) {
            self.open_gap = None;
        }
    }
}

/// Joins the nearest neighbours until about `keep` are left in all; gives those that are joined of several.
fn fewer(mut told: BTreeMap<(RunId, GapCause), Vec<Told>>, keep: usize) -> Vec<((RunId, GapCause), Told)> {
    let mut between = Vec::new();
    for list in told.values_mut() {
        list.sort_by_key(|one| (one.first, one.next));
        between.extend(list.windows(2).map(|pair| pair[1].first.saturating_sub(pair[0].next)));
    }
    let all: usize = told.values().map(Vec::len).sum();
    between.sort_unstable();
    let Some(limit) = all.checked_sub(keep + 1).and_then(|many| between.get(many).or(between.last())) else {
        return Vec::new();
    };
    let mut joined: Vec<((RunId, GapCause), Told)> = Vec::new();
    for (key, list) in told {
        let before = joined.len();
        for one in list {
            match joined[before..].last_mut() {
                Some((_, last)) if one.first.saturating_sub(last.next) <= *limit => {
                    // Told twice, after a failure: counted once.
                    let twice = last.next.saturating_sub(one.first).min(one.next - one.first);
                    last.next = last.next.max(one.next);
                    last.lost = (last.lost + one.lost).saturating_sub(twice).min(last.next - last.first);
                    last.rows.extend(one.rows);
                }
                _ => joined.push((key, one)),
            }
        }
    }
    joined.retain(|(_, one)| one.rows.len() > 1);
    joined
}
