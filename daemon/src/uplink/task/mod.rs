//! The task: performs what the session decides, on one connection after the other.
//!
//! One task owns client and event loop. Per event one future of the client's poll is pinned and only borrowed by `select!`:
//! a new batch, a commit, a span from the spool or a timer wakes the task and fills the window while the poll stays
//! where it is (dropped, it could lose a publish between its packet id and the socket). Only the end of the connection drops it.

mod dial;
mod show;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ring::rand::SecureRandom;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{self, Event, Ledger, Link, Publisher};
use super::records::{self, Life, State};
use super::session::{Action, Books, Session, Settings};
use super::tls::Credentials;
use super::words::{Cause, End};
use super::{Shared, Surroundings, UplinkConfig};
use crate::spool::{Committed, Confirmed, Span, Spool, SpoolError};
use show::Shown;

/// While there is no connection, how often the seconds to the next attempt are counted down.
const COUNT_DOWN: Duration = Duration::from_secs(1);
/// With a connection on which nothing happens the task turns so often all the same, for the watchdog.
const TURN_EVERY: Duration = Duration::from_secs(10);

type Answer = Pin<Box<dyn Future<Output = Result<Option<Span>, SpoolError>> + Send>>;

/// What was refused, why, and whether it is stored as such.
type Letter = (Vec<Confirmed>, String, Result<(), SpoolError>);

pub(super) struct Task {
    config: UplinkConfig,
    around: Surroundings,
    shared: Arc<Shared>,
    session: Session,
    credentials: Credentials,
    committed: watch::Receiver<Committed>,
    asked: Option<Answer>,
    /// Dead letters that the spool was told of.
    letters: JoinSet<Letter>,
    /// [`Committed::resends`] as it was last seen.
    resends: u64,
    stopping: bool,
    shown: Shown,
}

/// What a connection needs to publish.
struct Wire {
    publisher: Publisher,
    ledger: Ledger,
}

impl Task {
    pub(super) fn new(config: UplinkConfig, around: Surroundings, shared: Arc<Shared>) -> Self {
        let settings = Settings::new(&config, around.gateway.clone(), around.run);
        let committed = around.spool.committed();
        let broker = config.broker.to_string();
        around.board.update(|status| {
            status.uplink.configured = true;
            status.uplink.broker = broker;
        });
        let begun = around.so_far.connects.load(Ordering::Relaxed);
        around.spool.nothing_is_sent();
        let mut session = Session::new(settings, Box::new(around.spool.clone()), begun, now());
        session.settled_before(around.so_far.confirmed_to.load(Ordering::Relaxed));
        for correction in around.spool.clocks() {
            session.on_clock(correction);
        }
        Self {
            config,
            around,
            shared,
            session,
            credentials: Credentials::default(),
            committed,
            asked: None,
            letters: JoinSet::new(),
            resends: 0,
            stopping: false,
            shown: Shown::default(),
        }
    }

    /// Until the stop.
    pub(super) async fn run(mut self) {
        loop {
            (self.around.beat)(now());
            self.take_in();
            match self.session.next(now()) {
                Some(Action::Connect) => {
                    self.around.so_far.connects.store(self.session.numbers().connects, Ordering::Relaxed);
                    let end = self.connection().await;
                    self.around.so_far.confirmed_to.store(self.session.confirmed_to(), Ordering::Relaxed);
                    let connected = self.shown.connected;
                    self.session.on_ended(now(), end, chance());
                    self.say_ended(connected);
                }
                Some(Action::Done) => break,
                Some(action) => self.settle(action),
                None => {
                    self.show(now(), false);
                    self.idle().await;
                }
            }
        }
        self.show(now(), true);
    }

    /// Waits, while there is no connection.
    async fn idle(&mut self) {
        let until = self.session.deadline().map(|at| at.min(now() + COUNT_DOWN));
        tokio::select! {
            () = self.shared.wake.notified() => {}
            Some(Ok(letter)) = self.letters.join_next() => self.on_letter(letter),
            () = self.around.stop.cancelled(), if !self.stopping => self.stop(),
            () = sleep_until(until), if until.is_some() => {}
        }
    }

