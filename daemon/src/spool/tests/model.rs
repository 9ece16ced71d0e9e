//! The spool in lockstep with a plain list: random appends, confirmations in and out of order, dead letters, kills and stops,
//! with a cap that is reached. After each step the backlog, walked by cursors, the export and the books are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::spool::Asked;
use crate::spool::ledger::{EXCEPTIONS_MAX, RunBooks};

#[derive(Clone, Debug)]
enum Step {
    /// Small and big batches, so that blocks of all lengths take each other's rows; stored in so many windows.
    Append { small: usize, big: usize, windows: usize },
    /// The waiting ones at these places (modulo how many there are).
    Confirm(Vec<usize>),
    /// All that waits but the newest so many.
    ConfirmAllBut(usize),
    /// All records that wait.
    ConfirmRecords,
    /// The waiting one at this place is refused for good.
    DeadLetter(usize),
    /// Of the run of the batch at this place, so many readings are sent again from there on, as far as they are still there.
    Resend(usize, u64),
    /// Cut off, and opened from what is on the disk.
    Kill,
    /// Stopped in order, and opened again.
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..20_usize, 0..120_usize, 1..4_usize)
            .prop_map(|(small, big, windows)| Step::Append { small, big, windows }),
        3 => proptest::collection::vec(any::<usize>(), 1..40).prop_map(Step::Confirm),
        1 => (0..30_usize).prop_map(Step::ConfirmAllBut),
        2 => Just(Step::ConfirmRecords),
        1 => any::<usize>().prop_map(Step::DeadLetter),
        1 => (any::<usize>(), 1..2000_u64).prop_map(|(place, n)| Step::Resend(place, n)),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// What the list knows of a batch.
struct Known {
    batch: Arc<Batch>,
    /// Confirmed, in which life.
    confirmed: Option<usize>,
    /// In a gap record.
    lost: bool,
    /// In a dead letter.
    dead: bool,
}

struct Model {
    known: Vec<Known>,
    life: usize,
    /// Numbered in this life.
    seq: u64,
    shapes: [Arc<Shape>; 2],
    directory: tempfile::TempDir,
    spool: Spool,
    run: RunId,
    gaps: BTreeSet<(RunId, u64)>,
    ends: BTreeSet<RunId>,
}

fn capped(directory: &Path) -> SpoolSettings {
    SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory) }
}

