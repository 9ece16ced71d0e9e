//! What the reference receiver makes of gaps that are told as one.

use serde_json::{Value, json};

use crate::support::subscriber::{Message, judge};

const RUN: &str = "00000001-0000000a";

fn batch(seq: u64, n: u64) -> Value {
    let points: serde_json::Map<String, Value> = (0..n).map(|i| (format!("p{i}"), json!(i))).collect();
    let time = "2026-11-20T12:23:02.123456Z";
    json!({"schema": "fieldspool/1", "gateway": "g", "run": RUN, "lane": "live",
           "batches": [{"device": format!("d{seq}"), "seq": seq, "n": n, "prev": null, "time": time, "points": points}]})
}

fn record(number: u64, body: &Value) -> Value {
    let mut record = json!({"schema": "fieldspool/1", "gateway": "g", "run": "00000002-0000000b", "number": number,
                            "time": "2026-11-20T12:23:02.123456Z"});
    record.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    record
}

fn verdict(messages: &[Value]) -> Value {
    let message =
        |payload: &Value| Message { topic: "fieldspool/g/x".to_owned(), payload: payload.to_string() };
    judge(&messages.iter().map(message).collect::<Vec<_>>())
}

/// Readings 0 to 99, of which 10 to 14, 20 to 24 and 40 to 44 overflowed and 30 to 32 were evicted.
fn held() -> Vec<Value> {
    let batches = [(0, 10), (15, 5), (25, 5), (33, 7), (45, 55)];
    let mut messages: Vec<_> = batches.iter().map(|(seq, n)| batch(*seq, *n)).collect();
    let end = json!({"kind": "run_end", "ended": RUN, "next_seq": 100, "clean": true, "last_time": null});
    messages.push(record(0, &end));
    messages.push(record(1, &json!({"kind": "gap", "of": RUN, "first": 30, "next": 33, "cause": "evicted"})));
    messages
}

fn gaps(number: u64, first: u64, next: u64, lost: u64) -> Value {
    let body =
        json!({"kind": "gaps", "of": RUN, "first": first, "next": next, "lost": lost, "cause": "overflow"});
    record(number, &body)
}

#[test]
fn many_gaps_told_as_one_prove_the_run_and_no_reading_more() {
    let mut messages = held();
    assert_eq!(verdict(&messages)["missing"], 15);
    // One of them had been told by itself before, two as one, then all three.
    messages
        .push(record(2, &json!({"kind": "gap", "of": RUN, "first": 10, "next": 15, "cause": "overflow"})));
    messages.push(gaps(3, 10, 25, 10));
    assert_eq!(verdict(&messages)["missing"], 5);
    messages.push(gaps(4, 10, 45, 15));
    let report = verdict(&messages);
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(report["runs"][0]["gaps"], json!({"evicted": 3, "overflow": 15}));
    // A batch that is missing within the stretch is not excused by it.
    let without: Vec<_> = messages.iter().filter(|m| m["batches"][0]["seq"] != 33).cloned().collect();
    let report = verdict(&without);
    assert_eq!(report["complete"], false, "{report}");
    assert!(report["missing"].as_u64().unwrap() >= 7, "{report}");
}
