//! Gateways that close the connection when a unit behind them does not answer: over real connections, what that costs the
//! units beside it, and that a peer which closes it whatever is asked is a line that is down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::peer::{Act, Asked, Kind, TIMEOUT, device, now};
use super::*;

const NETWORKS: [Kind; 2] = [Kind::Tcp, Kind::RtuTcp];

/// Ten units with one point each. What is owed is soon void: else unit 5 would hardly be asked.
async fn ten(kind: Kind, mut script: impl FnMut(Asked) -> Vec<Act> + Send + 'static) -> Bus {
    let mut link = device(kind, move |_, asked| script(asked)).await;
    if let Link::ModbusRtuTcp(link) = &mut link {
        link.hold_off = Some(Duration::from_millis(1));
    }
    let units: Vec<u8> = (1..=10).collect();
    Bus::open_lazily(spec(link, &units, &[(Table::Holding, 0, Type::U16)]))
}

/// Polls each unit in turn, so many rounds. Returns how many polls of the nine others were answered, and what those of
/// unit 5 brought.
async fn rounds(bus: &mut Bus, count: usize, idle: Duration) -> (usize, Vec<Outcome>) {
    let (mut answered, mut fifth) = (0, Vec::new());
    for _ in 0..count {
        for unit in 1..=10 {
            let poll = bus.poll(unit - 1, 0, soon(2_000)).await;
            if unit == 5 {
                fifth.push(poll.outcome);
                bus.idle(Instant::now() + idle).await;
            } else {
                answered += usize::from(is_answered(&poll));
            }
        }
    }
    (answered, fifth)
}

#[tokio::test]
async fn the_neighbours_of_a_unit_at_which_a_gateway_hangs_up_keep_at_least_95_percent_of_their_polls() {
    for kind in NETWORKS {
        let hangs_up = |asked: Asked| if asked.unit == 5 { vec![Act::Close] } else { now(asked.counting(0)) };
        let mut bus = ten(kind, hangs_up).await;
        let (answered, fifth) = rounds(&mut bus, 10, Duration::from_millis(2)).await;
        assert!(answered * 100 >= 90 * 95, "{kind:?}: {answered} of 90");
        assert_eq!(fifth, vec![Outcome::Silent; 10], "{kind:?}");
        let counters = bus.counters();
        assert!(bus.is_up() && counters.timeouts == 10, "{kind:?}: {counters:?}");
        // Over Modbus TCP it is asked again the first time: the connection may have been closed for another reason.
        assert_eq!(counters.opens, if kind == Kind::Tcp { 12 } else { 11 }, "{kind:?}: {counters:?}");
    }
}

#[tokio::test]
async fn nor_does_a_gateway_that_hangs_up_later_than_we_wait_cost_them_more() {
    let run = |kind, listens| async move {
        // Over RTU we wait longer, by what a wire and a network take.
        let late = TIMEOUT * if kind == Kind::Tcp { 4 } else { 6 } / 3;
        let script = move |asked: Asked| {
            if asked.unit == 5 { vec![Act::CloseAfter(late)] } else { now(asked.counting(0)) }
        };
        let mut bus = ten(kind, script).await;
        for unit in 0..10 {
            let poll = bus.poll(unit, 0, soon(2_000)).await;
            if unit != 4 {
                assert!(is_answered(&poll), "{kind:?}, {listens}: {poll:?}");
                continue;
            }
            assert_eq!(poll.outcome, Outcome::Silent, "{kind:?}");
            // Much longer than it takes, with and without an eye on the line.
            let over = Instant::now() + TIMEOUT * 4;
            if listens {
                bus.idle(over).await;
                assert!(bus.is_up(), "{kind:?}");
            } else {
                tokio::time::sleep_until(over.into()).await;
            }
        }
        assert_eq!(bus.counters().opens, 2, "{kind:?}");
    };
    tokio::join!(
        run(Kind::Tcp, true),
        run(Kind::Tcp, false),
        run(Kind::RtuTcp, true),
        run(Kind::RtuTcp, false)
    );
}