impl Model {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (Opened { spool, run, .. }, _) = open(capped(directory.path()));
        let shapes = [big_shape(), shape("meter", &[ValueKind::F64, ValueKind::Text])];
        Self {
            known: Vec::new(),
            life: 0,
            seq: 0,
            shapes,
            directory,
            spool,
            run,
            gaps: BTreeSet::new(),
            ends: BTreeSet::new(),
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append { small, big, windows } => self.append(small, big, windows).await,
            Step::Confirm(places) => {
                let waiting: Vec<_> = (0..self.known.len()).filter(|at| self.waits(*at)).collect();
                for place in places.into_iter().filter(|_| !waiting.is_empty()) {
                    self.confirm(waiting[place % waiting.len()]);
                }
            }
            Step::ConfirmAllBut(left) => {
                let waiting: Vec<_> = (0..self.known.len()).filter(|at| self.waits(*at)).collect();
                for at in &waiting[..waiting.len().saturating_sub(left)] {
                    self.confirm(*at);
                }
            }
            Step::ConfirmRecords => {
                let events = waiting(&self.spool).await.1;
                let confirmed: Vec<_> = events.iter().map(|event| Confirmed::from(&**event)).collect();
                self.spool.confirm(&confirmed);
            }
            Step::DeadLetter(place) => {
                let waiting: Vec<_> = (0..self.known.len()).filter(|at| self.waits(*at)).collect();
                if let Some(at) = waiting.get(place % waiting.len().max(1)) {
                    let refused = vec![Confirmed::from(&*self.known[*at].batch)];
                    self.spool.dead_letter(refused, "no".into()).await.expect("stored");
                    self.known[*at].dead = true;
                }
            }
            Step::Resend(place, n) => self.resend(place, n).await,
            Step::Kill => {
                let next = copy(&self.spool, self.directory.path());
                self.directory = next;
                let scattered = self.scattered();
                self.open_again();
                let ended = self.life - 1;
                self.forget(|life, run| life == ended || scattered.contains(&run)).await;
            }
            Step::Stop => {
                self.spool.clone().close(true).await.expect("closes");
                let scattered = self.scattered();
                self.open_again();
                self.forget(|_, run| scattered.contains(&run)).await;
            }
        }
        self.compare().await;
    }

    fn waits(&self, at: usize) -> bool {
        let known = &self.known[at];
        known.confirmed.is_none() && !known.lost && !known.dead
    }

    fn confirm(&mut self, at: usize) {
        self.spool.confirm(&[Confirmed::from(&*self.known[at].batch)]);
        self.known[at].confirmed.get_or_insert(self.life);
    }

    fn open_again(&mut self) {
        let (Opened { spool, run, .. }, _) = open(capped(self.directory.path()));
        assert!(run > self.run, "{run} after {}", self.run);
        (self.spool, self.run, self.seq) = (spool, run, 0);
        self.life += 1;
    }

    async fn append(&mut self, small: usize, big_ones: usize, windows: usize) {
        for window in 0..windows {
            for i in 0..(small + big_ones) / windows {
                let batch = if (i + window) % (small + big_ones) < small {
                    let mut plant = Plant { run: self.run, shape: self.shapes[1].clone(), seq: self.seq };
                    plant.batch()
                } else {
                    big(self.run, self.seq, &self.shapes[0])
                };
                self.seq = batch.end();
                self.spool.append(batch.clone());
                self.known.push(Known { batch, confirmed: None, lost: false, dead: false });
            }
            flush(&self.spool).await;
        }
    }

    async fn resend(&mut self, place: usize, n: u64) {
        if self.known.is_empty() {
            return;
        }
        let batch = self.known[place % self.known.len()].batch.clone();
        let (run, first, next) = (batch.run, batch.seq, batch.seq + n);
        let asked = Asked::Stretch { run, first, next };
        // Of a folded run nobody knows any more how much of it was lost. The commits of the request may fold it, too.
        flush(&self.spool).await;
        let is_folded = || self.spool.shared.lock().ledger.is_folded(run);
        let folded = is_folded();
        let resent = self.spool.resend(asked, watch::Sender::new(0.0)).await.expect("searched");
        let folded = folded || is_folded();
        let waiting: BTreeSet<_> = waiting(&self.spool).await.0.iter().map(|b| (b.run, b.seq)).collect();
        let (mut again, mut gone) = (0, 0);
        for known in &mut self.known {
            let own = known.batch.run == run && known.batch.seq < next && known.batch.end() > first;
            if !own || known.confirmed.is_none() {
                continue;
            }
            if waiting.contains(&(run, known.batch.seq)) {
                known.confirmed = None;
                again += known.batch.n();
            } else {
                gone += known.batch.end().min(next) - known.batch.seq.max(first);
            }
        }
        assert_eq!(resent.readings, again, "{resent:?}");
        assert!(folded || resent.gone + resent.left == gone, "{gone} are gone: {resent:?}");
    }

    /// Runs with more confirmed stretches than the disk keeps.
    fn scattered(&self) -> BTreeSet<RunId> {
        let inner = self.spool.shared.lock();
        let many = |books: &RunBooks| books.settled.count() > EXCEPTIONS_MAX;
        inner.ledger.runs.iter().filter(|(_, books)| many(books)).map(|(run, _)| *run).collect()
    }

    /// After a restart some confirmations may be unknown: those of a life that was killed, and beyond the exceptions
    /// that are kept. Others may not.
    async fn forget(&mut self, may: impl Fn(usize, RunId) -> bool) {
        let waiting: BTreeSet<_> = waiting(&self.spool).await.0.iter().map(|b| (b.run, b.seq)).collect();
        for known in &mut self.known {
            let name = (known.batch.run, known.batch.seq);
            if waiting.contains(&name) && known.confirmed.is_some_and(|life| may(life, name.0)) {
                known.confirmed = None;
            }
        }
    }

    async fn compare(&mut self) {
        flush(&self.spool).await;
        let (batches, events) = waiting(&self.spool).await;
        for event in &events {
            match event.body {
                Body::Gap { of, first, next, cause: GapCause::Evicted } => {
                    self.gaps.extend((first..next).map(|seq| (of, seq)));
                }
                Body::Gap { cause: GapCause::DeadLetter, .. } => {}
                Body::RunEnd { ended, next_seq, .. } => {
                    self.ends.insert(ended);
                    let numbered = self.known.iter().filter(|known| known.batch.run == ended);
                    assert_eq!(next_seq, numbered.map(|known| known.batch.end()).max().unwrap_or_default());
                }
                ref other => panic!("{other:?}"),
            }
        }
        let mut lost = 0;
        let open = |known: &&mut Known| known.confirmed.is_none() && !known.dead;
        for known in self.known.iter_mut().filter(open) {
            known.lost =
                (known.batch.seq..known.batch.end()).all(|seq| self.gaps.contains(&(known.batch.run, seq)));
            lost += if known.lost { known.batch.n() } else { 0 };
        }
        let expected: Vec<_> = (0..self.known.len())
            .filter(|at| self.waits(*at))
            .map(|at| self.known[at].batch.clone())
            .collect();
        assert_eq!(batches.len(), expected.len(), "as many wait as should");
        assert!(batches == expected, "what waits is what was given, in order");
        let (numbered, sums) =
            (self.known.iter().map(|known| known.batch.n()).sum::<u64>(), sums(&self.spool));
        assert_eq!(sums.waiting, expected.iter().map(|batch| batch.n()).sum::<u64>());
        assert_eq!(
            sums.waiting + sums.confirmed + sums.losses.total(),
            numbered,
            "the books balance: {sums:?}"
        );
        assert_eq!(sums.losses.evicted, lost, "each eviction is in a gap record");
        let dead = self.known.iter().filter(|known| known.dead).map(|known| known.batch.n()).sum::<u64>();
        assert_eq!(sums.losses.dead_lettered, dead);
        self.compare_export(&expected).await;
        let lives: BTreeSet<_> =
            self.known.iter().map(|known| known.batch.run).filter(|run| *run != self.run).collect();
        assert!(lives.is_subset(&self.ends), "each life that ended has its record");
        let length = std::fs::metadata(self.directory.path().join(store::FILE)).expect("there").len();
        assert!(length <= BYTES_MAX_LEAST, "{length} bytes");
    }

    /// The export of what waits is the same, that of everything holds it in the same order.
    async fn compare_export(&self, expected: &[Arc<Batch>]) {
        let mut waiting = Vec::new();
        let mut all = Vec::new();
        for (query, found) in [
            (ExportQuery { waiting: true, ..ExportQuery::default() }, &mut waiting),
            (ExportQuery::default(), &mut all),
        ] {
            let mut query = query;
            loop {
                let page = self.spool.export(query.clone()).await.expect("readable");
                found.extend(page.batches);
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
        }
        assert!(waiting == expected, "the export of what waits is what waits");
        assert!(all.is_sorted_by_key(|batch| (batch.run, batch.seq)), "the export is in order");
        let known: BTreeMap<_, _> =
            self.known.iter().map(|known| ((known.batch.run, known.batch.seq), &known.batch)).collect();
        assert!(
            all.iter().all(|batch| known.get(&(batch.run, batch.seq)) == Some(&batch)),
            "and holds nothing else"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_does_what_a_plain_list_does(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut model = Model::new();
            for step in steps {
                model.take(step).await;
            }
        });
    }
}
