//! `fieldspool read`: one device, once. Through the daemon where it runs, because a line has one owner; else this
//! process opens the line itself.

use std::io::{self, Write};
use std::time::Instant;

use fieldspool_drivers::bus::Bus;

use super::args::Read;
use super::{Exit, Failure, ask, look};
use crate::control::client::{AskError, ask as ask_daemon};
use crate::control::probe::{self, Target};
use crate::control::{PointNow, Request};
use crate::sys::terminal_width;

/// Prints what came. Exit 69 if the device gave no value at all.
pub(super) fn read(read: &Read, out: &mut dyn Write) -> Result<Exit, Failure> {
    let request = Request::Read {
        bus: read.bus.clone(),
        device: read.device.clone(),
        point: read.point.clone(),
        all_types: read.all_types,
    };
    let (mut points, mut why) = (Vec::<PointNow>::new(), None);
    let asked = ask_daemon(&ask::socket(&read.place), &request, |item| {
        match item["why"].as_str() {
            Some(down) => why = Some(down.to_owned()),
            None => points.push(serde_json::from_value(item)?),
        }
        Ok(())
    });
    match asked {
        Err(AskError::NotRunning) => (points, why) = directly(read)?,
        other => other?,
    }
    if let Some(why) = why.filter(|_| points.iter().all(|point| point.value.is_none())) {
        let _ = writeln!(io::stderr().lock(), "fieldspool: {why}");
    }
    let width = terminal_width();
    let text = if read.all_types { look::all_types(&points, width) } else { look::points(&points, width) };
    out.write_all(text.as_bytes())?;
    Ok(exit(&points))
}

/// A device that only refuses, or says of each point that it has no value, gave none.
fn exit(points: &[PointNow]) -> Exit {
    if points.iter().any(|point| point.value.is_some()) { Exit::Ok } else { Exit::Unavailable }
}

/// Over a line that this process opens: the points, and what is wrong with the line.
fn directly(read: &Read) -> Result<(Vec<PointNow>, Option<String>), Failure> {
    let config = ask::config(&read.place).ok_or_else(|| {
        Failure::new(
            Exit::Config,
            "the configuration has faults or cannot be read as this user; see fieldspool check",
        )
    })?;
    let not_found = |what: String| Failure::new(Exit::NoInput, what);
    let configured = probe::find_bus(&config, &read.bus).map_err(not_found)?;
    let target = Target::find(configured, &read.device, read.point.as_deref()).map_err(not_found)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut points = Vec::new();
    let error = runtime.block_on(async {
        let mut bus = Bus::open_lazily(configured.spec.clone());
        for round in target.rounds(read.all_types) {
            let deadline = Instant::now() + configured.spec.link.timeout() * 4;
            let poll = bus.read(target.device, &round, deadline).await;
            points.extend(target.say(&round, &poll));
        }
        bus.counters().last_error.clone()
    });
    Ok((points, error.map(|error| error.to_string())))
}
