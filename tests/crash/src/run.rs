//! Many schedules: on several threads, each with its own disk, until enough cuts are made. A schedule is named by one number,
//! from which all its chance comes: to see it again is to run that number again.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::life::{Bench, Plan, Scene, Tally};

/// A schedule that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its number.
    pub seed: u64,
    /// After so many cuts.
    pub cuts: u64,
    /// What was wrong.
    pub what: String,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The first schedule.
    pub first: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Disks at once.
    pub threads: usize,
    /// Not longer than that.
    pub most: Duration,
}

/// What to begin with.
#[derive(Debug)]
pub struct Scenes {
    scratch: PathBuf,
    scenes: Vec<Scene>,
}

impl Drop for Scenes {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.scratch));
    }
}

impl Scenes {
    /// Makes them: a fresh directory, a ring that has wrapped with its readings confirmed, one full of readings that wait,
    /// and one with a long log that nobody has written back.
    pub fn make() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let name = format!("fieldspool-crash-{}-{:x}", std::process::id(), fastrand::u32(..));
        let scratch = parent.join(name);
        let make = |waiting, log_bytes| {
            let mut bench = Bench::begin(&scratch.join("scene"), &Scene::default(), Plan::honest(), 1);
            bench.fill(waiting, log_bytes).expect("a spool is filled");
            let scene = bench.scene();
            bench.end();
            scene
        };
        let scenes = vec![Scene::default(), make(false, 0), make(true, 0), make(true, 3_500_000)];
        Self { scratch, scenes }
    }

    /// Runs one schedule.
    pub fn schedule(&self, seed: u64, plan: Plan) -> (Tally, Result<(), String>) {
        // The long log is slow to lay out.
        let scene =
            [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 1, 2, 1, 2, 3][usize::try_from(seed % 16).unwrap_or_default()];
        let directory = self.scratch.join(format!("{seed}"));
        let mut bench = Bench::begin(&directory, &self.scenes[scene], plan, seed);
        let done = bench.schedule();
        let mut tally = bench.end();
        tally.untold = (tally.losses.untold(), seed);
        (tally, done)
    }

    /// Runs schedules until there are enough cuts, or one goes wrong, or the time is over.
    pub fn run(&self, Order { first, cuts, threads, most }: Order, plan: Plan) -> (Tally, Option<Failure>) {
        let started = Instant::now();
        let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
        let sum = Mutex::new((Tally::default(), None::<Failure>));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && started.elapsed() < most {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let (tally, done) = self.schedule(seed, plan);
                        let mut sum = sum.lock().expect("no thread has panicked");
                        sum.0.add(&tally);
                        if let Err(what) = done {
                            let earlier = sum.1.as_ref().is_none_or(|before| seed < before.seed);
                            if earlier {
                                sum.1 = Some(Failure { seed, cuts: tally.cuts, what });
                            }
                        }
                        if sum.0.cuts >= cuts || sum.1.is_some() {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        sum.into_inner().expect("no thread has panicked")
    }
}
