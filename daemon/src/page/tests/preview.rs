//! The page with a made-up plant, to look at while working on it:
//!
//! ```text
//! FIELDSPOOL_PAGE_PREVIEW=trouble cargo test -p fieldspool --lib page::tests::preview -- --nocapture
//! ```
//!
//! serves it on 127.0.0.1:8481 until interrupted. Scenes: `well`, `trouble`, `large`, `idle`. Without the variable
//! nothing happens.

use super::*;
use crate::model::Reading;
use crate::status::{BusStatus, CounterStatus, DeviceStatus, Status};
use fieldspool_drivers::{Cause, Sample, Value};

const METER: &[(&str, &str, &str, f32)] = &[
    ("power", "Power", "W", 1520.0),
    ("energy_import", "Energy", "kWh", 20771.35),
    ("voltage_l1", "Voltage L1", "V", 230.4),
    ("voltage_l2", "Voltage L2", "V", 229.8),
    ("current_l1", "Current L1", "A", 6.61),
    ("frequency", "", "Hz", 50.01),
    ("power_factor", "", "", 0.97),
];
const LABELS: &[&str] =
    &["Incomer", "Compressor 2", "Cooling water pump", "", "Extraction hall east", "Lighting"];

fn names() -> Vec<&'static str> {
    METER.iter().map(|(name, ..)| *name).collect()
}

fn devices(large: bool) -> Vec<crate::live::DeviceInfo> {
    let n = if large { 60 } else { LABELS.len() };
    let device = |i: usize| {
        let mut device = info(&format!("meter-{:02}", i + 1), &names());
        device.label = Arc::from(LABELS[i % LABELS.len()]);
        device.bus = Arc::from(if i % LABELS.len() < 4 { "hall" } else { "roof" });
        for (point, (_, label, unit, _)) in Arc::make_mut(&mut device.points).iter_mut().zip(METER) {
            point.label = Arc::from(*label);
            point.unit = Arc::from(*unit);
            point.headline = matches!(&*point.name, "power" | "energy_import");
            point.decimals = match &*point.name {
                "power" => Some(0),
                "power_factor" | "energy_import" | "current_l1" => Some(2),
                _ => Some(1),
            };
        }
        device
    };
    (0..n).map(device).collect()
}

fn values(device: usize, second: u64, trouble: bool) -> Vec<Reading> {
    let wave = |speed: f64| ((second as f64 + device as f64 * 37.0) / speed).sin();
    let step = if (second / 45 + device as u64).is_multiple_of(3) { 1.35 } else { 1.0 };
    METER
        .iter()
        .enumerate()
        .map(|(i, (name, .., base))| {
            let base = f64::from(*base);
            let value = match *name {
                "power" => base * step * (1.0 + 0.08 * wave(17.0)) * (device as f64 + 1.0),
                "energy_import" => base + second as f64 * 0.01,
                _ => base * (1.0 + 0.004 * wave(9.0)),
            };
            let sample = match (trouble, device, *name) {
                (true, 1, _) => Sample::bad(Cause::Silent),
                (true, 2, "voltage_l2") => Sample::bad(Cause::Exception(2)),
                (true, 2, "current_l1") => Sample::uncertain(Value::F64(value), Cause::AboveLimit),
                _ => Sample::good(Value::F64(value)),
            };
            Reading { point: u16::try_from(i).expect("few"), sample }
        })
        .collect()
}

