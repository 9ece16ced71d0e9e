//! Requests and answers: headers, hosts, limits, access, API.

use fieldspool_drivers::{Cause, Sample, Value};
use serde_json::json;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::model::{Batch, Reading};
use crate::page::gate::{OTHERS_MAX, VIEWERS_MAX};
use crate::page::guard::{COOKIE, POLICY};

fn is_dressed(answer: &Answer) {
    let policy = POLICY.to_ascii_lowercase();
    for (name, value) in [
        ("content-security-policy", &*policy),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "deny"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert!(!answer.head.contains("access-control-"), "no CORS: {answer:?}");
}

#[tokio::test]
async fn every_answer_carries_the_policy_also_errors() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let files = assets::FILES.iter().map(|(path, ..)| *path);
    let good =
        ["/", "/invite", "/words.js", "/api/status", "/api/readings", "/api/report", "/metrics", "/healthz"];
    for path in good.into_iter().chain(files).chain(["/api/history?device=meter-01&point=u"]) {
        let answer = house.get(path).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        is_dressed(&answer);
    }
    for (path, status) in [
        ("/nothing", 404),
        ("/../etc/passwd", 404),
        ("/api/history", 400),
        ("/api/history?device=meter-01&point=u&from=yesterday", 400),
        ("/api/history?device=meter-01&point=u&cursor=x", 400),
        ("/api/history?device=x&point=u", 404),
        ("/api/readings?device=x", 404),
        ("/api/events?after=nonsense", 400),
    ] {
        let answer = house.get(path).await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        is_dressed(&answer);
    }
    let host = house.address;
    for (request, status) in [
        (format!("POST / HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin"), 405),
        (format!("DELETE /api/status HTTP/1.1\r\nHost: {host}"), 403),
        (format!("POST /api/session HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example"), 403),
        (format!("POST /api/session HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: cross-site"), 403),
        ("GET / HTTP/1.1\r\nHost: evil.example".into(), 421),
        (format!("GET /api/events HTTP/1.1\r\nHost: evil.example:{}", host.port()), 421),
        (format!("GET http://evil.example/ HTTP/1.1\r\nHost: {host}"), 421),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}"), 421),
        ("GET / HTTP/1.0".into(), 421),
    ] {
        let answer = house.raw(&format!("{request}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{request} {answer:?}");
        is_dressed(&answer);
    }
    house.close().await;
}

#[tokio::test]
async fn a_header_above_8_kib_is_refused() {
    let house = house("127.0.0.1:0").await;
    let host = house.address;
    let long = "x".repeat(9000);
    let answer = house.raw(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Long: {long}\r\n\r\n")).await;
    assert_eq!(answer.status, 431);
    house.close().await;
}

#[tokio::test]
async fn beyond_32_sockets_and_64_viewers_everybody_is_told_to_come_back() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS_MAX {
        let mut stream = Stream::open(&house, None).await;
        stream.until("ready").await;
        viewers.push(stream);
    }
    assert_eq!(house.live.watching(), VIEWERS_MAX);
    let answer = house.get("/api/events").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    is_dressed(&answer);
    let mut idle = Vec::new();
    for _ in 0..OTHERS_MAX {
        idle.push(TcpStream::connect(house.address).await.expect("connect"));
    }
    let answer = house.get("/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    is_dressed(&answer);
    drop(idle);
    let again = async {
        while house.get("/healthz").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, again).await.expect("room again");
    drop(viewers);
    let left = async {
        while house.live.watching() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, left).await.expect("viewers that left are forgotten");
    house.close().await;
}

#[tokio::test]
async fn text_from_outside_reaches_the_api_whole_and_breaks_nothing() {
    let house = house("127.0.0.1:0").await;
    let evil = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'; alert(1); //",
        "</script><svg onload=alert(1)>",
        "{{title}}",
        "${alert(1)}",
        "a\r\n\r\nevent: status\ndata: {}\n\nb",
        "\u{202e}txet\u{2066}",
        "\u{0}\u{1b}[31m",
        "data:text/html,<b>",
        "\\u003cscript\\u003e",
    ];
    let devices = evil.iter().enumerate().map(|(i, text)| {
        let mut device = info(&format!("d{i}"), &["u"]);
        device.label = Arc::from(*text);
        for point in Arc::make_mut(&mut device.points) {
            (point.label, point.unit) = (Arc::from(*text), Arc::from(*text));
        }
        device
    });
    house.live.describe(devices.collect());
    house.board.update(|status| status.gateway.warnings = evil.iter().map(|&text| text.into()).collect());
    let shown = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let readings = house.json("/api/readings").await;
    for (i, text) in evil.iter().enumerate() {
        let device = &readings["devices"][i];
        let clean = encode::plain(text);
        assert_eq!(shown(&device["label"]), clean);
        assert_eq!(shown(&device["points"][0]["unit"]), clean);
        assert!(!clean.contains(|c: char| c.is_control() || c == '\u{202e}'));
    }
    let mut stream = Stream::open(&house, None).await;
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "ready") {
        names.push(stream.next().await.expect("goes on").name);
    }
    assert_eq!(names.iter().filter(|name| *name == "status").count(), 1, "no text makes an event: {names:?}");
    assert_eq!(names.iter().filter(|name| *name == "device").count(), evil.len());
    let status = house.get("/api/status").await;
    assert!(!status.body.contains('\u{202e}'));
    let metrics = house.get("/metrics").await.body;
    super::scrape::parse_metrics(&metrics);
    house.close().await;
}

