//! The demo's broker: built in (feature `local-broker`), or an installed mosquitto. Mutual TLS on a loopback port.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::child::Child;
use super::{DemoError, Folder};

/// How long a broker may take to end by itself.
const STOP_BUDGET: Duration = Duration::from_secs(2);

/// See the file.
pub(super) struct Broker {
    port: u16,
    folder: PathBuf,
    tls: PathBuf,
    log: PathBuf,
    kind: Kind,
    child: Option<Child>,
}

enum Kind {
    Local,
    Mosquitto(PathBuf),
}

impl Kind {
    fn choose() -> Option<Self> {
        if cfg!(feature = "local-broker") { Some(Self::Local) } else { mosquitto().map(Self::Mosquitto) }
    }
}

impl Broker {
    /// A broker that is not running yet.
    pub(super) fn new(port: u16, folder: &Folder) -> Result<Self, DemoError> {
        let kind = Kind::choose().ok_or(DemoError::NoBroker)?;
        Ok(Self {
            port,
            folder: folder.path().to_owned(),
            tls: folder.tls(),
            log: folder.log("broker"),
            kind,
            child: None,
        })
    }

    /// In words.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Local => "a broker (rumqttd)",
            Kind::Mosquitto(_) => "a broker (mosquitto)",
        }
    }

    /// What somebody pastes into another terminal to see the messages. MQTT 5: the built-in broker has one port for
    /// each version.
    pub(super) fn listen_command(&self) -> String {
        let tls = self.tls.display();
        format!(
            "mosquitto_sub -V mqttv5 -h localhost -p {} --cafile {tls}/ca.pem --cert {tls}/viewer.pem --key \
             {tls}/viewer.key -t 'fieldspool/#' -v",
            self.port
        )
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        let command = match &self.kind {
            Kind::Local => {
                let program =
                    std::env::current_exe().map_err(DemoError::system("cannot find this program"))?;
                let mut command = Command::new(program);
                command.args(["demo", "--as-broker", &self.port.to_string(), "--folder"]).arg(&self.folder);
                command
            }
            Kind::Mosquitto(program) => {
                let file = self.folder.join("mosquitto.conf");
                std::fs::write(&file, mosquitto_conf(self.port, &self.tls))
                    .map_err(DemoError::system("cannot write the broker's configuration"))?;
                let mut command = Command::new(program);
                command.arg("-c").arg(file);
                command
            }
        };
        self.child = Some(Child::start("the broker", command, &self.log)?);
        Ok(())
    }

    /// Stops it if it runs, else starts it; what to say about it.
    pub(super) async fn toggle(&mut self) -> Result<String, DemoError> {
        if self.child.is_some() {
            self.stop().await;
            Ok("broker: stopped; type b to start it again. A mosquitto_sub that was listening may have ended with it".into())
        } else {
            self.start()?;
            Ok("broker: started; if mosquitto_sub has ended, start it again, too".into())
        }
    }

    /// An error if it ended unasked.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.child.as_mut().map_or(Ok(()), Child::check)
    }

    /// Stops it and waits.
    pub(super) async fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            child.stop(STOP_BUDGET).await;
        }
    }
}

/// Distributions put it where only root's search path looks.
fn mosquitto() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join("mosquitto"))
        .find(|file| file.is_file())
}

fn mosquitto_conf(port: u16, tls: &Path) -> String {
    let tls = tls.display();
    // Started by root, mosquitto would change to a user who cannot read the demo's keys.
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let user = user.map_or_else(|| "root".into(), |user| user.name);
    format!(
        "listener {port} 127.0.0.1\ncafile {tls}/ca.pem\ncertfile {tls}/broker.pem\nkeyfile {tls}/broker.key\n\
         require_certificate true\nuse_identity_as_username true\nallow_anonymous false\npersistence false\n\
         log_dest stderr\nuser {user}\n"
    )
}

/// Is the built-in broker, for ever.
#[cfg(feature = "local-broker")]
pub(super) fn be(port: u16, folder: &Path) -> Result<(), DemoError> {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, SocketAddr};

    let tls = folder.join("config/tls");
    let file = |name: &str| tls.join(name).display().to_string();
    let settings = rumqttd::ServerSettings {
        name: "demo".into(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: Some(rumqttd::TlsConfig::Rustls {
            capath: Some(file("ca.pem")),
            certpath: file("broker.pem"),
            keypath: file("broker.key"),
        }),
        next_connection_delay_ms: 1,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 256 * 1024,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = rumqttd::Config {
        v5: Some(HashMap::from([("demo".to_owned(), settings)])),
        // Segments of 1 MB bound its memory.
        router: rumqttd::RouterConfig {
            max_connections: 32,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..rumqttd::RouterConfig::default()
        },
        ..rumqttd::Config::default()
    };
    rumqttd::Broker::new(config).start().map_err(|error| {
        DemoError::System("the broker ended".into(), std::io::Error::other(error.to_string()))
    })
}

/// This build has no broker.
#[cfg(not(feature = "local-broker"))]
pub(super) fn be(_: u16, _: &Path) -> Result<(), DemoError> {
    Err(DemoError::NoBroker)
}
