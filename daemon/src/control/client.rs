//! The command line's side of the control socket. Blocking, with a deadline on every step.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{LINE_MAX, Line, Request};

/// Longest silence between two lines of a reply. A read over a slow bus with silent devices may take this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens: the daemon is not running.
    #[error("the daemon is not running")]
    NotRunning,
    /// The socket is there and we may not use it.
    #[error(
        "{} may be used by root and the group fieldspool only: use sudo, or run `sudo usermod -aG fieldspool $USER` \
         and log in again", .0.display()
    )]
    NotAllowed(PathBuf),
    /// The daemon answered that it cannot.
    #[error("{what}")]
    Refused {
        /// Its words.
        what: String,
        /// Its exit code.
        exit: u8,
    },
    /// The connection broke, or what came is no reply.
    #[error("the daemon's answer broke off: {0}")]
    Broken(#[from] io::Error),
    /// An item came and could not be taken: what it was written to is full or closed.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

/// Asks, and hands each item to `item` as it comes; an error of `item` ends the reply.
pub fn ask(
    socket: &Path,
    request: &Request,
    mut item: impl FnMut(Value) -> io::Result<()>,
) -> Result<(), AskError> {
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        io::ErrorKind::PermissionDenied => AskError::NotAllowed(socket.to_owned()),
        _ => AskError::Broken(error),
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(request).map_err(io::Error::from)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LINE_MAX as u64);
        if bounded.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_slice(&line).map_err(io::Error::from)? {
            Line::Item(value) => item(value).map_err(AskError::Output)?,
            Line::Done => return Ok(()),
            Line::Failed { what, exit } => return Err(AskError::Refused { what, exit }),
        }
    }
}

/// Asks for one item.
pub fn ask_one(socket: &Path, request: &Request) -> Result<Value, AskError> {
    let mut answer = Value::Null;
    ask(socket, request, |value| {
        answer = value;
        Ok(())
    })?;
    Ok(answer)
}
