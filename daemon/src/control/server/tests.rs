//! Framing, bounds and hostile askers, over real Unix sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Plain;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::control::client::{AskError, ask, ask_one};

/// Answers `status` with one item, `export` with many, and refuses the rest.
struct Echo;

impl Answer for Echo {
    async fn answer(
        &self,
        request: Request,
        reply: &mut Reply<impl AsyncWrite + Unpin + Send>,
    ) -> Result<(), Failed> {
        match request {
            Request::Status {} => reply.item(&json!({"ok": true})).await,
            Request::Export { .. } => {
                for n in 0..100_000 {
                    if reply.is_broken() {
                        break;
                    }
                    reply.item(&json!({"n": n, "text": "line\nbreak"})).await;
                }
            }
            other => return Err(Failed { what: format!("no: {other:?}"), exit: 75 }),
        }
        Ok(())
    }
}

/// Runs the client's blocking part beside a server.
fn with_server<T: Send + 'static>(client: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listen(&socket).unwrap(), Arc::new(Echo), |_| {}, stop.clone()));
        let result = tokio::task::spawn_blocking(move || client(&socket)).await.unwrap();
        stop.cancel();
        server.await.unwrap();
        result
    })
}

const EXPORT: Request = Request::Export { device: None, from_us: None, to_us: None };

#[test]
fn a_request_gets_its_items_and_an_end() {
    with_server(|socket| {
        assert_eq!(ask_one(socket, &Request::Status {}).unwrap(), json!({"ok": true}));
        let mut count = 0;
        ask(socket, &EXPORT, |item: Value| {
            assert_eq!(item["n"], count);
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 100_000);
    });
}

#[test]
fn a_refusal_carries_its_words_and_its_exit_code() {
    with_server(|socket| match ask_one(socket, &Request::PageInvite {}) {
        Err(AskError::Refused { what, exit: 75 }) => assert!(what.starts_with("no: "), "{what}"),
        other => panic!("{other:?}"),
    });
}

#[test]
fn without_a_daemon_the_client_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    assert!(matches!(ask_one(&socket, &Request::Status {}), Err(AskError::NotRunning)));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(matches!(ask_one(&socket, &Request::Status {}), Err(AskError::NotRunning)), "a stale socket");
}

#[test]
fn hostile_requests_get_one_line_and_harm_nobody() {
    with_server(|socket| {
        let brackets = vec![b'['; 100_000];
        let garbage: [&[u8]; 6] = [
            b"\n",
            b"{}\n",
            b"{\"do\":\"reboot\"}\n",
            b"{\"do\":\"status\",\"extra\":1}\n",
            b"\xff\xfe\x00\n",
            &brackets,
        ];
        for bytes in garbage {
            let mut stream = Plain::connect(socket).unwrap();
            // The server may close before it has read everything.
            let _ = stream.write_all(bytes);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            if bytes.len() < REQUEST_MAX {
                assert!(answer.starts_with("{\"failed\":") && answer.lines().count() == 1, "{answer}");
            }
        }
        assert!(ask_one(socket, &Request::Status {}).is_ok());
    });
}

#[test]
fn silent_connections_do_not_shut_others_out_for_longer_than_their_deadline() {
    with_server(|socket| {
        let idle: Vec<Plain> = (0..CONNECTIONS_MAX + 4).map(|_| Plain::connect(socket).unwrap()).collect();
        let started = Instant::now();
        assert!(ask_one(socket, &Request::Status {}).is_ok());
        assert!(started.elapsed() < REQUEST_DEADLINE * 3, "{:?}", started.elapsed());
        drop(idle);
    });
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_nobody_takes_ends() {
    let (near, far) = tokio::io::duplex(1024);
    let (read, write) = tokio::io::split(near);
    let (mut asker, mut asking) = tokio::io::split(far);
    asking.write_all(b"{\"do\":\"export\"}\n").await.unwrap();
    // The paused clock jumps to the write deadline as soon as everybody waits.
    converse(read, write, &Echo).await;
    let mut first = [0; 8];
    asker.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"{\"item\":");
}

#[test]
fn a_socket_that_is_alive_is_not_taken_and_a_stale_one_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let first = listen(&socket).unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(listen(&socket).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(first);
    listen(&socket).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_socket_beats_and_one_that_hangs_alone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let beats = Arc::new(AtomicUsize::new(0));
    let seen = beats.clone();
    let beat = move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    };
    let socket = listen(&dir.path().join("control.sock")).unwrap();
    let mut serving = std::pin::pin!(serve(socket, Arc::new(Echo), beat, CancellationToken::new()));
    assert!(timeout(Duration::from_secs(60), &mut serving).await.is_err());
    let before = beats.load(Ordering::Relaxed);
    assert!(before >= 6, "{before}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(beats.load(Ordering::Relaxed), before, "only the loop itself beats");
}
