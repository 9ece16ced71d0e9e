//! What the plant shows now: the latest reading of every point, a short trend of some, and the batches of the last
//! minute for viewers that lost their connection.
//!
//! Not a queue and not a history. [`Live::offer`] is called for every batch and does little: it keeps the newest
//! value of each point and wakes viewers, if there are any. A viewer has no queue here, only a [`Position`]: it asks
//! for what came [`Live::since`], and when the ring no longer reaches back that far it is told so and starts again
//! from the newest values. So a slow viewer costs nothing, and a hole is never passed over in silence. What trends showed
//! before a restart is filled in by [`past`].
//!
//! Memory is bounded: about 150 bytes a point, [`trend::TRENDS_MAX`] trends of at most 1.5 KiB, and one [`ring`] of
//! 60 s or 1 MiB that is kept only while somebody watches or did so within the last 60 s.

pub mod past;
pub mod ring;
pub mod trend;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fieldspool_drivers::{Sample, Value};
use tokio::sync::{Notify, watch};

use crate::live::ring::Ring;
use crate::live::trend::{TRENDS_MAX, Trend};
use crate::model::{Batch, PointInfo, RunId, Shape, Stamp};

/// What the configuration says about a device: how a person knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// Name in the configuration.
    pub device: Arc<str>,
    /// The bus it is on.
    pub bus: Arc<str>,
    /// What the user calls it; empty if not given.
    pub label: Arc<str>,
    /// All its points, in the order of [`Shape::points`].
    pub points: Arc<[PointInfo]>,
}

/// The newest reading of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// Value and quality.
    pub sample: Sample,
    /// When.
    pub stamp: Stamp,
}

/// A device with what is known of it now.
#[derive(Debug)]
pub struct LiveDevice {
    /// How a person knows it.
    pub info: DeviceInfo,
    /// By point.
    pub latest: Vec<Option<Latest>>,
    /// By point; empty for points without one.
    pub trends: Vec<Option<Trend>>,
    /// The newest batches, not yet sorted into `latest` and `trends`: most are overtaken before anybody looks.
    newest: Vec<Arc<Batch>>,
    /// Where each reading of `shape` belongs, if that is not simply its index.
    moved: Option<Vec<Option<u16>>>,
    shape: Option<Arc<Shape>>,
}

/// Everything that is known now. Held under a lock: look briefly.
#[derive(Debug, Default)]
pub struct Plant {
    /// In the configuration's order.
    pub devices: Vec<LiveDevice>,
    /// Grows with each [`Live::describe`].
    pub generation: u64,
    /// Up to where readings have come, once one has.
    pub position: Option<Position>,
    by_name: HashMap<Arc<str>, usize>,
    ring: Ring,
    watching: usize,
    /// Somebody watched, or may have watched before a restart, at this CLOCK_BOOTTIME, µs.
    watched_us: Option<u64>,
}

/// A place in the stream of readings: everything below `seq` of `run` has been seen. As text `run:seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the daemon.
    pub run: RunId,
    /// The next reading's number.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.run, self.seq)
    }
}

impl FromStr for Position {
    type Err = crate::model::NotARun;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (run, seq) = text.split_once(':').ok_or(crate::model::NotARun)?;
        let digits = !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit());
        let seq = if digits { seq.parse().ok() } else { None };
        Ok(Self { run: run.parse()?, seq: seq.ok_or(crate::model::NotARun)? })
    }
}

/// What came after a position.
#[derive(Debug)]
pub enum Since {
    /// These, without a hole, up to the position given; empty if nothing came.
    Batches(Vec<Arc<Batch>>, Option<Position>),
    /// The ring does not reach back that far, or the daemon has been started anew.
    Hole(Hole),
}

/// Why a viewer must start again from the newest values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    /// The position is of another run.
    Restarted,
    /// Older than what memory holds.
    TooOld,
}

