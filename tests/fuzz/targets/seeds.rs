//! Writes the corpus anew: a few inputs for each target that get it past its first checks. `cargo run --bin seeds`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldspool::model::{Batch, BootId, ClockQuality, Reading, RunId, Stamp};
use fieldspool::spool::SpoolSettings;
use fieldspool::spool::block::encode;
use fieldspool::spool::stepped::Stepped;
use fieldspool::status::Board;
use fieldspool_drivers::{Cause, Sample, Value, ValueKind};
use fieldspool_fuzz::{DICTIONARY, SHAPES};

fn stamp(second: u64) -> Stamp {
    let wall_us = 1_795_000_000_000_000 + i64::try_from(second).expect("small") * 1_000_000;
    Stamp { wall_us, mono_us: second * 1_000_000, boot: BootId(1), clock: ClockQuality::Synced }
}

/// One batch a shape and second.
fn batches(run: RunId, seconds: u64) -> Vec<Arc<Batch>> {
    let mut seq = 0;
    let mut batches = Vec::new();
    for second in 0..seconds {
        for shape in &*SHAPES {
            let reading = |(point, kind): (u16, ValueKind)| {
                let n = second * 100 + u64::from(point);
                let value = match kind {
                    ValueKind::F64 => Value::F64(f64::from(point) + 0.1),
                    ValueKind::F32 => Value::F32(230.1 + f32::from(point)),
                    ValueKind::Int => Value::Int(-5),
                    ValueKind::Uint => Value::Uint(n),
                    ValueKind::Bool => Value::Bool(n % 2 == 0),
                    ValueKind::Text => Value::Text("on".into()),
                };
                let sample = if n % 7 == 3 { Sample::bad(Cause::Silent) } else { Sample::good(value) };
                Reading { point, sample }
            };
            let points = (0..).zip(shape.points.iter().map(|point| point.kind));
            let readings = points.map(reading).collect();
            let batch = Batch { run, seq, prev: None, stamp: stamp(second), shape: shape.clone(), readings };
            seq = batch.end();
            batches.push(Arc::new(batch));
        }
    }
    batches
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("written");
}

/// A spool of three seconds, cut off, with its log.
fn spool() -> (Vec<u8>, Vec<u8>) {
    let folder: PathBuf = std::env::temp_dir().join(format!("fieldspool-seeds-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let now = std::time::Instant::now();
    let mut spool =
        Stepped::open(SpoolSettings::new(&folder), Board::default(), || stamp(0), now).expect("opens");
    for batch in batches(spool.run, 3) {
        spool.append(batch, now);
    }
    spool.turn(now + std::time::Duration::from_secs(2));
    let read = |name: &str| fs::read(folder.join(name)).expect("there");
    let log = read("spool.db-wal");
    // The log was given its length in zeros.
    let end = log.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let log = log[..end.next_multiple_of(8)].to_vec();
    drop(spool);
    let now = std::time::Instant::now();
    let spool =
        Stepped::open(SpoolSettings::new(&folder), Board::default(), || stamp(9), now).expect("opens");
    spool.close(true, now).expect("closes");
    let closed = fs::read(folder.join("spool.db")).expect("there");
    fs::remove_dir_all(&folder).expect("removed");
    (closed, log)
}

fn main() {
    let run = RunId { counter: 17, random: 0x9f3c_2a10 };
    for (name, seconds) in [("one_second", 1), ("ten_seconds", 10)] {
        let mut block = Vec::new();
        encode(&batches(run, seconds), &DICTIONARY, &mut block).expect("encodes");
        put("block_decode", name, &[&[1], &block[..]].concat());
        put("block_encode", name, &block);
    }
    let (file, log) = spool();
    put("salvage", "file", &[&[255], &file[..]].concat());
    put("salvage", "log", &[&[0], &log[..]].concat());
    // A request for two holding registers of unit 1, 50 ms, its answer in two pieces; then an exception.
    let mut script = vec![1, 6, 0b0001_1001, 1, 3, 2, 3, 1, 3, 4, 2, 6, 0, 1, 0, 2, 0x2a, 0x32, 1, 50];
    script.extend([6, 0b0001_1001, 1, 3, 4, 3, 1, 0x83, 2, 1, 200]);
    put("rtu", "answer", &script);
    put("line", "nmea", b"\x01\x07$WIMWV,214.8,R,3.7,M,A*1E\r\n$GPGGA,1,2,3*00\r\n");
    put("line", "scale", b"\x04\x00ST GS  12.50 kg\r\nUS 1,5 kg\r\n");
}
