//! `fieldspool demo`: the whole road without hardware, on one machine, gone without a trace afterwards.
//!
//! A simulated plant in this process; a broker and the real daemon (`fieldspool run --config ...`) as child
//! processes; fresh certificates and mutual TLS between them. From the wire up it is the code path of production.
//! The broker is the built-in one (cargo feature `local-broker`; it has no stop, hence a process) or an installed
//! mosquitto.
//!
//! Promises: whatever ends the demo (Ctrl-C, SIGTERM, the terminal closed, `--duration`, a child that fails), both
//! children are stopped and waited for and the folder is removed. Killed with -9, its children die with it; the
//! folder that is left is removed by the next demo.

mod broker;
mod certificates;
mod child;
mod folder;
mod keys;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fieldspool_drivers::simulator::Simulation;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use broker::Broker;
use child::Child;
use folder::Folder;
use keys::Key;

/// How long the page may take to come up.
const START_BUDGET: Duration = Duration::from_secs(30);

/// How long the daemon may take to stop by itself; its own stages end within 5 s.
const STOP_BUDGET: Duration = Duration::from_secs(8);

/// `demo`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Port of the page; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub port: u16,
    /// End by itself after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<u64>,
    /// Be the broker of a demo, on this port; started by the demo itself
    #[arg(long, hide = true, value_name = "PORT", requires = "folder")]
    pub as_broker: Option<u16>,
    /// The folder of the demo whose broker this is
    #[arg(long, hide = true, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// The demo could not go on. `Display` says why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The machine refused something: a file, a port, a process.
    #[error("{0}: {1}")]
    System(String, #[source] io::Error),
    /// There is no broker to be had.
    #[error(
        "this build has no broker of its own and no mosquitto is installed: `sudo apt install mosquitto` (it need not \
         run as a service), or build with `--features local-broker`"
    )]
    NoBroker,
    /// A child ended by itself; with the end of what it said.
    #[error("{name} ended unasked ({status}); it said last:\n{log}")]
    Ended {
        /// Which.
        name: &'static str,
        /// How.
        status: String,
        /// Its last lines.
        log: String,
    },
    /// The page did not come up.
    #[error("the page did not come up within {} s; the daemon said last:\n{log}", START_BUDGET.as_secs())]
    NoPage {
        /// The daemon's last lines.
        log: String,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// The simulated plant stopped.
    #[error("the simulated plant stopped: {0}")]
    Plant(String),
}

impl DemoError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |error| Self::System(what.into(), error)
    }
}

/// Runs the demo until it is told to end.
pub fn run(options: &Options) -> Result<(), DemoError> {
    if let (Some(port), Some(folder)) = (options.as_broker, &options.folder) {
        return broker::be(port, folder);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DemoError::system("cannot start"))?;
    runtime.block_on(demonstrate(options))
}

async fn demonstrate(options: &Options) -> Result<(), DemoError> {
    // Signals first: from here on nothing ends the process without the clean-up below.
    let mut signals = Signals::new().map_err(DemoError::system("cannot listen for signals"))?;
    let mut simulation =
        Simulation::start().await.map_err(DemoError::system("cannot start the simulated plant"))?;
    let folder = Folder::create().map_err(DemoError::system("cannot make a folder for the demo"))?;
    certificates::write(&folder.tls())?;
    let broker_port = free_port()?;
    let page_port = if options.port == 0 { free_port()? } else { options.port };
    folder
        .configure(&simulation, broker_port, page_port)
        .map_err(DemoError::system("cannot write the configuration"))?;
    let mut stage = Stage { broker: Broker::new(broker_port, &folder)?, daemon: None, folder };
    let result = stage.play(options, page_port, &mut simulation, &mut signals).await;
    stage.clear().await;
    result
}

/// What must be gone at the end.
struct Stage {
    broker: Broker,
    daemon: Option<Child>,
    folder: Folder,
}

