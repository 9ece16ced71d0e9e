//! What ignored requests cost their neighbours, in virtual time.

use super::*;

const TIMEOUT: Duration = Duration::from_secs(1);

/// A bus on which nothing else is tried again.
fn alone() -> Retries {
    Retries::default()
}

/// A retry in vain that took no time.
fn retried(ignored: &mut Ignored, now: Instant) {
    ignored.retried(None, now, &mut alone(), now);
}

/// A request that was silent three times while the device answered others.
fn left_out(presence: &mut Presence, now: Instant) -> Ignored {
    let mut ignored = Ignored::default();
    for _ in 0..IGNORED_AFTER {
        assert_eq!(ignored.leave_out(*presence, now), None);
        ignored.silent(*presence, Cause::Silent);
        presence.answered();
    }
    assert_eq!(ignored.leave_out(*presence, now), Some(Cause::Silent));
    ignored
}

#[test]
fn ignored_requests_are_tried_again_with_growing_pauses_and_are_back_with_the_first_answer() {
    let mut now = Instant::now();
    let mut presence = Presence::default();
    let mut ignored = left_out(&mut presence, now);
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        let short = Duration::from_millis(pause * 1_000 - 1);
        assert_eq!(ignored.due_since(now + short), None);
        now += Duration::from_secs(pause);
        assert_eq!(ignored.due_since(now), Some(now));
        retried(&mut ignored, now);
        presence.answered();
        assert_eq!(ignored.leave_out(presence, now), Some(Cause::Silent));
        assert_eq!((ignored.edge(), ignored.edge()), ((pause == 2).then_some(true), None), "said once");
    }
    ignored.answered();
    assert_eq!((ignored.edge(), ignored.edge()), (Some(false), None));
    assert_eq!(ignored.leave_out(presence, now), None);
}

#[test]
fn of_a_request_that_is_lost_three_times_on_a_bad_line_nothing_is_said() {
    let now = Instant::now();
    let mut ignored = left_out(&mut Presence::default(), now);
    assert_eq!(ignored.edge(), None);
    assert_eq!(ignored.due_since(now + PAUSE.0), Some(now + PAUSE.0));
    ignored.answered();
    assert_eq!(ignored.edge(), None);
}

#[test]
fn silence_of_the_whole_device_is_held_against_no_request() {
    let now = Instant::now();
    let mut presence = Presence::default();
    let mut request = Ignored::default();
    for _ in 0..2 {
        for _ in 0..100 {
            assert_eq!(request.leave_out(presence, now), None);
            request.silent(presence, Cause::Silent);
            presence.silent();
        }
        presence.answered();
    }
    assert_eq!(request.leave_out(presence, now), None, "two outages are two silences");
    request.answered();
    assert_eq!(request.times, 0);
}

#[test]
fn retries_that_were_put_off_while_a_line_was_down_do_not_follow_each_other_when_it_is_up() {
    let mut now = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::default());
    let mut requests: Vec<Ignored> = (0..10).map(|_| left_out(&mut presence, now)).collect();
    for request in &mut requests {
        request.retried(None, now, &mut retries, now + TIMEOUT);
        now += TIMEOUT;
    }
    for _ in 0..3_600 {
        now += Duration::from_secs(1);
        for request in &mut requests {
            request.put_off(&mut retries, now);
        }
    }
    for seconds in 0..600 {
        let then = now + Duration::from_secs(seconds);
        let due = requests.iter().filter(|request| request.due_since(then).is_some()).count();
        assert!(due as u64 <= 1 + seconds / 50, "{due} within {seconds} s");
    }
}

#[test]
fn what_is_held_is_due_when_it_may_be_sent() {
    let now = Instant::now();
    let mut ignored = left_out(&mut Presence::default(), now);
    let until = now + PAUSE.0 * 5;
    ignored.held(until);
    assert_eq!((ignored.due_since(now + PAUSE.0 * 4), ignored.due_since(until)), (None, Some(until)));
}

#[test]
fn what_stands_in_for_an_ignored_request_has_one_chance_and_nothing_is_said_twice() {
    let now = Instant::now();
    let mut presence = Presence::default();
    let mut ignored = left_out(&mut presence, now);
    retried(&mut ignored, now);
    assert_eq!(ignored.edge(), Some(true));
    let mut part = ignored.successor();
    assert_eq!((part.leave_out(presence, now), part.edge()), (None, None));
    part.silent(presence, Cause::Exception(11));
    presence.answered();
    assert_eq!(part.leave_out(presence, now), Some(Cause::Exception(11)));
    assert_eq!(part.edge(), None);
    let mut other = ignored.successor();
    other.answered();
    assert_eq!(other.edge(), Some(false));
    assert_eq!(Ignored::default().successor().times, 0);
}

