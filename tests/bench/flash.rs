//! What the spool costs the card: sectors written to an ext4 of its own on a loop device, with the ring full, windows of
//! one second of real time, confirmations, and the log written back at the end.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fieldspool::spool::records::Mark;
use fieldspool::spool::schema;
use rusqlite::Connection;

use crate::distance::proxy;
use crate::fill::{Filling, fill};
use crate::measure::{BLOCK, Disk};
use crate::plant::Plant;
use crate::receiver::Receiver;
use crate::support::broker::Broker;
use crate::{Setting, gateway};

/// Bytes of an ext4 block: what mke2fs takes for a file system from 512 MiB on, and for a smaller one.
const BLOCKS: [u64; 2] = [BLOCK, 1024];

/// One way to use the spool.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Devices, and points of each, polled once a second.
    plant: (usize, usize),
    keep: &'static str,
    round_trip: Duration,
    /// Bytes a reading, at most.
    target: Option<f64>,
}

const CAP: u64 = 1 << 20;

/// The log is never longer.
const LOG_MAX: u64 = 8 << 20;

const NEAR: Duration = Duration::ZERO;

const CASES: [Case; 5] = [
    Case { name: "1000/s", plant: (10, 100), keep: "all", round_trip: NEAR, target: Some(50.0) },
    Case { name: "40/s", plant: (4, 10), keep: "all", round_trip: NEAR, target: Some(160.0) },
    Case {
        name: "1000/s, unsent, 5 ms",
        plant: (10, 100),
        keep: "unsent",
        round_trip: Duration::from_millis(5),
        target: Some(1.0),
    },
    Case {
        name: "1000/s, unsent, 300 ms",
        plant: (10, 100),
        keep: "unsent",
        round_trip: Duration::from_millis(300),
        target: Some(10.0),
    },
    Case {
        name: "40/s, unsent, 300 ms",
        plant: (4, 10),
        keep: "unsent",
        round_trip: Duration::from_millis(300),
        target: None,
    },
];

/// All cases at once: each has a disk of its own, and all together leave the processor idle.
pub fn report(length: Duration) -> String {
    let mut report = format!(
        "\n## Written to the card: sectors of an ext4 on a loop device, ring of {} MiB full, pages of {} bytes, {} s\n\n\
         | readings, `keep`, round trip | ext4 block | running: disk B/reading | with the stop | at most | longest log MiB | at most |\n\
         |---|---|---|---|---|---|---|\n",
        CAP >> 20,
        page_size(),
        length.as_secs(),
    );
    let all = BLOCKS.into_iter().flat_map(|block| CASES.map(|case| (block, case)));
    let rows: Vec<_> =
        all.map(|(block, case)| std::thread::spawn(move || row(case, block, length))).collect();
    let floors = BLOCKS.map(|block| std::thread::spawn(move || floor(block, length)));
    for row in rows.into_iter().chain(floors) {
        report.push_str(&row.join().unwrap());
    }
    report.push_str(
        "\nWith the stop: the rest of the log written back, and what a stop in order writes once. That figure counts for `keep = \"all\"`, \
         where the log holds work still to be paid; the running one for `unsent`. An ext4 from 512 MiB on has blocks of 4 096 bytes \
         unless it is made otherwise, a smaller one 1 024; the log's frames of 1 048 bytes and each entry of ext4's journal are \
         rounded up to them.\n",
    );
    report
}

/// What the file system takes for the least that a commit can be: one frame over old bytes and one fdatasync a second.
fn floor(block: u64, length: Duration) -> String {
    const NAME: &str = "40/s, nothing but one frame and fdatasync a second";
    let scratch = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(scratch.path(), block) else {
        return format!("| {NAME} | this user may not mount | | | | | |\n");
    };
    let frame = [1; 24 + schema::PAGE_SIZE as usize];
    let file = std::fs::File::create(disk.state().join("floor")).unwrap();
    file.write_all_at(&vec![0; schema::CHECKPOINT_BYTES as usize], 0).unwrap();
    file.sync_all().unwrap();
    std::thread::sleep(Duration::from_secs(15));
    let before = disk.written();
    let frames = length.as_secs();
    for at in 0..frames {
        let place = at % (schema::CHECKPOINT_BYTES / frame.len() as u64) * frame.len() as u64;
        file.write_all_at(&frame, place).unwrap();
        file.sync_data().unwrap();
        std::thread::sleep(Duration::from_secs(1));
    }
    let running = (disk.written() - before) as f64 / (frames * 40) as f64;
    format!("| {NAME} | {block} | {running:.1} | - | - | - | - |\n")
}

fn row(case: Case, block: u64, length: Duration) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(scratch.path(), block) else {
        return format!("| {} | this user may not mount | | | | | |\n", case.name);
    };
    let state = disk.state();
    make_file(&state.join("spool.db"), page_size());
    let (devices, points) = case.plant;
    if case.keep == "all" {
        // Over and over, so that every block has taken the row of another one.
        let windows = CAP * 3 / (100 + 3 * (devices * points) as u64);
        fill(&state, Filling { plant: case.plant, windows, cap: CAP, confirmed: true });
    }
    let mut broker = Broker::start();
    let plant = Plant::start(devices);
    let _receiver = Receiver::start(broker.dir.path(), broker.port, plant.sent.clone());
    if case.round_trip > NEAR {
        broker.port = proxy(broker.port, case.round_trip);
    }
    let spool = format!("[spool]\ncap = {CAP}\nkeep = \"{}\"\n", case.keep);
    let mut gateway =
        gateway(&broker, &plant, Setting { points, period: "1s", more: &spool, disk: Some(&disk) });
    gateway.start();
    gateway.wait_status("the broker", |s| (s["uplink"]["connected"] == true).then_some(()));
    let numbered = || gateway.status().unwrap()["spool"]["numbered"].as_u64().unwrap();
    std::thread::sleep(Duration::from_secs(15));
    let (before, first) = (disk.written(), numbered());
    let log = longest_log(&state.join("spool.db-wal"), length);
    let readings = (numbered() - first) as f64;
    let running = (disk.written() - before) as f64 / readings;
    assert!(gateway.stop().success(), "{}", gateway.log());
    let whole = (disk.written() - before) as f64 / readings;
    assert!(log <= LOG_MAX, "a log of {log} bytes");
    let target = case.target.map_or("-".to_owned(), |target| format!("{target:.0}"));
    let log = log as f64 / 1_048_576.0;
    let name = case.name;
    format!("| {name} | {block} | {running:.1} | {whole:.1} | {target} | {log:.1} | {} |\n", LOG_MAX >> 20)
}

/// `PAGE_SIZE=n`: as if that were the schema's, to compare.
fn page_size() -> u64 {
    std::env::var("PAGE_SIZE").ok().and_then(|size| size.parse().ok()).unwrap_or(schema::PAGE_SIZE)
}

/// A fresh file with pages of this size, which the gateway takes as it is.
fn make_file(file: &Path, page_size: u64) {
    let mut connection = Connection::open(file).unwrap();
    connection.pragma_update(None, "page_size", page_size.cast_signed()).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    schema::create(&mut connection, &serde_json::to_string(&Mark::default()).unwrap(), &schema::CURRENT)
        .unwrap();
}

fn longest_log(log: &Path, length: Duration) -> u64 {
    let end = Instant::now() + length;
    let mut longest = 0;
    while Instant::now() < end {
        longest = longest.max(std::fs::metadata(log).map_or(0, |log| log.len()));
        std::thread::sleep(Duration::from_millis(200));
    }
    longest
}
