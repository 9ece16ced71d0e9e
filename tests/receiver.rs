//! The reference receiver says "complete" only when it is: what it makes of copies, gaps, run ends and clock records.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::subscriber::{Message, judge};

const RUN: &str = "00000001-00000001";

fn message(kind: &str, mut payload: Value) -> Message {
    payload["schema"] = json!("fieldspool/1");
    payload["gateway"] = json!("gw");
    Message { topic: format!("fieldspool/gw/{kind}"), payload: payload.to_string() }
}

/// One batch of one reading, the device's before it at `prev`.
fn batch(lane: &str, seq: u64, prev: Option<u64>, clock: Option<&str>, value: u64) -> Message {
    let time = "1970-01-01T00:00:05.000000Z";
    let mut one =
        json!({"device": "d", "seq": seq, "n": 1, "prev": prev, "time": time, "points": {"p": value}});
    if let Some(clock) = clock {
        one["clock"] = json!(clock);
    }
    message(&format!("{lane}/d"), json!({"run": RUN, "lane": lane, "batches": [one]}))
}

fn record(number: u64, mut payload: Value) -> Message {
    payload["run"] = json!("00000002-00000002");
    payload["number"] = json!(number);
    payload["time"] = json!("2026-01-01T00:00:00.000000Z");
    message("event", payload)
}

fn run_end(next_seq: u64) -> Message {
    end(next_seq, true)
}

fn end(next_seq: u64, clean: bool) -> Message {
    record(
        0,
        json!({"kind": "run_end", "ended": RUN, "next_seq": next_seq, "clean": clean, "last_time": null}),
    )
}

/// What a person is told of the messages, and the exit code.
fn in_words(messages: &[Message]) -> (Option<i32>, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/receiver/receiver.py");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for message in messages {
        writeln!(file, "{} {}", message.topic, message.payload).expect("written");
    }
    let output = Command::new("python3").arg(script).arg(file.path()).output().expect("python3");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_hole_is_missing_until_a_copy_or_a_gap_fills_it() {
    let mut all = vec![batch("live", 0, None, None, 1), batch("live", 2, Some(1), None, 3), run_end(5)];
    let report = judge(&all);
    assert_eq!((&report["complete"], &report["missing"]), (&json!(false), &json!(3)), "{report}");
    assert_eq!(report["runs"][0]["missing"], json!([[1, 2], [3, 5]]));
    all.push(record(1, json!({"kind": "gap", "of": RUN, "first": 3, "next": 5, "cause": "evicted"})));
    all.push(batch("backlog", 1, Some(0), None, 2));
    // Everything once more, as after a connection that broke: known, and counted as copies.
    all.extend(all.clone());
    let report = judge(&all);
    assert_eq!((&report["complete"], &report["readings"]), (&json!(true), &json!(3)), "{report}");
    assert_eq!((&report["duplicates"], &report["runs"][0]["gaps"]["evicted"]), (&json!(3), &json!(2)));
}

#[test]
fn a_receiver_that_heard_of_no_reading_does_not_look_like_one_that_misses_none() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/receiver/receiver.py");
    let output =
        Command::new("python3").args([script, "--from-now"]).stdin(Stdio::null()).output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.starts_with("NOTHING IS PROVED: no reading came"), "{said}");
    assert_eq!(judge(&[])["complete"], json!(false));
    // All that a run had is told of: that proves something, without a reading.
    let gone = record(1, json!({"kind": "gap", "of": RUN, "first": 0, "next": 5, "cause": "evicted"}));
    assert_eq!(judge(&[run_end(5), gone])["complete"], json!(true));
}

/// `keep = "unsent"`: 600 readings came, and the run left its last mark at 18.
#[test]
fn of_a_killed_run_what_lies_beyond_its_recorded_end_is_said_apart_with_its_holes() {
    let arrived = |kept: &dyn Fn(u64) -> bool| {
        let one = |seq: u64| batch("live", seq, seq.checked_sub(1), None, seq);
        let mut all: Vec<_> = (0..600).filter(|seq| kept(*seq)).map(one).collect();
        all.push(end(18, false));
        all
    };
    let (code, said) = in_words(&arrived(&|_| true));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("18 of 18 readings up to its recorded end"), "{said}");
    assert!(said.contains("  582 beyond its recorded end, 0 missing among them\n"), "{said}");

    let mut holes = arrived(&|seq| !(100..=150).contains(&seq));
    let (code, said) = in_words(&holes);
    assert_eq!(code, Some(0), "a kill may cost as much: {said}");
    assert!(
        said.contains("  531 beyond its recorded end, 51 missing among them: lost with the kill"),
        "{said}"
    );
    assert!(said.contains("  missing beyond it: 100 to 150\n"), "{said}");
    assert!(said.contains("0 missing; nothing is proved beyond the recorded end of 1 run"), "{said}");
    // What a gap tells of is no hole.
    holes.push(record(1, json!({"kind": "gap", "of": RUN, "first": 90, "next": 120, "cause": "evicted"})));
    let report = judge(&holes);
    assert_eq!((&report["missing"], &report["faults"]), (&json!(0), &json!([])), "{report}");
    assert_eq!((&report["beyond"], &report["beyond_missing"]), (&json!(531), &json!(31)), "{report}");
    let run = &report["runs"][0];
    assert_eq!((&run["held"], &run["beyond_missing"]), (&json!(18), &json!([[120, 151]])), "{report}");

    // Below the end a hole is missing, as ever; and where that proves nothing, nothing is proved.
    let (code, said) = in_words(&arrived(&|seq| seq >= 5));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("13 of 18") && said.contains("  missing: 0 to 4\n"), "{said}");
    let (code, said) = in_words(&[batch("live", 0, None, None, 1), end(0, false)]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("NOTHING IS PROVED: all that came lies beyond the recorded end"), "{said}");
}

#[test]
fn two_copies_that_differ_contradict_each_other() {
    let report = judge(&[batch("live", 0, None, None, 1), batch("backlog", 0, None, None, 2)]);
    assert_eq!(report["complete"], json!(false));
    assert_eq!(report["faults"].as_array().unwrap().len(), 1, "{report}");
}

#[test]
fn stamps_of_a_clock_that_was_not_set_are_corrected_by_its_record() {
    let unsynced = |seq, prev| batch("live", seq, prev, Some("unsynced"), 1);
    let mut all = vec![unsynced(0, None), unsynced(1, Some(0)), batch("live", 2, Some(1), None, 1)];
    let count = |report: &Value, what: &str| report["runs"][0][what].clone();
    let report = judge(&all);
    assert_eq!((count(&report, "unsynced"), count(&report, "corrected")), (json!(2), json!(0)), "{report}");
    let clock = json!({"kind": "clock", "boot": "00", "offset_us": 1_767_225_600_000_000_u64, "at_mono_us": 9,
        "run": RUN, "number": 0, "time": "2026-01-01T00:00:00.000000Z"});
    all.push(message("event", clock));
    let report = judge(&all);
    assert_eq!((count(&report, "unsynced"), count(&report, "corrected")), (json!(0), json!(2)), "{report}");
    assert_eq!(report["faults"], json!([]));
}
