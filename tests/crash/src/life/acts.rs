//! What happens in a life: a step at random, and the way to a ring that is full.

use std::fs;
use std::time::Duration;

use fieldspool::model::event::{Body, GapCause};
use fieldspool::spool::{Confirmed, Cursor, Item, Keep};

use super::{Bench, PATIENCE_US, Planted, is_off};
use crate::book::Verdict;
use crate::disk::{self, Faults};
use crate::plant::{Device, stamp};

impl Bench {
    /// One random step of a life, with the turn that follows.
    pub(super) fn step(&mut self) -> Verdict<()> {
        match self.random.u8(0..100) {
            0..50 => self.append(),
            50..72 => self.send()?,
            72..78 => self.refuse()?,
            78..82 => {
                let body = Body::Device { device: "meter".into(), answering: self.random.bool() };
                let stamp = stamp(self.now_us());
                self.spool().record(body, stamp);
            }
            82..90 => {
                // Long enough for the books.
                for _ in 0..4 {
                    self.turn(3_000_000)?;
                }
            }
            90..96 => return self.stop_and_start(),
            _ => {}
        }
        let us = [0, 50_000, 300_000, 1_000_000, 2_500_000][self.random.usize(0..5)];
        self.turn(us)
    }

    fn append(&mut self) {
        for _ in 0..self.random.u8(1..6) {
            let device = [Device::Meter, Device::Analyser, Device::Scale][self.random.usize(0..3)];
            let (run, now_us) = (self.run(), self.now_us());
            let batch = self.plant.poll(device, run, self.book.next_seq(run), now_us);
            let now = self.now();
            let mut given = batch.clone();
            if self.plan.planted == Planted::WrongValue && self.random.u8(0..16) == 0 {
                given = self.plant.poll(device, run, batch.seq, now_us);
            }
            self.spool().append(given, now);
            self.book.append(batch.clone(), now_us);
            if self.plan.planted == Planted::CountedEarly {
                self.book.count(run, batch.end());
            }
            // The live lane: acknowledged before it is stored.
            if self.random.u8(0..6) == 0 {
                self.confirm(&Confirmed::from(&*batch));
            }
        }
    }

    pub(super) fn confirm(&mut self, what: &Confirmed) {
        let now_us = self.now_us();
        self.spool().confirm(std::slice::from_ref(what));
        self.book.confirm(what, now_us);
    }

    /// What is on the wire is acknowledged, or comes back. If all was stored when it went, nobody gave it up meanwhile.
    fn hear(&mut self) -> Verdict<()> {
        let (wire, arrives) = (std::mem::take(&mut self.wire), self.random.bool());
        let young = self.now_us() < self.sent_us + PATIENCE_US;
        let steady = !is_off() && self.plan.faults.failed_syncs == 0.0 && !self.plan.lies();
        for what in wire {
            let Confirmed::Batch { run, seq, n } = what else { continue };
            let books = self.spool().books_of(run);
            let lost = books.map_or(0, |books| books.lost.within_of(seq, seq + n, GapCause::Evicted));
            if young && steady && lost > 0 {
                return Err(format!("{run} {seq} was evicted on the wire"));
            }
            self.spool().came_back(&[what]);
            if arrives && lost == 0 {
                self.confirm(&what);
            }
        }
        Ok(())
    }

    /// The backlog lane: a span is read, and some of it acknowledged, or put on the wire.
    fn send(&mut self) -> Verdict<()> {
        self.hear()?;
        let from = if self.random.bool() { Cursor::START } else { self.cursor };
        let span = match self.spool().span(from) {
            Ok(Some(span)) => span,
            Ok(None) => return Ok(()),
            Err(_) if is_off() || self.plan.lies() || self.plan.faults.failed_syncs > 0.0 => return Ok(()),
            Err(error) => return Err(format!("what waits cannot be read: {error}")),
        };
        self.cursor = span.next;
        let many = [4, 40, 1000][self.random.usize(0..3)];
        let most = self.random.usize(0..=span.items.len().min(many));
        for item in span.items.iter().take(most) {
            let what = match item {
                // What was received is known, whatever becomes of the record.
                Item::Event(event) => {
                    self.book.receive(event, self.cut_us, self.plan.lies())?;
                    Confirmed::from(&**event)
                }
                Item::Batch(batch) => {
                    if self.random.u8(0..16) == 0 && self.book.stretches(batch.run) < 40 {
                        continue;
                    }
                    Confirmed::from(&**batch)
                }
            };
            if self.plan.planted == Planted::ConfirmedOnSend && self.random.u8(0..8) == 0 {
                self.spool().confirm(&[what]);
                continue;
            }
            self.confirm(&what);
        }
        // The oldest that wait still.
        if self.random.bool() && self.spool().committed().next_seq == self.book.next_seq(self.run()) {
            self.sent_us = self.now_us();
            for item in span.items.iter().take(most + 8) {
                let Item::Batch(batch) = item else { continue };
                let what = Confirmed::from(&**batch);
                if self.spool().sends(&what) {
                    self.wire.push(what);
                }
            }
        }
        Ok(())
    }

