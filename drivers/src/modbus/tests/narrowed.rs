//! For how long a request stays narrowed, in virtual time; and what a poll brings in which a silence narrows it.

use std::sync::{Arc, Mutex};

use super::peer::{Act, Asked, Kind, TIMEOUT, after, device, now};
use super::retries::{leave_out, plan};
use super::*;
use crate::modbus::asked::{Asked as Whom, IfHeld};
use crate::modbus::client::{Envelope, Plan};
use crate::modbus::ignored::{Presence, Retries};
use crate::modbus::reading::Reading;
use crate::modbus::rtu::Line;
use crate::modbus::tcp::Connection;
use crate::value::Cause;

const HOUR: Duration = Duration::from_secs(3_600);

fn addresses(plan: &Plan) -> Vec<u16> {
    plan.now.iter().map(|planned| planned.request.address).collect()
}

#[test]
fn a_request_stays_narrowed_while_a_part_of_it_is_ignored() {
    let mut plan = plan([0, 3, 50, 53]);
    let (now, mut presence) = (Instant::now(), Presence::default());
    assert!(plan.narrow(1, now) && plan.narrow(0, now));
    assert_eq!(addresses(&plan), [0, 3, 50, 53]);
    leave_out(&mut plan, 3, &mut presence, now);
    let later = now + Duration::from_secs(3_601);
    plan.relearn(later);
    assert_eq!(addresses(&plan), [0, 50, 53], "its neighbour is not asked with it");
    assert!(plan.now[2].ignored.leave_out(presence, later).is_some());
    plan.now[2].ignored.answered(&mut Retries::new(Duration::from_secs(1)));
    plan.relearn(later + Duration::from_secs(3_601));
    assert_eq!(addresses(&plan), [0, 50]);
}

/// A device that ignores the wide request and answers its parts, polled with this period for so many days. In how many
/// polls the wide one was asked.
fn wide_asked(plan: &mut Plan, period: Duration, days: u32, start: Instant) -> u32 {
    let (mut now, mut wide) = (start, 0);
    while now < start + HOUR * 24 * days {
        plan.relearn(now);
        if plan.now.len() == 1 {
            wide += 1;
            plan.unanswered(0, false, now + Duration::from_secs(1));
        }
        if plan.now.len() > 1 {
            // The parts are asked in the same poll.
            plan.now.iter_mut().for_each(|part| part.answered = true);
        }
        now += period;
    }
    wide
}

#[test]
fn what_a_device_ignores_in_its_wide_form_is_tried_again_ever_more_seldom_and_narrowed_at_the_first_silence()
{
    for period in [Duration::from_secs(1), HOUR] {
        let mut plan = plan([0, 3, 6, 9]);
        assert_eq!(plan.now.len(), 1);
        let wide = wide_asked(&mut plan, period, 30, Instant::now());
        // Three times at first, after 1, 2, 4, 8 and 16 hours, and once a day.
        assert!((3 + 5 + 27..=3 + 5 + 29).contains(&wide), "{period:?}: {wide} times in 30 days");
    }
}

#[test]
fn what_was_answered_in_its_wide_form_meanwhile_is_narrowed_for_an_hour_only() {
    let (mut plan, start) = (plan([0, 3, 6, 9]), Instant::now());
    wide_asked(&mut plan, HOUR, 10, start);
    let later = start + HOUR * 24 * 11;
    plan.relearn(later);
    assert_eq!(plan.now.len(), 1);
    // A device that is starting refuses everything.
    let much_later = later + HOUR * 24 * 11;
    assert!(plan.narrow(0, much_later));
    plan.relearn(much_later + HOUR);
    assert_eq!(plan.now.len(), 1);
}

