//! Instruments of which one sentence does not come, or comes damaged, beside one that does.

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