#[tokio::test]
async fn a_poll_that_waits_behind_the_unit_for_whose_sake_a_gateway_hangs_up_is_asked_again() {
    // While it waits for unit 5 it answers for nobody. It hangs up when our time is not over yet, and so at our second try after it.
    let busy = Arc::new(Mutex::new(Instant::now()));
    let waits = TIMEOUT * 2 / 3;
    let mut bus = ten(Kind::Tcp, move |asked| {
        let mut busy = busy.lock().unwrap();
        match asked.unit {
            5 => {
                *busy = Instant::now() + waits;
                vec![Act::CloseAfter(waits)]
            }
            _ if Instant::now() < *busy => Vec::new(),
            _ => now(asked.counting(0)),
        }
    })
    .await;
    for _ in 0..2 {
        assert!(is_answered(&bus.poll(0, 0, soon(2_000)).await));
        assert_eq!(bus.poll(4, 0, Instant::now() + TIMEOUT).await.outcome, Outcome::Silent);
        let poll = bus.poll(5, 0, soon(2_000)).await;
        assert!(is_answered(&poll), "{poll:?}");
    }
}

#[tokio::test]
async fn a_peer_that_hangs_up_whatever_is_asked_is_a_line_that_is_down_and_comes_back_by_itself() {
    for kind in NETWORKS {
        let closes = Arc::new(AtomicBool::new(false));
        let is_closing = Arc::clone(&closes);
        let script = move |asked: Asked| {
            if is_closing.load(Ordering::Relaxed) { vec![Act::Close] } else { now(asked.counting(0)) }
        };
        let mut bus = ten(kind, script).await;
        rounds(&mut bus, 1, Duration::ZERO).await;
        closes.store(true, Ordering::Relaxed);
        for poll in 0..20 {
            let outcome = bus.poll(poll % 10, 0, soon(2_000)).await.outcome;
            // The first may be the only one.
            let expected = if poll == 0 { Outcome::Silent } else { Outcome::LinkDown };
            assert_eq!(outcome, expected, "{kind:?}: poll {poll}");
        }
        assert!(!bus.is_up() && bus.counters().last_error.is_some(), "{kind:?}");
        closes.store(false, Ordering::Relaxed);
        let deadline = soon(30_000);
        while !is_answered(&bus.poll(4, 0, soon(2_000)).await) {
            assert!(Instant::now() < deadline, "{kind:?}: never back");
            bus.idle(soon(20)).await;
        }
        assert_eq!(rounds(&mut bus, 1, Duration::ZERO).await.0, 9, "{kind:?}");
    }
}

#[tokio::test]
async fn a_peer_whose_frames_cannot_be_told_apart_is_a_line_that_is_down_and_says_why() {
    // The beginning of an answer, each time.
    let begins = |_| vec![Act::Raw(Duration::ZERO, vec![0xff, 0xff, 0, 0, 0, 7, 1, 3, 4])];
    let mut bus = ten(Kind::Tcp, begins).await;
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(bus.poll(0, 0, soon(2_000)).await.outcome);
    }
    assert_eq!(outcomes, [Outcome::Silent, Outcome::Silent, Outcome::LinkDown]);
    let words = bus.counters().last_error.clone().unwrap_or_default();
    assert!(words.contains("does not speak Modbus TCP"), "{words}");
}

#[tokio::test]
async fn an_answer_that_comes_together_with_the_end_of_the_connection_counts() {
    for kind in NETWORKS {
        let script = |asked: Asked| [now(asked.counting(0)), vec![Act::Close]].concat();
        let mut bus = ten(kind, script).await;
        let (answered, fifth) = rounds(&mut bus, 3, Duration::ZERO).await;
        assert_eq!(
            answered + fifth.iter().filter(|o| matches!(o, Outcome::Answered { .. })).count(),
            30,
            "{kind:?}"
        );
        assert!(bus.is_up(), "{kind:?}");
    }
}
