//! Words, problems and report: what is said, and when.

use super::*;
use crate::page::problems::days_left;
use crate::status::{BusStatus, CounterStatus, DeviceStatus, Status};

pub(super) const NOW_US: i64 = 1_795_177_382_123_456;

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
pub(super) fn said(change: impl FnOnce(&mut Status)) -> (Summary, String) {
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
fn devices_that_were_not_heard_yet_are_not_said_to_be_silent() {
    let headline = |keep: usize| {
        said(|status| {
            status.clock.synced = false;
            status.buses.truncate(keep);
            status.buses.iter_mut().for_each(|bus| bus.devices.truncate(keep));
            status
                .buses
                .iter_mut()
                .flat_map(|bus| &mut bus.devices)
                .for_each(|device| device.answering = None);
        })
        .0
        .sentence
    };
    assert_eq!(headline(1), "1 thing needs attention soon. The device has not answered yet.");
    assert_eq!(headline(2), "1 thing needs attention soon. No device has answered yet.");
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
    let (summary, text) = without(12, 12, Cause::Sentinel);
    assert_eq!((summary.severity, summary.problems.len()), (None, 1), "a device at rest: {text}");
    assert!(
        text.contains("none of its 12 points has a usable value: the device says that it has no value"),
        "{text}"
    );
    assert!(summary.sentence.starts_with("All is well: 3 devices answer"), "{}", summary.sentence);
    let (_, text) = said(|status| {
        let device = &mut status.buses[0].devices[1];
        (device.points, device.unusable, device.answering) = (12, 12, Some(false));
    });
    assert!(!text.contains("usable"), "what is silent is said to be silent: {text}");
}

#[test]
fn a_reason_is_said_of_as_many_points_as_have_it() {
    let why = |unusable, of_cause| {
        let (_, text) = said(|status| {
            let device = &mut status.buses[0].devices[1];
            (device.points, device.unusable, device.unusable_of_cause) = (11, unusable, of_cause);
            device.unusable_cause = Some(fieldspool_drivers::Cause::Exception(2).code());
        });
        text.split_once("usable value").unwrap().1.split_once(" (exception 2).").unwrap().0.to_owned()
    };
    assert_eq!(why(3, 3), ": the device has no such address");
    let one = ", for several reasons; for 1 of them: the device has no such address";
    assert_eq!(
        (why(3, 1).as_str(), why(11, 1).as_str()),
        (one, one),
        "a sentinel and what is not a number are others"
    );
    assert_eq!(why(3, 0), ": the device has no such address", "a daemon that does not tell");
}

#[test]
fn an_instrument_that_talks_but_not_this_sentence_is_said_to_answer() {
    let (_, text) = said(|status| {
        status.buses[1].driver = "serial-line".into();
        let device = &mut status.buses[1].devices[0];
        (device.points, device.unusable) = (4, 1);
        device.unusable_cause = Some(fieldspool_drivers::Cause::Silent.code());
    });
    let end = "has no usable value: nothing came for it in time. It says other things: see whether it is set to send that \
               sentence, and compare how the sentence begins.";
    assert!(text.starts_with("1 of 4 points of pv") && text.ends_with(end), "{text}");
    assert!(!text.contains("does not answer") && !text.contains("register"), "{text}");
}

#[test]
fn an_instrument_that_talks_by_itself_is_not_searched_by_unit_id() {
    let quiet = |devices: usize| {
        said(|status| {
            let bus = &mut status.buses[0];
            bus.driver = "serial-line".into();
            bus.devices.truncate(devices);
            for device in &mut bus.devices {
                (device.address, device.answering) = (String::new(), Some(false));
                device.error = Some("no answer in time".into());
            }
        })
        .1
    };
    let text = quiet(1);
    assert!(text.starts_with("Nothing comes from Incomer (meter-01, bus hall) since"), "{text}");
    assert!(text.contains("set to send") && text.ends_with("speed and format of the port."), "{text}");
    for text in [text, quiet(2)] {
        assert!(
            !text.contains("unit id") && !text.contains("nswer in time") && !text.contains("A and B"),
            "{text}"
        );
    }
}

#[test]
fn check_is_recommended_only_for_what_it_can_find() {
    let refused = |check_finds_it| {
        said(|status| {
            let why = Some("/etc/fieldspool: the configuration folder is gone".into());
            (status.gateway.config_refused, status.gateway.check_finds_it) = (why, check_finds_it);
        })
        .1
    };
    let text = refused(false);
    assert!(text.ends_with("stays in force. /etc/fieldspool: the configuration folder is gone."), "{text}");
    let text = refused(true);
    assert!(text.ends_with("is gone. \"fieldspool check\" shows what a reload would find."), "{text}");
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
        (|s| s.gateway.safe_mode = true, Severity::Fault, "5 starts in a row, none of which lasted 10 min"),
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
        (|s| s.spool.state = "full".into(), Severity::Fault, "\"df -h\" and"),
        (
            |s| (s.spool.state, s.spool.mounted_at) = ("full".into(), Some("/data one".into())),
            Severity::Fault,
            "\"du -x '/data one' | sort",
        ),
        (|s| s.spool.state = "stalled".into(), Severity::Fault, "does not react"),
        (|s| s.spool.state = "failing".into(), Severity::Fault, "does not take readings"),
        (|s| s.spool.unstored_seconds = 90.0, Severity::Warning, "disk is slow: 90 s"),
        (|s| s.spool.not_durable = Some("tmpfs".into()), Severity::Warning, "erases them (tmpfs)"),
        (
            |s| {
                (s.spool.waiting, s.spool.hours_until_full) = (9, Some(1.0));
                s.spool.oldest_us = Some(NOW_US - 2 * 3_600_000_000);
            },
            Severity::Warning,
            "The connection to the server stands",
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
fn what_is_on_its_way_over_a_connection_that_stands_does_not_fill_the_store() {
    let said = |connected: bool, waited_us: Option<i64>| {
        let change = |status: &mut Status| {
            status.uplink.connected = connected;
            (status.spool.waiting, status.spool.hours_until_full) = (120, Some(23.0 / 60.0));
            status.spool.oldest_us = waited_us.map(|us| NOW_US - us);
        };
        said(change).1
    };
    for waited_us in [Some(2_000_000), Some(22 * 60_000_000), None] {
        assert_eq!(said(true, waited_us), "", "{waited_us:?}");
    }
    let gathers = said(true, Some(24 * 60_000_000));
    assert!(gathers.contains("used up in about 23 min") && !gathers.contains("Bring the"), "{gathers}");
    let away = said(false, Some(2_000_000));
    assert!(away.contains("used up in about 23 min") && away.contains("Bring the connection"), "{away}");
}

#[test]
fn room_that_ends_is_said_over_a_connection_that_stands_while_nobody_knows_how_old_is_what_waits() {
    // A rescue waits for room, and the server takes nothing.
    let (_, text) = said(|status| {
        status.uplink.connected = true;
        (status.spool.waiting, status.spool.hours_until_full) = (120, Some(23.0 / 60.0));
        (status.spool.oldest_us, status.spool.oldest_unknown) = (None, true);
    });
    assert!(text.contains("used up in about 23 min"), "{text}");
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
        "\n  pv (unit 1): answers",
        "mqtt.example.com:8883",
        "300 days",
        "00000017-9f3c2a10",
    ] {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "{part} in {text}");
    }
}
