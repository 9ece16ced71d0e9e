//! When to poll: one task for each bus, between the drivers and intake.
//!
//! [`due`] decides, this task performs: it asks what is due, lets the [`Bus`] poll it, and hands what came back to
//! [`samples`], the bounded queue to intake. It never waits for anybody but the line: not for intake, not for disk
//! or broker (P7). It also keeps its bus's section of the status board, at most once a second.
//!
//! A task ends when it is told to stop, never by itself; a line that is down is the bus's own business.

pub mod due;
mod gauge;
mod health;
pub mod samples;
mod usable;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldspool_drivers::bus::{Bus, BusSpec, DeviceSpec, GOES_ON_MAX, Outcome, Poll};
use fieldspool_drivers::point::Point;
use fieldspool_drivers::{Cause, Sample};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::status::Board;
use due::{Due, Edge, Next};
use gauge::Gauges;
use samples::{News, Polled, Samples};
use usable::Turn;

/// How often the board is brought up to date: a little less than a second, so that a bus polled each second does it
/// with its poll and not a moment after.
const BOARD_EVERY: Duration = Duration::from_millis(900);

/// What is not on the board this long after it was due is brought there without waiting for the next poll.
const BOARD_LATE: Duration = Duration::from_secs(1);

/// Longest time between two turns while the line works, and between two beats of a poll that takes longer.
const TURN_EVERY: Duration = Duration::from_secs(10);

/// How often missed polls become a record: an overloaded line must not fill the spool with its complaints.
const MISSED_EVERY: Duration = Duration::from_secs(60);

/// What somebody else may ask of a bus. Answered between two polls.
#[derive(Debug)]
pub enum Command {
    /// Read points of a device once, now: `fieldspool read` and commissioning.
    Read {
        /// Index of the device.
        device: usize,
        /// What to read; not necessarily what is polled.
        points: Vec<Point>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Heard>,
    },
}

/// What came of a [`Command::Read`].
#[derive(Debug)]
pub struct Heard {
    /// The samples.
    pub poll: Poll,
    /// Why the line is down, if it is.
    pub down: Option<Arc<str>>,
}

/// What a bus's task needs from the rest.
pub struct Surroundings {
    /// Index of the bus on the status board and in what intake knows.
    pub bus: usize,
    /// Where samples go.
    pub samples: Arc<Samples>,
    /// Its section is `buses[bus]`.
    pub board: Board,
    /// What others ask.
    pub commands: mpsc::Receiver<Command>,
    /// Called in each turn of the loop, and each 10 s of a longer poll: the watchdog's proof of progress.
    pub beat: Box<dyn Fn(Instant) + Send>,
    /// End of the task.
    pub stop: CancellationToken,
}

