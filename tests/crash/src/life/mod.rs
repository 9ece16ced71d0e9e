//! Lives of a spool on the [`disk`]: random steps at made-up times, the power cut at some operation, what is left laid out,
//! the spool opened again and judged by the [`Book`]; then the next life, on the same files.

mod acts;
mod plan;
mod update;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use fieldspool::model::RunId;
use fieldspool::spool::schema::{self, Schema};
use fieldspool::spool::stepped::Stepped;
use fieldspool::spool::{BYTES_MAX_LEAST, Confirmed, Cursor, Item, Keep, SpoolSettings};
use fieldspool::status::Board;

use crate::book::{Book, Given, LONGEST_STEP_US, Verdict};
use crate::disk::{self, Faults};
use crate::plant::{Plant, stamp};
pub use plan::{Plan, Planted, Tally};

/// The spool waits so long for what is on the wire, at most.
const PATIENCE_US: u64 = 10_000_000;

/// Files to begin with, and the book that belongs to them.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    files: Vec<(PathBuf, Vec<u8>)>,
    book: Book,
    plant: Plant,
    now_us: u64,
}

/// One directory, its book, and the life that runs in it.
pub struct Bench {
    directory: PathBuf,
    plan: Plan,
    /// What the program knows that is run now.
    known: &'static Schema,
    settings: SpoolSettings,
    book: Book,
    plant: Plant,
    random: Rng,
    /// For the names of runs, which decide an order where the counters of two are equal.
    names: Rng,
    now_us: Arc<AtomicU64>,
    beginning: Instant,
    board: Board,
    spool: Option<Stepped>,
    cursor: Cursor,
    /// What was sent last, and is neither acknowledged nor come back; and when that was.
    wire: Vec<Confirmed>,
    sent_us: u64,
    /// When the power went.
    cut_us: u64,
    tally: Tally,
}

