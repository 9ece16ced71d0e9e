//! Fills a spool without waiting for real time: windows with a clock of their own, each committed for real before the
//! next begins. In a process of its own, so that what it takes of memory can be told.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool::model::{Batch, BootId, ClockQuality, PointMeta, Reading, Shape, Stamp};
use fieldspool::spool::{Confirmed, Spool, SpoolSettings};
use fieldspool::status::Board;
use fieldspool_drivers::{Sample, Value, ValueKind};

use crate::measure::memory;

/// What is filled in.
#[derive(Clone, Copy)]
pub struct Filling {
    /// Devices, and points of each.
    pub plant: (usize, usize),
    /// Windows of one second.
    pub windows: u64,
    /// Bytes; 0: the default.
    pub cap: u64,
    /// As if the broker had taken them at once.
    pub confirmed: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// KiB of resident memory, at most, over what the first thousandth of the windows took.
    pub growth: u64,
    pub took: Duration,
}

/// Runs `fill` in a process of its own.
pub fn fill(directory: &Path, filling: Filling) -> Filled {
    let Filling { plant: (devices, points), windows, cap, confirmed } = filling;
    let start = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("fill")
        .arg(directory)
        .args([devices, points].map(|n| n.to_string()))
        .args([windows, cap, u64::from(confirmed)].map(|n| n.to_string()))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let growth = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    Filled { growth, took: start.elapsed() }
}

/// `fill DIRECTORY DEVICES POINTS WINDOWS CAP CONFIRMED`; prints the growth of the resident memory, KiB.
pub fn run(arguments: &[String]) {
    let number = |at: usize| arguments[at].parse::<u64>().unwrap();
    let (devices, points, windows) = (number(1), number(2), number(3));
    let mut settings = SpoolSettings::new(&arguments[0]);
    // Longer than any window takes to fill: what closes it is the flush.
    settings.commit_every = Duration::from_secs(60);
    settings.bytes_max = (number(4) > 0).then(|| number(4));
    let second_us = |second: u64| second.wrapping_mul(1_000_000);
    let stamp = move |second: u64| Stamp {
        wall_us: 1_700_000_000_000_000 + second_us(second).cast_signed(),
        mono_us: second_us(second),
        boot: BootId(7),
        clock: ClockQuality::Synced,
    };
    let opened = Spool::open(settings, Board::default(), move || stamp(0)).unwrap();
    let (spool, run) = (opened.spool, opened.run);
    let shapes: Vec<Arc<Shape>> = (0..devices).map(|device| shape(device, points)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut seq, mut before, mut most) = (0, 0, 0);
    for window in 0..windows {
        for (device, shape) in (0..).zip(&shapes) {
            let readings: Vec<Reading> = (0..points).map(|point| reading(device, point, window)).collect();
            let prev = (window > 0).then(|| seq - devices * points);
            let stamp = stamp(window);
            let batch =
                Arc::new(Batch { run, seq, prev, stamp, shape: shape.clone(), readings: readings.into() });
            seq += points;
            spool.append(batch.clone());
            if number(5) > 0 {
                spool.confirm(&[Confirmed::from(&*batch)]);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        runtime.block_on(spool.flush(deadline)).unwrap();
        if window % 100 == 0 {
            let now = memory(std::process::id(), "VmRSS");
            (before, most) = if window <= windows / 1000 { (now, now) } else { (before, now.max(most)) };
        }
    }
    runtime.block_on(spool.close(true)).unwrap();
    println!("{}", most - before);
}

fn shape(device: u64, points: u64) -> Arc<Shape> {
    let point = |point| PointMeta {
        name: format!("p{point}").into(),
        kind: ValueKind::Uint,
        unit: "".into(),
        json_string: false,
    };
    let points = (0..points).map(point).collect();
    Arc::new(Shape::new("plant7-gw1".into(), format!("d{device}").into(), points))
}

/// A register that moves a little, as the plant's do.
fn reading(device: u64, point: u64, window: u64) -> Reading {
    let value = 1000 + point % 13 * 37 + (window.wrapping_mul(0x9e37_79b9) >> ((device + point) % 16)) % 200;
    Reading { point: u16::try_from(point).unwrap(), sample: Sample::good(Value::Uint(value)) }
}
