//! What can be typed: commands, options and their help, in one place. Man page and completions are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control::rows::Format;

/// Polls Modbus and serial instruments, keeps every reading, sends them to an MQTT broker.
#[derive(Debug, Parser)]
#[command(
    name = "fieldspool",
    version,
    about,
    after_help = "First steps:\n  \
        fieldspool demo                     see it work, without any hardware\n  \
        fieldspool check                    is the configuration right, and what does it cost?\n  \
        fieldspool read hall meter-01       does this device answer, and with what?\n  \
        fieldspool status                   is all well?\n\n\
        The configuration stands in /etc/fieldspool; the daemon is started with: sudo systemctl start fieldspool"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more: once for each poll and message, twice for every byte.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands, in the order in which a technician meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Poll, store and send until told to stop (this is what the service does)
    Run(Place),
    /// Check the configuration and say all that is wrong with it, with line and remedy
    Check(Check),
    /// Is all well? Devices, connection, what waits to be sent
    Status(Status),
    /// Read a device once and print its values
    Read(Read),
    /// Look at, export, verify or send again the stored readings
    #[command(subcommand)]
    Spool(Spool),
    /// Let somebody see the page from another computer or phone
    #[command(subcommand)]
    Page(Page),
    /// See it work: a simulated plant, a broker, the daemon and its page; Ctrl-C ends it without a trace
    Demo(crate::demo::Options),
    /// Write the manual page (packaging)
    #[command(hide = true)]
    Man,
    /// Write a completion script (packaging)
    #[command(hide = true)]
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

/// Where the configuration is.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Read the configuration from this folder alone (default: /usr/lib/fieldspool, /run/fieldspool, /etc/fieldspool)
    #[arg(long, value_name = "FOLDER")]
    pub config: Option<PathBuf>,
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// A configuration file or folder; without it, what the daemon would read
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Also print what will be polled, how often, and what share of each line's time it takes
    #[arg(long)]
    pub plan: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Everything, as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
}

/// `read`
#[derive(Debug, Args)]
pub struct Read {
    /// Name of the bus, as in [bus.NAME]
    pub bus: String,
    /// Name of the device
    pub device: String,
    /// Only this point
    pub point: Option<String>,
    /// Show the raw registers in every type and word order side by side: which one looks right?
    #[arg(long)]
    pub all_types: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
}

/// `spool`
#[derive(Debug, Subcommand)]
pub enum Spool {
    /// How much is stored, how much waits, how long there is room
    Status(Status),
    /// Write the stored readings to standard output, oldest first
    Export(Export),
    /// Send confirmed readings again: the broker acknowledged them, and they did not arrive
    Resend(Resend),
    /// Check a spool file: structure, every block, the books; never writes. Ends with 0 sound, 65 damaged, 66 not readable
    Verify(Verify),
}

/// `spool resend`
#[derive(Debug, Args)]
#[command(
    after_help = "Only what is still stored can be sent again; the answer says what is not. Readings keep their names, so a \
    receiver that has them drops the second copy. Run ends, gaps and clock records of the runs concerned go again too.\n\n\
    A receiver that says \"missing: 4200 to 4299\" of run 00000017-9f3c2a10 gets them by:\n  \
    fieldspool spool resend 00000017-9f3c2a10 4200-4299"
)]
pub struct Resend {
    /// The run, as the receiver names it: 00000017-9f3c2a10
    #[arg(requires = "readings", conflicts_with = "since")]
    pub run: Option<String>,
    /// The first and the last reading, both included: 4200-4299
    #[arg(value_name = "FIRST-LAST")]
    pub readings: Option<String>,
    /// All readings from this time on: 2026-11-20T12:00:00Z, 2026-11-20 (UTC), or how long ago: 2h, 30min, 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
}

/// `spool export`
#[derive(Debug, Args)]
pub struct Export {
    /// csv: for a spreadsheet. jsonl: one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    pub format: Format,
    /// Only readings from this time on: 2026-11-20T12:00:00Z, 2026-11-20 (UTC), or how long ago: 2h, 7d
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only readings before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Only this device
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
}

/// `spool verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The file: the spool itself, a copy, a backup, or one in quarantine; without it, the spool of the configuration
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,
}

/// `page`
#[derive(Debug, Subcommand)]
pub enum Page {
    /// Print a one-time link to the page, with its QR code; it is good for 30 minutes
    Invite(Place),
}

/// Shells for which completions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Fish,
    Zsh,
}
