//! The routes. Each answers one question; none changes the plant.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Extension, FromRequest as _, Query, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::live::Position;
use crate::live::trend::Mark;
use crate::model::Stamp;
use crate::page::access::{Refused, SESSION_LIFE, Token};
use crate::page::body::pieces;
use crate::page::encode::{Known, Past, Points, Trends, device_head, rfc3339};
use crate::page::events::{PIECE_POINTS, Viewer};
use crate::page::guard::{COOKIE, SessionEnds, Visit, come_back, guard, refuse};
use crate::page::words::refusals;
use crate::page::{App, assets, lock, metrics, report, summary};
use crate::spool::{HistoryCursor, HistoryQuery, Keep};

/// Values in one answer of `/api/history`.
pub(super) const HISTORY_MAX: usize = 10_000;

/// What a request may carry: one token.
const BODY_MAX: usize = 1024;

/// ... and by when it must be whole.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// `Retry-After` when all seats are taken, s.
pub(super) const COME_BACK_S: u16 = 5;

/// Everything.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(async || assets::html(assets::INDEX)))
        .route("/invite", get(async || assets::html(assets::INVITE)))
        .route("/api/session", post(open_session))
        .route("/api/events", get(events))
        .route("/api/status", get(status))
        .route("/api/readings", get(readings))
        .route("/api/history", get(history))
        .route("/api/report", get(plain_report))
        .route("/metrics", get(prometheus))
        .route("/healthz", get(async || "ok\n"))
        .fallback(file)
        .method_not_allowed_fallback(async || refuse(StatusCode::METHOD_NOT_ALLOWED, refusals::METHOD))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

async fn file(uri: Uri) -> Response {
    assets::file(uri.path()).unwrap_or_else(|| refuse(StatusCode::NOT_FOUND, refusals::NOT_FOUND))
}

fn as_json(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}

async fn status(State(app): State<Arc<App>>) -> Response {
    as_json(app.dated(&app.status()))
}

async fn plain_report(State(app): State<Arc<App>>) -> String {
    let (status, now_us) = (app.sources.board.snapshot(), (app.sources.now)().wall_us);
    report::report(&status, &summary(&status, now_us), now_us)
}

