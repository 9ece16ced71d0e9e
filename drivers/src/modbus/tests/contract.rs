//! The contract: deadline kept, late answer discarded, exception passed through, cancel leaves the line usable,
//! silence of one device is not the others' trouble, a refused request is narrowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::peer::{Act, Asked, HOLD_OFF, KINDS, Kind, TIMEOUT, after, device, now};
use super::*;
use crate::modbus::{Endpoint, TcpLink};
use crate::value::Cause;

const TWO_BLOCKS: [(Table, u16, Type); 3] =
    [(Table::Holding, 0, Type::U16), (Table::Holding, 1, Type::U32), (Table::Input, 500, Type::U16)];

#[tokio::test]
async fn values_arrive_in_the_groups_order() {
    for kind in KINDS {
        let link = device(kind, |_, asked| now(asked.counting(asked.address))).await;
        let mut bus = Bus::open_lazily(spec(link, &[1, 2], &TWO_BLOCKS));
        assert!(!bus.is_up());
        for device in [0, 1, 0] {
            let poll = bus.poll(device, 0, soon(5_000)).await;
            assert!(is_answered(&poll), "{kind:?}: {poll:?}");
            assert_eq!(samples(&poll), uints(&[0, 0x0001_0002, 500]), "{kind:?}");
        }
        assert!(bus.is_up());
        let counters = bus.counters();
        assert_eq!((counters.requests, counters.answers, counters.opens), (6, 6, 1), "{kind:?}");
        assert_eq!(counters.last_error, None);
    }
}

