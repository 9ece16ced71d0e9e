//! What a retry that nobody answers costs good requests of its shape: on a line without transaction ids they may not be
//! sent before its answer can no longer come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::peer::{Act, Asked, HOLD_OFF, Kind, TIMEOUT, after, device, now};
use super::*;
use crate::modbus::asked::{Asked as Whom, IfHeld};
use crate::modbus::client::Plan;
use crate::modbus::ignored::{Presence, Retries};
use crate::value::Cause;

/// A device that takes holding registers one by one and ignores 4, on a bus that has learned it. One group of 0, 2 and 4
/// and an input register.
async fn learned(kind: Kind, period: Duration) -> (Bus, Arc<Mutex<Vec<u16>>>) {
    let log: Arc<Mutex<Vec<u16>>> = Arc::default();
    let heard = Arc::clone(&log);
    let link = device(kind, move |_, asked: Asked| {
        heard.lock().unwrap().push(asked.address);
        let ignores = asked.function == 3 && (asked.count > 1 || asked.address == 4);
        if ignores { Vec::new() } else { now(asked.counting(asked.address)) }
    })
    .await;
    let mut points = [0, 2, 4, 100].map(|address| (Table::Holding, address, Type::U16));
    points[3].0 = Table::Input;
    let mut spec = spec(link, &[1], &points);
    spec.devices[0].groups[0].period = period;
    let mut bus = Bus::open_lazily(spec);
    while !learns(&mut bus, &log).await {}
    (bus, log)
}

/// Whether 0, 2 and 100 are asked and answered, and nothing else.
async fn learns(bus: &mut Bus, log: &Mutex<Vec<u16>>) -> bool {
    bus.idle(Instant::now() + HOLD_OFF).await;
    log.lock().unwrap().clear();
    let poll = bus.poll(0, 0, soon(5_000)).await;
    is_answered(&poll) && *log.lock().unwrap() == [0, 2, 100]
}

/// The sample of a point, if it has one.
fn sample(poll: &Poll, point: u16) -> Option<&Sample> {
    poll.samples.iter().find(|(index, _)| *index == point).map(|(_, sample)| sample)
}

#[tokio::test]
async fn a_retry_makes_no_good_point_of_a_group_bad_that_is_polled_often() {
    for kind in [Kind::Rtu, Kind::RtuTcp] {
        let (mut bus, log) = learned(kind, Duration::from_millis(100)).await;
        let (sound, deadline) = (uints(&[0, 2, 100]), soon(60_000));
        let (mut retries, mut unsaid, mut in_a_row) = (0, 0, 0);
        while retries < 2 || unsaid == 0 || in_a_row > 0 {
            assert!(
                Instant::now() < deadline,
                "{kind:?}: {retries} retries, {unsaid} polls without a sample"
            );
            log.lock().unwrap().clear();
            let poll = bus.poll(0, 0, soon(5_000)).await;
            retries += usize::from(log.lock().unwrap().contains(&4));
            assert_eq!(sample(&poll, 2), Some(&Sample::bad(Cause::Silent)), "{kind:?}");
            assert_eq!(sample(&poll, 3), Some(&sound[2]), "{kind:?}");
            for point in [0, 1] {
                let good = sample(&poll, point).is_none_or(|said| *said == sound[usize::from(point)]);
                assert!(good, "{kind:?}: {poll:?}");
            }
            match poll.samples.len() {
                4 => in_a_row = 0,
                2 => (unsaid, in_a_row) = (unsaid + 1, in_a_row + 1),
                _ => panic!("{kind:?}: {poll:?}"),
            }
            assert!(in_a_row <= 7, "{kind:?}: longer than the hold-off");
            bus.idle(soon(100)).await;
        }
    }
}

#[tokio::test]
async fn a_group_that_is_polled_seldom_waits_until_all_of_it_can_be_asked() {
    for kind in [Kind::Rtu, Kind::RtuTcp] {
        let (mut bus, log) = learned(kind, Duration::from_secs(3_600)).await;
        let (good, deadline) = (uints(&[0, 2, 100]), soon(60_000));
        let good = [good[0].clone(), good[1].clone(), Sample::bad(Cause::Silent), good[2].clone()];
        let mut held = 0;
        while held < 2 {
            assert!(Instant::now() < deadline, "{kind:?}: never held");
            log.lock().unwrap().clear();
            let poll = bus.poll(0, 0, soon(5_000)).await;
            if let Outcome::Held { until } = poll.outcome {
                assert!(poll.samples.is_empty() && log.lock().unwrap().is_empty(), "{kind:?}");
                assert!(until <= Instant::now() + HOLD_OFF, "{kind:?}");
                held += 1;
                bus.idle(until).await;
            } else {
                assert_eq!(samples(&poll), good, "{kind:?}");
                bus.idle(soon(20)).await;
            }
        }
    }
}

