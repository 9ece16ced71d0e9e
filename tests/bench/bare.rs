//! The floor: polls the same devices and publishes the same values over the same TLS, and does nothing else. It keeps
//! nothing, numbers nothing, checks no deadline and shows no page.
//!
//! Told to, it also commits what it read to SQLite once a second (WAL, FULL, one row of bytes as they came from the wire): the
//! part of the way from the floor to the gateway that any store must pay. It reads nothing back and knows not what was sent.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A TLS identity of the test broker's folder.
pub fn tls(folder: &Path, who: &str) -> Transport {
    let read = |name: String| std::fs::read(folder.join(name)).unwrap();
    Transport::Tls(TlsConfiguration::Simple {
        ca: read("ca.pem".into()),
        alpn: None,
        client_auth: Some((read(format!("{who}.pem")), read(format!("{who}.key")))),
    })
}

/// What was read since the last commit.
type Read = Arc<Mutex<Vec<u8>>>;

/// Rows of the committing loop's file: as a ring, so that it does not grow.
const ROWS: i64 = 512;

/// `bare FOLDER BROKER-PORT POINTS FILE PORT...`: one device a port, each polled once a second. `FILE`: commit to it; `-`: nothing.
pub fn run(arguments: &[String]) {
    let folder = Path::new(&arguments[0]);
    let broker: u16 = arguments[1].parse().unwrap();
    let points: u16 = arguments[2].parse().unwrap();
    let ports: Vec<u16> = arguments[4..].iter().map(|p| p.parse().unwrap()).collect();
    let read = (arguments[3] != "-").then(Read::default);
    if let Some(read) = read.clone() {
        let file = arguments[3].clone();
        std::thread::spawn(move || commit(Path::new(&file), &read));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = MqttOptions::new("bare", "localhost", broker);
        options.set_transport(tls(folder, "gateway")).set_outgoing_inflight_upper_limit(64);
        let (client, mut events) = AsyncClient::new(options, 256);
        for (device, port) in ports.into_iter().enumerate() {
            tokio::spawn(poll((device, port), points, client.clone(), read.clone()));
        }
        loop {
            events.poll().await.expect("the broker stays");
        }
    });
}

/// Every second one transaction with one row.
fn commit(file: &Path, read: &Read) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.pragma_update(None, "page_size", fieldspool::spool::schema::PAGE_SIZE.cast_signed()).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB NOT NULL)").unwrap();
    let mut insert = connection.prepare("INSERT OR REPLACE INTO row (id, body) VALUES (?1, ?2)").unwrap();
    for id in 0.. {
        std::thread::sleep(Duration::from_secs(1));
        let body = std::mem::take(&mut *read.lock().unwrap());
        insert.execute(rusqlite::params![id % ROWS, body]).unwrap();
    }
}

async fn poll((device, port): (usize, u16), points: u16, client: AsyncClient, read: Option<Read>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let topic = format!("fieldspool/plant7-gw1/live/d{device}");
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut reply = [0; 260];
    loop {
        second.tick().await;
        let mut payload = format!("{{\"device\":\"d{device}\",\"points\":{{");
        for start in (0..points).step_by(125) {
            let count = (points - start).min(125);
            let [s0, s1] = start.to_be_bytes();
            let [c0, c1] = count.to_be_bytes();
            stream.write_all(&[0, 1, 0, 0, 0, 6, 1, 4, s0, s1, c0, c1]).await.unwrap();
            let length = 9 + usize::from(count) * 2;
            stream.read_exact(&mut reply[..length]).await.unwrap();
            if let Some(read) = &read {
                read.lock().unwrap().extend_from_slice(&reply[9..length]);
            }
            for (i, pair) in (start..).zip(reply[9..length].chunks(2)) {
                let comma = if i == 0 { "" } else { "," };
                write!(payload, "{comma}\"p{i}\":{}", u16::from_be_bytes([pair[0], pair[1]])).unwrap();
            }
        }
        payload.push_str("}}");
        client.publish(topic.clone(), QoS::AtLeastOnce, false, payload).await.unwrap();
    }
}
