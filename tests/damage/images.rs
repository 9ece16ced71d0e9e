//! 1 000 damaged spools: each starts at once, loses nothing in silence, and gives back what is not damaged itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool::model::event::{Body, Event, GapCause};
use fieldspool::model::{Batch, RunId};
use fieldspool::spool::Confirmed;

use crate::harm::damage;
use crate::oracle::{self, Image};
use crate::plant::{Plant, Random, Taken, copy};
use crate::tally::Tally;

/// A start takes no more of the processor: what it waits for others on a busy machine does not count.
const START_MOST: Duration = Duration::from_secs(5);

/// ... and does not hang.
const START_GUARD: Duration = Duration::from_secs(60);

/// The share of undamaged blocks that comes back.
const SHARE: f64 = 0.995;

pub(crate) type Name = (RunId, u64);

/// A real spool, and what is true of it.
pub(crate) struct Base {
    directory: tempfile::TempDir,
    pub(crate) image: Image,
    batches: BTreeMap<Name, Batch>,
    pub(crate) waiting: BTreeSet<Name>,
    /// Made room at the cap, and were recorded as lost.
    pub(crate) evicted: BTreeSet<Name>,
    /// The ring is at its cap, has wrapped, and waits.
    pub(crate) capped: bool,
    /// The last life was cut off: its log is there.
    pub(crate) killed: bool,
}

/// Two lives: the first confirms some and ends in order, the second is cut off, or ends in order too. `capped`: the second goes on until
/// the oldest have made room for some time.
fn base(random: &mut Random, capped: bool) -> Base {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut batches, mut waiting) = (BTreeMap::new(), BTreeSet::new());
    let killed = random.below(2) == 0;
    let mut evicted = BTreeSet::new();
    for life in 0..2 {
        let mut taken = open(directory.path(), capped);
        let mut plant = Plant::new(taken.spool.run);
        let mut turns = 40 + random.below(160);
        while turns > 0 {
            // It is not at its cap yet.
            let fills = capped && life == 1 && taken.board.read(|status| status.spool.evicted) == 0;
            turns -= u64::from(!fills);
            for _ in 0..=random.below(if capped { 12 } else { 3 }) {
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
        if capped && life == 1 {
            evicted = made_room(&mut taken, &mut waiting);
        }
        let now = taken.now;
        if life == 0 || !killed {
            taken.spool.close(true, now).expect("closes");
        }
    }
    // As a kill leaves it: the log is still there.
    let directory = copy(directory.path());
    let image = oracle::read(directory.path());
    Base { directory, image, batches, waiting, evicted, capped, killed }
}

fn open(directory: &Path, capped: bool) -> Taken {
    if capped { Taken::open_capped(directory) } else { Taken::open(directory) }
}

/// What has made room: it does not wait any more.
fn made_room(taken: &mut Taken, waiting: &mut BTreeSet<Name>) -> BTreeSet<Name> {
    let mut evicted = BTreeSet::new();
    let (batches, events) = taken.settle();
    for event in events {
        if let Body::Gap { of, first, next, cause: GapCause::Evicted } = event.body {
            evicted.extend((first..next).map(|seq| (of, seq)));
        }
    }
    assert!(!evicted.is_empty() && evicted.is_subset(waiting), "the ring has wrapped");
    waiting.retain(|name| !evicted.contains(name));
    let there: BTreeSet<_> = names(&batches).collect();
    assert_eq!(&there, waiting, "before it is damaged it is as it must be");
    evicted
}

fn names(batches: &[Arc<Batch>]) -> impl Iterator<Item = Name> {
    batches.iter().flat_map(|batch| (batch.seq..batch.end()).map(|seq| (batch.run, seq)))
}

/// What a receiver was told of the lives before the damage.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) sent: BTreeSet<Name>,
    /// Damaged, as the gap records say.
    pub(crate) gaps: BTreeSet<Name>,
    /// Made room, as the gap records say.
    pub(crate) evicted: BTreeSet<Name>,
    /// Runs that are not proved to their end, and from where.
    pub(crate) unproved: BTreeMap<RunId, u64>,
    /// Saved and lost, as the corruption records say.
    said: (usize, usize),
}

