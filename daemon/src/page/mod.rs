//! The page for the technician beside the cabinet, and its API: plain files inside the binary, server-sent events,
//! JSON, Prometheus metrics.
//!
//! It reads [`Live`], the [`Board`] and stored history; it changes nothing on the plant, has no queue that a viewer
//! can fill, and takes a bounded number of sockets. On loopback it is plain HTTP; on any other address TLS and an
//! invitation. Every answer carries a strict content security policy, every request must name this gateway.
//!
//! Reading order: [`config`], [`words`] (all text), [`problems`] (is all well), [`events`] (the live stream), `routes`,
//! `guard` and [`gate`] (who gets in), [`access`] and [`invite`], `server` (sockets and limits), `assets`, `past` (trends after
//! a restart).
//!
//! How it fails: an address that cannot be bound is tried again, with a warning on the board; a page without a usable
//! certificate does not listen on the network and says why. Neither stops the daemon.

pub mod access;
mod assets;
mod body;
mod certificate;
pub mod config;
pub mod encode;
mod events;
pub mod gate;
mod guard;
pub mod invite;
pub mod metrics;
mod past;
pub mod problems;
pub mod report;
mod routes;
mod server;
mod stall;
pub mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use config::{CertificateFiles, PageConfig};
pub use invite::{Invitation, InviteError};
pub use problems::{Problem, Severity, Summary, summary};

use crate::live::Live;
use crate::model::Stamp;
use crate::page::access::Access;
use crate::page::gate::Seats;
use crate::page::words::State;
use crate::spool::Spool;
use crate::status::{Board, Status};

/// The status is put into words at most once in this time, whoever asks.
const STATUS_FRESH: Duration = Duration::from_millis(900);

/// Answers of `/api/history` in memory at once; more wait their turn.
const HISTORIES_MAX: usize = 4;

/// Shows the watchdog that a loop turned.
pub type Beat = Box<dyn Fn(std::time::Instant) + Send + Sync>;

/// Where the page looks.
#[derive(Clone)]
pub struct Sources {
    /// Newest readings.
    pub live: Live,
    /// State of everything.
    pub board: Board,
    /// Stored history.
    pub spool: Spool,
    /// The clock.
    pub now: Arc<dyn Fn() -> Stamp + Send + Sync>,
    /// Where a self-signed certificate is kept.
    pub state_directory: PathBuf,
    /// Watches a loop of this name: what it calls in each turn, at least once in ten seconds.
    pub watch: Arc<dyn Fn(&str) -> Beat + Send + Sync>,
}

/// The running page. Cheap to clone.
#[derive(Clone)]
pub struct Page {
    app: Arc<App>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
}

/// What all requests share.
pub(crate) struct App {
    config: PageConfig,
    sources: Sources,
    access: Mutex<Access>,
    seats: Arc<Seats>,
    stop: CancellationToken,
    status: Mutex<Option<(Instant, Arc<str>)>>,
    fingerprint: Mutex<Option<String>>,
    histories: Arc<Semaphore>,
}

/// Starts to listen. The task ends soon after `stop`: open streams end, other answers get two seconds.
pub fn start(config: PageConfig, sources: Sources, stop: CancellationToken) -> (Page, JoinHandle<()>) {
    tokio::spawn(past::run(sources.clone(), stop.clone()));
    let app = app(config, sources, stop);
    let (announce, addresses) = watch::channel(Vec::new());
    let task = tokio::spawn(server::run(Arc::clone(&app), announce));
    (Page { app, addresses }, task)
}

fn app(config: PageConfig, sources: Sources, stop: CancellationToken) -> Arc<App> {
    Arc::new(App {
        config,
        sources,
        access: Mutex::default(),
        seats: Arc::default(),
        stop,
        status: Mutex::default(),
        fingerprint: Mutex::default(),
        histories: Arc::new(Semaphore::new(HISTORIES_MAX)),
    })
}

impl Page {
    /// The addresses on which the page listens by now.
    pub fn addresses(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.addresses.clone()
    }

    /// Makes an invitation for one person, good for 30 minutes.
    pub fn invite(&self) -> Result<Invitation, InviteError> {
        let addresses = self.addresses.borrow().clone();
        let fingerprint = lock(&self.app.fingerprint).clone();
        let invitation = invite::invitation(&addresses, &self.app.config.names, fingerprint)?;
        lock(&self.app.access).invite(&invitation.token, std::time::Instant::now());
        Ok(invitation)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("addresses", &*self.addresses.borrow()).finish_non_exhaustive()
    }
}

impl App {
    /// `{"summary":..., "status":...}`, at most a second old, the same for all who ask.
    fn status(&self) -> Arc<str> {
        let mut cached = lock(&self.status);
        match &*cached {
            Some((made, text)) if made.elapsed() < STATUS_FRESH => Arc::clone(text),
            _ => {
                let status = self.sources.board.snapshot();
                let summary = summary(&status, (self.sources.now)().wall_us);
                let text = json!({ "summary": summary, "status": with_states(&status) }).to_string();
                let text: Arc<str> = Arc::from(&*encode::without_reordering(&text));
                *cached = Some((Instant::now(), Arc::clone(&text)));
                text
            }
        }
    }

    /// The status with the time at which it is sent.
    fn dated(&self, status: &str) -> String {
        let stamp = (self.sources.now)();
        let (now, mono_ms) = (encode::rfc3339(stamp.wall_us), stamp.mono_us / 1000);
        format!("{{\"now\":\"{now}\",\"mono_ms\":{mono_ms},{}", status.get(1..).unwrap_or("}"))
    }
}

/// The status as it is shown: each device with its `state`, and `answering` that does not speak against it.
fn with_states(status: &Status) -> serde_json::Value {
    let mut shown = json!(status);
    for (at, bus) in status.buses.iter().enumerate() {
        for (index, device) in bus.devices.iter().enumerate() {
            let shown = &mut shown["buses"][at]["devices"][index];
            shown["state"] = json!(State::of(bus, device));
            shown["answering"] = json!(bus.answers(device));
        }
    }
    shown
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
