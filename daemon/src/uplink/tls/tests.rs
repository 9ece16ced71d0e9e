//! Real files, real handshakes: what the technician reads.

use std::time::Duration;

use rcgen::{CertificateParams, date_time_ymd};

use super::*;
use crate::uplink::broker::{Authority, Gateway, Mosquitto, until};
use crate::uplink::config::Broker;

fn config(ca: &Authority, host: &str, port: u16) -> UplinkConfig {
    let mut config = UplinkConfig::new(Broker { host: host.into(), port, tls: true });
    config.ca = Some(ca.pem());
    config.identity = Some(ca.issue("gateway", &["gateway"], |_| {}));
    config.connect_timeout = Duration::from_secs(5);
    config
}

/// What the board says when this does not connect.
async fn trouble(config: UplinkConfig) -> String {
    let gateway = Gateway::start(config, &[]);
    let board = gateway.board.clone();
    until("a reason", || board.read(|status| status.uplink.error.is_some())).await;
    let words = board.read(|status| status.uplink.error.clone()).unwrap_or_default();
    gateway.stop().await;
    words
}

/// A TLS server with this pair that says nothing more.
async fn server(identity: &Identity) -> (u16, tokio::task::JoinHandle<()>) {
    let (chain, key, _) = pair(identity).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    (port, task)
}

/// The words for a broker whose certificate was changed so before it was signed.
async fn words_for(change: impl FnOnce(&mut CertificateParams)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let (port, task) = server(&ca.issue("broker", &["localhost"], change)).await;
    let words = trouble(config(&ca, "localhost", port)).await;
    task.abort();
    words
}

#[tokio::test]
async fn a_broker_of_another_authority_is_refused_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(folder.path(), "ca"), Authority::new(folder.path(), "other"));
    let (port, task) = server(&other.issue("broker", &["localhost"], |_| {})).await;
    let words = trouble(config(&ca, "localhost", port)).await;
    task.abort();
    assert!(words.contains("signed by an authority that is not in ca"), "{words}");
}

#[tokio::test]
async fn an_expired_broker_is_refused_in_its_own_words() {
    let words = words_for(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 2, 3);
    })
    .await;
    assert!(words.contains("expired on 2021-02-03") && words.contains("clock"), "{words}");
}

#[tokio::test]
async fn a_broker_from_the_future_points_to_our_clock() {
    let words = words_for(|params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    })
    .await;
    assert!(words.contains("not valid before 2090-01-01") && words.contains("clock first"), "{words}");
}

#[tokio::test]
async fn a_broker_of_another_name_says_both_names() {
    let words = words_for(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("mqtt.plant.example".try_into().unwrap())];
    })
    .await;
    assert!(words.contains("is for mqtt.plant.example, not for localhost"), "{words}");
}

#[tokio::test]
async fn a_client_certificate_where_a_server_should_be_is_refused() {
    let words = words_for(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    })
    .await;
    assert!(words.contains("serverAuth"), "{words}");
}

#[tokio::test]
async fn a_port_without_tls_is_not_called_a_certificate_problem() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 100]).await;
            let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n").await;
        }
    });
    let words = trouble(config(&ca, "localhost", port)).await;
    task.abort();
    assert!(words.contains("does not speak TLS") && !words.contains("certificate"), "{words}");
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = trouble(config(&ca, "localhost", port)).await;
    assert!(words.contains("nothing listens there"), "{words}");
    let words = trouble(config(&ca, "no-such-broker.invalid", 8883)).await;
    assert!(words.contains("cannot be looked up"), "{words}");
}

#[tokio::test]
async fn mosquitto_refuses_us_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(folder.path(), "ca"), Authority::new(folder.path(), "other"));
    let broker = Mosquitto::start(&ca, "").await;
    let mut none = config(&ca, "localhost", broker.tls);
    none.identity = None;
    let words = trouble(none).await;
    assert!(words.contains("wants a client certificate"), "{words}");
    let mut foreign = config(&ca, "localhost", broker.tls);
    foreign.identity = Some(other.issue("foreign", &["foreign"], |_| {}));
    let words = trouble(foreign).await;
    assert!(words.contains("does not know the authority that signed our certificate"), "{words}");
    let mut expired = config(&ca, "localhost", broker.tls);
    expired.identity = Some(ca.issue("expired", &["expired"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }));
    let words = trouble(expired).await;
    assert!(words.contains("our certificate has expired"), "{words}");
}

#[test]
fn a_bad_pair_keeps_the_old_one_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let config = config(&ca, "localhost", 1);
    let identity = config.identity.clone().unwrap();
    let mut credentials = Credentials::default();
    let first = credentials.load(&config).unwrap().0;
    // Half written.
    let whole = fs::read(&identity.cert).unwrap();
    fs::write(&identity.cert, &whole[..whole.len() / 2]).unwrap();
    let (kept, fault) = credentials.load(&config).unwrap();
    assert!(Arc::ptr_eq(first.tls.as_ref().unwrap(), kept.tls.as_ref().unwrap()));
    assert!(fault.is_some());
    // The key of another certificate.
    fs::write(&identity.cert, &whole).unwrap();
    let other = ca.issue("other", &["other"], |_| {});
    fs::copy(&other.key, &identity.key).unwrap();
    let (_, fault) = credentials.load(&config).unwrap();
    assert!(fault.unwrap().to_string().contains("it is not the key of"), "the pair is checked");
    // A good new pair.
    fs::copy(&other.cert, &identity.cert).unwrap();
    let (new, fault) = credentials.load(&config).unwrap();
    assert!(fault.is_none() && !Arc::ptr_eq(first.tls.as_ref().unwrap(), new.tls.as_ref().unwrap()));
}

#[test]
fn files_that_cannot_be_used_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let told = |change: &dyn Fn(&mut UplinkConfig)| {
        let mut config = config(&ca, "localhost", 1);
        change(&mut config);
        load(&config).unwrap_err().to_string()
    };
    let missing = folder.path().join("missing.pem");
    assert!(told(&|c| c.ca = Some(missing.clone())).contains("check the path"));
    let empty = file("empty.pem", b"");
    assert!(told(&|c| c.ca = Some(empty.clone())).contains("no certificate in it"));
    let der = file("der.pem", &[0x30, 0x82, 1, 2]);
    assert!(told(&|c| c.ca = Some(der.clone())).contains("openssl x509 -inform der"));
    assert!(told(&|c| c.ca = Some(folder.path().to_owned())).contains("folder"));
    let locked = file(
        "locked.key",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let locked = |c: &mut UplinkConfig| c.identity.iter_mut().for_each(|i| i.key.clone_from(&locked));
    assert!(told(&locked).contains("protected by a password"));
    let blank = file("password", b"\nsecret\n");
    assert!(told(&|c| c.password_file = Some(blank.clone())).contains("first line is empty"));
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("ca.pem");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (done, waits) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || done.send(roots(&pipe).is_err()));
    assert_eq!(waits.recv_timeout(std::time::Duration::from_secs(20)), Ok(true));
}
