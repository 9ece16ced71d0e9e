//! The uplink: takes batches as they come and what waits in the spool, and brings them to the broker.

pub mod config;
#[allow(dead_code)] // the task that empties it follows
mod live;
#[cfg(test)]
mod sample;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldspool_drivers::ValueKind;
use tokio::sync::Notify;

use crate::model::Batch;
pub use config::UplinkConfig;
use live::LiveQueue;
pub use live::{LIVE_BATCHES_MAX, LIVE_BYTES_MAX};

/// What a receiver is told of a device (topic `meta`).
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMeta {
    /// Name.
    pub device: Arc<str>,
    /// What the user calls it; empty if not given.
    pub label: String,
    /// Points shown beside the name.
    pub headline: Vec<String>,
    /// Its points, in the configuration's order.
    pub points: Vec<PointInfo>,
}

/// What a receiver is told of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct PointInfo {
    /// Name.
    pub name: Arc<str>,
    /// Type of its values.
    pub kind: ValueKind,
    /// Unit of measurement; may be empty.
    pub unit: Arc<str>,
    /// What the user calls it; empty if not given.
    pub label: String,
    /// Decimals of a scaled value, if configured.
    pub decimals: Option<u8>,
    /// How often it is polled; `None` for an instrument that speaks by itself.
    pub period: Option<Duration>,
    /// Integers beyond 2^53 come as strings.
    pub json_string: bool,
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
#[allow(dead_code)] // the task that reads it follows
struct Inbox {
    batches: LiveQueue,
    config: Option<UplinkConfig>,
    meta: Option<Vec<DeviceMeta>>,
    kick: bool,
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

    /// What the devices are; published retained at each connection and when it changed.
    pub fn meta(&self, devices: Vec<DeviceMeta>) {
        self.shared.inbox().meta = Some(devices);
        self.shared.wake.notify_one();
    }
}
