//! The engine against a hostile line, in virtual time: late, damaged, echoed, foreign, truncated, doubled and lost
//! answers and babble, on a device that answers in order and on one that does not.
//!
//! Every register holds a hash of unit, address and the number of the request, so a value of other registers is
//! seen as *wrong* and one of an earlier request as *old*. Directions do not collide: stale frames arrive intact, which
//! is harder than a real two-wire line. One character is 10 ms.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::crc;
use super::engine::{Engine, Step, Timing};
use crate::modbus::settings::Echo;
use crate::modbus::transaction::{Ask, Failure};

const CHARACTER: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(2); // 200 characters

/// A small generator with a printed seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// True in so many of a thousand cases.
    fn permille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }

    fn bytes(&mut self, n: u64) -> Vec<u8> {
        (0..n).map(|_| self.roll().to_le_bytes()[0]).collect()
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn register(unit: u8, address: u16, poll: u64) -> [u8; 2] {
    let n = mix(u64::from(unit) << 56 | u64::from(address) << 32 | poll);
    [n.to_le_bytes()[0], n.to_le_bytes()[1]]
}

fn data(ask: Ask, poll: u64) -> Vec<u8> {
    (ask.address..ask.address + ask.count).flat_map(|address| register(ask.unit, address, poll)).collect()
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &crc::crc(body).to_le_bytes()].concat()
}

/// How the line misbehaves, in thousandths of the transactions.
#[derive(Clone, Copy)]
struct Faults {
    late: u64,
    corrupted: u64,
    echoed: u64,
    foreign: u64,
    few: u64,
    babble: u64,
}

const HOSTILE: Faults = Faults { late: 50, corrupted: 20, echoed: 10, foreign: 10, few: 5, babble: 2 };
const NONE: Faults = Faults { late: 0, corrupted: 0, echoed: 0, foreign: 0, few: 0, babble: 0 };

/// The line with its devices.
struct Plant {
    dice: Dice,
    faults: Faults,
    in_order: bool,
    /// What will have arrived, by when; the number keeps the order.
    coming: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
    line_free: Instant,
    device_free: BTreeMap<u8, Instant>,
}

impl Plant {
    fn new(seed: u64, faults: Faults, in_order: bool, now: Instant) -> Self {
        let (coming, device_free) = (BTreeMap::new(), BTreeMap::new());
        Self { dice: Dice(seed), faults, in_order, coming, number: 0, line_free: now, device_free }
    }

    /// Puts bytes on the line, not before `ready`; a quarter of them arrives in two pieces.
    fn send(&mut self, bytes: &[u8], ready: Instant) {
        let begin = ready.max(self.line_free);
        let end = begin + CHARACTER * u32::try_from(bytes.len()).unwrap();
        self.line_free = end;
        self.number += 2;
        if bytes.len() > 2 && self.dice.permille(250) {
            let cut = 1 + usize::try_from(self.dice.below(bytes.len() as u64 - 1)).unwrap();
            let at = begin + CHARACTER * u32::try_from(cut).unwrap();
            self.coming.insert((at, self.number), bytes[..cut].to_vec());
            self.coming.insert((end, self.number + 1), bytes[cut..].to_vec());
        } else {
            self.coming.insert((end, self.number), bytes.to_vec());
        }
    }

