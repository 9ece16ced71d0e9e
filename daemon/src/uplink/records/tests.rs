//! Golden records, and the judgement of the shipped schemas on every kind of message.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use fieldspool_drivers::{Cause, Sample, Value, ValueKind};

use super::*;
use crate::model::PointInfo;
use crate::model::event::GapCause;
use crate::model::{Batch, BootId, ClockQuality, Reading};
use crate::status::DeviceStatus;
use crate::uplink::payload::{Lane, Message};
use crate::uplink::sample::{RUN, batch, shape, stamp};

const OLD: RunId = RunId { counter: 16, random: 0xffff_ffff };

fn life() -> Life<'static> {
    Life { gateway: "plant7-gw1", run: RUN, connect: 3, confirmed_to: 48_210 }
}

fn bodies() -> Vec<Body> {
    vec![
        Body::RunEnd { ended: OLD, next_seq: 7, clean: true, last_wall_us: Some(stamp().wall_us) },
        Body::RunEnd { ended: OLD, next_seq: 0, clean: false, last_wall_us: None },
        Body::Gap { of: OLD, first: 4, next: 9, cause: GapCause::Evicted },
        Body::Gap { of: OLD, first: 4, next: 9, cause: GapCause::DeadLetter },
        Body::Gaps { of: OLD, first: 4, next: 90, lost: 31, cause: GapCause::Overflow },
        Body::Clock { boot: BootId(0xabc), offset_us: -5, at_mono_us: 9 },
        Body::Missed { bus: "hall".into(), device: "meter-01".into(), polls: 3 },
        Body::Config { hash: "0123456789abcdef".into(), refused: None },
        Body::Config { hash: "0123456789abcdef".into(), refused: Some("line 3: \"x\"\n".into()) },
        Body::Corruption { found: "a page".into(), saved: 1, lost: 2 },
        Body::Device { device: "meter-01".into(), answering: false },
    ]
}

fn record(number: u64, body: Body) -> Vec<u8> {
    let event = Event { run: RUN, number, stamp: stamp(), body };
    super::event("plant7-gw1", &event, &event.stamp)
}

fn board() -> Status {
    let mut board = Status::default();
    board.gateway.version = "0.1.0".into();
    board.spool.waiting = 12;
    board.spool.oldest_us = Some(stamp().wall_us - 1_000_000);
    board.spool.hours_until_full = Some(12.345_678);
    let device = |answering| DeviceStatus { answering, points: 2, ..DeviceStatus::default() };
    let useless = DeviceStatus { unusable: 2, ..device(Some(true)) };
    let at_rest = DeviceStatus { unusable_expected: 2, ..useless.clone() };
    board.buses.push(BusStatus {
        up: true,
        load: 0.25,
        devices: vec![device(Some(true)), device(Some(false)), device(None), useless, at_rest],
        ..BusStatus::default()
    });
    board
}

fn device_meta() -> DeviceMeta {
    let point = |name: &str, period, json_string| PointInfo {
        name: name.into(),
        kind: ValueKind::Uint,
        unit: "kWh".into(),
        label: "Energy \"in\"".into(),
        decimals: Some(2),
        headline: false,
        period,
        json_string,
    };
    DeviceMeta {
        device: "meter-01".into(),
        label: "Incomer".into(),
        headline: vec!["energy".into()],
        points: [point("energy", Some(Duration::from_millis(500)), true), point("free", None, false)].into(),
    }
}

fn data() -> Vec<Vec<u8>> {
    let usual = batch("meter-01", 4, 3);
    let points =
        [("a", ValueKind::F32), ("b", ValueKind::Text), ("c", ValueKind::Uint), ("d", ValueKind::Bool)];
    let samples = [
        Sample::uncertain(Value::F32(1.5e-7), Cause::AboveLimit),
        Sample::good(Value::Text("x\u{1}\"".into())),
        Sample::good(Value::Uint(u64::MAX)),
        Sample::bad(Cause::Exception(2)),
    ];
    let mut odd = Batch { shape: shape("meter-02", &points), prev: Some(1), ..(*usual).clone() };
    odd.readings = (0..).zip(samples).map(|(point, sample)| Reading { point, sample }).collect();
    odd.stamp.clock = ClockQuality::Unsynced;
    [Lane::Live, Lane::Backlog]
        .map(|lane| {
            let mut message = Message::new("plant7-gw1", RUN, lane, 65_536);
            assert!(message.push(&usual, &usual.stamp) && message.push(&odd, &odd.stamp));
            message.finish()
        })
        .into()
}

#[test]
fn a_record_is_the_documented_one() {
    let text = String::from_utf8(record(5, bodies().swap_remove(2))).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"schema":"fieldspool/1","gateway":"plant7-gw1","run":"00000017-9f3c2a10","number":5,"#,
            r#""time":"2026-11-20T12:23:02.123456Z","kind":"gap","of":"00000016-ffffffff","first":4,"next":9,"#,
            r#""cause":"evicted"}"#
        )
    );
}

