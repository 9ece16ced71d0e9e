//! How connections end and begin: silence, closing, take-over, a stop, another configuration.

use super::*;

#[test]
fn a_connection_that_ends_confirms_nothing_and_all_comes_again() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for i in 0..5 {
        world.take("a", i * 4, 4);
        world.run();
    }
    world.cut();
    assert!(world.confirmed.is_empty());
    world.pass(Duration::from_secs(31));
    world.connect(Granted::default());
    assert_eq!(world.seqs("live"), [16], "the device's newest first");
    assert_eq!(world.seqs("backlog"), [0, 4, 8, 12], "the rest from the spool, oldest first");
    world.ack_all();
    assert_eq!(world.confirmed.len(), 5);
}

#[test]
fn a_broker_that_never_acknowledges_is_given_up() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.pass(Duration::from_secs(29));
    assert!(world.ended.is_none());
    world.pass(Duration::from_secs(2));
    assert!(world.ended.as_ref().is_some_and(|end| end.words.contains("acknowledged nothing")));
    assert!(world.confirmed.is_empty());
}

#[test]
fn an_idle_connection_is_not_given_up() {
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    for _ in 0..100 {
        world.pass(Duration::from_secs(10));
        world.ack_all();
    }
    assert!(world.ended.is_none());
}

#[test]
fn a_broker_that_accepts_and_closes_sees_few_connections() {
    let mut world = World::new(&config());
    world.run();
    let start = world.now;
    while world.now.duration_since(start) < Duration::from_secs(3600) {
        world.connect(Granted::default());
        world.end(End::new(Cause::Closed, "closed"));
        let before = world.connects.len();
        while world.connects.len() == before {
            world.pass(Duration::from_secs(1));
        }
    }
    for window in world.connects.windows(13) {
        assert!(window[12].duration_since(window[0]) >= Duration::from_secs(600));
    }
    assert!(world.connects.len() > 12, "and it is not forgotten");
}

#[test]
fn a_take_over_is_recognised_by_its_pattern() {
    let mut world = World::new(&config());
    world.run();
    for turn in 0..3 {
        world.connect(Granted::default());
        world.ack_all();
        world.end(End::new(Cause::Closed, "closed"));
        let said = world.session.trouble().unwrap().contains("cloned card");
        assert_eq!(said, turn == 2);
        world.pass(Duration::from_secs(60));
    }
}

#[test]
fn a_receive_maximum_of_zero_or_no_qos_1_ends_the_connection() {
    for granted in
        [Granted { receive_max: 0, ..Granted::default() }, Granted { qos1: false, ..Granted::default() }]
    {
        let world = World::connected(&config(), granted);
        assert_eq!(world.ended.map(|end| end.cause), Some(Cause::Refused));
    }
}

#[test]
fn a_kick_cuts_the_wait_short_but_not_the_sparing_of_a_broker_that_refuses() {
    let mut world = World::new(&config());
    world.run();
    world.end(End::new(Cause::Network, "no route"));
    assert_eq!(world.connects.len(), 1);
    world.session.kick(world.now);
    world.run();
    assert_eq!(world.connects.len(), 2, "a cable was plugged in");
    for _ in 0..20 {
        world.end(End::new(Cause::Refused, "not you"));
        world.session.kick(world.now);
        world.run();
    }
    assert!(world.connects.len() < 10, "{}", world.connects.len());
}

#[test]
fn a_session_counts_on_where_the_one_before_it_ended() {
    let mut session = Session::new(
        Settings::new(&config(), "gw".into(), RUN),
        Box::new(Desk::default()),
        7,
        Instant::now(),
    );
    assert_eq!(session.next(Instant::now()), Some(Action::Connect));
    assert_eq!(session.numbers().connects, 8, "a will of before is older than this birth");
}

#[test]
fn a_stop_says_so_waits_for_its_acknowledgement_and_disconnects() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    world.session.on_stop(world.now + Duration::from_secs(3));
    world.take("a", 4, 4);
    world.run();
    assert_eq!(world.out.len(), 3, "birth, live, the last word; no new data");
    assert!(!world.left);
    world.ack_all();
    assert!(world.left && !world.done);
    world.end(End::new(Cause::Closed, "closed"));
    assert!(world.done);
}

