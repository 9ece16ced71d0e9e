//! The writer: one thread that closes windows, commits them, and stands up again after trouble with the disk.
//!
//! After any error of a commit the connection is dropped, because a failed fsync must not be tried again and believed:
//! the kernel may have forgotten what it could not write. The file is opened anew, its log is written back and emptied
//! (so that no half-written frame stays in front of later ones), what the failed commit may have left is taken out,
//! and the same readings are written again from memory. Until then they and all that follow stay in the memory ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::SpoolError;
use super::api::{Confirmed, Keep};
use super::meter::{Meter, View};
use super::open;
use super::records::{Mark, losses_row};
use super::rescue::Rescue;
use super::ring::{self, Heading};
use super::shared::{Command, Gap, Inner, Kept, Shared, WINDOW_BYTES, WINDOW_READINGS};
use super::store::{DeadLetter, RunUpdate, Store, StoreError, Trouble, Victims, Work, Written};
use crate::model::event::{Body, Event, GapCause};
use crate::model::{Batch, RunId};

/// Confirmations reach the disk with a commit at most this late.
const BOOKS_EVERY: Duration = Duration::from_secs(10);

/// With `keep = "unsent"` next to nothing is written; the run still leaves a mark this often.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// The board is fresh to this.
const TICK: Duration = Duration::from_secs(1);

/// Pauses between attempts to use a disk that failed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// After "no space" the file does not grow for this long: new blocks take the rows of old ones.
const FULL_FOR: Duration = Duration::from_secs(60);

/// Headings looked at in one turn to move the floor.
const FLOOR_STEP: usize = 256;

/// What is written if everything is at its longest, for the room it needs: bytes a reading, a batch, a block.
const ROOM_FOR: (u64, u64, u64) = (18, 48, 256);

/// What is wrong with the disk.
#[derive(Debug)]
struct Broken {
    /// `full`, `read-only`, `failing`.
    state: &'static str,
    /// In words.
    why: String,
    /// Try again then.
    retry_at: Instant,
    /// The pause after that.
    pause: Duration,
    /// What the failed commit may have left: first block, first record row.
    undo_from: Option<(u64, i64)>,
}

/// What one commit takes out of memory.
#[derive(Debug, Default)]
struct Window {
    kept: Vec<Kept>,
    batches: Vec<Arc<Batch>>,
    events: Vec<Arc<Event>>,
    grown: Vec<(i64, Arc<Event>)>,
    sent: Vec<(RunId, u64)>,
    runs: Vec<RunUpdate>,
    mark: Option<Mark>,
    dead: Vec<DeadLetter>,
    /// The gap record that may still grow after this commit: its place in `events`.
    open_gap: Option<usize>,
    /// Confirmations are written too.
    books: bool,
}

/// The thread's own state.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: PathBuf,
    bytes_max: u64,
    store: Option<Store>,
    broken: Option<Broken>,
    full_until: Option<Instant>,
    /// The spool's own row as it is on disk.
    mark: Mark,
    books_due: Instant,
    open_gap: Option<(i64, Arc<Event>)>,
    last_wall_us: Option<i64>,
    /// The run end is written; nothing is numbered any more.
    run_ended: bool,
    flushes: Vec<(Instant, oneshot::Sender<Result<(), SpoolError>>)>,
    dead: Vec<DeadLetter>,
    meter: Meter,
    rescue: Option<Rescue>,
}