#[tokio::test]
async fn a_silent_or_dripping_device_costs_its_timeout_and_no_more() {
    for kind in KINDS {
        let link = device(kind, |n, _| {
            if n == 0 {
                Vec::new()
            } else {
                (1..40).map(|i| Act::Raw(Duration::from_millis(i * 20), vec![0x01])).collect()
            }
        })
        .await;
        let mut bus = Bus::open_lazily(spec(link, &[1], &TWO_BLOCKS));
        for _ in 0..2 {
            let began = Instant::now();
            let poll = poll_unheld(&mut bus, 0, Duration::from_millis(400)).await;
            assert_eq!(
                poll.outcome,
                if kind == Kind::Tcp && bus.counters().bad_frames > 0 {
                    Outcome::LinkDown
                } else {
                    Outcome::Silent
                },
                "{kind:?}"
            );
            assert!(has_no_value(&poll), "{kind:?}: {poll:?}");
            assert_eq!(poll.samples.len(), 3, "every point has a sample");
            assert!(began.elapsed() < HOLD_OFF + Duration::from_secs(2), "{kind:?}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_late_answer_is_never_a_value() {
    for kind in KINDS {
        // Every third answer comes after the timeout, while the next request is under way or due.
        let link = device(kind, |n, asked| {
            let value = u16::try_from(n).unwrap();
            after(if n % 3 == 0 { 400 } else { 5 }, asked.counting(value))
        })
        .await;
        let mut bus = Bus::open_lazily(spec(link, &[1], &[(Table::Holding, 0, Type::U16)]));
        let (mut good, mut requests) = (0, 0);
        while requests < 12 {
            let poll = poll_unheld(&mut bus, 0, Duration::from_secs(5)).await;
            requests = bus.counters().requests;
            if is_answered(&poll) {
                good += 1;
                assert_eq!(samples(&poll), uints(&[requests - 1]), "{kind:?}: the value of this request");
            } else {
                assert_eq!((requests - 1) % 3, 0, "{kind:?}: {poll:?}");
            }
        }
        assert_eq!(good, 8, "{kind:?}");
        assert_eq!(bus.counters().opens, 1, "{kind:?}: a late answer is no reason to connect again");
        assert!(bus.counters().foreign_frames >= 1, "{kind:?}: {:?}", bus.counters());
    }
}

#[tokio::test]
async fn an_exception_is_an_answer_and_passes_through() {
    for kind in KINDS {
        let link = device(kind, |_, asked| {
            now(if asked.function == 4 { asked.exception(4) } else { asked.counting(7) })
        })
        .await;
        let mut bus = Bus::open_lazily(spec(link, &[1], &TWO_BLOCKS));
        for _ in 0..2 {
            let poll = bus.poll(0, 0, soon(5_000)).await;
            assert!(is_answered(&poll), "{kind:?}: {poll:?}");
            let mut expected = uints(&[7, 0x0008_0009]);
            expected.push(Sample::bad(Cause::Exception(4)));
            assert_eq!(samples(&poll), expected, "{kind:?}");
        }
        assert_eq!((bus.counters().exceptions, bus.counters().opens), (2, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_says_the_device_is_silent_means_silence() {
    for kind in KINDS {
        let link = device(kind, |_, asked| now(asked.exception(11))).await;
        let mut bus = Bus::open_lazily(spec(link, &[1], &TWO_BLOCKS));
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(poll.outcome, Outcome::Silent, "{kind:?}");
        assert_eq!(samples(&poll), vec![Sample::bad(Cause::Exception(11)); 3], "{kind:?}");
        assert_eq!(bus.counters().requests, 1, "{kind:?}: one answer of that kind is enough");
    }
}

#[tokio::test]
async fn a_cancelled_poll_leaves_the_line_usable_and_its_answer_is_no_value() {
    for kind in KINDS {
        let link = device(kind, |n, asked| {
            after(if n % 2 == 0 { 60 } else { 1 }, asked.counting(u16::try_from(n).unwrap()))
        })
        .await;
        let mut bus = Bus::open_lazily(spec(link, &[1], &[(Table::Holding, 0, Type::U16)]));
        for _ in 0..3 {
            let cancelled =
                tokio::time::timeout(Duration::from_millis(20), bus.poll(0, 0, soon(5_000))).await;
            assert!(cancelled.is_err(), "{kind:?}: dropped while it waited");
            let poll = poll_unheld(&mut bus, 0, Duration::from_secs(5)).await;
            let last = bus.counters().requests - 1;
            assert_eq!(last % 2, 1, "{kind:?}");
            assert_eq!(samples(&poll), uints(&[last]), "{kind:?}");
        }
        assert_eq!(bus.counters().opens, 1, "{kind:?}");
    }
}

#[tokio::test]
async fn answers_of_another_unit_function_or_length_are_not_believed() {
    for kind in KINDS {
        let strange: [fn(Asked) -> Vec<u8>; 4] = [
            |asked| Asked { unit: asked.unit + 1, ..asked }.counting(9),
            |asked| Asked { function: 4, ..asked }.counting(9),
            |asked| Asked { count: asked.count + 1, ..asked }.counting(9),
            |asked| vec![asked.unit, asked.function, 2, 9],
        ];
        for answer in strange {
            let link =
                device(kind, move |n, asked| now(if n == 0 { answer(asked) } else { asked.counting(1) }))
                    .await;
            let mut bus = Bus::open_lazily(spec(link, &[1], &[(Table::Holding, 0, Type::U16)]));
            let poll = bus.poll(0, 0, soon(5_000)).await;
            assert!(!is_answered(&poll) && has_no_value(&poll), "{kind:?}: {poll:?}");
            let poll = poll_unheld(&mut bus, 0, Duration::from_secs(5)).await;
            assert_eq!(samples(&poll), uints(&[1]), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_damaged_answer_is_told_from_silence_and_does_not_cost_its_timeout() {
    for kind in KINDS {
        let link = device(kind, move |_, asked| match (kind, asked.address) {
            (_, 0) => now(asked.counting(0)),
            (_, 200) => Vec::new(),
            // Of a wrong length in a right envelope; a check sum that is wrong.
            (Kind::Tcp, _) => now(Asked { count: asked.count + 1, ..asked }.counting(0)),
            _ => vec![Act::Raw(Duration::ZERO, vec![asked.unit, asked.function, 2, 0, 7, 1, 1])],
        })
        .await;
        let points = [
            (Table::Holding, 0, Type::U16),
            (Table::Holding, 100, Type::U32),
            (Table::Input, 200, Type::U16),
        ];
        let mut spec = spec(link, &[1], &points);
        spec.devices[0].groups =
            [0, 1, 2].map(|point| Group { period: Duration::from_secs(1), points: vec![point] }).to_vec();
        let mut bus = Bus::open_lazily(spec);
        assert!(is_answered(&bus.poll(0, 0, soon(5_000)).await), "{kind:?}");
        let poll = bus.poll(0, 1, soon(5_000)).await;
        assert_eq!((poll.outcome, samples(&poll)), (Outcome::Damaged, vec![Sample::bad(Cause::BadFrame)]));
        assert_eq!(bus.counters().timeouts, 0, "{kind:?}: nothing better is waited for");
        assert_eq!(bus.poll(0, 2, soon(5_000)).await.outcome, Outcome::Silent, "{kind:?}");
    }
}

#[tokio::test]
async fn one_silent_unit_of_ten_costs_the_others_nothing_but_its_timeout() {
    for kind in KINDS {
        let link =
            device(kind, |_, asked| if asked.unit == 4 { Vec::new() } else { now(asked.counting(3)) }).await;
        let units: Vec<u8> = (1..=10).collect();
        let mut bus = Bus::open_lazily(spec(link, &units, &[(Table::Holding, 0, Type::U16)]));
        for round in 0..2 {
            for device in 0..10 {
                let began = Instant::now();
                let poll = bus.poll(device, 0, soon(5_000)).await;
                if device == 3 {
                    let held = matches!(poll.outcome, Outcome::Held { .. });
                    assert!(poll.outcome == Outcome::Silent || (held && round > 0), "{kind:?}: {poll:?}");
                } else {
                    assert_eq!(samples(&poll), uints(&[3]), "{kind:?}, unit {}", device + 1);
                    assert!(began.elapsed() < TIMEOUT, "{kind:?}: neighbours of a silent unit do not wait");
                }
            }
        }
        assert_eq!(bus.counters().opens, 1, "{kind:?}: silence of one is no reason to connect again");
    }
}

#[tokio::test]
async fn a_refused_request_is_narrowed_until_only_the_missing_point_is_bad() {
    for kind in KINDS {
        // Registers 0, 1 and 6 exist; 3 does not, nor does anything between them.
        let link = device(kind, |_, asked| {
            let all_exist = (asked.address..asked.address + asked.count).all(|at| [0, 1, 6].contains(&at));
            now(if all_exist { asked.counting(asked.address) } else { asked.exception(2) })
        })
        .await;
        let points = [0, 1, 3, 6].map(|address| (Table::Holding, address, Type::U16));
        let mut bus = Bus::open_lazily(spec(link, &[1], &points));
        let mut expected = uints(&[0, 1, 0, 6]);
        expected[2] = Sample::bad(Cause::Exception(2));
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(samples(&poll), expected, "{kind:?}: all in the first poll");
        let first = bus.counters().requests;
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(samples(&poll), expected, "{kind:?}");
        assert_eq!(bus.counters().requests - first, 3, "{kind:?}: learned");
    }
}

#[tokio::test]
async fn a_device_that_ignores_wide_requests_is_asked_without_guesses_in_the_end() {
    for kind in [Kind::Tcp, Kind::RtuTcp] {
        let link =
            device(
                kind,
                |_, asked| if asked.count > 1 { Vec::new() } else { now(asked.counting(asked.address)) },
            )
            .await;
        let points = [0, 3].map(|address| (Table::Holding, address, Type::U16));
        let mut bus = Bus::open_lazily(spec(link, &[1], &points));
        let mut polls = 0;
        let poll = loop {
            let poll = poll_unheld(&mut bus, 0, Duration::from_secs(5)).await;
            polls += 1;
            assert!(polls < 10, "{kind:?}: never");
            if is_answered(&poll) {
                break poll;
            }
        };
        assert_eq!(samples(&poll), uints(&[0, 3]), "{kind:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_device_closes_after_each_answer_costs_no_value() {
    let closing = Arc::new(AtomicUsize::new(0));
    let closed = Arc::clone(&closing);
    let link = device(Kind::Tcp, move |_, asked| {
        closed.fetch_add(1, Ordering::Relaxed);
        vec![Act::Send(Duration::ZERO, asked.counting(5)), Act::Close]
    })
    .await;
    let mut bus = Bus::open_lazily(spec(link, &[1], &[(Table::Holding, 0, Type::U16)]));
    for _ in 0..5 {
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(samples(&poll), uints(&[5]), "{:?}", bus.counters());
        bus.idle(soon(20)).await;
        assert!(bus.is_up(), "closed while idle is not down");
    }
    assert_eq!(bus.counters().opens, 5);
    assert_eq!(closing.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_line_that_is_down_says_why_at_once_and_comes_back_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    drop(listener);
    let link = Link::ModbusTcp(TcpLink { endpoint: endpoint.clone(), timeout: TIMEOUT });
    let mut bus = Bus::open_lazily(spec(link, &[1], &TWO_BLOCKS));
    for _ in 0..2 {
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(poll.outcome, Outcome::LinkDown);
        assert_eq!(samples(&poll), vec![Sample::bad(Cause::LinkDown); 3]);
    }
    let words = bus.counters().last_error.clone().unwrap();
    assert!(words.contains("refuses the connection"), "{words}");
    let listener = TcpListener::bind((endpoint.host.as_str(), endpoint.port)).await.unwrap();
    let until = soon(5_000);
    tokio::spawn(async move {
        let _kept_open = listener.accept().await;
        std::future::pending::<()>().await;
    });
    while !bus.is_up() && Instant::now() < until {
        bus.poll(0, 0, soon(50)).await;
        bus.idle(soon(20)).await;
    }
    assert!(bus.is_up());
}

#[tokio::test]
async fn a_refused_connection_says_what_to_look_at_in_this_kind_of_device() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    drop(listener);
    let device = Link::ModbusTcp(TcpLink { endpoint: endpoint.clone(), timeout: TIMEOUT });
    let server = Link::ModbusRtuTcp(crate::modbus::RtuTcpLink {
        endpoint,
        timeout: TIMEOUT,
        echo: crate::modbus::Echo::Auto,
        hold_off: Some(HOLD_OFF),
    });
    for (link, right, wrong) in
        [(device, "Modbus TCP", "terminal"), (server, "terminal server", "Modbus TCP")]
    {
        let mut bus = Bus::open_lazily(spec(link, &[1], &TWO_BLOCKS));
        assert_eq!(bus.poll(0, 0, soon(5_000)).await.outcome, Outcome::LinkDown);
        let words = bus.counters().last_error.clone().unwrap();
        assert!(words.contains(right) && !words.contains(wrong), "{words}");
    }
}

#[tokio::test]
async fn an_adapter_that_vanishes_is_let_go_at_once_and_opened_again_under_its_path() {
    let folder = std::env::temp_dir().join(format!("fieldspool-modbus-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let by_id = folder.join("usb-adapter-port0");
    let plug = |pty: &crate::simulator::Pty| {
        let _absent = std::fs::remove_file(&by_id);
        std::os::unix::fs::symlink(pty.path(), &by_id).unwrap();
    };
    let pty = crate::simulator::Pty::open().unwrap();
    plug(&pty);
    let port = crate::serial_port::PortSettings::new(by_id.display().to_string());
    let mut bus = Bus::open_lazily(spec(
        Link::ModbusRtu(crate::modbus::RtuLink::new(port)),
        &[1],
        &[(Table::Holding, 0, Type::U16)],
    ));
    let poll = bus.poll(0, 0, soon(50)).await;
    assert_eq!((poll.outcome, bus.is_up()), (Outcome::Silent, true));
    drop(pty);
    bus.idle(soon(50)).await;
    assert!(!bus.is_up(), "seen while idle");
    assert_eq!(bus.poll(0, 0, soon(50)).await.outcome, Outcome::LinkDown);
    let pty = crate::simulator::Pty::open().unwrap();
    plug(&pty);
    let until = soon(5_000);
    while !bus.is_up() && Instant::now() < until {
        bus.poll(0, 0, soon(20)).await;
        bus.idle(soon(50)).await;
    }
    assert!(bus.is_up(), "{:?}", bus.counters().last_error);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_slow_line_is_given_the_time_its_longest_answer_needs() {
    let mut port = crate::serial_port::PortSettings::new("/dev/ttyUSB0");
    port.speed = 1_200;
    let link = Link::ModbusRtu(crate::modbus::RtuLink::new(port));
    let points: Vec<_> = (0..120).map(|address| (Table::Holding, address, Type::U16)).collect();
    let spec = spec(link, &[1], &points);
    // 253 characters of 8.3 ms, and the timeout.
    assert!(spec.longest_request() > Duration::from_millis(2_600), "{:?}", spec.longest_request());
}

#[tokio::test]
async fn a_connection_that_turns_out_closed_is_replaced_within_the_poll() {
    let link =
        device(Kind::Tcp, |n, asked| if n % 2 == 1 { vec![Act::Close] } else { now(asked.counting(5)) })
            .await;
    let mut bus = Bus::open_lazily(spec(link, &[1], &[(Table::Holding, 0, Type::U16)]));
    for _ in 0..3 {
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(samples(&poll), uints(&[5]), "{:?}", bus.counters());
    }
    assert_eq!((bus.counters().opens, bus.counters().requests), (3, 5));
}
