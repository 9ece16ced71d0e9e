//! Stored is stored: outages of the broker and ends of the process, judged by the reference receiver.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::subscriber::{Message, Subscriber};
use crate::support::{SOON, wait_for};

/// Ten points in two devices, ten times a second; `hold`, so that nothing is lost on a broker without subscribers.
pub fn config(port: u16) -> String {
    let points: String = (0..10).map(|i| format!("p{i} = {{ input = {} }}\n", 100 + i)).collect();
    format!(
        "nobody_listens = \"hold\"\n[spool]\ncommit_every = \"200ms\"\n\
         [bus.hall]\nperiod = \"100ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [bus.hall.device.one]\nunit_id = 1\n[bus.hall.device.one.points]\n{points}\
         [bus.hall.device.two]\nunit_id = 2\n[bus.hall.device.two.points]\n{points}"
    )
}

/// Readings stored or confirmed, as the status tells.
fn stored(status: &Value) -> Option<u64> {
    let spool = &status["spool"];
    Some(spool["numbered"].as_u64()? - spool["open"].as_u64()?)
}

/// Stops the gateway in order, and starts it once more for what the stop had no time to send: a run end goes with the
/// last connection if that is quick enough, else with the next one. The newest run is then still without its end.
pub fn stop_and_prove(gateway: &mut Gateway, receiver: &Subscriber) {
    let run = gateway.status().expect("alive")["gateway"]["run"].as_str().expect("a run").to_owned();
    assert_eq!(gateway.stop().code(), Some(0));
    gateway.start();
    receiver.wait("the end of the run", SOON, |messages| {
        let ended = |m: &Message| m.topic.ends_with("/event") && m.json()["ended"] == run.as_str();
        messages.iter().any(ended).then_some(())
    });
    wait_drained(gateway);
    gateway.kill();
}

/// Waits until nothing waits to be sent.
pub fn wait_drained(gateway: &Gateway) {
    gateway.wait_status("an empty backlog", |status| {
        (status["spool"]["waiting"] == 0 && status["uplink"]["connected"] == true).then_some(())
    });
}

#[test]
fn thirty_seconds_without_a_broker_lose_nothing_and_polling_goes_on() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::start();
    let first = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(&broker, &config(plant.port));
    gateway.start();
    first.wait("live readings", SOON, |m| {
        (m.iter().filter(|m| m.topic.contains("/live/")).count() > 10).then_some(())
    });
    let mut arrived = first.messages();
    broker.stop();
    arrived.extend(first.messages());

    let outage = Instant::now();
    let before = plant.requests(1);
    gateway.wait_status("the outage to be said", |s| (s["uplink"]["connected"] == false).then_some(()));
    // The outage itself is the condition: it lasts thirty seconds, while the plant counts what is asked of it.
    wait_for("thirty seconds", Duration::from_secs(40), || {
        (outage.elapsed() >= Duration::from_secs(30)).then_some(())
    });
    let polls = plant.requests(1) - before;
    assert!(polls >= 280, "polling went on during the outage: {polls} polls in 30 s, 300 were due");

    broker.run();
    let back = Instant::now();
    let second = Subscriber::start(&broker);
    second.wait("readings after the outage", Duration::from_secs(40), |m| {
        m.iter().any(|m| m.topic.contains("/live/")).then_some(())
    });
    println!("first live reading {:?} after the broker's return", back.elapsed());
    wait_drained(&gateway);
    stop_and_prove(&mut gateway, &second);
    arrived.extend(first.messages());
    arrived.extend(second.messages());
    let report = crate::support::subscriber::judge(&arrived);
    assert_eq!(report["complete"], json!(true), "{report}");
    assert_eq!(report["runs"][0]["clean"], json!(true), "the run end arrived: {report}");
    assert!(report["backlog"].as_u64() > Some(4_000), "the outage's readings came as backlog: {report}");
}