    /// One connection, from its first packet to its end.
    async fn connection(&mut self) -> End {
        let dial = match self.dial() {
            Ok(dial) => dial,
            Err(end) => return end,
        };
        self.show(now(), true);
        let (publisher, mut link) = client::dial(dial);
        let mut wire = Wire { publisher, ledger: Ledger::default() };
        let mut welcome = false;
        let end = loop {
            match self.event(&mut wire, &mut link).await {
                Ok(event) => {
                    welcome |= matches!(event, Event::Connected(_));
                    self.on_event(&mut wire, event);
                }
                Err(end) if welcome => break end,
                Err(end) if self.config.broker.tls => {
                    break end.of_one_not_let_in(self.config.user.is_some(), self.config.identity.is_some());
                }
                Err(end) => {
                    break end.of_one_not_let_in(self.config.user.is_some(), false).of_a_plain_stranger();
                }
            }
        };
        for event in link.rest() {
            if !matches!(event, Event::Connected(_)) {
                self.on_event(&mut wire, event);
            }
        }
        if wire.ledger.odd > 0 {
            tracing::debug!(count = wire.ledger.odd, "acknowledgements without a message");
        }
        self.asked = None;
        end
    }

    /// The next event of the connection, or its end; meanwhile everything else that comes.
    async fn event(&mut self, wire: &mut Wire, link: &mut Link) -> Result<Event, End> {
        let mut poll = pin!(link.poll());
        loop {
            (self.around.beat)(now());
            self.take_in();
            while let Some(action) = self.session.next(now()) {
                self.perform(wire, action)?;
            }
            let shown_late = self.show(now(), false);
            let turn = Some(now() + TURN_EVERY);
            let until = [self.session.deadline(), shown_late, turn].into_iter().flatten().min();
            tokio::select! {
                biased;
                event = &mut poll => return event,
                answer = answered(&mut self.asked) => self.on_answer(answer),
                Some(Ok(letter)) = self.letters.join_next() => self.on_letter(letter),
                () = self.shared.wake.notified() => {}
                Ok(()) = self.committed.changed() => self.on_stored(),
                () = self.around.stop.cancelled(), if !self.stopping => self.stop(),
                () = sleep_until(until), if until.is_some() => {}
            }
        }
    }

    fn on_event(&mut self, wire: &mut Wire, event: Event) {
        match event {
            Event::Connected(granted) => {
                self.session.on_connected(now(), granted);
                tracing::info!(attempt = self.session.numbers().connects, "connected to the broker");
                self.show(now(), true);
            }
            Event::Sent(id) => wire.ledger.sent(id),
            Event::Acked(id, code) => {
                if let Some(token) = wire.ledger.acked(id) {
                    self.session.on_puback(now(), token, code);
                }
            }
            Event::Left | Event::Other => {}
        }
    }

    fn on_stored(&mut self) {
        let committed = *self.committed.borrow_and_update();
        self.session.on_stored(committed);
        if std::mem::replace(&mut self.resends, committed.resends) != committed.resends {
            // A store that opened only now knows more clocks.
            for correction in self.around.spool.clocks() {
                self.session.on_clock(correction);
            }
            self.session.on_resend();
        }
    }

    fn on_answer(&mut self, answer: Result<Option<Span>, SpoolError>) {
        self.asked = None;
        match answer {
            Ok(span) => self.session.on_span(now(), span, self.around.spool.settled_to()),
            Err(error) => {
                tracing::warn!(%error, "the spool gives no backlog now");
                self.session.on_no_span(now());
            }
        }
    }

    fn on_letter(&mut self, (what, reason, stored): Letter) {
        match &stored {
            Ok(()) => {
                tracing::error!(count = what.len(), error = %reason, "a message was refused for good; so many batches are kept as dead letters");
            }
            // It stays in the backlog and is refused again later.
            Err(error) => tracing::warn!(%error, "dead letter not stored"),
        }
        self.session.on_dead_letter(now(), &what, stored.is_ok());
    }

