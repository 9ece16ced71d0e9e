//! What ignored requests cost their neighbours, in virtual time.

use super::*;

pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// A bus on which nothing else is tried again.
fn alone() -> Retries {
    Retries::new(TIMEOUT)
}

/// A retry in vain that took no time.
fn retried(ignored: &mut Ignored, now: Instant) {
    ignored.retried(Some(Cause::Silent), now, &mut alone(), now);
}

/// A request that was silent three times while the device answered others.
pub(super) fn left_out(presence: &mut Presence, now: Instant) -> Ignored {
    ignored_again(Ignored::default(), presence, now)
}

/// The same of one of which something is known.
pub(super) fn ignored_again(mut ignored: Ignored, presence: &mut Presence, now: Instant) -> Ignored {
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
        assert_eq!(ignored.due(&alone(), now + short), None);
        now += Duration::from_secs(pause);
        assert_eq!(ignored.due(&alone(), now), Some(Turn::Booked(now)));
        retried(&mut ignored, now);
        presence.answered();
        assert_eq!(ignored.leave_out(presence, now), Some(Cause::Silent));
        assert_eq!((ignored.edge(), ignored.edge()), ((pause == 2).then_some(true), None), "said once");
    }
    ignored.answered(&mut alone());
    assert_eq!((ignored.edge(), ignored.edge()), (Some(false), None));
    assert_eq!(ignored.leave_out(presence, now), None);
}

#[test]
fn of_a_request_that_is_lost_three_times_on_a_bad_line_nothing_is_said() {
    let now = Instant::now();
    let mut ignored = left_out(&mut Presence::default(), now);
    assert_eq!(ignored.edge(), None);
    assert_eq!(ignored.due(&alone(), now + PAUSE.0), Some(Turn::Booked(now + PAUSE.0)));
    ignored.answered(&mut alone());
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
    request.answered(&mut alone());
    assert_eq!(request.times, 0);
}

#[test]
fn retries_that_were_put_off_while_a_line_was_down_do_not_follow_each_other_when_it_is_up() {
    let mut now = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
    let mut requests: Vec<Ignored> = (0..30).map(|_| left_out(&mut presence, now)).collect();
    now += PAUSE.0;
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
    let (up, mut tried) = (now, 0);
    while now < up + Duration::from_secs(600) {
        now += Duration::from_secs(1);
        for request in &mut requests {
            if request.due(&retries, now).is_some() {
                request.retried(Some(Cause::Silent), now, &mut retries, now + TIMEOUT);
                (now, tried) = (now + TIMEOUT, tried + 1);
            }
        }
        // One that is late, what was saved, and a turn of each kind in its time.
        let most = 1 + SAVED_MAX + 2 * u32::try_from((now - up).as_secs()).unwrap() / SHARE;
        assert!(tried <= most, "{tried} within {:?}", now - up);
    }
}

