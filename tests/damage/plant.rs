//! A plant of two devices, and a spool that is taken step by step.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool::model::event::Event;
use fieldspool::model::{Batch, BootId, ClockQuality, PointMeta, Reading, RunId, Shape, Stamp};
use fieldspool::spool::schema::{self, Schema};
use fieldspool::spool::stepped::Stepped;
use fieldspool::spool::{BYTES_MAX_LEAST, Confirmed, Cursor, Item, SpoolSettings};
use fieldspool::status::Board;
use fieldspool_drivers::{Sample, Value, ValueKind};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

pub(crate) fn stamp(second: u64) -> Stamp {
    let wall_us = 1_795_000_000_000_000 + i64::try_from(second).expect("soon") * 1_000_000;
    Stamp { wall_us, mono_us: second * 1_000_000, boot: BootId(3), clock: ClockQuality::Synced }
}

pub(crate) fn shape(device: &str, kinds: &[ValueKind]) -> Arc<Shape> {
    let point = |(i, kind): (usize, &ValueKind)| PointMeta {
        name: format!("point_{i}").into(),
        kind: *kind,
        unit: "V".into(),
        json_string: false,
    };
    Arc::new(Shape::new("plant7".into(), device.into(), kinds.iter().enumerate().map(point).collect()))
}

/// Numbers the batches of one run.
pub(crate) struct Plant {
    pub(crate) run: RunId,
    pub(crate) seq: u64,
    shapes: [Arc<Shape>; 2],
}

impl Plant {
    pub(crate) fn new(run: RunId) -> Self {
        let shapes = [
            shape("meter", &[ValueKind::F64, ValueKind::Uint, ValueKind::F32]),
            shape("scale", &[ValueKind::Text; 8]),
        ];
        Self { run, seq: 0, shapes }
    }

    /// Three numbers, or eight texts of up to 200 bytes.
    pub(crate) fn batch(&mut self, random: &mut Random) -> Arc<Batch> {
        let seq = self.seq;
        let texts = random.below(3) == 0;
        let shape = self.shapes[usize::from(texts)].clone();
        let value = |point: u16, random: &mut Random| match point {
            _ if texts => {
                let letters = (0..=random.below(200)).map(|_| char::from(b'a' + random.below(26) as u8));
                Value::Text(letters.collect::<String>().into())
            }
            0 => Value::F64(random.below(100_000) as f64 / 10.0),
            1 => Value::Uint(seq),
            _ => Value::F32(f32::from_bits(random.below(1 << 30) as u32)),
        };
        let readings: Vec<_> = (0..shape.points.len() as u16)
            .map(|point| Reading { point, sample: Sample::good(value(point, random)) })
            .collect();
        let batch =
            Batch { run: self.run, seq, prev: None, stamp: stamp(seq), shape, readings: readings.into() };
        self.seq = batch.end();
        Arc::new(batch)
    }
}

pub(crate) fn settings(directory: &Path) -> SpoolSettings {
    SpoolSettings { commit_every: Duration::ZERO, ..SpoolSettings::new(directory) }
}

/// Batches and records, in order.
type Waiting = (Vec<Arc<Batch>>, Vec<Arc<Event>>);

/// A spool, its board, and the time that it is told.
pub(crate) struct Taken {
    pub(crate) spool: Stepped,
    pub(crate) board: Board,
    pub(crate) now: Instant,
}

impl Taken {
    pub(crate) fn open(directory: &Path) -> Self {
        Self::open_as(directory, &schema::CURRENT)
    }

    pub(crate) fn open_as(directory: &Path, known: &'static Schema) -> Self {
        Self::open_with(settings(directory), known)
    }

    /// With the least cap.
    pub(crate) fn open_capped(directory: &Path) -> Self {
        let bytes_max = Some(BYTES_MAX_LEAST);
        Self::open_with(SpoolSettings { bytes_max, ..settings(directory) }, &schema::CURRENT)
    }

    fn open_with(settings: SpoolSettings, known: &'static Schema) -> Self {
        let (board, now) = (Board::default(), Instant::now());
        let spool = Stepped::open_as(settings, (board.clone(), known), || stamp(0), now);
        Self { spool: spool.expect("opens, whatever lies there"), board, now }
    }

    pub(crate) fn turn(&mut self) {
        self.now += Duration::from_millis(100);
        self.spool.turn(self.now);
    }

    pub(crate) fn store(&mut self, batch: Arc<Batch>) {
        self.spool.append(batch, self.now);
        self.turn();
    }

    /// Everything that waits, when nothing more is searched, audited or healed.
    pub(crate) fn settle(&mut self) -> Waiting {
        let (mut quiet, mut walks) = (0, 0);
        for _ in 0..100_000 {
            self.turn();
            if self.spool.busy() {
                quiet = 0;
                continue;
            }
            // Walking over everything is what finds the rest.
            let found = self.waiting();
            (quiet, walks) = (quiet + 1, walks + 1);
            match found.filter(|_| quiet >= 3) {
                Some(found) => return found,
                None if walks > 60 => break,
                None => {}
            }
        }
        panic!("the spool does not come to rest: {:?}", self.board.read(|status| status.spool.clone()));
    }

    /// Everything that comes, as a server takes it: what is set aside waits for the room that this makes.
    pub(crate) fn drain(&mut self) -> Waiting {
        let (mut batches, mut events) = (Vec::new(), Vec::new());
        for _ in 0..1000 {
            let (more, said) = self.settle();
            if more.is_empty() && said.is_empty() {
                return (batches, events);
            }
            self.spool.confirm(&more.iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
            self.spool.confirm(&said.iter().map(|event| Confirmed::from(&**event)).collect::<Vec<_>>());
            batches.extend(more);
            events.extend(said);
            // Confirmations are written.
            self.now += Duration::from_secs(11);
        }
        panic!("it does not come to an end: {:?}", self.board.read(|status| status.spool.clone()));
    }

    /// `None`: the file was found damaged on the way.
    fn waiting(&mut self) -> Option<Waiting> {
        let (mut batches, mut events) = (Vec::new(), Vec::new());
        let mut cursor = Cursor::START;
        while let Some(span) = self.spool.span(cursor).ok()? {
            cursor = span.next;
            for item in span.items {
                match item {
                    Item::Batch(batch) => batches.push(batch),
                    Item::Event(event) => events.push(event),
                }
            }
        }
        Some((batches, events))
    }
}

/// All files of a state directory, as a kill would leave them.
pub(crate) fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        if entry.path().is_file() && !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).expect("copied");
        }
    }
    to
}
