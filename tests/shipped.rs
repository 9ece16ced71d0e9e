//! What is shipped is tested as shipped: the configuration in the README, and the README itself.

use std::fs;
use std::process::Command;

use crate::support::broker::{Authority, GATEWAY, write_private};
use crate::support::gateway::BINARY;

fn repository(path: &str) -> String {
    format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_configuration_in_the_readme_passes_the_check() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let config =
        readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    fs::create_dir(here.join("tls")).unwrap();
    fs::create_dir(here.join("profiles")).unwrap();
    let profile = "eastron-sdm630.toml";
    fs::copy(repository(&format!("config/profiles/{profile}")), here.join("profiles").join(profile)).unwrap();
    let authority = Authority::new("an authority");
    let (cert, key) = authority.sign(GATEWAY, false, |_| {});
    fs::write(here.join("tls/ca.pem"), &authority.pem).unwrap();
    fs::write(here.join("tls/gateway.pem"), cert).unwrap();
    write_private(&here.join("tls/gateway.key"), &key);
    fs::write(here.join("plant.toml"), config).unwrap();
    let output = Command::new(BINARY).args(["check", "--plan", "--config"]).arg(here).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("2 devices") && text.contains("unit 2"), "{text}");
}

#[test]
fn the_readme_is_short_and_every_file_it_names_exists() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    assert!(readme.lines().count() < 150, "{} lines", readme.lines().count());
    let folders = ["config/", "tests/", "daemon/", "drivers/", "packaging/", "yocto/", "systemd/"];
    for word in readme.split(|c: char| c.is_whitespace() || "`(),:;".contains(c)) {
        if folders.iter().any(|folder| word.starts_with(folder)) {
            let path = word.trim_end_matches('.');
            assert!(fs::exists(repository(path)).unwrap(), "the README names {path}");
        }
    }
}
