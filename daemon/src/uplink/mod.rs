//! The uplink: takes batches as they come and what waits in the spool, and brings them to the broker.
//!
//! This file is the handle and the start; the rest in the order of a message's way:
//!
//! * [`config`] what the user says; [`tls`] certificates and key from their files
//! * `live` the queue of the live lane; `session` decides what goes when, and what is confirmed (pure)
//! * [`payload`] and `records` the messages; `client` one connection, MQTT 5 or 3.1.1
//! * `task` carries out what the session decides
//! * `pace` how much backlog may be on its way; [`backoff`] when to connect again; `words` why a connection ended; `reasons` the
//!   broker's codes
//!
//! Promises: a batch is confirmed only by a PUBACK with a success reason (P3); nothing here blocks or grows without
//! bound (P7); live batches go first (P8). What the client library remembers is a cache: after each connection everything
//! unconfirmed is sent again from the spool.

pub mod backoff;
pub mod config;
pub mod payload;
pub mod tls;

mod client;
mod live;
mod pace;
mod reasons;
mod records;
mod session;
mod task;
mod words;

#[cfg(test)]
mod broker;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod stub;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::model::event::ClockCorrection;
use crate::model::{Batch, PointInfo, RunId};
use crate::spool::Spool;
use crate::status::Board;
pub use config::UplinkConfig;
use live::LiveQueue;
pub use live::{LIVE_BATCHES_MAX, LIVE_BYTES_MAX};

/// What a receiver is told of a device (topic `meta`).
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMeta {
    /// Name.
    pub device: Arc<str>,
    /// What the user calls it; empty if not given.
    pub label: Arc<str>,
    /// Points shown beside the name.
    pub headline: Vec<String>,
    /// Its points, in the configuration's order.
    pub points: Arc<[PointInfo]>,
}

/// What the uplinks of one run have done, over all reloads.
#[derive(Debug, Default)]
pub struct SoFar {
    /// Connections that were begun: a birth is newer than a will of the same run with a lower number.
    pub connects: AtomicU64,
    /// Every reading of the run with a lower `seq` is confirmed or accounted for, as it was at the end of the newest connection.
    pub confirmed_to: AtomicU64,
}

/// What the uplink works with, given by the supervisor.
pub struct Surroundings {
    /// Gateway id.
    pub gateway: Arc<str>,
    /// This life of the daemon.
    pub run: RunId,
    /// Where the backlog comes from and confirmations go.
    pub spool: Spool,
    /// Where the uplink writes its section, and reads the others for the status message.
    pub board: Board,
    /// What an uplink before a reload did in this run, and what this one adds to it.
    pub so_far: Arc<SoFar>,
    /// Wall clock, µs since 1970 UTC, for display.
    pub wall_us: fn() -> i64,
    /// Cancelled: publish `stopped`, wait for its PUBACK, disconnect, end.
    pub stop: CancellationToken,
    /// ... within this time.
    pub stop_within: Duration,
    /// Called in each turn of the task, at least once in ten seconds: the watchdog's proof of progress.
    pub beat: Box<dyn Fn(Instant) + Send>,
}

/// Starts the uplink's task on the current runtime. It ends after `stop` was cancelled, within `stop_within`.
pub fn start(config: UplinkConfig, around: Surroundings) -> (Uplink, JoinHandle<()>) {
    let uplink = Uplink { shared: Arc::new(Shared::default()) };
    let task = task::Task::new(config, around, uplink.shared.clone());
    (uplink, tokio::spawn(task.run()))
}

/// The handle. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Uplink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Notify,
}

/// What came in since the task last looked.
#[derive(Debug, Default)]
struct Inbox {
    batches: LiveQueue,
    config: Option<UplinkConfig>,
    meta: Option<Vec<DeviceMeta>>,
    kick: bool,
    clocks: Vec<ClockCorrection>,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uplink {
    /// Offers a batch to the live lane. Bounded; the oldest is dropped from the lane, never from the spool.
    pub fn offer(&self, batch: Arc<Batch>) {
        self.shared.inbox().batches.push(batch);
        self.shared.wake.notify_one();
    }

    /// A new configuration: used from the next connection on, which follows at once if anything changed.
    pub fn reconfigure(&self, config: UplinkConfig) {
        self.shared.inbox().config = Some(config);
        self.shared.wake.notify_one();
    }

    /// Link up, clock set, new certificate: try now instead of waiting for the next attempt.
    pub fn kick(&self) {
        self.shared.inbox().kick = true;
        self.shared.wake.notify_one();
    }

    /// The clock was first set in a boot: backlog stamps of before are sent corrected.
    pub fn clock(&self, correction: ClockCorrection) {
        let mut inbox = self.shared.inbox();
        inbox.clocks.push(correction);
        inbox.kick = true;
        drop(inbox);
        self.shared.wake.notify_one();
    }

    /// What the devices are; published retained at each connection and when it changed.
    pub fn meta(&self, devices: Vec<DeviceMeta>) {
        self.shared.inbox().meta = Some(devices);
        self.shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
