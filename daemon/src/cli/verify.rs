//! `fieldspool spool verify`: whether a spool file is sound. One that the daemon uses is checked by the daemon; no second
//! process opens it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::Verify;
use super::ask::socket;
use super::bar::Bar;
use super::{Exit, Failure, spool};
use crate::control::Request;
use crate::control::client::{AskError, ask};
use crate::control::rows::minute_text;
use crate::spool::verify::{self, Unverified, Verified};
use crate::spool::{in_use, store};

/// Prints what was found. Exit 0 if all is sound, 65 if not, 66 if it cannot be read.
pub(super) fn verify(verify: &Verify, out: &mut dyn Write) -> Result<Exit, Failure> {
    let file = match &verify.file {
        Some(file) => file.clone(),
        None => spool::directory(&verify.place)?.join(store::FILE),
    };
    let found = match user(&file) {
        Some(process) => through_daemon(verify, &file, process)?,
        None => directly(&file)?,
    };
    write(&found, out)?;
    Ok(if found.sound() { Exit::Ok } else { Exit::Damaged })
}

/// The process that has this very file open as its spool.
fn user(file: &Path) -> Option<u32> {
    let file = file.canonicalize().ok()?;
    (file.file_name()? == store::FILE).then(|| in_use(file.parent()?)).flatten()
}

fn directly(file: &Path) -> Result<Verified, Failure> {
    let mut bar = Bar::new(false);
    verify::file(file, |share| bar.show(share, "verified")).map_err(|error| {
        let exit = if matches!(error, Unverified::Changed(_)) { Exit::TryLater } else { Exit::NoInput };
        Failure::new(exit, error.to_string())
    })
}

fn through_daemon(verify: &Verify, file: &Path, process: u32) -> Result<Verified, Failure> {
    let mut bar = Bar::new(false);
    let _ =
        writeln!(io::stderr().lock(), "{} is in use by process {process}, which checks it", file.display());
    let mut answer = Value::Null;
    let asked = ask(&socket(&verify.place), &Request::Verify {}, |item| {
        match item.as_f64() {
            Some(share) => bar.show(share, "verified"),
            None => answer = item,
        }
        Ok(())
    });
    let other = || {
        let what = format!(
            "{} is in use by process {process}, which cannot be asked here: verify a copy",
            file.display()
        );
        Failure::new(Exit::TryLater, what)
    };
    match asked {
        Err(AskError::NotRunning) => return Err(other()),
        asked => asked?,
    }
    let found: Verified = serde_json::from_value(answer).map_err(io::Error::from)?;
    let name = |path: &PathBuf| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    if name(&found.file) == name(&file.to_owned()) { Ok(found) } else { Err(other()) }
}

fn write(found: &Verified, out: &mut dyn Write) -> io::Result<()> {
    let all = found.faults.len() as u64 + found.more_faults;
    let judged = match all {
        0 => "sound".to_owned(),
        1 => "DAMAGED, 1 fault".to_owned(),
        many => format!("DAMAGED, {many} faults"),
    };
    writeln!(out, "{}: {judged}", found.file.display())?;
    for fault in &found.faults {
        writeln!(out, "  {fault}")?;
    }
    if found.more_faults > 0 {
        writeln!(out, "  and {} more", found.more_faults)?;
    }
    writeln!(out, "Spool     {}", if found.id.is_empty() { "without a name" } else { &found.id })?;
    let (blocks, batches, readings) = (found.blocks, found.batches, found.readings);
    writeln!(out, "Blocks    {blocks}, with {readings} readings in {batches} batches")?;
    if let Some((from, to)) = found.from_to_us {
        writeln!(out, "Time      {} to {}", minute_text(from), minute_text(to))?;
    }
    let runs = if found.runs == 1 { "1 run".to_owned() } else { format!("{} runs", found.runs) };
    let (waiting, confirmed, lost) = (found.waiting, found.confirmed, found.lost);
    writeln!(out, "Books     {runs}: {waiting} readings wait, {confirmed} confirmed, {lost} lost")?;
    writeln!(
        out,
        "Records   {}, of which {} wait; {} dead letters",
        found.records, found.records_waiting, found.dead_letters
    )?;
    if !found.structure && found.id.is_empty() {
        return Ok(());
    }
    let structure = if found.structure {
        "checked"
    } else {
        "not checked while the file is in use: stop the daemon, or verify a copy"
    };
    writeln!(out, "SQLite    {structure}")
}
