//! One RTU transaction after another, without I/O and without a clock: bytes and instants in, steps out.
//!
//! [`Engine::begin`] takes a request, [`Engine::poll`] says what to do, [`Engine::receive`] takes bytes whenever some
//! have come. Before each `poll` the caller has read the line empty: silence is judged by what has been received.
//!
//! An answer is believed only if unit, function, length and check sum are those of the request, no answer of
//! equal shape is owed ([`ledger`](super::ledger)), an expected echo has come, and it began after the request's end.
//! An exception names no request: it is believed only if the unit owes nothing for that function. A transaction has
//! one deadline, whatever trickles in. A damaged frame that begins like the answer ends it at once, as a debt.
//!
//! What no engine can see: an answer later than the hold-off; a doubled answer whose copy begins after the next
//! request of equal shape has ended; a second master asking the same; a collision of the check sum.

use std::time::{Duration, Instant};

use super::frame::{self, Head, Meaning, head};
use super::ledger::Ledger;
use crate::bus::Counters;
use crate::modbus::settings::Echo;
use crate::modbus::transaction::{Answer, Ask, Failure};

/// More than two of the longest frames: what a babbling device can make us hold.
const BUFFER_MAX: usize = 600;

/// The times of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// One character at the line's speed.
    pub(crate) character: Duration,
    /// Silence between frames: 3.5 characters, but 1.75 ms above 19 200 baud (Modbus over Serial Line V1.02, 2.5.1.1).
    pub(crate) silence: Duration,
    /// How late the adapter or the network may deliver the next piece of a frame.
    pub(crate) latency: Duration,
    /// From the end of the request to the beginning of the answer.
    pub(crate) timeout: Duration,
    /// From the end of a request until its answer can no longer come.
    pub(crate) hold_off: Duration,
    /// Bytes take the time of the wire. Not so on a pseudo-terminal or a network.
    pub(crate) paced: bool,
    /// Whether the line hears itself.
    pub(crate) echo: Echo,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write these bytes now, at once. Given once for each request.
    Write([u8; 8]),
    /// Read until then, or until bytes come.
    Wait(Instant),
    /// The transaction is over.
    Done(Result<Answer, Failure>),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    /// Waiting for silence.
    Pending {
        ask: Ask,
        deadline: Instant,
    },
    /// Written.
    Sent {
        ask: Ask,
        sent_until: Instant,
        deadline: Instant,
        echo_due: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    timing: Timing,
    state: State,
    ledger: Ledger,
    buffer: Vec<u8>,
    /// (number of bytes in the buffer, when they had arrived), ascending.
    arrivals: Vec<(usize, Instant)>,
    /// End of the last byte seen or sent.
    busy_until: Option<Instant>,
    data: Vec<u8>,
    /// What the line has seen.
    pub(crate) counters: Counters,
}

