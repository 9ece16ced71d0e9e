//! What a PUBACK does: it confirms, asks for patience, or refuses.

use std::time::{Duration, Instant};

use super::super::config::NobodyListens;
use super::super::reasons::puback_words;
use super::backlog::TRIES_MAX;
use super::{Kind, Sent, Session, Token};
use crate::spool::Confirmed;

/// Longest pause after a refusal that asks for patience; the first is [`PAUSE_FIRST`], each next doubles.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// So many messages refused for good with none accepted in between, and it is the broker, not a message.
const REFUSED_ROW_MAX: u32 = 64;
/// Dead letters that the disk has not answered for; beyond it what is refused is tried on.
const DYING_MAX: usize = 1024;
/// So many acknowledgements on one connection, and the search for an unreadable one is over.
const READABLE_ACKS: u64 = 200;

impl Session {
    /// PUBACK with its reason.
    pub(in crate::uplink) fn on_puback(&mut self, now: Instant, token: Token, code: u8) {
        let Some(sent) = self.flight.remove(&token) else { return };
        for one in &sent.what {
            self.in_flight.remove(one);
        }
        if let Some(line) = &mut self.line {
            line.progress = now;
            line.acks += 1;
            line.pace.acked(now, sent.bytes, &sent.mark);
        }
        let unheard = code == 0x10 && sent.kind.is_data();
        if unheard {
            self.numbers.nobody_listening += 1;
        }
        let held = unheard && self.settings.nobody_listens == NobodyListens::Hold;
        if sent.kind.is_data() && (held || code >= 0x80) {
            self.books.came_back(&sent.what);
        }
        if unheard && !held {
            let is_record = |one: &&Confirmed| matches!(one, Confirmed::Event { .. });
            self.numbers.records_unheard += sent.what.iter().filter(is_record).count() as u64;
        }
        if code < 0x80 && !held {
            return self.accept(now, sent);
        }
        let why = puback_words(code, &self.topic_of(&sent));
        if !sent.kind.is_data() {
            self.on_about(&sent, Some((code, &why)));
        } else if held || matches!(code, 0x80 | 0x83 | 0x91 | 0x97) {
            self.why_refused(&sent, (code, &why));
            self.wait(now);
        } else {
            self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
            self.refuse(now, &sent, (code, &why));
            if self.refused_in_a_row >= REFUSED_ROW_MAX {
                // Without beginning anew: behind a long refused stretch there may be what the broker takes.
                self.pause(now);
            }
        }
    }

    fn accept(&mut self, now: Instant, sent: Sent) {
        if !sent.kind.is_data() {
            return self.on_about(&sent, None);
        }
        self.accepted += 1;
        self.refused_in_a_row = 0;
        self.pause_step = Duration::ZERO;
        if self.unreadable > 0 && self.line.as_ref().is_some_and(|line| line.acks >= READABLE_ACKS) {
            self.unreadable = 0;
            if let Some(granted) = self.line.as_ref().map(|line| line.granted) {
                let window = self.window(granted);
                self.line.iter_mut().for_each(|line| line.window = window);
            }
        }
        for one in &sent.what {
            if let Confirmed::Batch { n, .. } = one {
                self.numbers.confirmed += n;
            }
        }
        self.settle(now, &sent.what);
        self.forget_refused(&sent);
        self.confirmed.extend(sent.what);
    }

    fn settle(&mut self, now: Instant, what: &[Confirmed]) {
        self.backlog.settle(now, what);
        for one in what {
            match one {
                Confirmed::Batch { run, seq, n } if *run == self.settings.run => self.settled.add(*seq, *n),
                _ => {}
            }
        }
    }

    /// The broker asks for patience, or nobody listens: no data for a while, longer each time, then one message.
    fn wait(&mut self, now: Instant) {
        self.from_the_start = true;
        self.pause(now);
    }

    fn why_refused(&mut self, sent: &Sent, (code, why): (u8, &str)) {
        let topic = self.topic_of(sent);
        if let Some(line) = &mut self.line {
            line.refused.data(code, why, topic);
        }
    }

    fn pause(&mut self, now: Instant) {
        let step = if self.pause_step.is_zero() { PAUSE_FIRST } else { (self.pause_step * 2).min(PAUSE_MAX) };
        // Of several refusals at once only the first counts.
        if self.pause.is_none() {
            self.pause_step = step;
            self.pause = Some(now + step);
            self.live.keep_newest_only(true);
        }
    }

    /// Refused for good. Tried again a few times; then, if the broker takes other messages, it is this one's fault and
    /// it goes to the dead letters. A broker that takes nothing at all (an access list that was forgotten) costs no
    /// reading: everything stays in the spool, tried ever more seldom.
    pub(super) fn refuse(&mut self, now: Instant, sent: &Sent, (code, why): (u8, &str)) {
        self.why_refused(sent, (code, why));
        let mut dead = Vec::new();
        for one in &sent.what {
            let refusal = self.backlog.refuse(now, *one, &sent.device, self.accepted);
            let others_pass = self.accepted > refusal.accepted;
            let room = self.dying.len() < DYING_MAX;
            if sent.kind == Kind::Backlog && refusal.tries >= TRIES_MAX && others_pass && room {
                dead.push(*one);
            }
        }
        if !dead.is_empty() {
            self.dying.extend(&dead);
            self.dead.push_back((dead, why.to_owned()));
        } else if self.accepted == 0 {
            self.wait(now);
        }
    }

    /// The spool's answer to [`Action::DeadLetter`](super::Action::DeadLetter). Stored, it is settled; if not, it waits in the
    /// backlog like before, and comes again.
    pub(in crate::uplink) fn on_dead_letter(&mut self, now: Instant, what: &[Confirmed], stored: bool) {
        for one in what {
            self.dying.remove(one);
        }
        if stored {
            self.numbers.dead_letters += 1;
            self.settle(now, what);
        } else {
            self.backlog.rewind(now);
        }
    }
}
