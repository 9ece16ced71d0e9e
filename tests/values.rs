//! What arrives is what the instrument holds: every type, every byte order, against libmodbus's registers.

use serde_json::{Value, json};

use crate::support::SOON;
use crate::support::broker::Broker;
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::subscriber::{Message, Subscriber};

/// Four registers of a test value: its bytes in network order are A B C D E F G H.
fn registers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// Puts the bytes of a value in the order that a device with this setting would send them.
fn ordered(bytes: &[u8], order: &str) -> Vec<u8> {
    order.bytes().map(|letter| bytes[usize::from(letter - b'A')]).collect()
}

/// One point of the test: its name, its table and settings, the registers behind it, and the JSON it must become.
struct Case {
    name: String,
    table: &'static str,
    settings: String,
    registers: Vec<u16>,
    json: Value,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, table, settings: &str, registers: Vec<u16>, json: Value| {
        cases.push(Case { name: name.to_owned(), table, settings: settings.to_owned(), registers, json });
    };
    add("u16", "input", r#"type = "u16""#, vec![0xfffe], json!(65534));
    add("i16", "holding", r#"type = "i16""#, vec![0xfffe], json!(-2));
    for order in ["ABCD", "DCBA", "BADC", "CDAB"] {
        let settings = |kind: &str| format!(r#"type = "{kind}", order = "{order}""#);
        let name = |kind: &str| format!("{kind}_{}", order.to_lowercase());
        let with = |bytes: [u8; 4]| registers(&ordered(&bytes, order));
        add(
            &name("u32"),
            "input",
            &settings("u32"),
            with(0xdead_beef_u32.to_be_bytes()),
            json!(0xdead_beef_u32),
        );
        add(
            &name("i32"),
            "input",
            &settings("i32"),
            with((-123_456_789_i32).to_be_bytes()),
            json!(-123_456_789),
        );
        add(&name("f32"), "holding", &settings("f32"), with(230.4_f32.to_be_bytes()), json!(230.4));
    }
    for order in ["ABCDEFGH", "HGFEDCBA", "BADCFEHG", "GHEFCDAB"] {
        let settings = |kind: &str| format!(r#"type = "{kind}", order = "{order}""#);
        let name = |kind: &str| format!("{kind}_{}", order.to_lowercase());
        let with = |bytes: [u8; 8]| registers(&ordered(&bytes, order));
        let big = 0x0123_4567_89ab_cdef_u64;
        let mut exact = settings("u64");
        exact.push_str(r#", json = "string""#);
        add(&name("u64"), "input", &exact, with(big.to_be_bytes()), json!(big.to_string()));
        add(&name("i64"), "input", &settings("i64"), with((-5_i64).to_be_bytes()), json!(-5));
        add(&name("f64"), "holding", &settings("f64"), with((-0.1_f64).to_be_bytes()), json!(-0.1));
    }
    add("text", "holding", r#"type = "string", length = 4"#, registers(b"SDM630\0\0"), json!("SDM630"));
    add("bit_set", "holding", "bit = 3", vec![0b1000], json!(true));
    add("bit_clear", "holding", "bit = 4", vec![0b1000], json!(false));
    add(
        "scaled",
        "input",
        r#"type = "i16", scale = 0.1, offset = -5.0, decimals = 1"#,
        vec![234],
        json!(18.4),
    );
    add("sentinel", "input", r#"type = "u16", sentinels = [65535]"#, vec![65535], json!(null));
    add("nan", "input", r#"type = "f32""#, registers(&f32::NAN.to_be_bytes()), json!(null));
    add("high", "input", r#"type = "u16", max = 100"#, vec![101], json!(101));
    cases
}

#[test]
fn every_type_and_byte_order_arrives_as_the_instrument_holds_it() {
    let plant = ModbusServer::tcp();
    let cases = cases();
    let mut points = String::new();
    for (case, address) in cases.iter().zip((0..).step_by(10)) {
        plant.set_all(case.table, 1, address, &case.registers);
        points.push_str(&format!("{} = {{ {} = {address}, {} }}\n", case.name, case.table, case.settings));
    }
    plant.set("coil", 1, 7, 1);
    plant.set("discrete", 1, 9, 1);
    points.push_str("coil = { coil = 7 }\ndiscrete = { discrete = 9 }\nno_coil = { coil = 8 }\n");
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!(
            "[bus.hall]\nperiod = \"500ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {}\n\
             [bus.hall.device.all]\nunit_id = 1\n[bus.hall.device.all.points]\n{points}",
            plant.port
        ),
    );
    gateway.start();
    let batch = receiver.wait("a batch with all points", SOON, |messages| {
        let live = messages.iter().filter(|m| m.topic.ends_with("/live/all"));
        let batch = |m: &Message| m.json()["batches"][0].clone();
        live.map(batch).find(|batch| batch["points"].as_object().is_some_and(|p| p.len() == cases.len() + 3))
    });
    for case in &cases {
        assert_eq!(batch["points"][&case.name], case.json, "{}: {batch}", case.name);
    }
    assert_eq!(batch["points"]["coil"], json!(true));
    assert_eq!(batch["points"]["discrete"], json!(true));
    assert_eq!(batch["points"]["no_coil"], json!(false));
    assert_eq!(batch["bad"], json!({"sentinel": "sentinel", "nan": "not a number"}));
    assert_eq!(batch["uncertain"], json!({"high": "above limit"}));
    assert_eq!(gateway.stop().code(), Some(0));
    let report = receiver.judge();
    assert_eq!(report["complete"], json!(true), "{report}");
}
