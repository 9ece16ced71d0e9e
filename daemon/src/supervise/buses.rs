//! The running buses: each in a slot of the status board, with its commands and its end.
//!
//! A serial bus has a thread of its own with its own runtime, because `tcdrain` and a sick USB adapter block; a TCP
//! bus is a task beside the others. A slot is a place in `Status::buses`, and what polls and intake call a bus by. It stays
//! while its bus runs, whatever a reload does to others; a slot is given to another bus only after the one before has
//! ended and intake has taken everything it brought, so that no sample is read with another device's description.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::describe;
use super::tasks::{Running, Tasks};
use super::watchdog::{Deadlines, Heartbeat};
use crate::config::ConfiguredBus;
use crate::schedule::samples::Samples;
use crate::schedule::{self, Command};
use crate::status::{Board, BusStatus};

/// Questions that may wait for a bus; the next asker is told to come back.
const COMMANDS: usize = 4;
/// A bus thread's stack: polls are shallow. Virtual memory until it is used.
const STACK: usize = 512 * 1024;
/// A poll beats each 10 s until 20 s after its deadline; a serial driver that blocks is reported after this.
const PULSE: Deadlines = Deadlines { turn: Duration::from_secs(60), call: Duration::from_secs(60) };

/// What every bus needs.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) samples: Arc<Samples>,
    pub(super) board: Board,
    pub(super) heartbeat: Heartbeat,
}

/// One bus in its slot.
#[derive(Debug)]
pub(super) struct PlacedBus {
    pub(super) configured: Arc<ConfiguredBus>,
    /// `None` until [`Buses::start`].
    running: Option<(mpsc::Sender<Command>, Running)>,
}

impl PlacedBus {
    /// Where it takes questions.
    pub(super) fn commands(&self) -> Option<&mpsc::Sender<Command>> {
        self.running.as_ref().map(|(commands, _)| commands)
    }
}

/// All of them, by slot.
#[derive(Debug, Default)]
pub(super) struct Buses {
    slots: Vec<Option<PlacedBus>>,
    /// Slots of buses that did not end when told to. What they still bring must find no description, so nobody gets them.
    lost: Vec<usize>,
}

impl Buses {
    /// Gives a bus a free slot and its section of the board. Intake is told what stands in the slots before it starts.
    pub(super) fn place(&mut self, bus: &Arc<ConfiguredBus>, board: &Board) {
        let mut slots = self.slots.iter().enumerate();
        let free = slots.position(|(slot, placed)| placed.is_none() && !self.lost.contains(&slot));
        let slot = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(PlacedBus { configured: Arc::clone(bus), running: None });
        board.update(|status| {
            if status.buses.len() <= slot {
                status.buses.resize_with(slot + 1, BusStatus::default);
            }
            status.buses[slot] = describe::board(bus);
        });
    }

    /// Starts what is placed and does not run yet.
    pub(super) fn start(&mut self, common: &Common, tasks: &mut Tasks) -> io::Result<()> {
        for (slot, placed) in self.slots.iter_mut().enumerate() {
            if let Some(placed) = placed.as_mut().filter(|placed| placed.running.is_none()) {
                placed.running = Some(start(slot, &placed.configured, common, tasks)?);
            }
        }
        Ok(())
    }

    /// Ends one bus; whether it ended in time. Its slot is free then, and its section of the board empty in any case.
    pub(super) async fn end(&mut self, name: &str, board: &Board, within: Duration) -> bool {
        let Some(slot) = self.slot_of(name) else { return true };
        let Some(bus) = self.slots[slot].take() else { return true };
        let in_time = match bus.running {
            Some((_, mut running)) => running.end(within).await,
            None => true,
        };
        if !in_time {
            self.lost.push(slot);
        }
        board.update(|status| {
            if let Some(shown) = status.buses.get_mut(slot) {
                *shown = BusStatus::default();
            }
            while status.buses.last().is_some_and(|last| last.name.is_empty()) {
                status.buses.pop();
            }
        });
        in_time
    }

