//! A simulated plant for `fieldspool demo` and for tests: values that move as in a plant, served over the same wires
//! as real instruments: Modbus RTU and lines of text on pseudo-terminals, Modbus TCP on a loopback port.
//!
//! It reads a clock only to know how long it runs. Each instrument can be silenced, as if its cable were cut.

mod meters;
mod modbus;
mod plant;
mod pty;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use modbus::{Registers, Table, Units};
pub use plant::{Feeder, Plant, Values};
pub use pty::Pty;

use crate::serial_port::PortSettings;

/// Speed of the Modbus RTU line, 8N1. A pty has none; the simulated meters answer as slowly as they would at it.
pub const RTU_SPEED: u32 = 19_200;

/// The instruments, in the order of their numbers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// SDM630 energy meter of the whole plant: RTU, unit 1.
    Incomer,
    /// SDM630 energy meter of the compressor: RTU, unit 2.
    Compressor,
    /// Tank transmitter: RTU, unit 3.
    Tank,
    /// Controller of the pump station: TCP, unit 1.
    PumpStation,
    /// Weather station that talks by itself: a line of text each second.
    WeatherStation,
    /// Scale that answers `S`.
    Scale,
}

impl Instrument {
    /// All, by number.
    pub const ALL: [Self; 6] =
        [Self::Incomer, Self::Compressor, Self::Tank, Self::PumpStation, Self::WeatherStation, Self::Scale];
}

/// A running plant. Dropping it cuts all cables.
#[derive(Debug)]
pub struct Simulation {
    silent: Arc<[AtomicBool; 6]>,
    /// Path of the Modbus RTU line.
    pub rtu: PathBuf,
    /// Path of the weather station's line.
    pub weather: PathBuf,
    /// Path of the scale's line.
    pub scale: PathBuf,
    /// Address of the Modbus TCP server.
    pub tcp: SocketAddr,
    tasks: JoinSet<io::Result<()>>,
}

impl Simulation {
    /// Opens the lines and begins to serve them, on the runtime this is called in.
    pub async fn start() -> io::Result<Self> {
        let begin = Instant::now();
        let now = move || Plant.at(begin.elapsed());
        let silent: Arc<[AtomicBool; 6]> = Arc::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (rtu, weather, scale) = (Pty::open()?, Pty::open()?, Pty::open()?);
        let mut simulation = Self {
            rtu: rtu.path().to_owned(),
            weather: weather.path().to_owned(),
            scale: scale.path().to_owned(),
            tcp: listener.local_addr()?,
            silent: silent.clone(),
            tasks: JoinSet::new(),
        };
        let units = |silent: Arc<[AtomicBool; 6]>,
                     map: fn(u8, &Values) -> Option<(Instrument, Registers)>| {
            let units: Units = Arc::new(move |unit| {
                let (instrument, registers) = map(unit, &now())?;
                (!is_silent(&silent, instrument)).then_some(registers)
            });
            units
        };
        let tasks = &mut simulation.tasks;
        let character_time = PortSettings { speed: RTU_SPEED, ..PortSettings::new("") }.character_time();
        tasks.spawn(modbus::serve_rtu(rtu, units(silent.clone(), rtu_unit), character_time));
        tasks.spawn(modbus::serve_tcp(listener, units(silent.clone(), tcp_unit)));
        tasks.spawn(speak(weather, silent.clone(), now));
        tasks.spawn(weigh(scale, silent, now));
        Ok(simulation)
    }

    /// Waits until a wire of the plant fails, which it should never do; returns why. Cancel-safe.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error.to_string(),
            _ => "a simulated instrument stopped".to_owned(),
        }
    }

    /// Silences an instrument, or lets it answer again; returns whether it is silent now.
    pub fn toggle(&self, instrument: Instrument) -> bool {
        self.silent.get(instrument as usize).is_some_and(|silent| !silent.fetch_xor(true, Ordering::Relaxed))
    }
}

fn is_silent(silent: &[AtomicBool; 6], instrument: Instrument) -> bool {
    silent.get(instrument as usize).is_some_and(|silent| silent.load(Ordering::Relaxed))
}

fn rtu_unit(unit: u8, values: &Values) -> Option<(Instrument, Registers)> {
    Some(match unit {
        1 => (Instrument::Incomer, meters::sdm630(&values.incomer)),
        2 => (Instrument::Compressor, meters::sdm630(&values.compressor)),
        3 => (Instrument::Tank, meters::tank(values)),
        _ => return None,
    })
}

fn tcp_unit(unit: u8, values: &Values) -> Option<(Instrument, Registers)> {
    (unit == 1).then(|| (Instrument::PumpStation, meters::pump_station(values)))
}

/// The weather station: speaks each second, whether anybody listens or not.
async fn speak(pty: Pty, silent: Arc<[AtomicBool; 6]>, now: impl Fn() -> Values) -> io::Result<()> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        if !is_silent(&silent, Instrument::WeatherStation) {
            pty.write(&meters::weather(&now()))?;
        }
    }
}

/// The scale: answers each line that begins with S.
async fn weigh(pty: Pty, silent: Arc<[AtomicBool; 6]>, now: impl Fn() -> Values) -> io::Result<()> {
    let mut bytes = [0; 64];
    loop {
        let read = pty.read(&mut bytes).await?;
        let asked = bytes.get(..read).is_some_and(|query| query.starts_with(b"S"));
        if asked && !is_silent(&silent, Instrument::Scale) {
            tokio::time::sleep(Duration::from_millis(40)).await;
            pty.write(&meters::scale(&now()))?;
        }
    }
}

#[cfg(test)]
mod tests;
