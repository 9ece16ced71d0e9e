//! 1 000 damaged spools: each starts at once, loses nothing in silence, and gives back what is not damaged itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool::model::event::{Body, Event};
use fieldspool::model::{Batch, RunId};
use fieldspool::spool::Confirmed;

use crate::oracle::{self, Image, PAGE, Stretch};
use crate::plant::{Plant, Random, Taken, copy};
use crate::tally::Tally;

/// A hang guard, on busy machines. What is promised is 5 s, and what is measured is printed.
const START_GUARD: Duration = Duration::from_secs(60);

/// The share of undamaged blocks that comes back.
const SHARE: f64 = 0.99;

/// The file, and its log.
const NAMES: [&str; 2] = ["spool.db", "spool.db-wal"];

pub(crate) type Name = (RunId, u64);

/// A real spool, and what is true of it.
pub(crate) struct Base {
    directory: tempfile::TempDir,
    pub(crate) image: Image,
    batches: BTreeMap<Name, Batch>,
    pub(crate) waiting: BTreeSet<Name>,
    /// The last life was cut off: its log is there.
    pub(crate) killed: bool,
}

/// Two lives: the first confirms some and ends in order, the second is cut off, or ends in order too.
fn base(random: &mut Random) -> Base {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut batches, mut waiting) = (BTreeMap::new(), BTreeSet::new());
    let killed = random.below(2) == 0;
    for life in 0..2 {
        let mut taken = Taken::open(directory.path());
        let mut plant = Plant::new(taken.spool.run);
        for _ in 0..40 + random.below(160) {
            for _ in 0..=random.below(3) {
                let batch = plant.batch(random);
                taken.spool.append(batch.clone(), taken.now);
                let confirmed = life == 0 && random.below(4) == 0;
                if confirmed {
                    taken.spool.confirm(&[Confirmed::from(&*batch)]);
                }
                for seq in batch.seq..batch.end() {
                    if !confirmed {
                        waiting.insert((batch.run, seq));
                    }
                }
                batches.insert((batch.run, batch.seq), Batch::clone(&batch));
            }
            taken.turn();
        }
        let now = taken.now;
        if life == 0 || !killed {
            taken.spool.close(true, now).expect("closes");
        }
    }
    // As a kill leaves it: the log is still there.
    let directory = copy(directory.path());
    let image = oracle::read(directory.path());
    Base { directory, image, batches, waiting, killed }
}

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
fn damage(base: &Base, random: &mut Random, to: &Path) -> Damage {
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

/// What a receiver was told of the lives before the damage.
pub(crate) struct Told {
    pub(crate) sent: BTreeSet<Name>,
    pub(crate) gaps: BTreeSet<Name>,
    /// Runs that are not proved to their end, and from where.
    pub(crate) unproved: BTreeMap<RunId, u64>,
    /// Saved and lost, as the corruption records say.
    said: (usize, usize),
}

fn told(base: &Base, now: RunId, batches: &[Arc<Batch>], events: &[Arc<Event>], say: &str) -> Told {
    let mut told =
        Told { sent: BTreeSet::new(), gaps: BTreeSet::new(), unproved: BTreeMap::new(), said: (0, 0) };
    for batch in batches.iter().filter(|batch| batch.run != now) {
        assert_eq!(base.batches.get(&(batch.run, batch.seq)), Some(&**batch), "{say}: true to the last bit");
        for seq in batch.seq..batch.end() {
            assert!(told.sent.insert((batch.run, seq)), "{say}: {seq} twice");
        }
    }
    for event in events {
        match event.body {
            Body::Gap { of, first, next, .. } => {
                assert!(next - first < 1_000_000, "{say}: a gap of {first} to {next}");
                for seq in first..next {
                    assert!(told.gaps.insert((of, seq)), "{say}: {seq} in two gap records");
                }
            }
            Body::Corruption { saved, lost, .. } => {
                told.said = (told.said.0 + saved as usize, told.said.1 + lost as usize);
            }
            Body::RunEnd { ended, next_seq, clean: false, .. } => {
                let from = told.unproved.entry(ended).or_insert(next_seq);
                *from = (*from).min(next_seq);
            }
            _ => {}
        }
    }
    told
}

impl Told {
    /// Nothing is said twice, and nothing is said that was not.
    fn is_exact(&self, base: &Base, say: &str) {
        assert!(self.sent.is_disjoint(&self.gaps), "{say}: sent, and said to be lost");
        assert_eq!(self.said.1, self.gaps.len(), "{say}: the report counts what was lost");
        for name in &self.gaps {
            let known = base.batches.range(..=*name).next_back();
            let known = known.is_some_and(|(first, batch)| first.0 == name.0 && name.1 < batch.end());
            assert!(known, "{say}: {name:?} never was");
        }
    }
}

fn judge(base: &Base, random: &mut Random, tally: &mut Tally, say: &str) {
    let directory = copy(base.directory.path());
    let damage = damage(base, random, directory.path());
    let say = format!("{say}, {}", damage.kind);
    let started = Instant::now();
    let mut taken = Taken::open(directory.path());
    let took = started.elapsed();
    assert!(took < START_GUARD, "{say}: {took:?} to start");
    let quarantine = directory.path().join("quarantine");
    let at_start = quarantine.exists();
    // Sampling goes on at once.
    let mut plant = Plant::new(taken.spool.run);
    let new = plant.batch(random);
    taken.store(new.clone());
    let (batches, events) = taken.settle();
    assert!(batches.contains(&new), "{say}: what is read now is stored and sent");

    let told = told(base, taken.spool.run, &batches, &events, &say);
    told.is_exact(base, &say);
    if quarantine.exists() {
        // Damage that was found later may have taken with it what had been read since, and given it back.
        let since = told.said.0.saturating_sub(told.sent.len());
        let possible = since == 0 || (!at_start && since == new.readings.len());
        assert!(possible && told.said.0 >= told.sent.len(), "{say}: {} saved", told.said.0);
    }
    let status = taken.board.read(|status| status.spool.clone());
    let Told { sent, gaps, .. } = &told;
    assert_eq!(status.waiting as usize, sent.len() + new.readings.len(), "{say}: the books say what waits");
    assert_eq!(status.damaged as usize, gaps.len(), "{say}: the books say what is lost");

    let again = tally.count(base, &damage, &told, took);
    if !base.killed {
        assert_eq!(again, 0, "{say}: saved and lost are together what was waiting");
    }
}

#[test]
fn a_damaged_spool_starts_at_once_and_nothing_of_it_goes_missing_in_silence() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (images, seed) = (number("FIELDSPOOL_IMAGES", 60), number("FIELDSPOOL_SEED", 1));
    let mut random = Random(seed);
    let seed = seed.to_string();
    let mut tally = Tally::default();
    let mut spool = base(&mut random);
    for image in 0..images {
        if image % 20 == 19 {
            spool = base(&mut random);
        }
        let say = format!("image {image} of seed {seed}");
        judge(&spool, &mut random, &mut tally, &say);
    }
    tally.report(&seed);
    if images >= 1000 {
        tally.row(&seed);
    }
    assert!(tally.share() >= SHARE, "{}", tally.share());
    assert_eq!(tally.silent(), None, "went missing in silence");
}