impl Stage {
    async fn play(
        &mut self,
        options: &Options,
        page_port: u16,
        simulation: &mut Simulation,
        signals: &mut Signals,
    ) -> Result<(), DemoError> {
        self.broker.start()?;
        let pid = self.start_daemon()?;
        let page = SocketAddr::from((Ipv4Addr::LOCALHOST, page_port));
        tokio::select! {
            () = signals.asked.any() => return Ok(()),
            up = self.wait_for(page) => up?,
        }
        let guide = self.guide(page, pid);
        say(&guide);
        let deadline = options.duration.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut keys = keys::listen();
        loop {
            tokio::select! {
                () = signals.asked.any() => return Ok(()),
                () = wait_until(deadline) => return Ok(()),
                error = simulation.failed() => return Err(DemoError::Plant(error)),
                _ = signals.child.recv() => self.all_well()?,
                Some(key) = keys.recv() => match key {
                    Key::Quit => return Ok(()),
                    Key::Broker => say(&self.broker.toggle().await?),
                    Key::Crash => say(&self.crash_daemon().await?),
                    Key::Silence(instrument) => say(&keys::silenced(simulation, instrument)),
                    Key::Unknown => say(keys::WORDS),
                },
            }
        }
    }

    /// Starts the daemon; returns its process id.
    fn start_daemon(&mut self) -> Result<u32, DemoError> {
        let program = std::env::current_exe().map_err(DemoError::system("cannot find this program"))?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(self.folder.configuration());
        command.env("STATE_DIRECTORY", self.folder.state()).env("RUNTIME_DIRECTORY", self.folder.runtime());
        let daemon = Child::start("the daemon", command, &self.folder.log("daemon"))?;
        let pid = daemon.id();
        self.daemon = Some(daemon);
        Ok(pid)
    }

    /// The daemon's worst day: killed with -9 in the middle of its work, and started again.
    async fn crash_daemon(&mut self) -> Result<String, DemoError> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(Duration::ZERO).await;
        }
        // Kills that were typed are no crash loop; the fifth would leave the daemon without page and broker.
        let _none = std::fs::remove_file(self.folder.state().join("starts"));
        let pid = self.start_daemon()?;
        Ok(format!(
            "daemon: killed with -9 and started again as process {pid}; what was stored is still there"
        ))
    }

    /// Waits for the page, or for a child that ends.
    async fn wait_for(&mut self, page: SocketAddr) -> Result<(), DemoError> {
        let deadline = Instant::now() + START_BUDGET;
        loop {
            self.all_well()?;
            if tokio::net::TcpStream::connect(page).await.is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DemoError::NoPage { log: folder::tail(&self.folder.log("daemon")) });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn all_well(&mut self) -> Result<(), DemoError> {
        self.broker.check()?;
        self.daemon.as_mut().map_or(Ok(()), Child::check)
    }

    fn guide(&self, page: SocketAddr, daemon: u32) -> String {
        format!(
            "fieldspool demo: a simulated pumping station, the real daemon, {broker} with mutual TLS.\n\n\
             Page           http://{page}/\n\
             Messages       {listen}\n\
             Configuration  {config}  (change it, then: kill -HUP {daemon})\n\
             Status         STATE_DIRECTORY={state} RUNTIME_DIRECTORY={runtime} {program} status\n\
             Log            tail -f {log}\n\n{keys}",
            broker = self.broker.name(),
            listen = self.broker.listen_command(),
            config = self.folder.configuration().join("fieldspool.toml").display(),
            state = self.folder.state().display(),
            runtime = self.folder.runtime().display(),
            program = std::env::current_exe()
                .map_or_else(|_| "fieldspool".into(), |path| path.display().to_string()),
            log = self.folder.log("daemon").display(),
            keys = keys::WORDS,
        )
    }

    /// Stops the daemon first, so that it can say farewell to the broker.
    async fn clear(mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(STOP_BUDGET).await;
        }
        self.broker.stop().await;
        if let Err(error) = self.folder.remove() {
            say(&format!("the demo's folder could not be removed: {error}"));
        }
    }
}

/// What comes from outside: the wish to end, and the children's deaths.
struct Signals {
    asked: Ends,
    child: Signal,
}

/// Everything that ends the demo.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let asked = Ends {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        };
        Ok(Self { asked, child: signal(SignalKind::child())? })
    }
}

impl Ends {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A port that is free now. Somebody may take it before our child does; then the child says so and the demo ends.
fn free_port() -> Result<u16, DemoError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DemoError::system("no free port"))?;
    Ok(listener.local_addr().map_err(DemoError::system("no free port"))?.port())
}

/// To standard output; who closed it does not want to read it.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _nobody_reads = writeln!(out, "{text}").and_then(|()| out.flush());
}
