//! The control socket: how the command line speaks to the running daemon, `/run/fieldspool/control.sock`.
//!
//! A Unix stream socket, mode 0660: root and the group `fieldspool` may ask. One request a connection: a line of
//! JSON of at most [`REQUEST_MAX`] bytes. The reply is a stream of JSON lines: any number of `{"item":...}`, then
//! `"done"` or `{"failed":{"what":...,"exit":...}}`. A stream that ends without one of those was cut off.
//!
//! Nothing here changes the plant or takes a stored reading away; a read goes over the bus like any poll. The formats are between a daemon and
//! its own command line of the same version, and promise nothing to others: those have the page's API.

pub mod client;
pub mod probe;
pub mod rows;
pub mod server;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest request, its line feed included.
pub const REQUEST_MAX: usize = 4096;
/// Longest line of a reply: one batch or the whole status.
pub const LINE_MAX: usize = 4 << 20;
/// Name of the socket in the runtime directory.
pub const SOCKET: &str = "control.sock";
/// Where systemd makes the runtime directory (`RuntimeDirectory=fieldspool`).
const RUNTIME_DIRECTORY: &str = "/run/fieldspool";

/// What can be asked. (Braces, also where there is nothing inside: only then are unknown fields refused.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// One item: the whole [`crate::status::Status`].
    Status {},
    /// Reads a device once. One item for each value, see [`PointNow`]; then `{"why":...}` if the line is down.
    Read {
        /// Name of the bus.
        bus: String,
        /// Name of the device.
        device: String,
        /// Only this point; `None`: all.
        point: Option<String>,
        /// In every type and word order.
        all_types: bool,
    },
    /// Stored readings, oldest first: one item for each batch, a list of [`rows::Row`]; between them, how far it is, 0 to 1.
    Export {
        /// Only this device.
        device: Option<String>,
        /// From this wall clock time on, µs.
        from_us: Option<i64>,
        /// Before this wall clock time, µs.
        to_us: Option<i64>,
    },
    /// Lets confirmed readings wait to be sent again. Items: how far it is, 0 to 1, from time to time; the last one is a
    /// [`crate::spool::Resent`].
    ResendReadings {
        /// The run.
        run: String,
        /// The first reading.
        first: u64,
        /// One past the last.
        next: u64,
    },
    /// The same for all readings from a wall clock time on, µs.
    ResendSince {
        /// That time.
        since_us: i64,
    },
    /// Checks the spool's file while it is in use. Items: how far it is, 0 to 1, from time to time; the last one is a
    /// [`crate::spool::verify::Verified`].
    Verify {},
    /// One item: the path and query of a one-time link to the page.
    PageInvite {},
}

/// One point, read just now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PointNow {
    /// Its name.
    pub point: String,
    /// Where it stands in the device, in the protocol's words.
    pub place: String,
    /// Its value as text, `None` if it has none.
    pub value: Option<String>,
    /// Its unit; may be empty.
    pub unit: String,
    /// `good`, or why not: `uncertain: above limit`, `bad: exception 2`.
    pub quality: String,
    /// With `all_types`: the type it was read as, and the column of its word order.
    pub read_as: Option<(String, usize)>,
}

/// One line of a reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A piece of the answer.
    Item(Value),
    /// The answer is complete.
    Done,
    /// There is no (further) answer.
    Failed {
        /// Why, and what to do, in words.
        what: String,
        /// sysexits code for the command line.
        exit: u8,
    },
}

/// The directory for sockets: `$RUNTIME_DIRECTORY` (its first entry, systemd.exec(5)), else [`RUNTIME_DIRECTORY`].
pub fn runtime_directory() -> PathBuf {
    match std::env::var("RUNTIME_DIRECTORY") {
        Ok(list) if !list.is_empty() => PathBuf::from(list.split(':').next().unwrap_or(&list)),
        _ => PathBuf::from(RUNTIME_DIRECTORY),
    }
}

/// Where the socket is.
pub fn socket_path(runtime: &Path) -> PathBuf {
    runtime.join(SOCKET)
}