#[test]
fn what_was_narrowed_while_its_device_was_away_is_tried_again_after_a_minute_and_then_as_ever() {
    let (mut plan, start) = (plan([0, 3, 6, 9]), Instant::now());
    let (minute, short) = (Duration::from_secs(60), Duration::from_millis(59_999));
    for now in [start, start + minute] {
        let silences = [0; 3].map(|_| plan.unanswered(0, true, now));
        assert_eq!((silences, plan.now.len()), ([false, false, true], 4));
        plan.relearn(now + short);
        assert_eq!(plan.now.len(), 4);
        plan.relearn(now + minute);
        assert_eq!(plan.now.len(), 1, "away or not");
    }
    // Back, and it does ignore the wide one.
    let now = start + minute * 2;
    let silences = [0; 3].map(|_| plan.unanswered(0, false, now));
    assert_eq!(silences, [false, false, true]);
    plan.relearn(now + minute * 59 + short);
    assert_eq!(plan.now.len(), 4);
    plan.relearn(now + HOUR);
    assert_eq!(plan.now.len(), 1);
}

#[test]
fn a_wide_request_that_is_answered_keeps_what_is_known_of_it_when_others_are_tried_again() {
    let (mut plan, now) = (plan([0, 3, 50, 53]), Instant::now());
    plan.now[1].answered = true;
    assert!(plan.narrow(0, now));
    plan.relearn(now + HOUR);
    assert_eq!(addresses(&plan), [0, 50]);
    assert!(plan.now[1].answered);
    for _ in 0..5 {
        assert!(!plan.unanswered(1, false, now + HOUR), "it has been answered");
    }
}

#[test]
fn a_request_that_was_narrowed_to_one_is_tried_again_although_it_was_left_out_once() {
    let mut wide = plan([0, 50, 100, 150]).now.remove(0).request;
    wide.count = 3; // for a shape of its own
    let (mut plan, now, mut presence) = (Plan::new(vec![wide]), Instant::now(), Presence::default());
    assert!(plan.narrow(0, now));
    assert_eq!((plan.now.len(), plan.now[0].request.count), (1, 1));
    leave_out(&mut plan, 0, &mut presence, now);
    plan.relearn(now + HOUR);
    assert_eq!(plan.now[0].request.count, 1);
    plan.now[0].ignored.answered(&mut Retries::new(TIMEOUT));
    plan.relearn(now + HOUR * 2);
    assert_eq!(plan.now[0].request.count, 3);
}

/// What each of so many polls asks, and brings, of a device that answered until now. Its wide requests were narrowed an
/// hour ago, and their parts were answered. Each poll has the time that the schedule gives: for the requests as planned.
async fn relearned(
    kind: Kind,
    addresses: [u16; 4],
    polls: usize,
    script: impl Fn(Asked) -> Vec<Act> + Send + 'static,
) -> Vec<(Vec<(u16, u16)>, Vec<Sample>)> {
    let log: Arc<Mutex<Vec<(u16, u16)>>> = Arc::default();
    let heard = Arc::clone(&log);
    let link = device(kind, move |_, asked: Asked| {
        heard.lock().unwrap().push((asked.address, asked.count));
        script(asked)
    })
    .await;
    let mut line = match &link {
        Link::ModbusTcp(tcp) => Envelope::Tcp(Connection::new(tcp)),
        Link::ModbusRtu(rtu) => Envelope::Rtu(Line::serial(rtu)),
        _ => panic!("{link:?}"),
    };
    let longest = spec(link, &[1], &addresses.map(|at| (Table::Holding, at, Type::U16))).longest_request();
    let mut plan = plan(addresses);
    let wide = plan.now.len();
    let limit = longest * u32::try_from(wide).unwrap();
    let then = Instant::now();
    (0..wide).rev().for_each(|index| assert!(plan.narrow(index, then) || plan.now[index].request.count == 1));
    plan.now.iter_mut().for_each(|part| part.answered = true);
    plan.relearn(then + HOUR);
    assert_eq!(plan.now.len(), wide);
    let scaling = Scaling::default();
    let scalings = [Some(&scaling); 4];
    let (mut presence, mut retries, mut all) = (Presence::default(), Retries::new(longest), Vec::new());
    presence.answered();
    for _ in 0..polls {
        let (plan, if_held) = (&mut plan, IfHeld::ComeBack);
        let mut asked = Whom {
            unit: 1,
            plan,
            presence: &mut presence,
            retries: &mut retries,
            if_held,
            names: ("hall", "meter"),
        };
        let mut reading = Reading::new(&[0, 1, 2, 3], &scalings);
        reading.ask_all(&mut line, &mut asked, Instant::now() + limit).await;
        let poll = reading.poll(presence);
        if poll.outcome == Outcome::Silent {
            presence.silent();
        }
        all.push((std::mem::take(&mut *log.lock().unwrap()), samples(&poll)));
    }
    all
}

