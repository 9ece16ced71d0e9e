//! What `fieldspool check` says beside faults: hints, what it could not see, and the plan.

use std::fs;
use std::path::Path;

use super::surroundings::NOW_US;
use crate::config::fault::{Fault, Place, Unchecked};
use crate::config::{Folders, report};

fn said_of(folder: &Path, plan: bool) -> String {
    let folders =
        Folders { config: vec![folder.to_path_buf()], profiles: vec![folder.join("profiles")], named: true };
    report::check_in(&folders, plan, NOW_US).text.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn a_file_that_looks_like_configuration_and_is_not_read_is_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.toml", "b.TOML", "c.conf", "d.yaml", "README", "e.pem", ".f.conf", "a.toml.dpkg-old"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    for name in ["tls.conf", "profiles"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("profiles/p.Toml"), "").unwrap();
    let text = said_of(folder.path(), false);
    let hint = ": hint: this file is not read: its name does not end in .toml\n";
    let hints: String =
        ["b.TOML", "c.conf", "d.yaml", "profiles/p.Toml"].map(|name| format!("{name}{hint}")).concat();
    assert_eq!(text, format!("{hints}1 file, 0 buses, 0 devices, 0 points: ok\n"), "each once, and no fault");
}

#[test]
fn the_name_of_a_file_never_breaks_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a\nb\u{1b}[31m.toml";
    fs::write(folder.path().join(name), "trust_rtv = true\n").unwrap();
    fs::write(folder.path().join("c\nd.conf"), "").unwrap();
    let text = said_of(folder.path(), false);
    assert!(text.starts_with("a\\nb\\u{1b}[31m.toml:1:1: unknown key \"trust_rtv\""), "{text}");
    assert!(text.contains("\nc\\nd.conf: hint: "), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let path = folder.path().join(name);
    let unchecked = Unchecked { path: path.clone(), why: "why".to_owned() };
    for line in
        [unchecked.to_string(), unchecked.denied(), report::check(Some(&path.join("x")), false, NOW_US).text]
    {
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    }
    let place = Some(Place::file(path.as_path().into()));
    let fault =
        Fault { place, key: String::new(), what: "what".to_owned(), remedy: String::new(), is_syntax: false };
    assert_eq!(fault.to_string().lines().count(), 1);
}

#[test]
fn who_may_not_read_is_never_told_to_give_away_a_folder_of_the_whole_machine() {
    let denied = |path: &str| Unchecked { path: path.into(), why: String::new() }.denied();
    for path in ["/etc", "/etc/passwd", "/", "/home"] {
        let said = denied(path);
        assert!(!said.contains("chgrp") && said.contains("a folder of its own: /etc/fieldspool"), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().to_str().unwrap();
    assert!(denied(own).ends_with(&format!("run: chgrp -R fieldspool {own} && chmod -R g+rX {own}")));
}

#[test]
fn folders_that_could_not_be_seen_are_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let unchecked = |name: &str| Unchecked { path: folder.path().join(name), why: String::new() };
    fs::create_dir(folder.path().join("one")).unwrap();
    fs::create_dir(folder.path().join("two")).unwrap();
    let words =
        |names: &[&str]| report::not_checked(&names.iter().map(|name| unchecked(name)).collect::<Vec<_>>());
    assert_eq!(words(&["one", "two"]), "2 folders not checked");
    assert_eq!(words(&["a.toml", "one"]), "1 file and 1 folder not checked");
    assert_eq!(words(&["a.toml"]), "1 file not checked");
}

#[test]
fn the_plan_explains_registers_that_nobody_configured() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[bus.a.link.modbus-rtu-tcp]\nhost = \"192.0.2.1\"\nport = 4001\n[bus.a.device.m]\nunit_id = 1\n[bus.a.device.m.points]\n\
                level = { input = 0, type = \"i16\", period = \"1s\" }\nwater = { input = 1, type = \"i16\", period = \"10s\" }\n";
    fs::write(folder.path().join("a.toml"), text).unwrap();
    let plan = said_of(folder.path(), true);
    assert!(plan.contains("input registers 1 to 2 (2)"), "{plan}");
    assert_eq!(plan.matches("one or two (8 or 16 coils) beyond them").count(), 1, "{plan}");
    assert!(!said_of(folder.path(), false).contains("coils"));
    // Each answer of Modbus TCP names its request: nothing is read beside what was asked for.
    fs::write(folder.path().join("a.toml"), text.replace("-rtu-tcp", "-tcp")).unwrap();
    let plan = said_of(folder.path(), true);
    assert!(plan.contains("input register 1\n") && !plan.contains("coils"), "{plan}");
}
