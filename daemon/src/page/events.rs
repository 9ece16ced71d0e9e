//! `/api/events`: the live picture as server-sent events (WHATWG HTML, 9.2), resumable.
//!
//! ```text
//! event: status    {now, mono_ms, summary, status}      when something changed, at most every 2 s
//! event: gap       {from, to, why}                      readings in between were not sent to this viewer
//! event: snapshot  {run, position, generation, devices} all that is known follows
//! event: device    {device, bus, label, of, first, points: [..]}   one for each 100 points
//! event: ready     {position}                           end of the snapshot          id: run:seq
//! event: readings  {from, to, batches: [..]}            what came, without a hole    id: run:seq
//! event: beat      {now, mono_ms}                       after 15 s of silence
//! ```
//!
//! `id` is the position reached: everything below `seq` has been sent. A viewer that comes back with
//! `Last-Event-ID` (or `?after=`) goes on exactly there if memory reaches back that far; if not, `gap` says so and a
//! snapshot follows. A viewer has a position, not a queue: while it does not read, nothing is made for it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::live::{Hole, Live, Position, Since, Watching};
use crate::model::Batch;
use crate::page::App;
use crate::page::encode::{Points, ShownBatch, Trends, device_head, rfc3339};

/// At most two `readings` events a second.
const EVENT_EVERY: Duration = Duration::from_millis(500);

/// At most one `status` event in this time, and fewer when it is large.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// A phone on a poor network takes this many bytes of status a second without harm.
const STATUS_BYTES_A_SECOND: usize = 50_000;

/// Silence that says "still here".
const BEAT_EVERY: Duration = Duration::from_secs(15);

/// Points in one `device` event.
pub(super) const PIECE_POINTS: usize = 100;

/// Memory of the batches in one `readings` event.
const READINGS_BYTES: usize = 32 * 1024;

/// The viewer is gone, or must go.
struct Gone;

/// One viewer.
pub(super) struct Viewer {
    app: Arc<App>,
    live: Live,
    to: mpsc::Sender<Bytes>,
    /// Everything below has been sent.
    position: Option<Position>,
    generation: u64,
    status: Arc<str>,
    status_due: Instant,
    beat_due: Instant,
    ends: Option<Instant>,
    stop: CancellationToken,
}

impl Viewer {
    /// A viewer that writes to `to`, until its session `ends`.
    pub(super) fn new(app: &Arc<App>, to: mpsc::Sender<Bytes>, ends: Option<Instant>) -> Self {
        let now = Instant::now();
        Self {
            live: app.sources.live.clone(),
            stop: app.stop.clone(),
            app: Arc::clone(app),
            to,
            position: None,
            generation: 0,
            status: Arc::from(""),
            status_due: now,
            beat_due: now + BEAT_EVERY,
            ends,
        }
    }

    /// Serves it until it is gone. `after` is where it left off.
    pub(super) async fn serve(mut self, after: Option<Position>) {
        let mut watching = self.live.watch();
        // Whoever is gone needs no farewell; whoever must go sees the stream end.
        let _ = self.run(after, &mut watching).await;
    }

    async fn run(&mut self, after: Option<Position>, watching: &mut Watching) -> Result<(), Gone> {
        self.write("retry: 2000\n\n".into()).await?;
        self.status().await?;
        match after {
            Some(after) => {
                self.generation = self.live.read(|plant| plant.generation);
                self.position = Some(after);
                let resumed = json!({ "generation": self.generation });
                self.event("resumed", None, &resumed).await?;
                self.readings().await?;
            }
            None => self.snapshot().await?,
        }
        loop {
            let (stop, to) = (self.stop.clone(), self.to.clone());
            let timer = self.status_due.min(self.beat_due);
            let news = tokio::select! {
                () = stop.cancelled() => return Err(Gone),
                () = to.closed() => return Err(Gone),
                () = until(self.ends) => return Err(Gone),
                () = watching.news() => true,
                () = sleep_until(timer) => false,
            };
            let next = Instant::now() + EVENT_EVERY;
            if news {
                self.readings().await?;
            }
            let now = Instant::now();
            if now >= self.status_due {
                self.status().await?;
            }
            if now >= self.beat_due {
                self.beat().await?;
            }
            if news {
                tokio::select! {
                    () = stop.cancelled() => return Err(Gone),
                    () = to.closed() => return Err(Gone),
                    () = sleep_until(next) => {}
                }
            }
        }
    }

