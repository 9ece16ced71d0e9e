//! The uplink against a real mosquitto (mutual TLS, both versions, restarts), and against a broker that does what no
//! good one does.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::broker::{Authority, Gateway, Mosquitto, Subscriber, until};
use super::config::{Broker, NobodyListens, Protocol};
use super::sample::batch;
use super::stub::{Stub, disconnect, puback};
use super::*;
use crate::model::event::Body;
use crate::model::{BootId, ClockQuality, Stamp};
use crate::spool::{Confirmed, Opened};

fn config(ca: &Authority, port: u16) -> UplinkConfig {
    let mut config = UplinkConfig::new(Broker { host: "localhost".into(), port, tls: true });
    config.ca = Some(ca.pem());
    config.identity = Some(ca.issue("plant7-gw1", &["plant7-gw1"], |_| {}));
    config
}

fn state(got: &[super::broker::Got]) -> Vec<String> {
    let of = |got: &super::broker::Got| got.json["state"].as_str().map(str::to_owned);
    got.iter().filter(|got| got.topic.ends_with("/status")).filter_map(of).collect()
}

async fn everything_arrives(protocol: Protocol) {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let broker = Mosquitto::start(&ca, "").await;
    let subscriber = Subscriber::new(broker.plain).await;
    let before: Vec<_> = (0..200).map(|i| batch(if i % 2 == 0 { "a" } else { "b" }, i * 10, 10)).collect();
    let config = UplinkConfig { protocol, ..config(&ca, broker.tls) };
    let gateway = Gateway::start(config, &before);
    gateway.uplink.meta(vec![DeviceMeta {
        device: "a".into(),
        label: "Incomer".into(),
        headline: vec!["p0".into()],
        points: [].into(),
    }]);
    for i in 200..260 {
        gateway.take(&batch("a", i * 10, 10));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let all: BTreeSet<u64> = (0..260).map(|i| i * 10).collect();
    until("all batches arrive", || {
        subscriber.batches().iter().map(|(seq, _)| *seq).collect::<BTreeSet<_>>() == all
    })
    .await;
    let board = gateway.board.clone();
    until("all readings are confirmed", || board.read(|s| s.uplink.confirmed) == 2600).await;
    assert!(subscriber.batches().iter().any(|(seq, lane)| *seq >= 2000 && lane == "live"));
    assert!(subscriber.batches().iter().all(|(seq, lane)| *seq >= 2000 || lane == "backlog"));
    assert_eq!(subscriber.batches().len(), 260, "nothing twice on a quiet link");
    assert!(board.read(|s| s.uplink.connected && s.uplink.certificate_expires_us.is_some()));
    until("meta", || subscriber.got().iter().any(|got| got.topic == "fieldspool/plant7-gw1/meta/a")).await;
    gateway.stop().await;
    until("the last word", || state(&subscriber.got()).last().is_some_and(|s| s == "stopped")).await;
    assert_eq!(state(&subscriber.got()), ["online", "stopped"], "and no will");
    let late = Subscriber::new(broker.plain).await;
    until("the status is retained", || {
        late.got().iter().any(|got| got.retained && state(std::slice::from_ref(got)) == ["stopped"])
    })
    .await;
}

#[tokio::test]
async fn everything_arrives_once_over_mutual_tls() {
    everything_arrives(Protocol::V5).await;
}

#[tokio::test]
async fn everything_arrives_once_with_mqtt_3_1_1() {
    everything_arrives(Protocol::V311).await;
}

#[tokio::test]
async fn an_alert_of_tls_is_known_in_both_versions() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let alerting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 70]).await;
            // Until the peer closes: the alert must not be lost to a reset.
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    for protocol in [Protocol::V5, Protocol::V311] {
        let plain = Broker { host: "127.0.0.1".into(), port, tls: false };
        let gateway = Gateway::start(UplinkConfig { protocol, ..UplinkConfig::new(plain) }, &[]);
        let board = gateway.board.clone();
        let said = || board.read(|s| s.uplink.error.clone()).unwrap_or_default();
        until("the reason", || !said().is_empty()).await;
        assert!(said().starts_with("the port speaks TLS: write mqtts://"), "{}", said());
        gateway.stop().await;
    }
    alerting.abort();
}

