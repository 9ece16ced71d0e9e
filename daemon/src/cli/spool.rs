//! The commands of the spool: `status`, `export`, `resend`. Through the daemon while it runs; else they open the file themselves,
//! which the lock of the state directory allows only then.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::Value;

use super::args::{Export, Place, Resend, Status};
use super::ask::{config, socket};
use super::bar::Bar;
use super::{Exit, Failure, look};
use crate::clock::wall_us;
use crate::config::duration;
use crate::control::Request;
use crate::control::client::{AskError, ask, ask_one};
use crate::control::rows::{self, Row};
use crate::model::{NotARun, RunId};
use crate::spool::offline::{self, Offline};
use crate::spool::{Asked, ExportQuery, Resent, SpoolError};

/// So many devices are named to somebody who asked for one that there is not.
const NAMES_SAID: usize = 20;

/// Where the spool of this configuration is.
pub(super) fn directory(place: &Place) -> Result<PathBuf, Failure> {
    config(place).map(|config| config.spool.directory).ok_or_else(|| {
        let what = "the daemon is not running, and the configuration, which says where the readings are, has faults; \
                    see fieldspool check";
        Failure::new(Exit::Config, what)
    })
}

/// The spool, opened by this process: only where no daemon holds its lock.
fn offline(place: &Place) -> Result<Offline, Failure> {
    Offline::open(&directory(place)?).map_err(|error| unreadable_alone(&error))
}

fn unreadable(error: &SpoolError) -> Failure {
    Failure { what: error.to_string(), exit: error.exit_code() }
}

/// The same, where no daemon runs that would have mended it.
fn unreadable_alone(error: &SpoolError) -> Failure {
    let mut failure = unreadable(error);
    if matches!(error, SpoolError::Damaged { .. }) {
        failure.what.push_str("; start the daemon: it sets the file aside and saves what it can");
    }
    failure
}

/// On standard error, so that what is exported stays clean.
fn say(what: &str) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}

/// `fieldspool spool status`
pub(super) fn status(status: &Status, out: &mut dyn Write) -> Result<Exit, Failure> {
    let spool = match ask_one(&socket(&status.place), &Request::Status {}) {
        Err(AskError::NotRunning) => {
            say("the daemon is not running; reading its file");
            let bytes_max = config(&status.place).and_then(|config| config.spool.bytes_max);
            offline(&status.place)?.status(bytes_max)
        }
        answer => serde_json::from_value::<crate::status::Status>(answer?).map_err(io::Error::from)?.spool,
    };
    if status.json {
        writeln!(out, "{}", serde_json::to_string(&spool).map_err(io::Error::from)?)?;
    } else {
        out.write_all(look::spool(&spool, wall_us()).as_bytes())?;
    }
    Ok(Exit::Ok)
}

/// A time as typed: a date, a date with time, or how long ago.
fn time(text: &str) -> Result<i64, Failure> {
    if let Some(ago) = duration(text) {
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(wall_us().saturating_sub(ago));
    }
    rows::time_from(text)
        .map_err(|what| Failure::new(Exit::Usage, format!("{what}; or how long ago: 30min, 2h, 7d")))
}

