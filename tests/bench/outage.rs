//! Three days without a broker, compressed: 72 hours of windows of one second, each committed for real, then the whole
//! backlog drained by the real gateway over mutual TLS.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::fill::{Filled, Filling, fill};
use crate::measure::memory;
use crate::receiver::Receiver;
use crate::support::broker::Broker;
use crate::support::gateway::Gateway;

const WINDOWS: u64 = 72 * 3600;
const PLANT: (usize, usize) = (4, 10);
const READINGS: u64 = WINDOWS * 40;

/// Nobody waits longer for the drain.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn report() -> String {
    let broker = Broker::start();
    let receiver = Receiver::start(broker.dir.path(), broker.port, std::sync::Arc::default());
    let mut gateway = Gateway::with_uplink(&broker, "");
    let state = gateway.var("");
    let filled = fill(&state, Filling { plant: PLANT, windows: WINDOWS, cap: 0, confirmed: false });
    let bytes: u64 = std::fs::read_dir(&state).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();

    let start = Instant::now();
    gateway.launch();
    while receiver.arrived.lock().unwrap().readings < READINGS && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(250));
    }
    let drained = start.elapsed();
    let peak = memory(gateway.pid().as_raw().unsigned_abs(), "VmHWM");
    gateway.wait_status("all to be confirmed", |s| (s["spool"]["waiting"] == 0).then_some(()));
    assert!(gateway.stop().success(), "{}", gateway.log());
    let arrived = receiver.arrived.lock().unwrap().distinct();
    table(filled, bytes, (drained, peak), arrived)
}

fn table(filled: Filled, bytes: u64, (drained, peak): (Duration, u64), arrived: u64) -> String {
    let mut report = format!(
        "\n## 72 hours without a broker, compressed: {WINDOWS} windows of 40 readings, each committed\n\n\
         | | measured | at most |\n|---|---|---|\n"
    );
    let mut row = |name: &str, measured: String, most: &str| {
        writeln!(report, "| {name} | {measured} | {most} |").unwrap();
    };
    row("readings lost", format!("{} of {READINGS}", READINGS.saturating_sub(arrived)), "0");
    row("resident growth while filling, MiB", format!("{:.1}", filled.growth as f64 / 1024.0), "2");
    row("on disk, MB", format!("{:.0}", bytes as f64 / 1e6), "200");
    row("start to last reading at a subscriber, s", format!("{:.1}", drained.as_secs_f64()), "60");
    row("... readings/s", format!("{:.0}", arrived as f64 / drained.as_secs_f64()), "-");
    row("peak memory of the draining gateway, MiB", format!("{:.1}", peak as f64 / 1024.0), "-");
    row("filling took, s", format!("{:.0}", filled.took.as_secs_f64()), "-");
    report
}
