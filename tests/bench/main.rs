//! `make bench`: what fieldspool costs, each figure beside what it must not exceed. Prints tables, and writes them to
//! `tests/bench/RESULTS.md` when every part was measured.
//!
//! Never part of the tests: figures are compared by people, and a slow machine is not a defect.
//!
//! `SECONDS=n` sets the length of a measurement (default 25), `FLASH_SECONDS=n` that of the card's (default 200).
//! `cargo bench -- speed flat flash outage` measures only the parts that are named.
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
mod distance;
mod fill;
mod flash;
mod measure;
mod outage;
mod plant;
mod receiver;
mod speed;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::time::Duration;

use measure::{Disk, machine};
use plant::Plant;
use support::broker::Broker;
use support::gateway::Gateway;

/// What can be measured by itself.
const PARTS: [&str; 4] = ["speed", "flat", "flash", "outage"];

fn main() {
    // rustls asks for one provider in the process; the benchmark's own clients use the same as the gateway.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => return bare::run(&arguments[1..]),
        Some("fill") => return fill::run(&arguments[1..]),
        _ => {}
    }
    let named: Vec<&str> = PARTS.into_iter().filter(|part| arguments.iter().any(|a| a == part)).collect();
    let parts = if named.is_empty() { PARTS.to_vec() } else { named };
    let length = seconds("SECONDS", 25);
    let mut report = format!("Measured by `make bench` on {}.\n", machine());
    for part in &parts {
        let rows = match *part {
            "speed" => speed::report(length),
            "flat" => speed::flat_out(length.min(Duration::from_secs(30))),
            "flash" => flash::report(seconds("FLASH_SECONDS", 200)),
            _ => outage::report(),
        };
        println!("{rows}");
        report.push_str(&rows);
    }
    if parts == PARTS {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/bench/RESULTS.md");
        std::fs::write(file, format!("# What fieldspool costs\n\n{report}")).unwrap();
    }
}

fn seconds(variable: &str, otherwise: u64) -> Duration {
    let said = std::env::var(variable).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(said.unwrap_or(otherwise))
}

/// How a gateway is measured.
#[derive(Clone, Copy)]
struct Setting<'a> {
    /// Of each device.
    points: usize,
    period: &'a str,
    /// More of its configuration.
    more: &'a str,
    /// Where its state is, if it may be mounted.
    disk: Option<&'a Disk>,
}

/// A gateway that polls this plant; not started.
fn gateway(broker: &Broker, plant: &Plant, setting: Setting<'_>) -> Gateway {
    let config = config(plant, setting.period);
    let gateway = Gateway::with_uplink(broker, &format!("{}{config}", setting.more));
    std::fs::create_dir(gateway.etc("profiles")).unwrap();
    std::fs::write(gateway.etc("profiles/meter.toml"), profile(setting.points)).unwrap();
    if let Some(disk) = setting.disk {
        std::fs::remove_dir(gateway.var("")).unwrap();
        std::os::unix::fs::symlink(disk.state(), gateway.var("").parent().unwrap().join("var")).unwrap();
    }
    gateway
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
