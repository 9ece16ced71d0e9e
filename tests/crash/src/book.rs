//! The ledger outside: what was numbered, counted as stored, confirmed and given up, and the judgement of what a reopened spool
//! gives (oracle D.1). It is the memory of the receiver too: a record once received is known for ever.
//!
//! Of every batch that was counted as stored exactly one holds after a cut: it waits, it was confirmed, or a gap record
//! says that it was lost. What waits is what was numbered, in order, once, with equal content. A confirmed batch may
//! wait again if its confirmation was younger than [`FORGIVEN_US`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fieldspool::model::event::{Body, Event, GapCause};
use fieldspool::model::{Batch, RunId};
use fieldspool::spool::Confirmed;
use fieldspool::spool::ledger::RunBooks;
use fieldspool::status::SpoolStatus;

/// Confirmations younger than this at a cut may be forgotten: 10 s by design, from the commit of a reading that was confirmed before
/// it, and the longest step before that commit and between two turns.
pub const FORGIVEN_US: u64 = 10_000_000 + 2 * LONGEST_STEP_US;

/// The schedule takes a turn at least this often.
pub const LONGEST_STEP_US: u64 = 3_000_000;

/// With `keep = "unsent"` the disk learns of confirmations once in 60 s; after a failed sync when it is back.
pub const FORGIVEN_LONGER_US: u64 = 60_000_000 + 2 * LONGEST_STEP_US;

/// One batch.
#[derive(Clone, Debug)]
struct Known {
    batch: Arc<Batch>,
    appended_us: u64,
    confirmed_us: Option<u64>,
    refused: bool,
    lost: Option<GapCause>,
}

/// One life.
#[derive(Clone, Debug, Default)]
struct Run {
    batches: Vec<Known>,
    numbered: u64,
    /// Readings below it were counted as stored, or as settled.
    counted: u64,
    /// What its end record says.
    end: Option<u64>,
}

/// What the receiver knows of a record.
#[derive(Clone, Debug)]
struct Heard {
    event: Arc<Event>,
    confirmed_us: Option<u64>,
}

/// What a reopened spool gives.
#[derive(Debug, Default)]
pub struct Given {
    /// What waits, in order.
    pub batches: Vec<Arc<Batch>>,
    /// Records that wait, in order.
    pub events: Vec<Arc<Event>>,
    /// The board's figures.
    pub status: SpoolStatus,
}

/// What a cut cost, on a disk that lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Readings counted as stored and told as lost by a gap record with cause damage.
    pub told: u64,
    /// ... that lie behind the end that their run's record states.
    pub beyond_end: u64,
    /// ... that the books call lost, and the board counts; the page with their record is one that the card has taken back.
    pub booked: u64,
    /// ... of runs of which neither the file nor the copy beside it knows anything.
    pub forgotten: u64,
    /// ... of which nothing is said, and that have none of these reasons.
    pub silent: u64,
    /// Corruption records.
    pub corruptions: u64,
}

impl Losses {
    /// Of two.
    pub fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.beyond_end += other.beyond_end;
        self.booked += other.booked;
        self.forgotten += other.forgotten;
        self.silent += other.silent;
        self.corruptions += other.corruptions;
    }

    /// Readings of which no record tells.
    pub fn untold(&self) -> u64 {
        self.booked + self.forgotten + self.silent
    }
}

impl std::fmt::Display for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { told, beyond_end, booked, forgotten, silent, .. } = self;
        if told + beyond_end + self.untold() == 0 {
            return f.write_str("0");
        }
        write!(f, "{told} told by gap records, {beyond_end} behind the end that their run states")?;
        write!(
            f,
            ", {booked} in the books without a record, {forgotten} of runs forgotten by file and copy"
        )?;
        write!(f, ", {silent} not told")
    }
}

/// The ledger.
#[derive(Clone, Debug, Default)]
pub struct Book {
    runs: BTreeMap<RunId, Run>,
    heard: BTreeMap<(RunId, u64), Heard>,
    /// [`FORGIVEN_LONGER_US`] in place of [`FORGIVEN_US`].
    pub forgives_longer: bool,
}

/// Why a spool is not believed.
pub type Verdict<T> = Result<T, String>;

macro_rules! demand {
    ($holds:expr, $($words:tt)*) => { if !$holds { return Err(format!($($words)*)); } };
}

