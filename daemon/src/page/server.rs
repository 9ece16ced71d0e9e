//! Sockets: listening, limits, TLS, and an orderly end. One task for each connection, all bounded by [`gate`].
//!
//! HTTP/1.1 only. A header must come whole within 5 s and fit 8 KiB; a handshake within 5 s; a peer that reads nothing
//! for 30 s is gone; an idle connection ends with the header's deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::page::guard::{Visit, dress};
use crate::page::stall::{Impatient, UNREAD_MAX};
use crate::page::words::refusals;
use crate::page::{App, Beat, certificate, lock, routes};

/// A request's header must be whole by then, and the next one must come by then.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// A request's header must fit.
const HEADER_BYTES: usize = 8 * 1024;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// What a stop gives to answers that are on their way.
const FAREWELL: Duration = Duration::from_secs(2);

/// An address that cannot be bound, or a machine without free descriptors, is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// Each loop turns at least so often, for the watchdog.
const TURN_EVERY: Duration = Duration::from_secs(10);

/// The kernel keeps at most about twice this for a viewer that does not read.
const SEND_BUFFER: u32 = 64 * 1024;

/// Sockets that are told to come back, at once; more are closed without a word.
const REFUSALS_MAX: usize = 8;

/// Listens on all addresses until the stop.
pub(super) async fn run(app: Arc<App>, announce: watch::Sender<Vec<SocketAddr>>) {
    let router = routes::router(&app);
    let mut listeners = JoinSet::new();
    for address in app.config.listen.clone() {
        listeners.spawn(listen(Arc::clone(&app), address, router.clone(), announce.clone()));
    }
    while listeners.join_next().await.is_some() {}
}

pub(super) async fn listen(
    app: Arc<App>,
    address: SocketAddr,
    router: Router,
    announce: watch::Sender<Vec<SocketAddr>>,
) {
    let mut warned: Option<String> = None;
    let beat = (app.sources.watch)(&format!("page {address}"));
    while !app.stop.is_cancelled() {
        beat(Instant::now());
        let problem = match prepare(&app, address, &beat).await {
            Ok((listener, tls)) => {
                say(&app, &mut warned, None);
                if let Ok(local) = listener.local_addr() {
                    announce.send_modify(|all| all.push(local));
                    tracing::info!(address = %local, "page listens");
                }
                return serve(&app, &listener, tls, &router, &beat).await;
            }
            Err(problem) => problem,
        };
        say(&app, &mut warned, Some(problem));
        tokio::select! {
            () = app.stop.cancelled() => {}
            () = sleep(AGAIN) => {}
        }
    }
    say(&app, &mut warned, None);
}

/// Puts the newest problem of one listener on the board, or takes it off. Logged on its edges.
fn say(app: &App, warned: &mut Option<String>, problem: Option<String>) {
    if *warned == problem {
        return;
    }
    app.sources.board.update(|status| {
        let warnings = &mut status.gateway.warnings;
        warnings.retain(|warning| Some(warning) != warned.as_ref());
        warnings.extend(problem.clone());
    });
    if let Some(problem) = &problem {
        tracing::error!(error = %problem, "page does not listen; trying again");
    }
    *warned = problem;
}

async fn prepare(
    app: &Arc<App>,
    address: SocketAddr,
    beat: &Beat,
) -> Result<(TcpListener, Option<TlsAcceptor>), String> {
    let tls = if address.ip().is_loopback() {
        None
    } else {
        let (tls, fingerprint) = certificate(app, beat).await?;
        *lock(&app.fingerprint) = Some(fingerprint);
        Some(tls)
    };
    let listener = bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "The page cannot listen on {address}, another program does: see \"ss -ltnp\", or choose another \
             address for listen in the [page] table."
        ),
        _ => format!("The page cannot listen on {address}: {error}."),
    })?;
    Ok((listener, tls))
}

