//! The end of the run and of the spool: its record, once everything of it is stored, and the last commit.

use std::sync::Arc;

use super::Writer;
use crate::model::event::{Body, Event};
use crate::spool::SpoolError;

impl Writer {
    /// The run's own end record, once everything of it is stored.
    pub(super) fn end_run(&mut self) {
        self.run_ended = true;
        let stamp = (self.shared.now)();
        let mut inner = self.shared.lock();
        let body = Body::RunEnd {
            ended: inner.run,
            next_seq: inner.durable(),
            clean: true,
            last_wall_us: self.last_wall_us,
        };
        let event = Event { run: inner.run, number: inner.next_event, stamp, body };
        inner.next_event += 1;
        inner.events.push_back(Arc::new(event));
    }

    pub(super) fn close(&mut self, clean: bool) -> Result<(), SpoolError> {
        let now = self.now;
        self.shared.lock().closed = true;
        loop {
            let empty = {
                let inner = self.shared.lock();
                let letters = self.dead.is_empty() && self.dying.is_empty();
                letters && inner.ring.is_empty() && inner.events.is_empty() && inner.gaps.is_empty()
            };
            if empty {
                break;
            }
            if self.store.is_none() {
                self.heal();
            }
            if !self.commit_window(now, None) {
                break;
            }
        }
        if clean && !self.run_ended && self.store.is_some() {
            self.end_run();
            self.commit_window(now, Some(2));
        } else {
            self.books_due = now;
            self.commit_window(now, Some(0));
        }
        self.keep_copy(false);
        let result = match (&self.broken, &self.store) {
            (None, Some(store)) => store.empty_log().map(|_| ()).map_err(|error| error.to_string()),
            (broken, _) => Err(broken.as_ref().map_or_else(String::new, |broken| broken.why.clone())),
        };
        self.show();
        self.store = None;
        result.map_err(SpoolError::Unavailable)
    }
}
