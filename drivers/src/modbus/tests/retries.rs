//! What a retry of an ignored request costs the poll that makes it, over the real walk.
//!
//! The device ignores what lies from 100 on, until it is told something else. Pauses between retries are real: 2 s,
//! 4 s, and so on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::peer::{Act, Asked, HOLD_OFF, KINDS, Kind, after, device, now};
use super::*;
use crate::modbus::asked as whom;
use crate::modbus::client::Plan;
use crate::modbus::ignored::{Presence, Retries};
use crate::modbus::plan::{Item, merged};
use crate::value::Cause;

/// What the device does with what lies from 100 on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mode {
    #[default]
    Ignores,
    /// Exception 2 for more than one register, the right answer for one.
    TakesOne,
    Closes,
}

#[derive(Clone, Default)]
struct Meter {
    mode: Arc<Mutex<Mode>>,
    /// How long an answer takes, in milliseconds, of a longest wait of 600.
    turnaround: u64,
    /// The addresses that were asked for.
    asked: Arc<Mutex<Vec<u16>>>,
}

impl Meter {
    /// A bus with this meter alone: one group, polled each two hours; and the longest time of one request.
    async fn bus(&self, kind: Kind, points: &[(Table, u16, Type)]) -> (Bus, Duration) {
        let meter = self.clone();
        let link = device(kind, move |_, asked: Asked| {
            meter.asked.lock().unwrap().push(asked.address);
            let mode = *meter.mode.lock().unwrap();
            match (asked.address < 100, mode) {
                (true, _) => after(meter.turnaround, asked.counting(asked.address)),
                (false, Mode::Ignores) => Vec::new(),
                (false, Mode::TakesOne) if asked.count > 1 => now(asked.exception(2)),
                (false, Mode::TakesOne) => now(asked.counting(asked.address)),
                (false, Mode::Closes) => vec![Act::Close],
            }
        })
        .await;
        let mut spec = spec(link, &[1], points);
        spec.devices[0].groups[0].period = Duration::from_secs(7_200);
        if let (Link::ModbusTcp(link), true) = (&mut spec.link, self.turnaround > 0) {
            link.timeout = Duration::from_millis(600);
        }
        let longest = spec.longest_request();
        (Bus::open_lazily(spec), longest)
    }