    fn perform(&mut self, wire: &mut Wire, action: Action) -> Result<(), End> {
        match action {
            Action::Publish { token, topic, payload, retain } => {
                wire.publish(token, topic, payload, retain)?;
            }
            Action::Status { token, state, topic, retain } => {
                let payload = self.status(state, self.session.most(&topic))?;
                wire.publish(token, topic, payload, retain)?;
            }
            Action::Span(cursor) => {
                let spool = self.around.spool.clone();
                self.asked = Some(Box::pin(async move { spool.span(cursor).await }));
            }
            Action::Leave => {
                wire.publisher.disconnect();
            }
            Action::GiveUp(end) => return Err(end),
            Action::Done => return Err(End::new(Cause::Ours, "stopped")),
            other => self.settle(other),
        }
        Ok(())
    }

    /// The status as it is now, in `most` bytes.
    fn status(&self, state: State, most: usize) -> Result<Vec<u8>, End> {
        let life = self.life();
        let us = (self.around.wall_us)();
        let whole = self.around.board.read(|board| records::status(life, state, us, board));
        if whole.len() <= most {
            return Ok(whole);
        }
        let brief = records::brief(life, state);
        if brief.len() > most {
            let words =
                "the broker takes no packet that is large enough for anything: raise its Maximum Packet Size";
            return Err(End::new(Cause::Refused, words));
        }
        tracing::warn!(
            count = whole.len(),
            "the status, of so many bytes, is too large for the broker; a brief one goes"
        );
        Ok(brief)
    }

    /// What is done with or without a connection.
    fn settle(&mut self, action: Action) {
        match action {
            Action::Confirm(what) => self.around.spool.confirm(&what),
            Action::DeadLetter(what, reason) => {
                let spool = self.around.spool.clone();
                self.letters.spawn(async move {
                    let stored = spool.dead_letter(what.clone(), reason.clone()).await;
                    (what, reason, stored)
                });
            }
            Action::Connect
            | Action::Publish { .. }
            | Action::Status { .. }
            | Action::Span(_)
            | Action::Leave
            | Action::GiveUp(_)
            | Action::Done => {}
        }
    }

    /// Takes in what the handle was given.
    fn take_in(&mut self) {
        let mut inbox = std::mem::take(&mut *self.shared.inbox());
        if inbox.batches.dropped > 0 {
            self.session.missed(now());
        }
        for batch in inbox.batches.drain() {
            self.session.offer(batch);
        }
        for clock in inbox.clocks {
            self.session.on_clock(clock);
        }
        if let Some(devices) = inbox.meta {
            self.session.on_meta(devices);
        }
        if let Some(config) = inbox.config.filter(|config| *config != self.config) {
            self.config = config;
            self.credentials.forget();
            let broker = self.config.broker.to_string();
            self.around.board.update(|status| status.uplink.broker = broker);
            self.session
                .on_config(now(), Settings::new(&self.config, self.around.gateway.clone(), self.around.run));
        }
        if inbox.kick {
            self.session.kick(now());
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.session.on_stop(now() + self.around.stop_within);
    }

    fn life(&self) -> Life<'_> {
        Life {
            gateway: &self.around.gateway,
            run: self.around.run,
            connect: self.session.numbers().connects,
            confirmed_to: self.session.confirmed_to(),
        }
    }
}

impl Books for Spool {
    fn sends(&self, what: &Confirmed) -> bool {
        Self::sends(self, what)
    }

    fn came_back(&self, what: &[Confirmed]) {
        Self::came_back(self, what);
    }
}

impl Wire {
    fn publish(&mut self, token: u64, topic: String, payload: Vec<u8>, retain: bool) -> Result<(), End> {
        // The channel has room for the window, so this fails only for a topic that configuration let through.
        if !self.publisher.publish(topic, payload, retain) {
            return Err(End::new(Cause::Ours, "a message cannot be published: check the topics"));
        }
        self.ledger.queued(token);
        Ok(())
    }
}

/// The spool's answer, when there is a question.
async fn answered(asked: &mut Option<Answer>) -> Result<Option<Span>, SpoolError> {
    match asked {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
    }
}

/// The runtime's clock, so that tests can turn it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Drawn evenly from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0_u8; 4];
    // Without random numbers all gateways of a fleet wait alike, which is bad, but no reason to stop.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
