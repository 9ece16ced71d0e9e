//! `[uplink]`. What a broker's address and a topic may look like is the uplink's own knowledge; here it gets places.

use std::ops::RangeInclusive;
use std::time::Duration;

use fieldspool_drivers::Section;

use super::spool::size;
use super::{Pointer, PointsTo, Reading, path};
use crate::config::table::Table;
use crate::config::words::quoted;
use crate::uplink::UplinkConfig;
use crate::uplink::config::{
    ACK_TIMEOUT, Broker, CONNECT_TIMEOUT, IN_FLIGHT, Identity, KEEP_ALIVE, LIVE_EVERY, MAX_MESSAGE,
    NobodyListens, Protocol, Template, Topics, Unusable,
};

/// Longest client id, bytes: what AWS IoT Core takes.
const CLIENT_ID_MAX: usize = 128;

pub(super) fn read(top: &mut Table<'_>, reading: &mut Reading<'_>) -> Option<UplinkConfig> {
    let mut table = top.table("uplink")?;
    let broker = table.parsed("broker", str::parse::<Broker>, |Unusable { what, remedy }| (what, remedy));
    if !table.has("broker") {
        let remedy = "add broker = \"mqtts://HOST:PORT\"".to_owned();
        table.fault("broker", "an uplink without a broker".to_owned(), remedy);
    }
    // A stand-in, so that the rest is checked too.
    let stand_in = || Broker { host: "broker".to_owned(), port: 8883, tls: true };
    let mut uplink = UplinkConfig::new(broker.unwrap_or_else(stand_in));
    identity(&mut table, &mut uplink, reading);
    login(&mut table, &mut uplink, reading);
    uplink.protocol = match table.choice("protocol", &["5", "3.1.1"]) {
        Some(1) => Protocol::V311,
        _ => Protocol::V5,
    };
    uplink.nobody_listens = match table.choice("nobody_listens", &["confirm", "hold"]) {
        Some(1) => NobodyListens::Hold,
        _ => NobodyListens::Confirm,
    };
    timing(&mut table, &mut uplink);
    let max_message = size(&mut table, "max_message", *MAX_MESSAGE.start() as u64, *MAX_MESSAGE.end() as u64);
    uplink.max_message =
        max_message.and_then(|size| usize::try_from(size).ok()).unwrap_or(uplink.max_message);
    let in_flight = i64::from(*IN_FLIGHT.start())..=i64::from(*IN_FLIGHT.end());
    let in_flight = table.integer("in_flight", in_flight).and_then(|number| u16::try_from(number).ok());
    uplink.in_flight = in_flight.unwrap_or(uplink.in_flight);
    uplink.retain = table.flag("retain").unwrap_or(true);
    uplink.will = table.flag("will").unwrap_or(true);
    if let Some(names) = table.texts("alpn") {
        if names.iter().any(|name| !(1..=255).contains(&name.len())) {
            table.fault(
                "alpn",
                "a protocol name is empty or too long".to_owned(),
                "1 to 255 bytes each".to_owned(),
            );
        }
        uplink.alpn = names;
    }
    if let Some(mut topics) = table.table("topic") {
        uplink.topics = read_topics(&mut topics);
        topics.finish();
    }
    table.finish();
    Some(uplink)
}

fn identity(table: &mut Table<'_>, uplink: &mut UplinkConfig, reading: &mut Reading<'_>) {
    let (cert, key) = (path(table, "cert"), path(table, "key"));
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if table.has(one) && !table.has(other) {
            let what = format!("{one} without {other}: a certificate is shown together with its key");
            table.fault(one, what, format!("add {other}"));
        }
    }
    uplink.ca = path(table, "ca");
    let mut point = |key: &str, to| {
        if let Some((place, key)) = table.spot(key) {
            reading.pointers.push(Pointer { place, key, to });
        }
    };
    if let Some(ca) = uplink.ca.clone() {
        point("ca", PointsTo::Authorities(ca));
    }
    if let (Some(cert), Some(key)) = (cert, key) {
        point("cert", PointsTo::Identity { cert: cert.clone(), key: key.clone(), client: true });
        uplink.identity = Some(Identity { cert, key });
    }
    if !uplink.broker.tls {
        for key in ["ca", "cert", "alpn"] {
            if table.has(key) {
                let what = format!("{key} has no effect: mqtt:// speaks no TLS");
                table.warn(key, what, "use mqtts://".to_owned());
            }
        }
    }
}

fn login(table: &mut Table<'_>, uplink: &mut UplinkConfig, reading: &mut Reading<'_>) {
    uplink.user = table.text("user");
    uplink.password_file = path(table, "password_file");
    if let (Some(file), Some((place, key))) = (uplink.password_file.clone(), table.spot("password_file")) {
        reading.pointers.push(Pointer { place, key, to: PointsTo::Secret(file) });
    }
    if uplink.password_file.is_some() && !table.has("user") {
        table.fault("password_file", "a password without a user".to_owned(), "add user".to_owned());
    }
    uplink.client_id = table.text("client_id");
    if let Some(id) = &uplink.client_id {
        let fits = (1..=CLIENT_ID_MAX).contains(&id.len()) && !id.chars().any(char::is_control);
        if !fits {
            let what = format!("{} cannot be a client id", quoted(id));
            table.fault("client_id", what, format!("1 to {CLIENT_ID_MAX} bytes without control characters"));
        }
    }
}

fn timing(table: &mut Table<'_>, uplink: &mut UplinkConfig) {
    let durations: [(&'static str, RangeInclusive<Duration>, &mut Duration); 4] = [
        ("keep_alive", KEEP_ALIVE, &mut uplink.keep_alive),
        ("live_every", LIVE_EVERY, &mut uplink.live_every),
        ("connect_timeout", CONNECT_TIMEOUT, &mut uplink.connect_timeout),
        ("ack_timeout", ACK_TIMEOUT, &mut uplink.ack_timeout),
    ];
    for (key, range, value) in durations {
        *value = table.duration(key, range).unwrap_or(*value);
    }
}

fn read_topics(table: &mut Table<'_>) -> Topics {
    let mut topics = Topics::default();
    let keys: [(&'static str, &mut Template); 5] = [
        ("live", &mut topics.live),
        ("backlog", &mut topics.backlog),
        ("event", &mut topics.event),
        ("status", &mut topics.status),
        ("meta", &mut topics.meta),
    ];
    for (key, template) in keys {
        let parsed = table.parsed(key, str::parse::<Template>, |Unusable { what, remedy }| (what, remedy));
        let Some(parsed) = parsed else { continue };
        // Two gateways tell the placeholder apart from plain text.
        if parsed.topic("a", "d") == parsed.topic("b", "d") {
            let what = "without {gateway} the messages of two gateways would mix".to_owned();
            table.fault(key, what, "add {gateway}".to_owned());
        }
        *template = parsed;
    }
    for (key, Unusable { what, remedy }) in topics.faults() {
        // A default that collides with what was typed has no place of its own.
        let what = if table.has(key) { what } else { format!("{key}: {what}") };
        table.fault(key, what, remedy);
    }
    topics
}
