//! The schedule in virtual time: a line that answers, or does not, as told.

use super::*;
use fieldspool_drivers::bus::Group;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_millis(300);

fn spec(devices: usize, period: Duration) -> BusSpec {
    crate::schedule::testing::bus_spec(devices, period)
}

/// Runs the schedule for `length`; `answers(device, now)` says how long a device takes, or `None` for silence.
/// Returns the starts of polls by device and the time the line was in use for silent ones.
fn run(
    due: &mut Due,
    start: Instant,
    length: Duration,
    answers: impl Fn(usize, Instant) -> Option<Duration>,
) -> (Vec<Vec<Instant>>, Duration) {
    let mut now = start;
    let mut polls = vec![Vec::new(); due.health.len()];
    let mut wasted = Duration::ZERO;
    while now < start + length {
        match due.next(now) {
            Next::Wait(until) => now = until.max(now + Duration::from_micros(1)),
            Next::Poll { device, group, deadline } => {
                polls[device].push(now);
                let (end, outcome) = match answers(device, now) {
                    Some(took) => (now + took, Outcome::Answered { turnaround: took }),
                    None => (deadline, Outcome::Silent),
                };
                if outcome == Outcome::Silent {
                    wasted += end - now;
                }
                due.polled((device, group), &outcome, now, end);
                now = end;
            }
        }
    }
    (polls, wasted)
}

#[test]
fn polls_keep_their_grid_although_the_line_takes_its_time() {
    let start = Instant::now();
    let mut due = Due::new(&spec(10, 1000 * MS), |_, _| 1, TIMEOUT, start);
    let (polls, _) = run(&mut due, start, Duration::from_secs(600), |_, _| Some(3 * MS));
    for (device, times) in polls.iter().enumerate() {
        assert_eq!(times.len(), 600, "device {device}");
        let phase = times[0] - start;
        for (k, time) in times.iter().enumerate() {
            let ideal = start + phase + 1000 * MS * u32::try_from(k).unwrap();
            assert!(*time >= ideal && *time - ideal < 4 * MS, "device {device} drifted at poll {k}");
        }
    }
    let phases: std::collections::BTreeSet<_> =
        polls.iter().map(|times| (times[0] - start).as_millis()).collect();
    assert_eq!(phases.len(), 10, "phases are spread");
}

#[test]
fn a_silent_unit_costs_its_neighbours_nothing_and_at_most_its_share() {
    for silent in 1..=9 {
        let start = Instant::now();
        let mut due = Due::new(&spec(10, 1000 * MS), |_, _| 1, TIMEOUT, start);
        let length = Duration::from_secs(600);
        let (polls, wasted) = run(&mut due, start, length, |device, _| (device >= silent).then_some(5 * MS));
        for times in &polls[silent..] {
            assert!(times.len() >= 590, "{} of 600 polls with {silent} silent", times.len());
            let late = times.windows(2).filter(|w| (w[1] - w[0]).abs_diff(1000 * MS) > 100 * MS).count();
            assert!(late <= 10 + silent * 2, "{late} late polls with {silent} silent");
        }
        let share = wasted.as_secs_f64() / length.as_secs_f64();
        assert!(share <= SILENT_SHARE + 0.02, "silent devices cost {share:.3} with {silent} silent");
        assert!(share > 0.0, "they are probed");
    }
}

#[test]
fn a_device_is_found_again_within_ten_seconds_where_probes_fit() {
    let start = Instant::now();
    let back = start + Duration::from_secs(300);
    let mut due = Due::new(&spec(5, 2000 * MS), |_, _| 1, TIMEOUT, start);
    let (polls, _) = run(&mut due, start, Duration::from_secs(330), |device, now| {
        (device != 0 || now >= back).then_some(5 * MS)
    });
    let found = polls[0].iter().find(|t| **t >= back).expect("probed after its return");
    assert!(*found - back <= Duration::from_secs(11), "found after {:?}", *found - back);
    let after = polls[0].iter().filter(|t| **t > *found).count();
    assert!(after >= 8, "back on its grid: {after} polls");
}

#[test]
fn one_of_many_silent_devices_is_found_again_after_five_times_their_timeouts() {
    let (start, timeout) = (Instant::now(), 1000 * MS);
    for length in 600..630 {
        let back = start + Duration::from_secs(length);
        let mut due = Due::new(&spec(30, 10_000 * MS), |_, _| 1, timeout, start);
        let (polls, _) = run(&mut due, start, Duration::from_secs(length + 200), |device, now| {
            (device == 0 || device == 15 && now >= back).then_some(5 * MS)
        });
        let found = polls[15].iter().find(|at| **at >= back).expect("probed after its return");
        let most = timeout * 29 * 5 + timeout * 2;
        assert!(*found - back <= most, "found after {:?}", *found - back);
    }
}

#[test]
fn where_no_probe_fits_one_poll_in_two_minutes_is_delayed() {
    let start = Instant::now();
    let mut due = Due::new(&spec(4, 200 * MS), |_, _| 1, TIMEOUT, start);
    let (polls, wasted) =
        run(&mut due, start, Duration::from_secs(1200), |device, _| (device != 0).then_some(5 * MS));
    let probes = polls[0].len() - 2;
    assert!((8..=12).contains(&probes), "{probes} probes in 20 minutes");
    assert!(wasted < TIMEOUT * 14);
}