    fn taken(&self) -> Vec<u16> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Polls until nothing from 100 on is asked.
    async fn learn(&self, bus: &mut Bus, hold_off: Duration) {
        loop {
            poll_unheld(bus, 0, Duration::from_secs(30)).await;
            // Held is not left out.
            bus.idle(Instant::now() + hold_off).await;
            if self.taken().iter().all(|&address| address < 100) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_retry_comes_after_what_is_answered_and_costs_no_good_point() {
    for kind in KINDS {
        let meter = Meter::default();
        // In the plan's order the ignored request comes first.
        let (mut bus, longest) =
            meter.bus(kind, &[(Table::Holding, 100, Type::U16), (Table::Input, 0, Type::U16)]).await;
        meter.learn(&mut bus, HOLD_OFF).await;
        let deadline = soon(60_000);
        let mut asked = Vec::new();
        while asked.len() < 2 {
            assert!(Instant::now() < deadline, "{kind:?}: never tried again");
            bus.idle(soon(20)).await;
            // A narrowed plan has the time of one request.
            let poll = bus.poll(0, 0, Instant::now() + longest).await;
            let good = vec![Sample::bad(Cause::Silent), uints(&[0])[0].clone()];
            assert_eq!(samples(&poll), good, "{kind:?}");
            asked = meter.taken();
        }
        assert_eq!(asked, [0, 100], "{kind:?}");
    }
}

#[tokio::test]
async fn a_poll_makes_one_retry_although_ten_are_due_and_each_has_its_turn() {
    let meter = Meter::default();
    let mut points: Vec<_> = (1..=10).map(|n| (Table::Holding, n * 100, Type::U16)).collect();
    points.push((Table::Input, 0, Type::U16));
    let (mut bus, _) = meter.bus(Kind::Tcp, &points).await;
    meter.learn(&mut bus, Duration::ZERO).await;
    bus.idle(soon(2_100)).await;
    let (deadline, mut tried) = (soon(60_000), BTreeSet::new());
    while tried.len() < 10 {
        assert!(Instant::now() < deadline, "only {tried:?}");
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(samples(&poll).last(), uints(&[0]).last());
        let asked = meter.taken();
        assert!(asked.len() <= 2, "{asked:?}");
        tried.extend(asked.into_iter().skip(1));
    }
}

#[tokio::test]
async fn a_group_whose_polls_never_have_the_time_makes_its_retry_first_now_and_then() {
    let meter = Meter { turnaround: 350, ..Meter::default() };
    let (mut bus, longest) =
        meter.bus(Kind::Tcp, &[(Table::Holding, 0, Type::U16), (Table::Holding, 100, Type::U16)]).await;
    meter.learn(&mut bus, Duration::ZERO).await;
    bus.idle(soon(2_100)).await;
    let mut good = 0;
    for _ in 0..11 {
        let poll = bus.poll(0, 0, Instant::now() + longest).await;
        assert!(is_answered(&poll), "{poll:?}");
        good += usize::from(samples(&poll)[0] == uints(&[0])[0]);
    }
    assert_eq!(meter.taken().iter().filter(|&&address| address == 100).count(), 1);
    assert_eq!(good, 10, "one poll was the retry's");
}

#[tokio::test]
async fn a_retry_that_is_refused_is_narrowed_and_its_points_are_good_in_the_same_poll() {
    let meter = Meter::default();
    let points = [100, 101, 0].map(|address| (Table::Holding, address, Type::U16));
    let (mut bus, _) = meter.bus(Kind::Tcp, &points).await;
    meter.learn(&mut bus, Duration::ZERO).await;
    *meter.mode.lock().unwrap() = Mode::TakesOne;
    bus.idle(soon(2_100)).await;
    assert_eq!(samples(&bus.poll(0, 0, soon(5_000)).await), uints(&[100, 101, 0]));
    assert_eq!(meter.taken(), [0, 100, 100, 101]);
}

#[tokio::test]
async fn a_retry_at_which_the_device_hangs_up_is_one_in_vain_and_costs_no_good_point() {
    let meter = Meter::default();
    let (mut bus, _) =
        meter.bus(Kind::Tcp, &[(Table::Holding, 0, Type::U16), (Table::Holding, 100, Type::U16)]).await;
    meter.learn(&mut bus, Duration::ZERO).await;
    *meter.mode.lock().unwrap() = Mode::Closes;
    bus.idle(soon(2_100)).await;
    let poll = bus.poll(0, 0, soon(5_000)).await;
    assert!(is_answered(&poll) && !bus.is_up(), "{poll:?}");
    assert_eq!(samples(&poll)[0], uints(&[0])[0]);
    meter.taken();
    let deadline = soon(60_000);
    while !is_answered(&bus.poll(0, 0, soon(5_000)).await) {
        assert!(Instant::now() < deadline, "the line stays down");
        bus.idle(soon(20)).await;
    }
    assert_eq!(meter.taken(), [0], "the pause has grown");
}

#[tokio::test]
async fn a_request_at_which_the_device_hangs_up_does_not_take_the_others_with_it_and_is_left_out() {
    for kind in [Kind::Tcp, Kind::RtuTcp] {
        for points in [[0, 100], [100, 0]] {
            let meter = Meter { mode: Arc::new(Mutex::new(Mode::Closes)), ..Meter::default() };
            let points = points.map(|address| (Table::Holding, address, Type::U16));
            let (mut bus, _) = meter.bus(kind, &points).await;
            let good = usize::from(points[0].1 == 100);
            let deadline = soon(60_000);
            let (mut polls, mut hung_up, mut without) = (0, 0, 0);
            while without < 3 {
                assert!(Instant::now() < deadline, "{kind:?}: always asked");
                let poll = bus.poll(0, 0, soon(2_000)).await;
                bus.idle(soon(20)).await;
                let asked = meter.taken();
                if asked.is_empty() {
                    continue; // the back-off
                }
                (polls, hung_up) = (polls + 1, hung_up + usize::from(asked.contains(&100)));
                without = if asked.contains(&100) { 0 } else { without + 1 };
                let is_good = samples(&poll)[good] == uints(&[0])[0];
                assert!(is_good || polls <= 1, "{kind:?}: poll {polls} brought {poll:?} for {asked:?}");
            }
            assert!(hung_up <= 4, "{kind:?}: asked in {hung_up} polls");
            assert!(bus.is_up(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn when_a_request_is_narrowed_by_silence_its_parts_and_what_is_behind_it_are_asked_in_the_same_poll() {
    // Or by a gateway that says so.
    for silence in [None, Some(11)] {
        let link = device(Kind::Tcp, move |_, asked: Asked| match silence {
            _ if asked.address != 100 || asked.count == 1 => now(asked.counting(asked.address)),
            Some(code) => now(asked.exception(code)),
            None => Vec::new(),
        })
        .await;
        let points = [0, 100, 102, 200].map(|address| (Table::Holding, address, Type::U16));
        let mut bus = Bus::open_lazily(spec(link, &[1], &points));
        let (sound, silent) =
            (uints(&[0, 100, 102, 200]), Sample::bad(silence.map_or(Cause::Silent, Cause::Exception)));
        for _ in 0..2 {
            let poll = bus.poll(0, 0, soon(5_000)).await;
            assert_eq!(samples(&poll), [&sound[0], &silent, &silent, &sound[3]].map(Clone::clone));
        }
        assert_eq!(samples(&bus.poll(0, 0, soon(5_000)).await), sound);
    }
}

#[tokio::test]
async fn a_group_that_is_always_polled_while_its_device_is_in_doubt_has_its_retries_too() {
    let log: Arc<Mutex<Vec<u16>>> = Arc::default();
    let heard = Arc::clone(&log);
    let link = device(Kind::Tcp, move |_, asked: Asked| {
        heard.lock().unwrap().push(asked.address);
        match asked.address {
            50 => now(Asked { count: asked.count + 1, ..asked }.counting(0)),
            100 => Vec::new(),
            _ => now(asked.counting(asked.address)),
        }
    })
    .await;
    let points = [50, 0, 100].map(|address| (Table::Holding, address, Type::U16));
    let mut spec = spec(link, &[1], &points);
    spec.devices[0].groups =
        [0, 1, 2].map(|point| Group { period: Duration::from_secs(1), points: vec![point] }).to_vec();
    let mut bus = Bus::open_lazily(spec);
    for group in [2, 1].repeat(4) {
        bus.poll(0, group, soon(5_000)).await;
    }
    let deadline = soon(30_000);
    for tried in 0..2 {
        log.lock().unwrap().clear();
        while !log.lock().unwrap().contains(&100) {
            assert!(Instant::now() < deadline, "tried again only {tried} times");
            // The first is always damaged, and the third comes right behind it.
            for group in [1, 0, 2] {
                bus.poll(0, group, soon(5_000)).await;
            }
            bus.idle(soon(20)).await;
        }
    }
}

/// One-register requests at these addresses, or wider ones that hold some of them.
pub(super) fn plan(addresses: [u16; 4]) -> Plan {
    let item = |(slot, address)| Item {
        slot,
        source: Source { table: Table::Holding, address, kind: Type::U16, order: Order::BIG },
    };
    let items: Vec<Item> = addresses.into_iter().enumerate().map(item).collect();
    Plan::new(merged(&items, &Device::new(1)))
}

/// The request at this place has been silent three times, the last of them at `now`.
pub(super) fn leave_out(plan: &mut Plan, index: usize, presence: &mut Presence, now: Instant) {
    for _ in 0..3 {
        plan.now[index].ignored.silent(*presence, Cause::Silent);
        presence.answered();
        plan.now[index].ignored.leave_out(*presence, now);
    }
}

#[test]
fn of_several_that_are_due_the_one_that_has_waited_longest_is_tried_and_none_of_a_device_in_doubt() {
    let (now, mut presence) = (Instant::now(), Presence::default());
    let mut plan = plan([0, 100, 200, 300]);
    for (seconds, index) in [2, 1, 3].into_iter().enumerate() {
        leave_out(&mut plan, index, &mut presence, now + Duration::from_secs(seconds as u64));
    }
    let mut asked = whom::Asked {
        unit: 1,
        plan: &mut plan,
        presence: &mut presence,
        retries: &mut Retries::new(Duration::from_secs(1)),
        if_held: whom::IfHeld::SayNothing,
        names: ("hall", "meter"),
    };
    assert_eq!(asked.longest_waiting(now), None);
    let later = now + Duration::from_secs(60);
    for turn in [2, 1, 3] {
        assert_eq!(asked.longest_waiting(later), Some(turn));
        asked.retried(turn, None, Instant::now());
        asked.plan.now[turn].ignored.held(later + Duration::from_secs(1));
    }
    asked.presence.silent();
    assert_eq!(asked.longest_waiting(later + Duration::from_secs(60)), None);
}