#[tokio::test]
async fn when_the_first_request_of_a_group_is_tried_again_in_vain_its_parts_are_good_in_the_same_poll() {
    let ignores_wide = |asked: Asked| {
        if asked.count > 1 { Vec::new() } else { now(asked.counting(asked.address)) }
    };
    for kind in [Kind::Tcp, Kind::Rtu] {
        // One wide request has the time of one, which is over when it has been ignored.
        for (addresses, wide) in [([0, 2, 100, 200], 3), ([0, 3, 6, 9], 10)] {
            let polls = relearned(kind, addresses, 2, ignores_wide).await;
            let parts = addresses.map(|address| (address, 1));
            assert_eq!(polls[0].0, [&[(0, wide)][..], &parts].concat(), "{kind:?}");
            assert_eq!(polls[1].0, parts, "{kind:?}");
            for (_, samples) in &polls {
                assert_eq!(*samples, uints(&addresses.map(u64::from)), "{kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_device_that_is_gone_when_wide_requests_are_tried_again_costs_one_wait_more_and_not_one_for_each() {
    let polls = relearned(Kind::Tcp, [0, 3, 50, 53], 5, |_| Vec::new()).await;
    let asked: Vec<usize> = polls.iter().map(|(asked, _)| asked.len()).collect();
    assert_eq!(asked, [2, 1, 1, 1, 1], "{polls:?}");
}

/// Four points in one request, of a device that does this. Polled so often, each time with the time of one.
async fn polled(
    polls: usize,
    script: impl FnMut(usize, Asked) -> Vec<Act> + Send + 'static,
) -> Vec<Vec<Sample>> {
    let link = device(Kind::Tcp, script).await;
    let spec = spec(link, &[1], &[0, 8, 16, 24].map(|address| (Table::Holding, address, Type::U16)));
    let longest = spec.longest_request();
    let (mut bus, mut all) = (Bus::open_lazily(spec), Vec::new());
    for _ in 0..polls {
        all.push(samples(&bus.poll(0, 0, Instant::now() + longest).await));
    }
    all
}

#[tokio::test]
async fn a_device_that_was_away_at_the_start_is_whole_with_its_first_answer() {
    for away in [1, 3, 5] {
        let answers =
            move |n, asked: Asked| if n < away { Vec::new() } else { now(asked.counting(asked.address)) };
        let polls = polled(away + 2, answers).await;
        let mut expected = vec![vec![Sample::bad(Cause::Silent); 4]; away];
        expected.extend([uints(&[0, 8, 16, 24]), uints(&[0, 8, 16, 24])]);
        assert_eq!(polls, expected, "away for {away} polls");
    }
}

#[tokio::test]
async fn a_device_for_which_a_gateway_says_that_it_ignores_the_wide_form_is_asked_in_parts() {
    let takes_one = |_, asked: Asked| {
        now(if asked.count > 1 { asked.exception(11) } else { asked.counting(asked.address) })
    };
    let polls = polled(5, takes_one).await;
    let mut expected = vec![vec![Sample::bad(Cause::Exception(11)); 4]; 3];
    expected.extend([uints(&[0, 8, 16, 24]), uints(&[0, 8, 16, 24])]);
    assert_eq!(polls, expected);
}

/// A device that refuses more than one register at once, and answers after so many milliseconds of a longest wait of 300.
/// `gone`: none of the requests from this one on is answered. Four points in one request, and the longest time of one.
async fn takes_one(kind: Kind, millis: u64, gone: usize) -> (Bus, Duration, Arc<Mutex<usize>>) {
    let count: Arc<Mutex<usize>> = Arc::default();
    let counted = Arc::clone(&count);
    let mut link = device(kind, move |n, asked: Asked| {
        *counted.lock().unwrap() = n + 1;
        match asked.count {
            _ if n >= gone => Vec::new(),
            1 => after(millis, asked.counting(asked.address)),
            _ => after(millis, asked.exception(2)),
        }
    })
    .await;
    match &mut link {
        Link::ModbusTcp(link) => link.timeout = Duration::from_millis(300),
        Link::ModbusRtu(link) => link.timeout = Duration::from_millis(300),
        _ => panic!("{link:?}"),
    }
    let spec = spec(link, &[1], &[0, 8, 16, 24].map(|address| (Table::Holding, address, Type::U16)));
    let longest = spec.longest_request();
    (Bus::open_lazily(spec), longest, count)
}

#[tokio::test]
async fn all_points_of_a_narrowed_request_are_good_in_each_poll_although_they_take_longer_than_it_had() {
    for kind in [Kind::Tcp, Kind::Rtu] {
        let (mut bus, longest, _) = takes_one(kind, 90, usize::MAX).await;
        for _ in 0..2 {
            let poll = bus.poll(0, 0, Instant::now() + longest).await;
            assert_eq!(samples(&poll), uints(&[0, 8, 16, 24]), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_device_that_goes_away_while_it_is_asked_in_parts_costs_two_waits_and_not_one_for_each() {
    let (mut bus, longest, asked) = takes_one(Kind::Tcp, 0, 6).await;
    assert_eq!(samples(&bus.poll(0, 0, Instant::now() + longest).await), uints(&[0, 8, 16, 24]));
    let poll = bus.poll(0, 0, Instant::now() + longest).await;
    let mut expected = vec![Sample::bad(Cause::Silent); 4];
    expected[0] = uints(&[0]).remove(0);
    assert_eq!(samples(&poll), expected);
    let asked = *asked.lock().unwrap();
    assert!((7..=8).contains(&asked), "{asked}");
}

#[test]
fn a_poll_goes_on_while_it_is_answered_if_its_plan_is_narrowed_and_for_twenty_seconds_at_most() {
    let second = Duration::from_secs(1);
    let (mut plan, began) = (plan([0, 3, 6, 9]), Instant::now());
    let ends = |plan: &mut Plan, heard: Option<u32>| {
        let (presence, retries) = (&mut Presence::default(), &mut Retries::new(second));
        let asked =
            Whom { unit: 1, plan, presence, retries, if_held: IfHeld::ComeBack, names: ("hall", "meter") };
        asked.ends(began, heard.map(|seconds| began + second * seconds), began + second) - began
    };
    assert_eq!(ends(&mut plan, Some(5)), second, "as it was planned");
    assert!(plan.narrow(0, began));
    let heard = [None, Some(0), Some(5), Some(19), Some(20)].map(|heard| ends(&mut plan, heard).as_secs());
    assert_eq!(heard, [1, 2, 7, 20, 20]);
}

#[tokio::test]
async fn a_wide_request_at_which_the_device_hangs_up_is_narrowed_as_if_it_were_ignored() {
    for kind in [Kind::Tcp, Kind::RtuTcp] {
        let wide: Arc<Mutex<usize>> = Arc::default();
        let heard = Arc::clone(&wide);
        let link = device(kind, move |_, asked: Asked| {
            if asked.address < 100 || asked.count == 1 {
                return now(asked.counting(asked.address));
            }
            *heard.lock().unwrap() += 1;
            vec![Act::Close]
        })
        .await;
        let points = [0, 100, 102].map(|address| (Table::Holding, address, Type::U16));
        let mut bus = Bus::open_lazily(spec(link, &[1], &points));
        let deadline = soon(20_000);
        let mut poll = bus.poll(0, 0, soon(2_000)).await;
        assert_eq!(samples(&poll)[1].quality, Quality::Bad(Cause::LinkDown), "{kind:?}");
        while samples(&poll) != uints(&[0, 100, 102]) {
            assert!(Instant::now() < deadline, "{kind:?}: never good: {poll:?}");
            bus.idle(soon(20)).await;
            poll = bus.poll(0, 0, soon(2_000)).await;
        }
        let wide = *wide.lock().unwrap();
        assert!((3..=6).contains(&wide), "{kind:?}: {wide} times"); // a connection that has worked is tried twice
    }
}
