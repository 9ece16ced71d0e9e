//! What the board and the log are told of the connection.

use std::time::{Duration, Instant};

use super::super::session::Numbers;
use super::{Task, now};
use crate::status::{Refused, Refusing};

/// The board is told at most so often, edges apart.
const SHOW_EVERY: Duration = Duration::from_millis(900);
/// What was put off so is told this much later without waiting for anything that comes anyway.
const SHOW_LATE: Duration = Duration::from_secs(1);
/// What the board was told last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    at: Option<Instant>,
    pub(super) connected: bool,
    numbers: Numbers,
    trouble: Option<String>,
    refused: Option<(Refusing, String)>,
}

impl Task {
    pub(super) fn say_ended(&mut self, was_connected: bool) {
        let at = now();
        let retry_in =
            self.session.attempt_at().map_or(0, |next| next.saturating_duration_since(at).as_secs());
        if let Some(error) = self.session.trouble().filter(|_| !self.stopping) {
            if was_connected {
                tracing::warn!(error, retry_in, "connection to the broker lost");
            } else {
                tracing::warn!(error, retry_in, "no connection to the broker");
            }
        }
        self.show(at, true);
    }

    /// Writes the uplink's section of the board. Returns when it must be called again, if it put something off.
    pub(super) fn show(&mut self, at: Instant, at_once: bool) -> Option<Instant> {
        let connected = self.session.is_connected();
        let refused = self.session.refused();
        let edge = connected != self.shown.connected
            || self.session.trouble() != self.shown.trouble.as_deref()
            || refused != self.shown.refused.as_ref().map(|(what, why)| (*what, &**why));
        let changed = edge || *self.session.numbers() != self.shown.numbers || !connected;
        if !changed {
            return None;
        }
        let due = self.shown.at.map_or(at, |last| last + SHOW_EVERY);
        if due > at && !edge && !at_once {
            return Some(due + SHOW_LATE);
        }
        let flipped = connected != self.shown.connected || self.shown.at.is_none();
        let numbers = self.session.numbers().clone();
        let trouble = self.session.trouble().map(str::to_owned);
        let refused = refused.map(|(what, why)| (what, why.to_owned()));
        let taken_again = connected && self.shown.refused.is_some() && refused.is_none();
        let begins = self.shown.refused.is_none() && refused.is_some();
        let wall_us = (self.around.wall_us)();
        let retry_in = self.session.attempt_at().map(|next| next.saturating_duration_since(at).as_secs());
        let us = flipped.then_some(wall_us);
        self.around.board.update(|status| {
            let uplink = &mut status.uplink;
            uplink.connected = connected;
            uplink.since_us = us.or(uplink.since_us);
            uplink.error.clone_from(&trouble);
            let since_us = uplink.refused.as_ref().map_or(wall_us, |refused| refused.since_us);
            uplink.refused = refused.clone().map(|(what, why)| Refused { what, since_us, why });
            uplink.retry_in = retry_in;
            uplink.connects = numbers.connects;
            uplink.confirmed = numbers.confirmed;
            uplink.messages = numbers.messages;
            uplink.bytes = numbers.bytes;
            uplink.nobody_listening = numbers.nobody_listening;
            uplink.records_unheard = numbers.records_unheard;
            uplink.dead_letters = numbers.dead_letters;
        });
        if let Some((_, error)) = refused.as_ref().filter(|_| begins) {
            tracing::warn!(error, "the broker refuses what it is sent");
        } else if taken_again {
            tracing::info!("the broker accepts again what it is sent");
        }
        self.shown = Shown { at: Some(at), connected, numbers, trouble, refused };
        None
    }
}
