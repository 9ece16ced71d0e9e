//! Which message goes when: the two lanes, the window, what is confirmed.

use super::*;

#[test]
fn a_batch_is_confirmed_only_after_its_puback() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    assert_eq!(world.seqs("live"), [0]);
    assert!(world.confirmed.is_empty());
    world.pass(Duration::from_secs(10));
    assert!(world.confirmed.is_empty());
    world.ack_all();
    assert_eq!(world.confirmed, [Confirmed::Batch { run: RUN, seq: 0, n: 4 }]);
}

#[test]
fn the_spool_is_asked_only_for_what_is_not_on_its_way() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.session.offer(batch("a", 0, 4));
    world.run();
    let stored = Committed { next_seq: 4, waiting: 4, ..Committed::default() };
    world.session.on_stored(stored);
    assert_eq!(world.session.next(world.now), None, "what was stored is in flight");
    world.session.on_stored(Committed { records: 1, ..stored });
    assert!(matches!(world.session.next(world.now), Some(Action::Span(_))), "a record waits");
    world.session.on_span(world.now, None, 0);
    world.session.on_stored(Committed { waiting: 5, ..stored });
    assert!(matches!(world.session.next(world.now), Some(Action::Span(_))), "of another run, or salvaged");
    world.session.on_span(world.now, None, 0);
    world.session.on_stored(Committed { next_seq: 3, waiting: 3, ..stored });
    assert!(
        matches!(world.session.next(world.now), Some(Action::Span(_))),
        "not the batch that is in flight"
    );
    world.session.on_span(world.now, None, 0);
    world.session.on_stored(Committed { late: 4, ..stored });
    assert!(matches!(world.session.next(world.now), Some(Action::Span(_))), "what the disk does not take");
}

#[test]
fn what_is_in_flight_in_one_lane_is_not_sent_in_the_other() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    world.on_stored();
    world.run();
    assert_eq!(world.out.len(), 1, "the live message only");
    world.ack_all();
    world.on_stored();
    world.run();
    assert!(world.out.is_empty() && world.spool.is_empty());
}

#[test]
fn after_an_outage_each_devices_newest_goes_before_any_backlog() {
    let mut world = World::new(&config());
    world.run();
    for (i, device) in (0..300).zip(["a", "b", "c"].iter().cycle()) {
        world.take(device, i * 4, 4);
    }
    world.connect(Granted::default());
    let order: Vec<&str> = world.out.iter().map(Out::lane).collect();
    assert_eq!(order.get(..4), Some(&["", "live", "live", "live"][..]), "birth, then each device's newest");
    assert_eq!(world.seqs("live"), [297 * 4, 298 * 4, 299 * 4]);
    world.ack_all();
    assert_eq!(world.confirmed_seqs().len(), 300);
    assert_eq!(world.confirmed.len(), 300, "nothing twice");
}

#[test]
fn the_backlog_begins_with_little_and_never_uses_the_live_lanes_part_of_the_window() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..2000 {
        world.store("a", i * 20, 20);
    }
    world.run();
    let bytes: usize = world.out.iter().map(|out| out.bytes).sum();
    assert!(bytes <= 4096 + 1024, "{bytes}");
    while !world.out.is_empty() {
        world.now += Duration::from_micros(200);
        world.ack(0, 0);
        assert!(world.out.len() <= 12, "a quarter of 16 stays free");
    }
    assert_eq!(world.confirmed.len(), 2000);
}

#[test]
fn a_receive_maximum_of_one_is_obeyed_and_live_goes_first() {
    let granted = Granted { receive_max: 1, ..Granted::default() };
    let mut world = World::connected(&config(), granted);
    for i in 0..10 {
        world.store("a", i * 4, 4);
    }
    for i in 10..12 {
        world.take("b", i * 4, 4);
    }
    world.run();
    let mut lanes = Vec::new();
    while !world.out.is_empty() {
        assert_eq!(world.out.len(), 1);
        lanes.push(world.out[0].lane().to_owned());
        world.ack(0, 0);
    }
    assert_eq!(world.confirmed_seqs().len(), 12);
    let first_backlog = lanes.iter().position(|lane| lane == "backlog").unwrap();
    assert!(lanes.iter().skip(first_backlog).all(|lane| lane != "live"), "{lanes:?}");
}

