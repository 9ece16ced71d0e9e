//! Which points of a device that answers have no usable value, and why: for the board, and for one log line on the edge.
//!
//! Not about the device itself: whether it answers at all is judged in [`due`](super::due). One damaged or lost answer
//! says nothing yet; a refusal or what is not a number counts at once. A value that the device's manual calls "no
//! value" is shown, but is no edge: instruments do that on purpose. Pure and bounded: 6 bytes a point.

use fieldspool_drivers::{Cause, Quality, Sample};

use crate::status::DeviceStatus;

/// A point counts as unusable after so many answers in a row that were damaged or did not come.
const IN_A_ROW: u8 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Why the last sample had no value; `None`: it had one, or there was none yet.
    cause: Option<Cause>,
    /// Samples in a row without a value.
    times: u8,
}

/// What counts now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Points without a usable value.
    unusable: usize,
    /// Of these: the device says so itself.
    expected: usize,
    /// The most frequent reason, of those that are not expected if there are any.
    why: Option<Cause>,
    /// How many have this one.
    of_why: usize,
}

/// How much of a device is unusable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Extent {
    #[default]
    Nothing,
    Some,
    All,
}

/// An edge worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// So many of so many points have no usable value.
    Unusable(usize, usize, Cause),
    /// All have, as far as the device means them to.
    Usable,
}

/// The points of one device.
#[derive(Debug)]
pub(super) struct Usable {
    places: Vec<Place>,
    /// How many points are polled.
    points: usize,
    tally: Tally,
    said: Extent,
}

impl Usable {
    /// Of a device with so many polled points.
    pub(super) fn new(points: usize) -> Self {
        Self { places: Vec::new(), points, tally: Tally::default(), said: Extent::default() }
    }

    /// The device answers again: that points were not answered meanwhile says nothing about them.
    pub(super) fn forget_silence(&mut self) {
        for place in &mut self.places {
            if matches!(place.cause, Some(Cause::Silent | Cause::BadFrame)) {
                *place = Place::default();
            }
        }
        self.count();
    }

    /// Takes the samples of a poll of a device that counts as answering.
    pub(super) fn take(&mut self, samples: &[(u16, Sample)]) -> Option<Turn> {
        let mut news = false;
        for (point, sample) in samples {
            let point = usize::from(*point);
            let cause = match sample.quality {
                // Says nothing about the point.
                Quality::Bad(Cause::LinkDown) => continue,
                Quality::Bad(cause) => Some(cause),
                Quality::Good | Quality::Uncertain(_) => None,
            };
            // Nearly all, nearly always: as it was, and as a point begins.
            if cause.is_none() && self.places.get(point).is_none_or(|place| place.cause.is_none()) {
                continue;
            }
            if self.places.len() <= point {
                self.places.resize(point + 1, Place::default());
            }
            let Some(place) = self.places.get_mut(point) else { continue };
            let (before, was) = (place.cause, place.counts());
            let times = if cause.is_some() { place.times.saturating_add(1) } else { 0 };
            *place = Place { cause, times };
            news |= before != cause || was != place.counts();
        }
        if !news {
            return None;
        }
        self.count();
        self.turn()
    }

    fn count(&mut self) {
        let causes: Vec<Cause> = self.places.iter().filter_map(|place| place.counts()).collect();
        let own = |cause: &&Cause| **cause != Cause::Sentinel;
        let times = |why: &Cause| causes.iter().filter(|cause| *cause == why).count();
        let why = causes.iter().filter(own).max_by_key(|why| times(why)).or(causes.first()).copied();
        self.tally = Tally {
            unusable: causes.len(),
            expected: causes.len() - causes.iter().filter(own).count(),
            why,
            of_why: why.as_ref().map_or(0, times),
        };
    }

