//! Data flows one way, and so do imports: who may use whom, as a table. A module that needs one more line here needs
//! a reason first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Module of the daemon → what it may import of the daemon, in the order of the road.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sys", &[]),
    ("mounts", &[]),
    ("clock", &["model", "sys"]),
    ("status", &[]),
    ("log", &["clock"]),
    ("config", &["model", "clock", "mounts", "schedule", "intake", "spool", "uplink", "live", "page"]),
    ("schedule", &["status", "clock"]),
    ("intake", &["model", "clock", "status", "schedule", "spool", "uplink", "live"]),
    ("live", &["model"]),
    ("spool", &["model", "status", "clock", "mounts"]),
    ("uplink", &["model", "status", "clock", "spool"]),
    ("page", &["model", "status", "clock", "spool", "live"]),
    ("control", &["model", "status", "clock", "log", "config", "spool", "schedule", "page"]),
    ("demo", &["clock", "sys", "config"]),
];

/// These wire the others together and may use all; nobody may use them.
const TOP: &[&str] = &["supervise", "cli", "main", "lib"];

#[test]
fn imports_follow_the_direction_of_the_data() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&root) {
        let module = module_of(&root, &file);
        seen.insert(module.clone());
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for used in imports(line) {
                let allowed = used == module
                    || TOP.contains(&module.as_str())
                    || table.get(module.as_str()).is_some_and(|may| may.contains(&used.as_str()));
                if !allowed {
                    faults.push(format!("{}:{}: {module} must not use {used}", file.display(), number + 1));
                }
            }
        }
        if !TOP.contains(&module.as_str()) && !table.contains_key(module.as_str()) {
            faults.push(format!("{}: the module {module} has no line in the table", file.display()));
        }
    }
    assert!(seen.contains("spool") && seen.contains("uplink"), "the walk saw the modules: {seen:?}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_drivers_know_no_broker_no_database_no_file_and_no_wall_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/src");
    let forbidden = ["rumqttc", "rusqlite", "toml::", "serde", "axum", "SystemTime", "fieldspool::"];
    let mut faults = Vec::new();
    for file in rust_files(&root) {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for word in forbidden.iter().filter(|word| line.contains(*word)) {
                faults.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_code_stands_in_one_small_module_of_each_crate() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for root in [here.join("src"), here.join("../drivers/src"), here.join("../tests/crash/src")] {
        for file in rust_files(&root) {
            let text = fs::read_to_string(&file).unwrap();
            let allows = text.contains("allow(unsafe_code)") || text.contains("expect(unsafe_code");
            assert!(!allows || file == root.join("sys.rs"), "{} allows unsafe code", file.display());
        }
    }
}

/// The daemon's modules that a line names after `crate::`.
fn imports(line: &str) -> Vec<String> {
    if line.trim_start().starts_with("//") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or(list);
            found.extend(list.split(',').map(|part| head(part.trim())));
        } else {
            found.push(head(rest));
        }
    }
    found.retain(|name| !name.is_empty() && name.starts_with(char::is_lowercase));
    found
}

fn head(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first part of a file's path: `spool/store.rs` and `spool.rs` belong to `spool`.
fn module_of(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
