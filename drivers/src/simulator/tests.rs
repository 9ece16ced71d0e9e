//! The plant read by this crate's own drivers, over its own wires.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::bus::{Address, Bus, BusSpec, DeviceSpec, Group, Link, Outcome};
use crate::line;
use crate::point::{Point, Scaling, Source};
use crate::value::Value;

fn scale_bus(path: &std::path::Path) -> Bus {
    let period = Duration::from_secs(5);
    let point = Point {
        name: Arc::from("weight"),
        source: Source::Line(line::Source::field(2)),
        scaling: Scaling::default(),
        period,
    };
    let device = line::Device { query: Some(b"S\r\n".to_vec()), ..line::Device::default() };
    Bus::open_lazily(BusSpec {
        name: Arc::from("scale"),
        link: Link::SerialLine(line::Link {
            port: PortSettings::new(path.display().to_string()),
            timeout: Duration::from_millis(300),
        }),
        devices: vec![DeviceSpec {
            name: Arc::from("scale"),
            address: Address::Line(device),
            points: vec![point],
            groups: vec![Group { period, points: vec![0] }],
        }],
    })
}

#[tokio::test]
async fn a_silenced_instrument_does_not_answer_and_comes_back() {
    let simulation = Simulation::start().await.unwrap();
    let mut bus = scale_bus(&simulation.scale);
    let deadline = || Instant::now() + Duration::from_secs(2);
    let poll = bus.poll(0, 0, deadline()).await;
    assert!(matches!(poll.outcome, Outcome::Answered { .. }), "{poll:?}");
    let weight = poll.samples.first().and_then(|(_, sample)| sample.value.clone());
    assert!(matches!(weight, Some(Value::F64(kg)) if (0.0..=25.0).contains(&kg)), "{weight:?}");

    assert!(simulation.toggle(Instrument::Scale));
    assert_eq!(bus.poll(0, 0, deadline()).await.outcome, Outcome::Silent);
    assert!(!simulation.toggle(Instrument::Scale));
    loop {
        match bus.poll(0, 0, deadline()).await.outcome {
            Outcome::Held { until } => bus.idle(until).await,
            outcome => break assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}"),
        }
    }
}

#[test]
fn what_the_weather_station_says_proves_itself() {
    let text = meters::weather(&Plant.at(Duration::from_secs(100)));
    let sentences: Vec<&[u8]> =
        text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|s| !s.is_empty()).collect();
    assert_eq!(sentences.len(), 2);
    for sentence in sentences {
        assert!(line::Checksum::Nmea.strip(sentence).is_some());
        assert!(sentence.len() <= 82, "NMEA 0183 allows 82 characters: {}", sentence.escape_ascii());
    }
}