    fn turn(&mut self) -> Option<Turn> {
        let Tally { unusable, expected, why, .. } = self.tally;
        let now = match unusable - expected {
            0 => Extent::Nothing,
            n if n >= self.points => Extent::All,
            _ => Extent::Some,
        };
        if std::mem::replace(&mut self.said, now) == now {
            return None;
        }
        Some(match why {
            Some(why) if now != Extent::Nothing => Turn::Unusable(unusable - expected, self.points, why),
            _ => Turn::Usable,
        })
    }

    /// Writes what counts into the device's section of the board.
    pub(super) fn show(&self, device: &mut DeviceStatus) {
        device.points = self.points as u64;
        device.unusable = self.tally.unusable as u64;
        device.unusable_expected = self.tally.expected as u64;
        device.unusable_cause = self.tally.why.map(Cause::code);
        device.unusable_of_cause = self.tally.of_why as u64;
    }
}

impl Place {
    /// The reason, once it counts.
    fn counts(self) -> Option<Cause> {
        let lost = matches!(self.cause, Some(Cause::Silent | Cause::BadFrame));
        self.cause.filter(|_| !lost || self.times >= IN_A_ROW)
    }
}

#[cfg(test)]
mod tests {
    use fieldspool_drivers::Value;

    use super::*;

    fn poll(causes: &[Option<Cause>]) -> Vec<(u16, Sample)> {
        let sample = |cause: &Option<Cause>| match cause {
            None => Sample::good(Value::Uint(1)),
            Some(cause) => Sample::bad(*cause),
        };
        (0..).zip(causes.iter().map(sample)).collect()
    }

    #[test]
    fn an_edge_is_said_once_with_the_most_frequent_reason_and_once_when_it_is_over() {
        let (no, nan) = (Some(Cause::Exception(2)), Some(Cause::NotANumber));
        let mut usable = Usable::new(3);
        assert_eq!(usable.take(&poll(&[None, None, None])), None);
        let all = Some(Turn::Unusable(3, 3, Cause::Exception(2)));
        assert_eq!(usable.take(&poll(&[no, no, nan])), all);
        assert_eq!(usable.take(&poll(&[no, no, nan])), None, "said already");
        let mut shown = DeviceStatus::default();
        usable.show(&mut shown);
        assert_eq!((shown.unusable, shown.unusable_of_cause), (3, 2), "the third has another reason");
        assert_eq!(usable.take(&poll(&[None, None, nan])), Some(Turn::Unusable(1, 3, Cause::NotANumber)));
        let mut shown = DeviceStatus::default();
        usable.show(&mut shown);
        assert_eq!((shown.points, shown.unusable, shown.unusable_expected), (3, 1, 0));
        assert_eq!(shown.unusable_cause, Some(Cause::NotANumber.code()));
        assert_eq!(usable.take(&poll(&[None, None, None])), Some(Turn::Usable));
    }

    #[test]
    fn one_lost_answer_is_no_edge_and_three_in_a_row_are() {
        let lost = poll(&[Some(Cause::BadFrame), Some(Cause::Silent)]);
        let mut usable = Usable::new(2);
        assert_eq!((usable.take(&lost), usable.take(&lost)), (None, None));
        assert!(matches!(usable.take(&lost), Some(Turn::Unusable(2, 2, _))));
        usable.forget_silence();
        let mut shown = DeviceStatus::default();
        usable.show(&mut shown);
        assert_eq!(shown.unusable, 0, "a device that answers again begins anew");
        assert_eq!(usable.take(&poll(&[Some(Cause::LinkDown); 2])), None, "that is the bus's trouble");
    }

    #[test]
    fn what_a_device_calls_no_value_is_shown_but_is_no_edge() {
        let mut usable = Usable::new(2);
        assert_eq!(usable.take(&poll(&[Some(Cause::Sentinel), None])), None);
        let mut shown = DeviceStatus::default();
        usable.show(&mut shown);
        assert_eq!((shown.unusable, shown.unusable_expected, shown.unusable_of_cause), (1, 1, 1));
    }
}
