//! Commands that ask the daemon: `status`, `spool status`, `spool export`, `page invite`.
//!
//! If it does not run, `status` says so and how to start it, and the commands of the spool open the file themselves, which the
//! lock of the state directory allows only then.

use std::io::{self, Write};
use std::path::PathBuf;

use super::args::{Export, Place, Status};
use super::{Exit, Failure, look};
use crate::clock::wall_us;
use crate::config::folders::Folders;
use crate::config::{self, Config};
use crate::control::client::{AskError, ask, ask_one};
use crate::control::rows::{self, Row};
use crate::control::{Request, runtime_directory, socket_path};
use crate::spool::offline::Offline;
use crate::spool::{ExportQuery, SpoolError};
use crate::sys::terminal_width;

/// How to start what does not run.
const START: &str =
    "start it with: sudo systemctl start fieldspool (why it stopped: journalctl -u fieldspool -n 20)";

/// The configuration, as far as this user can read it without faults.
pub(super) fn config(place: &Place) -> Option<Config> {
    config::load(&Folders::of(place.config.as_deref())).config
}

/// Where the daemon of this configuration listens.
pub(super) fn socket(place: &Place) -> PathBuf {
    let directory = config(place).map_or_else(runtime_directory, |config| config.runtime_directory);
    socket_path(&directory)
}

/// `fieldspool status`
pub(super) fn status(status: &Status, out: &mut dyn Write) -> Result<Exit, Failure> {
    let answer = match ask_one(&socket(&status.place), &Request::Status {}) {
        Err(AskError::NotRunning) => {
            return Err(Failure::new(Exit::Unavailable, format!("the daemon is not running; {START}")));
        }
        other => other?,
    };
    if status.json {
        writeln!(out, "{answer}")?;
        return Ok(Exit::Ok);
    }
    let board = serde_json::from_value(answer).map_err(io::Error::from)?;
    out.write_all(look::status(&board, wall_us(), terminal_width()).as_bytes())?;
    Ok(Exit::Ok)
}

/// The spool, opened by this process: only where no daemon holds its lock.
fn offline(place: &Place) -> Result<Offline, Failure> {
    let directory = config(place).map(|config| config.spool.directory).ok_or_else(|| {
        let what = "the daemon is not running, and the configuration, which says where the readings are, has faults; \
                    see fieldspool check";
        Failure::new(Exit::Config, what)
    })?;
    Offline::open(&directory).map_err(|error| unreadable(&error))
}

fn unreadable(error: &SpoolError) -> Failure {
    Failure { what: error.to_string(), exit: error.exit_code() }
}

/// `fieldspool spool status`
pub(super) fn spool_status(status: &Status, out: &mut dyn Write) -> Result<Exit, Failure> {
    let spool = match ask_one(&socket(&status.place), &Request::Status {}) {
        Err(AskError::NotRunning) => {
            let _ = writeln!(io::stderr().lock(), "the daemon is not running; reading its file");
            offline(&status.place)?.status()
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

/// `fieldspool spool export`
pub(super) fn spool_export(export: &Export, out: &mut dyn Write) -> Result<Exit, Failure> {
    let time = |text: &Option<String>| {
        let time = text.as_deref().map(rows::time_from).transpose();
        time.map_err(|what| Failure::new(Exit::Usage, what))
    };
    let (from_us, to_us, device) = (time(&export.from)?, time(&export.to)?, export.device.clone());
    let request = Request::Export { device: device.clone(), from_us, to_us };
    let mut out = io::BufWriter::new(out);
    rows::header(export.format, &mut out)?;
    let mut print = |batch: &[Row]| batch.iter().try_for_each(|row| rows::line(row, export.format, &mut out));
    match ask(&socket(&export.place), &request, |batch| print(&serde_json::from_value::<Vec<Row>>(batch)?)) {
        Err(AskError::NotRunning) => {
            let mut query = ExportQuery { device, from_us, to_us, ..ExportQuery::default() };
            let mut offline = offline(&export.place)?;
            loop {
                let page = offline.export(&query).map_err(|error| unreadable(&error))?;
                page.batches.iter().try_for_each(|batch| print(&rows::rows(batch)))?;
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
        }
        Err(AskError::Output(error)) => return Err(error.into()),
        answer => answer?,
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// `fieldspool page invite`
pub(super) fn page_invite(place: &Place, out: &mut dyn Write) -> Result<Exit, Failure> {
    let invitation = ask_one(&socket(place), &Request::PageInvite {})?;
    let links = invitation["links"].as_array().into_iter().flatten().filter_map(|link| link.as_str());
    writeln!(out, "Good for one person and 30 minutes. Open one of these, or scan the code:\n")?;
    for link in links {
        writeln!(out, "  {link}")?;
    }
    writeln!(out, "\n{}", invitation["qr"].as_str().unwrap_or_default())?;
    if let Some(fingerprint) = invitation["fingerprint"].as_str() {
        writeln!(
            out,
            "The browser warns of an unknown certificate once; compare its SHA-256:\n  {fingerprint}"
        )?;
    }
    Ok(Exit::Ok)
}
