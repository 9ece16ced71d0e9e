//! Brokers that refuse, stop taking, or take what nobody reads.

use super::super::backlog::REFUSALS_MAX;
use super::*;
use crate::status::Refusing;
use crate::uplink::DeviceMeta;

#[test]
fn a_refused_message_becomes_a_dead_letter_only_while_others_pass() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..20 {
        world.store(if i % 5 == 0 { "denied" } else { "a" }, i * 4, 4);
    }
    world.run();
    for _ in 0..200 {
        while let Some(out) = world.out.first() {
            let code = if out.topic.ends_with("denied") { 0x87 } else { 0 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
        // The plant goes on.
        world.take("a", 1000 + world.confirmed.len() as u64 * 4, 4);
        world.run();
    }
    assert_eq!(world.dead.len(), 4);
    assert!((0..20).filter(|i| i % 5 != 0).all(|i| world.confirmed_seqs().contains(&(i * 4))));
    assert!((0..20).filter(|i| i % 5 == 0).all(|i| !world.confirmed_seqs().contains(&(i * 4))));
}

/// Some seconds with a broker that takes everything but one device; gives how often that was offered.
fn deny(world: &mut World, seconds: usize) -> usize {
    let mut denied = 0;
    for _ in 0..seconds {
        while let Some(out) = world.out.first() {
            let code = if out.topic.ends_with("denied") { 0x87 } else { 0 };
            denied += usize::from(code > 0);
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
        let next = world.next_seq;
        world.take("a", next, 4);
        world.run();
    }
    denied
}

#[test]
fn a_dead_letter_is_settled_when_it_is_stored_and_comes_again_if_it_is_not() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.letters = Some(false);
    world.store("denied", 0, 4);
    world.run();
    deny(&mut world, 120);
    let asked = world.letters_asked.len();
    assert!(asked > 1, "refused, not stored, sent and refused again");
    assert_eq!((world.session.confirmed_to(), world.session.numbers().dead_letters), (0, 0));
    world.letters = None;
    deny(&mut world, 120);
    assert_eq!(world.letters_asked.len(), asked + 1);
    assert_eq!(deny(&mut world, 120), 0, "while the disk has not answered it is not sent");
    assert_eq!((world.session.confirmed_to(), world.session.numbers().dead_letters), (0, 0));
    let what = world.letters_asked.pop().unwrap();
    world.letter(what, true);
    assert_eq!(world.session.numbers().dead_letters, 1);
    assert!(world.session.confirmed_to() > 4);
    assert_eq!(deny(&mut world, 120), 0);
    assert_eq!((world.letters_asked.len(), world.dead.len()), (asked, 1));
}

#[test]
fn a_broker_that_refuses_everything_costs_no_reading() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..50 {
        world.store("a", i * 4, 4);
    }
    world.run();
    let mut refused = 0;
    for _ in 0..3600 {
        while !world.out.is_empty() {
            refused += usize::from(!world.out[0].lane().is_empty());
            let code = if world.out[0].lane().is_empty() { 0 } else { 0x87 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.dead.is_empty() && world.confirmed.is_empty());
    assert_eq!(world.spool.len(), 50);
    assert!(refused < 100, "{refused} refused messages in an hour");
    let (what, why) = world.session.refused().unwrap();
    assert!(what == Refusing::All && why.contains("access list"), "{what:?} {why}");
    // And when it is let in, all goes.
    for _ in 0..200 {
        world.ack_all();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.confirmed.len(), 50);
    assert_eq!(world.session.refused(), None);
}

#[test]
fn that_something_is_refused_is_said_without_a_break_until_nothing_refused_waits() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    assert_eq!(world.session.refused(), None);
    world.take("a", 0, 4);
    world.store("denied", 4, 4);
    world.run();
    let mut said = Vec::new();
    for _ in 0..60 {
        deny(&mut world, 1);
        let what = world.session.refused().map(|(what, _)| what);
        if said.last() != Some(&what) {
            said.push(what);
        }
    }
    assert_eq!((said, world.dead.len()), (vec![Some(Refusing::Some), None], 1), "one beginning and one end");
}

#[test]
fn a_refusal_names_the_topic_of_the_first_message_and_does_not_change_with_each() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("denied", 0, 4);
    world.store("also-denied", 4, 4);
    world.run();
    let mut said = BTreeSet::new();
    while let Some(out) = world.out.first() {
        let code = if out.topic.ends_with("denied") { 0x87 } else { 0 };
        world.ack(0, code);
        said.extend(world.session.refused().map(|(_, why)| why.to_owned()));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    let first = said.first().unwrap();
    assert!(first.contains(" to fieldspool/plant7-gw1/backlog/"), "{first}");
    assert!(first.contains("denied (0x87): we may not publish to this topic"), "{first}");
}

#[test]
fn a_broker_that_closes_after_a_refusal_is_not_said_to_close_without_a_reason() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("denied", 0, 4);
    world.run();
    world.ack(0, 0x87);
    world.end(End::new(Cause::Closed, "closed"));
    assert!(world.session.trouble().unwrap().contains(
        "closed; just before, the broker refuses a message to fieldspool/plant7-gw1/live/denied (0x87)"
    ));
    assert_eq!(world.session.refused(), None, "there is no connection");
}

