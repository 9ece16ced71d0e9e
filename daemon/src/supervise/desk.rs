//! The desk where the command line asks: it looks things up for the control socket. All it can change is what the spool
//! sends again.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldspool_drivers::point::Point;
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::buses::Buses;
use crate::config::{Config, ConfiguredBus};
use crate::control::Request;
use crate::control::probe::{self, Target};
use crate::control::rows::rows;
use crate::control::server::{Answer, Failed, Reply};
use crate::model::NotARun;
use crate::page::{Page, words};
use crate::schedule::{Command, Heard};
use crate::spool::{Asked, ExportQuery, Spool, SpoolError};
use crate::status::Board;

/// A bus polls something else before it answers; with many silent devices that takes seconds.
const READ_WITHIN: Duration = Duration::from_secs(50);

/// While a long search goes on, the asker hears this often how far it is.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Where answers come from.
pub(super) struct Desk {
    board: Board,
    spool: Spool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    buses: Vec<(Arc<ConfiguredBus>, mpsc::Sender<Command>)>,
    page: Option<Page>,
}

impl Desk {
    pub(super) fn new(board: Board, spool: Spool) -> Self {
        Self { board, spool, known: Mutex::default() }
    }

    /// The buses that can be asked now.
    pub(super) fn describe(&self, config: &Config, buses: &Buses) {
        let known = config
            .buses
            .iter()
            .filter_map(|bus| Some((Arc::clone(bus), buses.get(&bus.spec.name)?.commands()?.clone())));
        self.known().buses = known.collect();
    }

    /// The page that invites.
    pub(super) fn page(&self, page: Option<Page>) {
        self.known().page = page;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(
        &self,
        (bus, device, point, all_types): (String, String, Option<String>, bool),
        reply: &mut Reply<impl AsyncWrite + Unpin + Send>,
    ) -> Result<(), Failed> {
        let found = self.known().buses.iter().find(|(known, _)| *known.spec.name == *bus).cloned();
        let Some((configured, commands)) = found else {
            let names: Vec<String> =
                self.known().buses.iter().map(|(known, _)| known.spec.name.to_string()).collect();
            return Err(not_found(&probe::unknown(("bus", &bus), "", &names)));
        };
        let target = Target::find(&configured, &device, point.as_deref()).map_err(|what| not_found(&what))?;
        let mut why = None;
        for points in target.rounds(all_types) {
            let Heard { poll, down } = ask(&commands, target.device, points.clone()).await?;
            for now in target.say(&points, &poll) {
                reply.item(&now).await;
            }
            why = down;
        }
        if let Some(why) = why {
            reply.item(&json!({"why": *why})).await;
        }
        Ok(())
    }

    async fn export(
        &self,
        mut query: ExportQuery,
        reply: &mut Reply<impl AsyncWrite + Unpin + Send>,
    ) -> Result<(), Failed> {
        loop {
            let page = self.spool.export(query.clone()).await;
            let page = page.map_err(|error| Failed { what: error.to_string(), exit: error.exit_code() })?;
            for batch in &page.batches {
                reply.item(&rows(batch)).await;
            }
            reply.item(&page.progress).await;
            match page.next {
                Some(next) if !reply.is_broken() => query.after = Some(next),
                _ => return Ok(()),
            }
        }
    }
}

/// Waits for a long answer, and says meanwhile how far it is. An asker that goes away ends a question; a request to send
/// again goes on without one.
async fn long<T: Serialize>(
    answer: impl Future<Output = Result<T, SpoolError>>,
    progress: watch::Receiver<f64>,
    reply: &mut Reply<impl AsyncWrite + Unpin + Send>,
) -> Result<(), Failed> {
    let mut answer = pin!(answer);
    let answer = loop {
        if let Ok(answer) = timeout(SAY_EVERY, &mut answer).await {
            break answer;
        }
        let behind = *progress.borrow();
        reply.item(&behind).await;
        if reply.is_broken() {
            return Ok(());
        }
    };
    let answer = answer.map_err(|error| Failed { what: error.to_string(), exit: error.exit_code() })?;
    reply.item(&answer).await;
    Ok(())
}

fn not_found(what: &str) -> Failed {
    Failed { what: what.to_owned(), exit: 66 }
}

async fn ask(commands: &mpsc::Sender<Command>, device: usize, points: Vec<Point>) -> Result<Heard, Failed> {
    let busy = |what: &str| Failed { what: what.to_owned(), exit: 75 };
    let (reply, answer) = oneshot::channel();
    let asked = commands.try_send(Command::Read { device, points, reply });
    asked.map_err(|_| busy("the bus is busy with other questions; try again"))?;
    match timeout(READ_WITHIN, answer).await {
        Ok(Ok(heard)) => Ok(heard),
        _ => Err(busy("the bus did not come to it; is it stuck? see fieldspool status")),
    }
}

impl Answer for Desk {
    async fn answer(
        &self,
        request: Request,
        reply: &mut Reply<impl AsyncWrite + Unpin + Send>,
    ) -> Result<(), Failed> {
        let (progress, seen) = watch::channel(0.0);
        match request {
            Request::Status {} => reply.item(&self.board.snapshot()).await,
            Request::Read { bus, device, point, all_types } => {
                return self.read((bus, device, point, all_types), reply).await;
            }
            Request::Export { device, from_us, to_us } => {
                let query = ExportQuery { device, from_us, to_us, ..ExportQuery::default() };
                return self.export(query, reply).await;
            }
            Request::ResendReadings { run, first, next } => {
                let run =
                    run.parse().map_err(|fault: NotARun| Failed { what: fault.to_string(), exit: 64 })?;
                let asked = Asked::Stretch { run, first, next };
                return long(self.spool.resend(asked, progress), seen, reply).await;
            }
            Request::ResendSince { since_us } => {
                let asked = Asked::Since { wall_us: since_us };
                return long(self.spool.resend(asked, progress), seen, reply).await;
            }
            Request::Verify {} => return long(self.spool.verify(progress), seen, reply).await,
            Request::PageInvite {} => {
                let page = self.known().page.clone();
                let Some(page) = page else {
                    let what = if self.board.read(|status| status.gateway.safe_mode) {
                        format!("the page is off after {}; see fieldspool status", words::CRASH_LOOP)
                    } else {
                        "the page is switched off (page = false)".into()
                    };
                    return Err(Failed { what, exit: 69 });
                };
                let made = page.invite().map_err(|error| Failed { what: error.to_string(), exit: 69 })?;
                let fingerprint = made.fingerprint;
                reply.item(&json!({"links": made.links, "qr": made.qr, "fingerprint": fingerprint})).await;
            }
        }
        Ok(())
    }
}