    /// One to three flipped bits, or a burst of up to 16 in the order of the wire: lowest bit first.
    fn damage(&mut self, frame: &mut [u8]) {
        let bits = frame.len() as u64 * 8;
        let mut flip = |bit: u64| frame[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        if self.dice.permille(500) {
            let mut chosen: Vec<u64> = (0..=self.dice.below(3)).map(|_| self.dice.below(bits)).collect();
            chosen.sort_unstable();
            chosen.dedup();
            chosen.into_iter().for_each(flip);
        } else {
            let (start, pattern) = (self.dice.below(bits - 16), self.dice.roll() & 0xffff | 1);
            (0..16).filter(|bit| pattern >> bit & 1 == 1).for_each(|bit| flip(start + bit));
        }
    }

    fn foreign(&mut self, ask: Ask) -> Vec<u8> {
        let other = ask.unit % 200 + 30;
        let mut body = match self.dice.below(4) {
            0 => vec![other, ask.function, ask.data_bytes],
            1 => vec![ask.unit, 4, ask.data_bytes],
            2 => return sealed(&[other, 3, 0, 7, 0, 10]),
            _ => return sealed(&[other, 0x83, 2]),
        };
        body.extend(self.dice.bytes(u64::from(ask.data_bytes)));
        sealed(&body)
    }

    /// The request is on the line until `sent`.
    fn asked(&mut self, ask: Ask, request: &[u8], poll: u64, sent: Instant) {
        let faults = self.faults;
        if self.dice.permille(faults.echoed) {
            self.send(request, sent.checked_sub(CHARACTER * 8).unwrap());
        }
        if self.dice.permille(faults.babble) {
            let length = 20 + self.dice.below(580);
            let babble = self.dice.bytes(length);
            self.send(&babble, sent + CHARACTER * 4);
        }
        if self.dice.permille(faults.foreign) {
            let frame = self.foreign(ask);
            self.send(&frame, sent + CHARACTER * 4);
        }
        if self.dice.permille(faults.few) {
            return; // lost
        }
        let mut ready = sent + CHARACTER * u32::try_from(4 + self.dice.below(56)).unwrap();
        if self.dice.permille(faults.late) {
            ready += TIMEOUT + CHARACTER * u32::try_from(self.dice.below(400)).unwrap();
        }
        if self.in_order {
            let free = self.device_free.entry(ask.unit).or_insert(ready);
            ready = ready.max(*free);
            *free = ready + CHARACTER * (u32::from(ask.data_bytes) + 5);
        }
        let mut frame = sealed(&[&[ask.unit, ask.function, ask.data_bytes][..], &data(ask, poll)].concat());
        if self.dice.permille(faults.few) {
            frame = sealed(&[ask.unit, ask.function | 0x80, 6]);
        }
        if self.dice.permille(faults.corrupted) {
            self.damage(&mut frame);
        }
        if self.dice.permille(faults.few) {
            frame.truncate(1 + usize::try_from(self.dice.below(frame.len() as u64 - 1)).unwrap());
        }
        self.send(&frame, ready);
        if self.dice.permille(faults.few) {
            let gap = CHARACTER / 10 * u32::try_from(self.dice.below(100)).unwrap();
            self.send(&frame, self.line_free + gap);
        }
    }
}

/// What came of a run.
#[derive(Debug, Default)]
struct Tally {
    good: u64,
    exceptions: u64,
    failed: u64,
    held: u64,
    wrong: u64,
    old: u64,
    virtual_time: Duration,
}

struct Run {
    engine: Engine,
    plant: Plant,
    now: Instant,
    tally: Tally,
    poll: u64,
}

impl Run {
    fn new(seed: u64, faults: Faults, in_order: bool, hold_off: Duration) -> Self {
        let now = Instant::now();
        let timing = Timing {
            character: CHARACTER,
            silence: CHARACTER * 7 / 2,
            latency: CHARACTER * 2,
            timeout: TIMEOUT,
            hold_off,
            paced: true,
            echo: Echo::Auto,
        };
        let plant = Plant::new(seed, faults, in_order, now);
        Self { engine: Engine::new(timing), plant, now, tally: Tally::default(), poll: 0 }
    }

    /// Delivers what has arrived by now.
    fn deliver(&mut self) {
        while let Some(entry) = self.plant.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (at, _) = *entry.key();
            let bytes = entry.remove();
            self.engine.receive(&bytes, at);
        }
    }

    /// Sleeps until `until` or until bytes come.
    fn sleep(&mut self, until: Instant) {
        let next = self.plant.coming.keys().next().map_or(until, |(at, _)| (*at).min(until));
        self.now = self.now.max(next);
        self.deliver();
    }

    fn idle(&mut self, until: Instant) {
        while self.now < until {
            let judge = match self.engine.poll(self.now) {
                Step::Wait(at) if at > self.now => at.min(until),
                _ => until,
            };
            self.sleep(judge);
        }
    }