/// The life of one bus. Runs on the bus's own thread where the line is serial, else on the main runtime.
pub async fn run(spec: Arc<BusSpec>, mut around: Surroundings) {
    let plan = spec.plan();
    let requests = |device, group| {
        let count = plan.iter().filter(|r| r.device == device && r.group == group).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let started = Instant::now();
    let mut due = Due::new(&spec, requests, spec.longest_request(), started);
    let mut gauges = Gauges::new(around.bus, &points(&spec), started);
    let mut bus = Bus::open_lazily(Arc::clone(&spec));
    let (mut board_at, mut polled) = (started, false);
    let mut missed = Missed { counts: vec![0; spec.devices.len()], record_at: started + MISSED_EVERY };
    loop {
        let now = Instant::now();
        (around.beat)(now);
        if now >= board_at {
            (board_at, polled) = (now + BOARD_EVERY, false);
            gauges.show(&bus, &due, &around.board, now);
            missed.count(&mut due, &around);
        }
        if now >= missed.record_at {
            missed.record_at = now + MISSED_EVERY;
            missed.record(&around);
        }
        // A line without a free moment never comes to the wait below, where these are taken too.
        if let Ok(command) = around.commands.try_recv() {
            let Some(()) = obey(&mut bus, &spec, command, &mut around).await else { break };
            continue;
        }
        let wake = match due.next(now) {
            Next::Poll { device, group, deadline } => {
                let strange = gauge::strange(bus.counters());
                let polling = bus.poll(device, group, deadline);
                let Some(mut poll) = beating(&mut around, deadline, polling).await else { break };
                let probed = due.is_silent(device);
                let ended = Instant::now();
                polled = true;
                gauges.polled(device, &poll, gauge::strange(bus.counters()) > strange, ended);
                let edge = due.polled((device, group), &poll.outcome, now, ended);
                say_of_the_unasked(&spec, &around, &due, (device, group), &poll);
                let turn = if due.is_silent(device) {
                    in_vain(&mut poll, probed);
                    None
                } else {
                    gauges.judge(device, &poll, edge == Some(Edge::Answering))
                };
                hand_on(&spec, &mut around, (device, group), poll, edge);
                say(&spec, device, turn);
                // A line that is down fails at once, and polls may follow each other without a pause: let the
                // neighbours on this runtime have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            Next::Wait(until) => until.min(if polled { board_at + BOARD_LATE } else { now + TURN_EVERY }),
        };
        tokio::select! {
            biased;
            () = around.stop.cancelled() => break,
            Some(command) = around.commands.recv() => {
                let Some(()) = obey(&mut bus, &spec, command, &mut around).await else { break };
            }
            () = bus.idle(wake) => {}
        }
    }
    missed.count(&mut due, &around);
    missed.record(&around);
    tracing::debug!(bus = %spec.name, "bus stopped");
}

/// Gives samples and edges to intake, and says edges in the log.
fn hand_on(spec: &BusSpec, around: &mut Surroundings, slot: (usize, usize), poll: Poll, edge: Option<Edge>) {
    let (device, group) = slot;
    let Some(d) = spec.devices.get(device) else { return };
    if let Some(edge) = edge {
        match edge {
            Edge::Answering => tracing::info!(bus = %spec.name, device = %d.name, "device answers"),
            Edge::Silent => tracing::warn!(
                bus = %spec.name, device = %d.name, "device does not answer; probing it with growing pauses"
            ),
        }
        let answering = edge == Edge::Answering;
        around.board.update(|status| {
            let shown = status.buses.get_mut(around.bus).and_then(|b| b.devices.get_mut(device));
            if let Some(shown) = shown {
                shown.answering = Some(answering);
                shown.since_us = Some(crate::clock::wall_us());
            }
        });
        around.samples.push(News::Edge { bus: around.bus, device, answering });
    }
    if !matches!(poll.outcome, Outcome::Held { .. }) {
        around.samples.push(News::Polled(Polled {
            bus: around.bus,
            device,
            group,
            at: poll.at,
            samples: poll.samples,
        }));
    }
}

/// What has no value and was not asked says so. Of a silent device one group is asked, and of the others each point says it on the
/// edge and at its heartbeat, which intake keeps. A group that is held for too long says it until it is asked again.
fn say_of_the_unasked(
    spec: &BusSpec,
    around: &Surroundings,
    due: &Due,
    (device, asked): (usize, usize),
    poll: &Poll,
) {
    if due.is_held_too_long((device, asked), poll.at) {
        say_of_all(spec, around, (device, asked), poll.at, &Sample::bad(Cause::Silent));
    }
    let (Some(d), Some(sample)) = (spec.devices.get(device), unasked(poll)) else { return };
    if due.is_silent(device) {
        for group in (0..d.groups.len()).filter(|group| *group != asked) {
            say_of_all(spec, around, (device, group), poll.at, &sample);
        }
    }
}

/// Each point of a group says the same.
fn say_of_all(
    spec: &BusSpec,
    around: &Surroundings,
    (device, group): (usize, usize),
    at: Instant,
    sample: &Sample,
) {
    let Some(of) = spec.devices.get(device).and_then(|d| d.groups.get(group)) else { return };
    let samples = of.points.iter().map(|point| (*point, sample.clone())).collect();
    around.samples.push(News::Polled(Polled { bus: around.bus, device, group, at, samples }));
}

/// What a poll that brought nothing says of points that were not asked. Damage is the business of those that were: the others
/// are silent, and intake says it at the heartbeat, not at each probe.
fn unasked(poll: &Poll) -> Option<Sample> {
    match poll.outcome {
        Outcome::Damaged => Some(Sample::bad(Cause::Silent)),
        _ => poll.samples.first().map(|(_, sample)| sample.clone()),
    }
}

/// A device that was silent before it was `probed` is silent also where that came back damaged: if each probe said damage of the points
/// that it asked, and silence of the others, each would make a reading of all.
fn in_vain(poll: &mut Poll, probed: bool) {
    if probed && poll.outcome == Outcome::Damaged {
        poll.samples.iter_mut().for_each(|(_, sample)| *sample = Sample::bad(Cause::Silent));
    }
}

/// How many points are polled of each device.
fn points(spec: &BusSpec) -> Vec<usize> {
    let polled = |device: &DeviceSpec| {
        let mut points: Vec<u16> = device.groups.iter().flat_map(|group| group.points.clone()).collect();
        points.sort_unstable();
        points.dedup();
        points.len()
    };
    spec.devices.iter().map(polled).collect()
}

/// That a device answers does not mean that its points have values.
fn say(spec: &BusSpec, device: usize, turn: Option<Turn>) {
    let (Some(turn), Some(d)) = (turn, spec.devices.get(device)) else { return };
    match turn {
        Turn::Unusable(unusable, points, why) => tracing::warn!(
            bus = %spec.name, device = %d.name, unusable, points, %why,
            "device answers, but points of it have no usable value: compare its configuration with its manual"
        ),
        Turn::Usable => {
            tracing::info!(bus = %spec.name, device = %d.name, "all points of the device have usable values again");
        }
    }
}

/// Polls that were due and not made: on the board at once, in a record now and then.
struct Missed {
    /// Of each device, since the last record.
    counts: Vec<u64>,
    record_at: Instant,
}

impl Missed {
    fn count(&mut self, due: &mut Due, around: &Surroundings) {
        for (device, count) in self.counts.iter_mut().enumerate() {
            let polls = due.take_missed(device);
            if polls == 0 {
                continue;
            }
            *count += polls;
            around.board.update(|status| {
                if let Some(d) = status.buses.get_mut(around.bus).and_then(|b| b.devices.get_mut(device)) {
                    d.missed += polls;
                }
            });
        }
    }

    fn record(&mut self, around: &Surroundings) {
        for (device, count) in self.counts.iter_mut().enumerate() {
            let polls = std::mem::take(count);
            if polls > 0 {
                around.samples.push(News::Missed { bus: around.bus, device, polls });
            }
        }
    }
}

/// Reads or polls, and beats meanwhile: many requests with long time-outs may take longer than the watchdog waits. What takes longer
/// than it may is stuck, and beats no more. `None`: the bus is to stop.
async fn beating<T>(
    around: &mut Surroundings,
    deadline: Instant,
    work: impl Future<Output = T>,
) -> Option<T> {
    let ends = tokio::time::Instant::from_std(deadline + GOES_ON_MAX);
    let Surroundings { beat, stop, .. } = around;
    // The beat may be sent to another thread, and not be shared: it is moved in.
    let beats = async move {
        while tokio::time::Instant::now() < ends {
            tokio::time::sleep(TURN_EVERY).await;
            beat(Instant::now());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        done = work => Some(done),
        () = beats => None,
    }
}

/// `None`: the bus is to stop.
async fn obey(bus: &mut Bus, spec: &BusSpec, command: Command, around: &mut Surroundings) -> Option<()> {
    let Command::Read { device, points, reply } = command;
    let deadline = Instant::now() + spec.longest_request() * 2;
    let poll = beating(around, deadline, bus.read(device, &points, deadline)).await?;
    let down = bus.counters().last_error.clone().filter(|_| poll.outcome == Outcome::LinkDown);
    // The asker may have given up meanwhile; nothing is lost by that.
    let _ = reply.send(Heard { poll, down });
    Some(())
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