async fn prometheus(State(app): State<Arc<App>>) -> Response {
    let (status, now_us) = (app.sources.board.snapshot(), (app.sources.now)().wall_us);
    let text = metrics::metrics(&status, &summary(&status, now_us), app.sources.live.watching());
    ([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response()
}

#[derive(Deserialize)]
struct After {
    after: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    Extension(visit): Extension<Arc<Visit>>,
    Extension(SessionEnds(ends)): Extension<SessionEnds>,
    Query(After { after }): Query<After>,
    headers: HeaderMap,
) -> Response {
    // A browser that reconnects by itself sends the header; a page that opens a new stream can only use the query.
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let text = header.or(after.as_deref()).filter(|text| !text.is_empty());
    let Ok(after) = text.map(str::parse::<Position>).transpose() else {
        return refuse(StatusCode::BAD_REQUEST, refusals::BAD_QUESTION);
    };
    if !visit.seat.view() {
        return come_back(StatusCode::SERVICE_UNAVAILABLE, refusals::TOO_MANY_VIEWERS, COME_BACK_S);
    }
    let (writer, body) = pieces();
    let viewer = Viewer::new(&app, writer, ends.map(tokio::time::Instant::from_std));
    tokio::spawn(viewer.serve(after));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // The seat is a viewer's to the end of the connection, so the connection ends with the stream.
    let last = (header::CONNECTION, HeaderValue::from_static("close"));
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([kind, last, unbuffered], body).into_response()
}

#[derive(Deserialize)]
struct OneDevice {
    device: Option<String>,
}

async fn readings(State(app): State<Arc<App>>, Query(OneDevice { device }): Query<OneDevice>) -> Response {
    let known = |name: &str| app.sources.live.read(|plant| plant.device(name).is_some());
    if device.as_deref().is_some_and(|name| !known(name)) {
        return refuse(StatusCode::NOT_FOUND, refusals::NO_SUCH_POINT);
    }
    let (writer, body) = pieces();
    tokio::spawn(async move {
        // The reader may leave in the middle; then there is nobody to tell.
        let _ = write_readings(&app, device.as_deref(), &writer).await;
    });
    as_json(body)
}

/// Writes all devices, or one, some points at a time, so that a large plant needs no large answer in memory.
async fn write_readings(
    app: &App,
    only: Option<&str>,
    to: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let live = &app.sources.live;
    let stamp = (app.sources.now)();
    let (gateway, position) =
        (app.sources.board.read(|status| status.gateway.id.clone()), live.read(|plant| plant.position));
    let head = json!({
        "gateway": gateway,
        "run": position.map(|position| position.run.to_string()),
        "seq": position.map(|position| position.seq),
        "now": rfc3339(stamp.wall_us),
        "mono_ms": stamp.mono_us / 1000,
    });
    let mut text = head.to_string();
    text.pop();
    text.push_str(",\"devices\":[");
    let names: Vec<Arc<str>> = live.read(|plant| {
        let wanted =
            plant.devices.iter().filter(|device| only.is_none_or(|only| *only == *device.info.device));
        wanted.map(|device| Arc::clone(&device.info.device)).collect()
    });
    for (i, name) in names.iter().enumerate() {
        let mut first = 0;
        loop {
            let more = live.read(|plant| {
                let device = plant.device(name)?;
                if first == 0 {
                    text.push_str(if i > 0 { ",{" } else { "{" });
                    text.push_str(&device_head(&device.info));
                    text.push_str(",\"points\":[");
                }
                let points = Points { device, first, count: PIECE_POINTS, trends: Trends::All };
                text.push_str(&points.inside(first > 0));
                Some(first + PIECE_POINTS < device.info.points.len())
            });
            // A device that a reload has just taken away ends here.
            if more != Some(true) {
                text.push_str(if more.is_some() || first > 0 { "]}" } else { "" });
                break;
            }
            to.send(Bytes::from(std::mem::take(&mut text))).await?;
            first += PIECE_POINTS;
        }
    }
    text.push_str("]}");
    to.send(Bytes::from(text)).await
}

#[derive(Deserialize)]
struct WhichHistory {
    #[serde(default)]
    device: String,
    #[serde(default)]
    point: String,
    from: Option<String>,
    to: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

impl WhichHistory {
    /// What it cannot do without.
    fn missing(&self) -> Option<&'static str> {
        match (self.device.is_empty(), self.point.is_empty()) {
            (true, true) => Some("device and point"),
            (true, false) => Some("device"),
            (false, true) => Some("point"),
            (false, false) => None,
        }
    }

    /// `None`: a time or the cursor is not one.
    fn query(&self) -> Option<HistoryQuery> {
        let time = |text: &Option<String>, otherwise| match text {
            Some(text) => microseconds(text),
            None => Some(otherwise),
        };
        Some(HistoryQuery {
            device: self.device.clone(),
            point: self.point.clone(),
            from_us: time(&self.from, i64::MIN)?,
            to_us: time(&self.to, i64::MAX)?,
            after: self.cursor.as_deref().map(str::parse::<HistoryCursor>).transpose().ok()?,
            limit: self.limit.unwrap_or(HISTORY_MAX).clamp(1, HISTORY_MAX),
        })
    }
}

/// RFC 3339, or whole microseconds since 1970.
fn microseconds(text: &str) -> Option<i64> {
    if let Ok(us) = text.parse() {
        return Some(us);
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1000).ok()
}

async fn history(
    State(app): State<Arc<App>>,
    asked: Result<Query<WhichHistory>, QueryRejection>,
) -> Response {
    // Of what cannot be parsed the parser's own words would say more about us than about the address.
    let Ok(Query(which)) = asked else {
        return refuse(StatusCode::BAD_REQUEST, refusals::BAD_QUESTION);
    };
    if let Some(what) = which.missing() {
        return refuse(StatusCode::BAD_REQUEST, refusals::lacks(what));
    }
    let Some(query) = which.query() else {
        return refuse(StatusCode::BAD_REQUEST, refusals::BAD_QUESTION);
    };
    // A reload may have changed it since the page began.
    let memory = app.sources.spool.keep() == Keep::Unsent;
    // Held until the answer is written. The semaphore is never closed.
    let Ok(turn) = Arc::clone(&app.histories).acquire_owned().await else {
        return come_back(StatusCode::SERVICE_UNAVAILABLE, refusals::NO_HISTORY, COME_BACK_S);
    };
    let (values, next) = if memory {
        let Some(values) = from_memory(&app, &query) else {
            return refuse(StatusCode::NOT_FOUND, refusals::NO_SUCH_POINT);
        };
        (values, None)
    } else {
        match app.sources.spool.history(query).await {
            Ok(page) => (page.values.into_iter().map(Past::from).collect(), page.next),
            Err(error) => {
                let words = format!("{}{error}", refusals::NO_HISTORY);
                return refuse(StatusCode::SERVICE_UNAVAILABLE, words);
            }
        }
    };
    let head = json!({
        "device": which.device,
        "point": which.point,
        "source": if memory { "memory" } else { "disk" },
        "note": memory.then_some(refusals::HISTORY_IN_MEMORY),
        "next": next.map(|cursor| cursor.to_string()),
    });
    let (writer, body) = pieces();
    tokio::spawn(async move {
        // The reader may leave in the middle; then there is nobody to tell.
        let _ = write_history(&head, &values, &writer).await;
        drop(turn);
    });
    as_json(body)
}

async fn write_history(
    head: &serde_json::Value,
    values: &[Past],
    to: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let mut text = head.to_string();
    text.pop();
    text.push_str(",\"values\":[");
    for (i, some) in values.chunks(PIECE_POINTS).enumerate() {
        text.push_str(if i > 0 { "," } else { "" });
        let list = serde_json::to_string(some).expect("our own types always print");
        text.push_str(list.get(1..list.len() - 1).unwrap_or_default());
        to.send(Bytes::from(std::mem::take(&mut text))).await?;
    }
    text.push_str("]}");
    to.send(Bytes::from(text)).await
}

/// The trend of a point as history; `None` if there is no such point.
fn from_memory(app: &App, query: &HistoryQuery) -> Option<Vec<Past>> {
    let now = (app.sources.now)();
    app.sources.live.read(|plant| {
        let device = plant.device(&query.device)?;
        let place = device.info.points.iter().position(|point| *point.name == *query.point)?;
        let trend = device.trends.get(place)?.as_ref();
        let marks: Vec<Mark> = trend.map(|trend| trend.marks().collect()).unwrap_or_default();
        let past = marks.into_iter().map(|mark| Past {
            at: None,
            wall_us: wall(&now, mark.at_s),
            clock: now.clock,
            known: Known::Number(mark.number),
        });
        Some(
            past.filter(|past| (query.from_us..query.to_us).contains(&past.wall_us))
                .take(query.limit)
                .collect(),
        )
    })
}

/// The wall clock of a running time that has passed.
fn wall(now: &Stamp, at_s: i32) -> i64 {
    let ago_us = now.mono_us.saturating_sub(u64::try_from(at_s).unwrap_or(0) * 1_000_000);
    now.wall_us.saturating_sub(i64::try_from(ago_us).unwrap_or(i64::MAX))
}

#[derive(Deserialize)]
struct Accept {
    token: String,
}

/// Turns an invitation into a session.
async fn open_session(
    State(app): State<Arc<App>>,
    Extension(visit): Extension<Arc<Visit>>,
    request: Request,
) -> Response {
    // Who sends a header and no body would keep the seat, and needs no invitation for that.
    let Ok(read) = timeout(BODY_WITHIN, Json::<Accept>::from_request(request, &())).await else {
        return refuse(StatusCode::REQUEST_TIMEOUT, refusals::TOO_SLOW);
    };
    let token = match read {
        Ok(Json(Accept { token })) => token,
        Err(rejection) => return rejection.into_response(),
    };
    if !visit.tls {
        return refuse(StatusCode::NOT_FOUND, refusals::NOT_FOUND);
    }
    let Some(session) = Token::draw() else {
        return come_back(StatusCode::SERVICE_UNAVAILABLE, refusals::TOO_MANY_GUESSES, COME_BACK_S);
    };
    let by = (visit.seat.address(), std::time::Instant::now());
    match lock(&app.access).accept(&token, &session, by) {
        Ok(()) => {
            let life = SESSION_LIFE.as_secs();
            let cookie = format!(
                "{COOKIE}={}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Strict",
                session.reveal()
            );
            match HeaderValue::from_str(&cookie) {
                Ok(cookie) => (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response(),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
        Err(Refused::NotValid) => refuse(StatusCode::UNAUTHORIZED, refusals::NO_INVITATION),
        Err(Refused::TooManyGuesses) => {
            come_back(StatusCode::TOO_MANY_REQUESTS, refusals::TOO_MANY_GUESSES, 60)
        }
    }
}