#[tokio::test]
async fn a_port_that_speaks_tls_is_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let broker = Mosquitto::start(&ca, "").await;
    for protocol in [Protocol::V5, Protocol::V311] {
        let plain = Broker { host: "localhost".into(), port: broker.tls, tls: false };
        let gateway = Gateway::start(UplinkConfig { protocol, ..UplinkConfig::new(plain) }, &[]);
        let board = gateway.board.clone();
        let said = || board.read(|s| s.uplink.error.clone()).unwrap_or_default();
        until("the reason", || !said().is_empty()).await;
        assert!(said().contains("the port speaks TLS: write mqtts://"), "{}", said());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_killed_again_and_again_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let mut broker = Mosquitto::start(&ca, "").await;
    let subscriber = Subscriber::new(broker.plain).await;
    // What reached a broker that was then killed may have died in its memory; held data is sent again until a
    // subscriber is there.
    let config = UplinkConfig { nobody_listens: NobodyListens::Hold, ..config(&ca, broker.tls) };
    let gateway = Gateway::start(config, &[]);
    let mut seq = 0;
    for _ in 0..3 {
        for _ in 0..100 {
            gateway.take(&batch("a", seq, 4));
            seq += 4;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        broker.restart().await;
        gateway.uplink.kick();
    }
    let board = gateway.board.clone();
    until("all is confirmed", || {
        gateway.uplink.kick();
        board.read(|status| status.uplink.confirmed) == seq
    })
    .await;
    let mut seqs: Vec<u64> = subscriber.batches().iter().map(|(seq, _)| *seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let missing = 300 - seqs.len();
    // Acknowledged by mosquitto in the last moments before its kill -9, and gone with it: at most a window each time.
    assert!(missing <= 3 * 16, "{missing} of 300 never arrived");
    assert!(board.read(|status| status.uplink.connects) >= 2);
    gateway.stop().await;
}

fn plain(port: u16) -> UplinkConfig {
    UplinkConfig::new(Broker { host: "127.0.0.1".into(), port, tls: false })
}

fn waiting(seqs: impl IntoIterator<Item = u64>) -> Vec<Arc<Batch>> {
    seqs.into_iter().map(|i| batch(if i % 3 == 0 { "denied" } else { "a" }, i * 10, 10)).collect()
}

#[tokio::test]
async fn acknowledgements_in_reverse_with_refusals_confirm_exactly_what_was_accepted() {
    // Acknowledges in groups of four, the last first; what it refuses it refuses for good.
    let answer = |publishes: &[super::stub::Publish]| {
        let code = |topic: &str| if topic.ends_with("denied") { 0x87 } else { 0 };
        match publishes {
            [birth] => puback(birth.id, 0),
            [_, rest @ ..] if rest.len() % 4 == 0 => {
                rest.iter().rev().take(4).flat_map(|p| puback(p.id, code(&p.topic))).collect()
            }
            _ => Vec::new(),
        }
    };
    let stub = Stub::start(&[], Box::new(answer)).await;
    let gateway = Gateway::start(plain(stub.port), &[]);
    for one in waiting(0..24) {
        gateway.take(&one);
    }
    let board = gateway.board.clone();
    // More of what is refused comes, so that no group stays incomplete.
    let mut more = (24..).map(|i| batch("denied", i * 10, 10));
    until("what is accepted is confirmed", || {
        more.next().iter().for_each(|one| gateway.take(one));
        board.read(|status| status.uplink.confirmed) == 160
    })
    .await;
    let mut left = Vec::new();
    let mut cursor = crate::spool::Cursor::START;
    gateway.spool.flush(std::time::Instant::now() + Duration::from_secs(5)).await.unwrap();
    while let Some(span) = gateway.spool.span(cursor).await.unwrap() {
        cursor = span.next;
        left.extend(span.items.iter().filter_map(|item| match item {
            crate::spool::Item::Batch(batch) => Some(batch.shape.device.to_string()),
            crate::spool::Item::Event(_) => None,
        }));
    }
    assert!(left.len() >= 8 && left.iter().all(|device| device == "denied"), "{left:?}");
    gateway.task.abort();
}

#[tokio::test]
async fn a_server_keep_alive_of_zero_makes_no_storm_of_pings() {
    let answer =
        |publishes: &[super::stub::Publish]| publishes.last().map_or(Vec::new(), |p| puback(p.id, 0));
    // Server Keep Alive (0x13): 0.
    let stub = Stub::start(&[0x13, 0, 0], Box::new(answer)).await;
    let gateway = Gateway::start(plain(stub.port), &[]);
    // The library as it is dies of it within 150 ms.
    for seq in 0..50 {
        gateway.take(&batch("a", seq * 10, 10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let board = gateway.board.clone();
    until("all is confirmed", || board.read(|status| status.uplink.confirmed) == 500).await;
    assert_eq!(stub.seen.connects.load(Ordering::Relaxed), 1);
    assert!(stub.seen.pings.load(Ordering::Relaxed) <= 2);
    gateway.task.abort();
}

#[tokio::test]
async fn a_status_that_the_broker_does_not_take_goes_in_brief() {
    let answer =
        |publishes: &[super::stub::Publish]| publishes.last().map_or(Vec::new(), |p| puback(p.id, 0));
    // Maximum Packet Size (0x27): 400 bytes.
    let stub = Stub::start(&[0x27, 0, 0, 1, 0x90], Box::new(answer)).await;
    let gateway = Gateway::start(plain(stub.port), &[]);
    gateway.take(&batch("a", 0, 1));
    let board = gateway.board.clone();
    until("it is confirmed", || board.read(|status| status.uplink.confirmed) == 1).await;
    assert_eq!(stub.seen.connects.load(Ordering::Relaxed), 1, "the birth ended no connection");
    gateway.task.abort();
}

#[tokio::test]
async fn a_take_over_is_said_and_not_fought() {
    let answer = |publishes: &[super::stub::Publish]| match publishes {
        [birth] => puback(birth.id, 0),
        _ => disconnect(0x8e),
    };
    let stub = Stub::start(&[], Box::new(answer)).await;
    let gateway = Gateway::start(plain(stub.port), &waiting(0..3));
    let board = gateway.board.clone();
    let said =
        |board: &Board| board.read(|s| s.uplink.error.clone().is_some_and(|e| e.contains("another device")));
    until("the words", || said(&board)).await;
    assert_eq!(board.read(|status| status.uplink.confirmed), 0);
    assert!(board.read(|status| status.uplink.retry_in.is_some()));
    gateway.task.abort();
}

#[tokio::test]
async fn stamps_of_a_store_that_opens_after_the_start_are_corrected_as_it_knows_the_clock() {
    let (certificates, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Mosquitto::start(&Authority::new(certificates.path(), "ca"), "").await;
    let subscriber = Subscriber::new(broker.plain).await;
    let settings = crate::spool::SpoolSettings::new(folder.path());
    let Opened { spool, run, .. } = Spool::open(settings, Board::default(), sample::stamp).unwrap();
    let mut unset = Batch { run, ..Batch::clone(&batch("a", 0, 1)) };
    unset.stamp = Stamp { wall_us: 50, mono_us: 50, boot: BootId(9), clock: ClockQuality::Unsynced };
    spool.append(unset.into());
    spool.record(Body::Clock { boot: BootId(9), offset_us: 1000, at_mono_us: 100 }, sample::stamp());
    spool.flush(Instant::now() + Duration::from_secs(20)).await.unwrap();
    // The server knows the clock: its record is not sent again.
    spool.confirm(&[Confirmed::Event { run, number: 0 }]);
    spool.close(true).await.unwrap();
    let refused = folder.path().join("unreadable-log");
    std::fs::write(&refused, []).unwrap();
    let gateway = Gateway::start_in(folder, plain(broker.plain));
    assert_eq!(gateway.spool.clocks(), []);
    std::fs::remove_file(refused).unwrap();
    let batches = || {
        let got = subscriber.got().into_iter();
        got.flat_map(|got| got.json["batches"].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>()
    };
    until("the batch", || !batches().is_empty()).await;
    let words = (batches()[0]["clock"].clone(), batches()[0]["time"].clone());
    assert_eq!(words, ("corrected".into(), "1970-01-01T00:00:00.001050Z".into()));
    gateway.stop().await;
}

/// Something to call in each turn, and how often it was called.
fn counted() -> (Arc<AtomicUsize>, Box<dyn Fn(Instant) + Send>) {
    let beats = Arc::new(AtomicUsize::new(0));
    let seen = beats.clone();
    (
        beats,
        Box::new(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        }),
    )
}

#[tokio::test]
async fn an_uplink_with_a_silent_connection_still_turns_for_the_watchdog() {
    let answer =
        |publishes: &[super::stub::Publish]| publishes.last().map_or(Vec::new(), |p| puback(p.id, 0));
    let stub = Stub::start(&[], Box::new(answer)).await;
    let (beats, beat) = counted();
    let gateway = Gateway::start_watched(plain(stub.port), &[], beat);
    let board = gateway.board.clone();
    until("connected", || board.read(|status| status.uplink.connected)).await;
    let before = beats.load(Ordering::Relaxed);
    until("another turn", || beats.load(Ordering::Relaxed) > before).await;
    gateway.task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_uplink_that_hangs_alone_beats_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::default();
    let opened = Spool::open(crate::spool::SpoolSettings::new(folder.path()), board.clone(), sample::stamp);
    let (beats, beat) = counted();
    let opened = opened.unwrap();
    let around = Surroundings {
        gateway: "plant7-gw1".into(),
        run: opened.run,
        spool: opened.spool,
        board,
        wall_us: || sample::stamp().wall_us,
        stop: CancellationToken::new(),
        stop_within: Duration::from_secs(3),
        so_far: Arc::default(),
        beat,
    };
    // Nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut life = std::pin::pin!(task::Task::new(plain(nobody.port()), around, Arc::default()).run());
    let turning = tokio::time::timeout(Duration::from_secs(60), &mut life).await;
    assert!(turning.is_err());
    let before = beats.load(Ordering::Relaxed);
    assert!(before >= 6, "{before}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(beats.load(Ordering::Relaxed), before, "only the task itself beats");
}
