//! The task around the schedule: what is said of points that were not asked, a stop, the watchdog's beat.

use std::sync::atomic::{AtomicUsize, Ordering};

use fieldspool_drivers::bus::{Group, Link};
use fieldspool_drivers::modbus::{Endpoint, Order, Table, TcpLink, Type};
use fieldspool_drivers::point::{Scaling, Source};

use super::*;

#[test]
fn what_was_not_asked_is_silent_and_not_damaged() {
    let said = |outcome, cause| {
        let samples = vec![(3, Sample::bad(cause))];
        unasked(&Poll { samples, at: Instant::now(), outcome, busy: Duration::ZERO })
    };
    assert_eq!(said(Outcome::Damaged, Cause::BadFrame), Some(Sample::bad(Cause::Silent)));
    let gateway = Cause::Exception(11);
    assert_eq!(said(Outcome::Silent, gateway), Some(Sample::bad(gateway)), "of the whole device");
}

#[test]
fn damaged_probes_of_one_group_and_another_say_the_same_of_each_point() {
    // A device with two groups, of which everything is damaged: what its probes, in turn, say of a point of the first.
    let said = (0..4).map(|probe| {
        let samples = vec![(probe % 2, Sample::bad(Cause::BadFrame))];
        let outcome = Outcome::Damaged;
        let mut poll = Poll { samples, at: Instant::now(), outcome, busy: Duration::ZERO };
        in_vain(&mut poll, true);
        if probe % 2 == 0 { poll.samples.first().map(|(_, sample)| sample.clone()) } else { unasked(&poll) }
    });
    let silent = Some(Sample::bad(Cause::Silent));
    assert_eq!(said.collect::<Vec<_>>(), [silent.clone(), silent.clone(), silent.clone(), silent]);
}

fn surroundings(beat: Box<dyn Fn(Instant) + Send>) -> (Surroundings, mpsc::Sender<Command>) {
    let (ask, commands) = mpsc::channel(1);
    let (samples, board, stop) = (Arc::default(), Board::default(), CancellationToken::new());
    (Surroundings { bus: 0, samples, board, commands, beat, stop }, ask)
}

#[test]
fn each_point_of_a_group_that_is_held_for_too_long_is_said_to_be_silent() {
    let mut spec = testing::bus_spec(1, Duration::from_secs(1));
    spec.devices[0].groups[0].points = vec![3, 5];
    let start = Instant::now();
    let mut due = Due::new(&spec, |_, _| 1, Duration::from_millis(300), start);
    let (around, _ask) = surroundings(Box::new(|_| {}));
    let mut said = Vec::new();
    for second in 0..32 {
        let at = start + Duration::from_secs(second);
        let outcome = Outcome::Held { until: at + Duration::from_secs(1) };
        due.polled((0, 0), &outcome, at, at);
        let poll = Poll { samples: Vec::new(), at, outcome, busy: Duration::ZERO };
        say_of_the_unasked(&spec, &around, &due, (0, 0), &poll);
        let mut news = Vec::new();
        around.samples.take_now(&mut news);
        said.extend(news.into_iter().map(|news| match news {
            News::Polled(polled) => (second, polled.samples),
            other => panic!("{other:?}"),
        }));
    }
    let silent = [3, 5].map(|point| (point, Sample::bad(Cause::Silent))).to_vec();
    assert_eq!(said, [(30, silent.clone()), (31, silent)]);
}

fn holding_register() -> Point {
    let (table, address, kind, order) = (Table::Holding, 0, Type::U16, Order::BIG);
    Point {
        name: "p".into(),
        source: Source::Modbus(fieldspool_drivers::modbus::Source { table, address, kind, order }),
        scaling: Scaling::default(),
        period: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn what_is_not_asked_of_a_silent_device_is_said_with_the_poll_that_was_in_vain() {
    // It connects, and nobody answers.
    let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: peer.local_addr().unwrap().port() };
    let mut spec = testing::bus_spec(1, Duration::from_millis(100));
    spec.link = Link::ModbusTcp(TcpLink { endpoint, timeout: Duration::from_millis(100) });
    spec.devices[0].points = vec![holding_register(); 2];
    spec.devices[0].groups[0].points = vec![0];
    spec.devices[0].groups.push(Group { period: Duration::from_secs(3_600), points: vec![1] });
    let (around, _ask) = surroundings(Box::new(|_| {}));
    let (samples, stop) = (Arc::clone(&around.samples), around.stop.clone());
    let bus = tokio::spawn(run(Arc::new(spec), around));
    let said_together = async {
        let (mut news, mut said) = (Vec::new(), [Vec::new(), Vec::new()]);
        while !said[0].iter().any(|at| said[1].contains(at)) {
            samples.take(&mut news).await;
            for news in news.drain(..) {
                if let News::Polled(polled) = news {
                    assert!(polled.samples.iter().all(|(_, sample)| sample.value.is_none()), "{polled:?}");
                    said[polled.group].push(polled.at);
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), said_together).await.expect("each point says it");
    stop.cancel();
    bus.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_read_however_busy_the_line_is() {
    let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port };
    let mut spec = testing::bus_spec(1, Duration::from_secs(3_600));
    spec.link = Link::ModbusTcp(TcpLink { endpoint, timeout: Duration::from_secs(60) });
    let (around, ask) = surroundings(Box::new(|_| {}));
    let (reply, _heard) = oneshot::channel();
    // It is there before the first turn, as on a line without a free moment.
    ask.send(Command::Read { device: 0, points: vec![holding_register()], reply }).await.unwrap();
    let stop = around.stop.clone();
    let bus = tokio::spawn(run(Arc::new(spec), around));
    let _never_answers = peer.accept().await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), bus).await.expect("it stops at once").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_takes_long_beats_until_it_is_stuck() {
    let beats = Arc::new(AtomicUsize::new(0));
    let beaten = Arc::clone(&beats);
    let (mut around, _ask) = surroundings(Box::new(move |_| _ = beaten.fetch_add(1, Ordering::Relaxed)));
    let deadline = tokio::time::Instant::now().into_std() + Duration::from_secs(120);
    let work = tokio::time::sleep(Duration::from_secs(100));
    assert!(beating(&mut around, deadline, work).await.is_some());
    assert_eq!(beats.swap(0, Ordering::Relaxed), 9);
    let stuck = beating(&mut around, deadline, std::future::pending::<()>());
    assert!(tokio::time::timeout(Duration::from_secs(3_600), stuck).await.is_err());
    assert!(beats.load(Ordering::Relaxed) <= 5, "20 s until its deadline, and 20 s more");
}
