//! What the spool promises, with real files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool_drivers::{Sample, Value, ValueKind};

use super::block::tests::shape;
use super::{Cursor, Item, Opened, Spool, SpoolSettings};
use crate::model::event::{Body, Event};
use crate::model::{Batch, BootId, ClockQuality, Reading, RunId, Shape, Stamp};
use crate::status::Board;

const SOON: Duration = Duration::from_secs(20);

fn stamp(second: u64) -> Stamp {
    let wall_us = 1_795_000_000_000_000 + i64::try_from(second).expect("soon") * 1_000_000;
    Stamp { wall_us, mono_us: second * 1_000_000, boot: BootId(3), clock: ClockQuality::Synced }
}

fn settings(directory: &Path) -> SpoolSettings {
    SpoolSettings { commit_every: Duration::ZERO, ..SpoolSettings::new(directory) }
}

fn open(settings: SpoolSettings) -> (Opened, Board) {
    let board = Board::default();
    let opened = Spool::open(settings, board.clone(), || stamp(0)).expect("opens");
    (opened, board)
}

/// A device of two points, one reading each `seq`.
struct Plant {
    run: RunId,
    shape: Arc<Shape>,
    seq: u64,
}

impl Plant {
    fn new(run: RunId) -> Self {
        Self { run, shape: shape("meter", &[ValueKind::F64, ValueKind::Text]), seq: 0 }
    }

    fn batch(&mut self) -> Arc<Batch> {
        let sample = |value| Sample::good(value);
        let readings = vec![
            Reading { point: 0, sample: sample(Value::F64(self.seq as f64 / 10.0)) },
            Reading { point: 1, sample: sample(Value::Text(format!("{}", self.seq).into())) },
        ];
        let prev = self.seq.checked_sub(2);
        let batch = Batch {
            run: self.run,
            seq: self.seq,
            prev,
            stamp: stamp(self.seq),
            shape: self.shape.clone(),
            readings,
        };
        self.seq = batch.end();
        Arc::new(batch)
    }
}

async fn flush(spool: &Spool) {
    spool.flush(Instant::now() + SOON).await.expect("stored");
}

/// Everything that waits, in order.
async fn waiting(spool: &Spool) -> (Vec<Arc<Batch>>, Vec<Arc<Event>>) {
    let (mut batches, mut events) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::START;
    while let Some(span) = spool.span(cursor).await.expect("readable") {
        assert!(!span.items.is_empty());
        cursor = span.next;
        for item in span.items {
            match item {
                Item::Batch(batch) => batches.push(batch),
                Item::Event(event) => events.push(event),
            }
        }
    }
    (batches, events)
}

/// The state directory as a power cut would leave it: what is on disk now.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        if entry.path().is_file() && !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).expect("copied");
        }
    }
    to
}

#[tokio::test]
async fn stored_readings_survive_the_end_of_the_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, volatile }, _) = open(settings(directory.path()));
    assert!(!volatile);
    let mut plant = Plant::new(run);
    let batches: Vec<_> = (0..50).map(|_| plant.batch()).collect();
    for batch in &batches {
        spool.append(batch.clone());
    }
    flush(&spool).await;
    assert_eq!(spool.committed().borrow().next_seq, 100);
    assert_eq!(waiting(&spool).await.0, batches);

    let after_kill = copy(directory.path());
    let (Opened { spool: second, run: next, .. }, board) = open(settings(after_kill.path()));
    assert!(next > run, "{next} after {run}");
    let (found, events) = waiting(&second).await;
    assert_eq!(found, batches);
    let end = Body::RunEnd { ended: run, next_seq: 100, clean: false, last_wall_us: Some(stamp(98).wall_us) };
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].run, events[0].number, &events[0].body), (next, 0, &end));
    flush(&second).await;
    assert_eq!(board.snapshot().spool.waiting, 100);
    second.close(true).await.expect("closes");
    spool.close(true).await.expect("closes");
}
