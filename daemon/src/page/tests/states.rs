//! What the card of a device, its line in the report and in `status` say in each of its states: one word for all three.

use super::scrape::parse_metrics;
use super::texts::well;
use crate::page::words::State;
use crate::page::{encode, metrics, report, summary, with_states};
use crate::status::{DeviceStatus, Status};

const SINCE_US: i64 = 1_790_000_000_000_000;

/// The first device of the first bus after a change: its state, its words, and the report's line.
fn shown(change: impl FnOnce(&mut bool, &mut DeviceStatus)) -> (String, String) {
    let mut status: Status = well();
    let bus = &mut status.buses[0];
    bus.devices[0].since_us = Some(SINCE_US);
    change(&mut bus.up, &mut bus.devices[0]);
    let (bus, device) = (&status.buses[0], &status.buses[0].devices[0]);
    let state = State::of(bus, device);
    let words = state.words(device, |us| encode::rfc3339(us)[11..16].to_owned());
    let report = report::report(&status, &summary(&status, SINCE_US), SINCE_US);
    let line = report.lines().find(|line| line.trim_start().starts_with(&device.name)).unwrap();
    let in_report = state.words(device, encode::rfc3339);
    assert!(line.contains(&in_report[..in_report.len().min(12)]), "{in_report} in {line}");
    let json = with_states(&status)["buses"][0]["devices"][0]["state"].clone();
    (json.as_str().unwrap().to_owned(), words)
}

#[test]
fn a_device_is_said_to_answer_only_when_it_does() {
    type Change = fn(&mut bool, &mut DeviceStatus);
    let cases: &[(Change, &str, &str)] = &[
        (|_, _| (), "answers", "answers"),
        (|up, _| *up = false, "bus_down", "bus is down"),
        (|_, d| (d.answering, d.polls) = (None, 0), "not_asked", "not asked yet"),
        (|_, d| (d.answering, d.polls) = (None, 2), "no_answer_yet", "no answer yet"),
        (|_, d| d.answering = Some(false), "silent", "silent since 14:13"),
        (|_, d| (d.answering, d.misheard) = (Some(false), true), "misheard", "no right answer since 14:13"),
        (|_, d| (d.points, d.unusable) = (3, 3), "without", "answers, 3 of 3 without value"),
        (|_, d| (d.points, d.unusable, d.unusable_expected) = (3, 1, 1), "answers", "answers"),
        (|_, d| (d.points, d.unusable, d.unusable_expected) = (3, 3, 3), "answers", "answers"),
    ];
    for (change, state, words) in cases {
        assert_eq!(shown(change), ((*state).to_owned(), (*words).to_owned()));
    }
}

#[test]
fn on_a_line_that_is_down_no_device_is_said_to_answer_anywhere() {
    let mut status: Status = well();
    status.buses[0].devices[0].unusable = 3;
    let said = |status: &Status| {
        let text = metrics::metrics(status, &summary(status, SINCE_US), 0);
        let of = |family: &str| {
            let found = parse_metrics(&text).into_iter().find(|(name, labels, _)| {
                name == family && labels.iter().any(|(_, value)| *value == status.buses[0].devices[0].name)
            });
            found.map(|(_, _, value)| format!("{value}"))
        };
        let json = with_states(status)["buses"][0]["devices"][0]["answering"].as_bool();
        (of("fieldspool_device_answering"), of("fieldspool_device_unusable_points"), json)
    };
    assert_eq!(said(&status), (Some("1".to_owned()), Some("3".to_owned()), Some(true)));
    status.buses[0].up = false;
    assert_eq!(said(&status), (Some("0".to_owned()), None, Some(false)));
    // Nobody was asked yet: unknown, until it is said why nobody can be.
    status.buses[0].devices[0].answering = None;
    assert_eq!(said(&status), (None, None, None));
    status.buses[0].error = Some("no such port".into());
    assert_eq!(said(&status), (Some("0".to_owned()), None, Some(false)));
}
