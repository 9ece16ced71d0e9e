//! A device that answers some requests and ignores others: what it costs, what is said of it, and how it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use super::peer::{Asked, KINDS, Kind, device, now};
use super::*;
use crate::value::Cause;

/// What unit 1 answers; all others answer all.
const ALL: u8 = 0;
const BELOW_100: u8 = 1;
const NOTHING: u8 = 2;
/// Below 100 with exception 2, else not.
const REFUSALS: u8 = 3;
/// Below 100 rightly, else with an answer of a wrong length.
const DAMAGED: u8 = 4;
/// Only what lies from 50 to 99.
const FROM_50: u8 = 5;

#[derive(Clone, Default)]
struct Meter {
    mode: Arc<AtomicU8>,
    /// Requests that were not answered.
    ignored: Arc<AtomicUsize>,
}

impl Meter {
    async fn link(&self, kind: Kind) -> Link {
        let meter = self.clone();
        device(kind, move |_, asked| {
            let mode = meter.mode.load(Ordering::Relaxed);
            let vain = || {
                meter.ignored.fetch_add(1, Ordering::Relaxed);
                Vec::new()
            };
            match (mode, asked.address >= 100) {
                _ if asked.unit != 1 => now(asked.counting(asked.address)),
                (NOTHING, _) | (BELOW_100 | REFUSALS | FROM_50, true) => vain(),
                (FROM_50, false) if asked.address < 50 => vain(),
                (REFUSALS, false) => now(asked.exception(2)),
                (DAMAGED, true) => now(Asked { count: asked.count + 1, ..asked }.counting(0)),
                _ => now(asked.counting(asked.address)),
            }
        })
        .await
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
    }

