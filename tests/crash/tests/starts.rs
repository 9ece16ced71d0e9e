//! A sync that fails at a start: each of them, after a cut anywhere in a commit, and before a cut anywhere in the next one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fieldspool::model::Batch;
use fieldspool::spool::stepped::Stepped;
use fieldspool::spool::{BYTES_MAX_LEAST, Cursor, Item, SpoolSettings};
use fieldspool::status::Board;
use fieldspool_crash::disk::{self, Disk};
use fieldspool_crash::plant::{Device, Plant, stamp};

/// One directory through three lives.
struct Lives {
    settings: SpoolSettings,
    plant: Plant,
    now_us: Arc<AtomicU64>,
    beginning: Instant,
    /// What was counted as stored.
    stored: Vec<Arc<Batch>>,
}

impl Lives {
    fn start(&self) -> Stepped {
        let clock = self.now_us.clone();
        let now = move || stamp(clock.fetch_add(1000, Ordering::Relaxed));
        Stepped::open(self.settings.clone(), Board::default(), now, self.beginning).expect("it starts")
    }

    /// Polls and a turn; what is stored by then is what the spool says.
    fn store(&mut self, spool: &mut Stepped, devices: &[Device]) {
        let mut seq =
            self.stored.iter().filter(|batch| batch.run == spool.run).map(|batch| batch.end()).max();
        let mut handed = Vec::new();
        for device in devices {
            let at_us = self.now_us.fetch_add(1000, Ordering::Relaxed);
            let batch = self.plant.poll(*device, spool.run, seq.unwrap_or_default(), at_us);
            seq = Some(batch.end());
            spool.append(batch.clone(), self.beginning);
            handed.push(batch);
        }
        spool.turn(self.beginning + Duration::from_secs(1));
        let next = spool.committed().next_seq;
        self.stored.extend(handed.into_iter().filter(|batch| batch.end() <= next));
    }
}

/// The `failing`th sync of the second start fails; `chance` decides where the cuts fall and what they leave. Gives whether it
/// was reached.
fn life(failing: u64, chance: u64) -> bool {
    let name = format!("fieldspool-crash-starts-{}-{failing}-{chance}", std::process::id());
    // In memory, where there is some: the syncs of names are made for real.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = parent.join(name);
    std::fs::create_dir_all(&directory).expect("a scratch directory");
    fieldspool_crash::sys::register();
    disk::insert(&directory, chance);
    let cut_in = |most: u64| {
        disk::with(|disk| {
            let k = disk.random.u64(1..=most);
            disk.arm(k);
        })
    };
    let power_cut = || {
        disk::with(|disk| {
            disk.cut();
            disk.lay_out();
        })
    };
    let mut lives = Lives {
        settings: SpoolSettings {
            bytes_max: Some(BYTES_MAX_LEAST),
            commit_every: Duration::ZERO,
            ..SpoolSettings::new(&directory)
        },
        plant: Plant::default(),
        now_us: Arc::default(),
        beginning: Instant::now(),
        stored: Vec::new(),
    };
    // A commit that is there, and a longer one that is cut off.
    let mut spool = lives.start();
    lives.store(&mut spool, &[Device::Analyser]);
    cut_in(40);
    lives.store(&mut spool, &[Device::Scale; 6]);
    drop(spool);
    power_cut();
    // The start with the fault, and a short commit that is cut off too.
    disk::with(|disk| disk.fail_sync(failing));
    let mut spool = lives.start();
    let reached = disk::with(Disk::fail_no_sync).unwrap_or_default();
    cut_in(12);
    lives.store(&mut spool, &[Device::Meter]);
    drop(spool);
    power_cut();
    let mut spool = lives.start();
    let mut waits = Vec::new();
    let mut cursor = Cursor::START;
    while let Some(span) = spool.span(cursor).expect("readable") {
        waits.extend(span.items.into_iter().filter_map(|item| match item {
            Item::Batch(batch) => Some(batch),
            Item::Event(_) => None,
        }));
        cursor = span.next;
    }
    let lost: Vec<_> = lives.stored.iter().filter(|batch| !waits.contains(batch)).collect();
    assert!(lost.is_empty(), "sync {failing}, chance {chance}: {} stored and lost", lost.len());
    let aside = directory.join("quarantine");
    assert!(!aside.exists(), "sync {failing}, chance {chance}: a sound file was set aside");
    drop(spool);
    disk::remove();
    std::fs::remove_dir_all(&directory).expect("removed");
    reached
}

/// One that was passed over left in the log what a commit that was cut off had written, behind the next one: a sound file was
/// taken for a damaged one.
#[test]
fn a_sync_that_fails_at_a_start_costs_nothing_and_sets_nothing_aside() {
    let mut failing = 1;
    while (0..60).filter(|chance| life(failing, *chance)).count() > 0 {
        failing += 1;
    }
    assert!(failing > 4, "a start syncs at least the log, the file, its commit and the sidecar: {failing}");
}
