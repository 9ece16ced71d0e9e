//! How soon what is ignored for a short time is back, beside requests that are always ignored, in virtual time.

use super::tests::{DAY, TIMEOUT, ignored_again};
use super::*;

/// Meters that are polled each second, if the line has the time. Each makes one retry a poll.
struct Line {
    now: Instant,
    retries: Retries,
    presence: Presence,
    /// One of each meter, and it is never answered now.
    always: Vec<Ignored>,
    /// What they cost.
    cost: Duration,
}

impl Line {
    fn new(always: usize, known: bool) -> Self {
        let (now, mut presence) = (Instant::now(), Presence::default());
        let always = std::iter::repeat_with(|| {
            let known = Ignored { known, ..Ignored::default() };
            ignored_again(known, &mut presence, now)
        })
        .take(always)
        .collect();
        Self { now, retries: Retries::new(TIMEOUT), presence, always, cost: Duration::ZERO }
    }

    fn vain(&mut self, request: &mut Ignored) {
        let began = self.now;
        self.now += TIMEOUT;
        self.cost += TIMEOUT;
        request.retried(Some(Cause::Silent), began, &mut self.retries, self.now);
    }

    /// All meters are polled once.
    fn turn(&mut self) {
        self.now += Duration::from_secs(1);
        let mut always = std::mem::take(&mut self.always);
        for request in &mut always {
            if request.due(&self.retries, self.now).is_some() {
                self.vain(request);
            }
        }
        self.always = always;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// So many requests, three a meter, are ignored for so long. How long after that the last of them is back.
    fn disturbed(&mut self, requests: usize, time: Duration) -> Duration {
        let over = self.now + time;
        let new = std::iter::repeat_with(|| {
            ignored_again(Ignored { known: true, ..Ignored::default() }, &mut self.presence, self.now)
        })
        .take(requests);
        let mut meters: Vec<Vec<Ignored>> = Vec::new();
        for (number, request) in new.enumerate() {
            if number % 3 == 0 {
                meters.push(Vec::new());
            }
            meters.last_mut().unwrap().push(request);
        }
        while !meters.is_empty() {
            self.turn();
            for meter in &mut meters {
                let first =
                    (0..meter.len()).filter_map(|r| Some((meter[r].due(&self.retries, self.now)?, r))).min();
                let Some((_, request)) = first else { continue };
                if self.now < over {
                    self.vain(&mut meter[request]);
                } else {
                    meter.swap_remove(request).answered(&mut self.retries);
                }
            }
            meters.retain(|meter| !meter.is_empty());
        }
        self.now.saturating_duration_since(over)
    }
}

/// After the first of it, which waits for a turn of what is saved, a disturbance's victims come with their next polls; of those
/// that never answer each may be tried between them once for each that is back.
fn soon(always: usize, requests: usize) -> Duration {
    Duration::from_secs(10) + TIMEOUT * (SHARE + u32::try_from(always.min(requests)).unwrap())
}

#[test]
fn what_is_ignored_for_minutes_is_back_within_one_beside_many_that_are_always_ignored() {
    for always in [0, 1, 5, 20, 60] {
        for age in [60, 3_600] {
            for (requests, seconds) in [(1, 5), (90, 10), (10, 30), (30, 120), (1, 300), (90, 300)] {
                let mut line = Line::new(always, false);
                line.run(Duration::from_secs(age));
                let back = line.disturbed(requests, Duration::from_secs(seconds));
                let most = if seconds <= 10 { Duration::from_secs(15) } else { soon(always, requests) };
                assert!(back <= most, "{requests} for {seconds} s, {always} since {age} s: {back:?}");
            }
        }
    }
}

#[test]
fn what_is_saved_goes_to_the_newest_first() {
    // They were answered until an hour ago, and have not used up what is saved for each.
    for (requests, seconds) in [(1, 5), (1, 60), (10, 30), (90, 10), (90, 60)] {
        let mut line = Line::new(20, true);
        line.run(Duration::from_secs(3_600));
        assert!(line.always.iter().any(|request| request.tries < SAVED_MAX));
        let back = line.disturbed(requests, Duration::from_secs(seconds));
        assert!(back <= soon(20, requests), "{requests} for {seconds} s: {back:?}");
    }
}

#[test]
fn what_is_always_ignored_costs_its_share_and_for_a_while_twice_that() {
    for known in [false, true] {
        let mut line = Line::new(20, known);
        let mut costs = || {
            let before = line.cost;
            line.run(DAY);
            line.cost.saturating_sub(before)
        };
        let first = TIMEOUT * 20 * (1 + SAVED_MAX);
        assert!(costs() <= DAY / SHARE + first, "{known}");
        let second = costs();
        assert!(second <= DAY / SHARE + TIMEOUT * 2, "{known}: {second:?}");
    }
}

#[test]
fn what_was_never_answered_leaves_half_to_others_and_what_is_answered_for_a_while_is_new() {
    let (mut now, mut presence) = (Instant::now(), Presence::default());
    let mut retries = Retries::new(TIMEOUT);
    let mut request = ignored_again(Ignored::default(), &mut presence, now);
    let mut due_after_one_in_vain = |request: &mut Ignored| {
        now += PAUSE.0;
        request.retried(Some(Cause::Silent), now, &mut retries, now + TIMEOUT);
        now += TIMEOUT + PAUSE.0 * 2;
        retries.saved_at = Some(now + TIMEOUT * SHARE * (SAVED_MAX - 3));
        (request.due(&retries, now), now)
    };
    let (due, now) = due_after_one_in_vain(&mut request);
    assert_eq!(due, None);
    // Back, and away at once: it was tried before.
    request.answered(&mut Retries::new(TIMEOUT));
    request = ignored_again(request, &mut presence, now);
    let (due, now) = due_after_one_in_vain(&mut request);
    assert_eq!(due, Some(Turn::Spare(2)));
    assert!(request.left_out.as_ref().is_some_and(|out| out.comes_and_goes));
    for _ in 0..3 {
        request.answered(&mut Retries::new(TIMEOUT));
    }
    request = ignored_again(request, &mut presence, now);
    assert_eq!(due_after_one_in_vain(&mut request).0, Some(Turn::Spare(1)));
    assert!(request.left_out.as_ref().is_some_and(|out| !out.comes_and_goes));
}