    fn transact(&mut self, ask: Ask) {
        self.poll += 1;
        let deadline = self.now + Duration::from_secs(60);
        while let Err(until) = self.engine.begin(ask, self.now, deadline) {
            self.tally.held += 1;
            self.idle(until);
        }
        loop {
            self.deliver();
            match self.engine.poll(self.now) {
                Step::Write(frame) => {
                    let sent = self.now + CHARACTER * 8;
                    self.plant.asked(ask, &frame, self.poll, sent);
                }
                Step::Wait(until) => {
                    assert!(until > self.now, "a wait for the past would spin");
                    self.sleep(until);
                }
                Step::Done(Ok(answer)) if answer.exception.is_some() => {
                    self.tally.exceptions += 1;
                    return;
                }
                Step::Done(Ok(_)) => {
                    let got = self.engine.data();
                    if got == data(ask, self.poll) {
                        self.tally.good += 1;
                    } else if (self.poll.saturating_sub(2_000)..self.poll).any(|poll| got == data(ask, poll))
                    {
                        self.tally.old += 1;
                    } else {
                        self.tally.wrong += 1;
                    }
                    return;
                }
                Step::Done(Err(failure)) => {
                    assert!(!matches!(failure, Failure::Held(_) | Failure::LinkDown | Failure::HungUp));
                    self.tally.failed += 1;
                    return;
                }
            }
        }
    }
}

fn block(unit: u8, address: u16, count: u16) -> Ask {
    Ask { unit, function: 3, address, count, data_bytes: u8::try_from(count * 2).unwrap() }
}

/// (name, requests in turn).
fn workloads() -> Vec<(&'static str, Vec<Ask>)> {
    let units = 1..=10_u8;
    vec![
        ("one device, one block", vec![block(1, 0, 10)]),
        ("one device, two equal blocks", vec![block(1, 0, 10), block(1, 100, 10)]),
        ("one device, three different blocks", vec![block(1, 0, 10), block(1, 100, 11), block(1, 200, 12)]),
        (
            "ten devices with two equal blocks, unit after unit",
            units.clone().flat_map(|unit| [block(unit, 0, 10), block(unit, 100, 10)]).collect(),
        ),
        (
            "ten devices with two different blocks, interleaved",
            [(0, 10), (100, 11)]
                .into_iter()
                .flat_map(|(at, n)| units.clone().map(move |u| block(u, at, n)))
                .collect(),
        ),
    ]
}

fn run(asks: &[Ask], transactions: usize, mut run: Run) -> Tally {
    let began = run.now;
    for ask in asks.iter().cycle().take(transactions) {
        run.transact(*ask);
    }
    run.tally.virtual_time = run.now - began;
    run.tally
}

/// Long enough for everything this plant does: three timeouts, and the queue of a device that answers in order.
const HOLD_OFF: Duration = Duration::from_secs(3 * 2 + 7);

#[test]
fn no_value_is_wrong_or_old_on_a_hostile_line() {
    for (name, asks) in workloads() {
        for in_order in [true, false] {
            let seed = 0x5eed_0042;
            let tally = run(&asks, 20_000, Run::new(seed, HOSTILE, in_order, HOLD_OFF));
            assert_eq!(
                (tally.wrong, tally.old),
                (0, 0),
                "{name}, in order {in_order}, seed {seed:#x}: {tally:?}"
            );
            assert!(tally.good > 17_000, "{name}, in order {in_order}: {tally:?}");
        }
    }
}

#[test]
fn without_the_ledger_the_same_line_gives_wrong_values() {
    let (_, asks) = workloads().swap_remove(1);
    for in_order in [true, false] {
        let tally = run(&asks, 20_000, Run::new(42, HOSTILE, in_order, Duration::ZERO));
        assert!(tally.wrong > 20, "in order {in_order}: {tally:?}");
    }
}

#[test]
fn a_line_without_faults_gives_every_value_and_no_error() {
    for (name, asks) in workloads() {
        let tally = run(&asks, 2_000, Run::new(7, NONE, true, HOLD_OFF));
        assert_eq!((tally.good, tally.failed, tally.held), (2_000, 0, 0), "{name}: {tally:?}");
    }
}
