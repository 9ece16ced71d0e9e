//! A device played by a script, behind each of the three envelopes.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::bus::Link;
use crate::modbus::rtu::crc;
use crate::modbus::{Echo, Endpoint, RtuLink, RtuTcpLink, TcpLink};
use crate::serial_port::PortSettings;
use crate::simulator::Pty;

/// Longest wait of the links made here; late is later.
pub(super) const TIMEOUT: Duration = Duration::from_millis(150);

/// After this nothing is owed any more.
pub(super) const HOLD_OFF: Duration = Duration::from_millis(600);

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    RtuTcp,
    Rtu,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Tcp, Kind::RtuTcp, Kind::Rtu];

/// Unit, function, address, count, as the device received them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) unit: u8,
    pub(super) function: u8,
    pub(super) address: u16,
    pub(super) count: u16,
}

/// One thing the device does after a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Sends unit, function and data, in a right envelope, so long after the request.
    Send(Duration, Vec<u8>),
    /// Sends these very bytes.
    Raw(Duration, Vec<u8>),
    /// Closes the connection; nothing on a serial port.
    Close,
    /// The same, so long after the request.
    CloseAfter(Duration),
}

impl Asked {
    /// The right answer, each register counting on from `first`.
    pub(super) fn counting(self, first: u16) -> Vec<u8> {
        let mut body = vec![self.unit, self.function, u8::try_from(self.count * 2).unwrap()];
        body.extend((0..self.count).flat_map(|i| first.wrapping_add(i).to_be_bytes()));
        body
    }

    pub(super) fn exception(self, code: u8) -> Vec<u8> {
        vec![self.unit, self.function | 0x80, code]
    }
}

pub(super) fn now(body: Vec<u8>) -> Vec<Act> {
    vec![Act::Send(Duration::ZERO, body)]
}

pub(super) fn after(millis: u64, body: Vec<u8>) -> Vec<Act> {
    vec![Act::Send(Duration::from_millis(millis), body)]
}

fn envelope(kind: Kind, transaction: [u8; 2], body: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Tcp => {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&transaction[..], &[0, 0], &length, body].concat()
        }
        Kind::RtuTcp | Kind::Rtu => [body, &crc::crc(body).to_le_bytes()].concat(),
    }
}

fn asked(kind: Kind, request: &[u8]) -> (Asked, [u8; 2]) {
    let (transaction, body) = match kind {
        Kind::Tcp => ([request[0], request[1]], &request[6..]),
        Kind::RtuTcp | Kind::Rtu => ([0, 0], request),
    };
    let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    (Asked { unit: body[0], function: body[1], address: word(2), count: word(4) }, transaction)
}

/// What goes out, in the order in which its time comes.
#[derive(Debug)]
enum Out {
    Bytes(Vec<u8>),
    Close,
}

fn act(kind: Kind, acts: Vec<Act>, transaction: [u8; 2], out: &mpsc::Sender<Out>) {
    for act in acts {
        let (delay, item) = match act {
            Act::Send(delay, body) => (delay, Out::Bytes(envelope(kind, transaction, &body))),
            Act::Raw(delay, bytes) => (delay, Out::Bytes(bytes)),
            Act::Close => (Duration::ZERO, Out::Close),
            Act::CloseAfter(delay) => (delay, Out::Close),
        };
        let out = out.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // The connection may be gone by then: what comes late is then lost, as on a wire.
            let _sent = out.send(item).await;
        });
    }
}

/// Starts a device that does what `script` says for each request, counted from 0, and gives the link to it.
pub(super) async fn device(
    kind: Kind,
    script: impl FnMut(usize, Asked) -> Vec<Act> + Send + 'static,
) -> Link {
    match kind {
        Kind::Rtu => serial(script),
        Kind::Tcp | Kind::RtuTcp => network(kind, script).await,
    }
}

fn serial(mut script: impl FnMut(usize, Asked) -> Vec<Act> + Send + 'static) -> Link {
    let pty = Arc::new(Pty::open().unwrap());
    let port = PortSettings::new(pty.path().display().to_string());
    let (out, mut coming) = mpsc::channel(64);
    let writer = Arc::clone(&pty);
    tokio::spawn(async move {
        while let Some(item) = coming.recv().await {
            if let Out::Bytes(bytes) = item {
                writer.write(&bytes).unwrap();
            }
        }
    });
    tokio::spawn(async move {
        let mut received = Vec::new();
        for n in 0.. {
            while received.len() < 8 {
                let mut bytes = [0; 64];
                let Ok(count) = pty.read(&mut bytes).await else { return };
                received.extend_from_slice(&bytes[..count]);
            }
            let request: Vec<u8> = received.drain(..8).collect();
            assert!(crc::is_right(&request), "the gateway sends whole requests: {request:?}");
            let (asked, transaction) = asked(Kind::Rtu, &request);
            act(Kind::Rtu, script(n, asked), transaction, &out);
        }
    });
    Link::ModbusRtu(RtuLink {
        port: PortSettings { speed: 115_200, ..port },
        timeout: TIMEOUT,
        echo: Echo::Auto,
        hold_off: Some(HOLD_OFF),
    })
}

async fn network(kind: Kind, mut script: impl FnMut(usize, Asked) -> Vec<Act> + Send + 'static) -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut n = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let (out, mut coming) = mpsc::channel(64);
            let mut closing = tokio::spawn(async move {
                while let Some(Out::Bytes(bytes)) = coming.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
            let mut request = vec![0; if kind == Kind::Tcp { 12 } else { 8 }];
            loop {
                tokio::select! {
                    read = reader.read_exact(&mut request) => if read.is_err() { break },
                    _ = &mut closing => break,
                }
                let (asked, transaction) = asked(kind, &request);
                act(kind, script(n, asked), transaction, &out);
                n += 1;
            }
        }
    });
    let endpoint = Endpoint { host: "127.0.0.1".into(), port };
    if kind == Kind::Tcp {
        Link::ModbusTcp(TcpLink { endpoint, timeout: TIMEOUT })
    } else {
        Link::ModbusRtuTcp(RtuTcpLink {
            endpoint,
            timeout: TIMEOUT,
            echo: Echo::Auto,
            hold_off: Some(HOLD_OFF),
        })
    }
}
