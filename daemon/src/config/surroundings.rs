//! What the configuration points to: certificates, keys, secrets, serial ports. Looked at, never changed, never used.
//!
//! What is wrong here is a fault for `fieldspool check`, but leaves the configuration valid: a key with a wrong mode
//! must not keep the gateway from sampling. What this user may not read is not checked, and said to be so.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fieldspool_drivers::serial_port::{self, PortFault, PortFaultKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::fault::{Fault, Unchecked};
use super::meaning::{Pointer, PointsTo};
use super::service;
use super::state_directory::{Writer, obstacle};
use crate::page::words;
use crate::spool::not_durable;

/// A certificate that ends within so many days is worth a word.
const EXPIRY_DAYS: i64 = 30;

/// What was found around a configuration.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    pub(super) unchecked: Vec<Unchecked>,
}

/// What a look at a file can end in.
#[derive(Debug)]
pub(super) enum Seen<T> {
    /// It was there.
    Yes(T),
    /// It was not, or is not what it should be; why, as the end of a sentence that begins with its path.
    No(String),
    /// This user may not look.
    NotAllowed(Unchecked),
}

/// Looks at everything. `now_us` is the wall clock, µs since 1970.
pub(super) fn look(pointers: &[Pointer], now_us: i64) -> Look {
    let mut look = Look::default();
    for pointer in pointers {
        match &pointer.to {
            PointsTo::Authorities(path) => look.authorities(pointer, path, now_us),
            PointsTo::Identity { cert, key, client } => look.identity(pointer, (cert, key), *client, now_us),
            PointsTo::Secret(path) => look.secret(pointer, path),
            PointsTo::SerialPort(path) => look.serial_port(pointer, path),
            PointsTo::State { directory, required, named } => {
                look.state(pointer, directory, *required, *named);
            }
        }
    }
    look
}

/// What keeps this process from storing.
pub(super) fn state_for_us(pointer: &Pointer) -> Option<Fault> {
    let PointsTo::State { directory, named, .. } = &pointer.to else { return None };
    let (what, remedy) = obstacle(directory, *named, &Writer::Us)?;
    Some(found(pointer, "", what, remedy))
}

/// The common name of the first certificate in a file.
pub(super) fn common_name(path: &Path) -> Seen<Option<String>> {
    match certificates(path) {
        Seen::Yes(chain) => {
            let name = chain.first().and_then(|der| {
                let (_, certificate) = X509Certificate::from_der(der).ok()?;
                let name = certificate.subject().iter_common_name().next()?;
                Some(name.as_str().ok()?.to_owned())
            });
            Seen::Yes(name)
        }
        Seen::No(why) => Seen::No(why),
        Seen::NotAllowed(unchecked) => Seen::NotAllowed(unchecked),
    }
}

/// A file's bytes. Anything that holds a certificate or a key is small.
fn read(path: &Path) -> Seen<Vec<u8>> {
    const LONGEST: u64 = 1024 * 1024;
    let result = fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            return Ok(Err("is not a plain file"));
        }
        if metadata.len() > LONGEST {
            return Ok(Err("is far too long"));
        }
        fs::read(path).map(Ok)
    });
    match result {
        Ok(Ok(bytes)) => Seen::Yes(bytes),
        Ok(Err(why)) => Seen::No(why.to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Seen::No("does not exist".to_owned()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let why = "this user may not read it; run as root, or as the user fieldspool".to_owned();
            Seen::NotAllowed(Unchecked { path: path.to_path_buf(), why })
        }
        Err(error) => Seen::No(format!("cannot be read: {error}")),
    }
}

fn certificates(path: &Path) -> Seen<Vec<CertificateDer<'static>>> {
    let bytes = match read(path) {
        Seen::Yes(bytes) => bytes,
        Seen::No(why) => return Seen::No(why),
        Seen::NotAllowed(unchecked) => return Seen::NotAllowed(unchecked),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Seen::No("holds no certificate in PEM".to_owned()),
        Ok(chain) if chain.iter().any(|der| X509Certificate::from_der(der).is_err()) => {
            Seen::No("holds something that is no X.509 certificate".to_owned())
        }
        Ok(chain) => Seen::Yes(chain),
        Err(error) => Seen::No(format!("is damaged: {error}")),
    }
}

impl Look {
    fn fault(&mut self, at: &Pointer, key: &str, what: String, remedy: String) {
        self.faults.push(found(at, key, what, remedy));
    }

    fn warn(&mut self, at: &Pointer, key: &str, what: String, remedy: String) {
        self.warnings.push(found(at, key, what, remedy));
    }