impl Engine {
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            timing,
            state: State::Idle,
            ledger: Ledger::default(),
            buffer: Vec::with_capacity(BUFFER_MAX),
            arrivals: Vec::new(),
            busy_until: None,
            data: Vec::with_capacity(250),
            counters: Counters::default(),
        }
    }

    pub(crate) fn set_paced(&mut self, paced: bool) {
        self.timing.paced = paced;
    }

    /// Takes a request, to be answered by `deadline`. `Err`: nothing of this shape may be asked of this unit
    /// until then. A transaction that was given up halfway becomes a debt.
    pub(crate) fn begin(&mut self, ask: Ask, now: Instant, deadline: Instant) -> Result<(), Instant> {
        self.give_up();
        if let Some(until) = self.ledger.held(ask, now) {
            return Err(until);
        }
        self.state = State::Pending { ask, deadline };
        Ok(())
    }

    /// From the end of a request until its answer can no longer come.
    pub(crate) fn hold_off(&self) -> Duration {
        self.timing.hold_off
    }

    /// Until when a request of this shape would be refused.
    pub(crate) fn held(&mut self, ask: Ask, now: Instant) -> Option<Instant> {
        self.ledger.held(ask, now)
    }

    /// Whether the answer to a request is awaited.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent { .. })
    }

    /// Ends the transaction from outside: a cancelled poll, a port that is gone.
    pub(crate) fn give_up(&mut self) {
        if let State::Sent { ask, sent_until, .. } = self.state {
            self.ledger.owe(ask, sent_until + self.timing.hold_off);
        }
        self.state = State::Idle;
    }

    /// The line was closed: what was received is void. Debts stay, devices know nothing of our port.
    pub(crate) fn closed(&mut self) {
        self.give_up();
        self.buffer.clear();
        self.arrivals.clear();
    }

    /// Bytes have arrived, the last of them at `now` or before.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.counters.bytes += bytes.len() as u64;
        let bytes = bytes.get(bytes.len().saturating_sub(BUFFER_MAX)..).unwrap_or_default();
        let excess = (self.buffer.len() + bytes.len()).saturating_sub(BUFFER_MAX);
        if excess > 0 {
            self.counters.bad_frames += 1;
            self.consume(excess);
        }
        self.buffer.extend_from_slice(bytes);
        self.arrivals.push((self.buffer.len(), now));
        self.busy_until = self.busy_until.max(Some(now));
    }

    /// The data of the last believed answer.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// What to do at `now`, everything that has arrived having been received. `Wait` without a transaction means
    /// that a rest in the buffer will be judged then.
    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        if let Some(result) = self.scan(now) {
            self.state = State::Idle;
            return Step::Done(result);
        }
        let quiet = self.quiet_at();
        match self.state {
            // The end of silence is news only for what is in the buffer: without it nobody is woken.
            State::Idle => {
                let rest = quiet.filter(|_| !self.buffer.is_empty());
                Step::Wait(rest.unwrap_or(now + Duration::from_secs(3_600)).max(now))
            }
            State::Pending { ask, deadline } => {
                let quiet = quiet.unwrap_or(now);
                if now >= deadline || quiet > deadline {
                    self.state = State::Idle;
                    Step::Done(Err(Failure::NeverQuiet))
                } else if now < quiet {
                    Step::Wait(quiet)
                } else {
                    Step::Write(self.send(ask, now, deadline))
                }
            }
            State::Sent { deadline, .. } => {
                if now >= deadline {
                    self.counters.timeouts += 1;
                    self.give_up();
                    return Step::Done(Err(Failure::Silent));
                }
                let rest = quiet.filter(|_| !self.buffer.is_empty());
                Step::Wait(rest.map_or(deadline, |rest| rest.clamp(now, deadline)))
            }
        }
    }

    fn send(&mut self, ask: Ask, now: Instant, deadline: Instant) -> [u8; 8] {
        let frame = frame::request(ask);
        let character = self.timing.character;
        let on_wire = character * 8;
        let sent_until = if self.timing.paced { now + on_wire } else { now };
        let answer = character * u32::from(ask.data_bytes) + character * 5;
        let deadline = deadline.min(now + on_wire + self.timing.timeout + answer + self.timing.latency);
        self.busy_until = Some(sent_until);
        self.state = State::Sent { ask, sent_until, deadline, echo_due: self.timing.echo != Echo::Off };
        self.counters.requests += 1;
        self.counters.bytes += frame.len() as u64;
        frame
    }

    /// When the line counts as silent, given what has been received: after 3.5 characters, and, with part of a
    /// frame in the buffer, not before its missing bytes had the time to come through the adapter.
    fn quiet_at(&self) -> Option<Instant> {
        let silent = self.busy_until? + self.timing.silence;
        if self.buffer.is_empty() {
            return Some(silent);
        }
        let mut missing = match head(&self.buffer, false) {
            Head::Partial(missing) => missing,
            Head::Whole(..) | Head::Noise => 0,
        };
        if let State::Sent { ask, .. } = self.state {
            // A piece that begins like the answer may have all the rest to come.
            let begins = [ask.unit, ask.function, ask.data_bytes];
            if self.buffer.iter().zip(begins).all(|(byte, expected)| *byte == expected) {
                missing = missing.max((usize::from(ask.data_bytes) + 5).saturating_sub(self.buffer.len()));
            }
        }
        let missing = u32::try_from(missing).unwrap_or_default();
        Some(silent + self.timing.character * missing + self.timing.latency)
    }

    /// Works off the buffer from its beginning. `Some`: the transaction is over.
    fn scan(&mut self, now: Instant) -> Option<Result<Answer, Failure>> {
        while !self.buffer.is_empty() {
            if self.strip_echo() {
                continue;
            }
            let timed_out = matches!(self.state, State::Sent { deadline, .. } if now >= deadline);
            let ended = timed_out || self.quiet_at().is_some_and(|quiet| now >= quiet);
            match head(&self.buffer, ended) {
                Head::Whole(length, meaning) => {
                    let result = self.judge(length, meaning, now);
                    self.consume(length);
                    if result.is_some() {
                        return result;
                    }
                }
                Head::Partial(_) | Head::Noise => {
                    if let Some(skip) = self.answer_behind_noise() {
                        self.counters.bad_frames += 1;
                        self.consume(skip);
                    } else if ended {
                        return self.broken();
                    } else {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Strips our own request from the beginning of the buffer, once.
    fn strip_echo(&mut self) -> bool {
        let State::Sent { ask, echo_due, .. } = &mut self.state else { return false };
        let frame = frame::request(*ask);
        if !*echo_due || !self.buffer.starts_with(&frame) {
            return false;
        }
        *echo_due = false;
        self.counters.echoes += 1;
        self.consume(frame.len());
        true
    }

    /// A whole frame stands at the beginning of the buffer: is it the answer?
    fn judge(&mut self, length: usize, meaning: Meaning, now: Instant) -> Option<Result<Answer, Failure>> {
        let began = self.began();
        if let State::Sent { ask, sent_until, echo_due, .. } = self.state {
            let character = if self.timing.paced { self.timing.character } else { Duration::ZERO };
            let fresh = began >= sent_until + character && !(echo_due && self.timing.echo == Echo::On);
            let turnaround = began.saturating_duration_since(sent_until);
            match meaning {
                Meaning::Data { unit, function, data_bytes }
                    if fresh && (unit, function, data_bytes) == (ask.unit, ask.function, ask.data_bytes) =>
                {
                    self.data.clear();
                    self.data.extend_from_slice(self.buffer.get(3..length - 2).unwrap_or_default());
                    self.counters.answers += 1;
                    return Some(Ok(Answer { exception: None, at: began, turnaround }));
                }
                Meaning::Exception { unit, function, code }
                    if fresh
                        && (unit, function) == (ask.unit, ask.function)
                        && !self.ledger.is_owed_by(unit, function, now) =>
                {
                    self.counters.answers += 1;
                    self.counters.exceptions += 1;
                    return Some(Ok(Answer { exception: Some(code), at: began, turnaround }));
                }
                _ => {}
            }
        }
        if let Meaning::Data { unit, function, data_bytes } = meaning {
            // Owed or not, it answers nothing that is open now.
            let _was_owed = self.ledger.settle(unit, function, data_bytes);
        }
        self.counters.foreign_frames += 1;
        None
    }

    /// The latest instant at which the frame at the beginning of the buffer can have begun: each piece of it shows
    /// that so many of its bytes had come by then, and each byte takes its time on the wire. One part in 64 is left
    /// for a device whose clock is fast.
    fn began(&self) -> Instant {
        let character = if self.timing.paced { self.timing.character * 63 / 64 } else { Duration::ZERO };
        self.arrivals
            .iter()
            .filter_map(|&(bytes, at)| at.checked_sub(character * u32::try_from(bytes).unwrap_or_default()))
            .min()
            .or(self.busy_until)
            .unwrap_or_else(Instant::now)
    }

    /// Where behind noise the whole answer stands, all of it: unit, function, length and check sum.
    fn answer_behind_noise(&self) -> Option<usize> {
        let State::Sent { ask, .. } = self.state else { return None };
        let begins = [ask.unit, ask.function, ask.data_bytes];
        let starts = self.buffer.windows(begins.len()).enumerate().skip(1);
        starts.filter(|(_, window)| *window == begins).map(|(at, _)| at).find(|&at| {
            let frame = self.buffer.get(at..).and_then(|rest| rest.get(..usize::from(ask.data_bytes) + 5));
            frame.is_some_and(super::crc::is_right)
        })
    }

    /// Nothing more comes, and what has come is no frame.
    fn broken(&mut self) -> Option<Result<Answer, Failure>> {
        let mut like_the_answer = false;
        if let (State::Sent { ask, .. }, [unit, function, ..]) = (self.state, self.buffer.as_slice()) {
            like_the_answer = (*unit, function & 0x7f) == (ask.unit, ask.function);
        }
        let whole = matches!(head(&self.buffer, true), Head::Noise);
        if like_the_answer && whole {
            self.counters.crc_errors += 1;
        } else {
            self.counters.bad_frames += 1;
        }
        self.consume(self.buffer.len());
        if like_the_answer {
            self.give_up();
            return Some(Err(Failure::Damaged));
        }
        None
    }

    fn consume(&mut self, count: usize) {
        self.buffer.drain(..count.min(self.buffer.len()));
        self.arrivals.retain_mut(|(bytes, _)| {
            *bytes = bytes.saturating_sub(count);
            *bytes > 0
        });
    }
}
