//! Gap records of losses, and the bound on their number.
//!
//! A loss that touches the newest record grows it. When all the same more than [`GAPS_MAX`] records wait (nobody takes them, and a
//! flaky disk makes many small holes), several are told as one, as it is with those in memory ([`fewer`]).

use std::sync::Arc;

use super::Writer;
use super::window::Window;
use crate::model::Stamp;
use crate::model::event::{Body, Event};
use crate::spool::gaps::{GAPS_MAX, Gap, Told, fewer};
use crate::spool::inner::Inner;
use crate::spool::store::{Store, StoreError, gap_rows};

impl Writer {
    /// Makes gap records of losses; one that touches the newest grows it, unless a reader has given that out.
    pub(super) fn gap_records(
        &mut self,
        inner: &mut Inner,
        gaps: Vec<Gap>,
        window: &mut Window,
        (grows, stamp): (bool, Stamp),
    ) {
        for gap in gaps {
            if let Some((id, event)) = self.open_gap.as_mut().filter(|_| grows)
                && Gap::told_by(&event.body).is_some_and(|told| told.touches(gap))
            {
                let mut grown = Event::clone(event);
                if let Body::Gap { next: end, .. } = &mut grown.body {
                    *end = gap.next;
                }
                *event = Arc::new(grown);
                window.grown.retain(|(grown, _)| grown != id);
                window.grown.push((*id, event.clone()));
                continue;
            }
            let body = inner.for_all(gap).body();
            let event = Event { run: inner.run, number: inner.next_event, stamp, body };
            inner.next_event += 1;
            window.open_gap = Some(window.events.len());
            window.events.push(Arc::new(event));
            window.gaps.push(gap);
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
        let mut told = Vec::new();
        for (id, event) in rows {
            let leaves = inner.sent.contains(&(event.run, event.number));
            let grows = window.grown.iter().any(|(grown, _)| *grown == id);
            if !leaves && !grows {
                told.extend(Gap::told_by(&event.body).map(|gap| Told { gap, rows: vec![id] }));
            }
        }
        for Told { gap, rows } in fewer(told, GAPS_MAX / 2).into_iter().filter(|told| told.rows.len() > 1) {
            let body = inner.for_all(gap).body();
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