impl Book {
    /// A life begins. Its name has never been used, and sorts behind those that have stored anything.
    pub fn begin(&mut self, run: RunId) -> Verdict<()> {
        demand!(!self.runs.contains_key(&run), "run {run} comes twice");
        let last = self.runs.iter().rev().find(|(_, known)| known.counted > 0).map(|(last, _)| *last);
        demand!(last.is_none_or(|last| last < run), "run {run} after {last:?}: not a new name");
        self.runs.insert(run, Run::default());
        Ok(())
    }

    /// The next number of a life.
    pub fn next_seq(&self, run: RunId) -> u64 {
        self.runs.get(&run).map_or(0, |run| run.numbered)
    }

    /// A batch was handed to the spool.
    pub fn append(&mut self, batch: Arc<Batch>, now_us: u64) {
        let run = self.runs.entry(batch.run).or_default();
        run.numbered = batch.end();
        let known = Known { batch, appended_us: now_us, confirmed_us: None, refused: false, lost: None };
        run.batches.push(known);
    }

    /// The spool says how far the disk is.
    pub fn count(&mut self, run: RunId, next_seq: u64) {
        let run = self.runs.entry(run).or_default();
        run.counted = run.counted.max(next_seq);
    }

    /// After a turn everything older than a window is counted as stored (P2); for a disk that works.
    pub fn in_time(&self, run: RunId, now_us: u64, window_us: u64) -> Verdict<()> {
        let Some(run) = self.runs.get(&run) else { return Ok(()) };
        let late = run.batches.iter().rev().take_while(|known| known.batch.end() > run.counted);
        let late = late.filter(|known| known.confirmed_us.is_none()).last();
        let Some(waits) = late.map(|known| now_us - known.appended_us) else { return Ok(()) };
        demand!(waits < window_us, "a reading is not stored after {waits} µs");
        Ok(())
    }

    /// A PUBACK came.
    pub fn confirm(&mut self, what: &Confirmed, now_us: u64) {
        match *what {
            Confirmed::Batch { run, seq, .. } => {
                if let Some(known) = self.known(run, seq) {
                    known.confirmed_us.get_or_insert(now_us);
                }
            }
            Confirmed::Event { run, number } => {
                if let Some(heard) = self.heard.get_mut(&(run, number)) {
                    heard.confirmed_us.get_or_insert(now_us);
                }
            }
        }
    }

    /// The broker refused it for good.
    pub fn refuse(&mut self, what: &Confirmed) {
        if let Confirmed::Batch { run, seq, .. } = *what
            && let Some(known) = self.known(run, seq)
        {
            known.refused = true;
        }
    }

    fn known(&mut self, run: RunId, seq: u64) -> Option<&mut Known> {
        let batches = &mut self.runs.get_mut(&run)?.batches;
        let at = batches.binary_search_by_key(&seq, |known| known.batch.seq).ok()?;
        batches.get_mut(at)
    }

    /// Stretches of confirmed batches of a run: the disk keeps 64.
    pub fn stretches(&self, run: RunId) -> usize {
        let Some(run) = self.runs.get(&run) else { return 0 };
        let settled = |known: &Known| known.confirmed_us.is_some() || known.lost.is_some() || known.refused;
        let edges = run.batches.windows(2).filter(|pair| settled(&pair[0]) != settled(&pair[1]));
        edges.count() / 2 + 1
    }

    /// Judges what was found after a cut at `cut_us`, in the life of `run`. Gives the readings that come a second time.
    pub fn judge(&mut self, given: &Given, run: RunId, cut_us: u64) -> Verdict<u64> {
        self.hear(given, cut_us, false)?;
        for (ended, known) in &self.runs {
            demand!(
                *ended == run || known.end.is_some() || known.counted == 0,
                "run {ended} has no end record"
            );
        }
        let repeats = self.waiting(given, cut_us, false)?;
        let (silent, twice) = self.missing(given, run);
        demand!(twice == 0, "{twice} batches are given twice");
        demand!(
            silent.is_empty(),
            "stored and lost: {} of run and number {:?}",
            silent.len(),
            &silent[..silent.len().min(5)]
        );
        self.balance(given, run)?;
        let state = &given.status.state;
        demand!(state == "ok", "the spool is {state}: {:?}", given.status.error);
        Ok(repeats)
    }

