//! A broker that does anything at all, in any order: nothing is confirmed that it did not take, and all arrives.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a hostile broker does next.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Ack(usize),
    Nack(usize, u8),
    Store(u8),
    Take(u8),
    Cut,
    Close,
    Pass(u64),
    Connect(u16),
    Answer,
}

fn turn() -> impl Strategy<Value = Turn> {
    let reason = prop::sample::select(vec![0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
    prop_oneof![
        8 => any::<usize>().prop_map(Turn::Ack),
        1 => (any::<usize>(), reason).prop_map(|(at, code)| Turn::Nack(at, code)),
        3 => (0_u8..4).prop_map(Turn::Store),
        3 => (0_u8..4).prop_map(Turn::Take),
        1 => Just(Turn::Cut),
        1 => Just(Turn::Close),
        3 => (0_u64..40).prop_map(Turn::Pass),
        2 => (1_u16..20).prop_map(Turn::Connect),
        6 => Just(Turn::Answer),
    ]
}

fn play(world: &mut World, turn: Turn, seq: &mut u64) {
    let up = world.session.is_connected();
    match turn {
        Turn::Ack(at) if !world.out.is_empty() => world.ack(at % world.out.len(), 0),
        Turn::Nack(at, code) if !world.out.is_empty() => world.ack(at % world.out.len(), code),
        Turn::Store(device) | Turn::Take(device) => {
            let name = format!("d{device}");
            if matches!(turn, Turn::Take(_)) {
                world.take(&name, *seq, 4);
            } else {
                world.store(&name, *seq, 4);
            }
            *seq += 4;
            world.run();
        }
        Turn::Cut if up => world.cut(),
        Turn::Close if up => world.end(End::new(Cause::Closed, "closed")),
        Turn::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
        Turn::Connect(receive_max) if world.session.phase == Phase::Connecting => {
            world.connect(Granted { receive_max, ..Granted::default() });
        }
        Turn::Answer => {
            if let Some(cursor) = world.question.take() {
                world.answer(cursor);
                world.run();
            }
        }
        _ => {}
    }
}

fn batch_key(seq: u64) -> Confirmed {
    Confirmed::Batch { run: RUN, seq, n: 4 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_broker_does_nothing_is_confirmed_that_it_did_not_take_and_all_arrives_in_the_end(
        turns in proptest::collection::vec(turn(), 1..150),
    ) {
        let mut world = World::new(&config());
        world.run();
        world.slow = true;
        let mut seq = 0;
        for turn in turns {
            play(&mut world, turn, &mut seq);
            prop_assert!(world.confirmed_seqs().is_subset(&world.accepted));
            prop_assert!(world.out.len() <= 16);
            let gone = |one: &u64| world.accepted.contains(one) || world.dead.contains(&batch_key(*one));
            let first_missing = (0..=seq).step_by(4).find(|one| !gone(one)).unwrap_or(seq);
            prop_assert!(world.session.confirmed_to() <= first_missing);
            let mut carried: BTreeMap<u64, usize> = BTreeMap::new();
            for sent in world.out.iter().flat_map(Out::seqs) {
                *carried.entry(sent).or_default() += 1;
            }
            prop_assert!(carried.values().all(|times| *times == 1), "in flight twice: {:?}", carried);
        }
        // From now on broker and spool behave.
        world.slow = false;
        if let Some(cursor) = world.question.take() {
            world.answer(cursor);
        }
        for _ in 0..400 {
            if world.spool.is_empty() {
                break;
            }
            if world.session.phase == Phase::Connecting {
                world.connect(Granted::default());
            }
            world.ack_all();
            world.pass(Duration::from_secs(2));
        }
        prop_assert!(world.spool.is_empty(), "still waiting: {:?}", world.spool.len());
        prop_assert_eq!(world.session.confirmed_to(), seq);
        prop_assert_eq!(world.confirmed.len() + world.dead.len(), usize::try_from(seq / 4).unwrap());
    }
}
