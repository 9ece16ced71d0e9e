//! Certificates, keys, secrets: real files, made here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::config::state_directory::{Writer, obstacle};
use crate::config::{Folders, load, report};

/// 2026-11-20, between the dates of the certificates made here.
pub(super) const NOW_US: i64 = 1_795_000_000_000_000;

const YEAR_S: i64 = 365 * 86_400;

/// A file that only its owner may read.
pub(super) fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// `ca.pem`, `gateway.pem` and `gateway.key` in a folder, good for a year around [`NOW_US`].
pub(super) fn plant_identity(folder: &Path, name: &str) {
    identity(folder, name, YEAR_S, ExtendedKeyUsagePurpose::ClientAuth);
}

fn identity(folder: &Path, name: &str, seconds_left: i64, usage: ExtendedKeyUsagePurpose) {
    fs::create_dir_all(folder).unwrap();
    let moment = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let now = NOW_US / 1_000_000;
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (authority.not_before, authority.not_after) = (moment(now - YEAR_S), moment(now + YEAR_S));
    let authority_key = KeyPair::generate().unwrap();
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    (params.not_before, params.not_after) = (moment(now - YEAR_S), moment(now + seconds_left));
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    fs::write(folder.join("ca.pem"), authority_cert.pem()).unwrap();
    fs::write(folder.join("gateway.pem"), cert.pem()).unwrap();
    secret(&folder.join("gateway.key"), &key.serialize_pem());
}

const UPLINK: &str = "[uplink]\nbroker = \"mqtts://mqtt.example.com\"\nca = \"tls/ca.pem\"\n\
                      cert = \"tls/gateway.pem\"\nkey = \"tls/gateway.key\"\n";

/// The report on a folder with an uplink, after `change` had its way with the folder; without the folder's path.
fn report_after(text: &str, change: impl FnOnce(&Path)) -> report::CheckReport {
    let folder = tempfile::tempdir().unwrap();
    plant_identity(&folder.path().join("tls"), "plant7-gw1");
    fs::write(folder.path().join("a.toml"), text).unwrap();
    change(folder.path());
    let folders = Folders { config: vec![folder.path().to_path_buf()], profiles: Vec::new(), named: true };
    let mut report = report::check_in(&folders, false, NOW_US);
    report.text = report.text.replace(&format!("{}/", folder.path().display()), "");
    report
}

#[test]
fn a_good_identity_is_ok_and_names_the_gateway() {
    let report = report_after(UPLINK, |folder| {
        let config = load(&Folders { config: vec![folder.to_path_buf()], profiles: Vec::new(), named: true });
        assert_eq!(&*config.config.unwrap().gateway, "plant7-gw1", "the certificate's common name");
    });
    assert_eq!((report.text.as_str(), report.exit), ("1 file, 0 buses, 0 devices, 0 points: ok\n", 0));
}