    /// As [`Book::judge`], on a disk that lies: wrong content is as bad as ever, losses are counted and written off.
    /// `books` are the spool's own, and `folded` says of a run without any that all of it is settled.
    pub fn assess(
        &mut self,
        given: &Given,
        (run, cut_us): (RunId, u64),
        (books, folded): (impl Fn(RunId) -> Option<RunBooks>, impl Fn(RunId) -> bool),
    ) -> Verdict<(u64, Losses)> {
        let mut losses = self.hear(given, cut_us, true)?;
        let repeats = self.waiting(given, cut_us, true)?;
        let (silent, _) = self.missing(given, run);
        for (run, seq) in silent {
            let end = self.runs.get(&run).and_then(|run| run.end);
            let counted = self.runs.get(&run).map_or(0, |run| run.counted);
            if let Some(known) = self.known(run, seq) {
                known.lost = Some(GapCause::Unstored);
                let n = known.batch.n();
                let class = match books(run) {
                    _ if end.is_some_and(|end| seq >= end) && seq < counted => &mut losses.beyond_end,
                    None if !folded(run) => &mut losses.forgotten,
                    Some(books) if books.lost.within(seq, seq + n) == n => &mut losses.booked,
                    _ => &mut losses.silent,
                };
                *class += n;
            }
        }
        Ok((repeats, losses))
    }

    /// Takes the records that wait, and demands those that were heard of and not confirmed.
    fn hear(&mut self, given: &Given, cut_us: u64, lies: bool) -> Verdict<Losses> {
        let mut losses = Losses::default();
        let mut names = BTreeSet::new();
        for event in &given.events {
            let name = (event.run, event.number);
            // Salvage may give a record twice, as it may a batch.
            let new = names.insert(name);
            demand!(lies || new, "record {name:?} is given twice");
            let lost = self.receive(event, cut_us, lies)?;
            if let Body::Gap { cause: GapCause::Damaged | GapCause::Unstored | GapCause::Overflow, .. } =
                event.body
            {
                losses.told += lost;
            }
            losses.corruptions += u64::from(matches!(event.body, Body::Corruption { .. }));
        }
        for (name, heard) in &mut self.heard {
            if heard.confirmed_us.is_none() && !names.contains(name) {
                demand!(lies, "record {name:?} has gone unconfirmed: {:?}", heard.event.body);
                heard.confirmed_us = Some(cut_us);
            }
        }
        Ok(losses)
    }

    /// A record arrives; `cut_us`: the last cut. Gives how many readings it tells as lost.
    pub fn receive(&mut self, event: &Arc<Event>, cut_us: u64, lies: bool) -> Verdict<u64> {
        let name = (event.run, event.number);
        let forgiven = self.forgiven();
        match self.heard.get_mut(&name) {
            None => drop(self.heard.insert(name, Heard { event: event.clone(), confirmed_us: None })),
            Some(heard) => {
                demand!(heard.event == *event, "record {name:?} has changed: {:?}, {event:?}", heard.event);
                if let Some(at) = heard.confirmed_us.take() {
                    let age = cut_us.saturating_sub(at);
                    demand!(lies || age <= forgiven, "record {name:?} comes again after {age} µs");
                }
                return Ok(0);
            }
        }
        match event.body {
            Body::RunEnd { ended, next_seq, .. } => self.end(ended, next_seq, lies).map(|()| 0),
            Body::Gap { of, first, next, cause } => self.gap((of, first, next), cause, lies),
            Body::Corruption { ref found, .. } if !lies => Err(format!("the file is damaged: {found}")),
            _ => Ok(0),
        }
    }

    /// Readings that were counted as stored, over all lives.
    pub fn stored(&self) -> u64 {
        self.runs.values().map(|run| run.counted).sum()
    }

    fn end(&mut self, ended: RunId, next_seq: u64, lies: bool) -> Verdict<()> {
        let run = self.runs.entry(ended).or_default();
        demand!(next_seq <= run.numbered, "run {ended} ends at {next_seq}, numbered {}", run.numbered);
        demand!(
            lies || run.end.is_none_or(|end| end == next_seq),
            "run {ended} ends at {:?} and {next_seq}",
            run.end
        );
        run.end = Some(run.end.map_or(next_seq, |end| end.max(next_seq)));
        Ok(())
    }

    fn gap(&mut self, (of, first, next): (RunId, u64, u64), cause: GapCause, lies: bool) -> Verdict<u64> {
        let run = self.runs.entry(of).or_default();
        demand!(
            lies || matches!(cause, GapCause::Evicted | GapCause::DeadLetter),
            "{of} {first}..{next} lost: {cause:?}"
        );
        let mut lost = 0;
        for known in
            run.batches.iter_mut().filter(|known| known.batch.seq < next && known.batch.end() > first)
        {
            demand!(
                known.batch.seq >= first && known.batch.end() <= next,
                "half of batch {of} {} is lost",
                known.batch.seq
            );
            demand!(
                cause != GapCause::DeadLetter || known.refused,
                "{of} {} was not refused",
                known.batch.seq
            );
            demand!(lies || known.lost.is_none(), "{of} {} is lost twice", known.batch.seq);
            lost += if known.lost.is_none() && known.confirmed_us.is_none() { known.batch.n() } else { 0 };
            known.lost = known.lost.or(Some(cause));
        }
        Ok(lost)
    }

