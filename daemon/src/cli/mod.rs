//! The command line: from what was typed to an exit code.
//!
//! [`args`] is what can be typed; each command then has a file. Commands that ask the daemon go through its control
//! socket. Output goes to standard output as plain text without colour; complaints go to standard error, one line of what
//! and one of what to do. Nothing here ends the process: `main` does, with the code returned.

pub mod args;
mod ask;
mod bar;
mod check;
mod look;
mod paper;
mod read;
mod spool;
mod table;
mod verify;

use std::io::{self, Write};
use std::path::Path;

use clap::Parser;

use crate::control::client::AskError;
use crate::demo;
use crate::log::{self, Verbosity};
use crate::supervise;
use args::{Arguments, Command, Page, Spool};

/// What the process ends with: sysexits(3), where a service manager and a script understand the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Ok = 0,
    /// What was typed makes no sense.
    Usage = 64,
    /// A spool file is damaged.
    Damaged = 65,
    /// A file to be read is not there, or there is no such bus, device or point.
    NoInput = 66,
    /// The daemon is not running, or the device does not answer.
    Unavailable = 69,
    /// A fault of this program.
    Bug = 70,
    /// The runtime directory or the page's port cannot be had.
    CannotCreate = 73,
    /// Disk or terminal.
    Disk = 74,
    /// Somebody else holds the state directory; try later.
    TryLater = 75,
    /// Not as this user.
    NoPermission = 77,
    /// The configuration has faults.
    Config = 78,
}

/// A command that did not work out: what to say, and the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words, with what to do.
    pub what: String,
    /// The code.
    pub exit: u8,
}

impl Failure {
    /// A failure with its code.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { what: what.into(), exit: exit as u8 }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // `fieldspool spool export | head`: the reader has had enough, which is no failure.
            return Self::new(Exit::Ok, String::new());
        }
        Self::new(Exit::Disk, format!("cannot write the output: {error}"))
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let exit = match &error {
            AskError::NotRunning => Exit::Unavailable as u8,
            AskError::NotAllowed(_) => Exit::NoPermission as u8,
            AskError::Refused { exit, .. } => *exit,
            AskError::Broken(_) | AskError::Output(_) => Exit::Disk as u8,
        };
        Self { what: error.to_string(), exit }
    }
}

/// Runs what was typed; returns the exit code.
pub fn run(typed: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(typed) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no faults and go to standard output; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage as u8 } else { Exit::Ok as u8 };
        }
    };
    match obey(arguments, &mut io::stdout().lock()) {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.what.is_empty() {
                let _ = writeln!(io::stderr().lock(), "fieldspool: {}", failure.what);
            }
            failure.exit
        }
    }
}

fn obey(arguments: Arguments, out: &mut dyn Write) -> Result<u8, Failure> {
    let exit = match arguments.command {
        Command::Run(place) => run_daemon(place.config.as_deref(), arguments.verbose),
        Command::Check(check) => return check::check(&check, out),
        Command::Status(status) => ask::status(&status, out),
        Command::Read(read) => read::read(&read, out),
        Command::Spool(Spool::Status(status)) => spool::status(&status, out),
        Command::Spool(Spool::Export(export)) => spool::export(&export, out),
        Command::Spool(Spool::Resend(resend)) => spool::resend(&resend, out),
        Command::Spool(Spool::Verify(verify)) => verify::verify(&verify, out),
        Command::Page(Page::Invite(place)) => ask::page_invite(&place, out),
        Command::Demo(options) => match demo::run(&options) {
            Ok(()) => Ok(Exit::Ok),
            Err(error) => Err(Failure::new(Exit::Unavailable, error.to_string())),
        },
        Command::Man => Ok(paper::man(out).map(|()| Exit::Ok)?),
        Command::Completions { shell } => Ok(paper::completions(shell, out).map(|()| Exit::Ok)?),
    };
    exit.map(|exit| exit as u8)
}

fn run_daemon(place: Option<&Path>, verbose: u8) -> Result<Exit, Failure> {
    let verbosity = match verbose {
        0 => Verbosity::Edges,
        1 => Verbosity::Debug,
        _ => Verbosity::Trace,
    };
    match supervise::run(place, verbosity) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) if log::to_journal() => {
            for line in error.to_string().lines() {
                tracing::error!(error = line, "the daemon does not run");
            }
            Err(Failure { what: String::new(), exit: error.exit_code() })
        }
        Err(error) => Err(Failure { what: error.to_string(), exit: error.exit_code() }),
    }
}
