//! Bad input, with the real binary: each gives one clear line that says what, where and what to do, and loses nothing.
//! What is wrong inside a configuration file is told word by word in `daemon/src/config/tests/bad.txt`; wrong certificates are in
//! `identity.rs`, disks in `storage.rs`, garbage in the spool, a second instance and a full disk in `process.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::broker::{Broker, GATEWAY};
use crate::support::gateway::{BINARY, Gateway};
use crate::support::peers::{ModbusServer, SerialPair};
use crate::support::subscriber::Subscriber;
use crate::support::{SOON, wait_for};

/// One device, one point.
fn bus(port: u16) -> String {
    format!(
        "[bus.hall]\nperiod = \"200ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [bus.hall.device.d1]\nunit_id = 1\npoints = {{ value = {{ input = 100 }} }}\n"
    )
}

/// The lines of a refused start.
fn refusal(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap().lines().map(str::to_owned).collect()
}

fn one_line(output: &Output, words: &[&str]) {
    let lines = refusal(output);
    assert_eq!(lines.len(), 1, "one line: {lines:#?}");
    for word in words {
        assert!(lines[0].contains(word), "{word:?} in {}", lines[0]);
    }
}

#[test]
fn a_configuration_that_leads_to_a_disk_which_is_not_there_yet_is_waited_for() {
    let mut gateway = Gateway::new("");
    let late = gateway.dir.path().join("late.toml");
    symlink(&late, gateway.etc("30-late.toml")).unwrap();
    gateway.launch();
    gateway.wait_log("cannot be read now; it is tried again");
    fs::write(&late, format!("gateway = \"{GATEWAY}\"\n")).unwrap();
    gateway.wait_status("the configuration", |s| (s["gateway"]["id"] == GATEWAY).then_some(()));
}

#[test]
fn a_configuration_that_is_missing_malformed_or_spoilt_by_a_drop_in_is_one_line() {
    let gateway = Gateway::new(&format!("gateway = \"{GATEWAY}\"\n{}", bus(502)));
    let nowhere = gateway.etc("nowhere");
    let run = |place: &str| gateway.command(&["run", "--config", place]).output().unwrap();
    one_line(&run(nowhere.to_str().unwrap()), &["nowhere", "check the path"]);
    let below = gateway.etc("fieldspool.toml/below");
    one_line(&run(below.to_str().unwrap()), &["below", "Not a directory", "check the disk and the path"]);

    fs::write(gateway.etc("20-drop-in.toml"), "[bus.cellar\n").unwrap();
    one_line(&gateway.ask(&["run"]), &["20-drop-in.toml:1:12", "closing bracket"]);
    fs::write(gateway.etc("20-drop-in.toml"), [0xff, 0xfe, 0, 7, 200]).unwrap();
    one_line(&gateway.ask(&["run"]), &["20-drop-in.toml:1:1", "UTF-8"]);
    let twice = "[bus.hall.device.d1]\nunit_id = 2\npoints = { value = { input = 1 } }\n";
    fs::write(gateway.etc("20-drop-in.toml"), twice).unwrap();
    one_line(&gateway.ask(&["run"]), &["20-drop-in.toml:1:", "fieldspool.toml:7:", "d1"]);
    let elsewhere = "[bus.roof.link.modbus-tcp]\nhost = \"192.0.2.9\"\n[bus.roof.device.d1]\nunit_id = 2\n";
    fs::write(gateway.etc("20-drop-in.toml"), format!("{elsewhere}points.value.input = 1\n")).unwrap();
    one_line(&gateway.ask(&["run"]), &["20-drop-in.toml:3:18", "fieldspool.toml:7:18", "another name"]);
    let long = format!("[bus.hall.device.\"<b>'\\u001b{}\"]\nunit_id = 2\n", "x".repeat(10_000));
    fs::write(gateway.etc("20-drop-in.toml"), long).unwrap();
    let lines = refusal(&gateway.ask(&["run"]));
    assert!(lines.iter().all(|line| line.len() < 700 && !line.contains('\u{1b}')), "{lines:#?}");
}