/// A device that takes holding registers one by one. Of 0 the answer is always damaged, and once it does not answer for 2.
async fn damaged(kind: Kind, period: Duration) -> Bus {
    let mut lost = 0;
    let link = device(kind, move |_, asked: Asked| {
        lost += usize::from((asked.address, asked.count) == (2, 1));
        match (asked.function, asked.address, asked.count) {
            (4, ..) => now(asked.counting(asked.address)),
            (_, _, 2..) => now(asked.exception(2)),
            // Two bytes that are not its check sum.
            (_, 0, _) => vec![Act::Raw(Duration::ZERO, [asked.counting(0), vec![1, 2]].concat())],
            (_, 2, _) if lost == 2 => Vec::new(),
            _ => now(asked.counting(asked.address)),
        }
    })
    .await;
    let mut points = [0, 2, 4, 100].map(|address| (Table::Holding, address, Type::U16));
    points[3].0 = Table::Input;
    let mut spec = spec(link, &[1], &points);
    spec.devices[0].groups[0].period = period;
    Bus::open_lazily(spec)
}

#[tokio::test]
async fn a_request_that_is_always_damaged_does_not_keep_others_of_its_shape_from_being_asked() {
    for kind in [Kind::Rtu, Kind::RtuTcp] {
        let mut bus = damaged(kind, Duration::from_millis(100)).await;
        let (sound, deadline) = (uints(&[0, 2, 4, 100]), soon(60_000));
        let (mut good, mut damaged) = ([0; 4], 0);
        while good[1] < 4 || good[2] < 4 || damaged < 4 {
            assert!(Instant::now() < deadline, "{kind:?}: good {good:?}, damaged {damaged}");
            let poll = bus.poll(0, 0, soon(5_000)).await;
            for place in 0..4 {
                let said = sample(&poll, place).cloned();
                good[usize::from(place)] += usize::from(said.as_ref() == sound.get(usize::from(place)));
                damaged += usize::from(said == Some(Sample::bad(Cause::BadFrame)));
            }
            bus.idle(soon(100)).await;
        }
    }
}

#[tokio::test]
async fn of_a_group_that_is_polled_seldom_all_is_good_in_each_poll_but_what_is_always_damaged() {
    for kind in [Kind::Rtu, Kind::RtuTcp] {
        let mut bus = damaged(kind, Duration::from_secs(3_600)).await;
        let good = uints(&[2, 4, 100]);
        let (mut in_a_row, mut polls) = (0, 0);
        while in_a_row < 4 {
            polls += 1;
            let poll = poll_unheld(&mut bus, 0, Duration::from_secs(5)).await;
            in_a_row = if samples(&poll)[1..] == good { in_a_row + 1 } else { 0 };
            assert!(polls <= 12, "{kind:?}: {poll:?}");
            bus.idle(Instant::now() + HOLD_OFF).await;
        }
    }
}

/// Polls until each of 100, 101 and 103 was good so often. They are asked in one request with 102, which the device does not
/// have; what it answers for 0, of the same function, is damaged. But for the first `sound` polls: there it has all, and 0
/// is right; only in the last of them it does not answer for 100.
async fn until_refused(kind: Kind, period: u64, sound: usize, often: u32) {
    let mut polls = [0; 2];
    let mut link = device(kind, move |_, asked: Asked| {
        let place = usize::from(asked.address >= 100);
        polls[place] += usize::from(asked.function == 3);
        match (asked.address, asked.address + asked.count) {
            (100, _) if polls[1] == sound => Vec::new(),
            (0, _) if polls[0] > sound => {
                vec![Act::Raw(Duration::ZERO, [asked.counting(0), vec![1, 2]].concat())]
            }
            (..=102, 103..) if polls[1] > sound => now(asked.exception(2)),
            _ => now(asked.counting(asked.address)),
        }
    })
    .await;
    match &mut link {
        Link::ModbusRtu(link) => link.hold_off = Some(TIMEOUT * 2),
        Link::ModbusRtuTcp(link) => link.hold_off = Some(TIMEOUT * 2),
        Link::ModbusTcp(_) | Link::SerialLine(_) => panic!("{link:?}"),
    }
    let mut points = [0, 100, 101, 102, 103, 7].map(|address| (Table::Holding, address, Type::U16));
    points[5].0 = Table::Input;
    let mut spec = spec(link, &[1], &points);
    spec.devices[0].groups[0].period = Duration::from_millis(period);
    let limit = spec.longest_request() * u32::try_from(spec.plan().len()).unwrap();
    let (mut bus, deadline, mut good) = (Bus::open_lazily(spec), soon(30_000), [0; 6]);
    while [1, 2, 4].into_iter().any(|place| good[place] < often) {
        assert!(Instant::now() < deadline, "{kind:?}, {period} ms: {good:?}");
        let poll = bus.poll(0, 0, Instant::now() + limit).await;
        poll.samples.iter().for_each(|(place, said)| {
            good[usize::from(*place)] += u32::from(said.quality == Quality::Good);
        });
        bus.idle(soon(40)).await;
    }
}

