//! Instruments of which one sentence does not come, comes late or damaged, beside one that does.

use super::*;

/// Wind and air, each a sentence and a group of its own.
fn two_sentences(path: &Path, device: Device) -> Driver {
    let of = |sentence: &str| Source { sentence: Some(sentence.into()), ..Source::field(1) };
    let mut spec = spec(device, vec![point("wind", of("WIMWV")), point("air", of("WIMDA"))]);
    spec.groups = [0, 1].map(|point| Group { period: Duration::from_secs(60), points: vec![point] }).to_vec();
    let port = PortSettings::new(path.display().to_string());
    Driver::new(Arc::from("roof"), Link { port, timeout: Duration::from_secs(1) }, &[spec])
}

#[tokio::test]
async fn an_instrument_that_answers_with_another_sentence_answers_and_costs_a_timeout_three_times() {
    let pty = Pty::open().unwrap();
    let mut driver =
        two_sentences(pty.path(), Device { query: Some(b"S\r\n".to_vec()), ..Device::default() });
    let polls = async {
        for _ in 0..12 {
            let poll = driver.poll(0, 1, in_millis(60_000)).await;
            if let Outcome::Held { until } = poll.outcome {
                tokio::time::sleep_until(until.into()).await;
                continue;
            }
            assert_eq!(poll.outcome, Outcome::Answered { turnaround: Duration::ZERO }, "{poll:?}");
            assert_eq!(sample(&poll, 0), Sample::bad(Cause::Silent));
        }
        (driver.poll(0, 0, in_millis(60_000)).await, driver.counters().timeouts)
    };
    let answers = [&b"$WIMWV,7\r\n"[..]; 100];
    let (poll, timeouts) = tokio::select! {
        ended = polls => ended,
        () = answer(&pty, &answers) => unreachable!("so often nobody asks"),
    };
    assert_eq!((sample(&poll, 0), timeouts), (good(7.0), 3));
}

#[tokio::test]
async fn a_damaged_sentence_is_told_from_silence_and_is_not_the_trouble_of_another() {
    let pty = Pty::open().unwrap();
    let mut driver = two_sentences(pty.path(), Device { checksum: Checksum::Nmea, ..Device::default() });
    driver.idle(in_millis(1)).await;
    pty.write(b"\r\n$WIMDA,20*00\r\n").unwrap();
    pty.write(&wind(1.0)).unwrap();
    driver.idle(in_millis(30)).await;
    let wind = driver.poll(0, 0, in_millis(1_000)).await;
    assert_eq!(sample(&wind, 0), good(214.8));
    pty.write(b"$WIMDA,20*00\r\n").unwrap();
    driver.idle(in_millis(30)).await;
    let wind = driver.poll(0, 0, in_millis(1)).await;
    assert!(matches!(wind.outcome, Outcome::Held { .. }), "its next line is waited for: {wind:?}");
    let air = driver.poll(0, 1, in_millis(1)).await;
    assert_eq!((air.outcome, sample(&air, 0)), (Outcome::Damaged, Sample::bad(Cause::BadFrame)));
    assert_eq!(driver.counters().timeouts, 0);
}

/// Wind and air in one group.
fn both_sentences(path: &Path, timeout: Duration, period: Duration) -> Driver {
    let of = |sentence: &str| Source { sentence: Some(sentence.into()), ..Source::field(1) };
    let mut spec = spec(Device::default(), vec![point("wind", of("WIMWV")), point("air", of("WIMDA"))]);
    spec.groups = vec![Group { period, points: vec![0, 1] }];
    let port = PortSettings::new(path.display().to_string());
    Driver::new(Arc::from("roof"), Link { port, timeout }, &[spec])
}

