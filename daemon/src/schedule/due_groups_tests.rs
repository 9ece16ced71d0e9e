//! Devices with several groups, in virtual time.

use std::collections::BTreeSet;

use fieldspool_drivers::line;

use super::*;

#[test]
fn groups_of_one_device_keep_their_own_periods() {
    let start = Instant::now();
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: Duration::from_secs(60), points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let mut now = start;
    let mut polls = [0, 0];
    while now < start + Duration::from_secs(600) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                polls[group] += 1;
                due.polled((device, group), &Outcome::Answered { turnaround: MS }, now, now + MS);
                now += MS;
            }
        }
    }
    assert_eq!(polls, [600, 10]);
}

#[test]
fn all_groups_of_a_device_that_answers_again_are_polled_at_once_and_keep_their_grid() {
    let start = Instant::now();
    let (hour, silence) = (Duration::from_secs(3600), 100..140);
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: hour, points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let mut now = start;
    let mut hourly = Vec::new();
    while now < start + hour * 2 {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                let silent = silence.contains(&(now - start).as_secs());
                let took = if silent { TIMEOUT } else { MS };
                let outcome = if silent { Outcome::Silent } else { Outcome::Answered { turnaround: MS } };
                if group == 1 && !silent {
                    hourly.push(now - start);
                }
                due.polled((device, group), &outcome, now, now + took);
                now += took;
            }
        }
    }
    let [first, back, next] = hourly[..] else { panic!("{hourly:?}") };
    assert!((140..151).contains(&back.as_secs()), "when a probe was answered: {back:?}");
    assert!(next.abs_diff(first + hour) < TIMEOUT, "{hourly:?}");
    assert_eq!(due.take_missed(0), 0);
}

#[test]
fn a_group_whose_poll_met_a_line_that_was_down_is_polled_when_it_is_up_again() {
    let start = Instant::now();
    let (hour, down) = (Duration::from_secs(3600), 3590..3610);
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: hour, points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let mut now = start;
    let mut hourly = Vec::new();
    while now < start + hour * 2 + Duration::from_secs(10) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                let is_down = down.contains(&(now - start).as_secs());
                let outcome = if is_down { Outcome::LinkDown } else { Outcome::Answered { turnaround: MS } };
                if group == 1 && !is_down {
                    hourly.push((now - start).as_secs());
                }
                due.polled((device, group), &outcome, now, now + MS);
                now += MS;
            }
        }
    }
    let [first, up, next] = hourly[..] else { panic!("{hourly:?}") };
    assert!((3610..3670).contains(&up) && next == first + 7200, "{hourly:?}");
    assert_eq!(due.take_missed(0), 0);
}

#[test]
fn a_silent_device_is_probed_in_each_of_its_groups() {
    let start = Instant::now();
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: 10_000 * MS, points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let (mut now, mut edges) = (start, Vec::new());
    // It ignores what is asked each second, and answers the other group.
    while now < start + Duration::from_secs(120) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                let answered = Outcome::Answered { turnaround: MS };
                let (outcome, took) = if group == 0 { (Outcome::Silent, TIMEOUT) } else { (answered, MS) };
                edges.extend(due.polled((device, group), &outcome, now, now + took));
                now += took;
            }
        }
    }
    assert!(edges.contains(&Edge::Silent), "{edges:?}");
    let answering = edges.iter().filter(|edge| **edge == Edge::Answering).count();
    // It comes and goes, with growing pauses.
    assert!((5..=16).contains(&answering), "{edges:?}");
}

#[test]
fn a_held_probe_does_not_keep_the_other_groups_from_being_probed() {
    let start = Instant::now();
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: 600_000 * MS, points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let (mut now, mut back) = (start, None);
    while now < start + Duration::from_secs(120) && back.is_none() {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                let gone = now < start + Duration::from_secs(60);
                let outcome = match group {
                    _ if gone => Outcome::Silent,
                    0 => Outcome::Answered { turnaround: MS },
                    _ => Outcome::Held { until: now + 200 * MS },
                };
                let took = if gone { TIMEOUT } else { MS };
                if due.polled((device, group), &outcome, now, now + took) == Some(Edge::Answering) {
                    back = Some(now);
                }
                now += took;
            }
        }
    }
    let back = back.expect("an instrument that talks is heard").saturating_duration_since(start);
    assert!(back < Duration::from_secs(72), "{back:?}");
}

