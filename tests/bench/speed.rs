//! Speed and memory: the gateway beside a bare poll-and-publish loop over the same TLS, measured in the same run.
//!
//! In rounds, each of which measures all of them one after the other: a machine is not equally fast from minute to minute, and a
//! ratio is one of two neighbours. The median round is shown with the range of all; of memory, latency and disk the worst.

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

/// Rounds.
const ROUNDS: usize = 3;

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

    fn written_per_reading(&self) -> Option<f64> {
        self.written.map(|written| written as f64 / self.readings.max(1) as f64)
    }
}

/// The worst of them.
fn most(of: impl Iterator<Item = f64>) -> f64 {
    of.fold(f64::NAN, f64::max)
}

/// The middle, and the ends.
fn spread(of: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    (at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1)))
}

/// A row of the table, of all rounds; a figure with a target shows it behind a stroke.
fn row(name: &str, rounds: &[Cost], floors: &[Cost], targets: Option<Targets>) -> String {
    let goal = |target: Option<f64>| target.map_or(String::new(), |target| format!(" / {target}"));
    let of = |figure: fn(&Cost) -> f64| rounds.iter().map(figure);
    let (rate, ..) = spread(of(Cost::rate));
    let (micros, ..) = spread(of(Cost::micros_per_reading));
    let pairs = rounds.iter().zip(floors);
    let (times, least, worst) =
        spread(pairs.map(|(cost, floor)| cost.micros_per_reading() / floor.micros_per_reading()));
    let range = if rounds.len() > 1 { format!(" ({least:.2} to {worst:.2})") } else { String::new() };
    let memory = most(of(|cost| cost.memory_kib as f64 / 1024.0));
    let (p50, ..) = spread(of(|cost| cost.latency_ms(0.5)));
    let p99 = most(of(|cost| cost.latency_ms(0.99)));
    let disk = most(rounds.iter().filter_map(Cost::written_per_reading));
    let disk = if disk.is_nan() { "-".to_owned() } else { format!("{disk:.0}") };
    format!(
        "| {name} | {rate:.0} | {micros:.2} | {times:.2}{range}{} | {memory:.1}{} | {p50:.2} | {p99:.2}{} | {disk}{} |\n",
        goal(targets.map(|t| t.times_the_floor)),
        goal(targets.map(|t| t.memory_mib)),
        goal(targets.and_then(|t| t.p99_ms)),
        goal(targets.and_then(|t| t.disk)),
    )
}

const HEAD: &str = "| | readings/s | processor µs/reading | times the floor / at most | VmHWM MiB / at most | latency p50 ms | p99 ms / at most | disk B/reading / at most |\n\
                    |---|---|---|---|---|---|---|---|\n";

pub fn report(length: Duration) -> String {
    let mut report = String::new();
    for (points, targets) in CASES {
        let (total, seconds) = (points * DEVICES, length.as_secs());
        writeln!(
            report,
            "\n## {total} points in {DEVICES} Modbus TCP devices at 1 s, {ROUNDS} rounds of {seconds} s\n"
        )
        .unwrap();
        let (mut floors, mut committing, mut gateways) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            floors.push(bare(points, length, false));
            committing.push(bare(points, length, true));
            gateways.push(fieldspool(points, "1s", length).0);
        }
        report.push_str(HEAD);
        report.push_str(&row("bare loop", &floors, &floors, None));
        report.push_str(&row("bare loop that also commits", &committing, &floors, None));
        report.push_str(&row("fieldspool", &gateways, &floors, Some(targets)));
        let pairs = gateways.iter().zip(&committing);
        let (times, least, worst) =
            spread(pairs.map(|(cost, other)| cost.micros_per_reading() / other.micros_per_reading()));
        writeln!(
            report,
            "\nThe median round, in brackets the range; of memory, p99 and disk the worst. fieldspool costs {times:.2} \
             ({least:.2} to {worst:.2}) times the bare loop that also commits."
        )
        .unwrap();
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
    let (rate, shown) = (cost.rate(), [cost]);
    let lost = numbered.map_or("unknown, no run end arrived".to_owned(), |n| (n - held).to_string());
    format!(
        "\n## As fast as it can: {DEVICES} devices of 1 000 points, {} s\n\n{HEAD}{}\nStored and acknowledged: {:.0} a \
         second (at least {FLAT_OUT}). Of the whole run: numbered {}, arrived {held}, lost {lost} (0).\n",
        length.as_secs(),
        row("fieldspool", &shown, &shown, None),
        rate,
        numbered.unwrap_or(0),
    )
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
