//! The owner of a line of text instruments: opens the port, listens, asks, keeps deadlines.
//!
//! All decisions about lines are [`Listener`]'s. A port that fails is dropped at once and opened again with a
//! pause of 0.5 s that doubles up to 4 s. An instrument that talks, or answers a query, but not with the sentence of a
//! group, answers; the points of that group are bad. Everything here is cancel-safe: bytes are handed on as they are read.
//!
//! What a query may still bring is nobody else's answer (P5): without an answer the line rests for twice the timeout after
//! the query, also if the port was opened anew meanwhile. With one, those instruments rest that would take a further line of
//! the one that was asked for their own; `check` lets none share a line, but a point that is read by hand may be such.

mod overhear;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::listener::{Listener, Taken};
use super::patience::Patience;
use super::settings::{Device, Link};
use crate::bus::{Address, Counters, DeviceSpec, Group, Outcome, Poll};
use crate::point::Point;
use crate::serial_port::SerialPort;
use crate::value::Cause;

/// Pause before the first new attempt to open the port, and the longest one.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// After so long without listening, what the kernel has kept may be old, and is thrown away.
const DEAF_MAX: Duration = Duration::from_millis(250);

/// The line must be quiet for so long before a query, or the end of a sentence would begin the answer.
const QUIET: Duration = Duration::from_millis(20);

/// A serial line with its instruments.
#[derive(Debug)]
pub struct Driver {
    /// Its name, for the log.
    bus: Arc<str>,
    link: Link,
    instruments: Vec<Instrument>,
    /// Of the instruments, those of the configuration; one more is there while [`Driver::read`] runs.
    configured: usize,
    port: Option<SerialPort>,
    reopen_at: Option<Instant>,
    reopen_pause: Duration,
    /// Until then bytes are stamped with their arrival.
    listened_until: Instant,
    last_query: Option<Query>,
    patience: Patience,
    counters: Counters,
}

/// A query that was sent, or is about to be.
#[derive(Clone, Copy, Debug)]
struct Query {
    /// Index of the instrument that was asked.
    of: usize,
    /// Until then something may come of it.
    owes_until: Instant,
    /// All came that was waited for.
    answered: bool,
}

#[derive(Debug)]
struct Instrument {
    /// Its index in the configuration.
    index: usize,
    name: Arc<str>,
    device: Device,
    ears: Listener,
    /// The last believed line, or the opening of the port: silence is counted from here.
    heard_at: Instant,
}

impl Instrument {
    fn new(index: usize, spec: &DeviceSpec, now: Instant) -> Self {
        let device = match &spec.address {
            Address::Line(device) => device.clone(),
            Address::Modbus(_) => Device::default(),
        };
        let ears = Listener::new(&device, spec, now);
        Self { index, name: Arc::clone(&spec.name), ears, device, heard_at: now }
    }
}

impl Driver {
    /// The line of `bus`, not open yet. Devices of another protocol are not asked.
    pub fn new(bus: Arc<str>, link: Link, devices: &[DeviceSpec]) -> Self {
        let (now, patience) = (Instant::now(), Patience::new(link.timeout));
        Self {
            bus,
            link,
            instruments: devices.iter().enumerate().map(|(i, spec)| Instrument::new(i, spec, now)).collect(),
            configured: devices.len(),
            port: None,
            reopen_at: None,
            reopen_pause: REOPEN.0,
            listened_until: now,
            last_query: None,
            patience,
            counters: Counters::default(),
        }
    }

    /// What the line has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the port is open.
    pub fn is_up(&self) -> bool {
        self.port.is_some()
    }

    /// Listens until `until`, so that free-running instruments are stamped as they speak, and an adapter that
    /// vanishes is let go at once. Cancel-safe.
    pub async fn idle(&mut self, until: Instant) {
        self.instruments.truncate(self.configured);
        if self.open_if_due() {
            self.catch_up();
            while Instant::now() < until && self.listen(None, until).await {}
        }
        tokio::time::sleep_until(until.into()).await;
    }

    /// Polls one group of one instrument; returns by `deadline`.
    pub async fn poll(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        self.instruments.truncate(self.configured);
        self.poll_any(device, group, deadline).await
    }

    /// Reads points that need not be in the configuration, once, of one instrument. A free-running one is
    /// listened to until `deadline`.
    pub async fn read(&mut self, device: usize, points: &[Point], deadline: Instant) -> Poll {
        self.instruments.truncate(self.configured);
        let Some(configured) = self.instruments.get(device) else { return nothing(Outcome::Silent) };
        let all = (0..u16::try_from(points.len()).unwrap_or(u16::MAX)).collect();
        let now = Instant::now();
        let spec = DeviceSpec {
            name: Arc::from(""),
            address: Address::Line(configured.device.clone()),
            points: points.to_vec(),
            groups: vec![Group { period: Duration::MAX, points: all }],
        };
        let mut guest = Instrument::new(device, &spec, now);
        guest.ears.forget_within_a_line();
        self.instruments.push(guest);
        let mut poll = self.poll_any(self.configured, 0, deadline).await;
        if let (Outcome::Held { .. }, Some(guest)) = (poll.outcome, self.instruments.get_mut(self.configured))
            && guest.device.query.is_none()
        {
            // It was listened to as long as the asker wanted.
            let taken = guest.ears.take(0, Instant::now(), Cause::Silent);
            poll = Poll { samples: taken.samples, outcome: Outcome::Silent, ..poll };
        }
        self.instruments.truncate(self.configured);
        poll
    }

