//! The files of the page in the binary: every text has its use, and nothing in them is what the policy forbids.

use super::*;
use crate::page::words;

#[test]
fn every_text_is_used_and_every_use_has_a_text() {
    let script = |path: &str| {
        let (.., content) = assets::FILES.iter().find(|(known, ..)| *known == path).expect("file");
        String::from_utf8((*content).to_vec()).expect("UTF-8")
    };
    let scripts: String = assets::FILES
        .iter()
        .filter(|(_, kind, _)| kind.contains("javascript"))
        .map(|(path, ..)| script(path))
        .collect();
    let html = [assets::INDEX, assets::INVITE, assets::DENIED].concat();
    let known = |key: &str| words::LABELS.iter().any(|(known, _)| *known == key);
    let ident =
        |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    for piece in html.split("{{").skip(1) {
        assert!(known(&ident(piece)), "{{{{{}", ident(piece));
    }
    for piece in scripts.split("w.").skip(1) {
        let key = ident(piece);
        assert!(known(&key) || key.is_empty() || !scripts.contains(&format!("(w.{key}")), "w.{key}");
    }
    let rust = [
        include_str!("../report.rs"),
        include_str!("../problems.rs"),
        include_str!("../words/mod.rs"),
        include_str!("../words/buses.rs"),
        include_str!("../words/store.rs"),
    ]
    .concat();
    for (key, _) in words::LABELS {
        let used = html.contains(&format!("{{{{{key}}}}}"))
            || scripts.contains(&format!("w.{key}"))
            || rust.contains(&format!("\"{key}\""));
        assert!(used, "nobody uses {key}");
    }
    let mut keys: Vec<&str> = words::LABELS.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "a key twice");
}

#[test]
fn the_files_of_the_page_hold_nothing_that_the_policy_forbids() {
    for html in [assets::INDEX, assets::INVITE, assets::DENIED] {
        for forbidden in ["<style", "style=", "onclick", "onload", "javascript:", "http://", "https://"] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        assert!(html.split("<script").skip(1).all(|script| script.contains("src=\"/")), "no inline script");
    }
    for (path, _, content) in assets::FILES {
        let text = String::from_utf8_lossy(content);
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "setAttribute(\"style\"",
        ] {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
    }
}