#[test]
fn an_overloaded_line_counts_what_it_missed_and_never_bursts() {
    let start = Instant::now();
    let mut due = Due::new(&spec(4, 100 * MS), |_, _| 1, TIMEOUT, start);
    let (polls, _) = run(&mut due, start, Duration::from_secs(60), |_, _| Some(50 * MS));
    let made: usize = polls.iter().map(Vec::len).sum();
    assert!((1_150..=1_210).contains(&made), "the line carries 20 polls a second: {made}");
    for (device, times) in polls.iter().enumerate() {
        assert!((280..=320).contains(&times.len()), "shared fairly: device {device} had {}", times.len());
        assert!(times.windows(2).all(|w| w[1] - w[0] >= 50 * MS), "no burst");
        let missed = due.take_missed(device);
        assert!((270..=330).contains(&missed), "device {device} missed {missed}");
        assert_eq!(due.take_missed(device), 0, "told once");
    }
}

#[test]
fn a_held_group_waits_and_its_neighbours_do_not() {
    let start = Instant::now();
    let mut due = Due::new(&spec(2, 1000 * MS), |_, _| 1, TIMEOUT, start);
    let Next::Poll { device: 0, group, .. } = due.next(start) else { panic!("device 0 is first") };
    let until = start + 2500 * MS;
    due.polled((0, group), &Outcome::Held { until }, start, start);
    let mut now = start;
    let mut first_again = None;
    while now < start + Duration::from_secs(5) {
        match due.next(now) {
            Next::Wait(later) => now = later,
            Next::Poll { device, group, .. } => {
                if device == 0 && first_again.is_none() {
                    first_again = Some(now);
                }
                due.polled((device, group), &Outcome::Answered { turnaround: MS }, now, now + MS);
                now += MS;
            }
        }
    }
    assert_eq!(first_again, Some(until));
    assert_eq!(
        (due.take_missed(0), due.take_missed(1)),
        (0, 0),
        "the line had time for it: nothing is missed"
    );
}

#[test]
fn one_lost_frame_is_not_an_edge() {
    let start = Instant::now();
    let mut due = Due::new(&spec(1, 1000 * MS), |_, _| 1, TIMEOUT, start);
    let answered = Outcome::Answered { turnaround: MS };
    assert_eq!(due.polled((0, 0), &answered, start, start), Some(Edge::Answering));
    assert_eq!(due.polled((0, 0), &Outcome::Silent, start, start), None);
    assert_eq!(due.polled((0, 0), &answered, start, start), None);
    assert_eq!(due.polled((0, 0), &Outcome::Silent, start, start), None);
    assert_eq!(due.polled((0, 0), &Outcome::LinkDown, start, start), None, "the line, not the device");
    assert_eq!(due.polled((0, 0), &Outcome::Silent, start, start), Some(Edge::Silent));
    assert!(due.is_silent(0));
}

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
fn a_device_that_is_lost_for_a_moment_each_few_minutes_is_found_again_at_once() {
    let start = Instant::now();
    let mut due = Due::new(&spec(1, 1000 * MS), |_, _| 1, TIMEOUT, start);
    let (polls, _) = run(&mut due, start, Duration::from_secs(3_000), |_, now| {
        let second = (now - start).as_secs() % 240;
        (!(200..=203).contains(&second)).then_some(MS)
    });
    let gaps = polls[0].windows(2).filter(|polls| polls[1] - polls[0] > 3000 * MS).count();
    assert_eq!(gaps, 0, "it answered for minutes: its probes begin anew");
}

#[test]
fn a_silent_device_on_a_line_that_is_down_is_not_asked_without_end() {
    // A device that was switched off: silent first, then its connection is refused at once, for minutes.
    let start = Instant::now();
    let mut due = Due::new(&spec(1, 1000 * MS), |_, _| 1, TIMEOUT, start);
    for _ in 0..2 {
        due.polled((0, 0), &Outcome::Silent, start, start);
    }
    assert!(due.is_silent(0));
    let (mut now, mut polls) = (start, 0);
    while now < start + Duration::from_secs(60) && polls < 1_000 {
        match due.next(now) {
            Next::Wait(until) => now = until,
            Next::Poll { device, group, .. } => {
                polls += 1;
                due.polled((device, group), &Outcome::LinkDown, now, now);
            }
        }
    }
    assert!((10..=130).contains(&polls), "{polls} polls in a minute");
}

#[test]
fn on_a_line_without_a_free_moment_a_silent_device_is_still_found_again() {
    let start = Instant::now();
    let back = start + Duration::from_secs(300);
    let mut due = Due::new(&spec(4, 100 * MS), |_, _| 1, TIMEOUT, start);
    let (polls, _) = run(&mut due, start, Duration::from_secs(600), |device, now| {
        (device != 0 || now >= back).then_some(50 * MS)
    });
    let found = polls[0].iter().find(|t| **t >= back).expect("probed after its return");
    assert!(*found - back <= PROBE_ANYWAY + Duration::from_secs(1), "found after {:?}", *found - back);
}
