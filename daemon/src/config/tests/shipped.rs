//! Every configuration that is shipped is one that passes the check.

use std::fs;
use std::path::{Path, PathBuf};

use fieldspool_drivers::bus::Link;

use super::surroundings::{NOW_US, plant_identity, secret};
use crate::config::{Folders, report};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// All TOML files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The report on one shipped file, as it would be beside real certificates.
fn report_on(file: &Path, plan: bool) -> report::CheckReport {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(file.file_name().unwrap());
    fs::copy(file, &copy).unwrap();
    plant_identity(&folder.path().join("tls"), "plant7-gw1");
    secret(&folder.path().join("password"), "correct horse");
    let is_profile = file.parent().unwrap().ends_with("profiles");
    let profiles = vec![if is_profile { folder.path().to_path_buf() } else { shipped().join("profiles") }];
    report::check_in(&Folders { config: vec![copy], profiles, named: true }, plan, NOW_US)
}

/// The ports of the examples are not there, and tests may run on a machine in memory.
fn usual(line: &str) -> bool {
    ["does not exist", "does not survive a power cut", " points"].iter().any(|words| line.contains(words))
}

#[test]
fn every_shipped_file_passes_the_check() {
    let files = files(&shipped());
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let report = report_on(&file, false);
        assert_eq!(report.exit, 0, "{}:\n{}", file.display(), report.text);
        let odd = report.text.lines().find(|line| !usual(line));
        assert_eq!(odd, None, "{}", file.display());
    }
}

#[test]
fn every_link_has_an_example() {
    let texts = files(&shipped().join("examples"));
    let text: String = texts.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for tag in Link::tags() {
        assert!(text.contains(&format!(".link.{tag}]")), "no example for {tag}");
    }
}

#[test]
fn the_plan_of_an_example_shows_each_request_and_what_it_costs() {
    let report = report_on(&shipped().join("examples/modbus-rtu.toml"), true);
    let cost = |words: &str| report.text.lines().find(|line| line.contains(words)).map(str::to_owned);
    let slow = cost("unit 1, input registers 0 to 17 (18)").unwrap();
    assert!(
        slow.contains("meter-01")
            && slow.contains("every 10s")
            && slow.contains(" ms ")
            && slow.ends_with('%')
    );
    assert!(cost("unit 3, input registers 0 to 17 (18)").unwrap().contains("every 5s"));
    assert!(cost("% of the line's time").is_some(), "{}", report.text);
    assert!(cost("eastron-sdm630 comes from the factory with speed 9600, format 8N1, unit_id 1").is_some());
}

#[test]
fn thirty_like_meters_on_a_line_are_thirty_short_lines() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from(
        "[bus.hall.link.modbus-rtu]\nport = \"/dev/ttyS99\"\nspeed = 19200\n[bus.hall.device]\n",
    );
    for unit in 1..=30 {
        let line = format!("meter-{unit:02} = {{ unit_id = {unit}, profile = \"eastron-sdm630\" }}\n");
        assert!(line.len() < 65, "{line}");
        text.push_str(&line);
    }
    let file = folder.path().join("plant.toml");
    fs::write(&file, text).unwrap();
    let folders = Folders { config: vec![file], profiles: vec![shipped().join("profiles")], named: true };
    let report = report::check_in(&folders, false, NOW_US);
    assert_eq!(report.exit, 0, "{}", report.text);
    assert!(report.text.contains("2 files, 1 bus, 30 devices, 570 points: ok"), "{}", report.text);
}

#[test]
fn a_line_that_is_asked_too_much_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let head = "[bus.hall]\nperiod = \"2s\"\n[bus.hall.link.modbus-rtu]\nport = \"/dev/ttyS99\"\n[bus.hall.device]\n";
    let lines =
        (1..=30).map(|unit| format!("m{unit} = {{ unit_id = {unit}, profile = \"eastron-sdm630\" }}\n"));
    let text: String = std::iter::once(head.to_owned()).chain(lines).collect();
    let file = folder.path().join("plant.toml");
    fs::write(&file, text).unwrap();
    let folders = Folders { config: vec![file], profiles: vec![shipped().join("profiles")], named: true };
    let report = report::check_in(&folders, true, NOW_US);
    assert!(
        report.text.contains("plant.toml:2:10: bus.hall.period: warning: polling takes 3"),
        "{}",
        report.text
    );
    assert_eq!(report.exit, 0, "a warning is no fault");
}
