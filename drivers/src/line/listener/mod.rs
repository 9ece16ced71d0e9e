//! Which line of an instrument counts for which poll. Pure: bytes and time come in, samples go out.
//!
//! A [`Listener`] keeps, for each sentence that its points stand in, the newest line that was believed, and which
//! groups have taken it. A line is taken once by each group, with the stamp of its own arrival, and only while it is
//! younger than the group's period or the instrument's `silent_after`: an old sentence is not a new reading. A sentence
//! that does not come for the longer of the two, and for twice its rhythm, is missing, however much else the
//! instrument says. The rhythm is learned by hearing, as the second longest of the last four intervals: one long interval may
//! be a fault, and must not excuse the next. So what comes each minute is missing in between until it came three times.

mod heard;

use std::time::{Duration, Instant};

use super::fields;
use super::framing::{Piece, Splitter};
use super::patience::{Kind, Patience};
use super::sentence::{Heard, Sentence};
use super::settings::Device;
use crate::bus::{Counters, DeviceSpec};
use crate::point::{Point, Source};
use crate::value::{Cause, Sample};

/// The ears for one instrument.
#[derive(Clone, Debug)]
pub struct Listener {
    device: Device,
    points: Vec<Point>,
    groups: Vec<Wanted>,
    splitter: Splitter,
    sentences: Vec<Sentence>,
    /// Numbers the believed lines.
    heard: u64,
    /// The query under way waits for sentences that are given up.
    trying: bool,
    /// It does so before their turn, on this account.
    early: Option<Kind>,
}

/// What a group needs, and what it has taken.
#[derive(Clone, Debug)]
struct Wanted {
    period: Duration,
    /// (point, index of its sentence)
    points: Vec<(u16, usize)>,
    /// Number of the last line taken, by sentence.
    taken: Vec<u64>,
    /// Since when it waits for the rest of what it has begun to hear.
    waits: Option<Instant>,
}

/// What a group takes from the lines heard.
#[derive(Debug)]
pub struct Taken {
    /// One sample for each point of the group.
    pub samples: Vec<(u16, Sample)>,
    /// First byte of the oldest line taken; `None` if there was none.
    pub began: Option<Instant>,
    /// Bytes of the lines taken.
    pub bytes: usize,
    /// A line of the group was refused.
    pub damaged: bool,
}

impl Listener {
    /// Ears for one instrument of the bus, that listen from `now` on.
    pub fn new(device: &Device, spec: &DeviceSpec, now: Instant) -> Self {
        let mut sentences: Vec<Sentence> = Vec::new();
        let mut sentence_of = |point: &Point| {
            let begins = beginning(device, point).map(str::to_owned);
            sentences.iter().position(|sentence| sentence.begins == begins).unwrap_or_else(|| {
                sentences.push(Sentence::new(begins, now));
                sentences.len() - 1
            })
        };
        let of_point: Vec<usize> = spec.points.iter().map(&mut sentence_of).collect();
        let wanted = |group: &crate::bus::Group| Wanted {
            period: group.period,
            points: group
                .points
                .iter()
                .filter_map(|point| Some((*point, *of_point.get(usize::from(*point))?)))
                .collect(),
            taken: Vec::new(),
            waits: None,
        };
        let mut groups: Vec<Wanted> = spec.groups.iter().map(wanted).collect();
        for group in &mut groups {
            group.taken = vec![0; sentences.len()];
        }
        let splitter = Splitter::new(&device.terminator);
        Self {
            device: device.clone(),
            points: spec.points.clone(),
            groups,
            splitter,
            sentences,
            heard: 0,
            trying: false,
            early: None,
        }
    }

    /// Whether a line that an instrument with those ears sends may count for this one.
    pub fn may_take_lines_of(&self, other: &Self) -> bool {
        fields::begin_alike(&self.beginnings(), &other.beginnings())
    }

    fn beginnings(&self) -> Vec<Option<&str>> {
        self.sentences.iter().map(|sentence| sentence.begins.as_deref()).collect()
    }

    /// Forgets all lines; the next byte may be in the middle of one. After opening, or a pause in listening.
    pub fn forget_within_a_line(&mut self) {
        self.forget();
        self.groups.iter_mut().for_each(|wanted| wanted.waits = None);
        self.splitter.restart_within_a_line();
    }

    /// The port is open since `now`: nothing could be heard before.
    pub fn opened(&mut self, now: Instant) {
        self.forget_within_a_line();
        for sentence in &mut self.sentences {
            sentence.opened(now);
        }
    }

    /// Forgets all lines; the next byte begins one.
    fn forget(&mut self) {
        self.splitter.restart();
        self.sentences.iter_mut().for_each(Sentence::forget);
    }