#[tokio::test]
async fn what_a_question_for_history_lacks_is_named_and_an_example_shown() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    for (asked, lacks) in [
        ("", "device and point"),
        ("?from=2026-11-20T12:23:01Z", "device and point"),
        ("?point=u", "device"),
        ("?device=&point=u", "device"),
        ("?device=meter-01", "point"),
    ] {
        let answer = house.get(&format!("/api/history{asked}")).await;
        let words =
            format!("The address lacks {lacks}: ask as in /api/history?device=meter-01&point=voltage\n");
        assert_eq!((answer.status, &*answer.body), (400, &*words), "{asked}");
    }
    for asked in ["limit=all", "device=meter-01", "from=yesterday"] {
        let answer = house.get(&format!("/api/history?device=meter-01&point=u&{asked}")).await;
        let words = "The address is not one this page understands.\n";
        assert_eq!((answer.status, &*answer.body), (400, words), "{asked}");
    }
    house.close().await;
}

#[tokio::test]
async fn history_that_is_only_memory_says_so() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let history = house.json("/api/history?device=meter-01&point=u").await;
    assert_eq!(history["source"], "memory");
    assert!(history["note"].as_str().is_some_and(|note| note.contains("keep")));
    assert_eq!(history["values"][0]["value"], 230.5);
    assert_eq!(history["values"][0]["time"], "2026-11-20T12:23:00.123456Z", "two seconds before now");
    let none = house.json("/api/history?device=meter-01&point=u&from=2026-11-20T12:23:01Z").await;
    assert_eq!(none["values"].as_array().map(Vec::len), Some(0));
    house.close().await;
}

#[tokio::test]
async fn history_from_memory_claims_no_more_than_memory_knows() {
    let house = house("127.0.0.1:0").await;
    house.live.describe(vec![info("meter-01", &["total"])]);
    let shape = shape("meter-01", &["total"]);
    // More digits than an f32 has; then an answer that is no value, which is no silence.
    let samples = [Sample::good(Value::F64(16_777_217.0)), Sample::bad(Cause::Sentinel)];
    for (second, sample) in [1, 6].into_iter().zip(samples) {
        let mut batch = Batch::clone(&batch(&shape, RUN, second, second, &[0.0]));
        batch.readings = vec![Reading { point: 0, sample }].into();
        house.live.offer(&Arc::new(batch));
    }
    let history = house.json("/api/history?device=meter-01&point=total").await;
    let (number, nothing) = (&history["values"][0], &history["values"][1]);
    assert_eq!((&number["value"], &number["quality"]), (&json!(16_777_217.0), &json!(null)), "{history}");
    assert_eq!((&nothing["value"], &nothing["quality"]), (&json!(null), &json!(null)));
    assert!(nothing.get("cause").is_none() && number.get("cause").is_none(), "{history}");
    let note = history["note"].as_str().unwrap_or_default();
    assert!(note.contains("not why one is missing") && note.contains("2^53"), "{note}");
    house.close().await;
}

#[tokio::test]
async fn history_comes_from_where_it_is_kept_after_a_reload_too() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let mut sources = Vec::new();
    for keep in [Keep::Unsent, Keep::All, Keep::Unsent] {
        house.spool.reconfigure(SpoolSettings { keep, ..SpoolSettings::new(house.state.path()) });
        sources.push(house.json("/api/history?device=meter-01&point=u").await["source"].clone());
    }
    assert_eq!(sources, ["memory", "disk", "memory"]);
    house.close().await;
}

#[tokio::test]
async fn a_stop_ends_open_streams() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let mut stream = Stream::open(&house, None).await;
    stream.until("ready").await;
    house.stop.cancel();
    while stream.next().await.is_some() {}
    house.close().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_keeps_no_seat() {
    let house = house("127.0.0.1:0").await;
    let host = house.address;
    let answer = house
        .raw(&format!(
            "POST /api/session HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"
        ))
        .await;
    assert_eq!(answer.status, 408, "{answer:?}");
    house.close().await;
}

