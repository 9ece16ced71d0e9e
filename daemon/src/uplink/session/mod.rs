//! What to do next, decided without doing anything: connections, the two lanes, confirmations, refusals, the stop.
//!
//! Pure: every call is told the time, and chance where it matters. The task performs the [`Action`]s and reports what
//! happened. One message is in flight until its PUBACK, or until its connection ends; then its batches are in the spool,
//! and nothing here remembers them.
//!
//! Order of sending: birth, live batches (each device's newest first after an outage), meta, backlog. The backlog keeps
//! to [`Pace`]'s budget of bytes and leaves a quarter of the window to the live lane.
//!
//! Promises: a batch is confirmed only by a PUBACK with a success reason for the message that carried it on this
//! connection; a refusal or an end confirms nothing; no batch is in flight twice; memory is bounded by the window, one span
//! and the live queue.

mod acks;
mod backlog;
mod compose;
mod ends;
mod settled;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::event::{CLOCKS_MAX, ClockCorrection};
use crate::model::{Batch, ClockQuality, RunId, Stamp};
use crate::spool::{Confirmed, Cursor, Span};

use super::DeviceMeta;
use super::backoff::Backoff;
use super::client::Granted;
use super::config::{NobodyListens, Topics, UplinkConfig};
use super::live::LiveQueue;
use super::pace::{Mark, Pace};
use super::records::State;
use super::words::{Cause, End};
use backlog::Backlog;
use settled::Settled;

/// Names a message in flight; never repeats in a session's life.
pub(super) type Token = u64;

/// The status is published again after this time.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// Ends for an unreadable packet before messages go out one by one, to find the one that causes it.
const UNREADABLE_MAX: u32 = 2;
/// After our DISCONNECT the broker closes; if it does not, we do.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What the task is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Make a connection.
    Connect,
    /// Publish, QoS 1.
    Publish { token: Token, topic: String, payload: Vec<u8>, retain: bool },
    /// Publish the status as it is now.
    Status { token: Token, state: State, topic: String, retain: bool },
    /// Ask the spool for the span after this place. The question is dropped with the connection.
    Span(Cursor),
    /// Tell the spool.
    Confirm(Vec<Confirmed>),
    /// Tell the spool.
    DeadLetter(Vec<Confirmed>, String),
    /// Send DISCONNECT.
    Leave,
    /// Drop the connection, then report its end.
    GiveUp(End),
    /// The session is over.
    Done,
}

/// What the session is told once, and again with a new configuration.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub gateway: Arc<str>,
    pub run: RunId,
    pub topics: Topics,
    pub window: u16,
    pub max_message: usize,
    pub ack_timeout: Duration,
    pub live_every: Duration,
    pub nobody_listens: NobodyListens,
    pub retain: bool,
}

impl Settings {
    pub(super) fn new(config: &UplinkConfig, gateway: Arc<str>, run: RunId) -> Self {
        Self {
            gateway,
            run,
            topics: config.topics.clone(),
            window: config.in_flight.max(1),
            max_message: config.max_message,
            ack_timeout: config.ack_timeout,
            live_every: config.live_every,
            nobody_listens: config.nobody_listens,
            retain: config.retain,
        }
    }
}

/// What has come of it, for the board.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub connects: u64,
    /// Readings confirmed.
    pub confirmed: u64,
    pub messages: u64,
    pub bytes: u64,
    pub nobody_listening: u64,
    pub dead_letters: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until the next attempt.
    Waiting {
        until: Instant,
    },
    /// Until CONNACK.
    Connecting,
    Up,
    /// No new data; the rest is waited for, then DISCONNECT.
    Leaving {
        for_good: bool,
        until: Instant,
        said: bool,
        left: bool,
    },
    Done,
}

/// What a message in flight carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Status,
    Meta,
    Live,
    Backlog,
}

impl Kind {
    fn is_data(self) -> bool {
        matches!(self, Self::Live | Self::Backlog)
    }
}

#[derive(Debug)]
struct Sent {
    kind: Kind,
    bytes: usize,
    mark: Mark,
    what: Vec<Confirmed>,
    /// Of the live lane: kept so that a device's newest batch survives the connection.
    batches: Vec<Arc<Batch>>,
}

