//! What ignored requests cost their neighbours, in virtual time.

use super::*;

const TIMEOUT: Duration = Duration::from_secs(1);

fn asked(ignored: &mut Ignored, presence: Presence, now: Instant) -> Turn {
    ignored.turn(presence, &mut Retries::default(), now)
}

/// A request that was silent three times while the device answered others.
fn left_out(presence: &mut Presence, now: Instant) -> Ignored {
    let mut ignored = Ignored::default();
    for _ in 0..IGNORED_AFTER {
        assert_eq!(asked(&mut ignored, *presence, now), Turn::Ask);
        ignored.silent(*presence, Cause::Silent, now);
        presence.answered();
    }
    assert_eq!(asked(&mut ignored, *presence, now), Turn::LeaveOut(Cause::Silent));
    ignored
}

#[test]
fn ignored_requests_are_tried_again_with_growing_pauses_and_are_back_with_the_first_answer() {
    let mut now = Instant::now();
    let mut presence = Presence::default();
    let mut ignored = left_out(&mut presence, now);
    assert_eq!((ignored.edge(), ignored.edge()), (Some(true), None), "said once");
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        let short = Duration::from_millis(pause * 1_000 - 1);
        assert_eq!(asked(&mut ignored, presence, now + short), Turn::LeaveOut(Cause::Silent));
        now += Duration::from_secs(pause);
        assert_eq!(asked(&mut ignored, presence, now), Turn::Retry);
        ignored.silent(presence, Cause::Silent, now);
        presence.answered();
        assert_eq!(ignored.edge(), None);
    }
    ignored.answered();
    assert_eq!((ignored.edge(), ignored.edge()), (Some(false), None));
    assert_eq!(asked(&mut ignored, presence, now), Turn::Ask);
}

#[test]
fn silence_of_the_whole_device_is_held_against_no_request() {
    let now = Instant::now();
    let mut presence = Presence::default();
    let mut request = Ignored::default();
    for _ in 0..2 {
        for _ in 0..100 {
            assert_eq!(asked(&mut request, presence, now), Turn::Ask);
            request.silent(presence, Cause::Silent, now);
            presence.silent();
        }
        presence.answered();
    }
    assert_eq!(asked(&mut request, presence, now), Turn::Ask, "two outages are two silences");
    request.answered();
    assert_eq!(request.times, 0);

    let mut ignored = left_out(&mut presence, now);
    presence.silent();
    let later = now + Duration::from_secs(3_600);
    assert_eq!(
        asked(&mut ignored, presence, later),
        Turn::LeaveOut(Cause::Silent),
        "no retry of a silent device"
    );
    presence.answered();
    assert_eq!(asked(&mut ignored, presence, later), Turn::Retry);
}

#[test]
fn what_stands_in_for_an_ignored_request_has_one_chance_and_nothing_is_said_twice() {
    let now = Instant::now();
    let mut presence = Presence::default();
    let mut ignored = left_out(&mut presence, now);
    assert_eq!(ignored.edge(), Some(true));
    let mut part = ignored.successor();
    assert_eq!((asked(&mut part, presence, now), part.edge()), (Turn::Ask, None));
    part.silent(presence, Cause::Exception(11), now);
    presence.answered();
    assert_eq!(asked(&mut part, presence, now), Turn::LeaveOut(Cause::Exception(11)));
    assert_eq!(part.edge(), None);
    let mut other = ignored.successor();
    other.answered();
    assert_eq!(other.edge(), Some(false));
    assert_eq!(Ignored::default().successor().times, 0);
}

#[test]
fn ten_neighbours_keep_their_polls_and_every_ignored_request_is_tried_in_turn() {
    // One device ignores eight blocks and answers one; each answer takes 10 ms; all are polled each second.
    let start = Instant::now();
    let (mut now, mut due) = (start, start);
    let (mut presence, mut retries) = (Presence::default(), Retries::default());
    let mut blocks = vec![(Ignored::default(), 0_u32); 8];
    let (mut polls, mut missed) = (0_u32, 0_u32);
    let learned = start + Duration::from_secs(60);
    while now < start + Duration::from_secs(3_660) {
        now += Duration::from_millis(10) * 10;
        presence.answered();
        for (block, retried) in &mut blocks {
            let turn = block.turn(presence, &mut retries, now);
            if let Turn::LeaveOut(_) = turn {
                continue;
            }
            let began = now;
            now += TIMEOUT;
            block.silent(presence, Cause::Silent, now);
            if turn == Turn::Retry {
                retries.made(began, now);
                *retried += 1;
            }
        }
        polls += u32::from(now > learned);
        due += Duration::from_secs(1);
        while due + Duration::from_secs(1) <= now {
            due += Duration::from_secs(1);
            missed += u32::from(now > learned);
        }
        now = now.max(due);
    }
    assert!(polls * 100 >= (polls + missed) * 97, "{missed} of {} polls missed", polls + missed);
    let retried: Vec<u32> = blocks.iter().map(|(_, retried)| *retried).collect();
    let (least, most) = (retried.iter().min().unwrap(), retried.iter().max().unwrap());
    assert!(*least >= 6 && most - least <= 3, "all have their turn: {retried:?}");
}
