//! The writer: one thread that closes windows, commits them, and stands up again after trouble with the disk.
//!
//! After any error of a commit the connection is dropped, because a failed fsync must not be tried again and believed:
//! the kernel may have forgotten what it could not write. The file is opened anew, its log is written back and emptied
//! (so that no half-written frame stays in front of later ones), what the failed commit may have left is taken out,
//! and the same readings are written again from memory. Until then they and all that follow stay in the memory ring.

mod audit;
mod board;
mod end;
mod expire;
mod floor;
mod flush;
mod fold;
mod gaps;
mod patience;
mod rescue;
mod resend;
mod room;
mod trouble;
mod window;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::api::Confirmed;
use super::inner::Inner;
use super::meter::Meter;
use super::records::Mark;
use super::rescue::{Rescue, Searched};
use super::ring::Spot;
use super::shared::{Command, Shared};
use super::store::{DeadLetter, Letters, Store, StoreError, Trouble};
use super::{SpoolError, directory, open};
use crate::model::RunId;
use crate::model::event::Event;
use audit::Audit;
pub(super) use flush::Flush;
#[cfg(test)]
pub(in crate::spool) use patience::PATIENCE;
use patience::{Awaited, LOOK_AGAIN};
use resend::Resend;
use room::BOOKS_FIRST;
#[cfg(test)]
pub(in crate::spool) use trouble::{COPY_AGAIN, RESERVE_AGAIN};

/// The board is fresh to this.
const TICK: Duration = Duration::from_secs(1);

/// The first pause between attempts to use a disk that failed; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Commits in one turn, at most.
const COMMITS_A_TURN: usize = 8;

/// Messages that were refused, why, and who waits until they are stored.
type Refusal = (Vec<Confirmed>, String, oneshot::Sender<Result<(), SpoolError>>);

/// What is wrong with the disk.
#[derive(Debug)]
struct Broken {
    /// `full`, `read-only`, `failing`.
    state: &'static str,
    /// Where the file goes before another one begins.
    folder: Option<&'static str>,
    /// In words.
    why: String,
    /// Try again then.
    retry_at: Instant,
    /// The pause after that.
    pause: Duration,
    /// What the failed commit may have left: first block, first record row.
    undo_from: Option<(u64, i64)>,
}

/// What a copy of the small tables shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copied {
    file: Option<(u64, u64)>,
    next_shape: u32,
    open: bool,
}

