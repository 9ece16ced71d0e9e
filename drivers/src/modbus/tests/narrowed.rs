//! For how long a request stays narrowed, in virtual time.

use super::peer::TIMEOUT;
use super::retries::{leave_out, plan};
use super::*;
use crate::modbus::client::Plan;
use crate::modbus::ignored::{Presence, Retries};

const HOUR: Duration = Duration::from_secs(3_600);

fn addresses(plan: &Plan) -> Vec<u16> {
    plan.now.iter().map(|planned| planned.request.address).collect()
}

#[test]
fn a_request_stays_narrowed_while_a_part_of_it_is_ignored() {
    let mut plan = plan([0, 3, 50, 53]);
    let (now, mut presence) = (Instant::now(), Presence::default());
    assert!(plan.narrow(1, now) && plan.narrow(0, now));
    assert_eq!(addresses(&plan), [0, 3, 50, 53]);
    leave_out(&mut plan, 3, &mut presence, now);
    let later = now + Duration::from_secs(3_601);
    plan.relearn(later);
    assert_eq!(addresses(&plan), [0, 50, 53], "its neighbour is not asked with it");
    assert!(plan.now[2].ignored.leave_out(presence, later).is_some());
    plan.now[2].ignored.answered(&mut Retries::new(Duration::from_secs(1)));
    plan.relearn(later + Duration::from_secs(3_601));
    assert_eq!(addresses(&plan), [0, 50]);
}

/// A device that ignores the wide request and answers its parts, polled with this period for so many days. In how many
/// polls the wide one was asked.
fn wide_asked(plan: &mut Plan, period: Duration, days: u32, start: Instant) -> u32 {
    let (mut now, mut wide) = (start, 0);
    while now < start + HOUR * 24 * days {
        plan.relearn(now);
        if plan.now.len() == 1 {
            wide += 1;
            plan.unanswered(0, now + Duration::from_secs(1));
        }
        if plan.now.len() > 1 {
            // The parts are asked in the same poll.
            plan.now.iter_mut().for_each(|part| part.answered = true);
        }
        now += period;
    }
    wide
}

#[test]
fn what_a_device_ignores_in_its_wide_form_is_tried_again_ever_more_seldom_and_narrowed_at_the_first_silence()
{
    for period in [Duration::from_secs(1), HOUR] {
        let mut plan = plan([0, 3, 6, 9]);
        assert_eq!(plan.now.len(), 1);
        let wide = wide_asked(&mut plan, period, 30, Instant::now());
        // Three times at first, after 1, 2, 4, 8 and 16 hours, and once a day.
        assert!((3 + 5 + 27..=3 + 5 + 29).contains(&wide), "{period:?}: {wide} times in 30 days");
    }
}

#[test]
fn what_was_answered_in_its_wide_form_meanwhile_is_narrowed_for_an_hour_only() {
    let (mut plan, start) = (plan([0, 3, 6, 9]), Instant::now());
    wide_asked(&mut plan, HOUR, 10, start);
    let later = start + HOUR * 24 * 11;
    plan.relearn(later);
    assert_eq!(plan.now.len(), 1);
    // A device that is starting refuses everything.
    let much_later = later + HOUR * 24 * 11;
    assert!(plan.narrow(0, much_later));
    plan.relearn(much_later + HOUR);
    assert_eq!(plan.now.len(), 1);
}

#[test]
fn a_wide_request_that_is_answered_keeps_what_is_known_of_it_when_others_are_tried_again() {
    let (mut plan, now) = (plan([0, 3, 50, 53]), Instant::now());
    plan.now[1].answered = true;
    assert!(plan.narrow(0, now));
    plan.relearn(now + HOUR);
    assert_eq!(addresses(&plan), [0, 50]);
    assert!(plan.now[1].answered);
    for _ in 0..5 {
        assert!(!plan.unanswered(1, now + HOUR), "it has been answered");
    }
}

#[test]
fn a_request_that_was_narrowed_to_one_is_tried_again_although_it_was_left_out_once() {
    let mut wide = plan([0, 50, 100, 150]).now.remove(0).request;
    wide.count = 3; // for a shape of its own
    let (mut plan, now, mut presence) = (Plan::new(vec![wide]), Instant::now(), Presence::default());
    assert!(plan.narrow(0, now));
    assert_eq!((plan.now.len(), plan.now[0].request.count), (1, 1));
    leave_out(&mut plan, 0, &mut presence, now);
    plan.relearn(now + HOUR);
    assert_eq!(plan.now[0].request.count, 1);
    plan.now[0].ignored.answered(&mut Retries::new(TIMEOUT));
    plan.relearn(now + HOUR * 2);
    assert_eq!(plan.now[0].request.count, 3);
}
