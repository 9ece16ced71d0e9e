//! Lives of a spool on the [`disk`]: random steps at made-up times, the power cut at some operation, what is left laid out,
//! the spool opened again and judged by the [`Book`]; then the next life, on the same files.

mod update;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use fieldspool::model::RunId;
use fieldspool::model::event::Body;
use fieldspool::spool::schema::{self, Schema};
use fieldspool::spool::stepped::Stepped;
use fieldspool::spool::{BYTES_MAX_LEAST, Confirmed, Cursor, Item, Keep, SpoolSettings};
use fieldspool::status::Board;

use crate::book::{Book, Given, LONGEST_STEP_US, Losses, Verdict};
use crate::disk::{self, Faults};
use crate::plant::{Device, Plant, stamp};

/// A bug that is planted, to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// Readings count as stored when they are handed over, before their commit has returned.
    CountedEarly,
    /// The spool hears of a confirmation when a batch is sent; no PUBACK ever came.
    ConfirmedOnSend,
    /// A batch is handed to the spool with a value that is not the device's.
    WrongValue,
    /// The step to a newer schema is two transactions.
    TwoTransactions,
}

/// What is done to a spool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Of the disk.
    pub faults: Faults,
    /// In the program.
    pub planted: Planted,
    /// Cuts in a row on the same files.
    pub cuts: u64,
    /// The schedule is an update to a newer schema.
    pub update: bool,
}

impl Plan {
    /// The disk keeps its word.
    pub fn honest() -> Self {
        Self { cuts: 12, ..Self::default() }
    }

    /// The disk keeps its word, and the program is replaced by a newer one.
    pub fn update() -> Self {
        Self { update: true, ..Self::honest() }
    }

