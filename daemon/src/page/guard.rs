//! What every request passes, whatever its route: the `Host`, the origin, the session. And what every answer carries.
//!
//! Deny by default: a route is open to the network only if it stands in [`OPEN`], which serves the invitation itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::page::gate::{Seat, names_us};
use crate::page::words::refusals;
use crate::page::{App, assets, lock};

/// Nothing but our own files; no framing.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// `__Host-`: browsers take it only over TLS, for this host, for all paths.
pub(super) const COOKIE: &str = "__Host-fieldspool";

/// Paths that need no session: the way in.
const OPEN: &[&str] = &["/invite", "/invite.js", "/style.css", "/icon.svg", "/api/session"];

/// What every answer carries, also errors and streams.
const ALWAYS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The connection a request came by.
#[derive(Debug)]
pub(super) struct Visit {
    /// Its seat.
    pub(super) seat: Seat,
    /// Our end.
    pub(super) local: SocketAddr,
    /// TLS, and therefore a session is needed.
    pub(super) tls: bool,
}

/// Until when the session of a request is good; `None` on loopback, where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionEnds(pub(super) Option<Instant>);

/// The one layer round all routes.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let mut response = match judge(&app, &request) {
        Ok(ends) => {
            request.extensions_mut().insert(ends);
            next.run(request).await
        }
        Err(Refusal(StatusCode::UNAUTHORIZED, _)) => uninvited(request.headers()),
        Err(Refusal(status, words)) => refuse(status, words),
    };
    dress(response.headers_mut());
    response
}

/// Puts on what every answer carries.
pub(super) fn dress(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

struct Refusal(StatusCode, &'static str);

fn judge(app: &App, request: &Request) -> Result<SessionEnds, Refusal> {
    let Some(visit) = request.extensions().get::<Arc<Visit>>() else {
        // Every connection puts its visit in; without one nothing is known about the sender.
        return Err(Refusal(StatusCode::FORBIDDEN, refusals::FOREIGN));
    };
    if !host_is_ours(app, request, visit) {
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, refusals::WRONG_HOST));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !same_origin(request.headers(), visit.tls)
    {
        return Err(Refusal(StatusCode::FORBIDDEN, refusals::FOREIGN));
    }
    if !visit.tls {
        return Ok(SessionEnds(None));
    }
    let ends =
        session(request.headers()).and_then(|cookie| lock(&app.access).session_ends(cookie, Instant::now()));
    if ends.is_none() && !OPEN.contains(&request.uri().path()) {
        return Err(Refusal(StatusCode::UNAUTHORIZED, refusals::NO_INVITATION));
    }
    Ok(SessionEnds(ends))
}

fn host_is_ours(app: &App, request: &Request, visit: &Visit) -> bool {
    let ours = |host: &str| names_us(host, visit.local, visit.tls, &app.config.names);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    // The absolute form names the host twice.
    host.to_str().is_ok_and(ours)
        && request.uri().authority().is_none_or(|authority| ours(authority.as_str()))
}

/// A request that changes something must come from our own page.
fn same_origin(headers: &HeaderMap, tls: bool) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let scheme = if tls { "https" } else { "http" };
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin == format!("{scheme}://{host}"),
        _ => false,
    }
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

fn uninvited(headers: &HeaderMap) -> Response {
    let wants_html = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if wants_html.is_some_and(|accept| accept.contains("text/html")) {
        let mut response = assets::html(assets::DENIED);
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return response;
    }
    refuse(StatusCode::UNAUTHORIZED, refusals::NO_INVITATION)
}

/// An error in words.
pub(super) fn refuse(status: StatusCode, words: impl Into<String>) -> Response {
    let mut words: String = words.into();
    words.push('\n');
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
    (status, kind, Body::from(words)).into_response()
}

/// An error that passes by itself.
pub(super) fn come_back(status: StatusCode, words: &str, seconds: u16) -> Response {
    let mut response = refuse(status, words);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