    /// The broker refuses some of what waits for good.
    fn refuse(&mut self) -> Verdict<()> {
        // A dead letter comes with a commit, and that may wait.
        self.hear()?;
        let Ok(Some(span)) = self.spool().span(Cursor::START) else { return Ok(()) };
        let batches = span.items.iter().filter_map(|item| match item {
            Item::Batch(batch) => Some(Confirmed::from(&**batch)),
            Item::Event(_) => None,
        });
        let refused: Vec<_> = batches.take(self.random.usize(1..3)).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let now = self.now();
        for one in &refused {
            self.book.refuse(one);
        }
        let done = self.spool().dead_letter(refused, "payload format invalid", now);
        let (run, stored) = (self.run(), self.spool().committed().next_seq);
        self.book.count(run, stored);
        match done {
            Err(error) if !is_off() && self.plan.faults.failed_syncs == 0.0 && !self.plan.lies() => {
                Err(format!("a dead letter is not taken: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// A stop in order; the next life may begin under cuts like any.
    pub(super) fn stop_and_start(&mut self) -> Verdict<()> {
        let now = self.now();
        let run = self.run();
        let spool = self.spool.take().expect("a life runs");
        let closed = spool.close(true, now);
        if is_off() {
            return Ok(());
        }
        if closed.is_ok() {
            // A stop in order stores everything.
            self.book.count(run, self.book.next_seq(run));
        } else if !self.plan.lies() && self.plan.faults.failed_syncs == 0.0 {
            return Err(format!("it does not stop in order: {closed:?}"));
        }
        // Nothing may be forgotten now, but what comes before is as it was.
        self.cut_us = self.now_us();
        self.start()?;
        if is_off() { Ok(()) } else { self.turn(0) }
    }

    /// The end of the schedule: no more cuts, everything is delivered, nothing is left.
    pub(super) fn deliver(&mut self) -> Verdict<()> {
        disk::with(|disk| {
            disk.disarm();
            disk.faults = Faults::default();
        });
        let given = self.given()?;
        self.drain(&given)?;
        self.stop_and_start()?;
        let given = self.given()?;
        let left = given.batches.len();
        if left > 0 && !self.plan.lies() && self.plan.planted == Planted::Nothing {
            return Err(format!("{left} batches wait after everything was delivered"));
        }
        self.tally.stored = self.book.stored();
        Ok(())
    }

    /// Fills the file to its cap, so that the ring wraps: with everything waiting, or all but the newest confirmed.
    pub fn fill(&mut self, waiting: bool, log_bytes: u64) -> Verdict<()> {
        self.settings.commit_every = Duration::ZERO;
        self.settings.keep = Keep::All;
        self.book.forgives_longer = false;
        disk::with(|disk| disk.faults = Faults::default());
        self.open(false)?;
        for round in 0..4000_u32 {
            let log = fs::metadata(self.directory.join("spool.db-wal")).map_or(0, |metadata| metadata.len());
            let full = self.board.read(|status| status.spool.evicted > 0) || (!waiting && round > 150);
            if full && (log >= log_bytes || round > 1500) {
                break;
            }
            for device in [Device::Scale, Device::Scale, Device::Scale, Device::Analyser] {
                let (run, now_us, now) = (self.run(), self.now_us(), self.now());
                let batch = self.plant.poll(device, run, self.book.next_seq(run), now_us);
                self.spool().append(batch.clone(), now);
                self.book.append(batch, now_us);
            }
            self.turn(200_000)?;
            if !waiting && round % 20 == 10 {
                let given = self.given()?;
                for batch in &given.batches {
                    self.confirm(&Confirmed::from(&**batch));
                }
            }
        }
        if log_bytes == 0 {
            self.stop_and_start()?;
        }
        self.cut_us = self.now_us();
        self.judge()
    }
}
