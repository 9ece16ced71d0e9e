//! `make bench`: what fieldspool costs, each figure beside a bare poll-and-publish loop over the same TLS, measured in
//! the same run. Prints a table and writes it to `tests/bench/RESULTS.md`.
//!
//! Never part of the tests: figures are compared by people, and a slow machine is not a defect.
//!
//! `SECONDS=n` sets the length of a measurement (default 60).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::format_collect,
    clippy::print_stderr,
    dead_code
)]

mod bare;
mod measure;
mod plant;
mod receiver;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use measure::{Disk, machine, peak_memory, processor_time};
use plant::Plant;
use receiver::Receiver;
use support::broker::Broker;
use support::gateway::Gateway;

const DEVICES: usize = 10;

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
    fn micros_per_reading(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.readings.max(1) as f64
    }

    fn latency_ms(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = ((sorted.len().saturating_sub(1)) as f64 * share) as usize;
        sorted.get(at).map_or(f64::NAN, |l| l.as_secs_f64() * 1e3)
    }

    fn row(&self, name: &str, floor: &Self) -> String {
        let disk =
            self.written.map_or("-".into(), |w| format!("{:.0}", w as f64 / self.readings.max(1) as f64));
        format!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.1} | {:.2} / {:.2} | {disk} |\n",
            self.readings as f64 / self.seconds,
            self.micros_per_reading(),
            self.micros_per_reading() / floor.micros_per_reading(),
            self.memory_kib as f64 / 1024.0,
            self.latency_ms(0.5),
            self.latency_ms(0.99),
        )
    }
}

const HEAD: &str = "| | readings/s | processor µs/reading | times the floor | VmHWM MiB | latency p50 / p99 ms | disk B/reading |\n\
                    |---|---|---|---|---|---|---|\n";

fn main() {
    // rustls asks for one provider in the process; the benchmark's own clients use the same as the gateway.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "bare") {
        return bare::run(&arguments[1..]);
    }
    let seconds = std::env::var("SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let length = Duration::from_secs(seconds);
    let mut report = format!("Measured by `make bench` on {}.\n", machine());
    for points in [100, 1000] {
        let total = points * DEVICES;
        writeln!(report, "\n## {total} points in {DEVICES} Modbus TCP devices at 1 s, {seconds} s\n")
            .unwrap();
        report.push_str(HEAD);
        let floor = floor(points, length);
        report.push_str(&floor.row("bare loop", &floor));
        let cost = fieldspool(points, "1s", length);
        report.push_str(&cost.0.row("fieldspool", &floor));
        println!("{report}");
    }
    report.push_str(&flat_out(length.min(Duration::from_secs(30))));
    println!("{report}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/bench/RESULTS.md");
    std::fs::write(file, format!("# What fieldspool costs\n\n{report}")).unwrap();
}

/// The bare loop, measured.
fn floor(points: usize, length: Duration) -> Cost {
    let broker = Broker::start();
    let plant = Plant::start(DEVICES);
    let receiver = Receiver::start(broker.dir.path(), broker.port, plant.sent.clone());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["bare", broker.dir.path().to_str().unwrap(), &broker.port.to_string(), &points.to_string()])
        .args(plant.ports.iter().map(u16::to_string))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let cost = measure(child.id(), &receiver, length, None);
    end(&mut child);
    cost
}

/// The gateway, measured and stopped in order; its last status and the subscriber, for what follows.
fn fieldspool(points: usize, period: &str, length: Duration) -> (Cost, serde_json::Value, Receiver) {
    let scratch = tempfile::tempdir().unwrap();
    let disk = Disk::mount(scratch.path());
    let broker = Broker::start();
    let plant = Plant::start(DEVICES);
    let receiver = Receiver::start(broker.dir.path(), broker.port, plant.sent.clone());
    let mut gateway = Gateway::with_uplink(&broker, &config(&plant, period));
    std::fs::create_dir(gateway.etc("profiles")).unwrap();
    std::fs::write(gateway.etc("profiles/meter.toml"), profile(points)).unwrap();
    if let Some(disk) = &disk {
        let var = disk.folder.join("var");
        std::fs::create_dir(&var).unwrap();
        std::fs::remove_dir(gateway.var("")).unwrap();
        std::os::unix::fs::symlink(&var, gateway.var("").parent().unwrap().join("var")).unwrap();
    }
    gateway.start();
    gateway.wait_status("the broker", |s| (s["uplink"]["connected"] == true).then_some(()));
    let pid = gateway.pid().as_raw().unsigned_abs();
    let cost = measure(pid, &receiver, length, disk.as_ref());
    let status = gateway.status().unwrap();
    assert!(gateway.stop().success(), "{}", gateway.log());
    (cost, status, receiver)
}

/// Ten devices of one kind: a register map of `points` points, used by all.
fn config(plant: &Plant, period: &str) -> String {
    let mut text = String::from("[page]\nlisten = \"127.0.0.1:0\"\n");
    for (device, port) in plant.ports.iter().enumerate() {
        write!(
            text,
            "[bus.b{device}]\nperiod = \"{period}\"\n[bus.b{device}.link.modbus-tcp]\nhost = \"127.0.0.1\"\n\
             port = {port}\n[bus.b{device}.device]\nd{device} = {{ unit_id = 1, profile = \"meter\" }}\n"
        )
        .unwrap();
    }
    text
}

fn profile(points: usize) -> String {
    let list: String = (0..points).map(|i| format!("p{i} = {{ input = {i} }}\n")).collect();
    format!("name = \"bench meter\"\nsource = \"tests/bench\"\n[points]\n{list}")
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
    let memory_kib = peak_memory(pid);
    Cost { readings, seconds, processor, memory_kib, latencies, written }
}

/// As fast as it can: ten devices of a thousand points, polled as often as the line allows. What the run's end says was
/// numbered is compared with what arrived.
fn flat_out(length: Duration) -> String {
    let (cost, _, receiver) = fieldspool(1000, "20ms", length);
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
        "\n## As fast as it can: {DEVICES} devices of 1 000 points, {} s\n\n{HEAD}{}\nOf the whole run: numbered {}, \
         arrived {held}, lost {lost}.\n",
        length.as_secs(),
        cost.row("fieldspool", &cost),
        numbered.unwrap_or(0),
    )
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