/// One device with a group each second and one each `slow` seconds; `outcome(group, second)` is what its polls bring.
/// Returns the edges with their seconds, and how often each group was polled.
fn run_two_groups(
    slow: u64,
    length: u64,
    outcome: impl Fn(usize, u64) -> Outcome,
) -> (Vec<(u64, Edge)>, [usize; 2]) {
    let start = Instant::now();
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: Duration::from_secs(slow), points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let (mut now, mut edges, mut polls) = (start, Vec::new(), [0, 0]);
    while now < start + Duration::from_secs(length) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                polls[group] += 1;
                let second = (now - start).as_secs();
                let outcome = outcome(group, second);
                let took = if outcome == Outcome::Silent { TIMEOUT } else { MS };
                let edge = due.polled((device, group), &outcome, now, now + took);
                edges.extend(edge.map(|edge| (second, edge)));
                now += took;
            }
        }
    }
    (edges, polls)
}

#[test]
fn a_group_that_is_damaged_at_each_poll_does_not_make_its_device_come_and_go() {
    let answered = Outcome::Answered { turnaround: MS };
    // Well for a minute, damaged for ten, and well again.
    let (edges, polls) = run_two_groups(60, 720, |group, second| match group {
        0 if (60..660).contains(&second) => Outcome::Damaged,
        _ => answered,
    });
    assert_eq!(edges, [(0, Edge::Answering)]);
    assert_eq!(polls, [720, 12], "and is polled on");
    // From the start: until the other group is asked nothing is known of the device.
    let (edges, _) = run_two_groups(60, 720, |group, _| if group == 0 { Outcome::Damaged } else { answered });
    assert!(matches!(edges[..], [.., (0..=3, Edge::Answering)]) && edges.len() <= 2, "{edges:?}");
}

#[test]
fn a_device_that_goes_away_on_a_noisy_line_is_silent_once_its_other_groups_have_failed_too() {
    let answered = Outcome::Answered { turnaround: MS };
    let (edges, polls) = run_two_groups(10, 300, |group, second| match group {
        _ if !(30..200).contains(&second) => answered,
        0 => Outcome::Damaged,
        _ => Outcome::Silent,
    });
    let [(0, Edge::Answering), (gone, Edge::Silent), (back, Edge::Answering)] = edges[..] else {
        panic!("{edges:?}")
    };
    assert!((30..=43).contains(&gone) && (200..=212).contains(&back), "{edges:?}");
    assert!(polls[0] < 190, "a probe that is damaged is a probe in vain: {polls:?}");
    // Nothing but damage: there is no sign that it is the device.
    let (edges, _) = run_two_groups(10, 300, |_, _| Outcome::Damaged);
    assert_eq!(edges.len(), 1, "{edges:?}");
    assert_eq!(edges[0].1, Edge::Silent);
}

#[test]
fn a_device_of_which_everything_is_damaged_is_silent_soon_though_one_group_is_polled_each_hour() {
    let answered = Outcome::Answered { turnaround: MS };
    let gone = |slow, from| {
        let outcome = |_, second| if second < from { answered } else { Outcome::Damaged };
        let (edges, _) = run_two_groups(slow, 8_000, outcome);
        let [(0, Edge::Answering), (gone, Edge::Silent)] = edges[..] else { panic!("{edges:?}") };
        gone - from
    };
    for slow in [2, 10, 60, 3_600] {
        for from in [10, 60, 500] {
            assert!(gone(slow, from) <= 73, "{slow} {from}: {}", gone(slow, from));
        }
    }
}

