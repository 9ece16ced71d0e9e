//! The page in a real Chromium: live values, a daemon that goes away and comes back, and no hole in between.

use serde_json::json;

use crate::support::SOON;
use crate::support::browser::{Browser, http};
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;

/// One device whose point `polls` counts its polls; the page on `port` (0: any).
fn config(plant: u16, port: u16, name: &str) -> String {
    format!(
        "gateway = \"plant7-gw1\"\n[page]\nlisten = \"127.0.0.1:{port}\"\n\
         [bus.hall]\nperiod = \"200ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {plant}\n\
         [bus.hall.device.meter-01]\nunit_id = 1\nlabel = {name:?}\nheadline = [\"polls\", \"power\"]\n\
         points = {{ polls = {{ input = 100, unit = \"n\" }}, power = {{ input = 5, unit = \"W\" }} }}\n"
    )
}

#[test]
fn the_page_shows_live_values_and_survives_a_restart_of_the_daemon() {
    let plant = ModbusServer::tcp();
    plant.tick();
    plant.set("input", 1, 5, 4711);
    let mut gateway = Gateway::new(&config(plant.port, 0, "Incomer"));
    gateway.start();
    let port = gateway.page_port();
    let browser = Browser::open(&format!("http://127.0.0.1:{port}/"));
    browser.wait(
        "the device and its value",
        "const t = document.body.innerText; return t.includes('Incomer') && /4.?711/.test(t)",
    );
    let shown = "return document.body.innerText";
    let before = browser.run(shown);
    browser.wait("the values to move", &format!("return document.body.innerText !== {before}"));

    gateway.configure(&config(plant.port, port, "Incomer"));
    gateway.stop();
    browser.wait(
        "a visible word that the gateway is away",
        "const b = [...document.querySelectorAll('[role=status],[role=alert]')].map(e => e.innerText).join(' ');\
         return /gateway does not answer/i.test(b)",
    );
    plant.set("input", 1, 5, 4712);
    gateway.start();
    browser.wait("the new value, without anybody's help", "return /4.?712/.test(document.body.innerText)");
}

#[test]
fn a_name_with_markup_is_shown_and_never_run() {
    let plant = ModbusServer::tcp();
    let name = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let mut gateway = Gateway::new(&config(plant.port, 0, name));
    gateway.start();
    let port = gateway.page_port();
    let browser = Browser::open(&format!("http://127.0.0.1:{port}/"));
    browser.wait("the name, as text", "return document.body.innerText.includes('<script>')");
    assert_ne!(browser.run("return document.title"), json!("owned"));
    assert_eq!(browser.run("return document.querySelectorAll('img[src=x]').length"), json!(0));
}

#[test]
fn every_answer_has_its_walls_and_metrics_follow_the_conventions() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, 0, "Incomer"));
    gateway.start();
    let port = gateway.page_port();
    let (status, metrics) = http(port, "GET", "/metrics", "");
    assert_eq!(status, 200);
    for line in metrics.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        assert!(line.starts_with("fieldspool_"), "{line}");
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert_eq!(http(port, "GET", "/healthz", "").0, 200);
    assert_eq!(http(port, "GET", "/no/such/page", "").0, 404);
    assert!(
        crate::support::wait_for("readings", SOON, || {
            Some(http(port, "GET", "/api/readings", "").1).filter(|t| t.contains("polls"))
        })
        .contains("meter-01")
    );
}