#[tokio::test]
async fn a_request_that_is_always_damaged_does_not_keep_anothers_refusal_from_being_believed() {
    until_refused(Kind::Rtu, 1, 0, 2).await;
    until_refused(Kind::RtuTcp, 3_600_000, 0, 2).await;
}

#[tokio::test]
async fn nor_does_it_if_its_answer_is_always_owed_when_the_other_one_may_be_asked_again() {
    until_refused(Kind::Rtu, 1, 2, 3).await;
}

#[test]
fn what_is_held_again_when_its_hold_is_over_is_said_to_be_silent_until_it_has_been_asked() {
    let mut plan = Plan::new(vec![retries::plan([0, 100, 200, 300]).now.remove(0).request]);
    let mut asked = Whom {
        unit: 1,
        plan: &mut plan,
        presence: &mut Presence::default(),
        retries: &mut Retries::new(TIMEOUT),
        if_held: IfHeld::SayNothing,
        names: ("hall", "meter"),
    };
    let now = Instant::now();
    assert!(asked.is_first_hold(0, now + HOLD_OFF * 1_000));
    assert!(asked.is_first_hold(0, now + HOLD_OFF * 2_000));
    asked.sent(0);
    assert!(!asked.is_first_hold(0, now), "over");
    assert!(!asked.is_first_hold(0, now + HOLD_OFF * 1_000), "and not asked since");
    asked.sent(0);
    assert!(asked.is_first_hold(0, now + HOLD_OFF * 1_000));
    asked.plan.now[0].silences = 1;
    assert!(!asked.is_first_hold(0, now + HOLD_OFF * 1_000), "its own silence");
    assert!(asked.is_held_anew(0, now + HOLD_OFF * 2_000));
    asked.sent(0);
    assert!(!asked.is_held_anew(0, now) && !asked.is_held_anew(0, now + HOLD_OFF * 1_000));
}

/// A bus of two groups, on a line whose answers are owed for 400 ms. Of the first, which has three requests, the first one's answer is
/// always damaged; `other` is the one of the second, at 1 000 (of its shape, if it is a U16), and what the device answers to it.
async fn beside_damage(period: u64, other: Type, answer: impl Fn(Asked) -> Vec<u8> + Send + 'static) -> Bus {
    let mut link = device(Kind::RtuTcp, move |_, asked: Asked| match asked.address {
        1_000 => now(answer(asked)),
        0 => vec![Act::Raw(Duration::from_millis(5), [asked.counting(0), vec![1, 2]].concat())],
        _ => after(25, asked.counting(asked.address)),
    })
    .await;
    if let Link::ModbusRtuTcp(link) = &mut link {
        (link.hold_off, link.timeout) = (Some(Duration::from_millis(400)), TIMEOUT / 3);
    }
    let mut points = [0, 100, 200, 1_000].map(|address| (Table::Holding, address, Type::U16));
    points[3].2 = other;
    let mut spec = spec(link, &[1], &points);
    let group = |period, points| Group { period: Duration::from_millis(period), points };
    spec.devices[0].groups = vec![group(20, vec![0, 1, 2]), group(period, vec![3])];
    Bus::open_lazily(spec)
}

/// Polls both groups in turn, the first without a pause, until `sound` holds for the second so often.
async fn until_both(mut bus: Bus, often: usize, sound: impl Fn(&Sample) -> bool) {
    let (mut held_until, mut said, mut polls) = (Instant::now(), Vec::new(), 0);
    while said.iter().filter(|sample| sound(sample)).count() < often {
        polls += 1;
        assert!(polls < 60, "{said:?}");
        let poll = bus.poll(0, 0, soon(2_000)).await;
        let damaged = sample(&poll, 0);
        assert!(damaged.is_none_or(|said| *said == Sample::bad(Cause::BadFrame)), "{poll:?}");
        assert_eq!(sample(&poll, 1), Some(&Sample::good(Value::Uint(100))));
        if Instant::now() >= held_until {
            let poll = bus.poll(0, 1, soon(2_000)).await;
            if let Outcome::Held { until } = poll.outcome {
                held_until = until;
            }
            said.extend(poll.samples.into_iter().map(|(_, sample)| sample));
        }
    }
}