#[test]
fn three_kills_in_one_outage_lose_no_stored_reading_and_every_run_is_proved() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    let mut gateway = Gateway::with_uplink(&broker, &config(plant.port));
    let mut least = Vec::new();
    for _ in 0..3 {
        gateway.start();
        let count = gateway.wait_status("stored readings", |status| stored(status).filter(|n| *n > 200));
        least.push((
            gateway.status().expect("alive")["gateway"]["run"].as_str().expect("a run").to_owned(),
            count,
        ));
        gateway.kill();
    }
    gateway.start();
    gateway.wait_status("more readings without a broker", |status| stored(status).filter(|n| *n > 200));

    broker.run();
    let receiver = Subscriber::start(&broker);
    receiver.wait("readings after the outage", Duration::from_secs(60), |m| (!m.is_empty()).then_some(()));
    wait_drained(&gateway);
    stop_and_prove(&mut gateway, &receiver);
    let report = receiver.judge();
    assert_eq!(report["missing"], json!(0), "{report}");
    assert_eq!(report["faults"], json!([]), "{report}");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 5, "{report}");
    let runs = &runs[..4];
    for run in runs {
        assert_eq!(run["ended"], json!(true), "every run has its end: {report}");
    }
    assert_eq!(
        runs.iter().map(|run| run["clean"].as_bool()).collect::<Vec<_>>(),
        [false, false, false, true].map(Some)
    );
    for (run, count) in least {
        let proved =
            runs.iter().find(|r| r["run"] == run.as_str()).expect("the run is known to the receiver");
        assert!(proved["held"].as_u64() >= Some(count), "run {run}: {count} were stored: {report}");
    }
}

#[test]
fn a_server_that_reloads_take_away_and_bring_back_is_told_what_was_confirmed_before() {
    let plant = ModbusServer::tcp();
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(&broker, &config(plant.port));
    let with = std::fs::read_to_string(gateway.etc("fieldspool.toml")).unwrap();
    let (head, rest) = (with.split("[uplink]").next().unwrap(), with.split_once("[spool]").unwrap().1);
    let without = format!("{head}[spool]{rest}");
    gateway.start();
    gateway.wait_status("confirmations", |s| s["uplink"]["confirmed"].as_u64().filter(|n| *n > 100));
    let said = |state: &str, since: usize| {
        receiver.wait(state, SOON, |messages| {
            let status =
                messages.iter().skip(since).filter(|m| m.topic.ends_with("/status")).map(Message::json);
            status.filter(|json| json["state"] == state).map(|json| json["confirmed_to"].as_u64()).next()
        })
    };
    gateway.configure(&without);
    gateway.signal(Signal::SIGHUP);
    let before = said("stopped", 0).expect("how far it is");
    assert!(before > 100, "{before}");
    let since = receiver.messages().len();
    gateway.configure(&with);
    gateway.signal(Signal::SIGHUP);
    assert!(said("online", since) >= Some(before), "{:?}, and {before} before", said("online", since));
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(said("stopped", since) >= Some(before), "{:?}, and {before} before", said("stopped", since));
}

#[test]
fn a_cable_that_is_plugged_in_cuts_the_wait_for_the_broker_short() {
    let mut gateway = Gateway::new("gateway = \"plant7-gw1\"\n[uplink]\nbroker = \"mqtt://127.0.0.1:1\"\n");
    gateway.launch_without_network();
    gateway.wait_status("an attempt that failed", |s| s["uplink"]["error"].as_str().map(|_| ()));
    assert!(!gateway.log().contains("the network came up"), "nothing happened yet");
    gateway.in_its_network(&["ip", "link", "add", "hall", "type", "veth", "peer", "name", "switch"]);
    gateway.in_its_network(&["ip", "link", "set", "switch", "up"]);
    gateway.in_its_network(&["ip", "link", "set", "hall", "up"]);
    gateway.wait_log("the network came up; trying the broker at once");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn on_a_disk_that_takes_nothing_what_waits_in_memory_is_sent_when_the_broker_comes() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    let mut gateway = Gateway::with_uplink(&broker, &config(plant.port));
    gateway.launch_with("mount -t tmpfs tmpfs VAR && mount -o remount,ro VAR");
    let numbered = |s: &Value| s["spool"]["numbered"].as_u64().filter(|numbered| *numbered > 1000);
    let before = wait_for("readings", SOON, || gateway.status().as_ref().and_then(numbered));
    broker.run();
    let receiver = Subscriber::start(&broker);
    // What is young may still be on its way to the disk, for ten seconds and the window.
    let report = wait_for("what was read before there was a broker", Duration::from_secs(60), || {
        let report = receiver.judge();
        let held = report["runs"][0]["held"].as_u64() > Some(before);
        (held && report["missing"] == 0).then_some(report)
    });
    assert_eq!(report["duplicates"], json!(0), "{report}");
    let status = gateway.status().unwrap();
    assert_eq!(
        (&status["spool"]["dropped"], &status["spool"]["waiting"]),
        (&json!(0), &json!(0)),
        "{status}"
    );
    gateway.kill();
}
