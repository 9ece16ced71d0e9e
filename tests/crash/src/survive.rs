//! What of the unsynced changes is on the medium after a cut: whole, in part, or torn to garbage, sector by sector.

use fastrand::Rng;

/// What survives a cut whole.
const SECTOR: usize = 512;

/// What the medium is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

/// How a cut goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Luck {
    /// Changes before this one are there whole.
    whole: usize,
    /// Later sectors are there with this chance.
    chance: f64,
    /// Those that are not may be garbage with this one.
    garbage: f64,
}

impl Luck {
    pub(crate) fn draw(random: &mut Rng, changes: usize) -> Self {
        let garbage = if random.u8(0..4) == 0 { 0.2 } else { 0.0 };
        let chance = match random.u8(0..8) {
            // All of it: nothing but the process died. Or nothing of it.
            0 | 1 => 1.0,
            2 | 3 => 0.0,
            4 => random.f64(),
            5 => 0.9,
            // In order up to some point, and torn there.
            6 => return Self { whole: random.usize(0..=changes), chance: 0.0, garbage },
            _ => 0.5,
        };
        Self { whole: 0, chance, garbage }
    }
}

/// What of the changes reaches the medium.
pub(crate) fn survive(durable: &mut Vec<u8>, changes: &[Change], luck: Luck, random: &mut Rng) {
    let torn = Luck { chance: 0.5, ..luck };
    for (number, change) in changes.iter().enumerate() {
        if number < luck.whole {
            apply(durable, change);
            continue;
        }
        let luck = if luck.whole > 0 && number == luck.whole { torn } else { luck };
        match change {
            Change::Truncate(_) if random.f64() < luck.chance => apply(durable, change),
            Change::Truncate(_) => {}
            Change::Write(at, bytes) => tear(durable, *at, bytes, luck, random),
        }
    }
}

fn tear(durable: &mut Vec<u8>, at: u64, bytes: &[u8], luck: Luck, random: &mut Rng) {
    let start = usize::try_from(at).expect("small files");
    // The file may have grown although its sectors did not come.
    if luck.chance > 0.0 && random.f64() < luck.chance && durable.len() < start + bytes.len() {
        durable.resize(start + bytes.len(), 0);
    }
    let mut from = start;
    while from < start + bytes.len() {
        let to = ((from / SECTOR + 1) * SECTOR).min(start + bytes.len());
        let piece = &bytes[from - start..to - start];
        if random.f64() < luck.chance {
            write(durable, from, piece);
        } else if luck.garbage > 0.0 && random.f64() < luck.garbage && piece.len() == SECTOR {
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(SECTOR).collect();
            write(durable, from, &noise);
        }
        from = to;
    }
}

pub(crate) fn apply(durable: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => write(durable, usize::try_from(*at).expect("small files"), bytes),
        Change::Truncate(length) => durable.resize(usize::try_from(*length).expect("small files"), 0),
    }
}

fn write(durable: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if durable.len() < at + bytes.len() {
        durable.resize(at + bytes.len(), 0);
    }
    durable[at..at + bytes.len()].copy_from_slice(bytes);
}
