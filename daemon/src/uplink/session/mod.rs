//! What to do next, decided without doing anything: connections, the two lanes, confirmations, refusals, the stop.
//!
//! Pure: every call is told the time, and chance where it matters. The task performs the [`Action`]s and reports what
//! happened. One message is in flight until its PUBACK, or until its connection ends; then its batches are in the spool,
//! and nothing here remembers them.
//!
//! Order of sending: birth, live batches (each device's newest first after an outage), meta, backlog. The backlog keeps
//! to [`Pace`]'s budget of bytes and leaves a quarter of the window to the live lane.
//!
//! Before a batch goes into a message the books are asked ([`Books`]): what they call lost by now is not sent, in either lane.
//!
//! Promises: a batch is confirmed only by a PUBACK with a success reason for the message that carried it on this
//! connection; a refusal or an end confirms nothing; no batch is in flight twice; memory is bounded by the window, one span
//! and the live queue.

mod acks;
mod backlog;
mod compose;
mod ends;
mod heard;
mod next;
mod refused;
mod settled;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::event::{CLOCKS_MAX, ClockCorrection};
use crate::model::{Batch, ClockQuality, RunId, Stamp};
use crate::spool::{Confirmed, Cursor};

use super::DeviceMeta;
use super::backoff::Backoff;
use super::client::Granted;
use super::config::{Broker, NobodyListens, Topics, UplinkConfig};
use super::live::LiveQueue;
use super::pace::{Mark, Pace};
use super::records::State;
use super::words::End;
use backlog::Backlog;
use refused::Refused;
use settled::Settled;

/// Names a message in flight; never repeats in a session's life.
pub(super) type Token = u64;

/// The status is published again after this time ...
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// ... and once so soon after the birth: at a start buses and devices are tried, or their network comes up, just then.
const STATUS_SOON: Duration = Duration::from_secs(10);
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
    /// Tell the spool, and report what came of it: [`Session::on_dead_letter`].
    DeadLetter(Vec<Confirmed>, String),
    /// Send DISCONNECT.
    Leave,
    /// Drop the connection, then report its end.
    GiveUp(End),
    /// The session is over.
    Done,
}

/// The books of the spool, as far as the session needs them at once.
pub(super) trait Books: std::fmt::Debug + Send {
    /// This goes now, and is on the wire until it is confirmed or came back. `false`: it must not go, it is settled.
    fn sends(&self, what: &Confirmed) -> bool;
    /// These did not go after all, were refused, or their connection is over.
    fn came_back(&self, what: &[Confirmed]);
}

/// What the session is told once, and again with a new configuration.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub broker: Broker,
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
            broker: config.broker.clone(),
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
    /// Records that the broker took then, and has forgotten.
    pub records_unheard: u64,
    /// Messages that are stored as dead letters.
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
    /// Of its first batch, or the one that it describes; empty, if there is none.
    device: Arc<str>,
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
    refused: Refused,
    /// The CONNACK made the connection useless.
    useless: Option<End>,
}

#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    books: Box<dyn Books>,
    /// In force when the connection that was made with `settings` has ended.
    next_settings: Option<Settings>,
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
    flight: BTreeMap<Token, Sent>,
    in_flight: HashSet<Confirmed>,
    token: Token,
    devices: Vec<DeviceMeta>,
    clocks: VecDeque<ClockCorrection>,
    confirmed: Vec<Confirmed>,
    dead: VecDeque<(Vec<Confirmed>, String)>,
    /// Given to the spool as dead letters, and not known to be stored: neither sent nor settled meanwhile.
    dying: HashSet<Confirmed>,
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
    /// The newest refusal that a connection which has ended had heard of, and when it ended.
    refused_lately: Option<(Instant, String)>,
    unreadable: u32,
    numbers: Numbers,
    /// Why there is no connection.
    trouble: Option<String>,
}

impl Session {
    /// `begun`: connections of this run before this session.
    pub(super) fn new(settings: Settings, books: Box<dyn Books>, begun: u64, now: Instant) -> Self {
        let mut live = LiveQueue::default();
        live.keep_newest_only(true);
        Self {
            settings,
            books,
            next_settings: None,
            phase: Phase::Waiting { until: now },
            line: None,
            backoff: Backoff::default(),
            live,
            live_opened: None,
            live_upto: None,
            live_lost: 0,
            backlog: Backlog::new(),
            settled: Settled::default(),
            flight: BTreeMap::new(),
            in_flight: HashSet::new(),
            token: 0,
            devices: Vec::new(),
            clocks: VecDeque::new(),
            confirmed: Vec::new(),
            dead: VecDeque::new(),
            dying: HashSet::new(),
            pause: None,
            pause_step: Duration::ZERO,
            from_the_start: false,
            accepted: 0,
            refused_in_a_row: 0,
            young: VecDeque::new(),
            refused_lately: None,
            unreadable: 0,
            numbers: Numbers { connects: begun, ..Numbers::default() },
            trouble: None,
        }
    }

    /// An uplink before this one has settled every reading of this run with a lower `seq`.
    pub(super) fn settled_before(&mut self, seq: u64) {
        self.settled.jump(seq);
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
