//! For tests: a real mosquitto with mutual TLS, a subscriber, and an uplink over a spool in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::Identity;
use super::{Surroundings, Uplink, UplinkConfig, sample, start};
use crate::model::Batch;
use crate::spool::{Spool, SpoolSettings};
use crate::status::Board;

/// A certification authority, and the folder its certificates are written to.
pub(super) struct Authority {
    pub(super) folder: PathBuf,
    name: &'static str,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(folder: &Path, name: &'static str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Self { folder: folder.to_owned(), name, issuer }
    }

    pub(super) fn pem(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// A pair for `names`, changed by `change` before it is signed.
    pub(super) fn issue(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, file);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity {
            cert: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        std::fs::write(&identity.cert, cert.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A mosquitto with a TLS listener that demands a certificate, and a plain one for the tests' own subscriber.
pub(super) struct Mosquitto {
    child: Child,
    folder: PathBuf,
    pub(super) tls: u16,
    pub(super) plain: u16,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mosquitto {
    /// Starts one; `more` is added to the configuration of the TLS listener.
    pub(super) async fn start(ca: &Authority, more: &str) -> Self {
        let server = ca.issue("broker", &["localhost"], |_| {});
        let (tls, plain) = (free_port(), free_port());
        let folder = ca.folder.clone();
        let config = format!(
            "per_listener_settings true\nuser root\n\
             listener {plain} 127.0.0.1\nallow_anonymous true\n\
             listener {tls} 127.0.0.1\nallow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\n\
             require_certificate true\nuse_identity_as_username true\n{more}\n",
            ca.pem().display(),
            server.cert.display(),
            server.key.display(),
        );
        std::fs::write(folder.join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { child: Self::spawn(&folder), folder, tls, plain };
        broker.until_up().await;
        broker
    }

    fn spawn(folder: &Path) -> Child {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(folder.join("mosquitto.log")).unwrap();
        Command::new("mosquitto")
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed (apt install mosquitto)")
    }

    async fn until_up(&mut self) {
        let port = self.tls;
        until("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    /// kill -9 now, and back on the same ports.
    pub(super) async fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.folder);
        self.until_up().await;
    }
}

/// Waits for a condition, at most 20 s.
pub(super) async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !true_now() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A message as a subscriber gets it.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) topic: String,
    pub(super) retained: bool,
    pub(super) json: serde_json::Value,
}

/// Everything under `fieldspool/`, as it comes.
pub(super) struct Subscriber {
    got: Arc<std::sync::Mutex<Vec<Got>>>,
    task: JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscriber {
    pub(super) async fn new(port: u16) -> Self {
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::Packet;
        use rumqttc::v5::{AsyncClient, Event, MqttOptions};
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", port);
        options.set_max_packet_size(Some(10_000_000));
        let (client, mut events) = AsyncClient::new(options, 10);
        let got = Arc::new(std::sync::Mutex::new(Vec::new()));
        let inbox = got.clone();
        let (subscribed, ready) = tokio::sync::oneshot::channel();
        let mut subscribed = Some(subscribed);
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.try_subscribe("fieldspool/#", QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        if let Some(subscribed) = subscribed.take() {
                            let _ = subscribed.send(());
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let json = serde_json::from_slice(&publish.payload).unwrap();
                        inbox.lock().unwrap().push(Got { topic, retained: publish.retain, json });
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        ready.await.unwrap();
        Self { got, task }
    }

    /// What has come so far.
    pub(super) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// The (seq, lane) of all batches so far.
    pub(super) fn batches(&self) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        for got in self.got() {
            for batch in got.json["batches"].as_array().into_iter().flatten() {
                let lane = got.json["lane"].as_str().unwrap_or_default();
                all.push((batch["seq"].as_u64().unwrap(), lane.to_owned()));
            }
        }
        all
    }
}

/// An uplink over a spool.
pub(super) struct Gateway {
    pub(super) uplink: Uplink,
    pub(super) spool: Spool,
    pub(super) board: Board,
    pub(super) run: crate::model::RunId,
    pub(super) task: JoinHandle<()>,
    pub(super) stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Gateway {
    pub(super) fn start(config: UplinkConfig, before: &[Arc<Batch>]) -> Self {
        Self::start_watched(config, before, Box::new(|_| {}))
    }

    /// On a state directory that a life before has left.
    pub(super) fn start_in(folder: tempfile::TempDir, config: UplinkConfig) -> Self {
        Self::start_with(folder, config, &[], Box::new(|_| {}))
    }

    /// With what the task calls in each turn.
    pub(super) fn start_watched(
        config: UplinkConfig,
        before: &[Arc<Batch>],
        beat: Box<dyn Fn(Instant) + Send>,
    ) -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), config, before, beat)
    }

    fn start_with(
        folder: tempfile::TempDir,
        config: UplinkConfig,
        before: &[Arc<Batch>],
        beat: Box<dyn Fn(Instant) + Send>,
    ) -> Self {
        let board = Board::default();
        let mut settings = SpoolSettings::new(folder.path());
        settings.commit_every = Duration::from_millis(20);
        let opened = Spool::open(settings, board.clone(), sample::stamp).unwrap();
        for batch in before {
            opened.spool.append(in_run(batch, opened.run));
        }
        let stop = CancellationToken::new();
        let around = Surroundings {
            gateway: "plant7-gw1".into(),
            run: opened.run,
            spool: opened.spool.clone(),
            board: board.clone(),
            wall_us: || sample::stamp().wall_us,
            stop: stop.clone(),
            stop_within: Duration::from_secs(3),
            so_far: Arc::default(),
            beat,
        };
        let (uplink, task) = start(config, around);
        Self { uplink, spool: opened.spool, board, run: opened.run, task, stop, _folder: folder }
    }

    /// Stores and offers, as intake does.
    pub(super) fn take(&self, batch: &Arc<Batch>) {
        let batch = in_run(batch, self.run);
        self.spool.append(batch.clone());
        self.uplink.offer(batch);
    }

    pub(super) async fn stop(self) -> Board {
        self.stop.cancel();
        self.task.await.unwrap();
        self.board
    }
}

fn in_run(batch: &Arc<Batch>, run: crate::model::RunId) -> Arc<Batch> {
    Arc::new(Batch { run, ..(**batch).clone() })
}
