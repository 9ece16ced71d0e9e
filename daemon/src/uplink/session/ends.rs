//! What the end of a connection does: nothing is confirmed, the newest readings stay at hand, and the next attempt has
//! its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::backoff::{Failure, STABLE};
use super::super::reasons::OFTEN_CLOSED;
use super::super::words::{Cause, End};
use super::{Line, Phase, Session, UNREADABLE_MAX};
use crate::model::Batch;

/// So many connections that the peer closed young, within [`YOUNG_WINDOW`], are perhaps a take-over.
const YOUNG_MAX: usize = 3;
const YOUNG_WINDOW: Duration = Duration::from_secs(300);
/// A PUBACK that cannot be read has none.
const NO_CODE: u8 = 0;

impl Session {
    /// The connection, or the attempt, is over. `chance`: drawn evenly from 0 to 1.
    pub(in crate::uplink) fn on_ended(&mut self, now: Instant, end: End, chance: f64) {
        for sent in self.flight.values() {
            self.books.came_back(&sent.what);
        }
        self.find_unreadable(now, &end);
        if let Some(settings) = self.next_settings.take() {
            self.settings = settings;
        }
        let flight = std::mem::take(&mut self.flight);
        self.in_flight.clear();
        let mut newest: Vec<Arc<Batch>> = flight.into_values().flat_map(|sent| sent.batches).collect();
        newest.extend(self.live.drain());
        newest.sort_by_key(|batch| batch.seq);
        self.live.keep_newest_only(true);
        for batch in newest {
            self.live.push(batch);
        }
        self.backlog.forget();
        let line = self.line.take();
        match self.phase {
            Phase::Leaving { for_good: true, .. } | Phase::Done => self.phase = Phase::Done,
            Phase::Leaving { for_good: false, .. } => self.phase = Phase::Waiting { until: now },
            Phase::Waiting { .. } | Phase::Connecting | Phase::Up => {
                let (failure, words) = self.judge(now, end, line.as_ref());
                let wait = self.backoff.after(failure, now, chance);
                self.phase = Phase::Waiting { until: now + wait };
                self.trouble = Some(words);
            }
        }
    }

    /// Which back-off an end deserves, and its words.
    fn judge(&mut self, now: Instant, end: End, line: Option<&Line>) -> (Failure, String) {
        let Some(line) = line else {
            let reached =
                matches!(end.cause, Cause::Refused | Cause::Closed | Cause::TakenOver | Cause::Unreadable);
            return (if reached { Failure::Refused } else { Failure::Unreachable }, end.words);
        };
        let age = now.saturating_duration_since(line.since);
        if line.acks > 0 && age >= STABLE {
            self.backoff.stable();
            self.young.clear();
        }
        if let Some(why) = line.refused.why() {
            self.refused_lately = Some((now, why.to_owned()));
        }
        if let Some(why) = line.refused.why().filter(|_| end.cause == Cause::Closed) {
            // mosquitto without a bound on its queues refuses, and closes.
            return (Failure::Refused, format!("{}; just before, {why}", end.words));
        }
        if line.acks == 0 {
            return (Failure::Refused, end.words);
        }
        match end.cause {
            Cause::TakenOver | Cause::Refused | Cause::Unreadable => (Failure::Refused, end.words),
            Cause::Closed if age < STABLE => {
                while self.young.front().is_some_and(|at| now.saturating_duration_since(*at) > YOUNG_WINDOW) {
                    self.young.pop_front();
                }
                if self.young.len() >= YOUNG_MAX {
                    self.young.pop_front();
                }
                self.young.push_back(now);
                if self.young.len() >= YOUNG_MAX {
                    // A reset may take the refusal with it that another connection lived to hear.
                    let lately = self.refused_lately.as_ref();
                    let why = lately.filter(|(at, _)| now.saturating_duration_since(*at) <= YOUNG_WINDOW);
                    let guess =
                        why.map_or(OFTEN_CLOSED.to_owned(), |(_, why)| format!("shortly before, {why}"));
                    (Failure::Refused, format!("{}; {guess}", end.words))
                } else {
                    (Failure::Unreachable, end.words)
                }
            }
            Cause::Closed | Cause::Network | Cause::Leaving | Cause::Ours => {
                (Failure::Unreachable, end.words)
            }
        }
    }

    /// A PUBACK that the client cannot read ends the connection without saying which message it was for. After two
    /// such ends messages go out one by one; the one in flight at the next such end is the one.
    fn find_unreadable(&mut self, now: Instant, end: &End) {
        if end.cause != Cause::Unreadable {
            return;
        }
        self.unreadable = self.unreadable.saturating_add(1);
        let mut data = self.flight.iter().filter(|(_, sent)| sent.kind.is_data()).map(|(token, _)| *token);
        if let (Some(token), None) = (data.next(), data.next())
            && self.unreadable > UNREADABLE_MAX
            && let Some(sent) = self.flight.remove(&token)
        {
            let dead = self.dead.len();
            self.refuse(now, &sent, (NO_CODE, &end.words));
            if self.dead.len() > dead {
                self.unreadable = 0;
            }
        }
    }
}
