//! The driver against scripted instruments on pseudo-terminals, in real time.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::bus::{Address, DeviceSpec, Group, Outcome, Poll, SpecFault};
use crate::point::{Point, Scaling, Source as PointSource};
use crate::serial_port::PortSettings;
use crate::simulator::Pty;
use crate::value::{Cause, Quality, Sample, Value};

mod sentences;

fn point(name: &str, source: Source) -> Point {
    let source = PointSource::Line(source);
    Point { name: name.into(), source, scaling: Scaling::default(), period: Duration::from_secs(5) }
}

fn spec(device: Device, points: Vec<Point>) -> DeviceSpec {
    let all = (0..u16::try_from(points.len()).unwrap()).collect();
    DeviceSpec {
        name: Arc::from("instrument"),
        address: Address::Line(device),
        points,
        groups: vec![Group { period: Duration::from_secs(5), points: all }],
    }
}

fn driver(path: &Path, device: Device, points: Vec<Point>) -> Driver {
    patient_driver(path, Duration::from_millis(200), device, points)
}

fn patient_driver(path: &Path, timeout: Duration, device: Device, points: Vec<Point>) -> Driver {
    let port = PortSettings::new(path.display().to_string());
    Driver::new(Arc::from("roof"), Link { port, timeout }, &[spec(device, points)])
}

fn weather(path: &Path) -> Driver {
    let device = Device {
        select: Some("WIMWV".into()),
        checksum: Checksum::Nmea,
        silent_after: Duration::from_millis(300),
        ..Device::default()
    };
    driver(path, device, vec![point("direction", Source::field(1)), point("speed", Source::field(3))])
}

fn scale(path: &Path) -> Driver {
    let device = Device { query: Some(b"S\r\n".to_vec()), ..Device::default() };
    driver(path, device, vec![point("weight", Source::field(2))])
}

