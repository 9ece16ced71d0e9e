//! Sentences that stop, in virtual time.

use std::sync::Arc;

use super::super::settings::Source as Field;
use super::*;
use crate::bus::{Address, Group};
use crate::point::Scaling;
use crate::value::{Quality, Value};

#[path = "patience_tests.rs"]
mod patience;

/// Wind every 2 s, air every 5 s, and both together every 30 s, of an instrument that may be silent for 4 s.
fn ears(start: Instant) -> Listener {
    ears_of(start, 4, &[(2, &[0]), (5, &[1]), (30, &[0, 1])])
}

/// Wind (point 0) and air (point 1) in groups of (seconds, points).
fn ears_of(start: Instant, silent_after: u64, groups: &[(u64, &[u16])]) -> Listener {
    let point = |sentence: &str| Point {
        name: sentence.into(),
        source: Source::Line(Field { sentence: Some(sentence.into()), ..Field::field(1) }),
        scaling: Scaling::default(),
        period: Duration::from_secs(1),
    };
    let device = Device { silent_after: Duration::from_secs(silent_after), ..Device::default() };
    let group = |(period, points): &(u64, &[u16])| Group {
        period: Duration::from_secs(*period),
        points: points.to_vec(),
    };
    let spec = DeviceSpec {
        name: Arc::from("weather"),
        address: Address::Line(device.clone()),
        points: vec![point("WIMWV"), point("WIMDA")],
        groups: groups.iter().map(group).collect(),
    };
    let mut ears = Listener::new(&device, &spec, start);
    ears.feed(b"\r\n", start, &mut Counters::default());
    ears
}

fn say(ears: &mut Listener, line: &[u8], now: Instant) {
    ears.feed(line, now, &mut Counters::default());
}

fn edges(ears: &mut Listener, group: usize, now: Instant) -> Vec<(String, bool)> {
    let mut edges = Vec::new();
    ears.listened(group, now);
    ears.missing(group, |sentence, missing| edges.push((sentence.to_owned(), missing)));
    edges
}

#[test]
fn a_sentence_is_overdue_by_its_own_silence_and_not_by_that_of_the_instrument() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut ears = ears(start);
    let overdue = |ears: &Listener| [0, 1, 2].map(|group| ears.overdue_at(group).unwrap() - start);
    let seconds = |all: [u64; 3]| all.map(Duration::from_secs);
    assert_eq!(overdue(&ears), seconds([4, 5, 30]), "counted from the opening, if it never came");
    say(&mut ears, b"$WIMWV,1\r\n$WIMDA,20\r\n", at(1));
    assert_eq!(overdue(&ears), seconds([5, 6, 31]));
    say(&mut ears, b"$WIMWV,2\r\n", at(10));
    assert_eq!(overdue(&ears), seconds([14, 6, 31]), "other sentences do not renew it");
    assert_eq!(ears.take(1, at(10), Cause::Silent).samples, [(1, Sample::bad(Cause::Silent))], "too old");
    let both = ears.take(2, at(10), Cause::Silent).samples;
    assert_eq!(both, [(0, Sample::good(Value::F64(2.0))), (1, Sample::good(Value::F64(20.0)))], "30 s are");
    ears.opened(at(60));
    assert_eq!(overdue(&ears), seconds([64, 65, 90]), "nothing could be heard before");
}

#[test]
fn that_a_sentence_does_not_come_is_said_once_and_once_when_it_comes_again() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut ears = ears(start);
    let air = |missing| vec![("WIMDA".to_owned(), missing)];
    say(&mut ears, b"$WIMWV,1\r\n$WIMDA,20\r\n", at(1));
    assert_eq!(edges(&mut ears, 1, at(5)), []);
    say(&mut ears, b"$WIMWV,1\r\n", at(6));
    assert_eq!(edges(&mut ears, 0, at(6)), []);
    assert_eq!(edges(&mut ears, 1, at(6)), air(true));
    assert_eq!(edges(&mut ears, 1, at(7)), [], "said already");
    assert_eq!(edges(&mut ears, 2, at(8)), [], "not taken back by a group that waits longer");
    assert!(ears.is_complete(1, at(8)), "what is missing is not waited for");
    ears.opened(at(8));
    assert_eq!(edges(&mut ears, 1, at(8)), [], "to open the port is not to hear it");
    say(&mut ears, b"\r\n", at(8));
    say(&mut ears, b"$WIMDA,21\r\n", at(9));
    assert_eq!(edges(&mut ears, 1, at(9)), air(false));
    let taken = ears.take(1, at(9), Cause::Silent).samples;
    assert!(matches!(taken.as_slice(), [(1, sample)] if sample.quality == Quality::Good));
}

