//! What ignored requests cost their neighbours, in virtual time.

use super::*;

const TIMEOUT: Duration = Duration::from_secs(1);

fn asked(ignored: &mut Ignored, presence: Presence, now: Instant) -> Turn {
    ignored.turn(presence, Some(&mut Retries::default()), now)
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
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        let short = Duration::from_millis(pause * 1_000 - 1);
        assert_eq!(asked(&mut ignored, presence, now + short), Turn::LeaveOut(Cause::Silent));
        now += Duration::from_secs(pause);
        assert_eq!(asked(&mut ignored, presence, now), Turn::Retry);
        ignored.silent(presence, Cause::Silent, now);
        presence.answered();
        assert_eq!((ignored.edge(), ignored.edge()), ((pause == 2).then_some(true), None), "said once");
    }
    ignored.answered();
    assert_eq!((ignored.edge(), ignored.edge()), (Some(false), None));
    assert_eq!(asked(&mut ignored, presence, now), Turn::Ask);
}

#[test]
fn of_a_request_that_is_lost_three_times_on_a_bad_line_nothing_is_said() {
    let now = Instant::now();
    let mut presence = Presence::default();
    let mut ignored = left_out(&mut presence, now);
    assert_eq!(ignored.edge(), None);
    assert_eq!(asked(&mut ignored, presence, now + PAUSE.0), Turn::Retry);
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
    ignored.silent(presence, Cause::Silent, now);
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

/// A block of the test below.
#[derive(Default)]
struct Block {
    ignored: Ignored,
    period: Duration,
    due: Duration,
    polls: u32,
    retried: u32,
}

impl Block {
    /// A block of a group with this period, due when the others are learned.
    fn each(period: u64) -> Self {
        let period = Duration::from_secs(period);
        Self { period, due: period, ..Self::default() }
    }
}

#[test]
fn ten_neighbours_keep_their_polls_and_every_ignored_request_is_tried_in_turn() {
    // One device ignores ten blocks and answers one; each answer takes 10 ms. Its neighbours are polled each second,
    // and eight of the blocks; one each minute, one each hour.
    let start = Instant::now();
    let (mut now, mut due) = (start, start);
    let (mut presence, mut retries) = (Presence::default(), Retries::default());
    let mut blocks: Vec<Block> = [1, 1, 1, 1, 1, 1, 1, 1, 60, 3_600].map(Block::each).into();
    let (mut polls, mut missed) = (0_u32, 0_u32);
    let learned = start + Duration::from_secs(60);
    while now < start + Duration::from_secs(86_400) {
        now += Duration::from_millis(10) * 10;
        presence.answered();
        for block in &mut blocks {
            if now < start + block.due {
                continue;
            }
            block.due += block.period;
            block.polls += 1;
            let mut turns = retries.of_group(block.period);
            let turn = block.ignored.turn(presence, turns.as_deref_mut(), now);
            if let Turn::LeaveOut(_) = turn {
                continue;
            }
            let began = now;
            now += TIMEOUT;
            block.ignored.silent(presence, Cause::Silent, now);
            if turn == Turn::Retry {
                if let Some(turns) = turns {
                    turns.made(began, now);
                }
                block.retried += 1;
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
    let hourly = blocks.pop().unwrap();
    let learning = u32::from(IGNORED_AFTER) + 1;
    assert_eq!((hourly.polls, hourly.retried), (23, 23 - learning), "each time since it is left out");
    let retried: Vec<u32> = blocks.iter().map(|block| block.retried).collect();
    let (least, most) = (*retried.iter().min().unwrap(), *retried.iter().max().unwrap());
    assert!(least >= 140 && most <= least * 2, "all have their turn: {retried:?}");
}