#[test]
fn a_broker_that_refuses_and_cuts_is_not_said_to_be_a_cloned_card() {
    let mut world = World::new(&config());
    world.run();
    for turn in 0..4 {
        world.connect(Granted::default());
        world.ack_all();
        if turn == 0 {
            world.take("denied", 0, 4);
            world.run();
            world.ack(0, 0x87);
        }
        world.end(End::new(Cause::Closed, "cut"));
        world.pass(Duration::from_secs(60));
    }
    let said = world.session.trouble().unwrap();
    assert!(said.contains("cut; shortly before, the broker refuses a message to "), "{said}");
}

#[test]
fn a_description_that_was_refused_is_sent_again_with_the_next_status() {
    let device = |name: &str| DeviceMeta {
        device: name.into(),
        label: "".into(),
        headline: Vec::new(),
        points: [].into(),
    };
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.session.on_meta(vec![device("a"), device("denied")]);
    world.run();
    deny(&mut world, 1);
    world.ack_all();
    let what = |world: &World| world.session.refused().map(|(what, _)| what);
    assert_eq!(what(&world), Some(Refusing::About));
    world.pass(Duration::from_secs(11));
    assert!(world.out.iter().any(|out| out.topic.ends_with("denied")), "{:?}", world.out);
    world.ack_all();
    assert_eq!(what(&world), None);
}

#[test]
fn a_broker_that_stops_taking_anything_is_not_sent_a_long_backlog_over_and_over() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.ack_all();
    assert_eq!(world.confirmed.len(), 1, "it took something once");
    for i in 1..10_000 {
        world.store("a", i * 4, 4);
    }
    world.run();
    let mut refused = 0;
    for _ in 0..600 {
        while !world.out.is_empty() && refused < 2_000 {
            let data = !world.out[0].lane().is_empty();
            refused += usize::from(data);
            world.ack(0, if data { 0x87 } else { 0 });
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.dead.is_empty() && world.confirmed.len() == 1);
    assert!(refused < 150, "{refused} refused messages in ten minutes");
    for _ in 0..200 {
        world.ack_all();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.confirmed.len(), 10_000, "and when it takes them again, all go");
}

#[test]
fn a_long_refused_backlog_does_not_keep_what_lies_behind_it_for_ever() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.ack_all();
    for i in 1..=2_000 {
        world.store(if i < 2_000 { "denied" } else { "a" }, i * 4, 4);
    }
    world.run();
    for _ in 0..86_400 {
        if world.confirmed_seqs().contains(&8_000) {
            return;
        }
        while let Some(out) = world.out.first() {
            let code = if out.topic.ends_with("denied") { 0x87 } else { 0 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
    }
    panic!("a day, and it was not sent");
}

#[test]
fn more_refused_batches_than_are_remembered_become_dead_letters_all_the_same() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let many = u64::try_from(REFUSALS_MAX).unwrap() * 3 / 2;
    for i in 0..many {
        world.store("denied", i * 4, 4);
    }
    world.run();
    let (mut offered, mut seconds) = (0, 0);
    while world.dead.len() as u64 != many {
        assert!(seconds < 300, "{} of {many} dead letters, {offered} offered", world.dead.len());
        let before: u64 =
            world.out.iter().filter(|o| o.topic.ends_with("denied")).map(|o| o.seqs().len() as u64).sum();
        offered += before;
        deny(&mut world, 1);
        seconds += 1;
    }
    assert!(offered < 5 * many, "{offered} offered of {many}");
    assert!(world.session.confirmed_to() >= many * 4);
}