#[test]
fn a_stop_ends_in_time_whatever_the_broker_does() {
    let mut world = World::connected(&config(), Granted::default());
    world.session.on_stop(world.now + Duration::from_secs(3));
    world.run();
    world.pass(Duration::from_secs(4));
    assert!(world.done);
    let mut waiting = World::new(&config());
    waiting.run();
    waiting.session.on_stop(waiting.now + Duration::from_secs(3));
    waiting.run();
    assert!(waiting.done, "without a connection at once");
}

#[test]
fn a_new_configuration_leaves_in_order_and_connects_at_once() {
    let mut world = World::connected(&config(), Granted::default());
    world.take("a", 0, 4);
    world.run();
    let settings = Settings::new(&config(), "plant7-gw1".into(), RUN);
    world.session.on_config(world.now, settings);
    world.run();
    assert!(!world.left, "what is in flight is waited for");
    world.ack_all();
    assert!(world.left);
    world.end(End::new(Cause::Closed, "closed"));
    assert_eq!(world.connects.len(), 2);
}

#[test]
fn a_broker_that_is_left_for_another_one_does_not_go_on_showing_the_gateway_as_online() {
    let elsewhere = Broker { port: 1884, ..config().broker };
    let mut other_topic = config();
    other_topic.topics.status = "elsewhere/{gateway}".parse().unwrap();
    let other_broker = UplinkConfig { broker: elsewhere, ..config() };
    for (new, says) in [(config(), false), (other_broker, true), (other_topic, true)] {
        let mut world = World::connected(&config(), Granted::default());
        world.ack_all();
        world.session.on_config(world.now, Settings::new(&new, "plant7-gw1".into(), RUN));
        world.run();
        let topics: Vec<&str> = world.out.iter().map(|out| &*out.topic).collect();
        assert_eq!(topics == ["fieldspool/plant7-gw1/status"], says, "{topics:?}");
        assert_ne!(world.left, says, "the last word is waited for");
        world.ack_all();
        assert!(world.left);
        world.end(End::new(Cause::Closed, "closed"));
        assert_eq!(world.connects.len(), 2);
    }
}

#[test]
fn a_second_reload_while_the_first_is_waited_for_still_tells_the_broker_that_is_left() {
    let elsewhere = UplinkConfig { broker: Broker { port: 1884, ..config().broker }, ..config() };
    let settings = |config: &UplinkConfig| Settings::new(config, "plant7-gw1".into(), RUN);
    let mut world = World::connected(&config(), Granted::default());
    world.ack_all();
    world.take("a", 0, 4);
    world.run();
    world.session.on_config(world.now, settings(&config()));
    world.run();
    assert!(!world.left, "the live batch is waited for");
    world.session.on_config(world.now, settings(&elsewhere));
    world.run();
    let last = world.out.last().map(|out| out.topic.clone());
    assert_eq!(last.as_deref(), Some("fieldspool/plant7-gw1/status"), "the last word");
    world.ack_all();
    assert!(world.left);
    world.end(End::new(Cause::Closed, "closed"));
    assert_eq!(world.connects.len(), 2);

    // A stop that follows keeps its own deadline, and says it once.
    let mut stopping = World::connected(&config(), Granted::default());
    stopping.ack_all();
    stopping.session.on_stop(stopping.now + Duration::from_secs(3));
    stopping.run();
    let said = stopping.out.len();
    stopping.session.on_config(stopping.now, settings(&elsewhere));
    stopping.run();
    assert_eq!(stopping.out.len(), said);
    stopping.ack_all();
    stopping.end(End::new(Cause::Closed, "closed"));
    assert!(stopping.done);
}

#[test]
fn a_new_configuration_that_comes_while_connecting_gives_up_the_old_brokers_connection() {
    let mut world = World::new(&config());
    world.run();
    assert_eq!(world.connects.len(), 1);
    world.session.on_config(world.now, Settings::new(&config(), "plant7-gw1".into(), RUN));
    world.run();
    assert!(world.ended.is_some() && world.session.trouble().is_none());
    assert_eq!(world.connects.len(), 2, "with the new one, at once");
}