    fn forgiven(&self) -> u64 {
        if self.forgives_longer { FORGIVEN_LONGER_US } else { FORGIVEN_US }
    }

    /// Looks at all that waits; gives the readings that come a second time.
    fn waiting(&mut self, given: &Given, cut_us: u64, lies: bool) -> Verdict<u64> {
        let (mut repeats, mut last) = (0, None);
        let forgiven = self.forgiven();
        for batch in &given.batches {
            let name = (batch.run, batch.seq);
            demand!(lies || last.is_none_or(|last| last < name), "{name:?} comes after {last:?}");
            last = Some(name);
            let end = self.runs.get(&batch.run).and_then(|run| run.end);
            let Some(known) = self.known(batch.run, batch.seq) else {
                return Err(format!("{name:?} was never numbered"));
            };
            demand!(*known.batch == **batch, "{name:?} has another content: {batch:?} for {:?}", known.batch);
            demand!(lies || known.lost.is_none(), "{name:?} waits and was told as lost: {:?}", known.lost);
            demand!(
                lies || end.is_none_or(|end| batch.seq < end),
                "{name:?} waits behind its run's end {end:?}"
            );
            if let Some(at) = known.confirmed_us.take() {
                repeats += batch.n();
                let age = cut_us.saturating_sub(at);
                demand!(lies || age <= forgiven, "{name:?} comes again {age} µs after its confirmation");
            }
        }
        Ok(repeats)
    }

    /// What was counted as stored and neither waits nor was confirmed or given up; and how many batches come twice, which
    /// only salvage may do.
    fn missing(&mut self, given: &Given, now: RunId) -> (Vec<(RunId, u64)>, usize) {
        let waits: BTreeSet<_> = given.batches.iter().map(|batch| (batch.run, batch.seq)).collect();
        let twice = given.batches.len() - waits.len();
        let mut silent = Vec::new();
        for (run, known) in &mut self.runs {
            let stored = known.counted.max(known.end.unwrap_or_default());
            // What was not counted, and is not there, was in the window when the power went.
            let ended = *run != now;
            known.batches.retain(|one| {
                let name = (*run, one.batch.seq);
                !(ended && one.batch.seq >= stored && one.confirmed_us.is_none() && !waits.contains(&name))
            });
            let settled = |one: &Known| one.confirmed_us.is_some() || one.lost.is_some();
            let open = known.batches.iter().filter(|one| one.batch.seq < stored && !settled(one));
            silent.extend(open.map(|one| (*run, one.batch.seq)).filter(|name| !waits.contains(name)));
        }
        (silent, twice)
    }

    /// numbered = open + waiting + confirmed + dead-lettered + evicted + damaged, by the board and by this ledger.
    fn balance(&self, given: &Given, now: RunId) -> Verdict<()> {
        let status = &given.status;
        let (mut durable, mut evicted, mut dead) = (0, 0, 0);
        for (run, known) in &self.runs {
            let end = if *run == now { known.counted } else { known.end.unwrap_or_default() };
            durable += end;
            for one in known.batches.iter().filter(|one| one.batch.seq < end) {
                evicted += if one.lost == Some(GapCause::Evicted) { one.batch.n() } else { 0 };
                dead += if one.lost == Some(GapCause::DeadLetter) { one.batch.n() } else { 0 };
            }
        }
        let waiting: u64 = given.batches.iter().map(|batch| batch.n()).sum();
        demand!(status.waiting == waiting, "the board says {} wait, {waiting} do", status.waiting);
        demand!(
            status.evicted == evicted,
            "the board says {} evicted, gap records {evicted}",
            status.evicted
        );
        demand!(
            status.dead_lettered == dead,
            "the board says {} dead letters, {dead} are",
            status.dead_lettered
        );
        demand!(
            status.damaged + status.dropped == 0,
            "{} damaged, {} dropped",
            status.damaged,
            status.dropped
        );
        let settled = status.confirmed + status.evicted + status.dead_lettered;
        demand!(
            status.waiting + settled == durable,
            "{durable} are durable, the board accounts for {}: {status:?}",
            status.waiting + settled
        );
        Ok(())
    }
}