impl Writer {
    /// With what opening found; `store` is `None` if the disk cannot be used yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        file: PathBuf,
        bytes_max: u64,
        store: Result<(Store, Mark), String>,
    ) -> Self {
        let now = Instant::now();
        let (store, mark, broken) = match store {
            Ok((store, mark)) => (Some(store), mark, None),
            Err(why) => {
                let (retry_at, pause) = (now + RETRY_FIRST, RETRY_FIRST * 2);
                let broken = Broken { state: "failing", why, retry_at, pause, undo_from: None };
                (None, Mark::default(), Some(broken))
            }
        };
        Self {
            shared,
            file,
            bytes_max,
            store,
            broken,
            full_until: None,
            mark,
            books_due: now + BOOKS_EVERY,
            open_gap: None,
            last_wall_us: None,
            run_ended: false,
            flushes: Vec::new(),
            dead: Vec::new(),
            meter: Meter::new(now),
            rescue: None,
        }
    }

    /// Searches a file that was set aside, a piece each turn.
    pub(super) fn begin_rescue(&mut self, file: &Path, found: String) {
        match Rescue::begin(file, found, &self.shared.lock()) {
            Ok(rescue) => self.rescue = Some(rescue),
            Err(error) => {
                tracing::error!(%error, file = %file.display(), "the damaged spool cannot be searched");
            }
        }
    }

    /// One piece of the rescue.
    fn rescue(&mut self) {
        if self.store.is_none() {
            return;
        }
        let Some(mut rescue) = self.rescue.take() else { return };
        let shared = self.shared.clone();
        let Some(found) = rescue.search() else {
            rescue.finish(&mut shared.lock(), (shared.now)());
            self.books_due = Instant::now();
            return;
        };
        let back = rescue.take_back(found, &mut shared.lock());
        self.rescue = Some(rescue);
        if back.is_empty() {
            return;
        }
        let floor = self.mark.floor;
        let Some(store) = self.store.as_mut() else { return };
        let next = store.next();
        if let Err(error) = store.commit(&Work { batches: &back, floor, ..Work::default() }) {
            // No room but over readings that wait: the newer ones stay, these count as lost in the end.
            tracing::warn!(%error, "salvaged readings cannot be stored");
            if !matches!(error, StoreError::NoRoom) {
                self.fail(error.trouble(), &error.to_string(), Some(next));
            }
        }
    }

    /// Until it is told to close.
    pub(super) fn run(mut self) {
        self.show();
        loop {
            let commands = self.wait();
            let mut close = None;
            for command in commands {
                match command {
                    Command::Close { clean, reply } => close = Some((clean, reply)),
                    other => self.obey(other),
                }
            }
            if let Some((clean, reply)) = close {
                let _ = reply.send(self.close(clean));
                return;
            }
            self.turn(Instant::now());
        }
    }

    /// Sleeps until a window is due, a command comes, or something shown on the board changes by itself.
    fn wait(&self) -> Vec<Command> {
        let shared = self.shared.clone();
        let until = Instant::now() + TICK;
        let mut inner = shared.lock();
        loop {
            inner.skip_confirmed();
            let now = Instant::now();
            let usable = self.broken.as_ref().is_none_or(|broken| broken.retry_at <= now);
            if !inner.commands.is_empty() || now >= until || (usable && self.has_turn(&inner, now)) {
                return inner.commands.drain(..).collect();
            }
            let window = inner.ring.front().map(|kept| kept.at + inner.settings.commit_every);
            let next = match (&self.broken, window) {
                (Some(broken), _) => broken.retry_at,
                (None, Some(window)) => window,
                (None, None) => until,
            };
            inner = shared.wait(inner, next.min(until));
        }
    }

    /// Something to do in a turn: heal, search, commit.
    fn has_turn(&self, inner: &Inner, now: Instant) -> bool {
        self.broken.is_some() || self.rescue.is_some() || self.has_work(inner, now)
    }

    /// Something to commit.
    fn has_work(&self, inner: &Inner, now: Instant) -> bool {
        let books = !inner.dirty.is_empty() || !inner.sent.is_empty();
        // Records ride with the next window; without one they go at once.
        let records = !inner.events.is_empty() || !inner.gaps.is_empty();
        inner.due(now)
            || (records && inner.ring.is_empty())
            || !self.flushes.is_empty()
            || !self.dead.is_empty()
            || (books && now >= self.books_due)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Ping(reply) => {
                // Who asked may have given up.
                let _ = reply.send(());
            }
            Command::Flush { deadline, reply } => self.flushes.push((deadline, reply)),
            Command::DeadLetter { refused, reason, reply } => {
                let _ = reply.send(self.dead_letter(&refused, &reason));
            }
            Command::Damaged { spot, header, what } => {
                tracing::warn!(seq = header.map(|header| header.first), error = %what, "a stored block is damaged");
                if let Some(header) = header {
                    self.shared.lock().lose(header.run, header.first, header.next, GapCause::Damaged);
                } else {
                    self.lose_between_neighbours(spot);
                }
            }
            Command::FileDamaged(what) => self.fail(Trouble::Damage, &what, None),
            Command::Reconfigure => {
                let settings = self.shared.lock().settings.clone();
                self.bytes_max = open::bytes_max(&settings);
                if let Some(Err(error)) = self.store.as_mut().map(|store| store.set_bytes_max(self.bytes_max))
                {
                    self.fail(error.trouble(), &error.to_string(), None);
                }
            }
            Command::EndRun { reply } => {
                if !self.run_ended && self.store.is_some() {
                    self.end_run();
                    self.commit_window(Instant::now(), Some(2));
                }
                let _ = reply.send(());
            }
            Command::Close { .. } => {}
        }
    }

    /// One turn: heal if it is time, commit what is due, show how it is.
    fn turn(&mut self, now: Instant) {
        if self.broken.as_ref().is_some_and(|broken| broken.retry_at <= now) {
            self.heal();
        }
        self.rescue();
        while self.store.is_some() {
            let due = self.has_work(&self.shared.lock(), now);
            if !due || !self.commit_window(now, None) {
                break;
            }
            self.answer_flushes();
        }
        self.flushes.retain(|(_, reply)| !reply.is_closed());
        if let Some(why) = self.broken.as_ref().map(|broken| broken.why.clone()) {
            let (late, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.flushes).into_iter().partition(|(deadline, _)| *deadline <= now);
            self.flushes = rest;
            for (_, reply) in late {
                let _ = reply.send(Err(SpoolError::Late(why.clone())));
            }
        }
        self.show();
    }

    fn answer_flushes(&mut self) {
        let inner = self.shared.lock();
        if inner.ring.is_empty() && inner.events.is_empty() && inner.gaps.is_empty() {
            for (_, reply) in self.flushes.drain(..) {
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Commits one window. `false`: it failed, and everything is back in memory.
    fn commit_window(&mut self, now: Instant, ended: Option<u8>) -> bool {
        let shared = self.shared.clone();
        if let Err(error) = self.move_floor() {
            self.fail(error.trouble(), &error.to_string(), None);
            return false;
        }
        let handed_out = shared.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut window = self.take(now);
        let Some(mut store) = self.store.take() else { return false };
        let next = store.next();
        let mut done = Err(StoreError::NoRoom);
        // The room is estimated before anything is encoded; long texts need more.
        for factor in [1, 4, 16, 64, 256] {
            done = self.make_room(&store, &mut window, (*handed_out, factor), ended).and_then(|()| {
                let floor = window.mark.as_ref().map_or(self.mark.floor, |mark| mark.floor);
                self.write(&mut store, &window, floor)
            });
            if !matches!(done, Err(StoreError::NoRoom)) {
                break;
            }
        }
        drop(handed_out);
        match done {
            Err(StoreError::Unencodable(error)) => {
                // Intake's rules are checked on append: this is a bug, and would fail for ever.
                tracing::error!(%error, "a window cannot be stored; it is dropped and recorded");
                let kept = std::mem::take(&mut window.kept);
                self.put_back(window);
                let mut inner = self.shared.lock();
                for kept in kept {
                    inner.bytes -= kept.bytes;
                    inner.lose(kept.batch.run, kept.batch.seq, kept.batch.end(), GapCause::Overflow);
                }
                self.store = Some(store);
                true
            }
            Ok(written) => {
                self.store = Some(store);
                self.committed(window, &written);
                true
            }
            Err(error) => {
                self.put_back(window);
                drop(store);
                self.fail(error.trouble(), &error.to_string(), Some(next));
                false
            }
        }
    }

    /// Takes the window out of the shared state.
    fn take(&mut self, now: Instant) -> Window {
        let mut window = Window { dead: std::mem::take(&mut self.dead), ..Window::default() };
        let mut inner = self.shared.lock();
        let unsent = inner.settings.keep == Keep::Unsent;
        if inner.due(now) || !self.flushes.is_empty() || inner.closed {
            let (mut readings, mut bytes) = (0, 0);
            while let Some(kept) = inner.ring.front() {
                let n = kept.batch.readings.len();
                if readings > 0 && (readings + n > WINDOW_READINGS || bytes + kept.bytes > WINDOW_BYTES) {
                    break;
                }
                readings += n;
                bytes += kept.bytes;
                let Some(kept) = inner.ring.pop_front() else { break };
                inner.readings -= n;
                let (run, first, next) = (kept.batch.run, kept.batch.seq, kept.batch.end());
                if !(unsent && inner.ledger.settled(run, first, next)) {
                    window.batches.push(kept.batch.clone());
                }
                window.kept.push(kept);
            }
            inner.in_hand = window.kept.first().map(|kept| kept.at);
        }
        window.events = inner.events.drain(..).collect();
        window
    }

    /// Gives up unconfirmed blocks if the cap demands it, records all losses, and adds the books if they are due.
    fn make_room(
        &mut self,
        store: &Store,
        window: &mut Window,
        (handed_out, factor): (i64, u64),
        ended: Option<u8>,
    ) -> Result<(), StoreError> {
        let readings: u64 = window.batches.iter().map(|batch| batch.n()).sum();
        let (reading, batch, block) = ROOM_FOR;
        let bytes =
            if readings == 0 { 0 } else { readings * reading + window.batches.len() as u64 * batch + block };
        let bytes = bytes * factor;
        let floor = self.shared.lock().floor;
        let victims = if bytes == 0 { Victims::default() } else { store.victims(bytes, floor)? };
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        for Heading { spot, header, .. } in victims.unsettled {
            if let Some(header) = header {
                inner.lose(header.run, header.first, header.next, GapCause::Evicted);
            }
            inner.floor = inner.floor.max(spot.number + 1);
        }
        let gaps = std::mem::take(&mut inner.gaps);
        let lost = !gaps.is_empty();
        self.gap_records(&mut inner, gaps, window, handed_out);
        let now = Instant::now();
        let every = if inner.settings.keep == Keep::Unsent { MARK_EVERY } else { BOOKS_EVERY };
        // A row may be taken only when the disk knows that its readings are settled.
        let unknown = victims.reach > self.mark.floor;
        if now >= self.books_due
            || lost
            || unknown
            || window.books
            || !window.dead.is_empty()
            || ended.is_some()
        {
            self.books(&mut inner, window, ended);
            self.books_due = now + every;
        }
        Ok(())
    }

    /// Makes gap records of losses; one that touches the newest grows it, unless a reader has given that out.
    fn gap_records(&mut self, inner: &mut Inner, gaps: Vec<Gap>, window: &mut Window, handed_out: i64) {
        for (of, first, next, cause) in gaps {
            if let Some((id, event)) = self.open_gap.as_mut().filter(|(id, _)| *id > handed_out)
                && let Body::Gap { of: its, next: end, cause: why, .. } = event.body
                && (its, end, why) == (of, first, cause)
            {
                let mut grown = Event::clone(event);
                if let Body::Gap { next: end, .. } = &mut grown.body {
                    *end = next;
                }
                *event = Arc::new(grown);
                window.grown.retain(|(grown, _)| grown != id);
                window.grown.push((*id, event.clone()));
                continue;
            }
            let body = Body::Gap { of, first, next, cause };
            let event = Event { run: inner.run, number: inner.next_event, stamp: (self.shared.now)(), body };
            inner.next_event += 1;
            window.open_gap = Some(window.events.len());
            window.events.push(Arc::new(event));
        }
    }

    fn books(&mut self, inner: &mut Inner, window: &mut Window, ended: Option<u8>) {
        // The rows tell the state after this commit.
        window.books = true;
        window.runs.clear();
        window.sent = inner.sent.iter().copied().collect();
        let own = inner.run;
        let end = window.kept.last().map(|kept| kept.batch.end());
        inner.dirty.insert(own);
        for run in std::mem::take(&mut inner.dirty) {
            let Some(books) = inner.ledger.runs.get(&run) else { continue };
            let mut books = books.clone();
            let mut update = RunUpdate { run, ended: 0, last_wall_us: None, books: books.for_disk() };
            if run == own {
                books.durable = books.durable.max(end.unwrap_or_default());
                let last = window.batches.last().map(|batch| batch.stamp.wall_us);
                update = RunUpdate {
                    run,
                    ended: ended.unwrap_or_default(),
                    last_wall_us: last.or(self.last_wall_us),
                    books: books.for_disk(),
                };
            }
            window.runs.push(update);
        }
        let mut mark = self.mark.clone();
        mark.floor = inner.floor;
        mark.confirmed = inner.ledger.folded_confirmed;
        mark.losses = losses_row(&inner.ledger.folded_losses);
        if mark != self.mark {
            window.mark = Some(mark);
        }
    }

    fn write(&mut self, store: &mut Store, window: &Window, floor: u64) -> Result<Written, StoreError> {
        let nothing = window.batches.is_empty()
            && window.events.is_empty()
            && window.grown.is_empty()
            && window.runs.is_empty()
            && window.dead.is_empty()
            && window.mark.is_none()
            && window.sent.is_empty();
        if nothing {
            return Ok(Written::default());
        }
        let work = Work {
            batches: &window.batches,
            events: &window.events,
            grown: &window.grown,
            sent: &window.sent,
            runs: &window.runs,
            folded: &[],
            mark: window.mark.as_ref(),
            dead: &window.dead,
            floor,
            undo_from: None,
        };
        let written = store.commit(&work)?;
        self.meter.wrote(window.batches.iter().map(|batch| batch.n()).sum(), written.bytes);
        Ok(written)
    }

    /// Books a commit that is on the disk.
    fn committed(&mut self, window: Window, written: &Written) {
        if let Some(mark) = window.mark {
            self.mark = mark;
        }
        if let Some(batch) = window.batches.last() {
            self.last_wall_us = Some(batch.stamp.wall_us);
        }
        if let Some(id) = window.open_gap.and_then(|at| written.event_ids.get(at)) {
            self.open_gap =
                window.open_gap.and_then(|at| window.events.get(at)).map(|event| (*id, event.clone()));
        }
        if let Some(newest) = written.event_ids.last() {
            self.shared.newest_event.store(*newest, Ordering::Release);
        }
        let mut inner = self.shared.lock();
        inner.bytes -= window.kept.iter().map(|kept| kept.bytes).sum::<usize>();
        inner.in_hand = None;
        inner.events_waiting += written.event_ids.len() as u64;
        inner.events_waiting = inner.events_waiting.saturating_sub(written.sent);
        for name in &window.sent {
            inner.sent.remove(name);
        }
        let end = window.kept.last().map(|kept| kept.batch.end());
        let run = inner.run;
        let books = inner.ledger.runs.entry(run).or_default();
        books.durable = books.settled_on(books.durable.max(end.unwrap_or_default()));
        let durable = books.durable;
        drop(inner);
        self.shared.committed.send_modify(|committed| {
            committed.commits += 1;
            committed.next_seq = durable;
        });
    }

    /// A commit failed: its window goes back to the front of the memory ring.
    fn put_back(&mut self, window: Window) {
        let mut inner = self.shared.lock();
        for kept in window.kept.into_iter().rev() {
            inner.readings += kept.batch.readings.len();
            inner.ring.push_front(kept);
        }
        inner.in_hand = None;
        for event in window.events.into_iter().rev() {
            inner.events.push_front(event);
        }
        for (_, event) in window.grown {
            // Written again as a record of its own if its row does not come back: see `heal`.
            if let Body::Gap { of, first, next, cause } = event.body {
                inner.gaps.push((of, first, next, cause));
            }
        }
        inner.dirty.extend(window.runs.iter().map(|update| update.run));
        self.open_gap = None;
        self.dead = window.dead;
        inner.bound();
    }

    /// Drops the connection, and says when it is tried again.
    fn fail(&mut self, trouble: Trouble, why: &str, undo_from: Option<(u64, i64)>) {
        self.store = None;
        let now = Instant::now();
        let (state, words) = match trouble {
            Trouble::Full => ("full", "no space left on the disk: free some, or make the spool smaller"),
            Trouble::ReadOnly => ("read-only", "the state directory cannot be written"),
            Trouble::Disk => ("failing", "the disk fails"),
            Trouble::Damage => ("damaged", "the file is damaged"),
        };
        if trouble == Trouble::Full {
            self.full_until = Some(now + FULL_FOR);
        }
        let before = self.broken.take();
        if before.as_ref().is_none_or(|before| before.state != state) {
            tracing::warn!(error = %why, state, "the spool cannot store; readings stay in memory and are tried again");
        }
        let pause = before.as_ref().map_or(RETRY_FIRST, |before| before.pause);
        // What may have to be undone is what the first failure left: later ones did not get that far.
        let undo_from = before.and_then(|before| before.undo_from).or(undo_from);
        self.broken = Some(Broken {
            state,
            why: format!("{words} ({why})"),
            retry_at: now + if trouble == Trouble::Damage { Duration::ZERO } else { pause },
            pause: (pause * 2).min(RETRY_MAX),
            undo_from,
        });
    }

    /// Opens the file again after trouble.
    fn heal(&mut self) {
        let Some(broken) = self.broken.as_ref() else { return };
        let undo_from = broken.undo_from;
        if broken.state == "damaged" {
            let why = broken.why.clone();
            let run = self.shared.lock().run;
            match open::quarantine(&self.file, run) {
                Ok(to) => self.begin_rescue(&to, why.clone()),
                Err(error) => {
                    self.fail(Trouble::Disk, &error.to_string(), None);
                    return;
                }
            }
            tracing::error!(error = %why, "the spool was damaged: set aside, a fresh one begins");
        }
        let opened = self.reopen(undo_from);
        match opened {
            Ok(()) => {
                tracing::info!(
                    state = self.broken.as_ref().map(|broken| broken.state),
                    "the spool stores again"
                );
                self.broken = None;
            }
            Err(error) => self.fail(error.trouble(), &error.to_string(), undo_from),
        }
    }

    fn reopen(&mut self, undo_from: Option<(u64, i64)>) -> Result<(), StoreError> {
        let (mut store, found) = Store::open(&self.file, self.bytes_max, &open::random_id())?;
        if self.full_until.is_some_and(|until| Instant::now() < until) {
            let (_, count) = store.pages()?;
            store.set_bytes_max((count * super::schema::PAGE_SIZE).min(self.bytes_max))?;
        } else {
            self.full_until = None;
            if !store.empty_log()? {
                return Err(StoreError::Busy);
            }
        }
        if found.mark.id != self.mark.id {
            open::adopt(&self.shared, &mut store, found, self.rescue.is_some())?;
            self.open_gap = None;
        } else if undo_from.is_some() {
            store.commit(&Work { undo_from, ..Work::default() })?;
        }
        self.mark = store.mark()?;
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.store = Some(store);
        Ok(())
    }

    /// Moves the floor over settled blocks.
    fn move_floor(&mut self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let Some(extent) = store.ring() else { return Ok(()) };
        let (mut floor, waiting) = {
            let inner = self.shared.lock();
            (inner.floor, inner.ledger.sums().waiting)
        };
        if waiting == 0 {
            self.shared.lock().floor = extent.newest.number + 1;
            return Ok(());
        }
        if floor > extent.newest.number {
            return Ok(());
        }
        let Some(spot) = ring::locate(store.connection(), floor)? else { return Ok(()) };
        let headings = ring::headings(store.connection(), spot, FLOOR_STEP)?;
        let mut inner = self.shared.lock();
        for heading in headings {
            let open =
                |header: super::block::Header| !inner.ledger.settled(header.run, header.first, header.next);
            if heading.header.is_some_and(open) {
                break;
            }
            floor = heading.spot.number + 1;
        }
        inner.floor = inner.floor.max(floor);
        Ok(())
    }

    fn lose_between_neighbours(&mut self, spot: ring::Spot) {
        let Some(store) = &self.store else { return };
        let around = ring::locate(store.connection(), spot.number.saturating_sub(1))
            .and_then(|from| from.map_or(Ok(Vec::new()), |from| ring::headings(store.connection(), from, 3)));
        let Ok(around) = around else { return };
        let before = around.iter().find(|heading| heading.spot.number + 1 == spot.number);
        let after = around.iter().find(|heading| heading.spot.number == spot.number + 1);
        if let (Some(before), Some(after)) =
            (before.and_then(|heading| heading.header), after.and_then(|heading| heading.header))
            && before.run == after.run
        {
            self.shared.lock().lose(before.run, before.next, after.first, GapCause::Damaged);
        }
    }

    fn dead_letter(&mut self, refused: &[Confirmed], reason: &str) -> Result<(), SpoolError> {
        let at_us = (self.shared.now)().wall_us;
        let Some(store) = &self.store else {
            return Err(SpoolError::Unavailable("the disk fails; it stays in the backlog".to_owned()));
        };
        for one in refused {
            let (name, batch) = match *one {
                Confirmed::Batch { run, seq, n } => {
                    let floor = self.shared.lock().floor;
                    ((run, seq, n), open::find_batch(store, floor, run, seq).unwrap_or_default())
                }
                Confirmed::Event { run, number } => ((run, number, 0), None),
            };
            self.dead.push(DeadLetter { at_us, reason: reason.to_owned(), name, batch });
            let mut inner = self.shared.lock();
            match *one {
                Confirmed::Batch { run, seq, n } => {
                    inner.lose(run, seq, seq.saturating_add(n), GapCause::DeadLetter);
                }
                Confirmed::Event { .. } => inner.confirm(std::slice::from_ref(one)),
            }
        }
        Ok(())
    }

    /// The run's own end record, once everything of it is stored.
    fn end_run(&mut self) {
        self.run_ended = true;
        let stamp = (self.shared.now)();
        let mut inner = self.shared.lock();
        let body = Body::RunEnd {
            ended: inner.run,
            next_seq: inner.durable(),
            clean: true,
            last_wall_us: self.last_wall_us,
        };
        let event = Event { run: inner.run, number: inner.next_event, stamp, body };
        inner.next_event += 1;
        inner.events.push_back(Arc::new(event));
    }

    fn close(&mut self, clean: bool) -> Result<(), SpoolError> {
        let now = Instant::now();
        self.shared.lock().closed = true;
        loop {
            let empty = {
                let inner = self.shared.lock();
                inner.ring.is_empty() && inner.events.is_empty() && inner.gaps.is_empty()
            };
            if empty {
                break;
            }
            if self.store.is_none() {
                self.heal();
            }
            if !self.commit_window(now, None) {
                break;
            }
        }
        if clean && !self.run_ended && self.store.is_some() {
            self.end_run();
            self.commit_window(now, Some(2));
        } else {
            self.books_due = now;
            self.commit_window(now, Some(0));
        }
        self.answer_flushes();
        let result = match (&self.broken, &self.store) {
            (None, Some(store)) => store.empty_log().map(|_| ()).map_err(|error| error.to_string()),
            (broken, _) => Err(broken.as_ref().map_or_else(String::new, |broken| broken.why.clone())),
        };
        self.show();
        self.store = None;
        result.map_err(SpoolError::Unavailable)
    }

    /// Writes the spool's section of the board.
    fn show(&mut self) {
        let state = self.broken.as_ref().map(|broken| (broken.state, broken.why.clone()));
        let length = |path: PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        let bytes = self.store.as_ref().map(|_| length(self.file.clone()) + length(log.into()));
        let view = View { broken: state, bytes, bytes_max: self.bytes_max, oldest_us: self.oldest_us() };
        self.meter.show(&self.shared, view);
    }

    /// Wall clock of the oldest waiting block.
    fn oldest_us(&self) -> Option<i64> {
        let store = self.store.as_ref()?;
        let (floor, waiting) = {
            let inner = self.shared.lock();
            (inner.floor, inner.ledger.sums().waiting)
        };
        if waiting == 0 {
            return None;
        }
        let spot = ring::locate(store.connection(), floor).ok()??;
        ring::headings(store.connection(), spot, 1).ok()?.first()?.header.map(|header| header.wall_min)
    }
}
