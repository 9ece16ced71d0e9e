//! The task around [`Intake`]: takes what the buses bring, and hands batches and records on.
//!
//! One wake-up handles everything that is there. Hand-over never waits. With `store first` (`commit_every = "0s"`)
//! the live lane gets a batch only when it is stored; until then it waits here, in order and bounded: what does not
//! fit reaches the broker as backlog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Device, Intake};
use crate::clock::Clock;
use crate::live::Live;
use crate::model::Batch;
use crate::model::event::Body;
use crate::schedule::samples::{News, Samples};
use crate::spool::{Committed, Spool};
use crate::status::Board;
use crate::uplink::Uplink;

/// Batches that wait for their commit before they go to the live lane, with `store first`: as many as the lane holds,
/// at most 4 MiB of values. More of them, while a disk fails, would reach the broker as backlog in any case.
const WAITING_MAX: usize = 256;

/// How often the clock is looked at, with the samples of a poll, until it was set.
const LOOK_EVERY: Duration = Duration::from_millis(900);

/// Longest time between two turns.
const TURN_EVERY: Duration = Duration::from_secs(10);

/// What somebody may tell intake.
#[derive(Debug)]
pub enum Command {
    /// The devices of a new configuration, by bus, in the order the schedule will name them.
    Describe(Vec<Vec<Device>>),
    /// A record of the gateway's own: a configuration was taken or refused.
    Record(Body),
    /// The uplink came or went with a new configuration.
    Uplink(Option<Uplink>),
    /// `commit_every` became zero, or ceased to be.
    StoreFirst(bool),
}

/// Everything intake hands batches to, and what it is told by.
pub struct Surroundings {
    /// From the buses.
    pub samples: Arc<Samples>,
    /// Keeps every batch.
    pub spool: Spool,
    /// Sends it; `None` without an uplink.
    pub uplink: Option<Uplink>,
    /// Shows it.
    pub live: Live,
    /// Its sections are `clock` and the spool's `numbered`.
    pub board: Board,
    /// What others say.
    pub commands: mpsc::Receiver<Command>,
    /// Hand batches to the live lane only when they are stored.
    pub store_first: bool,
    /// Called in each turn of the loop, at least every 10 s: the watchdog's proof of progress.
    pub beat: Box<dyn Fn(Instant) + Send>,
    /// The buses have ended: take what is left and end.
    pub stop: CancellationToken,
}

/// The life of intake. Returns how many readings the run numbered.
pub async fn run(intake: Intake, clock: Clock, around: Surroundings) -> u64 {
    let committed = around.spool.committed();
    let mut task = Task {
        intake,
        clock,
        waiting: VecDeque::new(),
        committed,
        names: Vec::new(),
        looked_at: None,
        around,
    };
    task.look_at_the_clock();
    let samples = task.around.samples.clone();
    let stop = task.around.stop.clone();
    let mut news = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = samples.take(&mut news) => {
                task.take(&mut news);
                task.look_at_the_clock();
            }
            Some(command) = task.around.commands.recv() => task.obey(command),
            Ok(()) = task.committed.changed(), if task.around.store_first => task.offer_stored(),
            () = tokio::time::sleep(TURN_EVERY) => task.look_at_the_clock(),
        }
        (task.around.beat)(Instant::now());
    }
    samples.take_now(&mut news);
    task.take(&mut news);
    task.intake.numbered()
}

struct Task {
    intake: Intake,
    clock: Clock,
    /// Not yet stored, with `store first`.
    waiting: VecDeque<Arc<Batch>>,
    committed: watch::Receiver<Committed>,
    /// Names of the buses, for records about their devices.
    names: Vec<String>,
    looked_at: Option<Instant>,
    around: Surroundings,
}

impl Task {
    fn take(&mut self, news: &mut Vec<News>) {
        for one in news.drain(..) {
            match one {
                News::Polled(polled) => {
                    let stamp = self.clock.stamp(polled.at);
                    for batch in self.intake.take(polled.bus, polled.device, polled.samples, stamp) {
                        self.hand_on(batch);
                    }
                }
                News::Edge { bus, device, answering } => {
                    if let Some(name) = self.intake.device_name(bus, device) {
                        let device = name.to_string();
                        self.record(Body::Device { device, answering });
                    }
                }
                News::Missed { bus, device, polls } => {
                    if let Some(name) = self.intake.device_name(bus, device) {
                        let device = name.to_string();
                        let bus = self.names.get(bus).cloned().unwrap_or_default();
                        self.record(Body::Missed { bus, device, polls });
                    }
                }
            }
        }
    }

    fn hand_on(&mut self, batch: Arc<Batch>) {
        self.around.live.offer(&batch);
        self.around.spool.append(batch.clone());
        let Some(uplink) = &self.around.uplink else { return };
        if self.around.store_first {
            if self.waiting.len() >= WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(batch);
        } else {
            uplink.offer(batch);
        }
    }

    fn offer_stored(&mut self) {
        let durable = self.committed.borrow_and_update().next_seq;
        let stored = self.waiting.partition_point(|batch| batch.end() <= durable);
        for batch in self.waiting.drain(..stored) {
            if let Some(uplink) = &self.around.uplink {
                uplink.offer(batch);
            }
        }
    }

    fn record(&self, body: Body) {
        self.around.spool.record(body, self.clock.stamp(Instant::now()));
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Describe(buses) => {
                self.names = self.around.board.read(|s| s.buses.iter().map(|b| b.name.clone()).collect());
                self.intake.describe(buses);
            }
            Command::Record(body) => self.record(body),
            Command::Uplink(uplink) => self.around.uplink = uplink,
            Command::StoreFirst(store_first) => {
                self.around.store_first = store_first;
                if !store_first {
                    // What waited for its commit reaches the broker as backlog.
                    self.waiting.clear();
                }
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.looked_at.is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY) {
            return;
        }
        self.looked_at = Some(now);
        if let Some(body) = self.clock.look() {
            if let Some(correction) = body.correction() {
                let offset_us = correction.offset_us;
                tracing::info!(
                    elapsed = offset_us,
                    "the clock was set; earlier stamps of this boot are corrected"
                );
                self.around.board.update(|status| status.clock.corrected_us = Some(offset_us));
                if let Some(uplink) = &self.around.uplink {
                    uplink.clock(correction);
                    uplink.kick();
                }
            }
            self.record(body);
        }
        let synced = self.clock.is_synced();
        self.around.board.update(|status| status.clock.synced = synced);
    }
}