/// One connection after its CONNACK.
#[derive(Debug)]
struct Line {
    since: Instant,
    granted: Granted,
    window: usize,
    /// Since when an acknowledgement is waited for.
    progress: Instant,
    acks: u64,
    status_at: Instant,
    meta: VecDeque<usize>,
    pace: Pace,
    /// The CONNACK made the connection useless.
    useless: Option<End>,
}

#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    phase: Phase,
    line: Option<Line>,
    backoff: Backoff,
    live: LiveQueue,
    /// With `live_every`: when the live lane last opened, and up to which `seq` it is open.
    live_opened: Option<Instant>,
    live_upto: Option<u64>,
    live_lost: u64,
    backlog: Backlog,
    settled: Settled,
    /// Readings of this run below it are stored, or settled.
    stored: u64,
    flight: BTreeMap<Token, Sent>,
    in_flight: HashSet<Confirmed>,
    token: Token,
    devices: Vec<DeviceMeta>,
    clocks: VecDeque<ClockCorrection>,
    confirmed: Vec<Confirmed>,
    dead: VecDeque<(Vec<Confirmed>, String)>,
    /// No data before this time.
    pause: Option<Instant>,
    /// The last pause; zero once a message was accepted.
    pause_step: Duration,
    /// After the pause the backlog begins anew: what was put off is to be sent again.
    from_the_start: bool,
    accepted: u64,
    /// Messages refused for good since one was last accepted.
    refused_in_a_row: u32,
    young: VecDeque<Instant>,
    unreadable: u32,
    numbers: Numbers,
    /// Why there is no connection, or what is wrong with the one there is.
    trouble: Option<String>,
}

impl Session {
    /// `begun`: connections of this run before this session.
    pub(super) fn new(settings: Settings, begun: u64, now: Instant) -> Self {
        let mut live = LiveQueue::default();
        live.keep_newest_only(true);
        Self {
            settings,
            phase: Phase::Waiting { until: now },
            line: None,
            backoff: Backoff::default(),
            live,
            live_opened: None,
            live_upto: None,
            live_lost: 0,
            backlog: Backlog::new(),
            settled: Settled::default(),
            stored: 0,
            flight: BTreeMap::new(),
            in_flight: HashSet::new(),
            token: 0,
            devices: Vec::new(),
            clocks: VecDeque::new(),
            confirmed: Vec::new(),
            dead: VecDeque::new(),
            pause: None,
            pause_step: Duration::ZERO,
            from_the_start: false,
            accepted: 0,
            refused_in_a_row: 0,
            young: VecDeque::new(),
            unreadable: 0,
            numbers: Numbers { connects: begun, ..Numbers::default() },
            trouble: None,
        }
    }

    // --- what happened

    /// A batch for the live lane.
    pub(super) fn offer(&mut self, batch: Arc<Batch>) {
        self.live.push(batch);
    }

    /// A batch did not reach this session's queue; the spool has it.
    pub(super) fn missed(&mut self, now: Instant) {
        self.backlog.rewind(now);
    }

    /// Something was stored: of this run everything below `next_seq`.
    pub(super) fn on_stored(&mut self, next_seq: u64) {
        self.stored = next_seq;
        self.backlog.stored();
    }

    /// Something that was confirmed waits again, perhaps behind the cursor.
    pub(super) fn on_resend(&mut self) {
        self.backlog.reset();
    }

    /// The spool's answer to [`Action::Span`].
    pub(super) fn on_span(&mut self, now: Instant, span: Option<Span>) {
        let grouped = self.settings.topics.backlog.has_device();
        if let Some(next_seq) = self.backlog.answer(now, span, grouped) {
            self.settled.jump(next_seq);
        }
    }

    /// The spool could not answer.
    pub(super) fn on_no_span(&mut self, now: Instant) {
        self.backlog.unanswered(now);
    }

    /// What the devices are.
    pub(super) fn on_meta(&mut self, devices: Vec<DeviceMeta>) {
        if devices != self.devices {
            self.devices = devices;
            if let Some(line) = &mut self.line {
                line.meta = (0..self.devices.len()).collect();
            }
        }
    }

