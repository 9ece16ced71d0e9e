//! Modbus RTU on a serial port or through a terminal server: the [`engine`] decides, this carries out.
//!
//! A [`Line`] opens its port when it is first needed, drops it at the first error (holding a vanished adapter makes
//! the kernel number the returning one anew), and opens it again with a back-off of 0.5 to 5 s; a connection that is
//! closed while nobody asks, behind an answer, or at one unit only, without one. Before every decision it reads the input empty. It may be cancelled at any await: the engine then keeps the request as a debt.

pub(crate) mod crc;
pub(crate) mod engine;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzed;
mod ledger;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::backoff::Backoff;
use super::hang_ups::HangUps;
use super::settings::{Endpoint, RtuLink, RtuTcpLink};
use super::tcp;
use super::transaction::{Answer, Ask, Failure};
use crate::bus::Counters;
use crate::serial_port::{PortSettings, PreciseTimer, SerialPort, precise_sleep_until};
use engine::{Engine, Step, Timing};

/// What to look at in a terminal server that refuses the connection.
const REFUSED: &str = "does the terminal server wait for connections (TCP server, raw) on this port, and is it the port of \
                       the right serial line?";

/// USB adapters hand over what they have received every 16 ms at the latest (FTDI's latency timer), plus a turn of
/// the scheduler.
const ADAPTER_LATENCY: Duration = Duration::from_millis(20);

/// A terminal server gathers bytes, and a lost segment is sent again after 200 ms at least.
const NETWORK_LATENCY: Duration = Duration::from_millis(100);

/// Silence above 19 200 baud (Modbus over Serial Line V1.02, 2.5.1.1), and where the speed is not known.
const SILENCE_FIXED: Duration = Duration::from_micros(1_750);

/// Between frames: 3.5 characters, above 19 200 baud a fixed time.
pub(super) fn silence(port: &PortSettings) -> Duration {
    if port.speed > 19_200 { SILENCE_FIXED } else { port.character_time() * 7 / 2 }
}

/// An answer that comes later than this after its request is not expected any more: three times the timeout, and
/// the time of 700 characters for a device that works off a queue.
fn hold_off(timeout: Duration, character: Duration) -> Duration {
    timeout * 3 + character * 700
}

pub(super) fn serial_timing(link: &RtuLink) -> Timing {
    let character = link.port.character_time();
    Timing {
        character,
        silence: silence(&link.port),
        latency: ADAPTER_LATENCY,
        timeout: link.timeout,
        hold_off: link.hold_off.unwrap_or_else(|| hold_off(link.timeout, character)),
        paced: true,
        echo: link.echo,
    }
}

pub(super) fn network_timing(link: &RtuTcpLink) -> Timing {
    // The speed behind the server is unknown; 9 600 baud is slow enough for every allowance.
    let character = Duration::from_micros(1_042);
    Timing {
        character,
        silence: SILENCE_FIXED,
        latency: NETWORK_LATENCY,
        timeout: link.timeout,
        hold_off: link.hold_off.unwrap_or_else(|| hold_off(link.timeout, character)),
        paced: false,
        echo: link.echo,
    }
}

/// The longest time that a request can take, unanswered: silence, request, timeout, and an answer that is cut off
/// just before its end.
pub(super) fn longest(timing: &Timing, data_bytes: u8) -> Duration {
    timing.silence + timing.character * (8 + 5 + u32::from(data_bytes)) + timing.timeout + timing.latency
}

/// The owner of an RTU line.
#[derive(Debug)]
pub(crate) struct Line {
    place: Place,
    stream: Option<Stream>,
    timer: Option<PreciseTimer>,
    engine: Engine,
    /// This connection has brought an answer.
    proven: bool,
    up: bool,
    hang_ups: HangUps,
    backoff: Backoff,
}

#[derive(Debug)]
enum Place {
    Serial(PortSettings),
    Network(Endpoint),
}

#[derive(Debug)]
enum Stream {
    Serial(SerialPort),
    Network(TcpStream),
}

impl Line {
    pub(crate) fn serial(link: &RtuLink) -> Self {
        Self::new(Place::Serial(link.port.clone()), serial_timing(link))
    }

    pub(crate) fn network(link: &RtuTcpLink) -> Self {
        Self::new(Place::Network(link.endpoint.clone()), network_timing(link))
    }

