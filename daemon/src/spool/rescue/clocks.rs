//! Sent records of the clock that a rescue has found, and which of them are needed: of boots of which readings come back that were stamped
//! before the clock was set. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::event::Event;
use crate::model::{BootId, ClockQuality, Stamp};

/// By boot.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The newest of each.
    found: BTreeMap<BootId, Event>,
    needed: BTreeSet<BootId>,
}

impl Clocks {
    /// This was found.
    pub(super) fn learn(&mut self, event: Event) {
        let Some(correction) = event.body.correction() else { return };
        let name = |event: &Event| (event.run, event.number);
        if self.found.get(&correction.boot).is_none_or(|known| name(known) < name(&event)) {
            self.found.insert(correction.boot, event);
        }
    }

    /// Readings with this stamp come back.
    pub(super) fn need(&mut self, stamp: Stamp) {
        if stamp.clock == ClockQuality::Unsynced {
            self.needed.insert(stamp.boot);
        }
    }

    /// What is needed and was not taken yet, newest first.
    pub(super) fn take_needed(&mut self) -> Vec<Event> {
        let needed: Vec<_> = self.found.keys().filter(|boot| self.needed.contains(boot)).copied().collect();
        let mut needed: Vec<_> = needed.iter().filter_map(|boot| self.found.remove(boot)).collect();
        needed.sort_by_key(|event| Reverse((event.run, event.number)));
        needed
    }
}