/// Reads or makes the certificate on a thread of its own: a key takes an old board a while to make, and a sick disk takes
/// what it takes. Neither may hold up the runtime; the waiting is no standstill.
async fn certificate(app: &Arc<App>, beat: &Beat) -> Result<(TlsAcceptor, String), String> {
    let own = Arc::clone(app);
    let mut loading = tokio::task::spawn_blocking(move || certificate::load(&own.config, &own.sources));
    loop {
        match timeout(TURN_EVERY, &mut loading).await {
            Ok(Ok(loaded)) => return loaded.map_err(|error| error.to_string()),
            Ok(Err(panicked)) => return Err(format!("The page's certificate cannot be made: {panicked}.")),
            Err(_) => beat(Instant::now()),
        }
        if app.stop.is_cancelled() {
            return Err("The page was stopped.".into());
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(128)
}

async fn serve(
    app: &Arc<App>,
    listener: &TcpListener,
    tls: Option<TlsAcceptor>,
    router: &Router,
    beat: &Beat,
) {
    let mut connections = JoinSet::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        beat(Instant::now());
        let accepted = tokio::select! {
            () = app.stop.cancelled() => break,
            () = sleep(TURN_EVERY) => continue,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match app.seats.enter(peer.ip()) {
                Some(seat) => {
                    let Ok(local) = stream.local_addr() else { continue };
                    let visit = Arc::new(Visit { seat, local, tls: tls.is_some() });
                    let (app, tls, router) = (Arc::clone(app), tls.clone(), router.clone());
                    connections.spawn(async move { connection(&app, stream, visit, tls, router).await });
                }
                None => {
                    // Over TLS this would cost a handshake: there the socket is closed.
                    if tls.is_none()
                        && let Ok(turn) = Arc::clone(&refusals).try_acquire_owned()
                    {
                        connections.spawn(async move {
                            turn_away(stream).await;
                            drop(turn);
                        });
                    }
                }
            },
            Err(error) => {
                // Out of descriptors, most likely: those that are open serve on.
                tracing::warn!(%error, "page cannot accept; waiting");
                tokio::select! {
                    () = app.stop.cancelled() => break,
                    () = sleep(AGAIN) => {}
                }
            }
        }
    }
    // Streams end by themselves with the stop.
    let farewell = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, farewell).await.is_err() {
        tracing::debug!("page closed with connections open");
    }
}

async fn connection(
    app: &App,
    stream: TcpStream,
    visit: Arc<Visit>,
    tls: Option<TlsAcceptor>,
    router: Router,
) {
    // Without these the connection works, only less well.
    let _ = stream.set_nodelay(true);
    let unread = u32::try_from(UNREAD_MAX.as_millis()).unwrap_or(u32::MAX);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &unread);
    let stream = Impatient::new(stream);
    match tls {
        None => talk(app, stream, visit, router).await,
        Some(tls) => {
            let shaken = tokio::select! {
                () = app.stop.cancelled() => return,
                shaken = timeout(HANDSHAKE_WITHIN, tls.accept(stream)) => shaken,
            };
            // Scanners and browsers that dislike the certificate end here, every day.
            if let Ok(Ok(stream)) = shaken {
                talk(app, stream, visit, router).await;
            }
        }
    }
}

async fn talk<S>(app: &App, stream: S, visit: Arc<Visit>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&visit));
        router.call(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN).max_buf_size(HEADER_BYTES);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "page connection ended");
    }
}

/// 503 for a socket that found no seat.
async fn turn_away(mut stream: TcpStream) {
    let mut headers = HeaderMap::new();
    dress(&mut headers);
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nRetry-After: {}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n",
        routes::COME_BACK_S,
        refusals::TOO_MANY_VIEWERS.len()
    );
    for (name, value) in &headers {
        answer.extend([name.as_str(), ": ", value.to_str().unwrap_or_default(), "\r\n"]);
    }
    answer.push_str("\r\n");
    answer.push_str(refusals::TOO_MANY_VIEWERS);
    let conversation = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with a request unread would reset the connection before the answer is seen.
        let mut request = [0; HEADER_BYTES];
        stream.read(&mut request).await
    };
    // Whoever does not listen is gone.
    let _ = timeout(Duration::from_secs(1), conversation).await;
}
