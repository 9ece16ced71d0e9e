//! The running gateway: everything that [`Gateway::start`] wires together, and its staged stop.
//!
//! ```text
//! buses ─samples→ intake ─┬→ spool  ←span, confirm─ uplink
//!                         ├→ uplink (live lane)
//!                         └→ live   ←watch─ page
//! control socket → desk → buses, spool, page, board        all → board → status line, page, status topic
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::buses::{Buses, Common};
use super::crash_loop::{self, Starts};
use super::desk::Desk;
use super::opening::{begin, introduce, open, stamps};
use super::stop::{Stage, Stopping};
use super::tasks::{Running, Tasks};
use super::unwritten::Unwritten;
use super::watchdog::{self, Deadlines, Heartbeat, Pulse};
use super::{RunError, describe};
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::control;
use crate::intake::{self, Intake};
use crate::live::Live;
use crate::log::Tail;
use crate::model::RunId;
use crate::model::event::Body;
use crate::page::{self, Page};
use crate::schedule::samples::{CAPACITY, Samples};
use crate::spool::{Spool, SpoolError};
use crate::status::{Board, UplinkStatus};
use crate::uplink::{self, Uplink};

/// Commands to intake: descriptions and records of reloads.
const INTAKE_COMMANDS: usize = 16;
/// The loops of the main runtime turn at least once in ten seconds, and no step of theirs takes half a minute.
const TURN_PULSE: Deadlines = Deadlines { turn: Duration::from_secs(30), call: Duration::from_secs(30) };

/// A commit that fails is a turn; a disk that hangs is reported after a minute, and not killed for ten.
const SPOOL_PULSE: Deadlines = Deadlines { turn: Duration::from_secs(60), call: Duration::from_secs(600) };

/// Everything that runs.
pub(super) struct Gateway {
    pub(super) config: Config,
    pub(super) place: Option<PathBuf>,
    pub(super) safe_mode: bool,
    pub(super) common: Common,
    clock: Clock,
    pub(super) live: Live,
    pub(super) spool: Spool,
    pub(super) run: RunId,
    pub(super) tasks: Tasks,
    pub(super) buses: Buses,
    pub(super) intake: mpsc::Sender<intake::task::Command>,
    intake_running: Running,
    pub(super) uplink: Option<(Uplink, Running)>,
    /// What the uplinks of this run have done.
    so_far: Arc<uplink::SoFar>,
    pub(super) page: Option<Running>,
    pub(super) desk: Arc<Desk>,
    pub(super) aside: CancellationToken,
    starts: Starts,
    /// The supervisor's own.
    pub(super) pulse: Pulse,
}

impl Common {
    /// Watches one more loop of the main runtime; what it calls whenever it turns.
    fn beat(&self, name: &str) -> page::Beat {
        let pulse = self.heartbeat.watch(name, TURN_PULSE, Instant::now());
        Box::new(move |now| pulse.beat(now))
    }
}

impl Gateway {
    /// Opens the spool and starts everything. The order matters: what takes is there before what gives.
    pub(super) async fn start(config: Config, place: Option<PathBuf>, tail: Tail) -> Result<Self, RunError> {
        let board = Board::default();
        let clock = Clock::new(config.trust_rtc);
        let starts = begin(&config.spool.directory, &clock);
        let safe_mode = starts.looping();
        let opened = match open(&config, &board, &clock).await {
            Ok(opened) => opened,
            Err(error) => {
                // Nothing more can be done about a file that does not let itself be written.
                let _ = starts.not_ours(&error);
                return Err(error.into());
            }
        };
        let (spool, run) = (opened.spool, opened.run);
        introduce(&config, &board, run, safe_mode, opened.volatile);

        let live = Live::new();
        let heartbeat = Heartbeat::new(Instant::now());
        let samples = Arc::new(Samples::new(CAPACITY));
        let common = Common { samples, board, heartbeat };
        let mut tasks = Tasks::default();
        let aside = CancellationToken::new();
        if let Some(left) = Unwritten::after_start(&config, run, &starts) {
            tasks.spawn("unwritten", aside.clone(), left.keep_trying(common.board.clone(), aside.clone()));
        }

        let (intake, intake_running) =
            start_intake(&config, &common, (&spool, run), (clock.clone(), &live), &mut tasks);

        let desk = Arc::new(Desk::new(common.board.clone(), spool.clone()));
        watch_spool(&spool, &common.heartbeat, &aside, &mut tasks);
        let looking_after =
            watchdog::keep(common.heartbeat.clone(), common.board.clone(), tail, aside.clone());
        tasks.spawn("watchdog", aside.clone(), looking_after);
        let pulse = common.heartbeat.watch("supervisor", TURN_PULSE, Instant::now());
        let mut gateway = Self {
            config,
            place,
            safe_mode,
            common,
            clock,
            live,
            spool,
            run,
            tasks,
            intake,
            intake_running,
            desk,
            aside,
            starts,
            pulse,
            buses: Buses::default(),
            uplink: None,
            so_far: Arc::default(),
            page: None,
        };
        gateway.listen_to_the_command_line();
        gateway.start_uplink().await;
        gateway.start_page();
        for bus in &gateway.config.buses {
            gateway.buses.place(bus, &gateway.common.board);
        }
        gateway.describe_all().await;
        gateway.buses.start(&gateway.common, &mut gateway.tasks)?;
        gateway.desk.describe(&gateway.config, &gateway.buses);
        gateway.record(Body::Config { hash: gateway.config.hash.clone(), refused: None }).await;
        Ok(gateway)
    }