/// The live picture. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Live {
    plant: Arc<Mutex<Plant>>,
    /// Counts offers, so that viewers wake up.
    news: watch::Sender<u64>,
    /// A viewer has come.
    came: Arc<Notify>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    /// An empty picture.
    pub fn new() -> Self {
        Self { plant: Arc::default(), news: watch::Sender::new(0), came: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Plant> {
        self.plant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what devices there are; after a reload again. Values of points that stay are kept.
    pub fn describe(&self, devices: Vec<DeviceInfo>) {
        self.lock().describe(devices);
        self.news.send_modify(|offers| *offers += 1);
    }

    /// Takes a batch. Never blocks on a viewer.
    pub fn offer(&self, batch: &Arc<Batch>) {
        self.lock().take(batch);
        if self.news.receiver_count() > 0 {
            self.news.send_modify(|offers| *offers += 1);
        }
    }

    /// Looks at the picture without copying it. Nobody can offer meanwhile: at most some hundred points at a time.
    pub fn read<T>(&self, look: impl FnOnce(&Plant) -> T) -> T {
        let mut plant = self.lock();
        plant.devices.iter_mut().for_each(LiveDevice::sort_in);
        look(&plant)
    }

    /// What came after `position`: whole batches of at most `bytes_max` bytes (but at least one).
    pub fn since(&self, position: Position, bytes_max: usize) -> Since {
        let plant = self.lock();
        match plant.position {
            Some(now) if now.run != position.run => Since::Hole(Hole::Restarted),
            None => Since::Hole(Hole::Restarted),
            Some(now) if position.seq > now.seq => Since::Hole(Hole::TooOld),
            Some(now) if position.seq == now.seq => Since::Batches(Vec::new(), None),
            Some(_) => match plant.ring.since(position.seq, bytes_max) {
                Some(batches) => {
                    let next = batches.last().map(|last| Position { run: last.run, seq: last.end() });
                    Since::Batches(batches, next)
                }
                None => Since::Hole(Hole::TooOld),
            },
        }
    }

    /// Announces a viewer. While one is there, and 60 s after, the last minute is kept.
    pub fn watch(&self) -> Watching {
        let mut plant = self.lock();
        plant.watching += 1;
        self.came.notify_one();
        Watching { live: self.clone(), news: self.news.subscribe() }
    }

    /// Waits until a viewer comes, or has come since the last call. For one who waits.
    pub async fn viewed(&self) {
        self.came.notified().await;
    }

    /// How many viewers there are.
    pub fn watching(&self) -> usize {
        self.lock().watching
    }
}

impl Plant {
    fn describe(&mut self, infos: Vec<DeviceInfo>) {
        let mut old: HashMap<Arc<str>, LiveDevice> =
            self.devices.drain(..).map(|device| (Arc::clone(&device.info.device), device)).collect();
        let mut trends_left = TRENDS_MAX;
        self.devices = infos.into_iter().map(|info| LiveDevice::new(info, &mut old)).collect();
        for headline in [true, false] {
            self.devices.iter_mut().for_each(|device| device.grant_trends(headline, &mut trends_left));
        }
        self.by_name =
            self.devices.iter().enumerate().map(|(i, device)| (Arc::clone(&device.info.device), i)).collect();
        self.generation += 1;
    }

    fn take(&mut self, batch: &Arc<Batch>) {
        let now_us = batch.stamp.mono_us;
        if self.position.is_none_or(|position| position.run != batch.run) {
            self.ring = Ring::default();
            // A viewer of the run before may come back: keep the first minute for it.
            self.watched_us = Some(now_us);
        }
        self.position = Some(Position { run: batch.run, seq: batch.end() });
        if self.watching > 0 {
            self.watched_us = Some(now_us);
        }
        if self.watched_us.is_some_and(|at| now_us.saturating_sub(at) <= ring::KEPT_US) {
            self.ring.push(Arc::clone(batch));
        } else if self.watched_us.take().is_some() {
            self.ring = Ring::default();
        }
        let device = self.by_name.get(&batch.shape.device).and_then(|&i| self.devices.get_mut(i));
        if let Some(device) = device {
            device.offer(batch);
        }
    }

    /// The device of that name.
    pub fn device(&self, name: &str) -> Option<&LiveDevice> {
        self.by_name.get(name).and_then(|&i| self.devices.get(i))
    }
}

impl LiveDevice {
    fn new(info: DeviceInfo, old: &mut HashMap<Arc<str>, LiveDevice>) -> Self {
        let n = info.points.len();
        let mut device = Self {
            info,
            latest: vec![None; n],
            trends: vec![None; n],
            newest: Vec::new(),
            moved: None,
            shape: None,
        };
        let Some(mut before) = old.remove(&device.info.device) else { return device };
        before.sort_in();
        let places: HashMap<Arc<str>, usize> =
            before.info.points.iter().enumerate().map(|(i, p)| (Arc::clone(&p.name), i)).collect();
        for (i, point) in device.info.points.iter().enumerate() {
            let Some(&j) = places.get(&point.name) else { continue };
            if before.info.points[j].unit == point.unit {
                device.latest[i] = before.latest[j].take();
                device.trends[i] = before.trends[j].take();
            }
        }
        device
    }

    fn grant_trends(&mut self, headline: bool, left: &mut usize) {
        for (point, trend) in self.info.points.iter().zip(&mut self.trends) {
            if point.headline != headline {
                continue;
            }
            if *left == 0 {
                *trend = None;
            } else {
                *left -= 1;
                trend.get_or_insert_default();
            }
        }
    }

    /// Readings name points by their index in the batch's shape, which is ours except around a reload.
    fn follow(&mut self, shape: &Arc<Shape>) {
        if self.shape.as_ref().is_some_and(|known| Arc::ptr_eq(known, shape)) {
            return;
        }
        let same = shape.points.len() == self.info.points.len()
            && shape.points.iter().zip(&*self.info.points).all(|(a, b)| a.name == b.name);
        self.moved = (!same).then(|| {
            let ours: HashMap<&str, usize> =
                self.info.points.iter().enumerate().map(|(i, p)| (&*p.name, i)).collect();
            let place = |name: &str| ours.get(name).and_then(|&i| u16::try_from(i).ok());
            shape.points.iter().map(|point| place(&point.name)).collect()
        });
        self.shape = Some(Arc::clone(shape));
    }

    /// Takes a batch. What it overtakes is let go unseen, unless a trend still needs it.
    fn offer(&mut self, batch: &Arc<Batch>) {
        let step = trend::step(batch.stamp.mono_us);
        let news = |old: &Batch| trend::step(old.stamp.mono_us) != step || has_hole(old);
        if self.newest.len() >= NEWEST_MAX || self.newest.iter().any(|old| news(old)) {
            self.sort_in();
        }
        self.newest.retain(|old| !overtakes(batch, old));
        self.newest.push(Arc::clone(batch));
    }

    /// Brings values and trends up to date.
    fn sort_in(&mut self) {
        for batch in std::mem::take(&mut self.newest) {
            self.take(&batch);
        }
    }

    fn take(&mut self, batch: &Batch) {
        self.follow(&batch.shape);
        for reading in &batch.readings {
            let place = match &self.moved {
                None => Some(reading.point),
                Some(moved) => moved.get(usize::from(reading.point)).copied().flatten(),
            };
            let Some(place) = place.map(usize::from) else { continue };
            let (Some(latest), Some(trend)) = (self.latest.get_mut(place), self.trends.get_mut(place)) else {
                continue;
            };
            if let Some(trend) = trend {
                trend.push(batch.stamp.mono_us, reading.sample.value.as_ref().and_then(Value::as_f64));
            }
            *latest = Some(Latest { sample: reading.sample.clone(), stamp: batch.stamp });
        }
    }
}

/// A poll that is cut into more batches than this is sorted in at once.
const NEWEST_MAX: usize = 8;

/// Whether every point of `old` has a newer reading in `new`.
fn overtakes(new: &Batch, old: &Batch) -> bool {
    let ends = |batch: &Batch| Some((batch.readings.first()?.point, batch.readings.last()?.point));
    let (Some((first, last)), Some(inner)) = (ends(new), ends(old)) else { return false };
    // Points ascend: so many between two ends are all there are.
    let whole = usize::from(last.saturating_sub(first)) + 1 == new.readings.len();
    whole && first <= inner.0 && inner.1 <= last && Arc::ptr_eq(&new.shape, &old.shape)
}

/// A value is missing, which a trend shows.
fn has_hole(batch: &Batch) -> bool {
    batch.readings.iter().any(|reading| reading.sample.value.is_none())
}

/// One viewer's announcement; ends when dropped.
#[derive(Debug)]
pub struct Watching {
    live: Live,
    news: watch::Receiver<u64>,
}

impl Watching {
    /// Waits until something has come since the last call.
    pub async fn news(&mut self) {
        // The sender lives in `self.live`, so it cannot be gone.
        let _ = self.news.changed().await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut plant = self.live.lock();
        plant.watching = plant.watching.saturating_sub(1);
    }
}

#[cfg(test)]
pub(crate) mod tests;
