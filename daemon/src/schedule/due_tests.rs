//! The schedule in virtual time: a line that answers, or does not, as told.

use super::*;
use fieldspool_drivers::bus::Group;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_millis(300);

#[path = "due_groups_tests.rs"]
mod groups;

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