#[test]
fn a_state_directory_that_is_a_file_is_said_with_what_to_do() {
    let mut gateway = Gateway::new("");
    let state = gateway.dir.path().join("file");
    fs::write(&state, "").unwrap();
    gateway.configure(&format!("gateway = \"{GATEWAY}\"\nstate_directory = {state:?}\n{}", bus(502)));
    let cure = "/file is not a directory; name a folder: state_directory = \"/var/lib/fieldspool\"";
    let check = gateway.ask(&["check"]);
    assert!(
        String::from_utf8_lossy(&check.stdout).contains(cure) && check.status.code() == Some(78),
        "{check:?}"
    );
    gateway.launch();
    gateway.wait_log("file is not a directory; name a folder");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a command says to a user who may not read everything, as root may.
fn as_nobody(gateway: &Gateway, command: &str) -> Output {
    for folder in ["", "var", "run"] {
        mode(&gateway.dir.path().join(folder), 0o777);
    }
    // Nobody may not go where the binary lies either, and runs a copy.
    let binary = gateway.dir.path().join("fieldspool");
    if !binary.exists() {
        // By another process: a child of another test that is just begun would hold a file that this one writes, and it could not be run.
        assert!(Command::new("cp").args([Path::new(BINARY), &binary]).status().unwrap().success());
    }
    let plain = gateway.command(&[]);
    let mut process = Command::new(&binary);
    if nix::unistd::geteuid().is_root() {
        process = Command::new("setpriv");
        process.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
    }
    process.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    process.args([command, "--config"]).arg(gateway.dir.path().join("etc")).output().unwrap()
}

#[test]
fn a_state_directory_that_this_user_may_not_look_into_is_not_checked_and_no_fault() {
    let service = nix::unistd::User::from_name("fieldspool").unwrap();
    if service.is_some() || !nix::unistd::geteuid().is_root() {
        return; // Then it is known who will write there, or there is nobody else.
    }
    let gateway = Gateway::new("");
    let state = gateway.dir.path().join("state");
    fs::create_dir(&state).unwrap();
    gateway.configure(&format!("gateway = \"{GATEWAY}\"\nstate_directory = {state:?}\n{}", bus(502)));
    let check = |of_state, code| {
        mode(&state, of_state);
        let output = as_nobody(&gateway, "check");
        assert_eq!(output.status.code(), Some(code), "{of_state:o}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let closed = check(0o700, 0);
    assert!(closed.contains("/state: not checked: it is another user's, and this one may not"), "{closed}");
    assert!(closed.contains("1 folder not checked"), "{closed}");
    assert!(check(0o755, 78).contains("/state cannot be written by this user"), "what can be seen is judged");
}

#[test]
fn a_configuration_that_the_daemon_may_not_read_is_one_line_with_the_command() {
    let gateway = Gateway::new(&format!("gateway = \"{GATEWAY}\"\n{}", bus(502)));
    let run = || as_nobody(&gateway, "run");
    mode(&gateway.etc("fieldspool.toml"), 0);
    one_line(&run(), &["fieldspool.toml", "cannot be read by the user", "chgrp", "g+rX"]);
    mode(&gateway.etc("fieldspool.toml"), 0o644);
    mode(&gateway.etc(""), 0);
    one_line(&run(), &["etc", "cannot be read by the user", "chgrp"]);
    mode(&gateway.etc(""), 0o755);
}

#[test]
fn a_question_that_nobody_hears_is_answered_with_how_to_start_the_daemon_or_where_it_was_looked_for() {
    let gateway = Gateway::new(&bus(502));
    let not_heard = |args: &[&str], words: &str| {
        let output = gateway.ask(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(69) && said.contains(words), "{args:?}: {output:?}");
    };
    for args in [&["status"][..], &["page", "invite"]] {
        not_heard(args, "the daemon is not running; start it with: sudo systemctl start fieldspool");
    }
    // Then it may run elsewhere.
    gateway.configure("[bus.cellar\n");
    for args in [&["status"][..], &["page", "invite"]] {
        not_heard(args, "control.sock, and the configuration, which says where else it may, has faults");
    }
}

#[test]
fn a_broken_file_on_reload_is_one_line() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&format!("gateway = \"{GATEWAY}\"\n{}", bus(plant.port)));
    gateway.start();
    gateway.configure("[bus.cellar\n");
    gateway.signal(Signal::SIGHUP);
    gateway.wait_status("the refusal", |s| s["gateway"]["config_refused"].as_str().map(|_| ()));
    assert_eq!(gateway.stop().code(), Some(0));
    let log = gateway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("fieldspool.toml")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("fieldspool.toml:1:12") && told[0].contains("the old one stays"), "{log}");
}