#[test]
fn a_group_that_is_damaged_beside_one_that_is_polled_each_hour_does_not_make_its_device_come_and_go() {
    let answered = Outcome::Answered { turnaround: MS };
    let outcome = |group, _| if group == 0 { Outcome::Damaged } else { answered };
    for slow in [60, 120, 3_600] {
        let (edges, [fast, other]) = run_two_groups(slow, 7_200, outcome);
        let known: Vec<_> = edges.iter().filter(|(second, _)| *second > 3).collect();
        assert!(known.is_empty() && edges.len() <= 2, "{slow}: {edges:?}");
        assert!(fast >= 7_198, "{slow}: {fast}");
        // After 70, 140, 280 and 560 s, and then each ten minutes.
        let at_most =
            [0, 7_200 / 420 + 1, 4 + 7_200 / 600][[60, 120, 3_600].iter().position(|s| *s == slow).unwrap()];
        let (on_its_grid, other) = (7_200 / slow, other as u64);
        assert!((on_its_grid..=on_its_grid + at_most + 1).contains(&other), "{slow}: {other}");
    }
}

#[test]
fn how_long_an_answer_counts_grows_while_damage_lasts_and_begins_anew_with_another_fault() {
    let answered = Outcome::Answered { turnaround: MS };
    let silent = |damaged: std::ops::Range<u64>, gone| {
        let outcome = move |group, second| match group {
            _ if second >= gone => Outcome::Damaged,
            0 if damaged.contains(&second) => Outcome::Damaged,
            _ => answered,
        };
        let (edges, _) = run_two_groups(3_600, gone + 2_000, outcome);
        let Some((at, Edge::Silent)) = edges.last() else { panic!("{edges:?}") };
        at - gone
    };
    let most = silent(10..8_000, 8_000);
    assert!((80..=603).contains(&most), "{most}");
    // The hourly group has just been answered in its turn.
    let anew = silent(10..3_000, 7_210);
    assert!(anew <= 73, "{anew}");
}

#[test]
fn a_group_asked_out_of_its_turn_keeps_its_grid() {
    let start = Instant::now();
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: Duration::from_secs(300), points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let (mut now, mut asked) = (start, Vec::new());
    while now < start + Duration::from_secs(1_000) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                let answered = Outcome::Answered { turnaround: MS };
                let damaged = group == 0 && now >= start + Duration::from_secs(30);
                if group == 1 {
                    asked.push(now - start);
                }
                due.polled(
                    (device, group),
                    if damaged { &Outcome::Damaged } else { &answered },
                    now,
                    now + MS,
                );
                now += MS;
            }
        }
    }
    let (first, period) = (asked[0], Duration::from_secs(300));
    for turn in 0..3 {
        assert!(asked.iter().any(|at| at.abs_diff(first + period * turn) < TIMEOUT), "{turn}: {asked:?}");
    }
    // At 70, 210 and 490 s; the grid's own answers count, too.
    assert!((5..=8).contains(&asked.len()) && due.take_missed(0) == 0, "{asked:?}");
}

#[test]
fn a_group_that_is_held_for_longer_than_its_period_or_half_a_minute_has_no_values_until_it_is_asked() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut spec = spec(1, 1000 * MS);
    spec.devices[0].groups.push(Group { period: Duration::from_secs(600), points: vec![] });
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    for group in [0, 1] {
        let first = (0..700).find(|&second| {
            due.polled((0, group), &Outcome::Held { until: at(second + 1) }, at(second), at(second));
            due.is_held_too_long((0, group), at(second))
        });
        assert_eq!(first, Some([30, 600][group]));
    }
    due.polled((0, 0), &Outcome::Answered { turnaround: MS }, at(700), at(700));
    assert!(!due.is_held_too_long((0, 0), at(700)) && due.is_held_too_long((0, 1), at(700)));
    due.polled((0, 0), &Outcome::Held { until: at(702) }, at(701), at(701));
    assert!(!due.is_held_too_long((0, 0), at(702)));
}

