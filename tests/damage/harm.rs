//! What is done to a spool: bits, pages, lengths, and the places that hurt most. Each byte that was changed is known.

use std::path::Path;

use crate::images::Base;
use crate::oracle::{PAGE, Stretch};
use crate::plant::Random;

/// The file, and its log.
const NAMES: [&str; 2] = ["spool.db", "spool.db-wal"];

/// What was done to a copy.
pub(crate) struct Damage {
    pub(crate) kind: &'static str,
    changed: Vec<Stretch>,
    /// Less of the file, or of the log, than there was.
    cut: (Option<usize>, Option<usize>),
}

impl Damage {
    pub(crate) fn hits(&self, stretch: &Stretch) -> bool {
        let cut = if stretch.in_log { self.cut.1 } else { self.cut.0 };
        cut.is_some_and(|length| stretch.to > length)
            || self.changed.iter().any(|changed| {
                changed.in_log == stretch.in_log && changed.from < stretch.to && stretch.from < changed.to
            })
    }
}

struct Files {
    bytes: [Vec<u8>; 2],
    damage: Damage,
}

impl Files {
    fn write(&self, to: &Path) {
        let Damage { cut, .. } = self.damage;
        for ((name, bytes), cut) in NAMES.iter().zip(&self.bytes).zip([cut.0, cut.1]) {
            match cut {
                Some(0) if *name == NAMES[1] => std::fs::remove_file(to.join(name)).expect("removed"),
                _ if bytes.is_empty() => {}
                cut => std::fs::write(to.join(name), &bytes[..cut.unwrap_or(bytes.len())]).expect("written"),
            }
        }
    }

    fn put(&mut self, in_log: bool, at: usize, byte: u8) {
        let Some(place) = self.bytes[usize::from(in_log)].get_mut(at) else { return };
        if *place != byte {
            *place = byte;
            self.damage.changed.push(Stretch { in_log, from: at, to: at + 1 });
        }
    }

    fn flip(&mut self, in_log: bool, at: usize, random: &mut Random) {
        if let Some(byte) = self.bytes[usize::from(in_log)].get(at).copied() {
            self.put(in_log, at, byte ^ 1 << random.below(8));
        }
    }

    fn fill(&mut self, stretch: Stretch, random: Option<&mut Random>) {
        let mut noise = random.map(|random| Random(random.next()));
        for at in stretch.from..stretch.to {
            let byte = noise.as_mut().map_or(0, |noise| noise.next() as u8);
            self.put(stretch.in_log, at, byte);
        }
    }
}

fn any(random: &mut Random, length: usize) -> usize {
    random.below(length as u64) as usize
}

fn page(at: usize) -> Stretch {
    Stretch { in_log: false, from: at / PAGE * PAGE, to: at / PAGE * PAGE + PAGE }
}

/// Damages a copy of the base in one way.
pub(crate) fn damage(base: &Base, random: &mut Random, to: &Path) -> Damage {
    let bytes = NAMES.map(|name| std::fs::read(to.join(name)).unwrap_or_default());
    let mut files = Files { bytes, damage: Damage { kind: "", changed: Vec::new(), cut: (None, None) } };
    let kind = random.below(if base.killed { 10 } else { 7 });
    files.damage.kind = match kind {
        0..4 => in_file(&mut files, kind, random),
        4..7 => at_a_weak_place(&mut files, base, kind, random),
        _ => in_log(&mut files, kind, random),
    };
    files.write(to);
    files.damage
}

fn in_file(files: &mut Files, kind: u64, random: &mut Random) -> &'static str {
    let length = files.bytes[0].len();
    match kind {
        0 => {
            for _ in 0..=random.below(32) {
                files.flip(false, any(random, length), random);
            }
            "bits flipped"
        }
        1 => {
            for _ in 0..=random.below(8) {
                files.fill(page(any(random, length)), None);
            }
            "pages zeroed"
        }
        2 => {
            files.damage.cut.0 = Some(any(random, length));
            "cut short"
        }
        _ => {
            let from = any(random, length);
            let to = (from + 1 + any(random, 16 * PAGE)).min(length);
            files.fill(Stretch { in_log: false, from, to }, Some(random));
            "garbage over a stretch"
        }
    }
}

fn at_a_weak_place(files: &mut Files, base: &Base, kind: u64, random: &mut Random) -> &'static str {
    let interior = &base.image.interior;
    match kind {
        4 => {
            match random.below(3) {
                0 => files.fill(page(0), None),
                1 => files.fill(page(0), Some(random)),
                _ => (0..8).for_each(|_| files.flip(false, any(random, 200), random)),
            }
            "the first page"
        }
        5 => {
            for _ in 0..=random.below(2) {
                let Some(stretch) = interior.get(any(random, interior.len())).copied() else { continue };
                match random.below(2) {
                    0 => files.fill(stretch, None),
                    _ => files.flip(stretch.in_log, stretch.from + any(random, PAGE), random),
                }
            }
            "an interior page"
        }
        _ => {
            // What points to cells and pages, and not the cells themselves.
            let leaf = base.image.leaves[any(random, base.image.leaves.len())];
            files.flip(leaf.in_log, leaf.from + any(random, 12), random);
            if let Some(stretch) = interior.get(any(random, interior.len())) {
                let pointer = any(random, 40);
                files.flip(stretch.in_log, stretch.from + 8 + pointer, random);
            }
            "pointers"
        }
    }
}

fn in_log(files: &mut Files, kind: u64, random: &mut Random) -> &'static str {
    let length = files.bytes[1].len();
    match kind {
        7 => {
            for _ in 0..=random.below(4) {
                files.flip(true, any(random, length), random);
            }
            "bits flipped in the log"
        }
        8 => {
            if random.below(2) == 0 {
                files.damage.cut.1 = Some(any(random, length));
            } else {
                let from = any(random, length);
                let to = (from + 4 * PAGE).min(length);
                files.fill(Stretch { in_log: true, from, to }, Some(random));
            }
            "the log cut short, or garbage in it"
        }
        _ => {
            files.damage.cut.1 = Some(0);
            "the log missing"
        }
    }
}