#[test]
fn a_full_window_sleeps_until_an_acknowledgement_although_the_status_is_due() {
    let config = UplinkConfig { ack_timeout: Duration::from_secs(600), ..config() };
    let mut world = World::connected(&config, Granted { receive_max: 1, ..Granted::default() });
    world.pass(Duration::from_secs(120)); // each rest asserts that what is due lies ahead
    assert_eq!(world.out.len(), 1, "the birth is still in flight");
    world.ack(0, 0);
    assert_eq!(world.out.len(), 1, "and the status is due again");
}

#[test]
fn the_status_goes_again_soon_after_each_birth_and_then_every_minute() {
    let mut world = World::connected(&config(), Granted::default());
    for connection in 0..2 {
        let mut said = Vec::new();
        for second in 0..=140 {
            said.extend(world.out.iter().filter(|out| out.topic.ends_with("/status")).map(|_| second));
            world.ack_all();
            world.pass(Duration::from_secs(1));
        }
        assert_eq!(said, [0, 10, 70, 130], "connection {connection}");
        world.cut();
        while world.session.attempt_at().is_some() {
            world.pass(Duration::from_secs(1));
        }
        world.connect(Granted::default());
    }
}

#[test]
fn a_message_larger_than_the_broker_takes_never_goes_out() {
    let granted = Granted { packet_max: Some(2000), ..Granted::default() };
    let mut world = World::connected(&config(), granted);
    world.ack_all();
    world.take("big", 0, 500);
    for i in 1..10 {
        world.take("a", 1000 + i * 4, 4);
    }
    world.run();
    for _ in 0..120 {
        assert!(world.out.iter().all(|out| out.bytes + out.topic.len() < 2000));
        world.ack_all();
        world.pass(Duration::from_secs(1));
        world.take("a", 2000 + world.confirmed.len() as u64 * 4, 4);
        world.run();
    }
    assert_eq!(world.dead, [Confirmed::Batch { run: RUN, seq: 0, n: 500 }]);
}

#[test]
fn a_live_lane_that_overflows_loses_nothing() {
    let granted = Granted { receive_max: 1, ..Granted::default() };
    let mut world = World::connected(&config(), granted);
    for i in 0..1000 {
        world.take("a", i * 4, 4);
        world.run();
    }
    for _ in 0..100 {
        world.ack_all();
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(world.confirmed_seqs().len(), 1000);
}

#[test]
fn records_go_to_their_topic_and_are_confirmed_like_data() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let body = Body::Gap { of: RUN, first: 4, next: 9, cause: GapCause::Evicted };
    world.keep(Item::Event(Arc::new(Event { run: RUN, number: 3, stamp: stamp(), body })));
    world.run();
    assert_eq!(world.out[0].topic, "fieldspool/plant7-gw1/event");
    world.ack_all();
    assert_eq!(world.confirmed, [Confirmed::Event { run: RUN, number: 3 }]);
}

#[test]
fn readings_that_will_not_come_do_not_hold_back_what_is_confirmed() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.store("a", 0, 4);
    world.store("a", 4, 4);
    world.spool.remove(0); // evicted
    world.run();
    world.ack_all();
    world.pass(Duration::from_secs(12));
    world.ack_all();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.session.confirmed_to(), 8);
}

#[test]
fn what_the_books_call_lost_by_now_is_not_sent_and_what_is_beside_it_is() {
    let mut world = World::new(&config());
    world.slow = true;
    let batches: Vec<_> = (0..10).map(|at| world.store("a", at * 4, 4)).collect();
    world.run();
    world.connect(Granted { receive_max: 1, ..Granted::default() });
    // The newest of a device that is seldom polled, kept for the connection; it was given up while there was none.
    let newest = batch("b", 40, 4);
    world.session.offer(newest.clone());
    world.books.lose(&newest);
    let cursor = world.question.take().expect("asked");
    world.answer(cursor);
    // The span is in hand.
    world.books.lose(&batches[2]);
    world.books.lose(&batches[3]);
    while !world.out.is_empty() {
        world.ack_all();
    }
    assert_eq!(world.accepted, (0..10).filter(|at| ![2, 3].contains(at)).map(|at| at * 4).collect());
    assert!(world.books.on_the_wire().is_empty());
}

#[test]
fn the_books_are_told_what_is_on_the_wire_and_what_came_back() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.take("b", 4, 4);
    world.run();
    assert_eq!(world.books.on_the_wire().len(), 2);
    world.ack(0, 0x99);
    assert_eq!(world.books.on_the_wire().len(), 1, "refused");
    world.cut();
    assert!(world.books.on_the_wire().is_empty(), "nobody acknowledges them any more");
}