#[test]
fn an_instrument_that_talks_by_itself_says_when_its_sentences_are_missing_and_nobody_else_does() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut spec = spec(2, 1000 * MS);
    for (device, query) in spec.devices.iter_mut().zip([None, Some(b"S\r\n".to_vec())]) {
        device.address = Address::Line(line::Device { query, ..line::Device::default() });
    }
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    for second in 0..=60 {
        // Of the first: its sentence comes each two minutes.
        for device in [0, 1] {
            due.polled((device, 0), &Outcome::Held { until: at(second + 1) }, at(second), at(second));
        }
    }
    assert_eq!([0, 1].map(|device| due.is_held_too_long((device, 0), at(60))), [false, true]);
}

#[test]
fn instruments_that_talk_seldom_do_not_keep_another_one_of_their_line_from_being_heard() {
    let start = Instant::now();
    let mut spec = spec(3, 1000 * MS);
    for device in &mut spec.devices {
        device.address = Address::Line(line::Device::default());
    }
    let mut due = Due::new(&spec, |_, _| 1, 1000 * MS, start);
    let (mut now, mut heard) = (start, 0);
    while now < start + Duration::from_secs(60) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device: 0, group, .. } => {
                heard += 1;
                due.polled((0, group), &Outcome::Answered { turnaround: Duration::ZERO }, now, now + MS);
                now += MS;
            }
            // They say nothing, and are listened to.
            Next::Poll { device, group, deadline } => {
                let ended = deadline.max(now + MS);
                due.polled((device, group), &Outcome::Held { until: ended + 200 * MS }, now, ended);
                now = ended;
            }
        }
    }
    assert!(heard >= 59, "{heard} of 60");
    assert_eq!(due.take_missed(0), 0);
}

#[test]
fn a_silent_instrument_that_talks_by_itself_is_looked_for_each_minute_beside_others_that_leave_no_time() {
    let start = Instant::now();
    let mut spec = spec(2, 1000 * MS);
    for device in &mut spec.devices {
        device.address = Address::Line(line::Device::default());
    }
    let mut due = Due::new(&spec, |_, _| 1, 1000 * MS, start);
    let (mut now, mut probes) = (start, vec![start]);
    while now < start + Duration::from_secs(600) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, deadline } => {
                let (outcome, ended) = if device == 0 {
                    probes.push(now);
                    (Outcome::Silent, now)
                } else {
                    let ended = deadline.max(now + MS);
                    (Outcome::Held { until: ended + 200 * MS }, ended)
                };
                due.polled((device, group), &outcome, now, ended);
                now = ended;
            }
        }
    }
    probes.push(now);
    let longest = probes.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(longest <= Duration::from_secs(61), "{longest:?}: P10");
    assert!(probes.len() < 100, "{} in 10 min", probes.len());
}

#[test]
fn an_instrument_that_is_listened_to_for_longer_than_its_period_has_missed_nothing() {
    let start = Instant::now();
    let mut spec = spec(1, 100 * MS);
    spec.devices[0].address = Address::Line(line::Device::default());
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let mut now = start;
    while now < start + Duration::from_secs(20) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, deadline } => {
                due.polled((device, group), &Outcome::Answered { turnaround: MS }, now, deadline);
                now = deadline;
            }
        }
    }
    assert_eq!(due.take_missed(0), 0);
}

#[test]
fn a_line_that_is_down_is_tried_each_minute_also_where_all_is_polled_each_hour() {
    let start = Instant::now();
    let hour = Duration::from_secs(3600);
    let mut due = Due::new(&spec(2, hour), |_, _| 1, TIMEOUT, start);
    let mut now = start;
    let mut polls = Vec::new();
    while now < start + hour * 2 {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                let seconds = (now - start).as_secs();
                let is_down = seconds < 1_850;
                let outcome = if is_down { Outcome::LinkDown } else { Outcome::Answered { turnaround: MS } };
                polls.push((device, seconds));
                due.polled((device, group), &outcome, now, now + MS);
                now += MS;
            }
        }
    }
    let of = |device| polls.iter().filter(|(of, _)| *of == device).map(|(_, at)| *at).collect::<Vec<_>>();
    assert!(of(0).windows(2).all(|two| two[1] - two[0] <= 60 || two[0] >= 1_850), "{polls:?}");
    let up = |device| of(device).into_iter().filter(|at| *at >= 1_850).collect::<Vec<_>>();
    let ([first, next], [other, last]) = (&up(0)[..], &up(1)[..]) else { panic!("{polls:?}") };
    assert!(*first < 1_910 && *other < 1_910, "{polls:?}");
    assert_eq!((*next, *last), (3_600, 5_399), "each on its grid");
    assert_eq!((due.take_missed(0), due.take_missed(1)), (0, 0));
}

