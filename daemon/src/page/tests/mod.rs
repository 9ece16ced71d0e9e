//! The page over real sockets, with a made-up plant behind it.

mod answers;
mod files;
mod past;
mod preview;
mod refused;
mod scrape;
mod states;
mod store;
mod stream;
mod texts;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::live::tests::{RUN, batch, info, shape};
use crate::model::{BootId, ClockQuality, RunId, Shape};
use crate::spool::{Keep, SpoolSettings};

/// Patience with a busy machine, not a delay.
const SOON: Duration = Duration::from_secs(20);

fn stamp() -> Stamp {
    Stamp { wall_us: 1_795_177_382_123_456, mono_us: 7_000_000, boot: BootId(1), clock: ClockQuality::Synced }
}

/// A page on a free port of this machine.
struct House {
    page: Page,
    task: JoinHandle<()>,
    live: Live,
    board: Board,
    spool: Spool,
    stop: CancellationToken,
    address: SocketAddr,
    state: TempDir,
}

async fn house(listen: &str) -> House {
    house_at(listen, Arc::new(stamp)).await
}

fn sources(
    live: &Live,
    board: &Board,
    spool: Spool,
    now: Arc<dyn Fn() -> Stamp + Send + Sync>,
    state: &TempDir,
) -> Sources {
    Sources {
        live: live.clone(),
        board: board.clone(),
        spool,
        now,
        state_directory: state.path().to_owned(),
        watch: Arc::new(|_| Box::new(|_| {})),
    }
}

async fn house_at(listen: &str, now: Arc<dyn Fn() -> Stamp + Send + Sync>) -> House {
    house_of(TempDir::new().expect("folder"), Keep::Unsent, listen, now).await
}

async fn house_of(
    state: TempDir,
    keep: Keep,
    listen: &str,
    now: Arc<dyn Fn() -> Stamp + Send + Sync>,
) -> House {
    let (live, board, stop) = (Live::new(), Board::default(), CancellationToken::new());
    let settings = SpoolSettings { keep, ..SpoolSettings::new(state.path()) };
    let opened = Spool::open(settings, board.clone(), stamp).expect("spool");
    let config = PageConfig {
        listen: vec![listen.parse().expect("address")],
        names: vec!["gw1.plant7.example".into()],
        certificate: None,
    };
    let spool = opened.spool;
    let sources = sources(&live, &board, spool.clone(), now, &state);
    board.update(|status| {
        status.gateway.id = "plant7-gw1".into();
        status.clock.synced = true;
    });
    let (page, task) = start(config, sources, stop.clone());
    let mut addresses = page.addresses();
    let address = timeout(SOON, addresses.wait_for(|all| !all.is_empty())).await;
    let address = address.expect("in time").expect("listening")[0];
    House { page, task, live, board, spool, stop, address, state }
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.into() };
        Self { status, head, body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

impl House {
    async fn raw(&self, request: &str) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.expect("connect");
        socket.write_all(request.as_bytes()).await.expect("write");
        let mut bytes = Vec::new();
        timeout(SOON, socket.read_to_end(&mut bytes)).await.expect("in time").expect("read");
        Answer::parse(&String::from_utf8_lossy(&bytes))
    }

    async fn get(&self, path: &str) -> Answer {
        let host = self.address;
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }

    async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    async fn close(self) {
        self.stop.cancel();
        timeout(SOON, self.task).await.expect("in time").expect("no panic");
    }
}

/// A device with `points` and its first value.
fn plant(house: &House, points: &[&str]) -> Arc<Shape> {
    house.live.describe(vec![info("meter-01", points)]);
    let shape = shape("meter-01", points);
    house.live.offer(&batch(&shape, RUN, 0, 5, &vec![230.5; points.len()]));
    shape
}

/// An event stream as its reader sees it.
struct Stream {
    socket: TcpStream,
    text: String,
}

/// One event.
#[derive(Debug)]
struct Event {
    name: String,
    id: Option<String>,
    data: serde_json::Value,
}

impl Stream {
    async fn open(house: &House, after: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(house.address).await.expect("connect");
        let host = house.address;
        let after = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!("GET /api/events HTTP/1.1\r\nHost: {host}\r\n{after}\r\n");
        socket.write_all(request.as_bytes()).await.expect("write");
        Self { socket, text: String::new() }
    }

    async fn more(&mut self) -> bool {
        let mut bytes = vec![0; 16 * 1024];
        let n = timeout(SOON, self.socket.read(&mut bytes)).await.expect("in time").unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        n > 0
    }

    /// The next event; `None` when the stream has ended. Chunk sizes and other lines are skipped.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(begin) = self.text.find("event: ")
                && let Some(end) = self.text[begin..].find("\n\n")
            {
                let text: String = self.text.drain(..begin + end + 2).skip(begin).collect();
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
                return Some(Event {
                    name: field("event: ").expect("a name").to_owned(),
                    id: field("id: ").map(str::to_owned),
                    data: serde_json::from_str(field("data: ").expect("data")).expect("JSON"),
                });
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn until(&mut self, name: &str) -> Event {
        let found = async {
            loop {
                let event = self.next().await.expect("the stream goes on");
                if event.name == name {
                    return event;
                }
            }
        };
        timeout(SOON, found).await.expect("the event comes, beats alone are not enough")
    }
}

fn other_run() -> RunId {
    RunId { counter: RUN.counter - 1, random: 5 }
}
