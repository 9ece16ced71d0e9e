//! What a spool is made of: lock, recovered books, writer and reader, put together and not yet started. [`Spool::open`](super::Spool::open)
//! gives them threads, [`stepped`](super::stepped) takes their turns one by one.
//!
//! Fails only if another instance holds the lock, or the directory is refused (`require_durable`): with a disk that cannot be used the run
//! begins in memory.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::api::SpoolSettings;
use super::error::SpoolError;
use super::gaps::Gaps;
use super::inner::Inner;
use super::ledger::{Ledger, RunBooks};
use super::reader::Reader;
use super::schema::Schema;
use super::shared::Shared;
use super::wire::Wire;
use super::writer::Writer;
use super::{directory, enter, forgotten, open, records, rescue, store};
use crate::model::{RunId, Stamp};
use crate::mounts;
use crate::status::Board;

/// What opening found.
struct Recovered {
    entered: Result<(store::Store, records::Mark), store::StoreError>,
    /// What was wrong with a file that was set aside, or with its log.
    damaged: Option<String>,
}

/// A spool whose threads have not been started.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) reader: Reader,
    pub(super) lock: Option<directory::Lock>,
    pub(super) run: RunId,
    pub(super) volatile: bool,
}

impl Parts {
    pub(super) fn open(
        settings: SpoolSettings,
        (board, known): (Board, &'static Schema),
        stamp: Box<dyn Fn() -> Stamp + Send + Sync>,
        (now, random): (Instant, u32),
    ) -> Result<Self, SpoolError> {
        let lock = match directory::lock(&settings.directory) {
            Ok(lock) => Some(lock),
            Err(error @ SpoolError::Locked { .. }) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the state directory cannot be used; readings stay in memory");
                None
            }
        };
        let not_durable = open::durability(&settings)?;
        let mounted_at = mounts::file_system(&settings.directory);
        board.update(|status| {
            (status.spool.not_durable, status.spool.mounted_at) = (not_durable, mounted_at);
        });
        let file = settings.directory.join(store::FILE);
        let mut begun = open::begin(&file, &settings, known, random);
        let run = begun.run;
        let sidecar = directory::write_sidecar(&settings.directory, run);
        if let Err(error) = &sidecar {
            tracing::warn!(%error, "the run cannot be remembered beside the spool");
        }
        let report = match &mut begun.store {
            Ok((_, found)) => forgotten::recall(found, &file, begun.log_missing),
            Err(_) => begun.log_missing.then(forgotten::log_missing),
        };
        let mut next_event = 0;
        let own = RunBooks::default();
        let salvaging = rescue::awaits(&settings.directory, known);
        let entered = begun.store.and_then(|(mut store, found)| {
            let life =
                enter::Life { run, books: &own, salvaging, report: report.clone(), untold: Vec::new() };
            enter::enter(&mut store, found, life, stamp(), &mut next_event).map(|entered| (store, entered))
        });
        let volatile = entered.is_err() && sidecar.is_err();
        let mut inner = inner(settings, run, next_event);
        let entered = entered.map(|(store, entered)| {
            inner.floor = entered.mark.floor;
            inner.events_waiting = entered.events_waiting;
            inner.clocks = entered.clocks.into();
            inner.salvage = entered.salvage;
            inner.ledger = entered.ledger;
            (store, entered.mark)
        });
        if let Some(report) = report.filter(|_| entered.is_err() && begun.log_missing) {
            // Another start would not see it any more. What the copy knows stays there until the file is open.
            inner.must_record(report, stamp());
        }
        inner.give_up(begun.given_up, stamp());
        let shared = Arc::new(Shared::new(inner, board, stamp, known));
        let (writer, reader) =
            Self::threads(&shared, &file, Recovered { entered, damaged: begun.damaged }, now);
        Ok(Self { shared, writer, reader, lock, run, volatile })
    }

    fn threads(
        shared: &Arc<Shared>,
        file: &Path,
        Recovered { entered, damaged }: Recovered,
        now: Instant,
    ) -> (Writer, Reader) {
        let bytes_max = open::bytes_max(&shared.lock().settings);
        if let Ok((store, _)) = &entered {
            let (block, event) = store.next();
            shared.newest_event.store(event - 1, Ordering::Release);
            shared.newest_block.store(block - 1, Ordering::Release);
        }
        let mut writer = Writer::new(shared.clone(), file.to_owned(), bytes_max, entered, now);
        writer.begin_rescue(damaged);
        writer.begin_audit();
        (writer, Reader::new(shared.clone(), file.to_owned()))
    }
}

/// The state behind the lock as a run begins.
pub(super) fn inner(settings: SpoolSettings, run: RunId, next_event: u64) -> Inner {
    let mut ledger = Ledger::default();
    ledger.runs.insert(run, RunBooks::default());
    Inner {
        settings,
        run,
        ring: VecDeque::new(),
        bytes: 0,
        in_hand: None,
        readings: 0,
        events: VecDeque::new(),
        clocks: VecDeque::new(),
        salvage: None,
        unsearched: 0,
        next_event,
        numbered: 0,
        ledger,
        dirty: BTreeSet::new(),
        gaps: Gaps::default(),
        unrecorded: None,
        left_out: false,
        taken_to: 0,
        confirmed: 0,
        sent: HashSet::new(),
        events_waiting: 0,
        commands: VecDeque::new(),
        floor: 0,
        given: [(0, 0); 2],
        wire: Wire::default(),
        passed: false,
        sleeps_until: Instant::now(),
        closed: false,
    }
}