impl Bench {
    /// On fresh files or those of a scene. From here to [`Bench::end`] this thread has a disk.
    pub fn begin(directory: &Path, scene: &Scene, plan: Plan, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        drop(fs::remove_dir_all(directory));
        fs::create_dir_all(directory).expect("a scratch directory");
        for (name, content) in &scene.files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("a scratch directory");
            fs::write(path, content).expect("a scratch file");
        }
        crate::sys::register();
        disk::insert(directory, random.u64(..));
        let checkpoint = [None, Some(16), Some(64), Some(256)][random.usize(0..4)];
        disk::with(|disk| disk.faults = Faults { checkpoint, ..plan.faults });
        let commit_every =
            [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)][random.usize(0..3)];
        let keep = if random.u8(0..8) == 0 { Keep::Unsent } else { Keep::All };
        let mut book = scene.book.clone();
        book.forgives_longer = keep == Keep::Unsent || plan.faults.failed_syncs > 0.0;
        Self {
            directory: directory.to_owned(),
            plan,
            known: &schema::CURRENT,
            settings: SpoolSettings {
                bytes_max: Some(BYTES_MAX_LEAST),
                commit_every,
                keep,
                ..SpoolSettings::new(directory)
            },
            book,
            plant: scene.plant.clone(),
            random,
            names: Rng::with_seed(!seed),
            now_us: Arc::new(AtomicU64::new(scene.now_us)),
            beginning: Instant::now(),
            board: Board::default(),
            spool: None,
            cursor: Cursor::START,
            wire: Vec::new(),
            sent_us: 0,
            cut_us: scene.now_us,
            tally: Tally::default(),
        }
    }

    /// Takes the disk away and the files; gives what came of it.
    pub fn end(mut self) -> Tally {
        self.spool = None;
        disk::with(|disk| {
            self.tally.operations = disk.operations();
            self.tally.bad_syncs = disk.bad_syncs;
            self.tally.trace = disk.trace();
        });
        disk::remove();
        drop(fs::remove_dir_all(&self.directory));
        self.tally
    }

    /// The whole schedule: as many cuts as planned, and an end in which everything is delivered.
    pub fn schedule(&mut self) -> Verdict<()> {
        if self.plan.update {
            return self.update();
        }
        self.open(false)?;
        while self.tally.cuts < self.plan.cuts {
            let far = [12, 60, 400][self.random.usize(0..3)];
            let k = self.random.u64(1..=far);
            disk::with(|disk| disk.arm(k));
            let steps = self.random.u32(2..20);
            for _ in 0..steps {
                self.step()?;
                if is_off() {
                    break;
                }
            }
            self.power_cut()?;
        }
        self.deliver()
    }

    fn now(&self) -> Instant {
        self.beginning + Duration::from_micros(self.now_us.load(Ordering::Relaxed))
    }

    fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }

    /// Time passes while there is power.
    fn pass(&self, us: u64) {
        let us = if is_off() { 0 } else { us };
        self.now_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The power goes, if it has not gone yet, and comes back.
    fn power_cut(&mut self) -> Verdict<()> {
        disk::with(disk::Disk::cut);
        self.cut_us = self.now_us();
        self.tally.cuts += 1;
        self.spool = None;
        disk::with(disk::Disk::lay_out);
        self.open(true)
    }

    /// Opens, at times under cuts; judges what is found.
    fn open(&mut self, cuts: bool) -> Verdict<()> {
        while cuts && self.random.bool() {
            let k = self.random.u64(1..24);
            disk::with(|disk| disk.arm(k));
            self.start()?;
            for _ in 0..self.random.u8(0..3) {
                self.turn(500_000)?;
            }
            if is_off() {
                self.tally.in_recovery += 1;
            }
            // Without power what it gave is worth nothing; with power the cut falls at rest.
            disk::with(disk::Disk::cut);
            self.tally.cuts += 1;
            self.spool = None;
            disk::with(disk::Disk::lay_out);
        }
        let failing = self.plan.faults.failed_syncs;
        disk::with(|disk| {
            disk.disarm();
            disk.faults.failed_syncs = 0.0;
        });
        self.start()?;
        self.judge()?;
        disk::with(|disk| disk.faults.failed_syncs = failing);
        Ok(())
    }

    fn start(&mut self) -> Verdict<()> {
        self.pass(100_000);
        self.board = Board::default();
        (self.cursor, self.wire) = (Cursor::START, Vec::new());
        let clock = self.now_us.clone();
        let spool = Stepped::open_named(
            self.settings.clone(),
            (self.board.clone(), self.known),
            move || stamp(clock.load(Ordering::Relaxed)),
            (self.now(), self.names.u32(..)),
        );
        let spool = spool.map_err(|error| format!("the spool refuses to start: {error}"))?;
        self.book.begin(spool.run)?;
        self.spool = Some(spool);
        Ok(())
    }

    fn spool(&mut self) -> &mut Stepped {
        self.spool.as_mut().expect("a life runs")
    }

    fn run(&self) -> RunId {
        self.spool.as_ref().expect("a life runs").run
    }

    fn turn(&mut self, us: u64) -> Verdict<()> {
        self.pass(us.min(LONGEST_STEP_US));
        let now = self.now();
        let spool = self.spool();
        spool.turn(now);
        let (run, stored) = (spool.run, spool.committed().next_seq);
        self.book.count(run, stored);
        // At the cap a commit waits for what is on the wire.
        let patience = if self.wire.is_empty() { 0 } else { PATIENCE_US + LONGEST_STEP_US };
        let window = u64::try_from(self.settings.commit_every.as_micros()).unwrap_or_default() + patience;
        // The disk may be gone by now, or fail: then nothing has to be stored.
        let steady = !is_off() && self.plan.faults.failed_syncs == 0.0 && !self.plan.lies();
        if steady { self.book.in_time(run, self.now_us(), window) } else { Ok(()) }
    }

    fn judge(&mut self) -> Verdict<()> {
        self.turn(0)?;
        let patient = self.plan.lies() || self.plan.faults.failed_syncs > 0.0;
        self.settle(if patient { 400 } else { 0 })?;
        let mut given = self.given()?;
        // Damage that was found while it was read is told once it was looked at.
        for _ in 0..20 {
            if patient && self.searching() && !self.spool().busy() {
                // What was found waits in its folder for room: a drain makes some.
                self.drain(&given)?;
            } else if !patient || !self.spool().busy() {
                break;
            }
            self.settle(400)?;
            given = self.given()?;
        }
        let (run, cut_us) = (self.run(), self.cut_us);
        let repeats = if self.plan.lies() {
            let spool = self.spool.as_ref();
            let books = |run| spool.and_then(|spool| spool.books_of(run));
            let folded = |run| spool.is_some_and(|spool| spool.has_folded(run));
            let (repeats, losses) = self.book.assess(&given, (run, cut_us), (books, folded))?;
            self.tally.add(&Tally { losses, ..Tally::default() });
            repeats
        } else {
            let quarantine = self.directory.join("quarantine");
            if quarantine.exists() {
                return Err(format!("a file was set aside: {}", quarantine.display()));
            }
            self.book.judge(&given, run, cut_us)?
        };
        let aside =
            fs::read_dir(self.directory.join("quarantine")).map_or(0, |folders| folders.count() as u64);
        self.tally.quarantines = self.tally.quarantines.max(aside);
        self.tally.repeats_worst = self.tally.repeats_worst.max(repeats);
        self.tally.evicted = given.status.evicted;
        Ok(())
    }

    /// Until the spool has nothing left to look for.
    fn settle(&mut self, turns: u32) -> Verdict<()> {
        for _ in 0..turns {
            let calm = !self.searching() && !self.spool().busy();
            if calm && self.board.read(|status| status.spool.state == "ok") {
                break;
            }
            self.turn(1_000_000)?;
        }
        Ok(())
    }

    /// All of this arrives.
    fn drain(&mut self, given: &Given) -> Verdict<()> {
        for batch in &given.batches {
            self.confirm(&Confirmed::from(&**batch));
        }
        for event in &given.events {
            self.book.receive(event, self.cut_us, self.plan.lies())?;
            self.confirm(&Confirmed::from(&**event));
        }
        self.turn(1_000_000)
    }

    /// A file that was set aside is still being searched.
    fn searching(&self) -> bool {
        let folders = fs::read_dir(self.directory.join("quarantine")).into_iter().flatten().flatten();
        folders.map(|folder| folder.path()).any(|folder| !folder.join("salvaged").exists())
    }

    /// Everything that waits.
    fn given(&mut self) -> Verdict<Given> {
        let mut given = Given::default();
        let mut cursor = Cursor::START;
        let lies = self.plan.lies();
        let mut again = 0;
        loop {
            let span = match self.spool().span(cursor) {
                Ok(Some(span)) => span,
                Ok(None) => break,
                Err(_) if lies && again < 40 => {
                    // Found damaged while it is read: it is set aside and searched, and read anew.
                    again += 1;
                    (given, cursor) = (Given::default(), Cursor::START);
                    for _ in 0..8 {
                        self.turn(1_000_000)?;
                    }
                    continue;
                }
                Err(error) => return Err(format!("what waits cannot be read: {error}")),
            };
            cursor = span.next;
            for item in span.items {
                match item {
                    Item::Batch(batch) => given.batches.push(batch),
                    Item::Event(event) => given.events.push(event),
                }
            }
        }
        self.turn(0)?;
        given.status = self.board.read(|status| status.spool.clone());
        Ok(given)
    }

    /// What is on the files now, as a scene for others.
    pub fn scene(&mut self) -> Scene {
        self.spool = None;
        let mut files = BTreeMap::new();
        collect(&self.directory, &self.directory, &mut files);
        let (book, plant, now_us) = (self.book.clone(), self.plant.clone(), self.now_us());
        Scene { files: files.into_iter().collect(), book, plant, now_us }
    }
}

fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if let (Ok(name), Ok(content)) = (path.strip_prefix(root), fs::read(&path)) {
            files.insert(name.to_owned(), content);
        }
    }
}

fn is_off() -> bool {
    disk::with(|disk| disk.is_off()).unwrap_or_default()
}