    fn new(place: Place, timing: Timing) -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5), false);
        let (engine, hang_ups) = (Engine::new(timing), HangUps::default());
        Self { place, stream: None, timer: None, engine, proven: false, up: false, hang_ups, backoff }
    }

    /// One request and its answer, by `deadline`. The data of a believed answer is in [`Line::data`].
    ///
    /// A connection that has worked and turns out closed before the request is sent is replaced at once.
    pub(crate) async fn transact(&mut self, ask: Ask, deadline: Instant) -> Result<Answer, Failure> {
        loop {
            self.open(deadline).await?;
            if let Some(until) = self.engine.held(ask, Instant::now()) {
                return Err(Failure::Held(until));
            }
            // The runtime learns here what has arrived while nobody looked.
            tokio::task::yield_now().await;
            self.engine.begin(ask, Instant::now(), deadline).map_err(Failure::Held)?;
            let requests = self.engine.counters.requests;
            let (engine, timer) = (&mut self.engine, &mut self.timer);
            let carried_out = match &mut self.stream {
                Some(Stream::Serial(port)) => carry_out(engine, timer, port, deadline).await,
                Some(Stream::Network(stream)) => carry_out(engine, timer, stream, deadline).await,
                None => return Err(Failure::LinkDown),
            };
            let sent = self.engine.counters.requests > requests;
            match carried_out {
                Ok(result) => {
                    if result.is_ok() {
                        self.proven = true;
                        self.hang_ups.answered(ask.unit);
                        self.backoff.succeeded();
                    }
                    return result;
                }
                Err(error) if !sent && self.proven && self.is_hang_up(&error) => self.let_go(),
                Err(error) if sent && self.is_of_the_device(ask.unit, &error) => {
                    self.engine.counters.timeouts += 1;
                    self.let_go();
                    return Err(Failure::Silent);
                }
                Err(error) => {
                    self.close(&error);
                    return Err(if sent { Failure::HungUp } else { Failure::LinkDown });
                }
            }
        }
    }

    /// Until when this may not be sent, and how long that can be at most.
    pub(crate) fn held(&mut self, ask: Ask) -> Option<Instant> {
        self.engine.held(ask, Instant::now())
    }

    pub(crate) fn hold_off(&self) -> Duration {
        self.engine.hold_off()
    }

    /// The data of the last believed answer.
    pub(crate) fn data(&self) -> &[u8] {
        self.engine.data()
    }

    /// Listens until `until`. A late answer settles its debt, a vanished adapter is dropped at once.
    pub(crate) async fn idle(&mut self, until: Instant) {
        self.engine.give_up();
        let listened = match &mut self.stream {
            Some(Stream::Serial(port)) => listen(&mut self.engine, port, until).await,
            Some(Stream::Network(stream)) => listen(&mut self.engine, stream, until).await,
            None => Ok(()),
        };
        match listened {
            Ok(()) => {}
            Err(error) if self.is_hang_up(&error) => self.let_go(),
            Err(error) => self.close(&error),
        }
        tokio::time::sleep_until(until.into()).await;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.engine.counters
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// What is known of a peer's hanging up.
    pub(super) fn hang_ups(&mut self) -> &mut HangUps {
        &mut self.hang_ups
    }

    async fn open(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.stream.is_some() {
            return Ok(());
        }
        if !self.backoff.is_over(Instant::now()) {
            return Err(Failure::LinkDown);
        }
        let opened = match &self.place {
            Place::Serial(port) => {
                self.engine.set_paced(!is_pseudo_terminal(&port.path));
                SerialPort::open(port).map(Stream::Serial).map_err(|fault| fault.to_string())
            }
            Place::Network(endpoint) => tcp::connect(endpoint, REFUSED, deadline).await.map(Stream::Network),
        };
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
                (self.proven, self.up) = (false, true);
                self.timer = PreciseTimer::new().ok();
                self.engine.counters.opens += 1;
                self.engine.counters.last_error = None;
                Ok(())
            }
            Err(words) => {
                self.up = false;
                self.engine.counters.last_error = Some(words.into());
                self.backoff.failed(Instant::now());
                Err(Failure::LinkDown)
            }
        }
    }

    /// Whether it is the peer that closed a connection.
    fn is_hang_up(&self, error: &io::Error) -> bool {
        matches!(self.place, Place::Network(_)) && tcp::is_hang_up(error)
    }

    /// Whether the peer hung up at this unit, and does not at others.
    fn is_of_the_device(&mut self, unit: u8, error: &io::Error) -> bool {
        self.is_hang_up(error) && self.hang_ups.is_of_the_device(unit)
    }

    /// Lets the connection go; whether the line is down shows when the next one is made.
    fn let_go(&mut self) {
        self.stream = None;
        self.engine.closed();
    }

    fn close(&mut self, error: &io::Error) {
        self.let_go();
        self.up = false;
        self.backoff.failed(Instant::now());
        let words = match &self.place {
            Place::Serial(port) => {
                format!(
                    "the adapter at {} is gone ({error}); check the plug, it is opened again by itself",
                    port.path
                )
            }
            Place::Network(endpoint) => tcp::lost_words(endpoint, error),
        };
        self.engine.counters.last_error = Some(words.into());
    }
}

