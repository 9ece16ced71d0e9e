//! Modbus TCP: one connection, one request in flight, answers told apart by their transaction id.
//!
//! An answer is believed only if transaction id, protocol id, unit, function and length are right. A late answer
//! carries an old transaction id and is skipped, so a silent unit behind a gateway costs its timeout and nothing more:
//! no reconnection, no wait. The connection is dropped when its framing is lost, when the peer closes it, and
//! after three unanswered requests in a row, because a cable pulled without a word looks just like that. A peer that closes
//! it at one unit, and answers for others, says that this unit is silent: the next request connects at once.
//!
//! Its own framing, not the client of tokio-modbus: that one returns a stale transaction id as an error instead of
//! skipping it, buffers up to 64 KiB on a peer's word, and checks the length of an answer in debug builds only.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backoff::Backoff;
use super::hang_ups::HangUps;
use super::settings::{Endpoint, TcpLink};
use super::transaction::{Answer, Ask, Failure};
use crate::bus::Counters;

/// Transaction id, protocol id, length, unit id (MODBUS Messaging on TCP/IP V1.0b, 3.1.3).
const HEADER: usize = 7;

/// Unit id and the longest PDU: what the header's length may say.
const LENGTH_MAX: usize = 254;

/// So many unanswered requests in a row, and the connection itself is doubted.
const DOUBT_AFTER: u32 = 3;

/// No connection is waited for longer than this, whatever the deadline of a poll.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The owner of a Modbus TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    timeout: Duration,
    stream: Option<TcpStream>,
    transaction: u16,
    buffer: Vec<u8>,
    data: Vec<u8>,
    /// A request was being written when the poll was cancelled: half of it may be on the way.
    writing: bool,
    /// This connection has brought an answer.
    proven: bool,
    unanswered: u32,
    hang_ups: HangUps,
    up: bool,
    backoff: Backoff,
    counters: Counters,
}

/// What stands at the beginning of the buffer.
enum Frame {
    Partial,
    Lost,
    /// Of so many bytes, with this transaction id.
    Whole(usize, u16),
}