fn board(status: &mut Status, devices: &[crate::live::DeviceInfo], trouble: bool, now_us: i64) {
    status.gateway.version = env!("CARGO_PKG_VERSION").into();
    status.gateway.run = RUN.to_string();
    status.gateway.started_us = now_us - 9 * 3_600_000_000;
    status.gateway.config_hash = "5d1c0f0a9be2417f".into();
    let shown = |name: &str| {
        let on_it = devices.iter().enumerate().filter(|(_, device)| &*device.bus == name);
        on_it
            .map(|(i, device)| DeviceStatus {
                name: device.device.to_string(),
                label: device.label.to_string(),
                address: format!("unit {}", i + 1),
                answering: Some(!(trouble && i == 1)),
                since_us: Some(now_us - 8_460_000_000),
                turnaround_us: Some((11_800, 34_000)),
                polls: 32_400,
                ..DeviceStatus::default()
            })
            .collect::<Vec<_>>()
    };
    let counters = CounterStatus {
        requests: 140_211,
        answers: 139_874,
        timeouts: 311,
        crc_errors: 26,
        opens: 1,
        ..CounterStatus::default()
    };
    let bus = |name: &str, driver: &str, place: &str, load| BusStatus {
        name: name.into(),
        driver: driver.into(),
        place: place.into(),
        up: true,
        load,
        counters: counters.clone(),
        devices: shown(name),
        ..BusStatus::default()
    };
    status.buses = vec![
        bus("hall", "modbus-rtu", "/dev/serial/by-path/platform-fd500000.pcie-usb-0:1.3:1.0-port0", 0.62),
        bus("roof", "modbus-tcp", "10.0.7.31:502", 0.04),
    ];
    status.uplink.configured = true;
    status.uplink.connected = !trouble;
    status.uplink.broker = "mqtt.example.com:8883".into();
    status.uplink.since_us = Some(now_us - 7_200_000_000);
    status.uplink.confirmed = 4_812_330;
    status.uplink.certificate_expires_us = Some(now_us + if trouble { 12 } else { 214 } * 86_400_000_000);
    if trouble {
        status.uplink.error =
            Some("the name mqtt.example.com is not known; check DNS and the network cable".into());
        status.uplink.retry_in = Some(14);
        status.spool.oldest_us = Some(now_us - 7_200_000_000);
        status.clock.synced = false;
    }
    status.spool.state = "ok".into();
    status.spool.waiting = if trouble { 93_412 } else { 0 };
    status.spool.bytes = 41_200_000;
    status.spool.bytes_max = 1_073_741_824;
    status.spool.hours_until_full = trouble.then_some(31.0);
    status.spool.bytes_per_reading = Some(41.7);
    status.spool.gigabytes_per_day = Some(0.152);
    status.spool.unstored_seconds = 0.6;
}

#[tokio::test]
async fn the_preview_is_served_when_asked_for() {
    let Ok(scene) = std::env::var("FIELDSPOOL_PAGE_PREVIEW") else { return };
    let began = std::time::Instant::now();
    // The only place to learn the date without asking the clock, which is not ours to ask.
    let born = std::fs::metadata("/proc/self").and_then(|meta| meta.modified()).expect("a date");
    let start_us = born.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros();
    let start_us = i64::try_from(start_us).expect("small");
    let now = move || {
        let since = u64::try_from(began.elapsed().as_micros()).unwrap_or(0);
        let wall_us = start_us + i64::try_from(since).unwrap_or(0);
        Stamp { wall_us, mono_us: 1_000_000_000 + since, boot: BootId(1), clock: ClockQuality::Synced }
    };
    let house = house_at("127.0.0.1:8481", Arc::new(now)).await;
    let (trouble, idle) = (scene == "trouble", scene == "idle");
    if idle {
        house.board.update(|status| status.gateway.idle = true);
        return house.task.await.expect("no panic");
    }
    let devices = devices(scene == "large");
    house.live.describe(devices.clone());
    let shapes: Vec<Arc<Shape>> = devices.iter().map(|device| shape(&device.device, &names())).collect();
    let mut seq = 0;
    let mut second = 0;
    loop {
        // The first ten minutes at once, so that there are curves to look at.
        let past = second < 600;
        let moment = now();
        for (i, shape) in shapes.iter().enumerate() {
            let readings = values(i, second, trouble && second > 300);
            let mut one = (*batch(shape, RUN, seq, 0, &[])).clone();
            one.stamp = moment;
            one.stamp.mono_us = if past { 400_000_000 + second * 1_000_000 } else { moment.mono_us };
            one.readings = readings.into();
            seq += one.n();
            house.live.offer(&Arc::new(one));
        }
        house.board.update(|status| board(status, &devices, trouble, moment.wall_us));
        second += 1;
        if !past {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
