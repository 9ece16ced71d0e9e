//! What the spool costs and how long it lasts: bytes written per reading, gigabytes a day, hours until full.
//!
//! Bytes written are those that this thread caused the kernel to write to the file system (`write_bytes` of
//! `/proc/thread-self/io`): whole pages of the page cache, log and file together; without the file system's own journal and
//! the card's amplification. Where the kernel does not count them (tmpfs, no task accounting) nothing is shown.

use std::time::{Duration, Instant};

use super::oldest::Oldest;
use super::shared::Shared;
use super::store::Letters;
use crate::status::Salvage;

/// Rates are taken over this span of time.
const SPAN: Duration = Duration::from_secs(60);

/// The system is asked at most so often what it has written, and how long the file is.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Counts and rates of the writer.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    written_at_start: Option<u64>,
    /// Bytes since then, as the system said when it was asked last.
    written: Option<u64>,
    asked_at: Option<Instant>,
    readings: u64,
    block_bytes: u64,
    /// When the present span began, and the counts then.
    since: (Instant, u64, u64),
    /// Stored bytes a second over the last whole span.
    rate: Option<f64>,
    /// When readings were stored last, and how old their oldest was then.
    exposed: (Instant, Duration),
    /// Bytes of file and log, as of the last look.
    bytes: u64,
    /// How long file and log can get on this disk, as far as is known.
    reach: u64,
}

/// What the writer knows of the file.
#[derive(Debug)]
pub(super) struct View {
    /// The state and its words, if it is not well.
    pub(super) broken: Option<(&'static str, String)>,
    /// Bytes of the file and its log, if it was asked.
    pub(super) bytes: Option<u64>,
    /// Bytes that the file system has left, if it was asked and says.
    pub(super) space: Option<u64>,
    /// The cap.
    pub(super) bytes_max: u64,
    /// The oldest waiting reading.
    pub(super) oldest: Oldest,
    /// Dead letters.
    pub(super) letters: Letters,
    /// Damage, and what was saved.
    pub(super) salvage: Option<Salvage>,
}

impl Meter {
    /// Begins to count.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            written_at_start: None,
            written: None,
            asked_at: None,
            readings: 0,
            block_bytes: 0,
            since: (now, 0, 0),
            rate: None,
            exposed: (now, Duration::ZERO),
            bytes: 0,
            reach: u64::MAX,
        }
    }

    /// Readings were stored whose oldest had waited for so long.
    pub(super) fn stored(&mut self, now: Instant, age: Duration) {
        self.exposed = (now, age);
    }

    /// Whether it is time to ask the system for lengths and counts: dearer than all the rest, and never urgent.
    pub(super) fn asks_the_system(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY)
    }

    /// A commit stored so much.
    pub(super) fn wrote(&mut self, readings: u64, bytes: u64) {
        self.readings += readings;
        self.block_bytes += bytes;
    }

    /// Writes the spool's section of the board.
    pub(super) fn show(&mut self, shared: &Shared, view: View) {
        let View { broken, bytes, space, bytes_max, oldest: Oldest { us, unknown }, letters, salvage } = view;
        let now = Instant::now();
        // A disk that others fill is full before the cap is reached.
        self.bytes = bytes.unwrap_or(self.bytes);
        if let Some(space) = space {
            self.reach = self.bytes.saturating_add(space);
        }
        let reach = self.reach.min(bytes_max);
        if self.asks_the_system(now) {
            let written = written_by_this_thread();
            let start = *self.written_at_start.get_or_insert(written.unwrap_or_default());
            self.written =
                written.map(|written| written.saturating_sub(start)).filter(|written| *written > 0);
            self.asked_at = Some(now);
        }
        let written = self.written;
        self.roll(now);
        let (sums, records, numbered, durable, lost_beyond, oldest, unsearched) = {
            let inner = shared.lock();
            let books = inner.ledger.runs.get(&inner.run);
            let durable = inner.durable();
            let lost = books.map_or(0, |books| books.lost.total() - books.lost.below(durable));
            let oldest = inner.in_hand.or(inner.ring.front().map(|kept| kept.at));
            let records = inner.records_waiting();
            (inner.ledger.sums(), records, inner.numbered, durable, lost, oldest, inner.unsearched)
        };
        // The board is looked at between two commits, and shown right after one.
        let (stored_at, age) = self.exposed;
        let lately = age * u32::from(now.saturating_duration_since(stored_at) < EXPOSED_FOR);
        let exposed = oldest.map_or(lately, |oldest| lately.max(now.saturating_duration_since(oldest)));
        let elapsed = now.saturating_duration_since(self.started).as_secs_f64();
        let each = (self.readings > 0).then(|| self.block_bytes as f64 / self.readings as f64);
        let hours = self.rate.filter(|rate| *rate > 0.0 && sums.waiting > 0).zip(each).map(|(rate, each)| {
            let room = reach as f64 - sums.waiting as f64 * each * PAGE_SHARE;
            (room / (rate * PAGE_SHARE) / 3600.0).max(0.0)
        });
        let is_full = broken.as_ref().is_some_and(|(state, _)| *state == "full");
        let hours = if is_full { hours.map(|_| 0.0) } else { hours };
        shared.board.update(|status| {
            let spool = &mut status.spool;
            let (state, error) = broken.map_or(("ok", None), |(state, why)| (state, Some(why)));
            state.clone_into(&mut spool.state);
            spool.error = error;
            spool.numbered = numbered;
            spool.open = numbered.saturating_sub(durable + lost_beyond);
            spool.waiting = sums.waiting;
            spool.records_waiting = records;
            (spool.oldest_us, spool.oldest_unknown) = (us, unknown);
            spool.confirmed = sums.confirmed;
            spool.evicted = sums.losses.evicted;
            spool.expired = sums.losses.expired;
            spool.damaged = sums.losses.damaged + sums.losses.unstored;
            spool.dropped = sums.losses.dropped;
            spool.dead_lettered = sums.losses.dead_lettered;
            (spool.dead_letters, spool.records_refused) = (letters.kept, letters.records);
            spool.dead_letter_reason = letters.newest;
            (spool.salvage, spool.unsearched) = (salvage, unsearched);
            spool.bytes = self.bytes;
            spool.bytes_max = bytes_max;
            spool.hours_until_full = hours;
            spool.bytes_per_reading =
                written.filter(|_| self.readings > 0).map(|written| written as f64 / self.readings as f64);
            spool.gigabytes_per_day =
                written.filter(|_| elapsed >= 10.0).map(|written| written as f64 / elapsed * 86_400.0 / 1e9);
            spool.unstored_seconds = exposed.as_secs_f64();
        });
    }

    fn roll(&mut self, now: Instant) {
        let (since, _, bytes) = self.since;
        let span = now.saturating_duration_since(since);
        if span >= SPAN || (self.rate.is_none() && span >= Duration::from_secs(5)) {
            self.rate = Some((self.block_bytes - bytes) as f64 / span.as_secs_f64());
            self.since = (now, self.readings, self.block_bytes);
        }
    }
}

/// What was exposed before the newest commit counts for so long; readings that come more seldom are stored long before the next.
const EXPOSED_FOR: Duration = Duration::from_secs(5);

/// Pages are not filled to the brim: a byte of block takes this many of the file.
const PAGE_SHARE: f64 = 1.15;

fn written_by_this_thread() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok())
}