    /// Ends all, together within a time; whether they all did.
    pub(super) async fn end_all(&mut self, within: Duration) -> bool {
        let mut buses: Vec<Running> =
            self.slots.drain(..).flatten().filter_map(|bus| Some(bus.running?.1)).collect();
        for bus in &buses {
            bus.tell();
        }
        let deadline = Instant::now() + within;
        let mut all = true;
        for bus in &mut buses {
            all &= bus.end(deadline.saturating_duration_since(Instant::now())).await;
        }
        all
    }

    /// What is polled by slot; an empty slot has no devices.
    pub(super) fn by_slot(&self) -> impl Iterator<Item = Option<&ConfiguredBus>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|bus| &*bus.configured))
    }

    /// The bus of this name.
    pub(super) fn get(&self, name: &str) -> Option<&PlacedBus> {
        self.slots.iter().flatten().find(|bus| *bus.configured.spec.name == *name)
    }

    /// New labels and rules for a bus that goes on as it is.
    pub(super) fn describe(&mut self, bus: &Arc<ConfiguredBus>, board: &Board) {
        let Some(slot) = self.slot_of(&bus.spec.name) else { return };
        if let Some(Some(running)) = self.slots.get_mut(slot) {
            running.configured = Arc::clone(bus);
        }
        board.update(|status| {
            let shown = status.buses.get_mut(slot).map(|shown| &mut shown.devices);
            for (shown, info) in shown.into_iter().flatten().zip(&bus.devices) {
                shown.label = info.label.to_string();
            }
        });
    }

    fn slot_of(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|bus| *bus.configured.spec.name == *name))
    }
}

/// Starts one bus, on its own thread or as a task.
fn start(
    slot: usize,
    bus: &ConfiguredBus,
    common: &Common,
    tasks: &mut Tasks,
) -> io::Result<(mpsc::Sender<Command>, Running)> {
    let (commands, obeyed) = mpsc::channel(COMMANDS);
    let stop = CancellationToken::new();
    let name = format!("bus-{}", bus.spec.name);
    let pulse = common.heartbeat.watch(&name, PULSE, Instant::now());
    let around = schedule::Surroundings {
        bus: slot,
        samples: Arc::clone(&common.samples),
        board: common.board.clone(),
        commands: obeyed,
        beat: Box::new(move |now| pulse.beat(now)),
        stop: stop.clone(),
    };
    let spec = Arc::clone(&bus.spec);
    let running = if spec.needs_thread() {
        let ended = on_thread(&name, move |runtime| runtime.block_on(schedule::run(spec, around)))?;
        // A thread that panicked drops its end of the channel: that is an end, too.
        tasks.spawn(&name, stop, ended)
    } else {
        tasks.spawn(&name, stop, schedule::run(spec, around))
    };
    Ok((commands, running))
}

/// Runs something on a named thread with its own runtime; the future ends when the thread is done.
fn on_thread(
    name: &str,
    work: impl FnOnce(&tokio::runtime::Runtime) + Send + 'static,
) -> io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        work(&runtime);
        // Nobody may be waiting for the end.
        let _ = done.send(());
    })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Folders};

    const TWO: &str = "[bus.a.link.modbus-tcp]\nhost = \"127.0.0.1\"\n\
        [bus.a.device.m1]\nunit_id = 1\npoints = { v = { input = 0, type = \"u16\" } }\n";

    #[tokio::test(start_paused = true)]
    async fn the_slot_of_a_bus_that_does_not_end_is_given_to_no_other() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), TWO).unwrap();
        let loaded = config::load(&Folders::given(folder.path()));
        let config = loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.faults));
        let (board, mut buses, mut tasks) = (Board::default(), Buses::default(), Tasks::default());
        buses.place(&config.buses[0], &board);
        let stuck = tasks.spawn("stuck", CancellationToken::new(), std::future::pending::<()>());
        let (commands, _obeyed) = mpsc::channel(1);
        buses.slots[0].as_mut().unwrap().running = Some((commands, stuck));
        assert!(!buses.end("a", &board, Duration::from_secs(2)).await);
        buses.place(&config.buses[0], &board);
        let taken: Vec<bool> = buses.by_slot().map(|bus| bus.is_some()).collect();
        assert_eq!(taken, [false, true], "what the stuck bus still brings has no description");
    }
}