    /// A query for a group is about to be sent.
    pub fn asks(&mut self, group: usize, patience: &mut Patience, now: Instant) {
        self.forget();
        let indices = self.indices(group);
        for index in &indices {
            if let Some(sentence) = self.sentences.get_mut(*index) {
                sentence.asks(patience, now);
            }
        }
        let given = || indices.iter().filter_map(|index| self.sentences.get(*index));
        let own = given().any(|sentence| sentence.is_due(now));
        let early = given().find_map(|sentence| sentence.is_due_early(patience, now));
        (self.trying, self.early) = (own || early.is_some(), early.filter(|_| !own));
        if self.trying {
            // One wait is one for all.
            for index in indices {
                if let Some(sentence) = self.sentences.get_mut(index) {
                    sentence.tries();
                }
            }
        }
    }

    /// Whether nothing is left to wait for after a query: each sentence of the group has come, or came damaged (nothing
    /// better will come), or is given up, and the instrument has said another.
    pub fn is_answered(&self, group: usize, now: Instant) -> bool {
        let lost = self.has_spoken() && !self.trying;
        self.groups.get(group).is_some_and(|wanted| {
            wanted.points.iter().all(|(_, s)| {
                let given_up = |sentence: &Sentence| sentence.damaged || sentence.given_up && lost;
                self.sentences.get(*s).is_some_and(given_up) || self.fresh(wanted, *s, now).is_some()
            })
        })
    }

    /// The time of a query is over: what the group lacks was waited for in vain, if the instrument said anything.
    pub fn waited(&mut self, group: usize, patience: &mut Patience, now: Instant) {
        let mut awaited = self.indices(group);
        awaited.retain(|index| self.sentences.get(*index).is_some_and(Sentence::is_awaited));
        if !self.has_spoken() || awaited.is_empty() {
            return;
        }
        // One wait is booked once, as that for what is most likely to come.
        let is_heard = |i: &usize| self.sentences.get(*i).is_some_and(|s| s.kind(now) == Kind::Heard);
        let by_hope = if awaited.iter().any(is_heard) { Kind::Heard } else { Kind::Lost };
        let kind = self.early.unwrap_or(by_hope);
        let turn_at = patience.charge(kind, now);
        let turn = self.early.is_none().then_some((turn_at, kind));
        for index in awaited {
            if let Some(sentence) = self.sentences.get_mut(index) {
                let spent = patience.is_spent(sentence.kind(now), now);
                sentence.waited_in_vain(turn, spent, now);
            }
        }
    }

    /// Whether a believed line has come since the last forgetting.
    pub fn has_spoken(&self) -> bool {
        self.sentences.iter().any(|sentence| sentence.newest.is_some())
    }

    /// The sentences of a group, each once.
    fn indices(&self, group: usize) -> Vec<usize> {
        let wanted = |index: &usize| {
            self.groups.get(group).is_some_and(|wanted| wanted.points.iter().any(|(_, s)| s == index))
        };
        (0..self.sentences.len()).filter(wanted).collect()
    }

