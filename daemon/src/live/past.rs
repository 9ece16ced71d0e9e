//! What the trends showed before this start: marks from stored batches, put before those of this run.
//!
//! A [`Past`] takes batches in stretches, the newest stretch first and each from its oldest batch on. It puts them straight
//! into the trends, so it needs no memory of its own; what this run has read is never replaced. Where the gateway did not read
//! for a while between two runs, the curve has a hole. A point whose name or unit was another one gets nothing of it.

use std::collections::HashMap;
use std::sync::Arc;

use fieldspool_drivers::Value;

use super::trend::Trend;
use super::trend::{STEP_S, TREND_NUMBERS};
use super::{DeviceInfo, Live, LiveDevice, Plant};
use crate::model::{Batch, PointMeta, RunId, Shape};

/// So long without a reading between two runs, s, is a hole in every curve; a shorter pause is not.
const PAUSE_S: i32 = 15;

/// A stored shape, and where each of its points stands now.
type Placed = (Arc<Shape>, Vec<Option<usize>>);

/// A moment of a run: CLOCK_BOOTTIME of this boot, s; negative before it.
type Moment = (RunId, i32);

/// Trends being filled.
#[derive(Debug)]
pub struct Past {
    live: Live,
    /// The run that is read now.
    run: RunId,
    /// The beginning of what the stretch at hand leads up to.
    later: Option<Moment>,
    first: Option<Moment>,
    last: Option<Moment>,
    /// By device.
    places: HashMap<Arc<str>, Placed>,
    /// The description of the plant that they are of.
    generation: u64,
    /// Something was filled in.
    news: bool,
}

impl Past {
    /// For the trends as they are; `None` while nothing has been read in this run.
    pub fn of(live: &Live) -> Option<Self> {
        let mut plant = live.lock();
        let run = plant.position?.run;
        plant.devices.iter_mut().for_each(LiveDevice::sort_in);
        let begins = trends(&mut plant).filter_map(|trend| Some(trend.marks().next()?.at_s)).min();
        let later = begins.map(|at_s| (run, at_s));
        let (generation, places) = (plant.generation, HashMap::new());
        Some(Self {
            live: live.clone(),
            run,
            later,
            first: None,
            last: None,
            places,
            generation,
            news: false,
        })
    }

    /// How far back the trends that have room would reach if they were full, s.
    pub fn lacks_s(&self) -> u64 {
        let plant = self.live.lock();
        let points = plant.devices.iter().flat_map(|device| device.info.points.iter().zip(&device.trends));
        let lacks = points.filter_map(|(point, trend)| {
            let step_s = point.period.map_or(0, |period| period.as_secs()).max(STEP_S.unsigned_abs().into());
            trend.as_ref().filter(|trend| trend.has_room()).map(|_| step_s * TREND_NUMBERS as u64)
        });
        lacks.max().unwrap_or(0)
    }

    /// Begins a stretch: its batches are older than all that is there.
    pub fn begin(&mut self) {
        trends(&mut self.live.lock()).for_each(Trend::begin_past);
        (self.first, self.last) = (None, None);
    }

    /// Takes a stored batch that was read at this running time of the present boot, s.
    pub fn take(&mut self, batch: &Batch, at_s: i32) {
        if batch.run == self.run {
            return;
        }
        if let Some(last) = self.last {
            self.pause(last, (batch.run, at_s));
        }
        self.first.get_or_insert((batch.run, at_s));
        self.last = Some((batch.run, at_s));
        let mut plant = self.live.lock();
        if self.generation != plant.generation {
            self.generation = plant.generation;
            self.places.clear();
        }
        let Some(&index) = plant.by_name.get(&batch.shape.device) else { return };
        let Some(device) = plant.devices.get_mut(index) else { return };
        let known = self.places.get(&batch.shape.device);
        if !known.is_some_and(|(shape, _)| Arc::ptr_eq(shape, &batch.shape)) {
            let places = places(&device.info, &batch.shape);
            self.places.insert(Arc::clone(&batch.shape.device), (Arc::clone(&batch.shape), places));
        }
        let Some((_, places)) = self.places.get(&batch.shape.device) else { return };
        for reading in &batch.readings {
            let place = places.get(usize::from(reading.point)).copied().flatten();
            let Some(Some(trend)) = place.and_then(|place| device.trends.get_mut(place)) else { continue };
            self.news |= trend.push_past(at_s, reading.sample.value.as_ref().and_then(Value::as_f64));
        }
    }

    /// Ends a stretch. `cut`: something of it is missing at its end.
    pub fn end(&mut self, cut: bool) {
        match (self.last, self.later) {
            (Some((_, last_s)), _) if cut => self.hole(last_s),
            (Some(last), Some(later)) => self.pause(last, later),
            _ => {}
        }
        self.later = self.first.or(self.later);
    }

    /// Shows what was filled in to those who look already.
    pub fn show(&mut self) {
        if std::mem::take(&mut self.news) {
            self.live.lock().generation += 1;
            self.live.news.send_modify(|offers| *offers += 1);
        }
    }

    fn pause(&self, last: Moment, next: Moment) {
        if last.0 != next.0 && next.1.saturating_sub(last.1) > PAUSE_S {
            self.hole(last.1);
        }
    }

    fn hole(&self, after_s: i32) {
        for trend in trends(&mut self.live.lock()).filter(|trend| trend.has_past()) {
            trend.push_past(after_s.saturating_add(STEP_S), None);
        }
    }
}

fn trends(plant: &mut Plant) -> impl Iterator<Item = &mut Trend> {
    plant.devices.iter_mut().flat_map(|device| device.trends.iter_mut().flatten())
}

/// Where each point of a stored shape stands now, if it means the same.
fn places(info: &DeviceInfo, shape: &Shape) -> Vec<Option<usize>> {
    let ours: HashMap<&str, usize> = info.points.iter().enumerate().map(|(i, p)| (&*p.name, i)).collect();
    let place = |point: &PointMeta| {
        ours.get(&*point.name).copied().filter(|&i| info.points.get(i).is_some_and(|p| p.unit == point.unit))
    };
    shape.points.iter().map(place).collect()
}
