//! The engine's rules, one by one, with bytes and instants written by hand.

use std::time::{Duration, Instant};

use super::crc;
use super::engine::{Engine, Step, Timing};
use crate::modbus::settings::Echo;
use crate::modbus::transaction::{Answer, Ask, Failure};

const CHARACTER: Duration = Duration::from_millis(1);
const SILENCE: Duration = Duration::from_micros(3_500);
const ASK: Ask = Ask { unit: 1, function: 3, address: 52, count: 2, data_bytes: 4 };

fn timing() -> Timing {
    Timing {
        character: CHARACTER,
        silence: SILENCE,
        latency: Duration::from_millis(20),
        timeout: Duration::from_millis(200),
        hold_off: Duration::from_secs(1),
        paced: true,
        echo: Echo::Auto,
    }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &crc::crc(body).to_le_bytes()].concat()
}

fn answer(data: [u8; 4]) -> Vec<u8> {
    sealed(&[&[1, 3, 4][..], &data].concat())
}

/// An engine that has just sent [`ASK`]; the request ends at the instant returned.
fn sent(timing: Timing) -> (Engine, Instant) {
    let mut engine = Engine::new(timing);
    let now = Instant::now();
    engine.begin(ASK, now, now + Duration::from_secs(5)).unwrap();
    let Step::Write(frame) = engine.poll(now) else { panic!("a quiet line is written at once") };
    assert_eq!(frame, [1, 3, 0, 52, 0, 2, 0x85, 0xc5]);
    (engine, now + CHARACTER * 8)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn is_data(step: Step) -> bool {
    matches!(step, Step::Done(Ok(Answer { exception: None, .. })))
}

/// Takes what has come and gives the transaction's end, waiting as the engine says.
fn end(engine: &mut Engine, mut now: Instant) -> Result<Answer, Failure> {
    loop {
        match engine.poll(now) {
            Step::Done(result) => return result,
            Step::Wait(until) => {
                assert!(until > now);
                now = until;
            }
            Step::Write(_) => panic!("written twice"),
        }
    }
}

#[test]
fn an_answer_is_believed_and_its_turnaround_measured() {
    let (mut engine, end) = sent(timing());
    let frame = answer([1, 2, 3, 4]);
    engine.receive(&frame, end + ms(30));
    let Step::Done(Ok(answer)) = engine.poll(end + ms(30)) else { panic!() };
    assert_eq!(engine.data(), [1, 2, 3, 4]);
    assert!(
        answer.turnaround >= ms(20) && answer.turnaround <= ms(22),
        "{answer:?}: 9 characters before 30 ms"
    );
}

#[test]
fn an_answer_that_began_before_the_request_ended_is_stale() {
    let (mut engine, request_end) = sent(timing());
    engine.receive(&answer([9, 9, 9, 9]), request_end + ms(5));
    assert!(matches!(engine.poll(request_end + ms(5)), Step::Wait(_)));
    engine.receive(&answer([1, 2, 3, 4]), request_end + ms(40));
    assert!(is_data(engine.poll(request_end + ms(40))));
    assert_eq!((engine.data(), engine.counters.foreign_frames), (&[1, 2, 3, 4][..], 1));
}

#[test]
fn unit_function_and_length_must_be_those_of_the_request() {
    for stranger in [
        sealed(&[2, 3, 4, 9, 9, 9, 9]),
        sealed(&[1, 4, 4, 9, 9, 9, 9]),
        sealed(&[1, 3, 2, 9, 9]),
        sealed(&[1, 3, 6, 9, 9, 9, 9, 9, 9]),
        sealed(&[2, 0x83, 2]),
        sealed(&[1, 0x84, 2]),
        sealed(&[1, 3, 0, 52, 0, 3]),
    ] {
        let (mut engine, request_end) = sent(timing());
        engine.receive(&stranger, request_end + ms(30));
        assert!(matches!(engine.poll(request_end + ms(30)), Step::Wait(_)), "{stranger:?}");
        engine.receive(&answer([1, 2, 3, 4]), request_end + ms(60));
        assert!(is_data(engine.poll(request_end + ms(60))), "{stranger:?}");
        assert_eq!(engine.counters.foreign_frames, 1);
    }
}

#[test]
fn a_damaged_answer_ends_the_transaction_at_once_and_is_owed() {
    let (mut engine, request_end) = sent(timing());
    let mut frame = answer([1, 2, 3, 4]);
    frame[4] ^= 1;
    engine.receive(&frame, request_end + ms(30));
    assert_eq!(end(&mut engine, request_end + ms(30)), Err(Failure::Damaged));
    assert_eq!(engine.counters.crc_errors, 1);
    let now = request_end + ms(100);
    let held = engine.begin(ASK, now, now + ms(500)).unwrap_err();
    assert_eq!(held, request_end + timing().hold_off);
    let other_shape = Ask { count: 3, data_bytes: 6, ..ASK };
    assert_eq!(engine.begin(other_shape, now, now + ms(500)), Ok(()));
    assert_eq!(engine.begin(Ask { unit: 2, ..ASK }, now, now + ms(500)), Ok(()));
}

#[test]
fn a_late_answer_settles_its_debt_and_is_never_a_value() {
    let (mut engine, request_end) = sent(timing());
    assert_eq!(end(&mut engine, request_end), Err(Failure::Silent));
    let now = request_end + ms(300);
    assert!(engine.begin(ASK, now, now + ms(500)).is_err());
    engine.receive(&answer([9, 9, 9, 9]), now);
    assert!(matches!(engine.poll(now), Step::Wait(_)));
    assert_eq!(engine.begin(ASK, now, now + ms(500)), Ok(()));
}

#[test]
fn an_exception_is_an_answer_unless_another_request_may_have_earned_it() {
    let (mut engine, request_end) = sent(timing());
    engine.receive(&sealed(&[1, 0x83, 2]), request_end + ms(30));
    let Step::Done(Ok(answer)) = engine.poll(request_end + ms(30)) else { panic!() };
    assert_eq!(answer.exception, Some(2));

    let (mut engine, request_end) = sent(timing());
    assert_eq!(end(&mut engine, request_end), Err(Failure::Silent));
    let now = request_end + ms(300);
    let other = Ask { count: 3, data_bytes: 6, ..ASK };
    engine.begin(other, now, now + ms(500)).unwrap();
    assert!(matches!(engine.poll(now), Step::Write(_)));
    engine.receive(&sealed(&[1, 0x83, 2]), now + ms(60));
    assert!(matches!(engine.poll(now + ms(60)), Step::Wait(_)), "it may be the first request's");
}

#[test]
fn an_echo_is_stripped_and_where_it_is_due_nothing_is_believed_without_it() {
    let echo = [1, 3, 0, 52, 0, 2, 0x85, 0xc5];
    for (setting, echoed, believed) in [
        (Echo::Auto, true, true),
        (Echo::Auto, false, true),
        (Echo::On, true, true),
        (Echo::On, false, false),
        (Echo::Off, false, true),
    ] {
        let (mut engine, request_end) = sent(Timing { echo: setting, ..timing() });
        let mut bytes = if echoed { echo.to_vec() } else { Vec::new() };
        engine.receive(&bytes, request_end);
        assert!(matches!(engine.poll(request_end), Step::Wait(_)));
        bytes = answer([1, 2, 3, 4]);
        engine.receive(&bytes, request_end + ms(30));
        assert_eq!(is_data(engine.poll(request_end + ms(30))), believed, "{setting:?} {echoed}");
        assert_eq!(engine.counters.echoes, u64::from(echoed));
    }
}

#[test]
fn a_glitch_before_the_answer_does_not_cost_it() {
    let (mut engine, request_end) = sent(timing());
    engine.receive(&[&[0x00, 0xff][..], &answer([1, 2, 3, 4])].concat(), request_end + ms(30));
    assert!(is_data(engine.poll(request_end + ms(30))));
    assert_eq!(engine.counters.bad_frames, 1);
}

#[test]
fn pieces_are_waited_for_as_long_as_their_missing_bytes_need() {
    let (mut engine, request_end) = sent(timing());
    let frame = answer([1, 2, 3, 4]);
    engine.receive(&frame[..1], request_end + ms(5));
    // 8 characters are missing: 8 ms, 3.5 ms of silence and 20 ms of the adapter.
    assert_eq!(
        engine.poll(request_end + ms(5)),
        Step::Wait(request_end + ms(5) + Duration::from_micros(31_500))
    );
    engine.receive(&frame[1..], request_end + ms(30));
    assert!(is_data(engine.poll(request_end + ms(30))));
}

#[test]
fn the_deadline_is_the_transactions_not_the_bytes() {
    let (mut engine, request_end) = sent(timing());
    let mut now = request_end;
    let result = loop {
        now += ms(3);
        engine.receive(&[0x55], now); // drips for ever
        if let Step::Done(result) = engine.poll(now) {
            break result;
        }
        assert!(now < request_end + ms(400), "the deadline has passed");
    };
    assert_eq!(result, Err(Failure::Silent));
}

#[test]
fn a_line_that_never_falls_silent_is_not_written_to() {
    let mut engine = Engine::new(timing());
    let begin = Instant::now();
    let mut now = begin;
    engine.receive(&[0x55; 40], now);
    engine.begin(ASK, now, now + ms(100)).unwrap();
    let result = loop {
        match engine.poll(now) {
            Step::Done(result) => break result,
            Step::Wait(_) => {}
            Step::Write(_) => panic!("somebody is talking"),
        }
        now += ms(2);
        engine.receive(&[0x55; 40], now);
    };
    assert_eq!(result, Err(Failure::NeverQuiet));
    assert!(now <= begin + ms(102));
    assert!(engine.held(ASK, now).is_none(), "nothing was sent, nothing is owed");
}

#[test]
fn a_request_given_up_halfway_is_owed() {
    let (mut engine, request_end) = sent(timing());
    let now = request_end + ms(10);
    assert!(engine.begin(ASK, now, now + ms(500)).is_err());
    assert!(engine.held(ASK, request_end + ms(1_001)).is_none(), "until the hold-off is over");
}

#[test]
fn silence_of_three_and_a_half_characters_comes_before_each_request() {
    let (mut engine, request_end) = sent(timing());
    let arrived = request_end + ms(30);
    engine.receive(&answer([1, 2, 3, 4]), arrived);
    assert!(is_data(engine.poll(arrived)));
    engine.begin(ASK, arrived, arrived + ms(500)).unwrap();
    assert_eq!(engine.poll(arrived), Step::Wait(arrived + SILENCE));
    assert!(matches!(engine.poll(arrived + SILENCE), Step::Write(_)));
}

#[test]
fn an_idle_line_that_has_spoken_once_does_not_wake_anybody() {
    let (mut engine, sent_until) = sent(timing());
    let came = sent_until + ms(20);
    engine.receive(&answer([0, 1, 0, 2]), came);
    assert!(is_data(engine.poll(came)));
    for later in [ms(0), ms(10), ms(1_000)] {
        let Step::Wait(until) = engine.poll(came + later) else { panic!("nothing to do") };
        assert!(until > came + later + ms(500), "woken {:?} later", until.duration_since(came + later));
    }
}