    /// What was seen, or `None` after saying why not.
    fn seen<T>(&mut self, at: &Pointer, key: &str, path: &Path, seen: Seen<T>) -> Option<T> {
        match seen {
            Seen::Yes(value) => return Some(value),
            Seen::No(why) => {
                let remedy = match why.as_str() {
                    "does not exist" => "put it there, or correct the path".to_owned(),
                    _ => "put a PEM file in its place".to_owned(),
                };
                self.fault(at, key, format!("{} {why}", path.display()), remedy);
            }
            Seen::NotAllowed(unchecked) => self.unchecked.push(unchecked),
        }
        None
    }

    fn authorities(&mut self, at: &Pointer, path: &Path, now_us: i64) {
        let Some(chain) = self.seen(at, "", path, certificates(path)) else { return };
        for der in &chain {
            self.validity(at, path, der, now_us);
        }
    }

    fn identity(&mut self, at: &Pointer, (cert, key): (&Path, &Path), client: bool, now_us: i64) {
        let chain = self.seen(at, "", cert, certificates(cert));
        if let Some(leaf) = chain.as_ref().and_then(|chain| chain.first()) {
            self.validity(at, cert, leaf, now_us);
            self.purpose(at, cert, leaf, client);
        }
        self.private(at, "key", key);
        let Some(bytes) = self.seen(at, "key", key, read(key)) else { return };
        if is_locked(&bytes) {
            let what = format!("{} is locked with a pass phrase", key.display());
            return self.fault(at, "key", what, "unlock it: openssl pkey -in OLD -out NEW".to_owned());
        }
        let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes) else {
            let what = format!("{} holds no private key in PEM", key.display());
            return self.fault(at, "key", what, "PKCS#8, PKCS#1 and SEC1 are understood".to_owned());
        };
        let Ok(signer) = rustls::crypto::ring::sign::any_supported_type(&private) else {
            let what = format!("{} holds a key of a kind that TLS here does not use", key.display());
            return self.fault(
                at,
                "key",
                what,
                "make one of RSA 2048 or more, P-256, P-384 or Ed25519".to_owned(),
            );
        };
        let Some(chain) = chain else { return };
        if matches!(CertifiedKey::new(chain, signer).keys_match(), Err(rustls::Error::InconsistentKeys(_))) {
            let what = format!("{} is not the key of {}", key.display(), cert.display());
            self.fault(
                at,
                "key",
                what,
                "put the key that the certificate was requested with in its place".to_owned(),
            );
        }
    }

    /// Says when a certificate has ended, ends soon, or has not begun.
    fn validity(&mut self, at: &Pointer, path: &Path, der: &CertificateDer<'_>, now_us: i64) {
        const DAY: i64 = 86_400;
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return };
        let validity = certificate.validity();
        let now = now_us / 1_000_000;
        let left = validity.not_after.timestamp().saturating_sub(now);
        let shown = path.display();
        let (what, remedy) = if left <= 0 {
            let ago = words::days(left.saturating_neg() / DAY);
            (format!("{shown} expired {ago} ago"), "get a new certificate")
        } else if validity.not_before.timestamp() > now {
            (format!("{shown} is not valid yet"), "set the clock (timedatectl), or wait")
        } else if left < EXPIRY_DAYS * DAY {
            (format!("{shown} expires in {}", words::days(left / DAY)), "get a new certificate in time")
        } else {
            return;
        };
        self.warn(at, "", what, remedy.to_owned());
    }

    /// A certificate made for the other end of a connection is refused by its peer.
    fn purpose(&mut self, at: &Pointer, path: &Path, der: &CertificateDer<'_>, client: bool) {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return };
        let Ok(Some(usage)) = certificate.extended_key_usage() else { return };
        let (fits, role) = if client {
            (usage.value.client_auth || usage.value.any, "client")
        } else {
            (usage.value.server_auth || usage.value.any, "server")
        };
        if !fits {
            let what = format!("{} is not made for a TLS {role}", path.display());
            let remedy = format!("get one with the extended key usage {role}Auth");
            self.warn(at, "", what, remedy);
        }
    }

    fn secret(&mut self, at: &Pointer, path: &Path) {
        self.private(at, "", path);
        let Some(bytes) = self.seen(at, "", path, read(path)) else { return };
        if bytes.split(|byte| *byte == b'\n').next().is_none_or(|line| line.trim_ascii().is_empty()) {
            let what = format!("the first line of {} is empty", path.display());
            self.fault(at, "", what, "write the password into it".to_owned());
        }
    }

    /// A file that only the service may read.
    fn private(&mut self, at: &Pointer, key: &str, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else { return };
        let cure = || service::make_private(path, &at.place.file);
        let mode = metadata.mode() & 0o777;
        if mode & 0o007 != 0 {
            let what = format!("{} can be read by everybody (mode {mode:03o})", path.display());
            self.fault(at, key, what, cure());
        } else if mode & 0o020 != 0 {
            let what = format!("{} can be changed by its group (mode {mode:03o})", path.display());
            self.fault(at, key, what, cure());
        } else if service::is_locked_out(&metadata) {
            let what = format!("{} cannot be read by the service's user {}", path.display(), service::USER);
            self.fault(at, key, what, cure());
        }
    }

    fn serial_port(&mut self, at: &Pointer, path: &Path) {
        if let Err(fault) = serial_port::examine(path) {
            return self.port_fault(at, path, fault);
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let by_order = path.parent() == Some(Path::new("/dev"))
            && (name.starts_with("ttyUSB") || name.starts_with("ttyACM"));
        if by_order {
            let what = format!("{} is numbered in the order of plugging in", path.display());
            if let Some(fixed) = lasting_name(path) {
                self.warn(at, "", what, format!("use {}", fixed.display()));
            }
        }
    }
}

