//! The floor: polls the same devices and publishes the same values over the same TLS, and does nothing else. It keeps
//! nothing, numbers nothing, checks no deadline and shows no page.

use std::fmt::Write as _;
use std::path::Path;
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

/// `bare FOLDER BROKER-PORT POINTS PORT...`: one device a port, each polled once a second.
pub fn run(arguments: &[String]) {
    let folder = Path::new(&arguments[0]);
    let broker: u16 = arguments[1].parse().unwrap();
    let points: u16 = arguments[2].parse().unwrap();
    let ports: Vec<u16> = arguments[3..].iter().map(|p| p.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = MqttOptions::new("bare", "localhost", broker);
        options.set_transport(tls(folder, "gateway")).set_outgoing_inflight_upper_limit(64);
        let (client, mut events) = AsyncClient::new(options, 256);
        for (device, port) in ports.into_iter().enumerate() {
            tokio::spawn(poll(device, port, points, client.clone()));
        }
        loop {
            events.poll().await.expect("the broker stays");
        }
    });
}

async fn poll(device: usize, port: u16, points: u16, client: AsyncClient) {
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
            for (i, pair) in (start..).zip(reply[9..length].chunks(2)) {
                let comma = if i == 0 { "" } else { "," };
                write!(payload, "{comma}\"p{i}\":{}", u16::from_be_bytes([pair[0], pair[1]])).unwrap();
            }
        }
        payload.push_str("}}");
        client.publish(topic.clone(), QoS::AtLeastOnce, false, payload).await.unwrap();
    }
}
