//! Commands that only the daemon can answer: `status`, `page invite`. If it does not run, they say so and how to start it.

use std::io::{self, Write};
use std::path::PathBuf;

use super::args::{Place, Status};
use super::{Exit, Failure, look};
use crate::clock::wall_us;
use crate::config::folders::Folders;
use crate::config::{self, Config};
use crate::control::client::{AskError, ask_one};
use crate::control::{Request, runtime_directory, socket_path};
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

/// What only a running daemon can answer.
fn answer(place: &Place, request: &Request) -> Result<serde_json::Value, Failure> {
    let socket = socket(place);
    match ask_one(&socket, request) {
        Err(AskError::NotRunning) if config(place).is_none() => {
            let what = format!(
                "no daemon answers at {}, and the configuration, which says where else it may, has faults; see: fieldspool check",
                socket.display()
            );
            Err(Failure::new(Exit::Unavailable, what))
        }
        Err(AskError::NotRunning) => {
            Err(Failure::new(Exit::Unavailable, format!("the daemon is not running; {START}")))
        }
        other => Ok(other?),
    }
}

/// `fieldspool status`
pub(super) fn status(status: &Status, out: &mut dyn Write) -> Result<Exit, Failure> {
    let answer = answer(&status.place, &Request::Status {})?;
    if status.json {
        writeln!(out, "{answer}")?;
        return Ok(Exit::Ok);
    }
    let board = serde_json::from_value(answer).map_err(io::Error::from)?;
    out.write_all(look::status(&board, wall_us(), terminal_width()).as_bytes())?;
    Ok(Exit::Ok)
}

/// `fieldspool page invite`
pub(super) fn page_invite(place: &Place, out: &mut dyn Write) -> Result<Exit, Failure> {
    let invitation = answer(place, &Request::PageInvite {})?;
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
