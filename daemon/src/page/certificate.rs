//! The page's certificate on the network: the operator's own, or a self-signed one made at first start.
//!
//! The self-signed one lives in `page-tls` in the state directory, readable by the daemon only, and stays the same as
//! long as it is valid and covers the configured names: a browser that was told to trust it must not be asked again.
//! Nothing vouches for it but its fingerprint, which `fieldspool page invite` prints.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::page::problems::CLOCK_PLAUSIBLE_US;
use crate::page::{CertificateFiles, PageConfig, Sources, invite};

/// Apple's devices refuse longer ones, even when told to trust them.
const VALID: Duration = Duration::days(825);

/// A self-signed certificate is replaced this long before its end.
const RENEW: Duration = Duration::days(30);

/// Why there is no TLS. The page says it on the board and tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// A file cannot be read; its owner must help.
    #[error("The page cannot read {}: {error}. It needs a PEM file that the user fieldspool may read.", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Certificate and key do not belong together, or are of an unknown kind.
    #[error("The page cannot use {}: {error}.", .path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The self-signed certificate cannot be made or stored.
    #[error("The page cannot make its certificate in {}: {error}.", .path.display())]
    NotMade {
        /// Where.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// Reads or makes the certificate. With it comes its SHA-256 fingerprint, as browsers print it.
pub(super) fn load(
    config: &PageConfig,
    sources: &Sources,
) -> Result<(TlsAcceptor, String), CertificateError> {
    let files = match &config.certificate {
        Some(files) => files.clone(),
        None => self_signed(&config.names, sources)?,
    };
    let (chain, key) = (chain(&files.cert)?, key(&files.key)?);
    let fingerprint = chain.first().map(fingerprint).unwrap_or_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| CertificateError::Unusable { path: files.cert, error: error.to_string() })?;
    Ok((TlsAcceptor::from(Arc::new(server)), fingerprint))
}

/// A plain file: a pipe would hold up everything until somebody writes into it.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    fs::read(path)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |error: String| CertificateError::Unreadable { path: path.to_owned(), error };
    let pem = read(path).map_err(|error| unreadable(error.to_string()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unreadable("it holds no certificate".into())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let unreadable = |error: String| CertificateError::Unreadable { path: path.to_owned(), error };
    let pem = read(path).map_err(|error| unreadable(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unreadable(error.to_string()))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = digest(&SHA256, certificate);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// The files of the self-signed certificate, made anew if they are missing, unreadable, nearly over, or lack a name.
fn self_signed(names: &[String], sources: &Sources) -> Result<CertificateFiles, CertificateError> {
    let folder = sources.state_directory.join("page-tls");
    let files = CertificateFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    let now_us = (sources.now)().wall_us.max(CLOCK_PLAUSIBLE_US);
    let now = OffsetDateTime::from_unix_timestamp(now_us / 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    if !still_good(&files, names, now) {
        make(&folder, &files, names, now)
            .map_err(|error| CertificateError::NotMade { path: folder.clone(), error })?;
    }
    Ok(files)
}

fn still_good(files: &CertificateFiles, names: &[String], now: OffsetDateTime) -> bool {
    let (Ok(chain), Ok(_)) = (chain(&files.cert), key(&files.key)) else { return false };
    let Some((_, certificate)) = chain.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
        return false;
    };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return false };
    let covered = |name: &String| alternatives.value.general_names.contains(&GeneralName::DNSName(name));
    certificate.validity().not_after.to_datetime() > now + RENEW && names.iter().all(covered)
}

fn make(
    folder: &Path,
    files: &CertificateFiles,
    names: &[String],
    now: OffsetDateTime,
) -> Result<(), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut all = vec![String::from("localhost")];
    all.extend(names.iter().cloned());
    let mut params = CertificateParams::new(all).map_err(|error| error.to_string())?;
    params.subject_alt_names.extend(invite::own_addresses().into_iter().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "fieldspool page");
    // A gateway without a clock must not make a certificate of the future.
    params.not_before = now - Duration::days(30);
    params.not_after = now + VALID;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    write(folder, files, &certificate.pem(), &key.serialize_pem()).map_err(|error| error.to_string())
}

/// Key first: a certificate without its key would look whole.
fn write(folder: &Path, files: &CertificateFiles, certificate: &str, key: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for (path, text) in [(&files.key, key), (&files.cert, certificate)] {
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // `create_new` follows no link that somebody may have left there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
    }
    fs::File::open(folder)?.sync_all()
}
