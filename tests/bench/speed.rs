//! Speed and memory: the gateway beside a bare poll-and-publish loop over the same TLS, measured in the same run.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{BLOCK, Disk, memory, processor_time};
use crate::plant::Plant;
use crate::receiver::Receiver;
use crate::support::broker::Broker;
use crate::{Setting, gateway};

const DEVICES: usize = 10;

/// What a figure must not exceed.
#[derive(Clone, Copy)]
struct Targets {
    times_the_floor: f64,
    memory_mib: f64,
    p99_ms: Option<f64>,
    disk: Option<f64>,
}

/// Points of a device, and what is asked of the gateway then.
const CASES: [(usize, Targets); 2] = [
    (100, Targets { times_the_floor: 1.5, memory_mib: 16.0, p99_ms: Some(10.0), disk: Some(80.0) }),
    (1000, Targets { times_the_floor: 3.0, memory_mib: 24.0, p99_ms: None, disk: None }),
];

/// Readings a second, flat out, at least.
const FLAT_OUT: f64 = 300_000.0;

/// What one run of one program came to.
struct Cost {
    readings: u64,
    seconds: f64,
    processor: Duration,
    memory_kib: u64,
    latencies: Vec<Duration>,
    written: Option<u64>,
}

impl Cost {
    fn rate(&self) -> f64 {
        self.readings as f64 / self.seconds
    }

    fn micros_per_reading(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.readings.max(1) as f64
    }

    fn latency_ms(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = ((sorted.len().saturating_sub(1)) as f64 * share) as usize;
        sorted.get(at).map_or(f64::NAN, |l| l.as_secs_f64() * 1e3)
    }

    /// A row of the table; a figure with a target shows it behind a stroke.
    fn row(&self, name: &str, floor: &Self, targets: Option<Targets>) -> String {
        let most = |target: Option<f64>| target.map_or(String::new(), |target| format!(" / {target}"));
        let disk =
            self.written.map_or("-".into(), |w| format!("{:.0}", w as f64 / self.readings.max(1) as f64));
        format!(
            "| {name} | {:.0} | {:.2} | {:.2}{} | {:.1}{} | {:.2} | {:.2}{} | {disk}{} |\n",
            self.rate(),
            self.micros_per_reading(),
            self.micros_per_reading() / floor.micros_per_reading(),
            most(targets.map(|t| t.times_the_floor)),
            self.memory_kib as f64 / 1024.0,
            most(targets.map(|t| t.memory_mib)),
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            most(targets.and_then(|t| t.p99_ms)),
            most(targets.and_then(|t| t.disk)),
        )
    }
}

const HEAD: &str = "| | readings/s | processor µs/reading | times the floor / at most | VmHWM MiB / at most | latency p50 ms | p99 ms / at most | disk B/reading / at most |\n\
                    |---|---|---|---|---|---|---|---|\n";

pub fn report(length: Duration) -> String {
    let mut report = String::new();
    for (points, targets) in CASES {
        let (total, seconds) = (points * DEVICES, length.as_secs());
        writeln!(report, "\n## {total} points in {DEVICES} Modbus TCP devices at 1 s, {seconds} s\n")
            .unwrap();
        report.push_str(HEAD);
        let floor = bare(points, length, false);
        report.push_str(&floor.row("bare loop", &floor, None));
        report.push_str(&bare(points, length, true).row("bare loop that also commits", &floor, None));
        let cost = fieldspool(points, "1s", length).0;
        report.push_str(&cost.row("fieldspool", &floor, Some(targets)));
    }
    report
}

/// The bare loop, measured; `commits`: what it read goes to SQLite once a second.
fn bare(points: usize, length: Duration, commits: bool) -> Cost {
    let scratch = tempfile::tempdir().unwrap();
    let disk = commits.then(|| Disk::mount(scratch.path(), BLOCK)).flatten();
    let folder = disk.as_ref().map_or(scratch.path().to_owned(), Disk::state);
    let file = if commits { folder.join("bare.db") } else { "-".into() };
    let broker = Broker::start();
    let plant = Plant::start(DEVICES);
    let receiver = Receiver::start(broker.dir.path(), broker.port, plant.sent.clone());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["bare", broker.dir.path().to_str().unwrap(), &broker.port.to_string(), &points.to_string()])
        .arg(file)
        .args(plant.ports.iter().map(u16::to_string))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let cost = measure(child.id(), &receiver, length, disk.as_ref());
    end(&mut child);
    cost
}

/// The gateway, measured and stopped in order; and the subscriber, for what follows.
fn fieldspool(points: usize, period: &str, length: Duration) -> (Cost, Receiver) {
    let scratch = tempfile::tempdir().unwrap();
    let disk = Disk::mount(scratch.path(), BLOCK);
    let broker = Broker::start();
    let plant = Plant::start(DEVICES);
    let receiver = Receiver::start(broker.dir.path(), broker.port, plant.sent.clone());
    let setting = Setting { points, period, more: "", disk: disk.as_ref() };
    let mut gateway = gateway(&broker, &plant, setting);
    gateway.start();
    gateway.wait_status("the broker", |s| (s["uplink"]["connected"] == true).then_some(()));
    let pid = gateway.pid().as_raw().unsigned_abs();
    let cost = measure(pid, &receiver, length, disk.as_ref());
    assert!(gateway.stop().success(), "{}", gateway.log());
    (cost, receiver)
}

/// Warms up, then measures for `length`.
fn measure(pid: u32, receiver: &Receiver, length: Duration, disk: Option<&Disk>) -> Cost {
    std::thread::sleep(Duration::from_secs(5));
    let written = disk.map(Disk::written);
    receiver.take();
    let (start, before) = (Instant::now(), processor_time(pid));
    std::thread::sleep(length);
    let processor = processor_time(pid).saturating_sub(before);
    let seconds = start.elapsed().as_secs_f64();
    let (readings, latencies) = receiver.take();
    let written = disk.map(|d| d.written() - written.unwrap_or(0));
    let memory_kib = memory(pid, "VmHWM");
    Cost { readings, seconds, processor, memory_kib, latencies, written }
}

/// As fast as it can: ten devices of a thousand points, polled as often as the line allows. What the run's end says was
/// numbered is compared with what arrived.
pub fn flat_out(length: Duration) -> String {
    let (cost, receiver) = fieldspool(1000, "20ms", length);
    let end = Instant::now() + Duration::from_secs(10);
    let numbered = loop {
        let numbered = receiver.arrived.lock().unwrap().run_end;
        if numbered.is_some() || Instant::now() > end {
            break numbered;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let held = receiver.arrived.lock().unwrap().distinct();
    let lost = numbered.map_or("unknown, no run end arrived".to_owned(), |n| (n - held).to_string());
    format!(
        "\n## As fast as it can: {DEVICES} devices of 1 000 points, {} s\n\n{HEAD}{}\nStored and acknowledged: {:.0} a \
         second (at least {FLAT_OUT}). Of the whole run: numbered {}, arrived {held}, lost {lost} (0).\n",
        length.as_secs(),
        cost.row("fieldspool", &cost, None),
        cost.rate(),
        numbered.unwrap_or(0),
    )
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
