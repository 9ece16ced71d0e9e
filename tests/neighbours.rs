//! Dead devices cost a bounded share: one silent unit of ten behind one endpoint.

use std::time::{Duration, Instant};

use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::wait_for;

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