fn in_millis(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

fn wind(speed: f64) -> Vec<u8> {
    let mut line = Checksum::Nmea.append(format!("WIMWV,214.8,R,{speed:.1},K,A").as_bytes());
    line.extend_from_slice(b"\r\n");
    line
}

fn good(value: f64) -> Sample {
    Sample::good(Value::F64(value))
}

fn sample(poll: &Poll, index: usize) -> Sample {
    poll.samples.get(index).map(|(_, sample)| sample.clone()).expect("each point has a sample")
}

/// Answers each query that arrives with the next of `answers`.
async fn answer(pty: &Pty, answers: &[&[u8]]) {
    let mut buffer = [0; 64];
    for bytes in answers {
        let n = pty.read(&mut buffer).await.unwrap();
        assert_eq!(buffer.get(..n), Some(&b"S\r\n"[..]));
        pty.write(bytes).unwrap();
    }
}

#[tokio::test]
async fn the_newest_whole_sentence_is_used_once_and_stamped_with_its_arrival() {
    let pty = Pty::open().unwrap();
    let mut driver = weather(pty.path());
    driver.idle(in_millis(1)).await;
    pty.write(b"rest of a sentence*00\r\n").unwrap();
    pty.write(&wind(1.0)).unwrap();
    pty.write(&wind(2.0)).unwrap();
    pty.write(b"$WIMWV,999").unwrap();
    driver.idle(in_millis(30)).await;
    let before = Instant::now();
    let poll = driver.poll(0, 0, in_millis(1_000)).await;
    assert_eq!((sample(&poll, 0), sample(&poll, 1)), (good(214.8), good(2.0)));
    assert!(matches!(poll.outcome, Outcome::Answered { .. }));
    assert!(poll.at < before, "stamped with its arrival, not with the poll");

    let poll = driver.poll(0, 0, in_millis(50)).await;
    assert!(matches!(poll.outcome, Outcome::Held { .. }), "an old sentence is not a new reading: {poll:?}");
    let poll = driver.poll(0, 0, in_millis(1_000)).await;
    assert_eq!(poll.outcome, Outcome::Silent);
    assert_eq!(sample(&poll, 0), Sample::bad(Cause::Silent));
    assert_eq!(driver.counters().answers, 2);
}

#[tokio::test]
async fn a_poll_waits_for_the_next_sentence() {
    let pty = Pty::open().unwrap();
    let mut driver = weather(pty.path());
    driver.idle(in_millis(1)).await;
    let speak = async {
        tokio::time::sleep_until(in_millis(60).into()).await;
        pty.write(b"\r\n").unwrap();
        pty.write(&wind(7.5)).unwrap();
    };
    let (poll, ()) = tokio::join!(driver.poll(0, 0, in_millis(2_000)), speak);
    assert_eq!(sample(&poll, 1), good(7.5));
}

#[tokio::test]
async fn bytes_that_waited_in_the_kernel_are_too_old_to_be_a_reading() {
    let pty = Pty::open().unwrap();
    let device = Device { checksum: Checksum::Nmea, ..Device::default() };
    let mut driver = driver(pty.path(), device, vec![point("speed", Source::field(3))]);
    driver.idle(in_millis(1)).await;
    pty.write(b"\r\n").unwrap();
    pty.write(&wind(9.0)).unwrap();
    tokio::time::sleep_until(in_millis(400).into()).await;
    let poll = driver.poll(0, 0, in_millis(100)).await;
    assert!(matches!(poll.outcome, Outcome::Held { .. }), "{poll:?}");
}

#[tokio::test]
async fn a_sentence_that_stops_is_bad_while_the_instrument_says_others() {
    let pty = Pty::open().unwrap();
    let device = Device { silent_after: Duration::from_secs(1), ..Device::default() };
    let of = |sentence: &str| Source { sentence: Some(sentence.into()), ..Source::field(1) };
    let mut weather = spec(device, vec![point("wind", of("WIMWV")), point("air", of("WIMDA"))]);
    let group = |point| Group { period: Duration::from_millis(100), points: vec![point] };
    weather.groups = vec![group(0), group(1)];
    let link =
        Link { port: PortSettings::new(pty.path().display().to_string()), timeout: Duration::from_secs(1) };
    let mut driver = Driver::new(Arc::from("roof"), link, &[weather]);
    driver.idle(in_millis(1)).await;
    pty.write(b"\r\n$WIMDA,21.5\r\n").unwrap();
    driver.idle(in_millis(20)).await;
    assert_eq!(sample(&driver.poll(0, 1, in_millis(50)).await, 0), good(21.5));
    let deadline = in_millis(20_000);
    let (mut winds, mut held) = (0, 0);
    let missing = loop {
        assert!(Instant::now() < deadline, "air is held for ever: {held} times");
        pty.write(b"$WIMWV,3\r\n").unwrap();
        driver.idle(in_millis(20)).await;
        assert_eq!(sample(&driver.poll(0, 0, in_millis(50)).await, 0), good(3.0));
        winds += 1;
        let poll = driver.poll(0, 1, in_millis(50)).await;
        match poll.outcome {
            Outcome::Held { .. } => held += 1,
            _ => break poll,
        }
    };
    assert!(winds > 1 && held > 0, "not before it is overdue");
    assert_eq!(sample(&missing, 0), Sample::bad(Cause::Silent));
    assert!(matches!(missing.outcome, Outcome::Answered { .. }), "the device answers: {missing:?}");
    assert_eq!(driver.counters().timeouts, 0);
    let again = driver.poll(0, 1, deadline).await;
    assert_eq!(sample(&again, 0), Sample::bad(Cause::Silent), "at once, and again at each poll");
    pty.write(b"$WIMDA,22.0\r\n").unwrap();
    driver.idle(in_millis(20)).await;
    assert_eq!(sample(&driver.poll(0, 1, in_millis(50)).await, 0), good(22.0));
}

#[tokio::test]
async fn a_damaged_sentence_is_a_bad_frame_and_no_value() {
    let pty = Pty::open().unwrap();
    let mut driver = weather(pty.path());
    driver.idle(in_millis(1)).await;
    let mut line = wind(3.0);
    line[9] ^= 1;
    pty.write(b"\r\n").unwrap();
    pty.write(&line).unwrap();
    driver.idle(in_millis(30)).await;
    let poll = driver.poll(0, 0, in_millis(50)).await;
    assert_eq!(sample(&poll, 0), Sample::bad(Cause::BadFrame));
    assert_eq!(driver.counters().crc_errors, 1);
}

#[tokio::test]
async fn a_scale_is_asked_and_answers() {
    let pty = Pty::open().unwrap();
    let mut driver = scale(pty.path());
    let (poll, ()) =
        tokio::join!(driver.poll(0, 0, in_millis(2_000)), answer(&pty, &[b"S\r\nST,GS,-   12.34 kg\r\n"]));
    assert_eq!(sample(&poll, 0), good(-12.34));
    assert_eq!((driver.counters().echoes, driver.counters().requests), (1, 1), "the echo is no answer");
    let (poll, ()) =
        tokio::join!(driver.poll(0, 0, in_millis(2_000)), answer(&pty, &[b"ST,GS,------ kg\r\n"]));
    assert_eq!(sample(&poll, 0), Sample::bad(Cause::Unreadable));
    assert!(matches!(poll.outcome, Outcome::Answered { .. }), "unreadable is an answer all the same");
}

#[tokio::test]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    let pty = Pty::open().unwrap();
    let mut driver = scale(pty.path());
    let silent = async {
        let mut buffer = [0; 64];
        pty.read(&mut buffer).await.unwrap();
    };
    let (poll, ()) = tokio::join!(driver.poll(0, 0, in_millis(2_000)), silent);
    assert_eq!(poll.outcome, Outcome::Silent);
    // The schedule comes back at once; the answer is 100 ms late.
    let poll = driver.poll(0, 0, in_millis(2_000)).await;
    let Outcome::Held { until } = poll.outcome else { panic!("the line must rest: {poll:?}") };
    tokio::time::sleep_until(in_millis(100).into()).await;
    pty.write(b"ST,GS,+  99.99 kg\r\n").unwrap();
    tokio::time::sleep_until(until.into()).await;
    let (poll, ()) =
        tokio::join!(driver.poll(0, 0, in_millis(2_000)), answer(&pty, &[b"ST,GS,+   1.00 kg\r\n"]));
    assert_eq!(sample(&poll, 0), good(1.0));
    assert_eq!(driver.counters().foreign_frames, 1);
}