#[test]
fn every_bad_file_is_said_with_its_cure() {
    type Change = fn(&Path);
    let cases: &[(Change, &str)] = &[
        (
            |folder| {
                fs::set_permissions(folder.join("tls/gateway.key"), fs::Permissions::from_mode(0o644))
                    .unwrap();
            },
            "a.toml:4:8: uplink.key: tls/gateway.key can be read by everybody (mode 644); run: sudo chown fieldspool: tls/gateway.key && sudo chmod 600 tls/gateway.key",
        ),
        (
            |folder| secret(&folder.join("tls/gateway.key"), &KeyPair::generate().unwrap().serialize_pem()),
            "a.toml:4:8: uplink.key: tls/gateway.key is not the key of tls/gateway.pem; put the key that the certificate was requested with in its place",
        ),
        (
            |folder| secret(&folder.join("tls/gateway.key"), "garbage"),
            "a.toml:4:8: uplink.key: tls/gateway.key holds no private key in PEM; PKCS#8, PKCS#1 and SEC1 are understood",
        ),
        (
            |folder| {
                let locked =
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
                secret(&folder.join("tls/gateway.key"), locked);
            },
            "a.toml:4:8: uplink.key: tls/gateway.key is locked with a pass phrase; unlock it: openssl pkey -in OLD -out NEW",
        ),
        (
            |folder| {
                // openssl ec -aes256
                let locked = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
                secret(&folder.join("tls/gateway.key"), locked);
            },
            "a.toml:4:8: uplink.key: tls/gateway.key is locked with a pass phrase; unlock it: openssl pkey -in OLD -out NEW",
        ),
        (
            |folder| fs::remove_file(folder.join("tls/gateway.key")).unwrap(),
            "a.toml:4:8: uplink.key: tls/gateway.key does not exist; put it there, or correct the path",
        ),
        (
            |folder| fs::write(folder.join("tls/ca.pem"), "").unwrap(),
            "a.toml:3:6: uplink.ca: tls/ca.pem holds no certificate in PEM; put a PEM file in its place",
        ),
        (
            |folder| {
                fs::write(
                    folder.join("tls/ca.pem"),
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                )
                .unwrap();
            },
            "a.toml:3:6: uplink.ca: tls/ca.pem holds something that is no X.509 certificate; put a PEM file in its place",
        ),
        (
            |folder| {
                fs::remove_file(folder.join("tls/ca.pem")).unwrap();
                fs::create_dir(folder.join("tls/ca.pem")).unwrap();
            },
            "a.toml:3:6: uplink.ca: tls/ca.pem is not a plain file; put a PEM file in its place",
        ),
    ];
    for (change, expected) in cases {
        let report = report_after(UPLINK, *change);
        let first = report.text.lines().next().unwrap();
        assert_eq!((first, report.exit), (*expected, 78));
        assert!(
            report.text.ends_with("the daemon starts with it, reads what it can, and warns of the rest\n")
        );
    }
}

#[test]
fn what_will_be_wrong_soon_is_a_warning() {
    let day = 86_400;
    let cases = [
        (-3 * day, "tls/gateway.pem expired 3 days ago; get a new certificate"),
        (-60, "tls/gateway.pem expired less than a day ago; get a new certificate"),
        (60, "tls/gateway.pem expires in less than a day; get a new certificate in time"),
        (day + 60, "tls/gateway.pem expires in 1 day; get a new certificate in time"),
        (5 * day + 60, "tls/gateway.pem expires in 5 days; get a new certificate in time"),
    ];
    for (left, words) in cases {
        let report = report_after(UPLINK, |folder| {
            identity(&folder.join("tls"), "plant7-gw1", left, ExtendedKeyUsagePurpose::ClientAuth);
        });
        assert!(report.text.contains(&format!("uplink.cert: warning: {words}")), "{}", report.text);
        assert_eq!(report.exit, 0);
    }
    let server = report_after(UPLINK, |folder| {
        identity(&folder.join("tls"), "plant7-gw1", YEAR_S, ExtendedKeyUsagePurpose::ServerAuth);
    });
    assert!(
        server.text.contains("is not made for a TLS client; get one with the extended key usage clientAuth")
    );
}

#[test]
fn a_name_that_everybody_has_is_no_gateway_id_in_a_certificate_either() {
    let report = report_after(UPLINK, |folder| plant_identity(&folder.join("tls"), "raspberrypi"));
    assert!(report.text.contains("the certificate's common name, \"raspberrypi\", cannot be the gateway id"));
    assert_eq!(report.exit, 78);
}

#[test]
fn wrong_surroundings_do_not_keep_the_gateway_from_sampling() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("gateway = \"plant7-gw1\"\n{UPLINK}");
    fs::write(folder.path().join("a.toml"), text).unwrap();
    let loaded =
        load(&Folders { config: vec![folder.path().to_path_buf()], profiles: Vec::new(), named: true });
    assert!(loaded.config.is_some(), "no certificate at all, and still a configuration");
    assert_eq!(loaded.look_around(NOW_US).len(), 3);
}

#[test]
fn an_empty_password_and_one_that_all_can_read_are_faults() {
    let text = "gateway = \"gw1\"\n[uplink]\nbroker = \"mqtts://b\"\nuser = \"u\"\npassword_file = \"pw\"\n";
    let empty = report_after(text, |folder| secret(&folder.join("pw"), "\nsecond line\n"));
    assert!(empty.text.contains("uplink.password_file: the first line of pw is empty"), "{}", empty.text);
    let open = report_after(text, |folder| {
        fs::write(folder.join("pw"), "secret").unwrap();
        fs::set_permissions(folder.join("pw"), fs::Permissions::from_mode(0o604)).unwrap();
    });
    assert!(
        open.text.contains(
            "pw can be read by everybody (mode 604); run: sudo chown fieldspool: pw && sudo chmod 600 pw"
        ),
        "{}",
        open.text
    );
    assert!(!open.text.contains("secret"), "a secret never reaches a message");
}