    /// A link or an address came: whatever the uplink waits for may be there.
    pub(super) fn network_came_up(&self) {
        let Some((uplink, _)) = &self.uplink else { return };
        if !self.common.board.read(|status| status.uplink.connected) {
            tracing::info!("the network came up; trying the broker at once");
        }
        uplink.kick();
    }

    /// At every turn: a life that has lasted is no part of a crash loop.
    pub(super) fn lasts(&mut self, since_boot: Duration) {
        if let Some(file) = self.starts.lasted(since_boot) {
            // A disk that stalls must not hold the runtime; what is not removed now costs a later start at most its uplink.
            drop(tokio::task::spawn_blocking(move || crash_loop::forget(&file)));
        }
    }

    /// Waits for a task that ends unasked, and names it.
    pub(super) async fn part_ended(&mut self) -> String {
        self.tasks.unasked().await
    }

    /// Tells every part what the devices are now. Buses that ended have handed over everything before this.
    pub(super) async fn describe_all(&self) {
        let gateway = &self.config.gateway;
        let by_slot = self.buses.by_slot();
        let devices = by_slot.map(|bus| bus.map(|bus| describe::intake(gateway, bus)).unwrap_or_default());
        // Intake ends only with the process; then nobody needs the description.
        let _ = self.intake.send(intake::task::Command::Describe(devices.collect())).await;
        self.live.describe(describe::viewers(&self.config));
        if let Some((uplink, _)) = &self.uplink {
            uplink.meta(describe::meta(&self.config));
        }
        self.desk.describe(&self.config, &self.buses);
    }

    pub(super) async fn record(&self, body: Body) {
        let _ = self.intake.send(intake::task::Command::Record(body)).await;
    }

    pub(super) async fn start_uplink(&mut self) {
        let Some(config) = self.config.uplink.clone() else {
            self.common.board.update(|status| status.uplink = UplinkStatus::default());
            return;
        };
        if self.safe_mode {
            // To whom it would connect; that it is off, and why, follows from the mode.
            self.common.board.update(|status| {
                status.uplink.configured = true;
                status.uplink.broker = config.broker.to_string();
            });
            return;
        }
        let stop = CancellationToken::new();
        let around = uplink::Surroundings {
            gateway: Arc::clone(&self.config.gateway),
            run: self.run,
            spool: self.spool.clone(),
            board: self.common.board.clone(),
            so_far: Arc::clone(&self.so_far),
            wall_us: clock::wall_us,
            stop: stop.clone(),
            // It ends by itself before its stage gives up on it; a quarter of the stage was the last word's.
            stop_within: Stage::Uplink.budget() / 10 * 7,
            beat: self.common.beat("uplink"),
        };
        let (uplink, task) = uplink::start(config, around);
        uplink.meta(describe::meta(&self.config));
        let _ = self.intake.send(intake::task::Command::Uplink(Some(uplink.clone()))).await;
        self.uplink = Some((uplink, self.tasks.spawn("uplink", stop, task)));
    }

    pub(super) fn start_page(&mut self) {
        let Some(config) = self.config.page.clone().filter(|_| !self.safe_mode) else { return };
        let sources = page::Sources {
            live: self.live.clone(),
            board: self.common.board.clone(),
            spool: self.spool.clone(),
            now: Arc::new(stamps(self.clock.clone())),
            state_directory: self.config.spool.directory.clone(),
            watch: {
                let common = self.common.clone();
                Arc::new(move |name: &str| common.beat(name))
            },
        };
        let stop = CancellationToken::new();
        let (page, task): (Page, _) = page::start(config, sources, stop.clone());
        self.desk.page(Some(page));
        self.page = Some(self.tasks.spawn("page", stop, task));
    }