/// Polls the air (group 0) each second until `end`, hears it in the seconds that `comes` says, and returns the edges.
fn listen(ears: &mut Listener, start: Instant, end: u64, comes: impl Fn(u64) -> bool) -> Vec<(u64, bool)> {
    let mut said = Vec::new();
    for second in 1..=end {
        let now = start + Duration::from_secs(second);
        if comes(second) {
            say(ears, b"$WIMDA,20\r\n", now);
        }
        said.extend(edges(ears, 0, now).into_iter().map(|(_, missing)| (second, missing)));
    }
    said
}

#[test]
fn a_sentence_that_comes_seldom_is_not_missing_between_two_of_it() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut ears = ears_of(start, 10, &[(1, &[1])]);
    let said = listen(&mut ears, start, 600, |second| second % 60 == 0);
    let until_known = [(10, true), (60, false), (70, true), (120, false), (130, true), (180, false)];
    assert_eq!(said, until_known, "until its rhythm is known");
    assert_eq!(ears.overdue_at(0), Some(at(720)));
    assert_eq!(edges(&mut ears, 0, at(719)), []);
    assert_eq!(edges(&mut ears, 0, at(720)).len(), 1, "twice as long is missing");
    ears.opened(at(1_000));
    assert_eq!(ears.overdue_at(0), Some(at(1_120)), "its rhythm is still known");
    say(&mut ears, b"\r\n$WIMDA,20\r\n", at(1_001));
    assert_eq!(ears.overdue_at(0), Some(at(1_121)), "from the opening to the first is no interval");
    say(&mut ears, b"$WIMDA,20\r\n$WIMDA,20\r\n", at(1_061));
    assert_eq!(ears.overdue_at(0), Some(at(1_181)), "two in one read are no interval");
    say(&mut ears, b"$WIMDA,20\r\n", at(9_000));
    say(&mut ears, b"$WIMDA,20\r\n", at(17_000));
    assert_eq!(ears.overdue_at(0), Some(at(17_000 + 3_600)), "an hour is the longest excuse");
}

#[test]
fn the_length_of_a_fault_is_not_taken_for_the_rhythm_of_a_sentence() {
    // Each 10 s for two hours, away for 50 minutes, once more, and then never again.
    let (stops, back) = (7_200, 10_200);
    let comes = |second| second <= stops && second % 10 == 0 || second == back;
    let start = Instant::now();
    let mut ears = ears_of(start, 4, &[(1, &[1])]);
    let said = listen(&mut ears, start, back + 7_200, comes);
    let known: Vec<_> = said.into_iter().filter(|(second, _)| *second > 100).collect();
    assert_eq!(known, [(stops + 20, true), (back, false), (back + 20, true)]);

    // The same fault right after the first line: one interval alone is no rhythm.
    let mut ears = ears_of(start, 4, &[(1, &[1])]);
    let said = listen(&mut ears, start, 10_000, |second| [10, 3_010].contains(&second));
    assert_eq!(said[2..], [(14, true), (3_010, false), (3_014, true)]);

    // And over an opening of the port: the intervals on both sides of it are neighbours.
    let mut ears = ears_of(start, 4, &[(1, &[1])]);
    let at = |seconds| start + Duration::from_secs(seconds);
    (1..=5).for_each(|turn| say(&mut ears, b"$WIMDA,20\r\n", at(turn * 10)));
    ears.opened(at(100));
    say(&mut ears, b"\r\n$WIMDA,20\r\n", at(101));
    say(&mut ears, b"$WIMDA,20\r\n", at(3_101));
    assert_eq!(ears.overdue_at(0), Some(at(3_121)));
}

#[test]
fn a_rhythm_that_becomes_slower_is_learned_after_two_intervals_and_a_faster_one_after_three() {
    let start = Instant::now();
    let mut ears = ears_of(start, 4, &[(1, &[1])]);
    let comes = |second| second % if (601..=1_200).contains(&second) { 60 } else { 10 } == 0;
    let said = listen(&mut ears, start, 1_230, comes);
    let known: Vec<_> = said.into_iter().filter(|(second, _)| *second > 100).collect();
    assert_eq!(known, [(620, true), (660, false), (680, true), (720, false)]);
    assert_eq!(ears.overdue_at(0), Some(start + Duration::from_secs(1_250)));
}