#[test]
fn a_cure_never_changes_what_lies_outside_the_configuration() {
    let text = |file: &str| {
        format!(
            "gateway = \"gw1\"\n[uplink]\nbroker = \"mqtts://b\"\nuser = \"u\"\npassword_file = \"{file}\"\n"
        )
    };
    let named = report_after(&text("/etc/passwd"), |_| {});
    let linked = report_after(&text("pw"), |folder| {
        std::os::unix::fs::symlink("/etc/passwd", folder.join("pw")).unwrap();
    });
    for (report, file) in [(named, "/etc/passwd"), (linked, "pw")] {
        let copy = format!("sudo install -o fieldspool -g fieldspool -m 600 {file} ");
        assert!(report.text.contains(&copy), "{}", report.text);
        assert!(!report.text.contains("chown") && !report.text.contains("chmod"), "{}", report.text);
    }
}

/// What `check` says of a state directory below `folder`, and what the log of a start does.
fn about_state(folder: &Path, state: &Path) -> (String, Vec<String>) {
    fs::write(folder.join("a.toml"), format!("state_directory = {state:?}\n")).unwrap();
    let folders = Folders { config: vec![folder.to_path_buf()], profiles: Vec::new(), named: true };
    let report = report::check_in(&folders, false, NOW_US);
    let first = report.text.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        report.exit == 78,
        first.contains("state_directory: ") && !first.contains("warning: "),
        "{first}"
    );
    (first, load(&folders).look_around(NOW_US))
}

#[test]
fn a_state_directory_that_cannot_hold_a_spool_is_a_fault_and_a_line_of_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink(path("not-mounted"), path("link")).unwrap();
    let cases = [
        ("file", "/file is not a directory; name a folder: "),
        ("file/below", "/file is not a directory; name a folder: "),
        ("link", "/link is a link that leads nowhere; mount its disk, or name a folder: "),
        ("link/below", "/link is a link that leads nowhere; mount its disk, or name a folder: "),
    ];
    for (state, words) in cases {
        let (check, start) = about_state(folder.path(), &path(state));
        assert!(check.contains("a.toml:1:19: state_directory: ") && check.contains(words), "{check}");
        assert_eq!(start, [check], "the start says the same");
    }
    for fine in ["", "new", "new/deeper"] {
        let (check, start) = about_state(folder.path(), &path(fine));
        assert!(!check.contains("cannot") && start.is_empty(), "{check} {start:?}");
    }
}

#[test]
fn a_state_directory_that_nobody_but_another_user_may_write_has_a_cure_that_changes_nothing_that_is_there() {
    let words = |state: &str| {
        let nobody = Writer::of("nobody").unwrap();
        obstacle(Path::new(state), true, &nobody).map(|(what, remedy)| format!("{what}; {remedy}"))
    };
    let there = words("/etc").unwrap();
    assert!(there.starts_with("/etc cannot be written by the service's user fieldspool; run: sudo install -d -o fieldspool -g fieldspool -m 750 /etc/fieldspool, and name that: state_directory = \"/etc/fieldspool\""), "{there}");
    let made = words("/etc/no-such-folder/deep").unwrap();
    assert!(made.starts_with("/etc/no-such-folder/deep does not exist, and cannot be made in /etc by the service's user fieldspool; run: sudo install -d -o fieldspool -g fieldspool -m 750 /etc/no-such-folder/deep"), "{made}");
    assert!(made.contains("ReadWritePaths=/etc/no-such-folder/deep"), "{made}");
    assert_eq!(words("/tmp"), None, "everybody may write there");
    let unnamed = obstacle(Path::new("/etc/no-such-folder"), false, &Writer::of("nobody").unwrap());
    assert_eq!(unnamed, None, "systemd makes it");
}