#[test]
fn an_instrument_that_talks_has_missed_what_another_one_kept_it_from() {
    let start = Instant::now();
    let mut spec = spec(2, 100 * MS);
    spec.devices[0].address = Address::Line(line::Device::default());
    spec.devices[1].groups[0].period = 1000 * MS;
    let mut due = Due::new(&spec, |_, _| 1, 1000 * MS, start);
    let (mut now, mut polls) = (start, 0);
    while now < start + Duration::from_secs(60) {
        match due.next(now) {
            Next::Wait(later) => now = later.max(now + MS),
            Next::Poll { device, group, .. } => {
                polls += u64::from(device == 0);
                let end = now + if device == 0 { MS } else { 900 * MS };
                due.polled((device, group), &Outcome::Answered { turnaround: MS }, now, end);
                now = end;
            }
        }
    }
    let missed = due.take_missed(0);
    assert!((580..=610).contains(&(polls + missed)), "{polls} polled, {missed} missed of 600");
}

#[test]
fn a_line_that_is_up_again_has_missed_nothing_and_does_not_burst() {
    let start = Instant::now();
    let mut due = Due::new(&spec(10, 1000 * MS), |_, _| 1, TIMEOUT, start);
    let (mut now, mut last, mut polls) = (start, [start; 10], 0);
    while now < start + Duration::from_secs(100) {
        match due.next(now) {
            Next::Wait(later) => now = later.max(now + MS),
            Next::Poll { device, group, .. } => {
                let is_down = (10..12).contains(&((now - start).as_secs() % 20));
                let outcome = if is_down { Outcome::LinkDown } else { Outcome::Answered { turnaround: MS } };
                polls += usize::from(now - last[device] < 500 * MS && polls > 9);
                last[device] = now;
                let end = now + if is_down { MS } else { 90 * MS };
                due.polled((device, group), &outcome, now, end);
                now = end;
            }
        }
    }
    assert_eq!((polls, (0..10).map(|device| due.take_missed(device)).sum::<u64>()), (0, 0));
}

#[test]
fn what_a_line_that_was_down_has_cost_does_not_keep_quick_groups_waiting() {
    let start = Instant::now();
    let mut spec = spec(50, 1000 * MS);
    for device in &mut spec.devices[10..] {
        device.groups[0].period = Duration::from_secs(3600);
    }
    let mut due = Due::new(&spec, |_, _| 1, TIMEOUT, start);
    let (mut now, mut last, mut worst, mut hourly) = (start, [None; 10], Duration::ZERO, BTreeSet::new());
    while now < start + Duration::from_secs(200) {
        match due.next(now) {
            Next::Wait(later) => now = later.max(now + MS),
            Next::Poll { device, group, .. } => {
                let is_down = (now - start).as_secs() < 60;
                let mut took = if device < 10 { 20 * MS } else { 600 * MS };
                let mut outcome = Outcome::Answered { turnaround: MS };
                if is_down {
                    (outcome, took) = (Outcome::LinkDown, MS);
                } else if let Some(last) = last.get_mut(device) {
                    worst = worst.max(last.map_or(Duration::ZERO, |at| now - at));
                    *last = Some(now);
                } else {
                    hourly.insert(device);
                }
                due.polled((device, group), &outcome, now, now + took);
                now += took;
            }
        }
    }
    assert!(worst < Duration::from_secs(3), "{worst:?}");
    assert!(hourly.len() > 1, "{hourly:?}");
}
