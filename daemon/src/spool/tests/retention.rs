//! Retention by age: by running time over boots, never by the wall clock.

use super::*;
use crate::spool::stepped::Stepped;

const HOUR: Duration = Duration::from_secs(3600);

/// A spool whose time the test gives.
struct Aged {
    directory: tempfile::TempDir,
    settings: SpoolSettings,
    board: Board,
    spool: Stepped,
    now: Instant,
    plant: Plant,
}

impl Aged {
    fn new(max_age: Option<Duration>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = SpoolSettings { max_age, ..settings(directory.path()) };
        let (board, now) = (Board::default(), Instant::now());
        let spool = Stepped::open(settings.clone(), board.clone(), || stamp(0), now).expect("opens");
        let plant = Plant::new(spool.run);
        Self { directory, settings, board, spool, now, plant }
    }

    /// A batch each minute, whose wall clock says what it wants.
    fn run(&mut self, minutes: u64, wall_us: impl Fn(u64) -> i64) -> Vec<Arc<Batch>> {
        let mut all = Vec::new();
        for minute in 0..minutes {
            let mut batch = Batch::clone(&self.plant.batch());
            batch.stamp.wall_us = wall_us(minute);
            let batch = Arc::new(batch);
            self.now += Duration::from_secs(60);
            self.spool.append(batch.clone(), self.now);
            self.spool.turn(self.now);
            all.push(batch);
        }
        all
    }

    fn waiting(&mut self) -> (Vec<Arc<Batch>>, Vec<Arc<Event>>) {
        let (mut batches, mut events, mut cursor) = (Vec::new(), Vec::new(), Cursor::START);
        while let Some(span) = self.spool.span(cursor).expect("readable") {
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

    /// Stopped, not running for so long, and started again.
    fn sleep(self, pause: Duration) -> Self {
        let Self { directory, settings, board, spool, now, .. } = self;
        spool.close(true, now).expect("closes");
        let now = now + pause;
        let spool = Stepped::open(settings.clone(), board.clone(), || stamp(0), now).expect("opens");
        let plant = Plant::new(spool.run);
        Self { directory, settings, board, spool, now, plant }
    }

    fn blocks(&self) -> i64 {
        let file = rusqlite::Connection::open(self.directory.path().join(store::FILE)).expect("opens");
        file.query_row("SELECT count(*) FROM block", [], |row| row.get(0)).expect("readable")
    }
}

#[test]
fn what_is_older_than_max_age_goes_and_what_of_it_waited_is_a_recorded_gap() {
    let mut aged = Aged::new(Some(HOUR));
    let run = aged.spool.run;
    let first = aged.run(50, |minute| stamp(minute * 60).wall_us);
    aged.spool.confirm(&first[..30].iter().map(|batch| Confirmed::from(&**batch)).collect::<Vec<_>>());
    let rest = aged.run(130, |minute| stamp(minute * 60).wall_us);
    let (batches, events) = aged.waiting();
    // A 64th of an hour, and the minute of a batch.
    assert!((59..=63).contains(&batches.len()), "{} of the last hour wait", batches.len());
    assert_eq!(batches, rest[rest.len() - batches.len()..]);
    let kept = numbers(&batches);
    let gone = gaps(&events, run, GapCause::Expired);
    assert_eq!(gone, (60..*kept.first().expect("some")).collect(), "less what was confirmed");
    assert_eq!(events.len(), 1, "they touch: one record");
    assert!(aged.blocks() <= 64, "{} blocks: history goes too", aged.blocks());
    let shown = aged.board.snapshot().spool;
    assert_eq!((shown.confirmed, shown.expired, shown.waiting), (60, gone.len() as u64, kept.len() as u64));
    assert_eq!(shown.confirmed + shown.expired + shown.waiting, 360);
}

#[test]
fn a_gateway_that_does_not_run_does_not_age() {
    let mut aged = Aged::new(Some(HOUR));
    let all = aged.run(50, |_| stamp(0).wall_us);
    let mut aged = aged.sleep(1000 * HOUR);
    aged.run(5, |_| stamp(0).wall_us);
    let (batches, events) = aged.waiting();
    assert_eq!(batches[..50], all);
    assert_eq!(events.len(), 1, "only the run end");
    // It goes on where it stopped.
    aged.run(10, |_| stamp(0).wall_us);
    assert!(aged.waiting().0.len() < 65, "the oldest went");
    assert!(aged.board.snapshot().spool.expired > 0);
}

#[test]
fn a_clock_set_back_or_fifty_years_forward_expires_and_reorders_nothing() {
    let years = |years: i64| years * 365 * 86_400 * 1_000_000;
    let mut aged = Aged::new(Some(24 * HOUR));
    let all = aged.run(200, |minute| match minute {
        0..50 => stamp(minute).wall_us,
        50..100 => stamp(minute).wall_us + years(50),
        100..150 => -years(20),
        _ => stamp(minute).wall_us - years(1),
    });
    assert_eq!(aged.waiting(), (all.clone(), Vec::new()));
    let mut aged = aged.sleep(HOUR);
    let (batches, events) = aged.waiting();
    assert_eq!(batches, all);
    assert!(matches!(events[0].body, Body::RunEnd { next_seq: 400, .. }), "{events:?}");
    assert_eq!(aged.board.snapshot().spool.expired, 0);
}

#[test]
fn without_max_age_nothing_expires() {
    let mut aged = Aged::new(None);
    let all = aged.run(30, |_| 0);
    aged.now += 100_000 * HOUR;
    let more = aged.run(30, |_| 0);
    assert_eq!(aged.waiting().0, [all, more].concat());
}
