//! A real mosquitto 2 with mutual TLS, an ACL and fresh certificates, on a port of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{SOON, wait_for};

/// The gateway's identity in these tests.
pub const GATEWAY: &str = "plant7-gw1";

/// A certificate authority that signs what a test asks for.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM of the authority's certificate.
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key, both PEM. `change` may spoil it.
    pub fn sign(
        &self,
        name: &str,
        server: bool,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names = if server { vec!["localhost".to_owned(), "127.0.0.1".to_owned()] } else { vec![] };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![if server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Writes a key or certificate that only its owner may read.
pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A broker and its folder of certificates: `ca.pem`, `server.*`, `gateway.*`, `viewer.*`.
pub struct Broker {
    pub dir: tempfile::TempDir,
    pub port: u16,
    pub authority: Authority,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker that only lets the gateway write and the viewer read, each by its certificate.
    pub fn start() -> Self {
        let mut broker = Self::prepare(|_| {});
        broker.run();
        broker
    }

    /// As [`Broker::start`], not started, with a server certificate that `spoil` may change.
    pub fn prepare(spoil: impl FnOnce(&mut CertificateParams)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("test authority");
        fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        let save = |stem: &str, (cert, key): (String, String)| {
            fs::write(dir.path().join(format!("{stem}.pem")), cert).unwrap();
            write_private(&dir.path().join(format!("{stem}.key")), &key);
        };
        save("server", authority.sign("localhost", true, spoil));
        save("gateway", authority.sign(GATEWAY, false, |_| {}));
        save("viewer", authority.sign("viewer", false, |_| {}));
        // Bound once to find a free port; mosquitto cannot tell the one it would be given.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = dir.path().display();
        let acl = format!(
            "user {GATEWAY}\ntopic write fieldspool/{GATEWAY}/#\nuser viewer\ntopic read fieldspool/#\n"
        );
        fs::write(dir.path().join("acl"), acl).unwrap();
        let conf = format!(
            "listener {port} 127.0.0.1\ncafile {here}/ca.pem\ncertfile {here}/server.pem\nkeyfile {here}/server.key\n\
             require_certificate true\nuse_identity_as_username true\nallow_anonymous false\nacl_file {here}/acl\n\
             set_tcp_nodelay true\npersistence false\nmax_queued_messages 0\nuser root\nlog_type all\n"
        );
        fs::write(dir.path().join("mosquitto.conf"), conf).unwrap();
        Self { dir, port, authority, child: None }
    }

    /// Starts mosquitto (again), on the same port.
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.file("log")).unwrap();
        let mut child = Command::new(if Path::new("/usr/sbin/mosquitto").exists() {
            "/usr/sbin/mosquitto"
        } else {
            "mosquitto"
        })
        .arg("-c")
        .arg(self.file("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("mosquitto is installed");
        wait_for("mosquitto to listen", SOON, || {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "mosquitto ended: {}",
                fs::read_to_string(self.file("log")).unwrap_or_default()
            );
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.child = Some(child);
    }

    /// Replaces the access list, also of a broker that runs.
    pub fn allow(&self, acl: &str) {
        fs::write(self.file("acl"), acl).unwrap();
        if let Some(child) = &self.child {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
        }
    }

    /// Kills mosquitto. What it held in memory is gone, as at a power cut.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// A file in the broker's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}
