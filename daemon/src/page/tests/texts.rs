//! Words, problems, metrics and report.

use super::*;
use crate::page::problems::days_left;
use crate::status::{BusStatus, CounterStatus, DeviceStatus, Salvage, Status};

const NOW_US: i64 = 1_795_177_382_123_456;

/// A plant in which all is well: two meters on a serial line, one behind TCP, a server.
pub(super) fn well() -> Status {
    let device = |name: &str, label: &str, unit: u8| DeviceStatus {
        name: name.into(),
        label: label.into(),
        address: format!("unit {unit}"),
        answering: Some(true),
        since_us: Some(NOW_US - 3_600_000_000),
        turnaround_us: Some((12_000, 31_000)),
        polls: 1000,
        ..DeviceStatus::default()
    };
    let bus = |name: &str, driver: &str, place: &str, devices| BusStatus {
        name: name.into(),
        driver: driver.into(),
        place: place.into(),
        up: true,
        load: 0.4,
        counters: CounterStatus { requests: 3000, answers: 3000, ..CounterStatus::default() },
        devices,
        ..BusStatus::default()
    };
    let mut status = Status {
        buses: vec![
            bus(
                "hall",
                "modbus-rtu",
                "/dev/ttyUSB0",
                vec![device("meter-01", "Incomer", 1), device("meter-02", "Compressor 2", 2)],
            ),
            bus("roof", "modbus-tcp", "10.0.0.7:502", vec![device("pv", "", 1)]),
        ],
        ..Status::default()
    };
    status.gateway.id = "plant7-gw1".into();
    status.uplink.configured = true;
    status.uplink.connected = true;
    status.uplink.broker = "mqtt.example.com:8883".into();
    status.uplink.certificate_expires_us = Some(NOW_US + 300 * 86_400_000_000);
    status.spool.state = "ok".into();
    status.clock.synced = true;
    status
}

fn utc(us: i64) -> String {
    encode::rfc3339(us)[11..16].to_owned()
}

/// The texts of all problems after a change.
fn said(change: impl FnOnce(&mut Status)) -> (Summary, String) {
    let mut status = well();
    change(&mut status);
    let summary = summary(&status, NOW_US);
    let texts: Vec<String> = summary.problems.iter().map(|problem| problem.text(utc)).collect();
    (summary, texts.join("\n"))
}

#[test]
fn all_is_well_in_one_sentence() {
    let (summary, texts) = said(|_| {});
    assert_eq!((summary.severity, &*texts), (None, ""));
    assert_eq!(summary.sentence, "All is well: 3 devices answer, the server receives.");
    let (summary, _) = said(|status| status.uplink.configured = false);
    assert_eq!(summary.sentence, "All is well: 3 devices answer. No server is configured.");
    let (summary, _) = said(|status| status.buses[1].devices[0].answering = None);
    assert_eq!(summary.sentence, "All is well: 2 devices answer, 1 not heard from yet, the server receives.");
}

#[test]
fn a_silent_device_is_told_apart_from_a_silent_bus_and_a_closed_one() {
    let silence = |device: &mut DeviceStatus| {
        device.answering = Some(false);
        device.since_us = Some(NOW_US - 8_462_123_456);
    };
    let (summary, text) = said(|status| silence(&mut status.buses[0].devices[1]));
    assert_eq!(
        text,
        "Compressor 2 (meter-02, unit 2, bus hall) does not answer since 10:02. Others on this bus answer: check its \
         power, then A/B, then its unit id."
    );
    assert_eq!(summary.severity, Some(Severity::Fault));
    assert_eq!(summary.sentence, "1 thing needs attention. 2 of 3 devices answer.");
    let (summary, text) = said(|status| status.buses[0].devices.iter_mut().for_each(silence));
    assert_eq!(summary.problems.len(), 1, "one cause, one problem");
    assert!(
        text.starts_with("None of the 2 devices on bus hall answers since 10:02. Check the line first"),
        "{text}"
    );
    let (summary, text) = said(|status| {
        status.buses[0].devices.iter_mut().for_each(silence);
        status.buses[0].up = false;
        status.buses[0].error = Some("/dev/ttyUSB0 is gone.".into());
    });
    assert_eq!(summary.problems.len(), 1);
    assert!(
        text.starts_with("Bus hall is not open since 10:02. /dev/ttyUSB0 is gone. Check the adapter"),
        "{text}"
    );
    let (_, text) = said(|status| silence(&mut status.buses[1].devices[0]));
    assert!(text.contains("pv (unit 1, bus roof) does not answer") && text.contains("unit id"), "{text}");
}