/// A group of the tests below, of whose requests some are ignored.
struct Meter {
    period: Duration,
    due: Instant,
    /// With how often, and when last, each was tried again.
    ignored: Vec<(Ignored, u32, Instant)>,
    /// The longest time between two retries of one request.
    waited: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

/// Polls meters for a day beside neighbours that are polled each second, all of them in 0.1 s. Each meter is polled
/// at the same moment of its period. Returns what retries cost, and how many polls of the neighbours were missed.
fn day(meters: &mut [Meter], start: Instant) -> (Duration, u32) {
    let (mut now, mut due) = (start, start);
    let (mut presence, mut retries) = (Presence::default(), Retries::default());
    let (mut cost, mut missed) = (Duration::ZERO, 0);
    while now < start + DAY {
        now += Duration::from_millis(100);
        presence.answered();
        for meter in meters.iter_mut() {
            if meter.due > now {
                continue;
            }
            while meter.due <= now {
                meter.due += meter.period;
            }
            let due_since = |(request, ..): &&mut (Ignored, u32, Instant)| request.due_since(now);
            let waiting = meter.ignored.iter_mut().filter(|request| due_since(request).is_some());
            let Some((request, times, last)) = waiting.min_by_key(due_since) else { continue };
            meter.waited = meter.waited.max(now - *last);
            (*times, *last) = (*times + 1, now);
            request.retried(None, now, &mut retries, now + TIMEOUT);
            now += TIMEOUT;
            cost += TIMEOUT;
        }
        due += Duration::from_secs(1);
        while due + Duration::from_secs(1) <= now {
            due += Duration::from_secs(1);
            missed += 1;
        }
        now = now.max(due);
    }
    (cost, missed)
}

/// A group with this period and so many requests that are left out since `start`.
fn meter(period: u64, ignored: usize, start: Instant) -> Meter {
    let request = || (left_out(&mut Presence::default(), start), 0, start);
    let ignored = std::iter::repeat_with(request).take(ignored).collect();
    let period = Duration::from_secs(period);
    Meter { period, due: start + period, ignored, waited: Duration::ZERO }
}

#[test]
fn ten_neighbours_keep_their_polls_and_every_ignored_request_is_tried_in_turn() {
    let start = Instant::now();
    let mut meters: Vec<Meter> =
        [1, 1, 1, 1, 1, 1, 1, 1, 60, 3_600].map(|period| meter(period, 1, start)).into();
    let (_, missed) = day(&mut meters, start);
    assert!(missed <= 86_400 * 3 / 100, "{missed} polls missed");
    let mut retried: Vec<u32> = meters.iter().map(|meter| meter.ignored[0].1).collect();
    assert!(retried.pop().unwrap() >= 22, "the hourly one in each poll");
    let (least, most) = (*retried.iter().min().unwrap(), *retried.iter().max().unwrap());
    assert!(least >= 140 && most <= least * 2, "all have their turn: {retried:?}");
}

#[test]
fn ten_requests_that_an_hourly_group_is_ignored_for_are_tried_one_in_each_poll_beside_many_of_fast_groups() {
    let start = Instant::now();
    let mut meters: Vec<Meter> = (0..20).map(|_| meter(1, 1, start)).collect();
    meters.insert(10, meter(3_600, 10, start));
    let (cost, _) = day(&mut meters, start);
    assert!(cost <= DAY / SHARE + TIMEOUT * 30, "{cost:?}");
    let hourly = meters.remove(10);
    let retried: Vec<u32> = hourly.ignored.iter().map(|(_, times, _)| *times).collect();
    assert!(retried.iter().sum::<u32>() >= 22, "{retried:?}: one in each poll");
    assert!(retried.iter().all(|&times| (2..=3).contains(&times)), "{retried:?}: in turn");
    assert!(hourly.waited <= Duration::from_secs(36_100), "{:?}", hourly.waited);
}

#[test]
fn many_meters_that_are_polled_each_two_minutes_cost_a_bounded_share_and_each_has_its_turn() {
    let start = Instant::now();
    let mut meters: Vec<Meter> = (0..30).map(|_| meter(120, 1, start)).collect();
    let (cost, missed) = day(&mut meters, start);
    assert!(cost <= DAY / SHARE + TIMEOUT * 30, "{cost:?} of a day");
    assert!(missed <= 86_400 * 3 / 100, "{missed} polls missed");
    for (index, meter) in meters.iter().enumerate() {
        assert!(meter.waited <= TIMEOUT * SHARE * 30 + meter.period * 2, "{index}: {:?}", meter.waited);
        assert!(meter.ignored[0].1 >= 40, "{index}: {}", meter.ignored[0].1);
    }
}
