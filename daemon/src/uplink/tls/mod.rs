//! Certificates, key and password from their files, read anew for each connection.
//!
//! A new pair is used from the next connection on. A pair that cannot be used (half written, the key of another
//! certificate) does not replace one that could: the old one stays, and what is wrong with the new one is said. Not here:
//! verifying the broker, which is rustls' own business and cannot be switched off.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::{Identity, SYSTEM_ROOTS, UplinkConfig};

/// What a connection proves itself with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For rustls; `None` without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// End of validity of our certificate, µs since 1970.
    pub expires_us: Option<i64>,
    /// The password file's first line.
    pub password: Option<String>,
}

/// Why the files cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("{key} {}: {error}: check the path, and that the service's user may read it", .path.display())]
    Unreadable {
        /// Configuration key.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file holds something else.
    #[error("{key} {}: {what}", .path.display())]
    Unusable {
        /// Configuration key.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
}

/// The files of one uplink, and the last ones that could be used.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    last: Option<Loaded>,
}

impl Credentials {
    /// Reads the files. `Ok((loaded, Some(fault)))`: the new ones are bad, these are the old ones.
    pub(super) fn load(&mut self, config: &UplinkConfig) -> Result<(Loaded, Option<TlsFault>), TlsFault> {
        match load(config) {
            Ok(loaded) => {
                self.last = Some(loaded.clone());
                Ok((loaded, None))
            }
            Err(fault) => match &self.last {
                Some(old) => Ok((old.clone(), Some(fault))),
                None => Err(fault),
            },
        }
    }

    /// Another configuration: the old files are not its.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// Reads everything that a connection needs; also what `check` calls.
pub fn load(config: &UplinkConfig) -> Result<Loaded, TlsFault> {
    let password = config.password_file.as_deref().map(password).transpose()?;
    if !config.broker.tls {
        return Ok(Loaded { tls: None, expires_us: None, password });
    }
    let roots = roots(config.ca.as_deref().unwrap_or(Path::new(SYSTEM_ROOTS)))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("ca", Path::new(""), format!("rustls: {error}")))?
        .with_root_certificates(roots);
    let (mut tls, expires_us) = match &config.identity {
        None => (builder.with_no_client_auth(), None),
        Some(identity) => {
            let (chain, key, expires_us) = pair(identity)?;
            let tls =
                builder.with_client_auth_cert(chain, key).map_err(|error| refused_pair(identity, &error))?;
            (tls, Some(expires_us))
        }
    };
    tls.alpn_protocols = config.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(Loaded { tls: Some(Arc::new(tls)), expires_us, password })
}

fn unusable(key: &'static str, path: &Path, what: impl Into<String>) -> TlsFault {
    TlsFault::Unusable { key, path: path.to_owned(), what: what.into() }
}

/// Files larger than this are not what they should be; a bundle of all public roots has 250 KiB.
const FILE_MAX: u64 = 4 * 1024 * 1024;

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFault> {
    let unreadable = |error| TlsFault::Unreadable { key, path: path.to_owned(), error };
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err(unusable(key, path, "this is a folder: give a file"));
    }
    // Reading a pipe would hold up everything until somebody writes into it.
    if !meta.is_file() {
        return Err(unusable(key, path, "this is not a plain file: give one"));
    }
    if meta.len() > FILE_MAX {
        return Err(unusable(key, path, "this file is far too large for what it should hold"));
    }
    fs::read(path).map_err(unreadable)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = read(key, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) if text.first() == Some(&0x30) => Err(unusable(
            key,
            path,
            "this is a DER file: convert it with openssl x509 -inform der -in FILE -out FILE.pem",
        )),
        Ok(_) => Err(unusable(key, path, "there is no certificate in it (no BEGIN CERTIFICATE)")),
        Err(error) => Err(unusable(key, path, format!("damaged or half written ({error})"))),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    let (mut taken, mut last) = (0, None);
    for certificate in certificates("ca", path)? {
        match roots.add(certificate) {
            Ok(()) => taken += 1,
            Err(error) => last = Some(error),
        }
    }
    match last {
        // One odd root among a system's hundred does no harm; a CA file without any usable one does.
        Some(error) if taken == 0 => {
            Err(unusable("ca", path, format!("no certificate in it can be used ({error})")))
        }
        _ => Ok(roots),
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, i64);

fn pair(identity: &Identity) -> Result<Pair, TlsFault> {
    let chain = certificates("cert", &identity.cert)?;
    let text = read("key", &identity.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let encrypted = text.windows(9).any(|w| w == b"ENCRYPTED");
        let what = if encrypted {
            "the key is protected by a password: store it without (openssl pkey -in FILE -out FILE.key)"
                .to_owned()
        } else {
            format!("there is no private key in it, or it is damaged ({error})")
        };
        unusable("key", &identity.key, what)
    })?;
    let own = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let expires_us = expiry_us(own)
        .ok_or_else(|| unusable("cert", &identity.cert, "the first certificate in it cannot be read"))?;
    Ok((chain, key, expires_us))
}

fn expiry_us(der: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    certificate.validity().not_after.timestamp().checked_mul(1_000_000)
}

fn refused_pair(identity: &Identity, error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InconsistentKeys(_) => unusable(
            "key",
            &identity.key,
            format!("it is not the key of {}: give the pair that was made together", identity.cert.display()),
        ),
        rustls::Error::InvalidCertificate(why) => unusable(
            "cert",
            &identity.cert,
            format!(
                "it cannot be used ({why}): issue it as a version 3 certificate (openssl x509 -req needs -extfile)"
            ),
        ),
        other => unusable("key", &identity.key, format!("it cannot be used ({other})")),
    }
}

fn password(path: &Path) -> Result<String, TlsFault> {
    let bytes = read("password_file", path)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| unusable("password_file", path, "the password is not UTF-8 text: rewrite the file"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(unusable("password_file", path, "its first line is empty: write the password there")),
    }
}

#[cfg(test)]
mod tests;
