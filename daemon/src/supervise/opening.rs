//! What a start does before anything runs: counts itself, opens the spool, says who this gateway is.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::crash_loop::Starts;
use super::identity::{self, Machine};
use super::{OPENING, notify, unwritten};
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::model::{RunId, Stamp};
use crate::page::words::{self, Said};
use crate::spool::{Opened, Spool, SpoolError, SpoolSettings};
use crate::status::Board;

/// Stamps for parts that write records by themselves: of the one clock, which costs nothing and waits for nobody.
pub(super) fn stamps(clock: Clock) -> impl Fn() -> Stamp + Send + Sync + 'static {
    move || clock.stamp(Instant::now())
}

/// Counts this start, before anything that could crash.
pub(super) fn begin(state: &Path, clock: &Clock) -> Starts {
    let now = clock.stamp(Instant::now());
    let starts = Starts::begin(state, now.boot, since_boot());
    // The spool says what is wrong with the directory.
    let _ = std::fs::create_dir_all(state).and_then(|()| starts.remember());
    starts
}

/// Running time of the machine, suspended or not.
pub(super) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Into::into)
}

/// Opens the spool on a thread of its own, and asks systemd for more time as long as it takes.
pub(super) async fn open(config: &Config, board: &Board, clock: &Clock) -> Result<Opened, SpoolError> {
    let settings: SpoolSettings = config.spool.clone();
    let (board, now) = (board.clone(), stamps(clock.clone()));
    let mut opening = tokio::task::spawn_blocking(move || Spool::open(settings, board, now));
    let (more, every) = OPENING;
    loop {
        if let Ok(opened) = tokio::time::timeout(every, &mut opening).await {
            return opened.unwrap_or(Err(SpoolError::Closed));
        }
        notify::extend_timeout(more);
        notify::status("opening the stored readings");
    }
}

/// What a person must know if the gateway id was used on another machine before; without an uplink that hurts nobody.
pub(super) fn used_elsewhere(config: &Config) -> Option<String> {
    let state = &config.spool.directory;
    config.uplink.as_ref()?;
    let warning = match identity::look(state, &config.gateway, &Machine::read()) {
        Ok(warning) => warning?,
        // A disk that does not let itself be read or written is the spool's to tell.
        Err(error) => {
            let error = format!("{}: {error}", state.join("identity").display());
            tracing::warn!(error, "cannot tell whether this card is a copy");
            return None;
        }
    };
    tracing::error!(error = %warning, "a person must look after this gateway");
    Some(warning)
}

/// Who we are, on the board and in the log.
pub(super) fn introduce(config: &Config, board: &Board, run: RunId, safe_mode: bool, volatile: bool) {
    let mut warnings = Vec::from_iter(used_elsewhere(config));
    if volatile {
        let what = unwritten::VOLATILE;
        tracing::error!(error = what, "a person must look after this gateway");
        warnings.push(what.into());
    }
    if safe_mode {
        let Said(what, remedy) = words::safe_mode();
        tracing::error!(
            error = format!("{what}. {remedy}"),
            "only sampling and storing until the next stop in order"
        );
    }
    if config.is_idle() {
        tracing::info!("nothing is configured, so nothing is polled; see fieldspool check");
    }
    board.update(|status| {
        status.gateway.id = config.gateway.to_string();
        status.gateway.run = run.to_string();
        env!("CARGO_PKG_VERSION").clone_into(&mut status.gateway.version);
        status.gateway.started_us = clock::wall_us();
        status.gateway.idle = config.is_idle();
        status.gateway.safe_mode = safe_mode;
        status.gateway.config_hash.clone_from(&config.hash);
        status.gateway.warnings = warnings;
        status.uplink.configured = config.uplink.is_some();
    });
    tracing::info!(count = config.buses.len(), "started; buses");
}