#[test]
fn held_data_waits_until_somebody_subscribes() {
    let config = UplinkConfig { nobody_listens: NobodyListens::Hold, ..config() };
    let mut world = World::connected(&config, Granted::default());
    for i in 0..30 {
        world.store("a", i * 4, 4);
    }
    world.run();
    for _ in 0..120 {
        while !world.out.is_empty() {
            world.ack(0, 0x10);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.confirmed.is_empty(), "data is held");
    assert!(world.session.numbers().nobody_listening > 0);
    for _ in 0..120 {
        world.ack_all();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.confirmed.len(), 30);
}

#[test]
fn nobody_listening_confirms_by_default_and_is_counted() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    world.ack(0, 0x10);
    assert_eq!(world.confirmed.len(), 1);
    let counted = |world: &World| {
        let numbers = world.session.numbers();
        (numbers.nobody_listening, numbers.records_unheard)
    };
    assert_eq!(counted(&world), (1, 0));
    let body =
        Body::RunEnd { ended: RunId { counter: 1, random: 1 }, next_seq: 9, clean: true, last_wall_us: None };
    world.keep(Item::Event(Arc::new(Event { run: RUN, number: 3, stamp: stamp(), body })));
    world.run();
    world.ack(0, 0x10);
    assert_eq!(world.confirmed.len(), 2);
    assert_eq!(counted(&world), (2, 1), "nobody was told of it");
}

#[test]
fn a_quota_makes_us_wait_longer_each_time() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("a", 0, 4);
    world.run();
    let mut tries = Vec::new();
    let start = world.now;
    for _ in 0..300 {
        if !world.out.is_empty() {
            if !world.out[0].lane().is_empty() {
                tries.push(world.now.duration_since(start).as_secs());
            }
            let code = if world.out[0].lane().is_empty() { 0 } else { 0x97 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(tries.len() >= 5 && tries.len() < 12, "{tries:?}");
    assert!(world.dead.is_empty() && world.confirmed.is_empty());
}

#[test]
fn the_message_behind_an_unreadable_acknowledgement_is_found() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..10 {
        world.store(if i == 3 { "odd" } else { "a" }, i * 4, 4);
    }
    world.run();
    for _ in 0..60 {
        while let Some(out) = world.out.first() {
            if out.topic.ends_with("odd") {
                world.end(End::new(Cause::Unreadable, "reason 0x92"));
            } else {
                world.ack(0, 0);
            }
        }
        world.pass(Duration::from_secs(301));
        world.take("a", 1000 + world.confirmed.len() as u64 * 4, 4);
        if !world.session.is_connected() {
            world.connect(Granted::default());
        }
    }
    assert_eq!(world.dead, [Confirmed::Batch { run: RUN, seq: 12, n: 4 }]);
    assert!((0..10).filter(|i| *i != 3).all(|i| world.confirmed_seqs().contains(&(i * 4))));
}

#[test]
fn a_later_refusal_names_its_own_topic() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("denied", 0, 4);
    world.run();
    deny(&mut world, 120);
    assert_eq!((world.session.refused(), world.dead.len()), (None, 1), "over");
    // Days later the access list is another one, on the same connection.
    let next = world.next_seq;
    world.store("b-denied", next, 4);
    world.run();
    deny(&mut world, 1);
    let why = world.session.refused().unwrap().1.to_owned();
    assert!(why.contains("/b-denied "), "{why}");
}

#[test]
fn a_refusal_that_is_long_over_is_not_just_before() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("denied", 0, 4);
    world.run();
    deny(&mut world, 120);
    assert_eq!((world.session.refused(), world.dead.len()), (None, 1), "over");
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
        world.ack_all();
    }
    world.end(End::new(Cause::Closed, "closed"));
    let said = world.session.trouble().unwrap();
    assert!(!said.contains("just before"), "{said}");
}

#[test]
fn what_is_taken_again_is_not_named_any_more() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("x-denied", 0, 4);
    world.store("y-denied", 4, 4);
    world.run();
    deny(&mut world, 1);
    let first = world.session.refused().unwrap().1.to_owned();
    let gone = if first.contains("x-denied") { "x-denied" } else { "y-denied" };
    for _ in 0..4 {
        while let Some(out) = world.out.first() {
            let code = if out.topic.ends_with("denied") && !out.topic.ends_with(gone) { 0x87 } else { 0 };
            world.ack(0, code);
        }
        world.pass(Duration::from_secs(1));
        let next = world.next_seq;
        world.take("a", next, 4);
        world.run();
    }
    assert!(
        world.session.refused().is_none_or(|(_, why)| !why.contains(gone)),
        "{:?}",
        world.session.refused()
    );
}