    /// All that came since the position; after a hole, all that is known.
    async fn readings(&mut self) -> Result<(), Gone> {
        loop {
            let (generation, now) = self.live.read(|plant| (plant.generation, plant.position));
            if generation != self.generation {
                return self.snapshot().await;
            }
            let Some(now) = now else { return Ok(()) };
            // Nothing had been read when this viewer came: it sees the run from its beginning.
            let from = self.position.unwrap_or(Position { run: now.run, seq: 0 });
            match self.live.since(from, READINGS_BYTES) {
                Since::Batches(batches, Some(next)) => {
                    let readings = Readings { from: from.seq, to: next.seq, batches: &batches };
                    self.event("readings", Some(next), &readings).await?;
                    self.position = Some(next);
                }
                Since::Batches(..) => return Ok(()),
                Since::Hole(hole) => {
                    let why = match hole {
                        Hole::Restarted => "restarted",
                        Hole::TooOld => "too_old",
                    };
                    let gap = json!({ "from": from.to_string(), "to": now.to_string(), "why": why });
                    self.event("gap", None, &gap).await?;
                    return self.snapshot().await;
                }
            }
        }
    }

    async fn snapshot(&mut self) -> Result<(), Gone> {
        let (generation, position, devices) =
            self.live.read(|plant| (plant.generation, plant.position, plant.devices.len()));
        self.generation = generation;
        let stamp = (self.app.sources.now)();
        let head = json!({
            "generation": generation,
            "position": position.map(|position| position.to_string()),
            "now": rfc3339(stamp.wall_us),
            "mono_ms": stamp.mono_us / 1000,
            "devices": devices,
        });
        self.event("snapshot", None, &head).await?;
        let (mut device, mut first) = (0, 0);
        loop {
            let piece = self.live.read(|plant| {
                // After a reload the next turn sends a new snapshot.
                let found = plant.devices.get(device).filter(|_| plant.generation == generation)?;
                let points = Points { device: found, first, count: PIECE_POINTS, trends: Trends::Headline };
                let head = device_head(&found.info);
                let data = format!("{{{head},\"first\":{first},\"points\":[{}]}}", points.inside(false));
                Some((frame("device", None, &data), found.info.points.len()))
            });
            let Some((piece, points)) = piece else { break };
            self.write(piece).await?;
            first += PIECE_POINTS;
            if first >= points {
                (device, first) = (device + 1, 0);
            }
        }
        self.position = position;
        self.event("ready", position, &json!({ "devices": devices })).await
    }

    async fn status(&mut self) -> Result<(), Gone> {
        let status = self.app.status();
        let pause = STATUS_EVERY.max(Duration::from_secs((status.len() / STATUS_BYTES_A_SECOND) as u64));
        self.status_due = Instant::now() + pause;
        if *status == *self.status {
            return Ok(());
        }
        let data = self.app.dated(&status);
        self.status = status;
        self.write(frame("status", None, &data)).await
    }

    async fn beat(&mut self) -> Result<(), Gone> {
        let stamp = (self.app.sources.now)();
        let data = json!({ "now": rfc3339(stamp.wall_us), "mono_ms": stamp.mono_us / 1000 });
        self.write(format!(": still here\n{}", text("beat", None, &data))).await
    }

    async fn event(&mut self, name: &str, id: Option<Position>, data: &impl Serialize) -> Result<(), Gone> {
        self.write(text(name, id, data)).await
    }

    async fn write(&mut self, text: String) -> Result<(), Gone> {
        self.beat_due = Instant::now() + BEAT_EVERY;
        let (stop, ends) = (&self.stop, self.ends);
        tokio::select! {
            sent = self.to.send(Bytes::from(text)) => sent.map_err(|_| Gone),
            () = stop.cancelled() => Err(Gone),
            () = until(ends) => Err(Gone),
        }
    }
}

async fn until(ends: Option<Instant>) {
    match ends {
        Some(ends) => sleep_until(ends).await,
        None => std::future::pending().await,
    }
}

#[derive(Serialize)]
struct Readings<'a> {
    from: u64,
    to: u64,
    #[serde(serialize_with = "shown")]
    batches: &'a [Arc<Batch>],
}

fn shown<S: serde::Serializer>(batches: &[Arc<Batch>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(batches.iter().map(|batch| ShownBatch(batch)))
}

fn text(name: &str, id: Option<Position>, data: &impl Serialize) -> String {
    // Our own types: maps with text keys and finite numbers.
    frame(name, id, &serde_json::to_string(data).expect("our own types always print"))
}

/// One event. JSON holds no line break, so `data` is one line whatever a device has said.
fn frame(name: &str, id: Option<Position>, data: &str) -> String {
    let id = id.map(|position| format!("id: {position}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n")
}