    async fn poll_any(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        if !self.open_if_due() {
            return self.down(device, group);
        }
        let Some(instrument) = self.instruments.get(device) else { return nothing(Outcome::Silent) };
        if instrument.device.query.is_some() {
            self.ask(device, group, deadline.min(Instant::now() + self.link.timeout)).await
        } else {
            self.overhear(device, group, deadline).await
        }
    }

    /// Sends the query and waits for what the group needs.
    async fn ask(&mut self, device: usize, group: usize, deadline: Instant) -> Poll {
        let Some(instrument) = self.instruments.get(device) else { return nothing(Outcome::Silent) };
        if let Some(until) = self.rests_until(instrument) {
            return nothing(Outcome::Held { until });
        }
        let of = instrument.index;
        let query = instrument.device.query.clone().unwrap_or_default();
        let length = u32::try_from(query.len()).unwrap_or(u32::MAX);
        let start = Instant::now();
        if !self.wait_for_quiet(deadline).await {
            return self.down(device, group);
        }
        if let Some(instrument) = self.instruments.get_mut(device) {
            instrument.ears.asks(group, &mut self.patience, Instant::now());
        }
        let asked = Instant::now() + self.link.port.character_time().saturating_mul(length);
        // Said before it is sent, and taken back by an answer: a poll that is dropped here leaves the line resting.
        self.last_query = Some(Query { of, owes_until: asked + self.link.timeout * 2, answered: false });
        if !self.send(&query, deadline).await {
            return self.down(device, group);
        }
        loop {
            let now = Instant::now();
            let Some(instrument) = self.instruments.get(device) else { return nothing(Outcome::Silent) };
            if now >= deadline || instrument.ears.is_answered(group, now) {
                break;
            }
            if !self.listen(Some(device), deadline).await {
                return self.down(device, group);
            }
        }
        let now = Instant::now();
        let Some(instrument) = self.instruments.get_mut(device) else { return nothing(Outcome::Silent) };
        let (speaks, whole) = (instrument.ears.has_spoken(), instrument.ears.is_answered(group, now));
        if !whole {
            instrument.ears.waited(group, &mut self.patience, now);
        } else if let Some(query) = &mut self.last_query {
            query.answered = true;
        }
        say_missing(&self.bus, instrument, group);
        let taken = instrument.ears.take(group, now, Cause::Silent);
        let turnaround = taken.began.map_or(Duration::ZERO, |began| began.saturating_duration_since(asked));
        let busy = now.saturating_duration_since(start);
        if taken.began.is_some() || taken.damaged {
            return self.conclude(taken, turnaround, busy);
        }
        if !speaks {
            return Poll { at: asked.min(now), ..self.conclude(taken, turnaround, busy) };
        }
        // As above: the device answers, and not for these points.
        self.counters.timeouts += u64::from(!whole);
        let outcome = Outcome::Answered { turnaround: Duration::ZERO };
        Poll { samples: taken.samples, at: now, outcome, busy }
    }

    /// Until when an instrument is not asked because of the last query on the line.
    fn rests_until(&self, instrument: &Instrument) -> Option<Instant> {
        let last = self.last_query.filter(|query| query.owes_until > Instant::now())?;
        let other = self.instruments.get(last.of).filter(|_| last.of != instrument.index);
        let confused = other.is_some_and(|other| instrument.ears.may_take_lines_of(&other.ears));
        (!last.answered || confused).then_some(last.owes_until)
    }

    fn conclude(&mut self, taken: Taken, turnaround: Duration, busy: Duration) -> Poll {
        let outcome = if taken.began.is_some() {
            Outcome::Answered { turnaround }
        } else if taken.damaged {
            Outcome::Damaged
        } else {
            self.counters.timeouts += 1;
            Outcome::Silent
        };
        Poll { samples: taken.samples, at: taken.began.unwrap_or_else(Instant::now), outcome, busy }
    }