impl Look {
    fn state(&mut self, at: &Pointer, directory: &Path, required: bool, named: bool) {
        let writer = Writer::of_service();
        if named && writer.cannot_tell(directory) {
            let why = "it is another user's, and this one may not look into it; run as that user, or as root";
            return self.unchecked.push(Unchecked { path: directory.to_path_buf(), why: why.to_owned() });
        }
        if let Some((what, remedy)) = obstacle(directory, named, &writer) {
            return self.fault(at, "", what, remedy);
        }
        // Before the first start it does not exist: it will lie where its parent does.
        let there = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
        let Some(why) = not_durable(there) else { return };
        let what = format!("{} does not survive a power cut: it lies on {why}", directory.display());
        let remedy = "put it on a disk: state_directory = \"...\"".to_owned();
        if required {
            self.fault(at, "", what, format!("{remedy}, or set require_durable = false"));
        } else {
            self.warn(at, "", what, remedy);
        }
    }

    fn port_fault(&mut self, at: &Pointer, path: &Path, fault: PortFault) {
        match fault.kind {
            // The daemon has it: that is what it is for.
            PortFaultKind::Busy if fault.holders.iter().any(|holder| holder.name == service::USER) => {}
            PortFaultKind::Absent => {
                let present = ports_present();
                let remedy = if present.is_empty() {
                    fault.remedy
                } else {
                    format!("{}; present now: {}", fault.remedy, present.join(", "))
                };
                self.warn(at, "", fault.what, remedy);
            }
            PortFaultKind::Forbidden => {
                let why = format!("{}; run as root", fault.what);
                self.unchecked.push(Unchecked { path: path.to_path_buf(), why });
            }
            _ => self.fault(at, "", fault.what, fault.remedy),
        }
    }
}

/// A key behind a pass phrase: in PKCS#8, or in the older form with headers.
fn is_locked(pem: &[u8]) -> bool {
    let holds = |words: &[u8]| pem.windows(words.len()).any(|part| part == words);
    holds(b"-----BEGIN ENCRYPTED PRIVATE KEY") || (holds(b"Proc-Type:") && holds(b",ENCRYPTED"))
}

fn found(at: &Pointer, key: &str, what: String, remedy: String) -> Fault {
    // A pointer to a pair stands at `cert`; the key has its own line in the message.
    let path = match at.key.strip_suffix("cert") {
        Some(table) if !key.is_empty() => format!("{table}{key}"),
        _ => at.key.clone(),
    };
    Fault { place: Some(at.place.clone()), key: path, what, remedy, is_syntax: false }
}

/// The name of a port that stays when adapters are plugged in another order.
fn lasting_name(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    let names = ["/dev/serial/by-path", "/dev/serial/by-id"]
        .into_iter()
        .filter_map(|folder| fs::read_dir(folder).ok());
    names
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|name| fs::canonicalize(name).ok().as_ref() == Some(&real))
}

/// Serial ports that could have been meant.
fn ports_present() -> Vec<String> {
    let folders = ["/dev/serial/by-path", "/dev/serial/by-id"];
    let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.path().display().to_string()).collect();
    names.sort_unstable();
    names.truncate(8);
    names
}
