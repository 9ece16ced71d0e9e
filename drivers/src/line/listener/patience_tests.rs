//! What waiting in vain costs a line of many instruments, and what those have that do come. By simulated hours: no port, no
//! clock. Ears, and what they are told, are those of the tests of the listener.

use std::time::{Duration, Instant};

use super::{ask, ears_of, say};
use crate::line::listener::Listener;
use crate::line::patience::{Kind, Patience};
use crate::value::Cause;

/// Instruments of one line, each polled once a period, in turn, for a sentence that `comes(instrument, second)` says. A wait
/// in vain takes the line two time-outs. What it cost in each hour, and the seconds at which each instrument had it.
fn run_line(
    (count, period, timeout): (usize, u64, u64),
    hours: u64,
    comes: impl Fn(usize, u64) -> Answer,
) -> (Vec<u64>, Vec<Vec<u64>>, Vec<Vec<u64>>) {
    let start = Instant::now();
    let mut patience = Patience::new(Duration::from_secs(timeout));
    let mut all: Vec<Listener> = (0..count).map(|_| ears_of(start, 4, &[(1, &[1]), (60, &[0])])).collect();
    let (mut cost, mut had, mut waited) = (Vec::new(), vec![Vec::new(); count], vec![Vec::new(); count]);
    let mut now = 0;
    for second in 0..hours * 3_600 {
        if second.is_multiple_of(3_600) {
            cost.push(0);
        }
        for (index, ears) in all.iter_mut().enumerate() {
            // The line is one: who is polled while it waits is polled after that.
            if !(second + index as u64).is_multiple_of(period) {
                continue;
            }
            now = now.max(second);
            let answer = comes(index, now);
            let line: &[u8] = match answer {
                Answer::Without => b"$WIMWV,1\r\n",
                Answer::Before => b"$WIMDA,2\r\n$WIMWV,1\r\n",
                Answer::Behind => b"$WIMWV,1\r\n$WIMDA,2\r\n",
            };
            let at = start + Duration::from_secs(now);
            ears.asks(0, &mut patience, at);
            // What comes behind is heard only if it is waited for.
            let (first, second) = line.split_at(if answer == Answer::Behind { 10 } else { line.len() });
            say(ears, first, at);
            if !ears.is_answered(0, at) {
                say(ears, second, at);
            }
            if ears.take(0, at, Cause::Silent).began.is_some() {
                had[index].push(now);
            } else if !ears.is_answered(0, at) {
                ears.waited(0, &mut patience, at);
                waited[index].push(now);
                *cost.last_mut().unwrap() += 2 * timeout;
                now += 2 * timeout;
            }
        }
    }
    (cost, had, waited)
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Without,
    Before,
    Behind,
}

/// How long after `at` the last of these instruments had its sentence again.
fn last_back(had: &[Vec<u64>], at: u64) -> u64 {
    let back = |had: &Vec<u64>| had.iter().find(|had| **had >= at).map_or(u64::MAX, |had| had - at);
    had.iter().map(back).max().unwrap()
}

#[test]
fn sentences_that_do_not_come_cost_a_line_a_twentieth_of_its_time_however_many_they_are() {
    use Answer::*;
    for (count, period, timeout, hours) in
        [(1, 2, 1, 3), (10, 10, 1, 3), (30, 30, 1, 3), (1, 10, 10, 8), (20, 60, 10, 10), (30, 600, 1, 8)]
    {
        let comes: [&dyn Fn(usize, u64) -> Answer; 8] = [
            &|_, _| Without,
            // Each second, third or twentieth answer has it, or all of one minute of two.
            &|_, second| if second / period % 2 == 0 { Behind } else { Without },
            &|_, second| if second / period % 3 == 0 { Before } else { Without },
            &|_, second| if second / period % 20 == 0 { Before } else { Without },
            &|_, second| if second / 60 % 2 == 0 { Behind } else { Without },
            // Half of them never, the others come and go, or go for an hour.
            &|index, second| if index % 2 == 1 && second / period % 3 == 0 { Before } else { Without },
            &|index, second| if index % 2 == 1 && second % 4_200 < 600 { Behind } else { Without },
            // All are heard and go; one comes again, when the others have been away for an hour.
            &|index, second| {
                if second < 600 || index == 0 && !(2_400..4_000).contains(&second) { Behind } else { Without }
            },
        ];
        for (kind, comes) in comes.iter().enumerate() {
            let (cost, _, waited) = run_line((count, period, timeout), hours, comes);
            // What never comes has a sixtieth. In the first hour also what is saved on both, and one to three waits for each.
            let share = if kind == 0 { 60 } else { 180 };
            let saved = 2 * 15.max(3 * 2 * timeout);
            let of_each = count as u64 * 2 * timeout;
            let later: u64 = cost[1..].iter().sum();
            assert!(cost[0] <= share + saved + 3 * of_each, "{count} {period} {timeout} {kind}: {cost:?}");
            assert!(later <= (hours - 1) * share * 5 / 4, "{count} {period} {timeout} {kind}: {cost:?}");
            if kind == 0 {
                assert!(waited.iter().all(|waits| waits.len() >= 2), "each is tried again: {waited:?}");
            }
        }
    }
}

