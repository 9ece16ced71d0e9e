//! What came of all damaged spools together: the figures that the test prints, and its row in the table of `tests/README.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldspool::model::RunId;

use crate::harm::Damage;
use crate::images::{Base, Name, Told};
use crate::record;

/// Sums over the images that were damaged in one way.
#[derive(Debug, Default)]
struct Kind {
    images: usize,
    undamaged: usize,
    undamaged_saved: usize,
    unproved: usize,
}

/// Sums over all images.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    images: u64,
    waiting: usize,
    saved: usize,
    lost: usize,
    /// Neither came back nor in a gap record: behind the end of a run that is said to be unproved.
    unproved: usize,
    /// ... and not even that was said.
    silent: usize,
    /// The first of these.
    first_silent: Option<String>,
    again: usize,
    blocks: usize,
    undamaged: usize,
    undamaged_saved: usize,
    /// Of spools at their cap: images, undamaged blocks, and those of them that came back.
    at_cap: (u64, usize, usize),
    /// Readings that had made room, and came all the same out of a free page, or are called damaged.
    evicted_again: usize,
    slowest: Duration,
    by_kind: BTreeMap<&'static str, Kind>,
}

impl Tally {
    /// What came of one.
    pub(crate) fn count(&mut self, base: &Base, damage: &Damage, told: &Told, took: Duration) -> usize {
        self.images += 1;
        self.at_cap.0 += u64::from(base.capped);
        self.slowest = self.slowest.max(took);
        self.waiting += base.waiting.len();
        self.saved += told.sent.len();
        self.lost += told.gaps.len();
        self.count_blocks(base, damage, told);
        self.count_missing(base, damage.kind, told);
        let other = told.sent.iter().chain(&told.gaps).filter(|name| !base.waiting.contains(name));
        let (evicted, again): (Vec<&Name>, Vec<&Name>) = other.partition(|name| base.evicted.contains(name));
        self.evicted_again += evicted.len();
        self.again += again.len();
        evicted.len() + again.len()
    }

    fn count_blocks(&mut self, base: &Base, damage: &Damage, told: &Told) {
        let of_kind = self.by_kind.entry(damage.kind).or_default();
        of_kind.images += 1;
        for block in &base.image.blocks {
            let run = RunId { counter: block.run.0, random: block.run.1 };
            let names: Vec<_> = (block.first..block.next)
                .map(|seq| (run, seq))
                // What makes room for what comes need not come back.
                .filter(|name| base.waiting.contains(name) && !told.evicted.contains(name))
                .collect();
            if names.is_empty() {
                continue;
            }
            self.blocks += 1;
            if !block.own.iter().any(|stretch| damage.hits(stretch)) {
                self.undamaged += 1;
                of_kind.undamaged += 1;
                let saved = names.iter().all(|name| told.sent.contains(name));
                self.undamaged_saved += usize::from(saved);
                of_kind.undamaged_saved += usize::from(saved);
                if base.capped {
                    self.at_cap.1 += 1;
                    self.at_cap.2 += usize::from(saved);
                }
            }
        }
    }

    /// What waited, did not come back and is in no gap record.
    fn count_missing(&mut self, base: &Base, kind: &'static str, told: &Told) {
        for name in base.waiting.union(&base.evicted) {
            if [&told.sent, &told.gaps, &told.evicted].iter().any(|told| told.contains(name)) {
                continue;
            }
            let from = told.unproved.get(&name.0);
            if base.killed && from.is_some_and(|from| name.1 >= *from) {
                self.unproved += 1;
                self.by_kind.entry(kind).or_default().unproved += 1;
                continue;
            }
            self.silent += 1;
            let image = self.images - 1;
            let what = || format!("image {image}, {kind}: {name:?}; {from:?}, killed {}", base.killed);
            self.first_silent.get_or_insert_with(what);
        }
    }

    /// The share of undamaged blocks that came back.
    pub(crate) fn share(&self) -> f64 {
        self.undamaged_saved as f64 / self.undamaged as f64
    }

    /// ... of spools at their cap.
    pub(crate) fn share_at_cap(&self) -> f64 {
        let (_, undamaged, saved) = self.at_cap;
        if undamaged == 0 { 1.0 } else { saved as f64 / undamaged as f64 }
    }

    /// The first reading that went missing in silence, if any did.
    pub(crate) fn silent(&self) -> Option<&str> {
        self.first_silent.as_deref()
    }

    /// The row of the table.
    pub(crate) fn row(&self, seed: &str) {
        let often = format!(
            "{}, {} of them at their cap; {:.3} % of undamaged blocks came back, {:.3} % of those at the cap; slowest start {:.0} ms of the processor",
            self.images,
            self.at_cap.0,
            self.share() * 100.0,
            self.share_at_cap() * 100.0,
            self.slowest.as_secs_f64() * 1000.0
        );
        let lost = format!(
            "{} of {}; {} behind an end that is said to be unproved",
            self.silent, self.waiting, self.unproved
        );
        record::row("damaged spool", &[&often, seed, &lost, &self.again.to_string(), "`make crash`"]);
    }

    // The figures are what the table of tests/README.md quotes.
    #[allow(clippy::print_stdout)]
    pub(crate) fn report(&self, seed: &str) {
        for (kind, Kind { images, undamaged, undamaged_saved, unproved }) in &self.by_kind {
            println!(
                "  {kind}: {images} images, {undamaged_saved} of {undamaged} undamaged blocks came back, {unproved} readings \
             behind an end that is said to be unproved"
            );
        }
        println!(
            "{} damaged spools, seed {seed}: {} readings waited, {} came back, {} recorded as lost, {} behind an end that \
         is said to be unproved, {} missing in silence, {} confirmed ones sent again or \
         recorded; {} of {} blocks undamaged, {:.3} % of these came back; \
         {} at their cap: {:.3} % of theirs, {} that had made room came all the same or are called damaged; slowest start {:.0} ms of the processor",
            self.images,
            self.waiting,
            self.saved,
            self.lost,
            self.unproved,
            self.silent,
            self.again,
            self.undamaged,
            self.blocks,
            self.share() * 100.0,
            self.at_cap.0,
            self.share_at_cap() * 100.0,
            self.evicted_again,
            self.slowest.as_secs_f64() * 1000.0,
        );
    }
}
