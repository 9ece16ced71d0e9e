//! Fresh certificates for one demo: an authority, the broker, the gateway, and somebody who listens.
//!
//! Valid from yesterday (clocks differ) for 90 days: shorter, and the gateway would warn. Keys are readable by their owner only.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

use super::DemoError;

/// Common name of the gateway's certificate, and with it the gateway's id.
pub(super) const GATEWAY: &str = "demo-plant";

/// Writes `ca.pem`, and `broker`, `gateway` and `viewer`, each as `.pem` and `.key`, into `folder`.
pub(super) fn write(folder: &Path) -> Result<(), DemoError> {
    let mut params = named("fieldspool demo authority", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write_file(&folder.join("ca.pem"), &authority.pem(), 0o644)?;
    for (name, common_name, alternatives, purpose) in [
        ("broker", "localhost", &["localhost", "127.0.0.1", "::1"][..], ExtendedKeyUsagePurpose::ServerAuth),
        ("gateway", GATEWAY, &[], ExtendedKeyUsagePurpose::ClientAuth),
        ("viewer", "demo-viewer", &[], ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate()?;
        let mut params = named(common_name, alternatives)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority)?;
        write_file(&folder.join(name).with_extension("pem"), &certificate.pem(), 0o644)?;
        write_file(&folder.join(name).with_extension("key"), &key.serialize_pem(), 0o600)?;
    }
    Ok(())
}

fn named(common_name: &str, alternatives: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let alternatives: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(alternatives)?;
    // No organisation: the built-in broker takes one for a tenant and refuses names with a full stop.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = time::OffsetDateTime::from_unix_timestamp(crate::clock::wall_us() / 1_000_000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    params.not_before = now - time::Duration::DAY;
    params.not_after = now + time::Duration::days(90);
    Ok(params)
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), DemoError> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(DemoError::system(format!("cannot write {}", path.display())))
}
