//! No input makes it panic, and what is found always has a place.

use proptest::prelude::*;

use super::{METER, PLANT, loaded};

const EVERYTHING: &str = include_str!("../../../../config/examples/modbus-tcp.toml");

/// Checks a text as a configuration and as a profile; every fault must say where and what.
fn survives(text: &str) {
    let plant = format!("{PLANT}\n");
    for files in [
        [("a.toml", text), ("profiles/eastron-sdm630.toml", METER)],
        [("a.toml", plant.as_str()), ("profiles/eastron-sdm630.toml", text)],
    ] {
        let (_folder, loaded) = loaded(&files);
        assert!(loaded.config.is_some() == loaded.faults.is_empty());
        for fault in loaded.faults.iter().chain(&loaded.warnings) {
            assert!(fault.place.as_ref().is_some_and(|place| place.line > 0), "{fault}");
            assert!(!fault.what.is_empty() && !fault.to_string().contains('\n'), "{fault}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn toml_like_text_never_panics(text in "([a-z]{1,3}( = | ?\\[|\\.|\\]|\"|\\{|\\}|,|'''|\n|-?[0-9]{0,20}|true|nan|#){1,4}){0,30}") {
        survives(&text);
    }

    #[test]
    fn a_mutated_configuration_never_panics(
        which in 0_usize..3,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[a-z0-9=\"{}\\[\\]., \n#é-]{0,6}"), 1..6),
    ) {
        let mut text = [PLANT, METER, EVERYTHING][which].to_owned();
        for (at, length, instead) in cuts {
            let chars: Vec<char> = text.chars().collect();
            let start = at.index(chars.len().max(1)).min(chars.len());
            let end = (start + length).min(chars.len());
            text = chars[..start].iter().collect::<String>() + &instead + &chars[end..].iter().collect::<String>();
        }
        survives(&text);
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[0]
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), bytes).unwrap();
        let loaded = crate::config::load(&super::only(folder.path()));
        assert!(loaded.config.is_some() == loaded.faults.is_empty());
    }
}

#[test]
fn deep_nesting_is_a_fault_and_no_crash() {
    for text in [
        "[".repeat(100_000),
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}", "{a=".repeat(50_000)),
        format!("x.{} = 1", "y.".repeat(50_000) + "z"),
    ] {
        let (_folder, loaded) = loaded(&[("a.toml", &text)]);
        assert!(!loaded.faults.is_empty());
    }
}