    /// Without the socket the gateway works; only the command line cannot ask it.
    fn listen_to_the_command_line(&mut self) {
        let path = control::socket_path(&self.config.runtime_directory);
        // systemd has made it; by hand it may be missing.
        let made = std::fs::create_dir_all(&self.config.runtime_directory);
        match made.and_then(|()| control::server::listen(&path)) {
            Ok(listener) => {
                let beat = self.common.beat("control");
                let serving =
                    control::server::serve(listener, Arc::clone(&self.desk), beat, self.aside.clone());
                self.tasks.spawn("control", self.aside.clone(), serving);
            }
            Err(error) => {
                tracing::warn!(%error, "no control socket: fieldspool status and read cannot ask this daemon");
                let warning =
                    format!("{} cannot be made ({error}): the command line cannot ask", path.display());
                self.common.board.update(|status| status.gateway.warnings.push(warning));
            }
        }
    }

    /// Writes the run end and gives a live connection the time to carry it, so that a receiver need not wait for the
    /// next start to know that this run is complete. Without a connection it waits in the spool like everything else.
    async fn say_last_word(&self) {
        self.spool.end_run().await;
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while self.common.board.read(|status| status.uplink.connected) && self.spool.records_wait() {
            look.tick().await;
        }
    }

    /// The staged stop. `asked`: by a signal, so that the next start is no part of a crash loop.
    pub(super) async fn stop(mut self, asked: bool) {
        let mut stopping = Stopping::begin();
        self.aside.cancel();
        if let Some(page) = &self.page {
            page.tell();
        }
        stopping.stage(Stage::Polls, self.buses.end_all(Stage::Polls.budget())).await;
        stopping.stage(Stage::Intake, self.intake_running.end(Stage::Intake.budget())).await;
        let deadline = Instant::now() + Stage::Commit.budget();
        let flush = async { self.spool.flush(deadline).await.inspect_err(log_disk).is_ok() };
        stopping.stage(Stage::Commit, flush).await;
        if stopping.all_is_stored() {
            let _ = timeout(Stage::Uplink.budget() / 4, self.say_last_word()).await;
        }
        if let Some((_, running)) = &mut self.uplink {
            stopping.stage(Stage::Uplink, running.end(Stage::Uplink.budget() / 4 * 3)).await;
        }
        let clean = stopping.all_is_stored();
        let close = async { self.spool.close(clean).await.inspect_err(log_disk).is_ok() };
        stopping.stage(Stage::Close, close).await;
        if asked && let Err(error) = self.starts.stopped_in_order() {
            tracing::warn!(%error, "cannot forget the starts counted against a crash loop");
        }
        let _ = std::fs::remove_file(control::socket_path(&self.config.runtime_directory));
        stopping.say();
    }
}

/// Starts intake; without an uplink at first.
fn start_intake(
    config: &Config,
    common: &Common,
    (spool, run): (&Spool, RunId),
    (clock, live): (Clock, &Live),
    tasks: &mut Tasks,
) -> (mpsc::Sender<intake::task::Command>, Running) {
    let (intake, commands) = mpsc::channel(INTAKE_COMMANDS);
    let stop = CancellationToken::new();
    let around = intake::task::Surroundings {
        samples: Arc::clone(&common.samples),
        spool: spool.clone(),
        uplink: None,
        live: live.clone(),
        board: common.board.clone(),
        commands,
        store_first: config.spool.commit_every.is_zero(),
        beat: common.beat("intake"),
        stop: stop.clone(),
    };
    let running = tasks.spawn("intake", stop, intake::task::run(Intake::new(run), clock, around));
    (intake, running)
}

/// Asks both threads of the spool whether they turn.
fn watch_spool(spool: &Spool, heartbeat: &Heartbeat, aside: &CancellationToken, tasks: &mut Tasks) {
    let now = Instant::now();
    let (writer, reader) = (spool.clone(), spool.clone());
    let pulse = heartbeat.watch("spool-writer", SPOOL_PULSE, now);
    let asking = move || {
        let writer = writer.clone();
        async move { writer.ping().await }
    };
    tasks.spawn("spool-ping", aside.clone(), watchdog::ping(asking, pulse, aside.clone()));
    let pulse = heartbeat.watch("spool-reader", SPOOL_PULSE, now);
    let asking = move || {
        let reader = reader.clone();
        async move { reader.ping_reader().await }
    };
    tasks.spawn("reader-ping", aside.clone(), watchdog::ping(asking, pulse, aside.clone()));
}

fn log_disk(error: &SpoolError) {
    tracing::error!(%error, "the spool could not store everything before the stop");
}