    /// The clock was set.
    pub(super) fn on_clock(&mut self, correction: ClockCorrection) {
        self.clocks.retain(|known| known.boot != correction.boot);
        if self.clocks.len() >= CLOCKS_MAX {
            self.clocks.pop_front();
        }
        self.clocks.push_back(correction);
    }

    /// A new configuration: leave in order, and connect with it.
    pub(super) fn on_config(&mut self, now: Instant, settings: Settings) {
        self.settings = settings;
        match self.phase {
            Phase::Up => self.leave(now + CLOSE_WITHIN, false),
            Phase::Waiting { .. } => self.kick(now),
            // The attempt under way is to the old broker, as the old client; there is nothing to wait for.
            Phase::Connecting => self.leave(now, false),
            Phase::Leaving { .. } | Phase::Done => {}
        }
    }

    /// Try now instead of waiting.
    pub(super) fn kick(&mut self, now: Instant) {
        if let Phase::Waiting { until } = &mut self.phase
            && self.backoff.may_kick(now)
        {
            *until = (*until).min(now);
        }
    }

    /// Publish `stopped`, wait for its PUBACK, disconnect; at the latest at `until` it is over.
    pub(super) fn on_stop(&mut self, until: Instant) {
        match self.phase {
            Phase::Up => self.leave(until, true),
            Phase::Leaving { left, .. } => {
                self.phase = Phase::Leaving { for_good: true, until, said: left, left };
            }
            Phase::Waiting { .. } | Phase::Connecting | Phase::Done => self.phase = Phase::Done,
        }
    }

    fn leave(&mut self, until: Instant, for_good: bool) {
        self.phase = Phase::Leaving { for_good, until, said: false, left: false };
    }

    /// CONNACK.
    pub(super) fn on_connected(&mut self, now: Instant, granted: Granted) {
        let window = self.window(granted);
        let useless = if granted.receive_max == 0 {
            Some(End::new(
                Cause::Refused,
                "the broker allows no message in flight (Receive Maximum 0): check its settings",
            ))
        } else if !granted.qos1 {
            Some(End::new(
                Cause::Refused,
                "the broker takes no QoS 1, so nothing sent would be safe: use another broker",
            ))
        } else {
            None
        };
        self.line = Some(Line {
            since: now,
            granted,
            window,
            progress: now,
            acks: 0,
            status_at: now,
            meta: (0..self.devices.len()).collect(),
            pace: Pace::new(now),
            useless,
        });
        self.live.keep_newest_only(false);
        self.live_opened = None;
        self.live_upto = None;
        self.pause = None;
        self.backlog.reset();
        self.trouble = None;
        // A stop may have come while the CONNACK was on its way.
        if self.phase == Phase::Connecting {
            self.phase = Phase::Up;
        }
    }

    /// Most messages in flight.
    fn window(&self, granted: Granted) -> usize {
        if self.unreadable >= UNREADABLE_MAX {
            return 1;
        }
        usize::from(self.settings.window.min(granted.receive_max)).max(1)
    }

    // --- what to do