impl Connection {
    pub(crate) fn new(link: &TcpLink) -> Self {
        Self {
            endpoint: link.endpoint.clone(),
            timeout: link.timeout,
            stream: None,
            transaction: 0,
            buffer: Vec::with_capacity(2 * (LENGTH_MAX + HEADER)),
            data: Vec::with_capacity(LENGTH_MAX),
            writing: false,
            proven: false,
            unanswered: 0,
            hang_ups: HangUps::default(),
            up: false,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(30), true),
            counters: Counters::default(),
        }
    }

    /// One request and its answer, by `deadline`. The data of a believed answer is in [`Connection::data`].
    ///
    /// A connection that has worked and turns out closed is replaced at once, one time: many devices close what
    /// was idle for a few seconds. So is one on which another answer is awaited: it may have been closed for that one.
    /// But not if it was closed when this unit was asked last, too, or what comes on it is no Modbus TCP.
    pub(crate) async fn transact(&mut self, ask: Ask, deadline: Instant) -> Result<Answer, Failure> {
        loop {
            self.open(deadline).await?;
            let (proven, awaited) = (self.proven, self.unanswered > 0);
            let requests = self.counters.requests;
            let error = match self.exchange(ask, deadline).await {
                Ok(result) => {
                    if result.is_ok() {
                        self.hang_ups.answered(ask.unit);
                    }
                    return result;
                }
                Err(error) => error,
            };
            let sent = self.counters.requests > requests;
            let hung_up = sent && is_hang_up(&error);
            let reused = proven || (awaited && error.kind() != io::ErrorKind::InvalidData);
            if reused && (!hung_up || self.hang_ups.asks_again(ask.unit)) {
                self.disconnect();
            } else if hung_up && self.hang_ups.is_of_the_device(ask.unit) {
                self.counters.timeouts += 1;
                self.disconnect();
                return Err(Failure::Silent);
            } else {
                self.fail(lost_words(&self.endpoint, &error));
                return Err(if sent { Failure::HungUp } else { Failure::LinkDown });
            }
        }
    }

    /// The data of the last believed answer.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Waits until `until`; a connection that the peer closes meanwhile is let go at once.
    pub(crate) async fn idle(&mut self, until: Instant) {
        while let Some(stream) = &mut self.stream {
            match tokio::time::timeout_at(until.into(), stream.read_buf(&mut self.buffer)).await {
                Err(_late) => return,
                Ok(Ok(count)) if count > 0 && self.skip_stale() => self.counters.bytes += count as u64,
                Ok(_closed_or_lost) => self.disconnect(),
            }
        }
        tokio::time::sleep_until(until.into()).await;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// What is known of its hanging up.
    pub(super) fn hang_ups(&mut self) -> &mut HangUps {
        &mut self.hang_ups
    }

    async fn open(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.writing {
            self.disconnect();
        }
        if self.stream.is_some() {
            return Ok(());
        }
        if !self.backoff.is_over(Instant::now()) {
            return Err(Failure::LinkDown);
        }
        match connect(&self.endpoint, REFUSED, deadline).await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.up = true;
                self.counters.opens += 1;
                Ok(())
            }
            Err(words) => {
                self.fail(words);
                Err(Failure::LinkDown)
            }
        }
    }

    /// Lets the connection go; whether the line is down shows when the next one is made.
    fn disconnect(&mut self) {
        self.stream = None;
        self.buffer.clear();
        (self.writing, self.proven, self.unanswered) = (false, false, 0);
    }

    fn fail(&mut self, words: String) {
        self.disconnect();
        self.up = false;
        self.backoff.failed(Instant::now());
        self.counters.last_error = Some(words.into());
    }

    /// `Err`: the connection is closed or of no more use.
    async fn exchange(&mut self, ask: Ask, deadline: Instant) -> io::Result<Result<Answer, Failure>> {
        if !self.skip_stale() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        self.transaction = self.transaction.wrapping_add(1);
        let [id_high, id_low] = self.transaction.to_be_bytes();
        let [unit, function, a, b, c, d] = ask.body();
        let request = [id_high, id_low, 0, 0, 0, 6, unit, function, a, b, c, d];
        let deadline = deadline.min(Instant::now() + self.timeout);
        let Some(stream) = &mut self.stream else { return Err(io::Error::from(io::ErrorKind::NotConnected)) };
        self.writing = true;
        let written = tokio::time::timeout_at(deadline.into(), stream.write_all(&request)).await;
        written.map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??;
        self.writing = false;
        let sent = Instant::now();
        self.counters.requests += 1;
        self.counters.bytes += request.len() as u64;
        loop {
            let Some(stream) = &mut self.stream else {
                return Err(io::Error::from(io::ErrorKind::NotConnected));
            };
            let Ok(read) = tokio::time::timeout_at(deadline.into(), stream.read_buf(&mut self.buffer)).await
            else {
                return Ok(Err(self.unanswered()));
            };
            let count = read?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let at = Instant::now();
            self.counters.bytes += count as u64;
            if let Some(verdict) = self.believe(ask)? {
                let turnaround = at.saturating_duration_since(sent);
                return Ok(verdict.map(|exception| Answer { exception, at, turnaround }));
            }
            if at >= deadline {
                return Ok(Err(self.unanswered())); // slow drips never fill a frame
            }
        }
    }

    fn unanswered(&mut self) -> Failure {
        self.counters.timeouts += 1;
        self.unanswered += 1;
        if self.unanswered >= DOUBT_AFTER {
            self.disconnect();
        }
        Failure::Silent
    }

    /// Looks for the answer in what has been received. `Err`: the framing is lost.
    fn believe(&mut self, ask: Ask) -> io::Result<Option<Result<Option<u8>, Failure>>> {
        loop {
            match self.first_frame() {
                Frame::Partial => return Ok(None),
                Frame::Lost => {
                    self.counters.bad_frames += 1;
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                Frame::Whole(length, transaction) if transaction == self.transaction => {
                    let verdict = self.judge(ask, length);
                    self.buffer.drain(..length);
                    return Ok(Some(verdict));
                }
                Frame::Whole(length, _) => {
                    self.counters.foreign_frames += 1;
                    self.buffer.drain(..length);
                }
            }
        }
    }

    /// The frame at the beginning of the buffer has our transaction id: is it the answer?
    fn judge(&mut self, ask: Ask, length: usize) -> Result<Option<u8>, Failure> {
        // Whatever it is worth, the peer is alive.
        (self.unanswered, self.proven) = (0, true);
        self.backoff.succeeded();
        self.counters.last_error = None;
        let body = self.buffer.get(HEADER - 1..length).unwrap_or_default();
        match *body {
            [unit, function, code] if unit == ask.unit && function == ask.function | 0x80 => {
                self.counters.answers += 1;
                self.counters.exceptions += 1;
                Ok(Some(code))
            }
            [unit, function, count, ref data @ ..]
                if (unit, function, count) == (ask.unit, ask.function, ask.data_bytes)
                    && data.len() == usize::from(count) =>
            {
                self.data.clear();
                self.data.extend_from_slice(data);
                self.counters.answers += 1;
                Ok(None)
            }
            _ => {
                self.counters.bad_frames += 1;
                Err(Failure::Damaged)
            }
        }
    }

    fn first_frame(&self) -> Frame {
        let [id_high, id_low, protocol_high, protocol_low, length_high, length_low, ..] =
            *self.buffer.as_slice()
        else {
            return Frame::Partial;
        };
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if (protocol_high, protocol_low) != (0, 0) || !(3..=LENGTH_MAX).contains(&length) {
            return Frame::Lost;
        }
        let whole = HEADER - 1 + length;
        if self.buffer.len() < whole {
            return Frame::Partial;
        }
        Frame::Whole(whole, u16::from_be_bytes([id_high, id_low]))
    }

    /// Drops whole frames that nobody waits for. `false`: the framing is lost.
    fn skip_stale(&mut self) -> bool {
        loop {
            match self.first_frame() {
                Frame::Partial => return true,
                Frame::Lost => {
                    self.counters.bad_frames += 1;
                    return false;
                }
                Frame::Whole(length, _) => {
                    self.counters.foreign_frames += 1;
                    self.buffer.drain(..length);
                }
            }
        }
    }
}

