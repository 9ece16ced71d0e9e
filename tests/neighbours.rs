//! Dead devices: they cost a bounded share, and none of their points keeps a value that nobody has read.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::browser::http;
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::{SOON, wait_for};

#[test]
fn one_silent_unit_of_ten_leaves_the_others_their_rate() {
    let plant = ModbusServer::tcp();
    plant.silence(4);
    let devices: String = (1..=10)
        .map(|unit| {
            format!("[bus.hall.device.d{unit}]\nunit_id = {unit}\npoints = {{ value = {{ input = 100 }} }}\n")
        })
        .collect();
    let mut gateway = Gateway::new(&format!(
        "gateway = \"plant7-gw1\"\n[bus.hall]\nperiod = \"1s\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {}\ntimeout = \"300ms\"\n{devices}",
        plant.port
    ));
    gateway.start();
    gateway.wait_status("the silent unit to be noticed", |status| {
        (status["buses"][0]["devices"][3]["answering"] == false).then_some(())
    });
    let before: Vec<u64> = (1..=10).map(|unit| plant.requests(unit)).collect();
    let start = Instant::now();
    let length = Duration::from_secs(20);
    wait_for("twenty seconds of polling", Duration::from_secs(30), || {
        (start.elapsed() >= length).then_some(())
    });
    let seconds = start.elapsed().as_secs_f64();
    for unit in (1..=10).filter(|unit| *unit != 4) {
        let polls = plant.requests(unit) - before[usize::from(unit) - 1];
        // One poll may lie on either side of each end of the measurement.
        let rate = (polls as f64 + 1.0) / seconds;
        assert!(rate >= 0.95, "unit {unit} was polled {polls} times in {seconds:.1} s");
    }
    let probes = plant.requests(4) - before[3];
    assert!(probes >= 1, "the silent unit is probed");
    plant.answer(4);
    gateway.wait_status("the unit to be found again", |status| {
        (status["buses"][0]["devices"][3]["answering"] == true).then_some(())
    });
}

#[test]
fn no_point_of_a_silent_device_stays_good_however_seldom_it_is_polled() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&format!(
        "gateway = \"plant7-gw1\"\n[bus.hall]\nperiod = \"100ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {}\n\
         timeout = \"200ms\"\n[bus.hall.device.meter]\nunit_id = 1\n[bus.hall.device.meter.points]\n\
         fast = {{ input = 100 }}\nhourly = {{ input = 101, period = \"1h\" }}\n",
        plant.port
    ));
    gateway.start();
    let port = gateway.page_port();
    let both = |quality: &str, cause: &str| {
        wait_for(&format!("{quality} {cause}"), SOON, || {
            let text = http(port, "GET", "/api/readings", "").1;
            // It comes in chunks; of so small a plant in one.
            let readings: Value = serde_json::from_str(text.get(text.find('{')?..=text.rfind('}')?)?).ok()?;
            let points = readings["devices"][0]["points"].as_array()?;
            let is = |name: &str| {
                let point = points.iter().find(|point| point["point"] == name)?;
                Some(point["quality"] == quality && point["cause"].as_str().unwrap_or_default() == cause)
            };
            (is("fast")? && is("hourly")?).then_some(())
        });
    };
    both("good", "");
    plant.silence(1);
    both("bad", "silent");
    plant.answer(1);
    both("good", "");
}

/// A Modbus TCP server that answers the request for this address of this unit with this data, or hangs up; returns its port.
fn server(answer: impl Fn(u8, u16) -> Option<&'static [u8]> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 12];
            while stream.read_exact(&mut request).is_ok() {
                let [a, b, .., unit, function, high, low, _, _] = request;
                let Some(data) = answer(unit, u16::from_be_bytes([high, low])) else { break };
                let length = u8::try_from(data.len() + 2).unwrap();
                let answer = [&[a, b, 0, 0, 0, length, unit, function], data].concat();
                if stream.write_all(&answer).is_err() {
                    break;
                }
            }
        }
    });
    port
}

/// A Modbus TCP device whose answers about address 100 are a register too long; returns its port, and how often it
/// was asked for anything else.
fn damages_one_address() -> (u16, Arc<AtomicU64>) {
    let sound = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sound);
    let port = server(move |_, address| {
        let data: &[u8] = if address == 100 { &[4, 0, 1, 0, 2] } else { &[2, 0, 42] };
        count.fetch_add(u64::from(data.len() == 3), Ordering::Relaxed);
        Some(data)
    });
    (port, sound)
}

#[test]
fn a_device_of_which_one_group_is_always_damaged_does_not_come_and_go() {
    let (port, sound) = damages_one_address();
    let mut gateway = Gateway::new(&format!(
        "gateway = \"plant7-gw1\"\n[bus.hall]\nperiod = \"100ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {port}\n\
         timeout = \"200ms\"\n[bus.hall.device.meter]\nunit_id = 1\n[bus.hall.device.meter.points]\n\
         fast = {{ input = 100 }}\nslow = {{ input = 200, period = \"2s\" }}\n",
    ));
    gateway.start();
    gateway.wait_status("the group without values to be noticed", |status| {
        let device = &status["buses"][0]["devices"][0];
        (device["answering"] == true && device["unusable"] == 1).then_some(())
    });
    // Some ten damaged polls stand between two of the others.
    let before = sound.load(Ordering::Relaxed);
    wait_for("six polls of the sound group", SOON, || {
        (sound.load(Ordering::Relaxed) >= before + 6).then_some(())
    });
    let log = gateway.log();
    let said = |words: &str| log.matches(words).count();
    assert_eq!(said("points of it have no usable value"), 1, "{log}");
    // Until the sound group was asked for the first time nobody knew.
    assert!(said("device answers bus") <= 1 && said("device does not answer") <= 1, "{log}");
    let status = gateway.status().expect("it runs");
    let device = &status["buses"][0]["devices"][0];
    assert_eq!(
        (&device["answering"], &device["unusable"]),
        (&Value::Bool(true), &Value::from(1)),
        "{device}"
    );
}

#[test]
fn that_a_gateway_hangs_up_at_one_unit_is_said_once_with_the_name_of_its_device() {
    let hung_up = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&hung_up);
    let port = server(move |unit, _| {
        count.fetch_add(u64::from(unit == 2), Ordering::Relaxed);
        (unit != 2).then_some(&[2, 0, 42])
    });
    let mut gateway = Gateway::new(&format!(
        "gateway = \"plant7-gw1\"\n[bus.hall]\nperiod = \"1s\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {port}\n\
         timeout = \"200ms\"\n[bus.hall.device.first]\nunit_id = 1\npoints = {{ value = {{ input = 100 }} }}\n\
         [bus.hall.device.second]\nunit_id = 2\npoints = {{ value = {{ input = 100 }} }}\n",
    ));
    gateway.start();
    // Two polls, for one of which it is asked again, and two probes.
    wait_for("it to hang up five times", SOON, || (hung_up.load(Ordering::Relaxed) >= 5).then_some(()));
    let log = gateway.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("connection is closed when")).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains("WARN") && said[0].ends_with("bus=hall device=second unit_id=2"), "{log}");
    assert!(!log.contains("bus is down"), "{log}");
}