    fn lies(&self) -> bool {
        self.faults.dropped_syncs > 0.0
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Power cuts.
    pub cuts: u64,
    /// Those of them that fell while the spool was being opened.
    pub in_recovery: u64,
    /// Operations on the disk.
    pub operations: u64,
    /// Readings counted as stored.
    pub stored: u64,
    /// Readings given up at the cap.
    pub evicted: u64,
    /// The most readings that came a second time after one cut.
    pub repeats_worst: u64,
    /// Files set aside.
    pub quarantines: u64,
    /// Syncs that did nothing, or failed.
    pub bad_syncs: u64,
    /// Cuts in an update that left the older version, and updates that were made.
    pub updates: (u64, u64),
    /// On a disk that lies.
    pub losses: Losses,
    /// The most readings of one schedule of which no record tells, and its number.
    pub untold: (u64, u64),
    /// Of all operations: equal for equal seeds.
    pub trace: u64,
}

impl Tally {
    /// Of two.
    pub fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.in_recovery += other.in_recovery;
        self.operations += other.operations;
        self.stored += other.stored;
        self.evicted += other.evicted;
        self.repeats_worst = self.repeats_worst.max(other.repeats_worst);
        self.quarantines += other.quarantines;
        self.bad_syncs += other.bad_syncs;
        self.updates.0 += other.updates.0;
        self.updates.1 += other.updates.1;
        self.losses.add(&other.losses);
        self.untold = self.untold.max(other.untold);
        self.trace ^= other.trace;
    }
}

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
        self.cursor = Cursor::START;
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
        let window = u64::try_from(self.settings.commit_every.as_micros()).unwrap_or_default();
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

    /// One random step of a life, with the turn that follows.
    fn step(&mut self) -> Verdict<()> {
        match self.random.u8(0..100) {
            0..50 => self.append(),
            50..72 => self.send()?,
            72..78 => self.refuse()?,
            78..82 => {
                let body = Body::Device { device: "meter".into(), answering: self.random.bool() };
                let stamp = stamp(self.now_us());
                self.spool().record(body, stamp);
            }
            82..90 => {
                // Long enough for the books.
                for _ in 0..4 {
                    self.turn(3_000_000)?;
                }
            }
            90..96 => return self.stop_and_start(),
            _ => {}
        }
        let us = [0, 50_000, 300_000, 1_000_000, 2_500_000][self.random.usize(0..5)];
        self.turn(us)
    }

    fn append(&mut self) {
        for _ in 0..self.random.u8(1..6) {
            let device = [Device::Meter, Device::Analyser, Device::Scale][self.random.usize(0..3)];
            let (run, now_us) = (self.run(), self.now_us());
            let batch = self.plant.poll(device, run, self.book.next_seq(run), now_us);
            let now = self.now();
            let mut given = batch.clone();
            if self.plan.planted == Planted::WrongValue && self.random.u8(0..16) == 0 {
                given = self.plant.poll(device, run, batch.seq, now_us);
            }
            self.spool().append(given, now);
            self.book.append(batch.clone(), now_us);
            if self.plan.planted == Planted::CountedEarly {
                self.book.count(run, batch.end());
            }
            // The live lane: acknowledged before it is stored.
            if self.random.u8(0..6) == 0 {
                self.confirm(&Confirmed::from(&*batch));
            }
        }
    }

    fn confirm(&mut self, what: &Confirmed) {
        let now_us = self.now_us();
        self.spool().confirm(std::slice::from_ref(what));
        self.book.confirm(what, now_us);
    }

    /// The backlog lane: a span is read, and some of it acknowledged.
    fn send(&mut self) -> Verdict<()> {
        let from = if self.random.bool() { Cursor::START } else { self.cursor };
        let span = match self.spool().span(from) {
            Ok(Some(span)) => span,
            Ok(None) => return Ok(()),
            Err(_) if is_off() || self.plan.lies() || self.plan.faults.failed_syncs > 0.0 => return Ok(()),
            Err(error) => return Err(format!("what waits cannot be read: {error}")),
        };
        self.cursor = span.next;
        let many = [4, 40, 1000][self.random.usize(0..3)];
        let most = self.random.usize(0..=span.items.len().min(many));
        for item in span.items.iter().take(most) {
            let what = match item {
                // What was received is known, whatever becomes of the record.
                Item::Event(event) => {
                    self.book.receive(event, self.cut_us, self.plan.lies())?;
                    Confirmed::from(&**event)
                }
                Item::Batch(batch) => {
                    if self.random.u8(0..16) == 0 && self.book.stretches(batch.run) < 40 {
                        continue;
                    }
                    Confirmed::from(&**batch)
                }
            };
            if self.plan.planted == Planted::ConfirmedOnSend && self.random.u8(0..8) == 0 {
                self.spool().confirm(&[what]);
                continue;
            }
            self.confirm(&what);
        }
        Ok(())
    }

    /// The broker refuses some of what waits for good.
    fn refuse(&mut self) -> Verdict<()> {
        let Ok(Some(span)) = self.spool().span(Cursor::START) else { return Ok(()) };
        let batches = span.items.iter().filter_map(|item| match item {
            Item::Batch(batch) => Some(Confirmed::from(&**batch)),
            Item::Event(_) => None,
        });
        let refused: Vec<_> = batches.take(self.random.usize(1..3)).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let now = self.now();
        for one in &refused {
            self.book.refuse(one);
        }
        let done = self.spool().dead_letter(refused, "payload format invalid", now);
        let (run, stored) = (self.run(), self.spool().committed().next_seq);
        self.book.count(run, stored);
        match done {
            Err(error) if !is_off() && self.plan.faults.failed_syncs == 0.0 && !self.plan.lies() => {
                Err(format!("a dead letter is not taken: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// A stop in order; the next life may begin under cuts like any.
    fn stop_and_start(&mut self) -> Verdict<()> {
        let now = self.now();
        let run = self.run();
        let spool = self.spool.take().expect("a life runs");
        let closed = spool.close(true, now);
        if is_off() {
            return Ok(());
        }
        if closed.is_ok() {
            // A stop in order stores everything.
            self.book.count(run, self.book.next_seq(run));
        } else if !self.plan.lies() && self.plan.faults.failed_syncs == 0.0 {
            return Err(format!("it does not stop in order: {closed:?}"));
        }
        // Nothing may be forgotten now, but what comes before is as it was.
        self.cut_us = self.now_us();
        self.start()?;
        if is_off() { Ok(()) } else { self.turn(0) }
    }

    /// The end of the schedule: no more cuts, everything is delivered, nothing is left.
    fn deliver(&mut self) -> Verdict<()> {
        disk::with(|disk| {
            disk.disarm();
            disk.faults = Faults::default();
        });
        let given = self.given()?;
        self.drain(&given)?;
        self.stop_and_start()?;
        let given = self.given()?;
        let left = given.batches.len();
        if left > 0 && !self.plan.lies() && self.plan.planted == Planted::Nothing {
            return Err(format!("{left} batches wait after everything was delivered"));
        }
        self.tally.stored = self.book.stored();
        Ok(())
    }

    /// Fills the file to its cap, so that the ring wraps: with everything waiting, or all but the newest confirmed.
    pub fn fill(&mut self, waiting: bool, log_bytes: u64) -> Verdict<()> {
        self.settings.commit_every = Duration::ZERO;
        self.settings.keep = Keep::All;
        self.book.forgives_longer = false;
        disk::with(|disk| disk.faults = Faults::default());
        self.open(false)?;
        for round in 0..4000_u32 {
            let log = fs::metadata(self.directory.join("spool.db-wal")).map_or(0, |metadata| metadata.len());
            let full = self.board.read(|status| status.spool.evicted > 0) || (!waiting && round > 150);
            if full && (log >= log_bytes || round > 1500) {
                break;
            }
            for device in [Device::Scale, Device::Scale, Device::Scale, Device::Analyser] {
                let (run, now_us, now) = (self.run(), self.now_us(), self.now());
                let batch = self.plant.poll(device, run, self.book.next_seq(run), now_us);
                self.spool().append(batch.clone(), now);
                self.book.append(batch, now_us);
            }
            self.turn(200_000)?;
            if !waiting && round % 20 == 10 {
                let given = self.given()?;
                for batch in &given.batches {
                    self.confirm(&Confirmed::from(&**batch));
                }
            }
        }
        if log_bytes == 0 {
            self.stop_and_start()?;
        }
        self.cut_us = self.now_us();
        self.judge()
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