#[test]
fn a_sentence_that_comes_in_pairs_or_after_short_and_long_times_is_not_missing_between_them() {
    let start = Instant::now();
    let pairs: [&dyn Fn(u64) -> bool; 2] =
        [&|second| second % 60 < 2, &|second| [0, 17].contains(&(second % 60))];
    for comes in pairs {
        let mut ears = ears_of(start, 4, &[(1, &[1])]);
        let said = listen(&mut ears, start, 3_600, comes);
        let last = said.iter().map(|(second, _)| *second).max();
        assert!(last <= Some(180), "until it is known: {said:?}");
        let stops = listen(&mut ears, start + Duration::from_secs(3_600), 600, |_| false);
        assert!(matches!(stops[..], [(60..=120, true)]), "and it is missing when it stops: {stops:?}");
    }
}

#[test]
fn a_sentence_heard_again_is_no_longer_missing_however_long_before_the_poll_it_came() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut ears = ears_of(start, 10, &[(60, &[1])]);
    let air = |missing| vec![("WIMDA".to_owned(), missing)];
    assert_eq!(edges(&mut ears, 0, at(60)), air(true));
    say(&mut ears, b"$WIMDA,20\r\n", at(90));
    assert_eq!(edges(&mut ears, 0, at(120)), air(false), "30 s before the poll");
    assert_eq!(ears.take(0, at(120), Cause::Silent).samples, [(1, Sample::good(Value::F64(20.0)))]);
    assert!(!ears.is_complete(0, at(149)), "the next one is waited for");
    assert_eq!(edges(&mut ears, 0, at(150)), air(true), "the next loss is said");
    say(&mut ears, b"$WIMDA,21\r\n", at(151));
    ears.take(0, at(151), Cause::Silent);
    assert!(!ears.is_complete(0, at(152)), "and waited for as soon as it is heard");
}

/// Asks for a group and hears `answer`. Whether the query had to wait to its end, and the edges.
fn ask(
    ears: &mut Listener,
    patience: &mut Patience,
    group: usize,
    now: Instant,
    answer: &[u8],
) -> (bool, Vec<bool>) {
    ears.asks(group, patience, now);
    assert!(!ears.is_answered(group, now), "something has to be heard");
    say(ears, answer, now);
    let waits = !ears.is_answered(group, now);
    if waits {
        ears.waited(group, patience, now);
    }
    let mut edges = Vec::new();
    ears.missing(group, |_, missing| edges.push(missing));
    ears.take(group, now, Cause::Silent);
    (waits, edges)
}

#[test]
fn a_sentence_that_no_query_brings_is_waited_for_three_times_and_then_once_a_minute() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut patience = Patience::new(Duration::from_secs(1));
    let mut ears = ears_of(start, 4, &[(1, &[1]), (60, &[0])]);
    let mut ask = |group, second, answer| ask(&mut ears, &mut patience, group, at(second), answer);
    let (mut waits, mut said) = (Vec::new(), Vec::new());
    for second in 1..=200 {
        let (waited, edges) = ask(0, second, b"$WIMWV,1\r\n");
        waits.extend(waited.then_some(second));
        said.extend(edges.into_iter().map(|missing| (second, missing)));
    }
    assert_eq!((&waits[..], &said[..]), (&[1, 2, 3, 63, 123, 183][..], &[(3, true)][..]));
    assert_eq!(ask(1, 201, b"$WIMWV,1\r\n"), (false, vec![]), "the other is there");
    assert_eq!(ask(0, 243, b"$WIMWV,1\r\n$WIMDA,2\r\n"), (false, vec![false]), "it comes again");
    assert_eq!(ask(0, 244, b"$WIMWV,1\r\n"), (true, vec![]), "and is waited for");
}

#[test]
fn the_silence_of_an_instrument_says_nothing_about_its_sentences() {
    let start = Instant::now();
    let mut patience = Patience::new(Duration::from_secs(1));
    let mut ears = ears_of(start, 4, &[(1, &[1]), (60, &[0])]);
    for second in 1..=20 {
        let silence = ask(&mut ears, &mut patience, 0, start + Duration::from_secs(second), b"");
        assert_eq!(silence, (true, vec![]));
    }
}