async fn secure(house: &House) -> TlsStream<TcpStream> {
    let pem = std::fs::read(house.state.path().join("page-tls/cert.pem")).expect("certificate");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let there = SocketAddr::new("127.0.0.1".parse().expect("address"), house.address.port());
    let socket = TcpStream::connect(there).await.expect("connect");
    let name = ServerName::try_from("gw1.plant7.example").expect("name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("handshake")
}

async fn ask(house: &House, request: &str) -> Answer {
    let mut socket = secure(house).await;
    let port = house.address.port();
    let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
    let text = format!("{line}\r\nHost: gw1.plant7.example:{port}\r\nConnection: close\r\n{rest}");
    socket.write_all(text.as_bytes()).await.expect("write");
    let mut bytes = Vec::new();
    // A peer may close without the closing message of TLS.
    let _ = timeout(SOON, socket.read_to_end(&mut bytes)).await.expect("in time");
    Answer::parse(&String::from_utf8_lossy(&bytes))
}

fn hand_in(token: &str) -> String {
    let body = format!("{{\"token\":\"{token}\"}}");
    let n = body.len();
    format!(
        "POST /api/session HTTP/1.1\nSec-Fetch-Site: same-origin\r\nContent-Type: application/json\r\n\
         Content-Length: {n}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn on_the_network_there_is_tls_and_nothing_opens_without_an_invitation_which_works_once() {
    let house = house("0.0.0.0:0").await;
    for path in
        ["/", "/app.js", "/words.js", "/api/status", "/api/readings", "/api/events", "/metrics", "/nothing"]
    {
        let answer = ask(&house, &format!("GET {path} HTTP/1.1\n\r\n")).await;
        assert_eq!(answer.status, 401, "{path} {answer:?}");
        is_dressed(&answer);
    }
    for path in ["/invite", "/invite.js", "/style.css", "/icon.svg"] {
        assert_eq!(ask(&house, &format!("GET {path} HTTP/1.1\n\r\n")).await.status, 200, "{path}");
    }
    let page = ask(&house, "GET / HTTP/1.1\nAccept: text/html\r\n\r\n").await;
    assert!(page.status == 401 && page.body.contains("sudo fieldspool page invite"), "{page:?}");

    let invitation = house.page.invite().expect("invitation");
    assert!(invitation.fingerprint.as_ref().is_some_and(|print| print.len() == 95));
    let token = invitation.token.reveal();
    assert_eq!(ask(&house, &hand_in("0".repeat(32).as_str())).await.status, 401);
    let opened = ask(&house, &hand_in(token)).await;
    assert_eq!(opened.status, 204, "{opened:?}");
    let cookie = opened.header("set-cookie").expect("cookie").to_owned();
    for part in ["path=/", "max-age=43200", "secure", "httponly", "samesite=strict"] {
        assert!(cookie.split("; ").any(|known| known == part), "{cookie}");
    }
    assert_eq!(ask(&house, &hand_in(token)).await.status, 401, "used up");
    let session = cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("pair").1;
    assert_ne!(session, token);
    let with = |cookie: &str| format!("GET /api/status HTTP/1.1\nCookie: a=b; {COOKIE}={cookie}\r\n\r\n");
    assert_eq!(ask(&house, &with(session)).await.status, 200);
    assert_eq!(ask(&house, &with(token)).await.status, 401);
    house.close().await;
}

#[tokio::test]
async fn the_key_of_a_self_signed_certificate_is_ours_alone_and_it_is_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let house = house("0.0.0.0:0").await;
    let folder = house.state.path().join("page-tls");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("key.pem"))), (0o700, 0o600));
    let before = std::fs::read(folder.join("cert.pem")).expect("certificate");
    let again = certificate::load(&house.page.app.config, &house.page.app.sources);
    assert!(again.is_ok());
    assert_eq!(std::fs::read(folder.join("cert.pem")).expect("certificate"), before);
    let mut config = house.page.app.config.clone();
    config.names.push("other.example".into());
    assert!(certificate::load(&config, &house.page.app.sources).is_ok());
    assert_ne!(
        std::fs::read(folder.join("cert.pem")).expect("certificate"),
        before,
        "a new name needs a new one"
    );
    std::fs::write(folder.join("key.pem"), "garbage").expect("write");
    assert!(certificate::load(&config, &house.page.app.sources).is_ok(), "a damaged one is replaced");
    house.close().await;
}

#[tokio::test]
async fn an_address_in_use_is_said_on_the_board_and_taken_back_when_the_page_ends() {
    let first = house("127.0.0.1:0").await;
    let config = PageConfig { listen: vec![first.address], ..PageConfig::default() };
    let stop = CancellationToken::new();
    let (_, task) = start(config, first.page.app.sources.clone(), stop.clone());
    let said = async {
        while first.board.read(|status| status.gateway.warnings.is_empty()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, said).await.expect("said");
    assert!(first.board.read(|status| status.gateway.warnings[0].contains("another program")));
    stop.cancel();
    timeout(SOON, task).await.expect("in time").expect("no panic");
    assert!(first.board.read(|status| status.gateway.warnings.is_empty()));
    first.close().await;
}
