//! The format stands in the documentation: a reader written from it, in another language, prints what the program prints.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use fieldspool::model::{Batch, BootId, ClockQuality, Reading};
use fieldspool_drivers::{Cause, Quality, Sample, Value, ValueKind};

use crate::plant::{Random, Taken, shape, stamp};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/format/read_spool.py");

const KINDS: [ValueKind; 6] =
    [ValueKind::F64, ValueKind::F32, ValueKind::Int, ValueKind::Uint, ValueKind::Bool, ValueKind::Text];

const CAUSES: [Cause; 10] = [
    Cause::Silent,
    Cause::LinkDown,
    Cause::Exception(2),
    Cause::BadFrame,
    Cause::Sentinel,
    Cause::NotANumber,
    Cause::BelowLimit,
    Cause::AboveLimit,
    Cause::Unreadable,
    Cause::Overflow,
];

/// A value of any kind, small and large, round and odd.
fn value(kind: usize, random: &mut Random) -> Value {
    let odd = random.below(2) == 0;
    let bits = random.next();
    match kind {
        0 if odd => Value::F64(f64::from_bits(bits & !(0x7ff << 52) | (1000 + bits % 90) << 52)),
        0 => Value::F64(random.below(200_000) as f64 / 100.0 - 700.0),
        1 if odd => Value::F32(f32::from_bits(bits as u32 & !(0xff << 23) | 120 << 23)),
        1 => Value::F32(random.below(9000) as f32 / 10.0 - 300.0),
        2 if odd => Value::Int(bits.cast_signed()),
        2 => Value::Int(random.below(600) as i64 - 300),
        3 if odd => Value::Uint(bits),
        3 => Value::Uint(random.below(50)),
        4 => Value::Bool(odd),
        _ if odd => Value::Text("unverändert \"1\"".into()),
        _ => Value::Text(format!("{}", bits % 1000).into()),
    }
}

fn sample(kind: usize, random: &mut Random) -> Sample {
    let cause = CAUSES[random.below(10) as usize];
    // A value that is not of its point's kind happens after a change of the configuration, and is stored all the same.
    let kind = if random.below(20) == 0 { random.below(6) as usize } else { kind };
    match random.below(8) {
        0 => Sample { value: None, quality: Quality::Bad(cause) },
        1 => Sample { value: Some(value(kind, random)), quality: Quality::Bad(cause) },
        2 => Sample { value: Some(value(kind, random)), quality: Quality::Uncertain(cause) },
        3 => Sample { value: None, quality: Quality::Good },
        _ => Sample::good(value(kind, random)),
    }
}

#[test]
fn a_reader_written_from_the_documentation_reads_every_reading() {
    let folder = tempfile::tempdir().expect("a directory");
    let (var, etc) = (folder.path().join("var"), folder.path().join("etc"));
    fs::create_dir_all(&etc).expect("made");
    let mut random = Random(7);
    let shapes = [shape("meter", &KINDS), shape("waage ü", &[KINDS, KINDS].concat())];
    for _ in 0..2 {
        let mut taken = Taken::open(&var);
        let mut seq = 0;
        for window in 0..12_u64 {
            for _ in 0..=random.below(5) {
                let shape = &shapes[random.below(2) as usize];
                let kind = |point: usize| point % KINDS.len();
                let all = random.below(2) == 0;
                let mut readings = Vec::new();
                for point in 0..shape.points.len() {
                    if all || point == 3 || random.below(3) == 0 {
                        let sample = sample(kind(point), &mut random);
                        readings.push(Reading { point: u16::try_from(point).expect("few"), sample });
                    }
                }
                let mut at = stamp(window * 97 + random.below(50));
                at.boot = BootId(u128::from(window / 5));
                at.clock = [ClockQuality::Synced, ClockQuality::Unsynced, ClockQuality::Corrected]
                    [random.below(3) as usize];
                let prev = (random.below(4) == 0).then(|| random.below(seq + 1));
                // Some numbers are missing: dropped before they were stored.
                seq += if random.below(6) == 0 { random.below(90) } else { 0 };
                let batch = Batch {
                    run: taken.spool.run,
                    seq,
                    prev,
                    stamp: at,
                    shape: shape.clone(),
                    readings: readings.into(),
                };
                seq = batch.end();
                taken.spool.append(Arc::new(batch), taken.now);
            }
            taken.turn();
        }
        let now = taken.now;
        taken.spool.close(true, now).expect("closes");
    }
    let read = Command::new("python3").arg(READER).arg(var.join("spool.db")).output().expect("python3 runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let said = Command::new(env!("CARGO_BIN_EXE_fieldspool"))
        .args(["spool", "export", "--format", "jsonl", "--config"])
        .arg(&etc)
        .env("STATE_DIRECTORY", &var)
        .env("RUNTIME_DIRECTORY", folder.path())
        .output()
        .expect("runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines = |bytes: &[u8]| -> Vec<serde_json::Value> {
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (read, said) = (lines(&read.stdout), lines(&said.stdout));
    assert!(read.len() > 200, "{} readings", read.len());
    assert_eq!(read.len(), said.len());
    for (read, said) in read.iter().zip(&said) {
        assert_eq!(read, said);
    }
}