#[test]
fn a_device_that_answers_without_values_is_not_well() {
    use fieldspool_drivers::Cause;
    let without = |unusable, expected, cause: Cause| {
        said(|status| {
            let device = &mut status.buses[0].devices[1];
            (device.points, device.unusable, device.unusable_expected) = (12, unusable, expected);
            device.unusable_cause = Some(cause.code());
        })
    };
    let (summary, text) = without(12, 0, Cause::Exception(2));
    assert_eq!(
        text,
        "Compressor 2 (meter-02, unit 2, bus hall) answers, but none of its 12 points has a usable value: the device \
         has no such address (exception 2). Compare the register map: address, table, type."
    );
    assert_eq!(summary.severity, Some(Severity::Fault));
    assert_eq!(summary.sentence, "1 thing needs attention. All 3 devices answer.");
    let (summary, text) = without(3, 0, Cause::NotANumber);
    assert!(text.starts_with("3 of 12 points of Compressor 2"), "{text}");
    assert!(text.contains("have no usable value: the device sent what is not a number."), "{text}");
    assert_eq!(summary.severity, Some(Severity::Warning), "of lower rank");
    let (summary, text) = without(3, 3, Cause::Sentinel);
    assert_eq!((summary.severity, summary.problems.len()), (None, 1), "its manual says so: {text}");
    let (_, text) = said(|status| {
        let device = &mut status.buses[0].devices[1];
        (device.points, device.unusable, device.answering) = (12, 12, Some(false));
    });
    assert!(!text.contains("usable"), "what is silent is said to be silent: {text}");
}

#[test]
fn what_answers_something_else_is_told_apart_from_silence() {
    let mishear = |device: &mut DeviceStatus| {
        (device.answering, device.misheard) = (Some(false), true);
        device.error = Some("something answers, but not what was asked".into());
    };
    let (_, text) = said(|status| mishear(&mut status.buses[0].devices[1]));
    assert!(
        text.contains("Something answers, but not what was asked. Check its unit id, for another device"),
        "{text}"
    );
    assert!(text.contains("wrong parity or speed") && !text.contains("its power"), "{text}");
    let (_, text) = said(|status| mishear(&mut status.buses[1].devices[0]));
    assert!(text.contains("another protocol on that port") && !text.contains("parity"), "{text}");
    let (summary, text) = said(|status| status.buses[0].devices.iter_mut().for_each(mishear));
    assert_eq!(summary.problems.len(), 1);
    assert!(text.contains("Something answers, but not what was asked"), "{text}");
}