    /// The next thing to do at `now`; to be asked until there is none.
    pub(super) fn next(&mut self, now: Instant) -> Option<Action> {
        if !self.confirmed.is_empty() {
            return Some(Action::Confirm(std::mem::take(&mut self.confirmed)));
        }
        if let Some((what, why)) = self.dead.pop_front() {
            return Some(Action::DeadLetter(what, why));
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Connecting;
                self.numbers.connects += 1;
                Some(Action::Connect)
            }
            Phase::Waiting { .. } | Phase::Connecting => None,
            Phase::Up => self.next_up(now),
            Phase::Leaving { .. } => self.next_leaving(now),
            Phase::Done => Some(Action::Done),
        }
    }

    fn next_up(&mut self, now: Instant) -> Option<Action> {
        if let Some(end) = self.given_up(now) {
            return Some(Action::GiveUp(end));
        }
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
            self.live.keep_newest_only(false);
            if std::mem::take(&mut self.from_the_start) {
                self.backlog.reset();
            }
        }
        if self.live.dropped > self.live_lost {
            self.live_lost = self.live.dropped;
            self.backlog.rewind(now);
        }
        self.compose(now).or_else(|| {
            let wanted = self.pause.is_none();
            wanted.then(|| self.backlog.question(now, self.stored)).flatten().map(Action::Span)
        })
    }

    fn given_up(&self, now: Instant) -> Option<End> {
        let line = self.line.as_ref()?;
        if let Some(end) = &line.useless {
            return Some(end.clone());
        }
        (!self.flight.is_empty() && now >= line.progress + self.settings.ack_timeout).then(|| {
            End::new(
                Cause::Network,
                format!(
                    "the broker has acknowledged nothing for {} s: the connection is given up",
                    self.settings.ack_timeout.as_secs()
                ),
            )
        })
    }

    fn next_leaving(&mut self, now: Instant) -> Option<Action> {
        let Phase::Leaving { for_good, until, said, left } = self.phase else { return None };
        if self.line.is_none() || until <= now {
            return Some(Action::GiveUp(End::new(Cause::Ours, "stopped")));
        }
        if left {
            return None;
        }
        let window = self.line.as_ref().map_or(1, |line| line.window);
        if for_good && !said {
            if self.flight.len() >= window {
                return None;
            }
            self.phase = Phase::Leaving { for_good, until, said: true, left };
            return Some(self.status(now, State::Stopped));
        }
        if !self.flight.is_empty() {
            return None;
        }
        let until = until.min(now + CLOSE_WITHIN);
        self.phase = Phase::Leaving { for_good, until, said, left: true };
        Some(Action::Leave)
    }

    /// When [`Session::next`] is to be asked again although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } | Phase::Leaving { until, .. } => Some(until),
            Phase::Connecting | Phase::Done => None,
            Phase::Up => {
                let line = self.line.as_ref()?;
                let watchdog = (!self.flight.is_empty()).then(|| line.progress + self.settings.ack_timeout);
                // What cannot go now is no reason to wake up: an acknowledgement or the end of the pause is.
                let free = !self.is_full();
                let status = free.then_some(line.status_at);
                let gathered =
                    (free && self.takes_data() && !self.live.is_empty()).then(|| self.live_due()).flatten();
                let backlog = if self.pause.is_none() { self.backlog.due() } else { None };
                [watchdog, status, gathered, self.pause, backlog].into_iter().flatten().min()
            }
        }
    }

    /// From when on waiting live batches may go, if not at once.
    fn live_due(&self) -> Option<Instant> {
        if self.settings.live_every.is_zero() {
            return None;
        }
        self.live_opened.map(|at| at + self.settings.live_every)
    }

    // --- how it is

    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Every reading of this run with a lower `seq` is confirmed, or accounted for in a record or a dead letter.
    pub(super) fn confirmed_to(&self) -> u64 {
        self.settled.below()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.line.is_some()
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The next attempt, while there is no connection.
    pub(super) fn attempt_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            _ => None,
        }
    }

    /// Data may go: there is no pause, and after one a single message shows whether the broker takes data again.
    fn takes_data(&self) -> bool {
        let probing = !self.pause_step.is_zero() && self.flight.values().any(|sent| sent.kind.is_data());
        self.pause.is_none() && !probing
    }

    /// The connection leaves no room for another message: nothing but an acknowledgement helps.
    fn is_full(&self) -> bool {
        self.line.as_ref().is_none_or(|line| self.flight.len() >= line.window)
    }

    /// A stamp as it is known now.
    fn known(&self, stamp: Stamp) -> Stamp {
        if stamp.clock != ClockQuality::Unsynced {
            return stamp;
        }
        let fits = |c: &&ClockCorrection| c.boot == stamp.boot && stamp.mono_us < c.at_mono_us;
        match self.clocks.iter().find(fits) {
            Some(c) => Stamp {
                wall_us: stamp.wall_us.saturating_add(c.offset_us),
                clock: ClockQuality::Corrected,
                ..stamp
            },
            None => stamp,
        }
    }
}

#[cfg(test)]
mod tests;