/// Whether bytes on this port take no time: pseudo-terminals have a speed in name only. Their major numbers are
/// 136 to 143 (Documentation/admin-guide/devices.txt).
fn is_pseudo_terminal(path: &str) -> bool {
    nix::sys::stat::stat(path).is_ok_and(|stat| (136..=143).contains(&nix::sys::stat::major(stat.st_rdev)))
}

/// Carries out the engine's steps until the transaction is over. `Err`: the stream is of no more use.
async fn carry_out<S: AsyncRead + AsyncWrite + Unpin>(
    engine: &mut Engine,
    timer: &mut Option<PreciseTimer>,
    stream: &mut S,
    deadline: Instant,
) -> io::Result<Result<Answer, Failure>> {
    loop {
        if let Err(error) = read_empty(engine, stream).await {
            return last_words(engine, error);
        }
        match engine.poll(Instant::now()) {
            Step::Done(result) => return Ok(result),
            Step::Write(frame) => {
                let written = tokio::time::timeout_at(deadline.into(), async {
                    stream.write_all(&frame).await?;
                    stream.flush().await
                });
                written.await.map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            Step::Wait(until) => {
                let mut bytes = [0; 256];
                let heard = tokio::select! {
                    biased;
                    read = stream.read(&mut bytes) => read.and_then(|count| received(engine, &bytes, count)),
                    () = sleep_until(timer, until) => Ok(()),
                };
                if let Err(error) = heard {
                    return last_words(engine, error);
                }
            }
        }
    }
}

/// The stream is of no more use. What came before its end may be the answer all the same: some converters close the connection
/// after each.
fn last_words(engine: &mut Engine, error: io::Error) -> io::Result<Result<Answer, Failure>> {
    if tcp::is_hang_up(&error)
        && engine.is_sent()
        && let Step::Done(result) = engine.poll(Instant::now())
    {
        return Ok(result);
    }
    Err(error)
}

/// Hands over what comes until `until`; the engine judges it as unasked.
async fn listen<S: AsyncRead + Unpin>(engine: &mut Engine, stream: &mut S, until: Instant) -> io::Result<()> {
    loop {
        let mut bytes = [0; 256];
        let judge_at = match engine.poll(Instant::now()) {
            Step::Wait(at) => at.min(until),
            Step::Write(_) | Step::Done(_) => until,
        };
        match tokio::time::timeout_at(judge_at.into(), stream.read(&mut bytes)).await {
            Ok(read) => received(engine, &bytes, read?)?,
            Err(_late) if Instant::now() >= until => return Ok(()),
            Err(_late) => {}
        }
    }
}

fn received(engine: &mut Engine, bytes: &[u8], count: usize) -> io::Result<()> {
    if count == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    engine.receive(bytes.get(..count).unwrap_or_default(), Instant::now());
    Ok(())
}

/// Reads what is there and does not wait. The runtime's budget for fairness must not make a full queue look empty.
async fn read_empty<S: AsyncRead + Unpin>(engine: &mut Engine, stream: &mut S) -> io::Result<()> {
    let reading = poll_fn(|cx| {
        // A device that babbles faster than we read ends here, not in an endless loop.
        for _ in 0..16 {
            let mut bytes = [0; 256];
            let mut bytes = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut bytes) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => received(engine, bytes.filled(), bytes.filled().len())?,
            }
        }
        Poll::Ready(Ok(()))
    });
    tokio::task::unconstrained(reading).await
}

async fn sleep_until(timer: &mut Option<PreciseTimer>, until: Instant) {
    if let Some(timer) = timer
        && timer.sleep_until(until).await.is_ok()
    {
        return;
    }
    precise_sleep_until(until).await;
}