#[test]
fn each_trouble_has_its_words_and_a_remedy() {
    type Change = fn(&mut Status);
    let cases: &[(Change, Severity, &str)] = &[
        (|s| s.gateway.safe_mode = true, Severity::Fault, "5 starts within 10 min"),
        (
            |s| s.gateway.config_refused = Some("x.toml:3".into()),
            Severity::Warning,
            "configuration was refused",
        ),
        (
            |s| s.gateway.warnings = vec!["This card was cloned.".into()],
            Severity::Warning,
            "This card was cloned.",
        ),
        (|s| s.buses[0].load = 0.95, Severity::Warning, "in use 95 % of the time"),
        (|s| s.buses[0].counters.crc_errors = 90, Severity::Warning, "3.0 % of the answers"),
        (|s| s.buses[0].counters.foreign_frames = 90, Severity::Warning, "nobody asked for"),
        (
            |s| s.buses[0].devices[0].missed = 200,
            Severity::Warning,
            "only 1\u{202f}000 of 1\u{202f}200 times",
        ),
        (
            |s| s.uplink.certificate_expires_us = Some(NOW_US + 86_400_000_000 * 5),
            Severity::Warning,
            "in 5 days",
        ),
        (|s| s.uplink.certificate_expires_us = Some(NOW_US - 1), Severity::Fault, "has expired"),
        (|s| s.uplink.dead_letters = 1, Severity::Warning, "refused 1 message for good"),
        (|s| s.spool.dead_letters = 2, Severity::Note, "had refused 2 messages for good"),
        (|s| s.uplink.nobody_listening = 7, Severity::Note, "7 messages to which nobody"),
        (|s| s.spool.state = "read-only".into(), Severity::Fault, "become read-only"),
        (|s| s.spool.state = "full".into(), Severity::Fault, "disk is full"),
        (|s| s.spool.state = "stalled".into(), Severity::Fault, "does not react"),
        (|s| s.spool.state = "failing".into(), Severity::Fault, "does not take readings"),
        (|s| s.spool.unstored_seconds = 90.0, Severity::Warning, "disk is slow: 90 s"),
        (|s| s.spool.not_durable = Some("tmpfs".into()), Severity::Warning, "erases them (tmpfs)"),
        (
            |s| (s.spool.waiting, s.spool.hours_until_full) = (9, Some(1.0)),
            Severity::Warning,
            "Bring the connection to the server back",
        ),
        (
            |s| {
                s.uplink.configured = false;
                (s.spool.waiting, s.spool.hours_until_full) = (9, Some(1.0));
            },
            Severity::Warning,
            "No server is configured",
        ),
        (|s| s.spool.evicted = 1234, Severity::Note, "1\u{202f}234 dropped to make room"),
        (|s| s.spool.expired = 7, Severity::Note, "7 dropped because they were older than max_age"),
        (|s| s.clock.synced = false, Severity::Warning, "clock has not been set"),
        (|s| s.gateway.idle = true, Severity::Note, "Nothing is configured"),
    ];
    for (change, severity, words) in cases {
        let (summary, text) = said(change);
        assert!(text.contains(words), "{words}: {text}");
        assert_eq!(summary.problems[0].severity, *severity, "{text}");
        assert_eq!(summary.severity, Some(*severity).filter(|severity| *severity != Severity::Note));
    }
}

#[test]
fn a_server_that_is_away_says_why_how_much_waits_and_how_long_there_is_room() {
    let (_, text) = said(|status| {
        status.uplink.connected = false;
        status.uplink.since_us = Some(NOW_US - 60_000_000);
        status.uplink.error = Some("the certificate of the server has expired.".into());
        status.spool.waiting = 48_210;
        status.spool.hours_until_full = Some(31.2);
    });
    assert_eq!(
        text,
        "No connection to the server mqtt.example.com:8883 since 12:22. The certificate of the server has expired. \
         Readings are kept here until it is back: 48\u{202f}210 waiting, room for about 31 h."
    );
    let (summary, text) = said(|status| {
        status.spool.waiting = 1;
        status.spool.hours_until_full = Some(0.0);
    });
    assert!(text.contains("oldest are being dropped to make room"), "{text}");
    assert_eq!(summary.severity, Some(Severity::Fault));
}

#[test]
fn times_from_before_the_clock_was_set_are_not_shown_as_times() {
    let (_, text) = said(|status| {
        status.buses[0].devices[0].answering = Some(false);
        status.buses[0].devices[0].since_us = Some(17_000_000);
    });
    assert!(text.contains("does not answer since before the clock was set."), "{text}");
    assert_eq!(days_left(Some(NOW_US), 17_000_000), None, "without a clock no certificate is judged");
}

#[test]
fn who_may_switch_the_gateway_off_while_a_store_waits_for_room_is_told_so() {
    let (judged, text) = said(|status| {
        let found = "the file of a newer program was set aside".to_owned();
        let (searching, waits_for_room) = (true, true);
        let salvage =
            Salvage { at_us: NOW_US, found, saved: 40, searching, waits_for_room, ..Salvage::default() };
        status.spool.salvage = Some(salvage);
    });
    assert_eq!(judged.severity, None, "nothing to do: {text}");
    assert!(text.contains("wait for room: 40 readings taken back so far"), "{text}");
    assert!(!text.contains("Leave the gateway switched on"), "{text}");
}

