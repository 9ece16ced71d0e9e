//! Values through the servers of tokio-modbus, which nobody here wrote: every type and order, coils, strings.

use std::future::{Ready, ready};
use std::io;

use tokio::net::TcpListener;
use tokio_modbus::server::{Service, rtu_over_tcp, tcp};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};

use super::*;
use crate::modbus::{Echo, Endpoint, RtuTcpLink, TcpLink};

/// Input register `a` holds `a × 257 + 1`; every third coil is on; registers from 2 000 on do not exist.
#[derive(Clone)]
struct Plant;

fn register(address: u16) -> u16 {
    address.wrapping_mul(257).wrapping_add(1)
}

impl Service for Plant {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Self::Response, Self::Exception>>;

    fn call(&self, asked: Self::Request) -> Self::Future {
        if asked.slave == 9 {
            return ready(Ok(None));
        }
        let registers =
            |address: u16, count: u16| (address..address + count).map(register).collect::<Vec<_>>();
        let coils =
            |address: u16, count: u16| (address..address + count).map(|a| a % 3 == 0).collect::<Vec<_>>();
        ready(match asked.request {
            Request::ReadInputRegisters(a, n) | Request::ReadHoldingRegisters(a, n) if a + n > 2_000 => {
                Err(ExceptionCode::IllegalDataAddress)
            }
            Request::ReadInputRegisters(a, n) => Ok(Some(Response::ReadInputRegisters(registers(a, n)))),
            Request::ReadHoldingRegisters(a, n) => Ok(Some(Response::ReadHoldingRegisters(registers(a, n)))),
            Request::ReadCoils(a, n) => Ok(Some(Response::ReadCoils(coils(a, n)))),
            Request::ReadDiscreteInputs(a, n) => Ok(Some(Response::ReadDiscreteInputs(coils(a, n)))),
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

async fn links() -> Vec<Link> {
    let of_tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let of_rtu = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = |listener: &TcpListener| Endpoint {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
    };
    let timeout = Duration::from_millis(500);
    let links = vec![
        Link::ModbusTcp(TcpLink { endpoint: endpoint(&of_tcp), timeout }),
        Link::ModbusRtuTcp(RtuTcpLink {
            endpoint: endpoint(&of_rtu),
            timeout,
            echo: Echo::Auto,
            hold_off: None,
        }),
    ];
    tokio::spawn(async move {
        let server = tcp::Server::new(of_tcp);
        let connected = |stream, address| async move {
            tcp::accept_tcp_connection(stream, address, |_| Ok::<_, io::Error>(Some(Plant)))
        };
        server.serve(&connected, |error| panic!("{error}")).await.unwrap();
    });
    tokio::spawn(async move {
        let server = rtu_over_tcp::Server::new(of_rtu);
        let connected = |stream, address| async move {
            rtu_over_tcp::accept_tcp_connection(stream, address, |_| Ok::<_, io::Error>(Some(Plant)))
        };
        server.serve(&connected, |error| panic!("{error}")).await.unwrap();
    });
    links
}

#[tokio::test]
async fn every_type_and_order_arrives_as_the_server_holds_it() {
    let types = [
        Type::U16,
        Type::I16,
        Type::U32,
        Type::I32,
        Type::U64,
        Type::I64,
        Type::F32,
        Type::F64,
        Type::Bit(0),
    ];
    for link in links().await {
        let mut points = Vec::new();
        for (at, kind) in (100_u16..).step_by(4).zip(types) {
            points.push((Table::Input, at, kind));
            points.push((Table::Holding, at + 300, kind));
        }
        points.extend((0..40).map(|address| (Table::Coil, address, Type::Bool)));
        points.push((Table::Discrete, 1_999, Type::Bool));
        let mut spec = spec(link, &[1], &points);
        for (n, point) in spec.devices[0].points.iter_mut().enumerate() {
            if let point::Source::Modbus(source) = &mut point.source {
                source.order = Order::ALL[n / 2 % 4];
            }
        }
        let mut bus = Bus::open_lazily(spec.clone());
        let poll = bus.poll(0, 0, soon(5_000)).await;
        assert!(is_answered(&poll), "{poll:?} {:?}", bus.counters());
        for ((_, sample), point) in poll.samples.iter().zip(&spec.devices[0].points) {
            let point::Source::Modbus(source) = &point.source else { panic!() };
            let words: Vec<u8> = (source.address..source.address + source.registers())
                .flat_map(|address| register(address).to_be_bytes())
                .collect();
            let expected = if source.table.is_bits() {
                Value::Bool(source.address % 3 == 0)
            } else {
                crate::modbus::decode::value(source, &words, source.address).unwrap()
            };
            let float = expected.as_f64().filter(|number| !number.is_finite());
            assert!(sample.value == Some(expected) || float.is_some(), "{source}: {sample:?}");
        }
        assert_eq!(bus.counters().answers, bus.counters().requests);
    }
}

#[tokio::test]
async fn a_silent_unit_and_a_missing_register_are_told_apart() {
    for link in links().await {
        let mut bus = Bus::open_lazily(spec(
            link,
            &[9, 1],
            &[(Table::Input, 1_998, Type::U16), (Table::Input, 2_000, Type::U16)],
        ));
        let silent = bus.poll(0, 0, soon(5_000)).await;
        assert_eq!(silent.outcome, Outcome::Silent);
        let poll = bus.poll(1, 0, soon(5_000)).await;
        let good = Sample::good(Value::Uint(u64::from(register(1_998))));
        assert_eq!(samples(&poll), [good, Sample::bad(crate::value::Cause::Exception(2))]);
    }
}

#[tokio::test]
async fn a_point_can_be_read_once_in_every_type() {
    for link in links().await {
        let spec = spec(link, &[1], &[(Table::Input, 7, Type::U16)]);
        let point::Source::Modbus(source) = &spec.devices[0].points[0].source else { panic!() };
        let points: Vec<Point> = source
            .every_type()
            .into_iter()
            .map(|source| Point {
                source: point::Source::Modbus(source),
                ..spec.devices[0].points[0].clone()
            })
            .collect();
        let mut bus = Bus::open_lazily(spec.clone());
        let poll = bus.read(0, &points, soon(5_000)).await;
        assert_eq!(poll.samples.len(), 2 * 2 + 6 * 4);
        assert_eq!(bus.counters().requests, 1, "all from one request");
        assert_eq!(poll.samples[0].1, Sample::good(Value::Uint(u64::from(register(7)))));
    }
}