#[tokio::test]
async fn a_babbling_instrument_costs_its_deadline_and_no_more() {
    for queried in [true, false] {
        let pty = Pty::open().unwrap();
        let mut driver = if queried { scale(pty.path()) } else { weather(pty.path()) };
        driver.idle(in_millis(1)).await;
        let babble = async {
            loop {
                pty.write(&[b'x'; 512]).unwrap();
                tokio::task::yield_now().await;
            }
        };
        let start = Instant::now();
        let poll = tokio::select! {
            poll = driver.poll(0, 0, in_millis(400)) => poll,
            () = babble => unreachable!("babble has no end"),
        };
        assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
        assert!(matches!(sample(&poll, 0).quality, Quality::Bad(_)));
    }
}

#[tokio::test]
async fn a_vanished_adapter_is_let_go_at_once_and_back_under_its_new_number() {
    let folder = std::env::temp_dir().join(format!("fieldspool-line-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let by_id = folder.join("usb-adapter");
    let first = Pty::open().unwrap();
    symlink(first.path(), &by_id).unwrap();
    let mut driver = weather(&by_id);
    driver.idle(in_millis(1)).await;
    assert!(driver.is_up());

    drop(first);
    driver.idle(in_millis(20)).await;
    assert!(!driver.is_up(), "let go while nobody polled");
    let poll = driver.poll(0, 0, in_millis(100)).await;
    assert_eq!((poll.outcome, sample(&poll, 0)), (Outcome::LinkDown, Sample::bad(Cause::LinkDown)));
    assert!(driver.counters().last_error.is_some());

    std::fs::remove_file(&by_id).unwrap();
    let second = Pty::open().unwrap();
    symlink(second.path(), &by_id).unwrap();
    let deadline = in_millis(5_000);
    while !driver.is_up() && Instant::now() < deadline {
        driver.idle(in_millis(50)).await;
    }
    second.write(b"\r\n").unwrap();
    second.write(&wind(4.0)).unwrap();
    let poll = driver.poll(0, 0, in_millis(1_000)).await;
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(sample(&poll, 1), good(4.0));
    assert_eq!((driver.counters().opens, driver.counters().last_error.as_ref()), (2, None));
}

#[tokio::test]
async fn a_point_that_is_not_configured_can_be_read_once() {
    let pty = Pty::open().unwrap();
    let mut driver = scale(pty.path());
    let state = [point("state", Source { reads: Reads::Text, ..Source::field(0) })];
    let (poll, ()) =
        tokio::join!(driver.read(0, &state, in_millis(2_000)), answer(&pty, &[b"ST,GS,+ 1.0 kg\r\n"]));
    assert_eq!(sample(&poll, 0), Sample::good(Value::Text("ST".into())));
    let (poll, ()) =
        tokio::join!(driver.poll(0, 0, in_millis(2_000)), answer(&pty, &[b"ST,GS,+ 2.0 kg\r\n"]));
    assert_eq!(sample(&poll, 0), good(2.0));
}

#[tokio::test]
async fn a_poll_that_is_dropped_leaves_the_line_resting() {
    let pty = Pty::open().unwrap();
    let device = Device { query: Some(b"S\r\n".to_vec()), ..Device::default() };
    let points = vec![point("weight", Source::field(2))];
    let mut driver = patient_driver(pty.path(), Duration::from_secs(20), device, points);
    let mut query = [0; 8];
    tokio::select! {
        poll = driver.poll(0, 0, in_millis(20_000)) => panic!("nobody answered: {poll:?}"),
        sent = pty.read(&mut query) => assert_eq!(sent.unwrap(), 3),
    }
    let poll = driver.poll(0, 0, in_millis(2_000)).await;
    assert!(matches!(poll.outcome, Outcome::Held { .. }), "{poll:?}");
}

#[test]
fn the_plan_says_what_goes_over_the_line() {
    let device = Device { query: Some(b"\x05S\r\n".to_vec()), ..Device::default() };
    let link = Link { port: PortSettings::new("/dev/ttyS0"), timeout: Duration::from_secs(1) };
    let plan = plan::planned(&link, &[spec(device, vec![point("weight", Source::field(2))])]);
    assert_eq!(plan.len(), 1);
    assert!(plan.iter().all(|request| request.words == r#"query "\x05S\r\n""# && !request.cost.is_zero()));
}

#[test]
fn instruments_that_cannot_share_a_line_are_faults() {
    let listening = |select: Option<&str>, terminator: &[u8]| {
        let device = Device {
            select: select.map(str::to_owned),
            terminator: terminator.to_vec(),
            ..Device::default()
        };
        spec(device, vec![point("a", Source::field(1))])
    };
    let asked = |select: Option<&str>| {
        let device =
            Device { query: Some(b"S".to_vec()), select: select.map(str::to_owned), ..Device::default() };
        spec(device, vec![point("a", Source::field(1))])
    };
    let count = |devices: &[DeviceSpec]| plan::faults(devices).len();
    assert_eq!(count(&[listening(None, b"\n")]), 0);
    assert_eq!(count(&[listening(Some("A"), b"\n"), listening(Some("B"), b"\n")]), 0);
    assert_eq!(count(&[listening(Some("A"), b"\n"), listening(None, b"\n")]), 1);
    assert_eq!(count(&[listening(Some("A"), b"\n"), listening(Some("B"), b";")]), 1);
    assert_eq!(count(&[listening(Some("A"), b"\n"), asked(Some("B"))]), 1);
    assert_eq!(count(&[asked(None)]), 0);
    assert_eq!(count(&[asked(Some("01")), asked(Some("02")), asked(Some("$03"))]), 0);
    assert_eq!(count(&[asked(Some("01")), asked(None)]), 1);
    assert_eq!(count(&[asked(None), asked(None), asked(None)]), 3);
    for (first, second) in [("A", "A"), ("A", "AB"), ("AB", "A"), ("$A", "!AB"), ("$", "A")] {
        assert_eq!(
            count(&[asked(Some(first)), asked(Some(second)), asked(Some("C"))]),
            1 + usize::from(first == "$")
        );
    }
    let mut by_point = asked(None);
    by_point.points = vec![point("a", Source { sentence: Some("ABC".into()), ..Source::field(1) })];
    assert_eq!(count(&[asked(Some("B")), by_point.clone()]), 0, "its points say it");
    let faults = plan::faults(&[asked(Some("AB")), by_point]);
    assert!(
        matches!(faults.as_slice(), [SpecFault { device: 1, what, .. }] if what.contains("\"instrument\""))
    );
}