#[test]
fn what_was_saved_from_a_damaged_store_is_said_for_a_week_and_stays_in_the_report() {
    let damaged = |saved, lost, searching, days_ago: i64| {
        let (at_us, found) = (NOW_US - days_ago * 86_400_000_000, "file is not a database".to_owned());
        said(|status| {
            let salvage = Salvage { at_us, found, saved, lost, searching, ..Salvage::default() };
            status.spool.salvage = Some(salvage);
        })
    };
    let (judged, text) = damaged(1200, 0, true, 0);
    assert_eq!(judged.severity, Some(Severity::Warning), "{text}");
    assert!(text.contains("is being saved: 1\u{202f}200 readings so far"), "{text}");
    let (judged, text) = damaged(1200, 40, false, 1);
    assert_eq!(judged.severity, None, "nothing to do: {text}");
    assert!(text.contains("1\u{202f}200 readings saved from it, 40 are known to be lost"), "{text}");
    assert!(damaged(1, 0, false, 1).1.contains("1 reading saved from it, none is known to be lost"));
    assert!(!damaged(1200, 40, false, 8).1.contains("store was damaged"));
    let mut status = well();
    let found = "file is not a database".to_owned();
    let salvage = Salvage { at_us: NOW_US, found, saved: 12, ..Salvage::default() };
    status.spool.salvage = Some(salvage);
    let report = report::report(&status, &summary(&status, NOW_US), NOW_US);
    assert!(report.contains("Saved from a store that was set aside: 12 readings, 2026-"), "{report}");
}

#[test]
fn the_server_is_said_to_know_only_what_it_has_confirmed() {
    let told = |server, records_waiting| {
        said(|status| {
            (status.uplink.configured, status.spool.records_waiting) = (server, records_waiting);
            status.spool.damaged = 7;
            let damage = crate::status::Salvage { at_us: NOW_US, saved: 12, lost: 7, ..Default::default() };
            status.spool.salvage = Some(damage);
        })
        .1
    };
    assert_eq!(told(true, 0).matches(". Reported to the server. ").count(), 2, "{}", told(true, 0));
    assert_eq!(told(true, 1).matches(". Will be reported to the server. ").count(), 2, "{}", told(true, 1));
    assert!(!told(true, 1).contains("Reported"), "{}", told(true, 1));
    assert!(told(false, 1).contains("No server is configured that could be told"), "{}", told(false, 1));
}

#[test]
fn no_word_of_the_source_code_reaches_the_technician() {
    let mut texts: Vec<String> = words::LABELS.iter().map(|(_, text)| (*text).to_owned()).collect();
    let (_, all) = said(|status| {
        status.gateway.safe_mode = true;
        status.gateway.config_refused = Some("x".into());
        status.buses[0].devices[0].answering = Some(false);
        status.buses[1].up = false;
        status.buses[1].error = Some("x".into());
        status.buses[0].load = 1.0;
        status.buses[0].counters.crc_errors = 3000;
        status.uplink.connected = false;
        status.uplink.nobody_listening = 1;
        status.spool.state = "failing".into();
        status.spool.evicted = 1;
        status.spool.expired = 1;
        status.spool.dropped = 1;
        status.spool.damaged = 1;
        status.spool.not_durable = Some("x".into());
        status.clock.synced = false;
    });
    texts.extend(all.lines().map(str::to_owned));
    for text in texts {
        let lower = text.to_lowercase().replace("fieldspool", "");
        for word in ["spool", "uplink", "lane", "evict", "backlog", "slave", "puback", "epoch"] {
            assert!(!lower.contains(word), "{word}: {text}");
        }
    }
}

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
    let rust =
        [include_str!("../report.rs"), include_str!("../problems.rs"), include_str!("../words.rs")].concat();
    for (key, _) in words::LABELS {
        let used = html.contains(&format!("{{{{{key}}}}}"))
            || scripts.contains(&format!("w.{key}"))
            || rust.matches(&format!("\"{key}\"")).count() > 1;
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

#[test]
fn the_report_tells_everything_and_no_secret() {
    let mut status = well();
    status.buses[0].devices[1].answering = Some(false);
    status.buses[0].devices[1].since_us = Some(NOW_US);
    status.gateway.run = "00000017-9f3c2a10".into();
    let text = report::report(&status, &summary(&status, NOW_US), NOW_US);
    for part in [
        "plant7-gw1",
        "2026-11-20 12:23:02Z",
        "[Fault] Compressor 2 (meter-02, unit 2, bus hall) does not answer",
        "Bus hall: modbus-rtu /dev/ttyUSB0, open",
        "answer time 12 ms",
        "mqtt.example.com:8883",
        "300 days",
        "00000017-9f3c2a10",
    ] {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "{part} in {text}");
    }
}