#[tokio::test]
async fn of_sentences_with_rhythms_of_their_own_the_quicker_one_is_not_overwritten_while_it_waits() {
    let pty = Pty::open().unwrap();
    let mut driver = both_sentences(pty.path(), Duration::from_secs(60), Duration::from_millis(100));
    driver.idle(in_millis(1)).await;
    for n in 0..5 {
        pty.write(format!("\r\n$WIMWV,{n}\r\n").as_bytes()).unwrap();
        driver.idle(in_millis(30)).await;
        // However much time it has, the poll ends after half of the period.
        let began = Instant::now();
        let poll = driver.poll(0, 0, in_millis(60_000)).await;
        assert_eq!(sample(&poll, 0), good(f64::from(n)));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn what_nothing_new_has_come_of_is_asked_for_again_before_two_sentences_can_come() {
    let pty = Pty::open().unwrap();
    let mut driver = both_sentences(pty.path(), Duration::from_secs(60), Duration::from_millis(100));
    driver.idle(in_millis(1)).await;
    let Outcome::Held { until } = driver.poll(0, 0, Instant::now()).await.outcome else { panic!() };
    assert!(until <= in_millis(50));
}

#[tokio::test]
async fn what_comes_in_the_last_moment_of_a_poll_waits_for_its_rest_like_any_other() {
    let pty = Pty::open().unwrap();
    let mut driver = both_sentences(pty.path(), Duration::from_secs(2), Duration::from_secs(10));
    driver.idle(in_millis(1)).await;
    let poll = driver.poll(0, 0, in_millis(2_000));
    let late = async {
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        pty.write(b"\r\n$WIMWV,3\r\n").unwrap();
    };
    let (poll, ()) = tokio::join!(poll, late);
    assert!(matches!(poll.outcome, Outcome::Held { .. }), "{poll:?}");
    pty.write(b"$WIMDA,21.5\r\n").unwrap();
    driver.idle(in_millis(30)).await;
    let whole = driver.poll(0, 0, Instant::now()).await;
    assert_eq!((sample(&whole, 0), sample(&whole, 1)), (good(3.0), good(21.5)));
}

#[tokio::test]
async fn what_has_come_of_a_group_waits_for_its_other_sentence_also_when_its_poll_is_cut_short() {
    let pty = Pty::open().unwrap();
    let minute = Duration::from_secs(60);
    let mut driver = both_sentences(pty.path(), minute, 10 * minute);
    driver.idle(in_millis(1)).await;
    pty.write(b"\r\n$WIMWV,3\r\n").unwrap();
    driver.idle(in_millis(30)).await;
    let cut = driver.poll(0, 0, Instant::now()).await;
    assert!(matches!(cut.outcome, Outcome::Held { .. }), "{cut:?}");
    pty.write(b"$WIMDA,21.5\r\n").unwrap();
    driver.idle(in_millis(30)).await;
    let whole = driver.poll(0, 0, Instant::now()).await;
    assert_eq!((sample(&whole, 0), sample(&whole, 1)), (good(3.0), good(21.5)));
}

#[tokio::test]
async fn a_sentence_that_was_left_over_does_not_make_pairs_of_two_rounds_for_ever() {
    let pty = Pty::open().unwrap();
    let mut driver = both_sentences(pty.path(), Duration::from_secs(2), Duration::from_secs(60));
    driver.idle(in_millis(1)).await;
    // Of the first round the port was opened too late for the first sentence.
    pty.write(b"\r\n$WIMDA,1\r\n").unwrap();
    driver.idle(in_millis(1_200)).await;
    pty.write(b"$WIMWV,2\r\n").unwrap();
    driver.idle(in_millis(30)).await;
    let poll = driver.poll(0, 0, in_millis(60_000));
    let rest = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pty.write(b"$WIMDA,2\r\n").unwrap();
    };
    let (poll, ()) = tokio::join!(poll, rest);
    assert_eq!((sample(&poll, 0), sample(&poll, 1)), (good(2.0), good(2.0)));
    // What is always far apart is taken as it comes.
    for n in 3..5 {
        pty.write(format!("$WIMWV,{n}\r\n").as_bytes()).unwrap();
        driver.idle(in_millis(1_200)).await;
        pty.write(format!("$WIMDA,{n}\r\n").as_bytes()).unwrap();
        let poll = driver.poll(0, 0, in_millis(60_000)).await;
        assert_eq!((sample(&poll, 0), sample(&poll, 1)), (good(f64::from(n)), good(f64::from(n))));
    }
}

#[tokio::test]
async fn what_has_come_of_a_group_waits_for_its_other_sentence_one_time_out_and_no_more() {
    let pty = Pty::open().unwrap();
    let (timeout, nearly) = (Duration::from_millis(500), Duration::from_millis(450));
    let mut driver = both_sentences(pty.path(), timeout, Duration::from_secs(60));
    driver.idle(in_millis(1)).await;
    for cut in [true, false] {
        pty.write(b"\r\n$WIMWV,3\r\n").unwrap();
        driver.idle(in_millis(30)).await;
        let began = Instant::now();
        if cut {
            assert!(matches!(driver.poll(0, 0, began).await.outcome, Outcome::Held { .. }));
            driver.idle(began + nearly).await;
        }
        // However much time the second poll has, the rest of the one time-out is enough.
        let deadline = if cut { in_millis(60_000) } else { Instant::now() + timeout };
        let poll = driver.poll(0, 0, deadline).await;
        assert_eq!(
            poll.samples,
            [(0, good(3.0))],
            "nothing is said of the other before it is missing: {cut}"
        );
        assert!(began.elapsed() >= nearly, "{cut}");
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", poll.busy);
    }
}

/// X, of which each of the `sentences` is a group of its own, Y, that takes any line (`check` refuses it here), and Z with
/// a beginning of its own.
fn three_instruments(path: &Path, timeout: Duration, sentences: &[&str]) -> Driver {
    let queried = |query: &[u8], select: Option<&str>| Device {
        query: Some(query.to_vec()),
        select: select.map(str::to_owned),
        ..Device::default()
    };
    let of = |sentence: &&str| point("x", Source { sentence: Some((*sentence).into()), ..Source::field(1) });
    let mut x = spec(queried(b"X\r\n", None), sentences.iter().map(of).collect());
    let group = |point| Group { period: Duration::from_secs(5), points: vec![point] };
    x.groups = (0..).take(sentences.len()).map(group).collect();
    let y = spec(queried(b"Y\r\n", None), vec![point("y", Source::field(1))]);
    let z = spec(queried(b"Z\r\n", Some("ZZZ")), vec![point("z", Source::field(1))]);
    let port = PortSettings::new(path.display().to_string());
    Driver::new(Arc::from("roof"), Link { port, timeout }, &[x, y, z])
}

/// Answers one query, whichever it is.
async fn answer_one(pty: &Pty, answer: &[u8]) {
    let mut query = [0; 64];
    pty.read(&mut query).await.unwrap();
    pty.write(answer).unwrap();
}

#[tokio::test]
async fn what_an_instrument_says_after_its_answer_is_no_answer_of_one_that_takes_any_line() {
    let pty = Pty::open().unwrap();
    let mut driver = three_instruments(pty.path(), Duration::from_secs(20), &["AAA"]);
    let (x, ()) = tokio::join!(driver.poll(0, 0, in_millis(60_000)), answer_one(&pty, b"AAA,1\r\n"));
    assert_eq!(sample(&x, 0), good(1.0));
    let y = driver.poll(1, 0, in_millis(60_000)).await;
    assert!(matches!(y.outcome, Outcome::Held { .. }), "X may say more: {y:?}");
    let by_hand = [point("any", Source::field(1))];
    let (x, ()) = tokio::join!(driver.read(0, &by_hand, in_millis(60_000)), answer_one(&pty, b"AAA,2\r\n"));
    assert_eq!(sample(&x, 0), good(2.0), "X itself is not held");
    let (z, ()) =
        tokio::join!(driver.poll(2, 0, in_millis(60_000)), answer_one(&pty, b"BBB,777\r\nZZZ,3\r\n"));
    assert_eq!(sample(&z, 0), good(3.0), "and Z cannot mistake it");
}

#[tokio::test]
async fn a_sentence_that_is_missing_because_it_is_late_is_no_answer_of_another_instrument() {
    let pty = Pty::open().unwrap();
    let mut driver = three_instruments(pty.path(), Duration::from_millis(500), &["AAA", "BBB"]);
    let mut until = Instant::now();
    for _ in 0..4 {
        driver.idle(until).await;
        let x = tokio::join!(driver.poll(0, 1, in_millis(60_000)), answer_one(&pty, b"AAA,1\r\n")).0;
        assert_eq!(sample(&x, 0), Sample::bad(Cause::Silent));
        let y = driver.poll(1, 0, in_millis(60_000)).await;
        let Outcome::Held { until: held } = y.outcome else { panic!("it may still come: {y:?}") };
        until = held;
    }
    assert_eq!(driver.counters().timeouts, 3, "the fourth time it is not waited for");
    pty.write(b"BBB,777\r\n").unwrap();
    driver.idle(until).await;
    let y = driver.poll(1, 0, in_millis(60_000)).await;
    assert_eq!((y.outcome, sample(&y, 0)), (Outcome::Silent, Sample::bad(Cause::Silent)));
}

#[tokio::test]
async fn the_line_rests_for_a_late_answer_also_when_the_port_was_opened_anew() {
    let folder = std::env::temp_dir().join(format!("fieldspool-reopened-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let adapter = folder.join("adapter");
    let first = Pty::open().unwrap();
    symlink(first.path(), &adapter).unwrap();
    let device = Device { query: Some(b"S\r\n".to_vec()), ..Device::default() };
    let points = vec![point("weight", Source::field(2))];
    let mut driver = patient_driver(&adapter, Duration::from_secs(20), device, points);
    let pulled_out = async move {
        let mut query = [0; 8];
        first.read(&mut query).await.unwrap();
        drop(first);
    };
    let (poll, ()) = tokio::join!(driver.poll(0, 0, in_millis(60_000)), pulled_out);
    assert_eq!(poll.outcome, Outcome::LinkDown);
    std::fs::remove_file(&adapter).unwrap();
    let second = Pty::open().unwrap();
    symlink(second.path(), &adapter).unwrap();
    let deadline = in_millis(10_000);
    while !driver.is_up() && Instant::now() < deadline {
        driver.idle(in_millis(50)).await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(driver.is_up());
    let poll = driver.poll(0, 0, in_millis(60_000)).await;
    assert!(matches!(poll.outcome, Outcome::Held { .. }), "{poll:?}");
}

#[tokio::test]
async fn a_sentence_that_is_gone_is_told_although_another_of_its_group_is_slow() {
    let pty = Pty::open().unwrap();
    let of = |sentence: &str| Source { sentence: Some(sentence.into()), ..Source::field(1) };
    let device = Device { silent_after: Duration::from_secs(1), ..Device::default() };
    let mut spec = spec(device, vec![point("wind", of("WIMWV")), point("air", of("WIMDA"))]);
    spec.groups = vec![Group { period: Duration::from_millis(500), points: vec![0, 1] }];
    let port = PortSettings::new(pty.path().display().to_string());
    let link = Link { port, timeout: Duration::from_millis(200) };
    let mut driver = Driver::new(Arc::from("roof"), link, &[spec]);
    driver.idle(in_millis(1)).await;
    // Air each 1.2 s, wind once and then no more.
    pty.write(b"\r\n$WIMWV,3\r\n").unwrap();
    for n in 0..4 {
        pty.write(format!("$WIMDA,{n}\r\n").as_bytes()).unwrap();
        driver.idle(in_millis(50)).await;
        let poll = driver.poll(0, 0, in_millis(60_000)).await;
        assert!(matches!(poll.outcome, Outcome::Answered { .. }), "{poll:?}");
        driver.idle(in_millis(1_050)).await;
    }
    pty.write(b"$WIMDA,9\r\n").unwrap();
    driver.idle(in_millis(50)).await;
    driver.poll(0, 0, in_millis(60_000)).await;
    driver.idle(in_millis(100)).await;
    let poll = driver.poll(0, 0, Instant::now()).await;
    assert_eq!(
        poll.samples,
        [(0, Sample::bad(Cause::Silent))],
        "air is not missing, and nothing new came of it"
    );
}

#[tokio::test]
async fn by_hand_each_point_is_told_also_one_whose_sentence_does_not_come() {
    let pty = Pty::open().unwrap();
    let mut driver = both_sentences(pty.path(), Duration::from_millis(500), Duration::from_secs(60));
    driver.idle(in_millis(1)).await;
    let points = driver_points();
    let writes = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pty.write(b"\r\n$WIMWV,3\r\n").unwrap();
    };
    let (poll, ()) = tokio::join!(driver.read(0, &points, in_millis(1_000)), writes);
    assert_eq!(poll.samples, [(0, good(3.0)), (1, Sample::bad(Cause::Silent))]);
}

fn driver_points() -> Vec<Point> {
    let of = |sentence: &str| Source { sentence: Some(sentence.into()), ..Source::field(1) };
    vec![point("wind", of("WIMWV")), point("air", of("WIMDA"))]
}