/// What to look at in a device that refuses the connection.
const REFUSED: &str = "is Modbus TCP switched on in the device, and is the port right?";

/// Connects by `deadline`; the error is in words for a technician, `refused` what to look at if nobody listens there.
pub(super) async fn connect(
    endpoint: &Endpoint,
    refused: &str,
    deadline: Instant,
) -> Result<TcpStream, String> {
    let connect_words = |error: &io::Error| connect_words(endpoint, refused, error);
    let deadline = deadline.min(Instant::now() + CONNECT_MAX);
    let connecting = async {
        match endpoint.host.parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, endpoint.port)).await,
            Err(_name) => TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await,
        }
    };
    let stream = match tokio::time::timeout_at(deadline.into(), connecting).await {
        Ok(connected) => connected.map_err(|error| connect_words(&error))?,
        Err(_late) => return Err(connect_words(&io::Error::from(io::ErrorKind::TimedOut))),
    };
    // A request is one small segment: it must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true).map_err(|error| connect_words(&error))?;
    Ok(stream)
}

fn connect_words(endpoint: &Endpoint, refused: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{endpoint} refuses the connection; {refused}"),
        io::ErrorKind::TimedOut => {
            format!("{endpoint} does not answer; check its power, the network cable and the address")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!(
                "there is no way to {endpoint} ({error}); check the gateway's own network and the address"
            )
        }
        _ if endpoint.host.parse::<IpAddr>().is_err() && error.raw_os_error().is_none() => {
            format!(
                "the name {} is not known ({error}); write the address instead, or check the DNS",
                endpoint.host
            )
        }
        _ => format!("cannot connect to {endpoint} ({error})"),
    }
}

/// Whether it is the peer that closed the connection.
pub(super) fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// An open connection was lost.
pub(super) fn lost_words(endpoint: &Endpoint, error: &io::Error) -> String {
    match error.kind() {
        _ if is_hang_up(error) => {
            format!("{endpoint} closed the connection; many devices allow only one or two clients at a time")
        }
        io::ErrorKind::InvalidData => format!("{endpoint} does not speak Modbus TCP"),
        io::ErrorKind::TimedOut => format!("{endpoint} takes no more bytes; check the network"),
        _ => format!("the connection to {endpoint} broke ({error})"),
    }
}