#[tokio::test]
async fn a_request_that_is_always_damaged_does_not_hold_another_group_for_ever() {
    let run = |period| async move {
        let bus = beside_damage(period, Type::U16, |asked| asked.counting(asked.address)).await;
        until_both(bus, 3, |said| *said == Sample::good(Value::Uint(1_000))).await;
    };
    tokio::join!(run(20), run(3_600_000));
}

#[tokio::test]
async fn nor_does_it_keep_a_refusal_in_another_group_from_being_believed() {
    let bus = beside_damage(20, Type::U32, |asked| asked.exception(2)).await;
    until_both(bus, 1, |said| *said == Sample::bad(Cause::Exception(2))).await;
}

#[tokio::test]
async fn what_was_damaged_once_is_asked_again_although_each_poll_is_cut_off() {
    // Two requests a poll; and all but what goes last.
    for (kind, more) in [(Kind::RtuTcp, 50), (Kind::Tcp, 80)] {
        let mut asked_first = 0;
        let mut link = device(kind, move |_, asked: Asked| {
            asked_first += usize::from(asked.address == 0);
            match asked.address {
                0 if asked_first > 1 => after(30, asked.counting(0)),
                0 if kind == Kind::Tcp => now(Asked { count: asked.count + 1, ..asked }.counting(0)),
                0 => vec![Act::Raw(Duration::ZERO, [asked.counting(0), vec![1, 2]].concat())],
                _ => after(30, asked.counting(asked.address)),
            }
        })
        .await;
        if let Link::ModbusRtuTcp(link) = &mut link {
            link.hold_off = Some(Duration::from_millis(20));
        }
        let spec = spec(link, &[1], &[0, 100, 200, 300].map(|address| (Table::Holding, address, Type::U16)));
        let time = spec.longest_request() / 2 + Duration::from_millis(more);
        let mut bus = Bus::open_lazily(spec);
        let mut polls = 0;
        while !samples(&bus.poll(0, 0, Instant::now() + time).await).contains(&Sample::good(Value::Uint(0))) {
            polls += 1;
            assert!(polls < 16, "{kind:?}");
        }
        assert!(polls > 0);
    }
}

/// What a poll says after a line is down, of a unit of which holding register 0 is always damaged, and input register 100 is not.
async fn when_the_line_is_down(groups: &[&[u16]]) -> Outcome {
    let closes = Arc::new(AtomicBool::new(false));
    let is_closing = Arc::clone(&closes);
    let link = device(Kind::RtuTcp, move |_, asked: Asked| match (asked.unit, asked.function) {
        _ if is_closing.load(Ordering::Relaxed) => vec![Act::Close],
        (1, 3) => vec![Act::Raw(Duration::ZERO, [asked.counting(0), vec![1, 2]].concat())],
        _ => now(asked.counting(0)),
    })
    .await;
    let mut spec = spec(link, &[1, 2, 3], &[(Table::Holding, 0, Type::U16), (Table::Input, 100, Type::U16)]);
    let group = |points: &&[u16]| Group { period: Duration::from_secs(3_600), points: points.to_vec() };
    spec.devices[0].groups = groups.iter().map(group).collect();
    let mut bus = Bus::open_lazily(spec);
    for _ in 0..2 {
        bus.idle(Instant::now() + HOLD_OFF).await;
        for group in 0..groups.len() {
            bus.poll(0, group, soon(2_000)).await;
        }
    }
    for device in [1, 2] {
        assert!(is_answered(&bus.poll(device, 0, soon(2_000)).await));
    }
    closes.store(true, Ordering::Relaxed);
    // The first may be the only one.
    for outcome in [Outcome::Silent, Outcome::LinkDown] {
        let device = if outcome == Outcome::Silent { 1 } else { 2 };
        assert_eq!(bus.poll(device, 0, soon(2_000)).await.outcome, outcome);
    }
    if groups.len() > 1 {
        // Nothing is owed any more, and it rests for longer.
        bus.idle(Instant::now() + HOLD_OFF).await;
    }
    bus.poll(0, 0, soon(2_000)).await.outcome
}

#[tokio::test]
async fn that_a_request_rests_or_may_not_be_sent_yet_does_not_hide_that_the_line_is_down() {
    assert_eq!(when_the_line_is_down(&[&[0], &[1]]).await, Outcome::LinkDown, "it rests");
    assert_eq!(when_the_line_is_down(&[&[0, 1]]).await, Outcome::LinkDown, "its answer is owed");
}