/// The thread's own state.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: PathBuf,
    bytes_max: u64,
    pub(super) store: Option<Store>,
    broken: Option<Broken>,
    /// The disk had no space: the file does not grow, new blocks take the rows of confirmed ones, and nothing that waits
    /// to be sent is given up.
    full: bool,
    /// There was no room for the reserve: it is tried again then.
    reserve_due: Option<Instant>,
    /// Trouble whose cause may be gone: the file is open again, no commit has succeeded yet.
    proving: Option<Broken>,
    /// The spool's own row as it is on disk.
    mark: Mark,
    books_due: Instant,
    /// When this life began, and the running time before it.
    began: (Instant, u64),
    /// Blocks with a smaller number are too old, and when that was last looked at.
    expired: (u64, Instant),
    /// Since when something too old is left because it is on the wire.
    too_old_and_sent: Option<Instant>,
    /// Old runs are looked at again then.
    fold_due: Instant,
    open_gap: Option<(i64, Arc<Event>)>,
    /// Records that a failed commit may have let grow: the next one does.
    growing: Vec<(i64, Arc<Event>)>,
    /// At most so many gap records wait.
    gaps_waiting: usize,
    last_wall_us: Option<i64>,
    /// What a commit waits for at the cap, until one has succeeded.
    awaited: Option<Awaited>,
    /// The run end is written; nothing is numbered any more.
    run_ended: bool,
    flushes: Vec<Flush>,
    /// What was refused just now. On a full disk it waits for the file to be open again: it may be what keeps others from making room.
    refusals: Vec<Refusal>,
    /// Refused messages, to be booked and stored with the next commits.
    dying: VecDeque<DeadLetter>,
    /// Those that are booked and wait for their commit, because one failed.
    dead: Vec<DeadLetter>,
    /// Dead letters in the file.
    letters_kept: Letters,
    /// Who waits until the dead letters are stored.
    letters: Vec<oneshot::Sender<Result<(), SpoolError>>>,
    resends: VecDeque<Resend>,
    /// Runs whose sent records wait again with the next commit, and how many such there were for the present request.
    again: Vec<RunId>,
    resent_records: u64,
    meter: Meter,
    rescue: Option<Rescue>,
    /// It rests until then.
    rescue_due: Instant,
    /// When it began, wall clock µs.
    damaged_us: i64,
    /// Folders whose outcome is to be committed before they are marked.
    searched: Vec<Searched>,
    /// What a rescue has found out waits for a commit.
    outcome: bool,
    auditing: Option<Audit>,
    /// Damaged blocks whose loss goes to disk with the next commit.
    emptying: Vec<Spot>,
    /// A damaged block was given up: nobody knows what was in it until a walk finds what is missing.
    unread: bool,
    /// The state that the copy shows, and when it is written anew all the same.
    copied: Option<Copied>,
    copy_due: Instant,
    /// The disk has refused parts of the file again and again: since when, and when the last time.
    refused: Option<(Instant, Instant)>,
    /// When the file was last set aside: a disk that damages every file gets a pause.
    set_aside: Option<Instant>,
    /// The file that the store has open: another one may have its name by now.
    identity: Option<(u64, u64)>,
    /// When the present turn began. Inside a turn no clock is asked, so that a turn can be repeated exactly.
    pub(super) now: Instant,
}