#[test]
fn what_is_held_is_due_when_it_may_be_sent() {
    let now = Instant::now();
    let mut ignored = left_out(&mut Presence::default(), now);
    let until = now + PAUSE.0 * 5;
    ignored.held(until);
    assert_eq!(
        (ignored.due(&alone(), now + PAUSE.0 * 4), ignored.due(&alone(), until)),
        (None, Some(Turn::Booked(until)))
    );
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
    other.answered(&mut alone());
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

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Polls meters for a day beside neighbours that are polled each second, all of them in 0.1 s. Each meter is polled
/// at the same moment of its period. Returns what retries cost, and how many polls of the neighbours were missed.
fn day(meters: &mut [Meter], start: Instant) -> (Duration, u32) {
    let (mut now, mut due) = (start, start);
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
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
            let due = |(request, ..): &&mut (Ignored, u32, Instant)| request.due(&retries, now);
            let waiting = meter.ignored.iter_mut().filter(|request| due(request).is_some());
            let Some((request, times, last)) = waiting.min_by_key(due) else { continue };
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

/// What so many requests may cost in so long a time that are ignored for all of it: a share, the first of each, and what is
/// saved for new ones.
fn fixed(requests: u32, time: Duration) -> Duration {
    time / SHARE + TIMEOUT * requests * (1 + SAVED_MAX)
}

/// What so many requests may cost at most, whatever they do, if each is left out once: two shares, the first of each, and what was
/// saved before.
fn most(requests: u32, time: Duration) -> Duration {
    time / SHARE * 2 + TIMEOUT * (requests + SAVED_MAX)
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
    assert!(cost <= fixed(30, DAY), "{cost:?}");
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
    assert!(cost <= fixed(30, DAY), "{cost:?} of a day");
    assert!(missed <= 86_400 * 3 / 100, "{missed} polls missed");
    for (index, meter) in meters.iter().enumerate() {
        assert!(meter.waited <= TIMEOUT * SHARE * 30 + meter.period * 2, "{index}: {:?}", meter.waited);
        assert!(meter.ignored[0].1 >= 40, "{index}: {}", meter.ignored[0].1);
    }
}

/// Meters with requests that are left out since `start`, three each, polled in this period one after the other. The
/// device answers the request with this number at this time if `answers` says so; what it never answers has been tried
/// for long. Runs until `end`. Returns when each was back, and what retries in vain cost.
fn disturbed(
    meters: usize,
    period: Duration,
    end: Instant,
    answers: impl Fn(usize, Instant) -> bool,
) -> (Vec<Option<Instant>>, Duration) {
    let mut now = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
    let mut requests: Vec<Ignored> = (0..meters * 3).map(|_| left_out(&mut presence, now)).collect();
    for (_, request) in requests.iter_mut().enumerate().filter(|(number, _)| !answers(*number, end)) {
        for _ in 0..5 {
            retried(request, now);
        }
    }
    let (mut back, mut cost) = (vec![None; requests.len()], Duration::ZERO);
    for meter in (0..meters).cycle() {
        now += period / u32::try_from(meters).unwrap();
        if now >= end {
            break;
        }
        let of_meter = meter * 3..meter * 3 + 3;
        let first = of_meter.filter_map(|r| Some((requests[r].due(&retries, now)?, r))).min();
        let Some((_, request)) = first else { continue };
        if answers(request, now) {
            requests[request].answered(&mut retries);
            back[request] = Some(now);
        } else {
            let began = now;
            now += TIMEOUT;
            cost += TIMEOUT;
            requests[request].retried(None, began, &mut retries, now);
        }
    }
    (back, cost)
}

#[test]
fn after_a_disturbance_all_requests_of_a_bus_are_back_within_a_minute() {
    for (seconds, period) in [(60, 1), (600, 1), (600, 10), (7_200, 10)] {
        let over = Instant::now() + Duration::from_secs(seconds);
        let (period, end) = (Duration::from_secs(period), over + Duration::from_secs(3_600));
        let (back, cost) = disturbed(30, period, end, |_, now| now >= over);
        // The first comes in its booked turn, at most 50 s later, and each meter has one retry in each poll.
        let latest = over + TIMEOUT * SHARE + period * 4;
        assert!(
            back.iter().all(|back| back.is_some_and(|at| at <= latest)),
            "{seconds} {period:?}: {back:?}"
        );
        assert!(cost <= most(92, Duration::from_secs(seconds)), "{seconds}: {cost:?}");
    }
}

#[test]
fn a_disturbance_that_some_requests_never_come_back_from_costs_its_bound_and_the_others_are_back_soon() {
    let over = Instant::now() + Duration::from_secs(600);
    let end = over + DAY;
    // Of each meter one request was never there.
    let (back, cost) = disturbed(30, Duration::from_secs(1), end, |r, now| now >= over && r % 3 != 1);
    let last = back.iter().flatten().max().unwrap();
    assert_eq!(back.iter().flatten().count(), 60);
    assert!(*last <= over + TIMEOUT * SHARE + Duration::from_secs(10), "{:?}", *last - over);
    let victims = most(60, Duration::from_secs(600)) + TIMEOUT * SPARE_MAX;
    assert!(cost <= fixed(30, DAY) + victims, "{cost:?}");
}

#[test]
fn requests_that_come_and_go_do_not_make_the_others_cost_more_than_their_share() {
    let start = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
    let mut never: Vec<Ignored> = (0..10).map(|_| left_out(&mut presence, start)).collect();
    let mut sometimes: Vec<Ignored> = (0..10).map(|_| left_out(&mut presence, start)).collect();
    let (mut now, mut cost, mut last) = (start, Duration::ZERO, vec![start; 10]);
    let mut waited = Duration::ZERO;
    while now < start + DAY {
        now += Duration::from_secs(1);
        for (request, last) in never.iter_mut().zip(&mut last) {
            if request.due(&retries, now).is_some() {
                waited = waited.max(now - *last);
                *last = now;
                request.retried(Some(Cause::Silent), now, &mut retries, now + TIMEOUT);
                (now, cost) = (now + TIMEOUT, cost + TIMEOUT);
            }
        }
        for request in &mut sometimes {
            if request.due(&retries, now).is_none() {
                continue;
            }
            // Each second retry is answered, and then it is ignored again.
            if request.left_out.as_ref().is_some_and(|out| out.cost.is_zero()) {
                request.retried(Some(Cause::Silent), now, &mut retries, now + TIMEOUT);
                now += TIMEOUT;
            } else {
                request.answered(&mut retries);
                *request = ignored_again(request.clone(), &mut presence, now);
            }
        }
    }
    assert!(cost <= fixed(10, DAY), "{cost:?}");
    assert!(waited <= TIMEOUT * SHARE * 20 + TIMEOUT * 60, "{waited:?}");
}

#[test]
fn what_requests_had_booked_that_are_back_does_not_stand_before_others() {
    let now = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
    let mut requests: Vec<Ignored> = (0..90).map(|_| left_out(&mut presence, now)).collect();
    let now = now + PAUSE.0;
    for request in &mut requests {
        request.retried(Some(Cause::Silent), now, &mut retries, now + TIMEOUT);
    }
    for request in &mut requests {
        request.answered(&mut retries);
    }
    let booked = retries.booked.unwrap() - now;
    assert!(booked <= TIMEOUT * SHARE * (SPARE_MAX + 1), "{booked:?}");
    assert_eq!(retries.spare, TIMEOUT * SPARE_MAX);
}

#[test]
fn a_retry_with_which_the_line_goes_down_books_like_one_that_takes_its_whole_time() {
    let start = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
    let (mut request, now) = (left_out(&mut presence, start), start + PAUSE.0);
    request.retried(None, now, &mut retries, now + Duration::from_millis(1));
    let is_booked = |turn| matches!(turn, Some(Turn::Booked(_)));
    assert!(!is_booked(request.due(&retries, now + TIMEOUT * (SHARE - 1))));
    assert!(is_booked(request.due(&retries, now + TIMEOUT * (SHARE + 1))));
    let now = now + TIMEOUT * (SHARE - 1);
    request.retried(None, now, &mut retries, now + Duration::from_millis(1));
    assert!(
        retries.saved_at.is_some_and(|at| at >= now + TIMEOUT * SHARE),
        "and takes as much of what is saved"
    );
}

#[test]
fn a_process_that_was_stopped_during_a_retry_books_no_more_than_a_request_can_take() {
    let start = Instant::now();
    let (mut presence, mut retries) = (Presence::default(), Retries::new(TIMEOUT));
    let mut requests = [left_out(&mut presence, start), left_out(&mut presence, start)];
    let now = start + DAY;
    for request in &mut requests {
        request.retried(Some(Cause::Silent), start + PAUSE.0, &mut retries, now);
    }
    assert!(requests.iter().all(|request| request.due(&retries, now + TIMEOUT * SHARE * 2).is_some()));
}