    /// Waits until nothing has arrived for [`QUIET`]; what arrives counts for nobody. False if the port failed.
    async fn wait_for_quiet(&mut self, deadline: Instant) -> bool {
        let mut waste = [0; 256];
        let mut quiet_at = Instant::now();
        loop {
            let Some(port) = self.port.as_mut() else { return false };
            let read = tokio::time::timeout_at(quiet_at.into(), port.read(&mut waste)).await;
            let now = Instant::now();
            match read {
                Ok(Ok(n)) => {
                    self.counters.bytes += n as u64;
                    self.counters.foreign_frames += 1;
                    quiet_at = now + QUIET;
                }
                Ok(Err(error)) => {
                    self.fail(&error.to_string());
                    return false;
                }
                Err(_quiet) => return true,
            }
            // A babbling line is never quiet; then the query has no chance, and the deadline says so.
            if now >= deadline {
                return true;
            }
        }
    }

    async fn send(&mut self, query: &[u8], deadline: Instant) -> bool {
        let Some(port) = self.port.as_mut() else { return false };
        match tokio::time::timeout_at(deadline.into(), port.write_all(query)).await {
            Ok(Ok(())) => {
                self.counters.requests += 1;
                self.counters.bytes += query.len() as u64;
                true
            }
            Ok(Err(error)) => {
                self.fail(&error.to_string());
                false
            }
            Err(_stuck) => {
                self.fail("the port takes no bytes (flow control, or a dead adapter)");
                false
            }
        }
    }

    /// Waits for bytes until `until` and hands them to the free-running instruments and to the one that was
    /// `asked`. False if the port failed or is closed.
    async fn listen(&mut self, asked: Option<usize>, until: Instant) -> bool {
        let mut bytes = [0; 512];
        let Some(port) = self.port.as_mut() else { return false };
        let read = tokio::time::timeout_at(until.into(), port.read(&mut bytes)).await;
        let now = Instant::now();
        self.listened_until = now;
        match read {
            Ok(Ok(n)) => {
                self.counters.bytes += n as u64;
                let heard = bytes.get(..n).unwrap_or_default();
                for (index, instrument) in self.instruments.iter_mut().enumerate() {
                    if instrument.device.query.is_some() && asked != Some(index) {
                        continue;
                    }
                    let before = self.counters.answers;
                    instrument.ears.feed(heard, now, &mut self.counters);
                    if self.counters.answers > before {
                        instrument.heard_at = now;
                    }
                }
                true
            }
            Ok(Err(error)) => {
                self.fail(&error.to_string());
                false
            }
            Err(_nothing) => true,
        }
    }

    /// After a pause in listening nobody knows how old the kernel's bytes are: they do not count.
    fn catch_up(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.listened_until) > DEAF_MAX {
            if let Some(port) = &self.port {
                port.clear_input();
            }
            for instrument in &mut self.instruments {
                instrument.ears.forget_within_a_line();
            }
        }
        self.listened_until = now;
    }

    fn open_if_due(&mut self) -> bool {
        let now = Instant::now();
        if self.port.is_some() {
            return true;
        }
        if self.reopen_at.is_some_and(|at| now < at) {
            return false;
        }
        match SerialPort::open(&self.link.port) {
            Ok(port) => {
                self.port = Some(port);
                self.reopen_pause = REOPEN.0;
                self.counters.opens += 1;
                self.counters.last_error = None;
                self.listened_until = now;
                for instrument in &mut self.instruments {
                    instrument.ears.opened(now);
                    instrument.heard_at = now;
                }
                true
            }
            Err(fault) => {
                self.counters.last_error = Some(Arc::from(fault.to_string()));
                self.reopen_later(now);
                false
            }
        }
    }

    /// The port is dropped at once: held open, it would make the kernel give the returning adapter another number.
    fn fail(&mut self, reason: &str) {
        self.port = None;
        self.counters.last_error =
            Some(Arc::from(format!("{} failed: {reason}; is the adapter plugged in?", self.link.port.path)));
        self.reopen_later(Instant::now());
    }

    fn reopen_later(&mut self, now: Instant) {
        self.reopen_at = Some(now + self.reopen_pause);
        self.reopen_pause = (self.reopen_pause * 2).min(REOPEN.1);
    }

    fn down(&mut self, device: usize, group: usize) -> Poll {
        let now = Instant::now();
        let Some(instrument) = self.instruments.get_mut(device) else { return nothing(Outcome::LinkDown) };
        instrument.ears.forget_within_a_line();
        let samples = instrument.ears.take(group, now, Cause::LinkDown).samples;
        Poll { samples, at: now, outcome: Outcome::LinkDown, busy: Duration::ZERO }
    }
}

/// Says the edges in the log: that an instrument talks does not mean that each of its sentences comes.
fn say_missing(bus: &str, instrument: &mut Instrument, group: usize) {
    let device = &instrument.name;
    instrument.ears.missing(group, |sentence, missing| {
        if missing {
            tracing::warn!(
                %bus, %device, %sentence,
                "the device talks, but this sentence does not come; its points have no value until it does"
            );
        } else {
            tracing::info!(%bus, %device, %sentence, "the sentence comes again");
        }
    });
}

fn nothing(outcome: Outcome) -> Poll {
    Poll { samples: Vec::new(), at: Instant::now(), outcome, busy: Duration::ZERO }
}
