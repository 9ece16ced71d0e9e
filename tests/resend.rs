//! What a broker acknowledged and dropped is sent again from the spool, and the reference receiver proves that nothing is missing.

use serde_json::{Value, json};

use crate::outage::{config, stop_and_prove, wait_drained};
use crate::support::broker::Broker;
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::subscriber::Subscriber;

/// A gateway whose broker has acknowledged some hundred readings that nobody was there to take.
fn acknowledged_into_the_void() -> (ModbusServer, Broker, Gateway, String) {
    let plant = ModbusServer::tcp();
    plant.tick();
    let broker = Broker::start();
    let config = config(plant.port).replace("\"hold\"", "\"confirm\"");
    let mut gateway = Gateway::with_uplink(&broker, &config);
    gateway.start();
    let run = gateway.wait_status("confirmed readings", |status| {
        let enough = status["spool"]["confirmed"].as_u64() > Some(300);
        enough.then(|| status["gateway"]["run"].as_str().expect("a run").to_owned())
    });
    (plant, broker, gateway, run)
}

/// Asks for readings to be sent again; what is printed.
fn resend(gateway: &Gateway, what: &[&str]) -> String {
    let output = gateway.ask(&[&["spool", "resend"], what].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn number(text: &str) -> u64 {
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

fn of_run<'a>(report: &'a Value, run: &str) -> &'a Value {
    let runs = report["runs"].as_array().expect("runs");
    runs.iter().find(|one| one["run"] == run).unwrap_or_else(|| panic!("no run {run}: {report}"))
}

#[test]
fn a_receiver_that_came_late_gets_all_that_the_broker_had_acknowledged() {
    let (_plant, broker, mut gateway, run) = acknowledged_into_the_void();
    let receiver = Subscriber::start(&broker);
    receiver.wait("live readings", crate::support::SOON, |messages| {
        messages.iter().any(|message| message.topic.contains("/live/")).then_some(())
    });
    // Told apart from what is live: the receiver alone cannot prove the run.
    let without = of_run(&receiver.judge(), &run)["missing"].clone();
    assert_ne!(without, json!([]), "the receiver came late");

    let said = resend(&gateway, &["--since", "1h"]);
    assert!(number(&said) > 300, "{said}");
    assert!(!said.contains("no longer stored"), "what the broker takes meanwhile is not gone: {said}");
    wait_drained(&gateway);
    stop_and_prove(&mut gateway, &receiver);
    let report = receiver.judge();
    assert_eq!(report["faults"], json!([]), "{report}");
    let proved = of_run(&report, &run);
    assert_eq!((&proved["missing"], &proved["ended"]), (&json!([]), &json!(true)), "{report}");
}

#[test]
fn a_kill_between_the_request_and_its_confirmation_forgets_nothing() {
    let (_plant, mut broker, mut gateway, run) = acknowledged_into_the_void();
    broker.stop();
    gateway.wait_status("the outage", |status| (status["uplink"]["connected"] == false).then_some(()));
    let said = resend(&gateway, &[&run, "0-199"]);
    assert_eq!(number(&said), 200, "{said}");
    gateway.kill();

    broker.run();
    let receiver = Subscriber::start(&broker);
    gateway.start();
    wait_drained(&gateway);
    stop_and_prove(&mut gateway, &receiver);
    let report = receiver.judge();
    assert_eq!(report["faults"], json!([]), "{report}");
    let missing = of_run(&report, &run)["missing"].as_array().expect("stretches").clone();
    // 200 and what follows was acknowledged and not asked for.
    assert!(missing.iter().all(|stretch| stretch[0].as_u64() >= Some(200)), "{report}");
    assert_eq!(of_run(&report, &run)["ended"], json!(true), "{report}");
}

#[test]
fn without_a_daemon_the_file_takes_the_request_and_the_next_start_sends() {
    let (_plant, broker, mut gateway, run) = acknowledged_into_the_void();
    assert_eq!(gateway.stop().code(), Some(0));
    let said = resend(&gateway, &["--since", "1d"]);
    assert!(number(&said) > 300 && said.contains("when the daemon starts"), "{said}");
    for (what, code, words) in [
        (vec!["00000099-00000000", "0-1"], 66, "nothing is stored of a run"),
        (vec![&*run, "100000000-100000001"], 66, "there is no 100000000"),
        (vec!["nonsense", "0-1"], 64, "is not a run"),
        (vec![&*run, "9-1"], 64, "ends before it begins"),
        (vec!["--since", "yesterday"], 64, "is not a time"),
        (vec![&*run], 64, "FIRST-LAST"),
    ] {
        let output = gateway.ask(&[&["spool", "resend"], &*what].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{what:?}: {complaint}");
        assert!(complaint.contains(words), "{what:?}: {complaint}");
    }
    let receiver = Subscriber::start(&broker);
    gateway.start();
    wait_drained(&gateway);
    let report = receiver.judge();
    let proved = of_run(&report, &run);
    assert_eq!((&proved["missing"], &proved["clean"]), (&json!([]), &json!(true)), "{report}");
    assert_eq!(report["faults"], json!([]), "{report}");
}

#[test]
fn a_spool_is_verified_by_its_daemon_while_it_runs_and_from_the_file_when_it_does_not() {
    let (_plant, _broker, mut gateway, _) = acknowledged_into_the_void();
    let verify = |gateway: &Gateway, file: &[&str]| {
        let output = gateway.ask(&[&["spool", "verify"], file].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let spool = gateway.var("spool.db").to_str().expect("text").to_owned();
    for file in [vec![], vec![&*spool]] {
        let (code, said, aside) = verify(&gateway, &file);
        assert_eq!(code, Some(0), "{said}{aside}");
        assert!(said.contains(": sound") && said.contains("not checked while the file is in use"), "{said}");
        assert!(aside.contains(&format!("in use by process {}", gateway.pid())), "{aside}");
    }
    gateway.kill();
    let (code, said, aside) = verify(&gateway, &[]);
    assert_eq!((code, &*aside), (Some(0), ""), "{said}");
    assert!(said.contains(": sound") && said.contains("SQLite    checked"), "{said}");

    let damaged = gateway.var("copy.db");
    let mut bytes = std::fs::read(&spool).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x55);
    std::fs::write(&damaged, bytes).expect("written");
    let (code, said, _) = verify(&gateway, &[damaged.to_str().expect("text")]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("DAMAGED"), "{said}");
    let (code, _, aside) = verify(&gateway, &["/nonexistent/spool.db"]);
    assert_eq!(code, Some(66), "{aside}");
    assert_eq!(aside.lines().count(), 1, "one clear line: {aside}");
}