#[test]
fn each_refused_reload_is_one_line_with_the_first_fault_and_how_many_more_there_are() {
    let plant = ModbusServer::tcp();
    let good = format!("gateway = \"{GATEWAY}\"\n{}", bus(plant.port));
    let mut gateway = Gateway::new(&good);
    gateway.start();
    // As somebody does who corrects one fault after the other.
    for faults in (1..=8).rev() {
        let wrong: String = (0..faults).map(|n| format!("wrong{n} = {faults}\n")).collect();
        gateway.configure(&format!("{wrong}{good}"));
        gateway.signal(Signal::SIGHUP);
        gateway.wait_log(&format!("count={faults} error="));
    }
    assert_eq!(gateway.stop().code(), Some(0));
    let log = gateway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("the old one stays")).collect();
    assert_eq!(told.len(), 8, "{log}");
    assert!(
        told[0].contains("fieldspool.toml:1:1") && told[0].contains("and 7 more: fieldspool check"),
        "{log}"
    );
    assert!(!told[7].contains("more"), "{log}");
}

#[test]
fn a_broker_that_wants_a_password_is_said_and_costs_nothing() {
    let plant = ModbusServer::tcp();
    let mut broker = Broker::prepare(|_| {});
    let port = broker.port;
    let conf = format!("listener {port} 127.0.0.1\nallow_anonymous false\nuser root\n");
    fs::write(broker.file("mosquitto.conf"), conf).unwrap();
    broker.run();
    let mut gateway = Gateway::new(&format!(
        "gateway = \"{GATEWAY}\"\n[uplink]\nbroker = \"mqtt://127.0.0.1:{port}\"\n{}",
        bus(plant.port)
    ));
    gateway.start();
    let words = gateway.wait_status("the reason", |s| s["uplink"]["error"].as_str().map(str::to_owned));
    assert!(words.ends_with("(not authorized): it wants a user: set user and password_file"), "{words}");
    gateway.wait_status("readings kept", |s| (s["spool"]["waiting"].as_u64() > Some(5)).then_some(()));
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_serial_port_that_vanishes_is_said_and_comes_back_under_its_name() {
    let first = SerialPair::new();
    let mut gateway = Gateway::new("");
    let port = gateway.dir.path().join("by-id");
    symlink(first.gateway(), &port).unwrap();
    gateway.configure(&format!(
        "gateway = \"{GATEWAY}\"\n[bus.hall]\nperiod = \"300ms\"\n[bus.hall.link.modbus-rtu]\nport = {port:?}\nspeed = 19200\n\
         [bus.hall.device.d1]\nunit_id = 1\npoints = {{ value = {{ input = 100 }} }}\n"
    ));
    let plant = ModbusServer::rtu(&first.plant(), 19200);
    gateway.start();
    let answers = |s: &Value| (s["buses"][0]["devices"][0]["answering"] == true).then_some(());
    gateway.wait_status("the meter", answers);
    drop((plant, first));
    let words = gateway.wait_status("the port's end", |s| s["buses"][0]["error"].as_str().map(str::to_owned));
    assert!(words.contains(port.to_str().unwrap()), "{words}");

    let second = SerialPair::new();
    let _plant = ModbusServer::rtu(&second.plant(), 19200);
    fs::remove_file(&port).unwrap();
    symlink(second.gateway(), &port).unwrap();
    gateway.wait_status("the meter behind the new adapter", answers);
    assert_eq!(gateway.stop().code(), Some(0));
}

/// What a unit of the hostile server answers to a request for two input registers; what is right is 42.
fn hostile(unit: u8, request: &[u8; 12], before: [u8; 2]) -> Vec<u8> {
    let frame = |transaction: [u8; 2], unit: u8, pdu: &[u8]| {
        let mut frame = transaction.to_vec();
        frame.extend_from_slice(&[0, 0, 0, u8::try_from(pdu.len()).unwrap() + 1, unit]);
        frame.extend_from_slice(pdu);
        frame
    };
    let own = [request[0], request[1]];
    let function = request[7];
    let number = |value: [u8; 4]| [&[function, 4][..], &value].concat();
    let wrong = number([0, 0, 0, 13]);
    match unit {
        1 => frame(own, unit, &[function | 0x80, 2]),
        2 => frame(own, unit, &wrong)[..9].to_vec(),
        3 => frame(own, 99, &wrong),
        4 => frame(before, unit, &wrong),
        5 => frame(own, unit, &[function, 2, 0, 13]),
        6 => frame(own, unit, &number(f32::NAN.to_be_bytes())),
        7 => frame(own, unit, &number([0x80, 0, 0, 0])),
        _ => frame(own, unit, &number([0, 0, 0, 42])),
    }
}

fn serve(mut stream: TcpStream) {
    let mut request = [0; 12];
    let mut before = [0xff, 0xff];
    while stream.read_exact(&mut request).is_ok() {
        let reply = hostile(request[6], &request, before);
        before = [request[0], request[1]];
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

/// `fieldspool status` says of each hostile unit what it does: the refusing one, those that answer something else, the one without numbers.
fn told(gateway: &Gateway) -> Option<()> {
    let text = String::from_utf8(gateway.ask(&["status"]).stdout).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let of = |unit: u8, words: &str| {
        let whole = format!("d{unit} (unit {unit}, bus b{unit}) {words}");
        text.contains(&whole)
    };
    let mut all = of(
        1,
        "answers, but its only point has no usable value: the device has no such address (exception 2).",
    );
    all &= of(6, "answers, but its only point has no usable value: the device sent what is not a number.");
    all &= (3..=5).all(|unit| of(unit, "does not answer since"));
    all &= text.matches("Something answers, but not what was asked").count() == 3;
    all &= !text.contains("All is well");
    all.then_some(())
}

#[test]
fn bad_frames_exceptions_nan_and_sentinels_are_no_values_and_say_why() {
    use std::fmt::Write as _;
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let mut config = String::new();
    for unit in 1..=8 {
        let point = match unit {
            6 => "type = \"f32\"",
            7 => "type = \"i32\", sentinels = [-2147483648]",
            _ => "type = \"u32\"",
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
        write!(
            config,
            "[bus.b{unit}]\nperiod = \"200ms\"\n[bus.b{unit}.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {port}\ntimeout = \"150ms\"\n\
             [bus.b{unit}.device.d{unit}]\nunit_id = {unit}\npoints = {{ value = {{ input = 0, {point} }} }}\n"
        )
        .unwrap();
    }
    let mut gateway = Gateway::with_uplink(&broker, &config);
    gateway.start();
    let reason = |unit: u8| {
        let topic = format!("/live/d{unit}");
        let messages = receiver.messages();
        let batch = messages.iter().rev().find(|m| m.topic.ends_with(&topic))?.json();
        Some(batch["batches"][0]["bad"]["value"].as_str().unwrap_or("none").to_owned())
    };
    let no_frame = &["silent", "bad frame"][..];
    let expected = [
        (1, &["exception 2"][..]),
        (2, no_frame),
        (3, no_frame),
        (4, no_frame),
        (5, no_frame),
        (6, &["not a number"]),
        (7, &["sentinel"]),
        (8, &["none"]),
    ];
    for (unit, words) in expected {
        let said = wait_for(&format!("unit {unit}"), SOON, || reason(unit));
        assert!(words.iter().any(|word| said.contains(word)), "unit {unit}: {said}, expected {words:?}");
    }
    wait_for("the words for it", SOON, || told(&gateway));
    gateway.wait_log(
        "points of it have no usable value: compare its configuration with its manual bus=b1 device=d1",
    );
    wait_for("good readings meanwhile", Duration::from_secs(30), || {
        (receiver.messages().iter().filter(|m| m.topic.ends_with("/live/d8")).count() > 20).then_some(())
    });
    let read = |unit: u8| gateway.ask(&["read", &format!("b{unit}"), &format!("d{unit}")]).status.code();
    let ends = [1, 7, 8].map(read);
    assert_eq!(ends, [Some(69), Some(69), Some(0)], "read: an exception and a sentinel are no values");
    assert_eq!(gateway.stop().code(), Some(0));
    let alone = ["b1", "b8"].map(|bus| gateway.ask(&["read", bus, &bus.replace('b', "d")]).status.code());
    assert_eq!(alone, [Some(69), Some(0)], "and without the daemon");
    for message in receiver.messages().iter().filter(|m| m.topic.contains("/live/")) {
        for batch in message.json()["batches"].as_array().unwrap() {
            let right = if batch["device"] == "d8" { json!(42) } else { Value::Null };
            assert_eq!(batch["points"]["value"], right, "{batch}");
        }
    }
    assert_eq!(receiver.judge()["complete"], json!(true));
}