impl Writer {
    /// With what opening found; `store` is `None` if the disk cannot be used yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        file: PathBuf,
        bytes_max: u64,
        store: Result<(Store, Mark), StoreError>,
        now: Instant,
    ) -> Self {
        let (store, mark, error) = match store {
            Ok((store, mark)) => (Some(store), mark, None),
            Err(error) => (None, Mark::default(), Some(error)),
        };
        let before = mark.running_s;
        let mut writer = Self {
            shared,
            file,
            bytes_max,
            store,
            broken: None,
            full: false,
            reserve_due: None,
            proving: None,
            mark,
            books_due: now + BOOKS_FIRST,
            began: (now, before),
            expired: (0, now),
            too_old_and_sent: None,
            fold_due: now,
            open_gap: None,
            growing: Vec::new(),
            gaps_waiting: usize::MAX / 2,
            last_wall_us: None,
            awaited: None,
            run_ended: false,
            flushes: Vec::new(),
            refusals: Vec::new(),
            dying: VecDeque::new(),
            dead: Vec::new(),
            letters_kept: Letters::default(),
            letters: Vec::new(),
            resends: VecDeque::new(),
            again: Vec::new(),
            resent_records: 0,
            meter: Meter::new(now),
            rescue: None,
            rescue_due: now,
            damaged_us: 0,
            searched: Vec::new(),
            outcome: false,
            auditing: None,
            emptying: Vec::new(),
            unread: false,
            copied: None,
            copy_due: now,
            refused: None,
            set_aside: None,
            identity: None,
            now,
        };
        if let Some(error) = error {
            writer.fail(error.trouble(), &error.to_string(), None);
        }
        writer
    }

    /// Until it is told to close.
    pub(super) fn run(mut self) {
        self.begin();
        loop {
            let commands = self.wait();
            if !self.step(commands, Instant::now()) {
                return;
            }
        }
    }

    /// Before the first step.
    pub(super) fn begin(&mut self) {
        self.stands_on();
        if self.reserve_due.is_some() && directory::is_full(self.directory()) {
            // A life before this one has felt it.
            self.full = true;
            self.obey_the_cap();
        }
        self.keep_copy(true);
        self.show();
    }

    /// Does what it is told, and takes a turn. `false`: it was told to close, and has.
    pub(super) fn step(&mut self, commands: Vec<Command>, now: Instant) -> bool {
        self.now = now;
        let mut close = None;
        for command in commands {
            match command {
                Command::Close { clean, reply } => close = Some((clean, reply)),
                other => self.obey(other),
            }
        }
        if let Some((clean, reply)) = close {
            let _ = reply.send(self.close(clean));
            return false;
        }
        self.turn(now);
        true
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
            let next = if self.awaits(&inner, now) { now + LOOK_AGAIN } else { next };
            inner.sleeps_until = next.min(until);
            inner = shared.wait(inner, next.min(until));
        }
    }

    /// Something to do in a turn: heal, search, commit.
    fn has_turn(&self, inner: &Inner, now: Instant) -> bool {
        self.busy() || !self.resends.is_empty() || self.has_work(inner, now)
    }

    /// Something to do that does not come from outside.
    pub(super) fn busy(&self) -> bool {
        // The audit waits for the rescue.
        let audits = self.rescue.is_none() && (self.auditing.is_some() || self.unread);
        self.broken.is_some() || self.searches() || audits
    }

    /// Something to commit.
    fn has_work(&self, inner: &Inner, now: Instant) -> bool {
        if self.awaits(inner, now) {
            // What is refused makes room, too.
            return self.dead.is_empty() && !self.dying.is_empty();
        }
        let books = !inner.dirty.is_empty() || !inner.sent.is_empty();
        // Records ride with the next window; without one they go at once.
        let records = !inner.events.is_empty() || !inner.gaps.is_empty();
        inner.due(now)
            || (records && inner.ring.is_empty())
            || !self.flushes.is_empty()
            || !self.dead.is_empty()
            || !self.dying.is_empty()
            || !self.emptying.is_empty()
            || self.undo_from().is_some()
            || (books && now >= self.books_due)
            || self.has_expired(inner, now)
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Ping(reply) => {
                // Who asked may have given up.
                let _ = reply.send(());
            }
            Command::Flush(flush) => self.flushes.push(flush),
            Command::DeadLetter { refused, reason, reply } => self.refusals.push((refused, reason, reply)),
            Command::Resend { asked, progress, reply } => self.begin_resend(asked, progress, reply),
            Command::Damaged { spot, what } => {
                tracing::warn!(block = spot.number, error = %what, "a stored block is damaged");
                // One below the floor was confirmed: it goes by itself, and costs history and nothing that waits.
                if spot.number >= self.shared.lock().floor {
                    self.damaged_in_rescue(&what);
                    self.audit(true);
                }
            }
            Command::NotFound => self.audit(false),
            // A file that was set aside since must not take the fresh one with it.
            Command::FileDamaged { generation, what } => {
                if self.has_open(generation) {
                    self.fail(Trouble::Damage, &what, None);
                }
            }
            Command::Unread { generation, what } => {
                if self.has_open(generation) && self.is_refused_for_good() {
                    self.fail(Trouble::Damage, &what, None);
                }
            }
            Command::Reconfigure => {
                let settings = self.shared.lock().settings.clone();
                self.bytes_max = open::bytes_max(&settings);
                // With another max_age something else is too old.
                self.too_old_and_sent = None;
                self.obey_the_cap();
            }
            Command::EndRun { reply } => {
                if !self.run_ended && self.store.is_some() {
                    // Its end is the last of its records, and they may be more than one commit takes.
                    while !self.shared.lock().events.is_empty() && self.commit_window(self.now, None) {}
                    self.end_run();
                    self.commit_window(self.now, Some(2));
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
        self.take_refusals();
        self.watch_file();
        self.rescue();
        self.resend();
        self.go_on_auditing();
        // A plant that is faster than the disk always has a window due: who asks for something else comes in between.
        for _ in 0..COMMITS_A_TURN {
            self.forget_flushes();
            let due = self.store.is_some() && self.has_work(&self.shared.lock(), now);
            if !due || !self.commit_window(now, None) || !self.shared.lock().commands.is_empty() {
                break;
            }
        }
        self.keep_copy(true);
        self.refuse_late_flushes(now);
        self.show();
        self.show_late();
    }
}