#[test]
fn what_waits_in_a_file_that_was_set_aside_is_not_called_confirmed() {
    let mut world = World::new(&config());
    for i in 0..10 {
        world.store("a", i * 4, 4);
    }
    world.hidden = true;
    world.run();
    world.connect(Granted::default());
    world.ack_all();
    assert_eq!(world.session.confirmed_to(), 0, "with the connection");
    // What is read meanwhile goes by the live lane, and leaves a hole.
    world.take("a", 40, 4);
    world.run();
    world.ack_all();
    for until_a_status in [12, 60, 60] {
        world.pass(Duration::from_secs(until_a_status));
        world.ack_all();
        world.pass(Duration::from_secs(2));
    }
    assert_eq!((world.session.confirmed_to(), world.accepted.len()), (0, 1), "and when it begins anew");
    // It is found.
    world.hidden = false;
    world.session.on_resend();
    world.run();
    world.ack_all();
    assert_eq!(world.session.confirmed_to(), 44);
}

#[test]
fn live_every_gathers_batches_of_a_device_into_one_message() {
    let config = UplinkConfig { live_every: Duration::from_secs(5), ..config() };
    let mut world = World::connected(&config, Granted::default());
    world.ack_all();
    world.session.offer(batch("a", 0, 4));
    world.run();
    assert_eq!(world.seqs("live"), [0], "the first at once");
    world.ack_all();
    for i in 1..5 {
        world.pass(Duration::from_millis(900));
        world.session.offer(batch(if i == 3 { "b" } else { "a" }, i * 4, 4));
        world.run();
    }
    assert!(world.out.is_empty());
    world.pass(Duration::from_secs(2));
    let messages: Vec<Vec<u64>> = world.out.iter().map(Out::seqs).filter(|s| !s.is_empty()).collect();
    assert_eq!(messages, [vec![4, 8, 16], vec![12]]);
}

#[test]
fn one_topic_for_the_whole_gateway_carries_it_in_order() {
    let mut config = config();
    config.topics.live = "plant/live".parse().unwrap();
    config.topics.backlog = "plant/backlog".parse().unwrap();
    let mut world = World::connected(&config, Granted::default());
    for (i, device) in (0..40).zip(["a", "b", "c"].iter().cycle()) {
        world.store(device, i * 4, 4);
    }
    world.run();
    let mut seqs = Vec::new();
    while !world.out.is_empty() {
        seqs.extend(world.out[0].seqs());
        world.ack(0, 0);
    }
    assert_eq!(seqs, (0..40).map(|i| i * 4).collect::<Vec<u64>>());
}

#[test]
fn unsynced_stamps_are_corrected_once_the_clock_is_known() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let mut early = (*batch("a", 0, 1)).clone();
    early.stamp = Stamp { wall_us: 1_000_000, clock: ClockQuality::Unsynced, ..early.stamp };
    let boot = early.stamp.boot;
    world.keep(Item::Batch(Arc::new(early)));
    world.session.on_clock(ClockCorrection { boot, offset_us: 86_400_000_000, at_mono_us: 100 });
    world.on_stored();
    world.run();
    let json = world.out[0].json.clone().unwrap();
    assert_eq!(json["batches"][0]["time"], "1970-01-02T00:00:01.000000Z");
    assert_eq!(json["batches"][0]["clock"], "corrected");
}

#[test]
fn records_of_older_boots_do_not_take_the_place_of_what_is_known_of_the_present_clock() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    let set = |boot| ClockCorrection { boot, offset_us: 86_400_000_000, at_mono_us: 100 };
    let mut early = (*batch("a", 0, 1)).clone();
    early.stamp = Stamp { wall_us: 1_000_000, clock: ClockQuality::Unsynced, ..early.stamp };
    world.session.on_clock(set(early.stamp.boot));
    let older = RunId { counter: 0, random: 1 };
    for number in 0..30_u64 {
        let boot = crate::model::BootId(1_000 + u128::from(number));
        let body = Body::Clock { boot, offset_us: 1, at_mono_us: 1 };
        world.keep(Item::Event(Arc::new(Event { run: older, number, stamp: stamp(), body })));
        world.on_stored();
        world.run();
        world.ack_all();
    }
    world.out.clear();
    world.keep(Item::Batch(Arc::new(early)));
    world.on_stored();
    world.run();
    assert_eq!(world.out[0].json.clone().unwrap()["batches"][0]["clock"], "corrected");
}
