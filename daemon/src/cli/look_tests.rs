//! What a terminal shows of a status.

use super::*;
use crate::status::DeviceStatus;

#[test]
fn what_was_set_aside_and_waits_for_room_is_said_to_come_back_and_not_to_be_damaged() {
    let found = "the file of a newer program was set aside".to_owned();
    let waits = Salvage { found, saved: 40, searching: true, waits_for_room: true, ..Salvage::default() };
    let text = spool(&SpoolStatus { salvage: Some(waits), ..SpoolStatus::default() }, 0);
    let line = text.lines().find(|line| line.contains("Set aside")).expect("a line of its own");
    assert!(line.contains("40 readings taken back so far, the others wait for room"), "{text}");
    assert!(!text.contains("Damaged"), "{text}");
}

#[test]
fn every_type_has_a_line_and_every_order_a_column() {
    let cell = |kind: &str, column, value: &str| PointNow {
        point: "power".into(),
        value: Some(value.into()),
        read_as: Some((kind.into(), column)),
        ..PointNow::default()
    };
    let points = [
        cell("u16", 0, "59054"),
        cell("f32", 0, "-1.7e22"),
        cell("f32", 1, "12345.67"),
        PointNow { point: "text".into(), value: Some("NET".into()), ..PointNow::default() },
    ];
    let text = all_types(&points, None);
    let line = |kind: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(kind)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("f32"), ["f32", "-1.7e22", "12345.67"], "{text}");
    assert_eq!(line("u16"), ["u16", "59054"]);
    assert_eq!(line("as configured"), ["as", "configured", "NET"]);
}

#[test]
fn a_stretch_of_which_nothing_is_found_says_why() {
    let run = "00000017-9f3c2a10".parse().unwrap();
    let asked = Asked::Stretch { run, first: 5000, next: 6001 };
    let text = resent(&Resent::default(), &asked, true);
    assert!(text.contains("readings 5000 to 6000 of run 00000017-9f3c2a10: the run ended before"), "{text}");
    let found = Resent { readings: 17, batches: 1, oldest_us: Some(2), ..Resent::default() };
    let text = resent(&found, &Asked::Since { wall_us: 1 }, true);
    assert!(text.starts_with("17 readings in 1 batch wait"), "{text}");
    assert!(text.contains("the oldest that is stored is from ") && !text.contains("any more"), "{text}");
    let text = resent(&Resent { gone: 7, ..Resent::default() }, &asked, true);
    assert!(!text.contains("ended before"), "that has its own words: {text}");
}

#[test]
fn the_status_names_the_silent_device_without_colour() {
    let mut all = Status::default();
    all.gateway.id = "gw1".into();
    let device = DeviceStatus {
        name: "meter-02".into(),
        answering: Some(false),
        since_us: Some(0),
        ..Default::default()
    };
    all.buses =
        vec![BusStatus { name: "hall".into(), up: true, devices: vec![device], ..Default::default() }];
    let text = status(&all, 600_000_000, Some(80));
    assert!(text.contains("SILENT for 10 min"), "{text}");
    assert!(!text.contains('\u{1b}'));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn time_and_size_are_said_as_people_say_them() {
    assert_eq!(age(45_000_000, 0), "45 s");
    assert_eq!(age(12_000_000_000, 0), "3 h 20 min");
    assert_eq!(age(0, 1), "0 s");
    // As the page's own script rounds them.
    let said = [0.0, 999.0, 1e3, 12_345.0, 999_000.0, 3.0 * 1024.0 * 1024.0, 1024.0 * 1024.0 * 1024.0, 2e12];
    let shown = ["0 B", "999 B", "1 kB", "12.3 kB", "999 kB", "3.15 MB", "1.07 GB", "2000 GB"];
    assert_eq!(said.map(bytes), shown.map(str::to_owned));
    assert_eq!(
        [4_210, 9_999, 10_499, 10_500].map(words::milliseconds),
        ["4.2 ms", "10.0 ms", "10 ms", "11 ms"]
    );
    assert_eq!([-1, 0, 1, 2].map(words::days), ["expired", "less than a day", "1 day", "2 days"]);
}