#[test]
fn what_was_away_for_less_than_an_hour_is_back_after_a_minute_however_many_others_never_come() {
    use Answer::*;
    let from = 3_600;
    for (never, others, timeout) in [(0, 20, 1), (1, 20, 1), (10, 20, 1), (10, 1, 1), (10, 1, 10)] {
        for away in [60, 90, 600] {
            let gone = from..from + away;
            let comes = |i: usize, second| if i < never || gone.contains(&second) { Without } else { Behind };
            let (_, had, _) = run_line((never + others, 10, timeout), 2, comes);
            let last = last_back(&had[never..], gone.end);
            // The pause, later the time between two turns; the next poll, and a wait for another before it.
            let turn = if away <= 60 { 60 } else { 60 * timeout };
            assert!(last <= turn + 10 + 2 * timeout, "{never} {others} {timeout} {away}: {last} s");
        }
    }
}

#[test]
fn what_was_away_for_longer_stands_in_line_with_what_never_comes_until_the_first_of_it_comes() {
    use Answer::*;
    let (from, to) = (60, 4_000);
    for (never, others) in [(0, 1), (0, 30), (1, 29), (2, 28)] {
        let gone = |index, second| index < never || (from..to).contains(&second);
        let comes = |index, second| if gone(index, second) { Without } else { Behind };
        let (_, had, _) = run_line((never + others, 10, 1), 2, comes);
        let last = last_back(&had[never..], to);
        assert!(last <= 120 * (1 + never as u64) + 20, "{never} {others}: {last} s");
    }
}

#[test]
fn lost_lines_cost_a_sentence_few_polls_however_many_others_never_come() {
    use Answer::*;
    for (never, timeout) in [(0_usize, 1_u64), (1, 1), (2, 1), (10, 1), (1, 3), (1, 10)] {
        // Of the last instrument this many lines in a row are lost, at its 200th poll and after each so many.
        for (lost, every) in [(1, 4_000), (2, 4_000), (1, 500), (3, 4_000)] {
            let polls = std::cell::Cell::new(0_u64);
            let is_lost = |poll: u64| poll.checked_sub(200).is_some_and(|since| since % every < lost);
            let comes = |index: usize, _| {
                polls.set(polls.get() + u64::from(index == never));
                if index < never || is_lost(polls.get()) { Without } else { Behind }
            };
            let (_, had, _) = run_line((never + 1, 1, timeout), 1, comes);
            let had = &had[never];
            let longest = had.windows(2).map(|two| two[1] - two[0]).max().unwrap();
            // The waits for its own, and one for each other; three in a row and it is given up, for a minute.
            let pause = if lost == 3 { 60 } else { 0 };
            let bound = pause + 1 + 2 * timeout * (lost + 1 + never as u64);
            assert!(longest <= bound, "{never} {timeout} {lost} {every}: {longest} s");
            if lost < 3 {
                let good = (1..=polls.get()).filter(|poll| !is_lost(*poll)).count();
                assert_eq!(had.len(), good, "{never} {timeout} {lost} {every}");
            }
        }
    }
}

#[test]
fn to_open_the_port_anew_makes_no_sentence_one_of_those_that_never_come() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut patience = Patience::new(Duration::from_secs(1));
    let mut ears = ears_of(start, 4, &[(1, &[1])]);
    assert!(!ask(&mut ears, &mut patience, 0, at(1), b"$WIMDA,2\r\n").0);
    while !patience.is_spent(Kind::Lost, at(2)) {
        patience.charge(Kind::Lost, at(2));
    }
    ears.opened(at(2));
    for second in 3..=5 {
        assert!(ask(&mut ears, &mut patience, 0, at(second), b"$WIMWV,1\r\n").0, "it is not given up yet");
    }
    assert!(!ask(&mut ears, &mut patience, 0, at(6), b"$WIMWV,1\r\n").0);
}