fn told(base: &Base, now: RunId, batches: &[Arc<Batch>], events: &[Arc<Event>], say: &str) -> Told {
    let mut told = Told::default();
    for batch in batches.iter().filter(|batch| batch.run != now) {
        assert_eq!(base.batches.get(&(batch.run, batch.seq)), Some(&**batch), "{say}: true to the last bit");
        for seq in batch.seq..batch.end() {
            assert!(told.sent.insert((batch.run, seq)), "{say}: {seq} twice");
        }
    }
    for event in events {
        match event.body {
            Body::Gap { of, first, next, cause } => {
                assert!(next - first < 1_000_000, "{say}: a gap of {first} to {next}");
                let known = match cause {
                    GapCause::Damaged => &mut told.gaps,
                    GapCause::Evicted => &mut told.evicted,
                    other => panic!("{say}: nothing was lost as {other:?}"),
                };
                for seq in first..next {
                    assert!(known.insert((of, seq)), "{say}: {seq} in two gap records");
                }
            }
            Body::Gaps { .. } => panic!("{say}: too many gaps to be judged: {event:?}"),
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
        assert!(self.gaps.is_disjoint(&self.evicted), "{say}: lost for two causes");
        assert_eq!(self.said.1, self.gaps.len(), "{say}: the report counts what was lost");
        // What comes while the ring is full of what waits takes the place of the oldest, a little at once.
        // A block that had made room before may still lie in a free page, and its books be lost: it comes, and is counted.
        let made_room: BTreeSet<_> = self.evicted.intersection(&base.waiting).copied().collect();
        assert!(self.sent.is_disjoint(&made_room), "{say}: sent, and said to have made room");
        let (made_room, room) = (made_room.len(), if base.capped { base.waiting.len() / 16 } else { 0 });
        assert!(made_room <= room, "{say}: {made_room} made room");
        for name in self.gaps.iter().chain(&self.evicted) {
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
    let (started, before) = (Instant::now(), processor_time());
    let mut taken = open(directory.path(), base.capped);
    let (waited, took) = (started.elapsed(), processor_time().saturating_sub(before));
    assert!(took < START_MOST && waited < START_GUARD, "{say}: {took:?} of {waited:?} to start");
    let quarantine = directory.path().join("quarantine");
    let at_start = quarantine.exists();
    // Sampling goes on at once.
    let mut plant = Plant::new(taken.spool.run);
    let new = plant.batch(random);
    taken.store(new.clone());
    let (batches, events) = if base.capped { taken.drain() } else { taken.settle() };
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
    let waiting = if base.capped { 0 } else { sent.len() + new.readings.len() };
    assert_eq!(status.waiting as usize, waiting, "{say}: the books say what waits");
    assert_eq!(status.damaged as usize, gaps.len(), "{say}: the books say what is lost");

    let again = tally.count(base, &damage, &told, took);
    if !base.killed {
        assert_eq!(again, 0, "{say}: saved and lost are together what was waiting");
    }
}

/// Of this thread; the spool is taken step by step and has no other.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
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
    let mut spool = base(&mut random, false);
    for image in 0..images {
        if image % 20 == 19 {
            // One of three is full.
            spool = base(&mut random, image / 20 % 3 == 0);
        }
        let say = format!("image {image} of seed {seed}");
        judge(&spool, &mut random, &mut tally, &say);
    }
    tally.report(&seed);
    if images >= 1000 {
        tally.row(&seed);
    }
    for (which, share) in [("all", tally.share()), ("those at their cap", tally.share_at_cap())] {
        assert!(share >= SHARE, "{which}: {share}");
    }
    assert_eq!(tally.silent(), None, "went missing in silence");
}
