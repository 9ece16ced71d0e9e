//! Serial lines over pseudo-terminals: Modbus RTU against libmodbus, a vanishing port, a line instrument.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::gateway::Gateway;
use crate::support::peers::{ModbusServer, SerialPair};
use crate::support::subscriber::Subscriber;
use crate::support::{SOON, wait_for};

/// The newest good value of a point in what arrived.
fn newest(receiver: &Subscriber, point: &str) -> Option<Value> {
    let messages = receiver.messages();
    messages.iter().rev().filter(|m| m.topic.contains("/live/")).find_map(|message| {
        let value = message.json()["batches"][0]["points"][point].clone();
        (!value.is_null()).then_some(value)
    })
}

#[test]
fn registers_behind_a_serial_line_arrive_and_the_line_heals_when_its_port_returns() {
    let cable = SerialPair::new();
    let plant = ModbusServer::rtu(&cable.plant(), 19200);
    plant.set_all("input", 1, 52, &[0x4366, 0x6666]);
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!(
            "[bus.hall]\nperiod = \"300ms\"\n[bus.hall.link.modbus-rtu]\nport = {:?}\nspeed = 19200\nformat = \"8N1\"\n\
             [bus.hall.device.meter]\nunit_id = 1\n\
             points = {{ voltage = {{ input = 52, type = \"f32\" }}, load = {{ holding = 7 }} }}\n",
            cable.gateway()
        ),
    );
    gateway.start();
    wait_for("the voltage", SOON, || newest(&receiver, "voltage").filter(|v| *v == json!(230.4)));

    drop(plant);
    gateway.wait_status("the silent meter", |s| {
        (s["buses"][0]["devices"][0]["answering"] == false).then_some(())
    });
    let plant = ModbusServer::rtu(&cable.plant(), 19200);
    plant.set("holding", 1, 7, 99);
    gateway.wait_status("the meter to be found again", |s| {
        (s["buses"][0]["devices"][0]["answering"] == true).then_some(())
    });
    wait_for("a value after its return", SOON, || newest(&receiver, "load").filter(|v| *v == json!(99)));
    assert_eq!(gateway.stop().code(), Some(0));
    assert_eq!(receiver.judge()["complete"], json!(true));
}

#[test]
fn a_weather_station_that_talks_by_itself_is_understood() {
    let cable = SerialPair::new();
    let mut gateway = Gateway::new(&format!(
        "gateway = \"plant7-gw1\"\n[bus.roof]\nperiod = \"1s\"\n[bus.roof.link.serial-line]\nport = {:?}\nspeed = 4800\n\
         [bus.roof.device.wind]\nselect = \"WIMWV\"\nchecksum = \"nmea\"\n\
         points = {{ angle = {{ field = 1 }}, speed = {{ field = 3 }} }}\n",
        cable.gateway()
    ));
    gateway.start();
    let sentence = |body: &str| format!("${body}*{:02X}\r\n", body.bytes().fold(0, |sum, byte| sum ^ byte));
    let good = sentence("WIMWV,214.8,R,10.5,M,A");
    let damaged = good.replace("10.5", "99.5");
    let station = Station::start(&cable.plant(), damaged + &good);
    wait_for("the wind to be read", SOON, || {
        let output = gateway.command(&["read", "roof", "wind", "speed"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains("99.5"), "a damaged sentence is not believed: {text}");
        text.contains("10.5").then_some(())
    });
    drop(station);
    assert_eq!(gateway.stop().code(), Some(0));
}

/// An instrument that says the same again and again, until it is dropped.
struct Station {
    stop: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Station {
    fn start(port: &Path, text: String) -> Self {
        let mut line = File::options().write(true).open(port).unwrap();
        let (stop, stopped) = std::sync::mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
                line.write_all(text.as_bytes()).unwrap();
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
