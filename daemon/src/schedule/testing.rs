//! A bus specification for tests: devices without points, one group each.

use std::time::Duration;

use fieldspool_drivers::bus::{Address, BusSpec, DeviceSpec, Group, Link};
use fieldspool_drivers::modbus::{Device, Endpoint, TcpLink};

/// `devices` units of one endpoint, polled each `period`.
pub(crate) fn bus_spec(devices: usize, period: Duration) -> BusSpec {
    let device = |i: usize| DeviceSpec {
        name: format!("d{i}").into(),
        address: Address::Modbus(Device::new(u8::try_from(i + 1).expect("few devices"))),
        points: Vec::new(),
        groups: vec![Group { period, points: Vec::new() }],
    };
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: 502 };
    let link = Link::ModbusTcp(TcpLink { endpoint, timeout: Duration::from_millis(300) });
    BusSpec { name: "hall".into(), link, devices: (0..devices).map(device).collect() }
}
