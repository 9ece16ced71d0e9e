//! What the configuration says about the page. Plain data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where the page listens if nothing is said: this machine only.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8480);

/// `[page]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageConfig {
    /// Addresses to listen on, at least one. Loopback is plain HTTP without a login; any other address is TLS and
    /// asks for an invitation.
    pub listen: Vec<SocketAddr>,
    /// Names by which people reach this gateway, without port: `gw1.plant7.example`. Addresses of its own and
    /// `localhost` are always accepted; any other `Host` is refused, which stops DNS rebinding.
    pub names: Vec<String>,
    /// An own certificate. Without one, and with a listener that needs TLS, a self-signed one is made in the state
    /// directory.
    pub certificate: Option<CertificateFiles>,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// Its key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

impl Default for PageConfig {
    fn default() -> Self {
        Self { listen: vec![LISTEN_DEFAULT], names: Vec::new(), certificate: None }
    }
}
