//! What waiting in vain costs a line of many instruments, and what those have that do come. By simulated hours: no port, no
//! clock. Ears, and what they are told, are those of the tests of the listener.

use std::time::{Duration, Instant};

use super::{ears_of, say};
use crate::line::listener::Listener;
use crate::line::patience::Patience;
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

#[test]
fn sentences_that_do_not_come_cost_a_line_a_thirtieth_of_its_time_however_many_they_are() {
    use Answer::*;
    for (count, period, timeout) in
        [(1, 1, 1), (10, 1, 1), (60, 10, 1), (1, 10, 10), (20, 60, 10), (30, 600, 1)]
    {
        let comes: [&dyn Fn(usize, u64) -> Answer; 6] = [
            &|_, _| Without,
            // Each second, third or twentieth answer has it, or all of one minute of two.
            &|_, second| if second % 2 == 0 { Behind } else { Without },
            &|_, second| if second / period % 3 == 0 { Before } else { Without },
            &|_, second| if second / period % 20 == 0 { Before } else { Without },
            &|_, second| if second / 60 % 2 == 0 { Behind } else { Without },
            // Half of them never, the others come and go.
            &|index, second| if index % 2 == 1 && second / period % 3 == 0 { Before } else { Without },
        ];
        for (kind, comes) in comes.iter().enumerate() {
            let (cost, _, waited) = run_line((count, period, timeout), 10, comes);
            // At first also what is saved, and some waits of each until all stand in line; one is in each first poll.
            let (first, later) = cost.split_at(4);
            let of_each = count as u64 * 2 * timeout;
            let (first, later) = (first.iter().sum::<u64>(), later.iter().sum::<u64>());
            assert!(first <= 4 * 120 + 60 + 3 * of_each, "{count} {period} {timeout} {kind}: {cost:?}");
            assert!(later <= 6 * 120 * 5 / 4, "{count} {period} {timeout} {kind}: {cost:?}");
            if kind == 0 {
                assert!(waited.iter().all(|waits| waits.len() >= 2), "each is tried again: {waited:?}");
            }
        }
    }
}

#[test]
fn sentences_that_come_again_after_a_fault_of_many_come_soon_after_the_first() {
    use Answer::*;
    let (from, to) = (60, 4_000);
    let comes = |_, second| if (from..to).contains(&second) { Without } else { Behind };
    let (_, had, _) = run_line((30, 10, 1), 2, comes);
    let back = |had: &Vec<u64>| had.iter().find(|at| **at >= to).unwrap() - to;
    let last = had.iter().map(back).max().unwrap();
    assert!(
        last <= 60 + 70,
        "{last} s after the end of the fault: {:?}",
        had.iter().map(back).collect::<Vec<_>>()
    );
    // One alone is tried once in two minutes when nothing is saved any more.
    let (_, had, _) = run_line((1, 10, 1), 2, comes);
    assert!(back(&had[0]) <= 120, "{}", back(&had[0]));
}

#[test]
fn one_lost_line_costs_a_sentence_few_polls_however_many_others_never_come() {
    use Answer::*;
    for (count, timeout) in [(1_usize, 1_u64), (2, 1), (3, 1), (11, 1), (2, 3)] {
        // Of the last instrument one line is lost after two hours, or then each 500th; of the others none ever comes.
        for every in [u64::MAX, 500] {
            let polls = std::cell::Cell::new(0_u64);
            let comes = |index: usize, _| {
                if index + 1 < count {
                    return Without;
                }
                polls.set(polls.get() + 1);
                let lost = polls.get().checked_sub(7_000).is_some_and(|since| since % every == 0);
                if lost { Without } else { Behind }
            };
            let (_, had, _) = run_line((count, 1, timeout), 4, comes);
            let had = &had[count - 1];
            let gap = had.windows(2).map(|two| two[1] - two[0]).filter(|gap| *gap > 2 * timeout + 1);
            let (longest, lost) = (gap.clone().max().unwrap_or(0), polls.get() - had.len() as u64);
            // Two waits: its own, and one for another.
            assert!(had.len() > 10_000 && lost <= 20, "{count} {timeout} {every}: {lost} lost");
            assert!(
                longest <= 4 * timeout + 2 + 2 * timeout * count as u64,
                "{count} {timeout} {every}: {longest} s"
            );
        }
    }
}