#[test]
fn the_status_is_flat_and_says_how_far_everything_is_complete() {
    let text = status(life(), State::Online, stamp().wall_us, &board());
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert!(json.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()));
    assert_eq!(json["complete_until"], "2026-11-20T12:23:01.123456Z");
    assert_eq!(json["confirmed_to"], 48_210);
    let devices = [&json["devices"], &json["devices_silent"], &json["devices_unusable"]];
    assert_eq!(devices.map(serde_json::Value::as_u64), [Some(5), Some(1), Some(1)]);
    assert_eq!(json["hours_until_full"], 12.346);
    let mut down = board();
    (down.buses[0].up, down.buses[0].error) = (false, Some("no such port".into()));
    // Before its first poll, and a slot that a reload left empty.
    down.buses.extend([BusStatus { name: "hall".into(), ..BusStatus::default() }, BusStatus::default()]);
    let json: serde_json::Value =
        serde_json::from_slice(&status(life(), State::Online, stamp().wall_us, &down)).unwrap();
    let answers = [&json["buses_down"], &json["devices_unusable"]];
    assert_eq!(answers.map(serde_json::Value::as_u64), [Some(1), Some(0)], "nobody answers there");
    let mut done = board();
    done.spool.waiting = 0;
    done.spool.unstored_seconds = 0.5;
    let json: serde_json::Value =
        serde_json::from_slice(&status(life(), State::Online, stamp().wall_us, &done)).unwrap();
    assert_eq!(json["complete_until"], "2026-11-20T12:23:00.623456Z");
    // What a damaged file still holds is older than what waits, and waits although the books may not know of it yet.
    for waiting in [0, 12] {
        let mut searched = board();
        (searched.spool.waiting, searched.spool.oldest_us) = (waiting, None);
        searched.spool.oldest_unknown = true;
        let json: serde_json::Value =
            serde_json::from_slice(&status(life(), State::Online, stamp().wall_us, &searched)).unwrap();
        assert_eq!(
            (&json["complete_until"], &json["oldest"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
    }
}

/// Judges messages by a schema, and by the schema made strict: no key that it does not name.
const JUDGE: &str = r#"
import json, sys
import jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
def strict(node):
    if isinstance(node, dict):
        if "properties" in node and "type" in node:
            node.setdefault("additionalProperties", False)
        for value in node.values(): strict(value)
    elif isinstance(node, list):
        for value in node: strict(value)
strict(schema)
judge = jsonschema.Draft202012Validator(schema)
for line in sys.stdin:
    for error in judge.iter_errors(json.loads(line)):
        print(line.strip(), error.message, list(error.path), sep="\n  ")
"#;

/// What is wrong with these messages by `config/schema/{name}.json`.
fn judged(name: &str, messages: &[Vec<u8>]) -> String {
    let schema = format!("{}/../config/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    // Debian's own: another Python earlier in the path does not see Debian's packages.
    let mut judge = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", JUDGE, &schema])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 with jsonschema is installed (apt install python3-jsonschema)");
    let mut lines = judge.stdin.take().unwrap();
    for message in messages {
        lines.write_all(message).unwrap();
        lines.write_all(b"\n").unwrap();
    }
    drop(lines);
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 needs jsonschema (apt install python3-jsonschema)");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_message_is_what_the_shipped_schemas_say() {
    let now = stamp().wall_us;
    let records: Vec<_> = (0..).zip(bodies()).map(|(number, body)| record(number, body)).collect();
    assert_eq!(judged("event", &records), "");
    assert_eq!(judged("data", &data()), "");
    assert_eq!(judged("meta", &[meta("plant7-gw1", RUN, &device_meta())]), "");
    let states = [
        status(life(), State::Online, now, &board()),
        status(life(), State::Stopped, now, &Status::default()),
        brief(life(), State::Offline),
        brief(life(), State::Online),
    ];
    assert_eq!(judged("status", &states), "");
}

#[test]
fn the_schemas_can_say_no() {
    let change = |text: &[u8], from: &str, to: &str| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        text.replace(from, to).into_bytes()
    };
    let data = data().swap_remove(0);
    for (from, to) in
        [("\"seq\":4", "\"seq\":-4"), ("123456Z", "1234Z"), ("\"lane\"", "\"line\""), ("exception 2", "why")]
    {
        assert_ne!(judged("data", &[change(&data, from, to)]), "", "{to}");
    }
    let gap = record(0, bodies().swap_remove(2));
    assert_ne!(judged("event", &[change(&gap, ",\"next\":9", "")]), "");
    let state = status(life(), State::Online, 0, &board());
    assert_ne!(judged("status", &[change(&state, "\"waiting\":12,", "")]), "");
}