/// `fieldspool spool export`
pub(super) fn export(export: &Export, out: &mut dyn Write) -> Result<Exit, Failure> {
    let from_us = export.from.as_deref().map(time).transpose()?;
    let to_us = export.to.as_deref().map(time).transpose()?;
    let device = export.device.clone();
    let request = Request::Export { device: device.clone(), from_us, to_us };
    let mut out = io::BufWriter::new(out);
    rows::header(export.format, &mut out)?;
    let (mut bar, mut count) = (Bar::new(true), 0);
    let mut print = |batch: &[Row]| {
        count += batch.len();
        batch.iter().try_for_each(|row| rows::line(row, export.format, &mut out)).map(|()| count)
    };
    let mut so_far = 0;
    let asked = ask(&socket(&export.place), &request, |item| {
        match item.as_f64() {
            Some(share) => bar.show(share, &format!("{so_far} readings")),
            None => so_far = print(&serde_json::from_value::<Vec<Row>>(item)?)?,
        }
        Ok(())
    });
    match asked {
        Err(AskError::NotRunning) => {
            let mut query = ExportQuery { device: device.clone(), from_us, to_us, ..ExportQuery::default() };
            let mut offline = offline(&export.place)?;
            loop {
                let page = offline.export(&query).map_err(|error| unreadable_alone(&error))?;
                for batch in &page.batches {
                    so_far = print(&rows::rows(batch))?;
                }
                bar.show(page.progress, &format!("{so_far} readings"));
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
        }
        Err(AskError::Output(error)) => return Err(error.into()),
        answer => answer?,
    }
    out.flush()?;
    match device {
        Some(device) if so_far == 0 => nothing_of(&device, &export.place),
        _ => Ok(Exit::Ok),
    }
}

/// The devices that the daemon polls, or, if there is none, those of the configuration that this command finds: it may be another.
fn devices(place: &Place) -> Option<Vec<String>> {
    let running = ask_one(&socket(place), &Request::Status {}).ok();
    if let Some(status) = running.and_then(|it| serde_json::from_value::<crate::status::Status>(it).ok()) {
        let devices = status.buses.into_iter().flat_map(|bus| bus.devices);
        return Some(devices.map(|device| device.name).collect());
    }
    let config = config(place)?;
    let specs = config.buses.iter().flat_map(|bus| &bus.spec.devices);
    Some(specs.map(|spec| spec.name.to_string()).collect())
}

/// Nothing was found of a device: that of one that is configured may be so, another name is a slip.
fn nothing_of(device: &str, place: &Place) -> Result<Exit, Failure> {
    let Some(names) = devices(place) else { return Ok(Exit::Ok) };
    if names.iter().any(|name| name == device) {
        return Ok(Exit::Ok);
    }
    let shown = names.iter().take(NAMES_SAID).cloned().collect::<Vec<_>>().join(", ");
    let known = match names.len() {
        0 => "no device is configured here".to_owned(),
        n if n > NAMES_SAID => format!("configured are {shown} and {} more", n - NAMES_SAID),
        _ => format!("configured are: {shown}"),
    };
    Err(Failure::new(Exit::NoInput, format!("nothing was found of a device {device:?}; {known}")))
}

/// `fieldspool spool resend`
pub(super) fn resend(resend: &Resend, out: &mut dyn Write) -> Result<Exit, Failure> {
    let asked = asked(resend)?;
    let request = match asked {
        Asked::Stretch { run, first, next } => Request::ResendReadings { run: run.to_string(), first, next },
        Asked::Since { wall_us } => Request::ResendSince { since_us: wall_us },
    };
    let (mut bar, mut answer) = (Bar::new(false), Value::Null);
    let online = ask(&socket(&resend.place), &request, |item| {
        match item.as_f64() {
            Some(share) => bar.show(share, "searched"),
            None => answer = item,
        }
        Ok(())
    });
    drop(bar);
    let (resent, running) = match online {
        Err(AskError::NotRunning) => {
            let done = offline::resend(&directory(&resend.place)?, asked);
            (done.map_err(|error| unreadable(&error))?, false)
        }
        asked => {
            asked?;
            (serde_json::from_value::<Resent>(answer).map_err(io::Error::from)?, true)
        }
    };
    out.write_all(look::resent(&resent, &asked, running).as_bytes())?;
    Ok(if resent.readings + resent.already > 0 { Exit::Ok } else { Exit::NoInput })
}

/// What was typed.
fn asked(resend: &Resend) -> Result<Asked, Failure> {
    if let Some(since) = &resend.since {
        return Ok(Asked::Since { wall_us: time(since)? });
    }
    let usage = |what: String| Failure::new(Exit::Usage, what);
    let Some(run) = resend.run.as_deref() else {
        let what = "which readings? Name a run and its readings, as a receiver that misses them does: \
                    fieldspool spool resend 00000017-9f3c2a10 4200-4299; or a time: fieldspool spool resend --since 2h";
        return Err(usage(what.to_owned()));
    };
    let run: RunId = run.parse().map_err(|fault: NotARun| usage(format!("{run:?} is not a run: {fault}")))?;
    let (first, last) = stretch(resend.readings.as_deref().unwrap_or_default()).map_err(usage)?;
    Ok(Asked::Stretch { run, first, next: last.saturating_add(1) })
}

/// `4200-4299`, both included.
fn stretch(text: &str) -> Result<(u64, u64), String> {
    let number = |part: &str| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()));
    match text.split_once('-').map(|(first, last)| (number(first), number(last))) {
        Some((Some(first), Some(last))) if first <= last => Ok((first, last)),
        Some((Some(first), Some(last))) => Err(format!("{first}-{last} ends before it begins")),
        _ => Err(format!(
            "{text:?} is not FIRST-LAST: write the numbers of the first and the last reading, 4200-4299"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_two_numbers_in_order() {
        assert_eq!(stretch("4200-4299"), Ok((4200, 4299)));
        assert_eq!(stretch("7-7"), Ok((7, 7)));
        for text in ["", "7", "-7", "7-", "+1-2", "a-b", "9-7", "1-2-3", "1-99999999999999999999"] {
            assert!(stretch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_a_date_or_how_long_ago() {
        assert_eq!(time("2026-11-20T00:00:00Z").unwrap(), time("2026-11-20").unwrap());
        let (before, then) = (wall_us(), time("2h").unwrap());
        assert!((before - 7_200_000_000..=wall_us() - 7_200_000_000).contains(&then), "{then}");
        let refused = time("yesterday").unwrap_err();
        assert_eq!(refused.exit, 64);
        assert!(refused.what.contains("2h"), "{}", refused.what);
    }
}
