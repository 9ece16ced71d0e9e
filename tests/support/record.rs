//! The table of `tests/README.md`: a command that proves something replaces its own row. A row is found by its first cell.
//!
//! Taken in by path where it is needed (`#[path = "../support/record.rs"] mod record;`), so that it belongs to no crate.

use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- results -->";
const END: &str = "<!-- end of results -->";

/// Writes one row: what was done; then how often, seed, lost, worst duplicates, command. The commit is added.
///
/// # Panics
/// If the table is not there.
pub fn row(what: &str, cells: &[&str; 5]) {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|path| path.join("tests/README.md").exists());
    let file = root.expect("tests/README.md lies above").join("tests/README.md");
    let text = fs::read_to_string(&file).expect("readable");
    let (before, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (table, after) = rest.split_once(END).expect("the table has an end");
    let commit = std::process::Command::new("git")
        .args(["log", "-1", "--format=%h"])
        .current_dir(file.parent().expect("a folder"))
        .output()
        .map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
        .unwrap_or_default();
    let own = format!("| {what} |");
    let new = format!("{own} {} | {commit} |", cells.join(" | "));
    let mut lines: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    match lines.iter().position(|line| line.starts_with(&own)) {
        Some(at) => lines[at] = &new,
        None => lines.push(&new),
    }
    fs::write(&file, format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", lines.join("\n"))).expect("writable");
}
