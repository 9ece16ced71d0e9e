//! The daemon's side of the control socket: accepts, bounds, and hands each request to an [`Answer`].
//!
//! Bounded against a careless or hostile member of the group: [`CONNECTIONS_MAX`] at a time, the next ones wait in the kernel's
//! queue; a request line has [`REQUEST_DEADLINE`] and `REQUEST_MAX` bytes; a reply that nobody takes ends after
//! [`WRITE_DEADLINE`]. A broken request gets one line that says why.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Line, REQUEST_MAX, Request};

/// Connections served at a time.
const CONNECTIONS_MAX: usize = 8;
/// For the whole request line.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// For one piece of a reply to be taken.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Pause after a failed accept: with no file descriptors left it would spin.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The loop turns at least so often, for the watchdog.
const TURN_EVERY: Duration = Duration::from_secs(10);

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In words, with what to do.
    pub what: String,
    /// sysexits code.
    pub exit: u8,
}

/// What answers requests; the supervisor's desk.
pub trait Answer: Send + Sync + 'static {
    /// Answers one request into `reply`.
    fn answer(
        &self,
        request: Request,
        reply: &mut Reply<impl AsyncWrite + Unpin + Send>,
    ) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// The stream of items back to the asker.
#[derive(Debug)]
pub struct Reply<W> {
    stream: BufWriter<W>,
    broken: bool,
}

impl<W: AsyncWrite + Unpin> Reply<W> {
    /// Sends one item. Afterwards [`Reply::is_broken`] tells whether anybody takes them.
    pub async fn item(&mut self, item: &impl Serialize) {
        match serde_json::to_value(item) {
            Ok(value) => self.line(&Line::Item(value)).await,
            Err(_) => self.broken = true,
        }
    }

    /// The asker went away or takes nothing: further items are lost.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    async fn line(&mut self, line: &Line) {
        if self.broken {
            return;
        }
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        self.broken = !matches!(timeout(WRITE_DEADLINE, self.stream.write_all(&text)).await, Ok(Ok(())));
    }

    async fn end(mut self, result: Result<(), Failed>) {
        let last = match result {
            Ok(()) => Line::Done,
            Err(Failed { what, exit }) => Line::Failed { what, exit },
        };
        self.line(&last).await;
        // Whoever asked may have gone; the daemon does not care.
        let _ = timeout(WRITE_DEADLINE, self.stream.shutdown()).await;
    }
}

/// Makes the socket. A stale one, that nobody listens on, is replaced; one that is alive is an error.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another fieldspool listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(socket)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until told to stop. Requests under way are dropped then. `beat` is called in each turn, at least once in ten
/// seconds.
pub async fn serve(
    listener: UnixListener,
    desk: Arc<impl Answer>,
    beat: impl Fn(Instant),
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        beat(Instant::now());
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(TURN_EVERY) => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "control socket accepts nobody; trying again");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (desk, stop) = (Arc::clone(&desk), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let (read, write) = stream.into_split();
            tokio::select! {
                () = stop.cancelled() => {}
                () = converse(read, write, &*desk) => {}
            }
        });
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// One connection: one request, one reply.
async fn converse(read: impl AsyncRead + Unpin, write: impl AsyncWrite + Unpin + Send, desk: &impl Answer) {
    let mut reply = Reply { stream: BufWriter::new(write), broken: false };
    let result = match timeout(REQUEST_DEADLINE, request(read)).await {
        Err(_) => Err(usage("the request did not come within 5 s")),
        Ok(Err(why)) => Err(usage(&why)),
        Ok(Ok(None)) => return,
        Ok(Ok(Some(request))) => desk.answer(request, &mut reply).await,
    };
    reply.end(result).await;
}

fn usage(what: &str) -> Failed {
    Failed { what: what.to_owned(), exit: 64 }
}

/// The request; `None` if the asker went away without one.
async fn request(read: impl AsyncRead + Unpin) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    let mut bounded = BufReader::new(read.take(REQUEST_MAX as u64));
    let length = bounded.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
    if length == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(format!("a request is one line of at most {REQUEST_MAX} bytes"));
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| format!("not a request: {error}"))
}

#[cfg(test)]
mod tests;