/// Name, labels and value.
type Sample = (String, Vec<(String, String)>, f64);

/// A strict reader of the text format: every line is a HELP, a TYPE or a sample of the family last announced, names
/// and labels are legal, values are numbers, no series comes twice.
pub(super) fn parse_metrics(text: &str) -> Vec<Sample> {
    let legal = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    assert!(text.ends_with('\n'));
    let (mut family, mut kind, mut samples) = (String::new(), String::new(), Vec::new());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("help");
            assert!(legal(name) && name.starts_with("fieldspool_") && !help.is_empty(), "{line}");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("type");
            assert_eq!(name, family);
            assert!(matches!(of, "gauge" | "counter"), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            of.clone_into(&mut kind);
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(name, family, "{line}");
            assert!(!kind.is_empty() && labels.iter().all(|(label, _)| legal(label)), "{line}");
            let value: f64 = value.parse().expect("a number");
            assert!(!samples.iter().any(|(n, l, _)| *n == name && *l == labels), "{line} twice");
            samples.push((name, labels, value));
        }
    }
    samples
}

fn sample(line: &str) -> (String, Vec<(String, String)>, &str) {
    let end = line.find(['{', ' ']).expect("name");
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    while let Some(after) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = after.split_once("=\"").expect("label");
        let (mut value, mut escape, mut length) = (String::new(), false, None);
        for (i, c) in quoted.char_indices() {
            match (escape, c) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(c),
                (true, _) => panic!("unknown escape in {line}"),
                (false, '"') => {
                    length = Some(i);
                    break;
                }
                (false, '\\') => {}
                (false, _) => value.push(c),
            }
            escape = !escape && c == '\\';
        }
        labels.push((label.to_owned(), value));
        rest = &quoted[length.expect("closing quote") + 1..];
    }
    let rest = rest.strip_prefix('}').unwrap_or(rest);
    (name.to_owned(), labels, rest.strip_prefix(' ').expect("a space"))
}

#[test]
fn metrics_are_the_text_format_to_the_letter() {
    let mut status = well();
    let odd = "a \"quoted\\ name\"\nwith lines";
    status.buses[0].name = odd.into();
    status.spool.hours_until_full = Some(31.5);
    status.spool.waiting = 7;
    let text = metrics::metrics(&status, &summary(&status, NOW_US), 3);
    let samples = parse_metrics(&text);
    let value = |name: &str, label: &str| {
        let found = samples
            .iter()
            .find(|(n, labels, _)| n == name && (label.is_empty() || labels.iter().any(|(_, v)| v == label)));
        found.unwrap_or_else(|| panic!("{name}")).2
    };
    assert!((value("fieldspool_bus_load_ratio", odd) - 0.4).abs() < 1e-9, "escapes read back");
    assert!((value("fieldspool_spool_waiting_readings", "") - 7.0).abs() < 1e-9);
    assert!((value("fieldspool_spool_full_in_seconds", "") - 113_400.0).abs() < 1e-6);
    assert!((value("fieldspool_device_turnaround_median_seconds", "meter-02") - 0.012).abs() < 1e-9);
    assert!((value("fieldspool_page_viewers", "") - 3.0).abs() < 1e-9);
}