    fn ignored(&self) -> usize {
        self.ignored.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn requests_that_a_device_ignores_are_left_out_and_back_when_they_are_answered() {
    for kind in KINDS {
        let meter = Meter::default();
        meter.set(BELOW_100);
        let link = meter.link(kind).await;
        let points =
            [(Table::Holding, 0, Type::U16), (Table::Input, 100, Type::U16), (Table::Input, 200, Type::U32)];
        let mut bus = Bus::open_lazily(spec(link, &[1, 2, 3], &points));
        let (silent, sound) = (Sample::bad(Cause::Silent), uints(&[0, 100, 0x00c8_00c9]));
        for _ in 0..40 {
            let poll = bus.poll(0, 0, soon(5_000)).await;
            assert!(is_answered(&poll), "{kind:?}: {poll:?}");
            assert_eq!(samples(&poll), [uints(&[0])[0].clone(), silent.clone(), silent.clone()], "{kind:?}");
            for neighbour in [1, 2] {
                assert_eq!(samples(&bus.poll(neighbour, 0, soon(5_000)).await), sound, "{kind:?}");
            }
        }
        assert!(meter.ignored() >= 2, "{kind:?}: each has its chances");
        assert!(meter.ignored() <= 20, "{kind:?}: {} requests in vain of 80", meter.ignored());

        meter.set(ALL);
        let deadline = soon(60_000);
        while samples(&bus.poll(0, 0, soon(5_000)).await) != sound {
            assert!(Instant::now() < deadline, "{kind:?}: never back");
            bus.idle(soon(20)).await;
        }
        let asked = bus.counters().requests;
        assert_eq!(samples(&bus.poll(0, 0, soon(5_000)).await), sound, "{kind:?}: at once as before");
        assert_eq!(bus.counters().requests - asked, 3, "{kind:?}");
    }
}

#[tokio::test]
async fn a_group_that_is_ignored_as_a_whole_does_not_make_its_device_silent() {
    for kind in KINDS {
        let meter = Meter::default();
        meter.set(BELOW_100);
        let points = [(Table::Holding, 0, Type::U16), (Table::Input, 100, Type::U16)];
        let mut spec = spec(meter.link(kind).await, &[1], &points);
        spec.devices[0].groups =
            [0, 1].map(|point| Group { period: Duration::from_secs(1), points: vec![point] }).to_vec();
        let mut bus = Bus::open_lazily(spec);
        let mut silences = 0;
        while silences < 3 {
            let poll = bus.poll(0, 1, soon(5_000)).await;
            silences += usize::from(poll.outcome == Outcome::Silent);
            assert_eq!(samples(&bus.poll(0, 0, soon(5_000)).await), uints(&[0]), "{kind:?}");
        }
        let asked = meter.ignored();
        let poll = bus.poll(0, 1, soon(5_000)).await;
        assert_eq!(samples(&poll), [Sample::bad(Cause::Silent)], "{kind:?}");
        assert_eq!(poll.outcome, Outcome::Answered { turnaround: Duration::ZERO }, "{kind:?}");
        assert_eq!(meter.ignored(), asked, "{kind:?}: not asked");

        meter.set(NOTHING);
        assert_eq!(bus.poll(0, 0, soon(5_000)).await.outcome, Outcome::Silent, "{kind:?}");
        let poll = poll_group_unheld(&mut bus, 1).await;
        assert_eq!(
            poll.outcome,
            Outcome::Silent,
            "{kind:?}: the device is silent, and no group says that it answers"
        );

        meter.set(BELOW_100);
        let poll = poll_group_unheld(&mut bus, 1).await;
        assert!(is_answered(&poll), "{kind:?}: seen by what it answers, whichever group is asked: {poll:?}");
        assert_eq!(samples(&poll), [Sample::bad(Cause::Silent)], "{kind:?}");
    }
}

#[tokio::test]
async fn a_request_for_which_a_poll_has_hardly_time_left_is_not_sent_and_goes_first_in_the_next_one() {
    for kind in [Kind::Tcp, Kind::Rtu] {
        let meter = Meter::default();
        meter.set(BELOW_100);
        let points =
            [(Table::Holding, 0, Type::U16), (Table::Holding, 100, Type::U16), (Table::Input, 50, Type::U16)];
        let spec = spec(meter.link(kind).await, &[1], &points);
        let longest = spec.longest_request();
        let mut bus = Bus::open_lazily(spec);
        let (silent, good) = (Sample::bad(Cause::Silent), uints(&[0, 50]));
        let poll = bus.poll(0, 0, Instant::now() + longest * 5 / 4).await;
        assert_eq!(samples(&poll), [good[0].clone(), silent.clone(), silent.clone()], "{kind:?}");
        assert_eq!(bus.counters().requests, 2, "{kind:?}");
        bus.idle(soon(if kind == Kind::Rtu { 600 } else { 0 })).await;
        let poll = bus.poll(0, 0, Instant::now() + longest * 5 / 4).await;
        assert_eq!(samples(&poll), [good[0].clone(), silent, good[1].clone()], "{kind:?}");
        assert_eq!(bus.counters().requests, 5, "{kind:?}");
    }
}

/// A device with one point a group, at 0, 100 and 50, of which it ignores the second; that is learned. The third has
/// not been asked yet.
async fn learned(meter: &Meter, mode: u8, kind: Kind) -> Bus {
    meter.set(mode);
    let points =
        [(Table::Holding, 0, Type::U16), (Table::Input, 100, Type::U16), (Table::Input, 50, Type::U16)];
    let mut spec = spec(meter.link(kind).await, &[1], &points);
    spec.devices[0].groups =
        [0, 1, 2].map(|point| Group { period: Duration::from_secs(1), points: vec![point] }).to_vec();
    let mut bus = Bus::open_lazily(spec);
    let mut silences = 0;
    while silences < 3 {
        silences += usize::from(bus.poll(0, 1, soon(5_000)).await.outcome == Outcome::Silent);
        assert!(is_answered(&bus.poll(0, 0, soon(5_000)).await));
    }
    let asked = meter.ignored();
    assert!(is_answered(&bus.poll(0, 1, soon(5_000)).await));
    assert_eq!(meter.ignored(), asked, "left out");
    bus
}

#[tokio::test]
async fn a_device_that_has_only_ever_refused_and_falls_silent_is_not_said_to_answer() {
    for kind in KINDS {
        let meter = Meter::default();
        let mut bus = learned(&meter, REFUSALS, kind).await;
        meter.set(NOTHING);
        assert_eq!(poll_group_unheld(&mut bus, 0).await.outcome, Outcome::Silent, "{kind:?}");
        assert_eq!(poll_group_unheld(&mut bus, 1).await.outcome, Outcome::Silent, "{kind:?}");
        meter.set(REFUSALS);
        assert!(is_answered(&poll_group_unheld(&mut bus, 1).await), "{kind:?}: seen by its refusal");
    }
}

#[tokio::test]
async fn a_poll_that_had_no_time_to_ask_a_device_in_doubt_does_not_say_that_it_answers() {
    let meter = Meter::default();
    meter.set(BELOW_100);
    let points = [(Table::Input, 100, Type::U16), (Table::Holding, 0, Type::U16)];
    let mut bus = Bus::open_lazily(spec(meter.link(Kind::Tcp).await, &[1], &points));
    let mut asked = usize::MAX;
    while meter.ignored() != asked {
        asked = meter.ignored();
        bus.poll(0, 0, soon(5_000)).await;
    }
    meter.set(NOTHING);
    assert_eq!(bus.poll(0, 0, soon(5_000)).await.outcome, Outcome::Silent);
    // The place of the next poll's first request stands behind the last one: it begins with the one left out.
    let asked = bus.counters().requests;
    assert_eq!(bus.poll(0, 0, Instant::now()).await.outcome, Outcome::Silent);
    assert_eq!(bus.counters().requests, asked);
}

#[tokio::test]
async fn the_request_that_shows_that_a_device_is_there_does_not_count_as_ignored() {
    let meter = Meter::default();
    let mut bus = learned(&meter, BELOW_100, Kind::Tcp).await;
    for _ in 0..4 {
        meter.set(NOTHING);
        let asked = bus.counters().requests;
        assert_eq!(bus.poll(0, 0, soon(5_000)).await.outcome, Outcome::Silent);
        assert_eq!(bus.counters().requests, asked + 1);
        meter.set(BELOW_100);
        assert!(is_answered(&bus.poll(0, 1, soon(5_000)).await));
    }
    assert_eq!(samples(&bus.poll(0, 0, soon(5_000)).await), uints(&[0]));
}

#[tokio::test]
async fn a_device_that_comes_back_without_what_it_had_answered_is_found_by_something_else() {
    let meter = Meter::default();
    let mut bus = learned(&meter, BELOW_100, Kind::Tcp).await;
    meter.set(NOTHING);
    assert_eq!(bus.poll(0, 0, soon(5_000)).await.outcome, Outcome::Silent);
    meter.set(FROM_50);
    assert_eq!(bus.poll(0, 1, soon(5_000)).await.outcome, Outcome::Silent);
    assert!(is_answered(&bus.poll(0, 1, soon(5_000)).await));
}

#[tokio::test]
async fn a_retry_that_comes_back_damaged_is_a_retry_in_vain() {
    let meter = Meter::default();
    let mut bus = learned(&meter, BELOW_100, Kind::Tcp).await;
    meter.set(DAMAGED);
    let deadline = soon(60_000);
    let mut retried = Vec::new();
    while retried.len() < 2 {
        assert!(Instant::now() < deadline, "never tried again");
        bus.idle(soon(20)).await;
        let (began, asked) = (Instant::now(), bus.counters().requests);
        let poll = bus.poll(0, 1, soon(5_000)).await;
        if bus.counters().requests > asked {
            retried.push(began);
            assert!(is_answered(&poll), "expected, and says nothing about the device: {poll:?}");
            assert_eq!(samples(&poll), [Sample::bad(Cause::BadFrame)]);
        }
    }
    assert!(retried[1] - retried[0] >= Duration::from_secs(4), "the pauses grow");
}

async fn poll_group_unheld(bus: &mut Bus, group: usize) -> Poll {
    loop {
        let poll = bus.poll(0, group, soon(5_000)).await;
        let Outcome::Held { until } = poll.outcome else { return poll };
        bus.idle(until).await;
    }
}
