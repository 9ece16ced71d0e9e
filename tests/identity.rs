//! A broker or a certificate that is wrong: each refused with its own words, on the status and in the log, nothing lost.

use std::fs;

use serde_json::json;

use crate::support::broker::{Authority, Broker, GATEWAY, write_private};
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::subscriber::Subscriber;

/// A bus with one device of one point.
fn one_register(plant: &ModbusServer) -> String {
    format!(
        "[bus.hall]\nperiod = \"200ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {}\n\
         [bus.hall.device.one]\nunit_id = 1\npoints = {{ value = {{ input = 1 }} }}\n",
        plant.port
    )
}

/// Starts a gateway whose identity `spoil` has changed and returns the words on its status; they must be in its log too.
fn words(broker: &Broker, spoil: impl FnOnce(&Gateway)) -> String {
    let mut gateway = Gateway::with_uplink(broker, "");
    spoil(&gateway);
    gateway.start();
    let words = gateway.wait_status("the reason on the status", |status| {
        status["uplink"]["error"].as_str().map(str::to_owned)
    });
    let said = words.split(['.', ':', ';']).next().unwrap_or(&words).trim().to_owned();
    gateway.wait_log(&said);
    words
}

#[test]
fn each_wrong_certificate_is_refused_in_its_own_words() {
    let mut broker = Broker::prepare(|_| {});
    broker.run();
    let other = Authority::new("somebody else");

    let wrong_ca = words(&broker, |g| fs::write(g.etc("ca.pem"), &other.pem).unwrap());
    assert!(wrong_ca.contains("authority"), "{wrong_ca}");

    let no_client = words(&broker, |g| {
        g.configure(&format!(
            "gateway = \"{GATEWAY}\"\n[uplink]\nbroker = \"mqtts://localhost:{}\"\nca = \"ca.pem\"\n",
            broker.port
        ));
    });
    assert!(
        no_client.contains("client certificate") || no_client.contains("certificate of its own"),
        "{no_client}"
    );

    let foreign_client = words(&broker, |g| {
        let (cert, key) = other.sign(GATEWAY, false, |_| {});
        fs::write(g.etc("gateway.pem"), cert).unwrap();
        write_private(&g.etc("gateway.key"), &key);
    });
    assert_ne!(foreign_client, no_client);

    let all = [&wrong_ca, &no_client, &foreign_client];
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            assert_ne!(a, b, "each has its own words");
        }
    }
}

#[test]
fn an_expired_or_misnamed_broker_is_refused_in_its_own_words() {
    let mut expired = Broker::prepare(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    expired.run();
    let expired = words(&expired, |_| {});
    assert!(expired.contains("expired"), "{expired}");

    let mut misnamed = Broker::prepare(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("elsewhere.example".try_into().unwrap())];
    });
    misnamed.run();
    let misnamed = words(&misnamed, |_| {});
    assert!(misnamed.contains("localhost") && misnamed.contains("elsewhere.example"), "{misnamed}");
}

#[test]
fn a_broker_that_refuses_what_it_is_sent_is_not_said_to_receive() {
    let plant = ModbusServer::tcp();
    let mut broker = Broker::prepare(|_| {});
    let topics = format!("fieldspool/{GATEWAY}");
    let viewer = "user viewer\ntopic read fieldspool/#\n";
    broker.allow(&format!(
        "user {GATEWAY}\ntopic write {topics}/status\ntopic write {topics}/meta/#\n{viewer}"
    ));
    // Without a bound on what it queues, mosquitto 2.0.11 ends the connection after each refusal.
    let conf = fs::read_to_string(broker.file("mosquitto.conf")).unwrap();
    let conf = conf.replace("max_queued_messages 0", "max_queued_messages 100000");
    fs::write(broker.file("mosquitto.conf"), conf).unwrap();
    broker.run();
    let receiver = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(&broker, &one_register(&plant));
    gateway.start();
    gateway.wait_status("the refusal of all readings", |s| {
        (s["uplink"]["refused"]["what"] == "all" && s["spool"]["waiting"].as_u64() > Some(3)).then_some(())
    });
    let said = String::from_utf8(gateway.ask(&["status"]).stdout).unwrap().replace("\n            ", " ");
    assert!(!said.contains("All is well") && !said.contains("server receives"), "{said}");
    let server = said.lines().find(|line| line.starts_with("Server")).unwrap();
    assert!(server.contains("TAKES NO READINGS") && server.contains("access list"), "{said}");
    gateway.wait_log("the broker refuses what it is sent");

    broker.allow(&format!("user {GATEWAY}\ntopic write {topics}/#\n{viewer}"));
    gateway.wait_status("the end of the refusal", |s| s["uplink"]["refused"].is_null().then_some(()));
    gateway.wait_log("the broker accepts again what it is sent");
    assert_eq!(gateway.stop().code(), Some(0));
    let log = gateway.log();
    assert_eq!(log.matches("the broker refuses what it is sent").count(), 1, "an edge is said once: {log}");
    assert!(!log.contains("PubAck"), "{log}");
    let report = receiver.judge();
    assert_eq!((&report["complete"], &report["missing"]), (&json!(true), &json!(0)), "{report}");
}

#[test]
fn a_broker_that_comes_right_gets_everything() {
    let plant = ModbusServer::tcp();
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let other = Authority::new("somebody else");
    let mut gateway = Gateway::with_uplink(&broker, &one_register(&plant));
    fs::write(gateway.etc("ca.pem"), &other.pem).unwrap();
    gateway.start();
    gateway.wait_status("the refusal", |s| s["uplink"]["error"].as_str().map(|_| ()));
    fs::write(gateway.etc("ca.pem"), &broker.authority.pem).unwrap();
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    gateway.wait_status("the connection", |s| (s["uplink"]["connected"] == true).then_some(()));
    assert_eq!(gateway.stop().code(), Some(0));
    let report = receiver.judge();
    assert_eq!(report["complete"], json!(true), "{report}");
    assert!(report["readings"].as_u64() > Some(0), "{report}");
}
