//! The page in a real Chromium: live values, a daemon that goes away and comes back, and no hole in between.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::SOON;
use crate::support::browser::{Browser, http};
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;

/// One device whose point `polls` counts its polls; the page on `port` (0: any).
fn config(plant: u16, port: u16, name: &str) -> String {
    config_at(&format!("listen = \"127.0.0.1:{port}\""), plant, name)
}

fn config_at(page: &str, plant: u16, name: &str) -> String {
    format!(
        "gateway = \"plant7-gw1\"\n[page]\n{page}\n\
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
fn the_card_of_a_device_that_lacks_values_does_not_only_say_that_it_answers() {
    let plant = ModbusServer::tcp();
    // Not a number.
    plant.set_all("input", 1, 5, &[0x7fc0, 0]);
    let float = config(plant.port, 0, "Incomer").replace("input = 5,", "input = 5, type = \"f32\",");
    let mut gateway = Gateway::new(&float);
    gateway.start();
    let browser = Browser::open(&format!("http://127.0.0.1:{}/", gateway.page_port()));
    browser.wait(
        "the words on the card",
        "const card = document.querySelector('[data-state=lacking]');\
         return card && card.innerText.includes('answers, 1 of 2 without value')",
    );
    let words = String::from_utf8_lossy(&gateway.ask(&["status"]).stdout).into_owned();
    assert!(words.contains("answers, 1 of 2 without value"), "{words}");
}

#[test]
fn a_number_is_never_broken_over_two_lines_and_the_page_stays_as_wide_as_the_phone() {
    let plant = ModbusServer::tcp();
    plant.set_all("input", 1, 5, &[2, 21_449]);
    let points = "volume = { input = 5, type = \"u32\", scale = 0.001, decimals = 3, unit = \"m³/h\" }, \
                  hours = { input = 9, label = \"Compressor running time, counterclockwise\" }";
    let config = config(plant.port, 0, "Incomer").replace("power = { input = 5, unit = \"W\" }", points);
    let mut gateway = Gateway::new(&config.replace("[\"polls\", \"power\"]", "[\"polls\"]"));
    gateway.start();
    let browser = Browser::open(&format!("http://127.0.0.1:{}/", gateway.page_port()));
    browser.wait(
        "the opened card",
        "const d = document.querySelector('.device details'); if (!d) return false; d.open = true; \
         return /152/.test(document.querySelector('table')?.innerText)",
    );
    let broken = browser.run(
        "document.body.style.width = '340px'; const n = [...document.querySelectorAll('td .number')]; \
         return n.filter((e) => e.getClientRects().length > 1).map((e) => e.innerText)",
    );
    assert_eq!(broken, json!([]), "a part of a number reads as another number");
    let wide = browser.run("return document.documentElement.scrollWidth > innerWidth");
    assert_eq!(wide, json!(false));
}

#[test]
fn on_a_phone_neither_a_long_state_breaks_a_name_nor_a_huge_number_widens_the_page() {
    let plant = ModbusServer::tcp();
    // Two values in the wrong word order, and three that are no numbers.
    let registers = [[0xd896, 0x0004], [0x5396, 0x0004], [0x7fc0, 0], [0x7fc0, 0], [0x7fc0, 0]];
    let mut points = "polls = { input = 100 }".to_owned();
    for (address, registers) in (10..).step_by(2).zip(&registers) {
        plant.set_all("input", 1, address, registers);
        let name = format!("current_{address}");
        points += &format!(", {name} = {{ input = {address}, type = \"f32\", unit = \"A\", decimals = 2 }}");
    }
    let config = config(plant.port, 0, "Boilerhouse").replace("\"power\"", "\"current_10\"");
    let (config, _) = config.split_once("points = ").unwrap();
    let mut gateway = Gateway::new(&format!("{config}points = {{ {points} }}\n"));
    gateway.start();
    let browser = Browser::open(&format!("http://127.0.0.1:{}/", gateway.page_port()));
    browser.wait(
        "the opened card",
        "const d = document.querySelector('.device details'); if (!d) return false; d.open = true; \
         return d.innerText.includes('3 of 6 without value') && /1.?288.?4/.test(d.innerText)",
    );
    for width in [320, 360, 390, 412] {
        browser.width(width);
        let seen = browser.run(
            "const one = (e) => document.querySelector(e); \
             return [document.documentElement.scrollWidth, one('.device .name').getClientRects().length, \
             one('.heads').scrollWidth - one('.heads').clientWidth]",
        );
        assert_eq!(seen, json!([width, 1, 0]), "the page's width, lines of the name, too wide headline");
    }
    browser.width(1000);
    let tall = browser.run("return document.querySelector('.device .said').offsetHeight > 100");
    assert_eq!(tall, json!(false), "beside headlines the state is broken between words only");
}

#[test]
fn after_a_restart_a_curve_reaches_back_before_it() {
    let plant = ModbusServer::tcp();
    plant.tick();
    plant.set("input", 1, 5, 4711);
    let mut gateway = Gateway::new(&config(plant.port, 0, "Incomer"));
    gateway.start();
    let port = gateway.page_port();
    // `power` stands still and is read once a minute; `polls` shows that the step of its number is over.
    crate::support::wait_for("the next number of a trend", SOON, || {
        let text = http(port, "GET", "/api/readings", "").1;
        // It comes in chunks; of so small a plant in one.
        let json = text.get(text.find('{')?..=text.rfind('}')?)?;
        let readings: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let points = readings["devices"][0]["points"].as_array()?;
        let marks = |name: &str| points.iter().find(|point| point["point"] == name)?["trend"].as_array();
        (marks("polls")?.len() > 1 && marks("power")?[0][1] == 4711.0).then_some(())
    });
    gateway.stop();
    plant.set("input", 1, 5, 4712);
    gateway.configure(&config(plant.port, port, "Incomer"));
    gateway.start();
    // This run has never read 4711.
    let browser = Browser::open(&format!("http://127.0.0.1:{port}/"));
    browser.wait(
        "the old value in a curve, and the new one beside it",
        "const said = [...document.querySelectorAll('svg.curve')].map(e => e.getAttribute('aria-label')).join(' ');\
         return /4.?711/.test(said) && /4.?712/.test(said) && /4.?712/.test(document.body.innerText)",
    );
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
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
    let families = parsed(&metrics);
    assert!(families.len() > 30, "{metrics}");
    for family in families {
        let (name, kind) = (family["name"].as_str().unwrap(), family["type"].as_str().unwrap());
        assert!(name.starts_with("fieldspool_") && family["help"] != "", "{family}");
        assert!(["counter", "gauge"].contains(&kind), "{family}");
        for unit in ["_ms", "_us", "_milliseconds", "_hours", "_minutes", "_percent", "_kb"] {
            assert!(!name.ends_with(unit), "base units: {family}");
        }
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

#[test]
fn an_invitation_opens_the_page_on_the_network_to_one_person_once() {
    const NAME: &str = "gw1.plant7.example";
    let plant = ModbusServer::tcp();
    let page = format!("listen = \"0.0.0.0:0\"\nnames = [\"{NAME}\"]");
    let mut gateway = Gateway::new(&config_at(&page, plant.port, "Incomer"));
    gateway.start();
    gateway.wait_log("page listens");
    let output = gateway.ask(&["page", "invite"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let link = text
        .split_whitespace()
        .find(|word| word.starts_with(&format!("https://{NAME}:")))
        .unwrap_or_else(|| panic!("no link in {text}{}", String::from_utf8_lossy(&output.stderr)))
        .to_owned();
    let (home, code) = link.split_once("invite#").expect("the code stands behind the #");
    assert_eq!(code.len(), 32, "128 bits: {link}");

    let guest = Browser::open_as(NAME, home);
    guest.wait("the door", "return document.body.innerText.includes('page invite')");
    assert_eq!(guest.run("return document.body.innerText.includes('Incomer')"), json!(false));
    guest.go(&link);
    guest.wait("the plant", "return document.body.innerText.includes('Incomer')");
    assert_eq!(guest.run("return location.pathname + location.hash + document.cookie"), json!("/"));
    guest.go(home);
    guest.wait(
        "the plant again: the cookie is the key now",
        "return document.body.innerText.includes('Incomer')",
    );
    let first = guest.run("return document.getElementById('gateway-time').innerText");
    guest.wait(
        "the stream to flow over TLS",
        &format!("return document.getElementById('gateway-time').innerText !== {first}"),
    );

    let late = Browser::open_as(NAME, &link);
    late.wait("a used code opens nothing", "return !document.getElementById('bad').hidden");
    late.go(home);
    late.wait("the door", "return document.body.innerText.includes('page invite')");
}

#[test]
fn everything_can_be_reached_with_the_keyboard_alone() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, 0, "Incomer"));
    gateway.start();
    let browser = Browser::open(&format!("http://127.0.0.1:{}/", gateway.page_port()));
    browser.wait("the device", "return document.querySelector('summary') !== null");
    let (tab, enter) = ("\u{e004}", "\u{e007}");
    let focus = "return document.activeElement.className || document.activeElement.id || document.activeElement.tagName";
    browser.press(tab);
    assert_eq!(browser.run(focus), json!("skip"), "the first stop leads past the head");
    browser.press(tab);
    assert_eq!(browser.run(focus), json!("SUMMARY"));
    let ring = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.run(ring), json!("solid"), "where one is can be seen");
    browser.press(enter);
    browser.wait("the device's points", "return document.querySelector('details').open");
    browser.press(tab);
    assert_eq!(browser.run(focus), json!("report"));
    browser.press(enter);
    browser.wait(
        "the report",
        "return document.getElementById('report-text').value.includes('plant7-gw1') && document.querySelector('dialog').open",
    );
    browser.press("\u{e00c}");
    browser.wait("Escape closes it", "return !document.querySelector('dialog').open");
}

/// The families of a scrape, as Prometheus' own parser for Python reads them.
fn parsed(metrics: &str) -> Vec<serde_json::Value> {
    const SCRIPT: &str = "import json, sys\n\
        from prometheus_client.parser import text_string_to_metric_families as parse\n\
        print(json.dumps([dict(name=f.name, type=f.type, help=f.documentation)\n\
            for f in parse(sys.stdin.read())]))";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    python.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "python3-prometheus-client is installed and takes:\n{metrics}");
    serde_json::from_slice(&output.stdout).unwrap()
}