    /// Takes bytes that arrived by `now`.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, counters: &mut Counters) {
        let mut pieces = Vec::new();
        self.splitter.feed(bytes, now, |piece| pieces.push(piece));
        for piece in pieces {
            match piece {
                Piece::TooLong => {
                    counters.bad_frames += 1;
                    // Whose it was nobody knows.
                    self.sentences.iter_mut().for_each(|sentence| sentence.damaged = true);
                }
                Piece::Line { bytes, began } => self.hear(&bytes, (began, now), counters),
            }
        }
    }

    fn hear(&mut self, line: &[u8], (began, now): (Instant, Instant), counters: &mut Counters) {
        if self.device.query.as_ref().is_some_and(|query| query.trim_ascii() == line.trim_ascii()) {
            counters.echoes += 1;
            return;
        }
        let wanted = |sentence: &Sentence| {
            sentence.begins.as_ref().is_none_or(|begins| fields::begins_with(line, begins))
        };
        if !self.sentences.iter().any(wanted) {
            // Other sentences of the same instrument are no fault of anybody.
            return;
        }
        let Some(body) = self.device.checksum.strip(line) else {
            counters.crc_errors += 1;
            for sentence in self.sentences.iter_mut().filter(|sentence| wanted(sentence)) {
                sentence.damaged = true;
            }
            return;
        };
        counters.answers += 1;
        self.heard += 1;
        for sentence in self.sentences.iter_mut().filter(|sentence| wanted(sentence)) {
            sentence.hear(Heard { body: body.to_vec(), began, number: self.heard }, now);
        }
    }

    /// Whether each sentence of the group has a line that it has not taken and that is young enough. A sentence that
    /// is missing is not waited for.
    pub fn is_complete(&self, group: usize, now: Instant) -> bool {
        self.groups.get(group).is_some_and(|wanted| {
            wanted.points.iter().all(|(_, s)| {
                let missing = self.sentences.get(*s).is_some_and(|sentence| sentence.missing);
                missing || self.fresh(wanted, *s, now).is_some()
            })
        })
    }

    /// From then on, without another line, a sentence of the group is missing. `None`: never.
    pub fn overdue_at(&self, group: usize) -> Option<Instant> {
        let wanted = self.groups.get(group)?;
        let oldest = self.oldest(wanted);
        let sentences = wanted.points.iter().filter_map(|(_, s)| self.sentences.get(*s));
        sentences.filter_map(|sentence| sentence.overdue_at(oldest)).min()
    }

    /// How old a line may be that the group takes.
    fn oldest(&self, wanted: &Wanted) -> Duration {
        wanted.period.max(self.device.silent_after)
    }

    /// Of an instrument that talks by itself: takes note of what is missing by now. Only while it says something: all of
    /// its sentences are missing when it is silent.
    pub fn listened(&mut self, group: usize, now: Instant) {
        let Some(oldest) = self.groups.get(group).map(|wanted| self.oldest(wanted)) else { return };
        for index in self.indices(group) {
            if let Some(sentence) = self.sentences.get_mut(index) {
                // Taken back by hearing it, and by nothing else: another group may wait longer.
                sentence.missing |= sentence.overdue_at(oldest).is_some_and(|at| now >= at);
            }
        }
    }

    /// Calls `say` with each sentence of the group that is missing since the last call (`true`), or that has come again
    /// (`false`).
    pub fn missing(&mut self, group: usize, mut say: impl FnMut(&str, bool)) {
        for index in self.indices(group) {
            let Some(sentence) = self.sentences.get_mut(index) else { continue };
            if let Some(missing) = sentence.edge() {
                say(sentence.begins.as_deref().unwrap_or_default(), missing);
            }
        }
    }

    /// Whether anything of the group has been heard that it has not taken.
    pub fn has_something(&self, group: usize, now: Instant) -> bool {
        self.groups
            .get(group)
            .is_some_and(|wanted| wanted.points.iter().any(|(_, s)| self.fresh(wanted, *s, now).is_some()))
    }

    /// Whether a line of the group was refused since it took the last.
    pub fn is_damaged(&self, group: usize) -> bool {
        let damaged = |s: &usize| self.sentences.get(*s).is_some_and(|sentence| sentence.damaged);
        self.groups.get(group).is_some_and(|wanted| wanted.points.iter().any(|(_, s)| damaged(s)))
    }

    /// Whether part of a line has arrived.
    pub fn is_within_a_line(&self) -> bool {
        self.splitter.is_within_a_line()
    }

    fn fresh(&self, wanted: &Wanted, sentence: usize, now: Instant) -> Option<&Heard> {
        let heard = self.sentences.get(sentence)?.newest.as_ref()?;
        let taken = wanted.taken.get(sentence).copied().unwrap_or_default();
        let oldest = self.oldest(wanted);
        (heard.number > taken && now.saturating_duration_since(heard.began) <= oldest).then_some(heard)
    }

    /// What the group can take now. Points without a line are bad: `missing`, or damaged if their line was.
    pub fn take(&mut self, group: usize, now: Instant, missing: Cause) -> Taken {
        let Some(wanted) = self.groups.get(group) else {
            return Taken { samples: Vec::new(), began: None, bytes: 0, damaged: false };
        };
        let mut began: Option<Instant> = None;
        let mut numbers = wanted.taken.clone();
        let mut samples = Vec::with_capacity(wanted.points.len());
        let damaged = |s: usize| self.sentences.get(s).is_some_and(|sentence| sentence.damaged);
        for (index, sentence) in &wanted.points {
            let sample = match (self.fresh(wanted, *sentence, now), self.points.get(usize::from(*index))) {
                (Some(heard), Some(point)) => {
                    began = Some(began.map_or(heard.began, |oldest| oldest.min(heard.began)));
                    if let Some(number) = numbers.get_mut(*sentence) {
                        *number = heard.number;
                    }
                    self.sample(&heard.body, point)
                }
                _ if missing == Cause::Silent && damaged(*sentence) => Sample::bad(Cause::BadFrame),
                _ => Sample::bad(missing),
            };
            samples.push((*index, sample));
        }
        let newly = |(sentence, number): (usize, &u64)| {
            let heard = self.sentences.get(sentence)?.newest.as_ref()?;
            (wanted.taken.get(sentence) != Some(number)).then_some(heard.body.len())
        };
        let bytes = numbers.iter().enumerate().filter_map(newly).sum();
        if let Some(wanted) = self.groups.get_mut(group) {
            (wanted.taken, wanted.waits) = (numbers, None);
        }
        let damaged = self.is_damaged(group);
        for index in self.indices(group) {
            if let Some(sentence) = self.sentences.get_mut(index) {
                sentence.damaged = false;
            }
        }
        Taken { samples, began, bytes, damaged }
    }

    fn sample(&self, body: &[u8], point: &Point) -> Sample {
        let Source::Line(source) = &point.source else { return Sample::bad(Cause::Unreadable) };
        match fields::extract(body, &self.device, source) {
            Ok(value) => point.scaling.apply(value),
            Err(cause) => Sample::bad(cause),
        }
    }
}

/// What the line of a point begins with; `None` is any line.
pub(super) fn beginning<'a>(device: &'a Device, point: &'a Point) -> Option<&'a str> {
    let own = match &point.source {
        Source::Line(source) => source.sentence.as_deref(),
        Source::Modbus(_) => None,
    };
    own.or(device.select.as_deref())
}

#[cfg(test)]
mod tests;
