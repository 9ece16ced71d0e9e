//! Who the gateway is: `gateway`, else the common name of the client certificate, else the name of the machine.
//!
//! The id stands in every message and every topic, and names the readings for ever. So with an uplink it must be one
//! that two machines fresh from the same image do not share, and without `gateway` it is never guessed.

use std::sync::Arc;

use fieldspool_drivers::Section;

use super::Reading;
use crate::config::surroundings::{self, Seen};
use crate::config::table::Table;
use crate::config::words::quoted;
use crate::uplink::UplinkConfig;

/// Names that images and tutorials give to every machine.
const EVERYBODYS: &[&str] = &[
    "raspberrypi",
    "raspberry",
    "localhost",
    "debian",
    "ubuntu",
    "gateway",
    "raspbian",
    "pi",
    "armbian",
    "yocto",
    "buildroot",
    "openwrt",
    "beaglebone",
    "linux",
    "host",
    "test",
    "example",
    "plant",
    "unknown",
    "default",
    "qemux86-64",
    "revpi",
    "iot",
    "edge",
    "fieldspool",
    "localhost.localdomain",
    "none",
    "changeme",
];

/// Longest id, bytes: a topic of AWS IoT has room for it.
const ID_MAX: usize = 64;

pub(super) fn read(
    table: &mut Table<'_>,
    uplink: Option<&UplinkConfig>,
    reading: &mut Reading<'_>,
) -> Arc<str> {
    let given = table.text("gateway");
    if let Some(id) = given {
        if !is_id(&id) {
            let what = format!("{} cannot be a gateway id", quoted(&id));
            let remedy = format!("write 1 to {ID_MAX} of A-Z a-z 0-9 . _ -");
            table.fault("gateway", what, remedy);
        } else if uplink.is_some() && is_everybodys(&id) {
            let what = format!("{} is what many machines are called", quoted(&id));
            table.fault(
                "gateway",
                what,
                "write a name that no other gateway has, for example \"plant7-gw1\"".to_owned(),
            );
        }
        return Arc::from(id);
    }
    if table.has("gateway") {
        return Arc::from("");
    }
    match uplink.map(|uplink| uplink.identity.as_ref()) {
        None => {
            let host = &reading.machine.host_name;
            Arc::from(if is_id(host) { host.as_str() } else { "gateway" })
        }
        Some(None) => {
            let remedy = "write gateway = \"...\", a name that no other gateway has".to_owned();
            missing(table, "this gateway has no id, and no certificate to take it from".to_owned(), remedy);
            Arc::from("")
        }
        Some(Some(identity)) => from_certificate(table, &identity.cert, reading),
    }
}

fn from_certificate(table: &mut Table<'_>, cert: &std::path::Path, reading: &mut Reading<'_>) -> Arc<str> {
    let remedy = "write gateway = \"...\", a name that no other gateway has".to_owned();
    let shown = cert.display();
    let what = match surroundings::common_name(cert) {
        Seen::Yes(Some(name)) if is_id(&name) && !is_everybodys(&name) => return Arc::from(name),
        Seen::Yes(Some(name)) => {
            format!("the certificate's common name, {}, cannot be the gateway id", quoted(&name))
        }
        Seen::Yes(None) => format!("{shown} has no common name to be the gateway id"),
        Seen::No(why) => format!("no gateway id: {shown} {why}"),
        Seen::NotAllowed(unchecked) => {
            reading.unchecked.push(unchecked);
            return Arc::from("");
        }
    };
    missing(table, what, remedy);
    Arc::from("")
}

/// Shown where the need for an id comes from.
fn missing(table: &mut Table<'_>, what: String, remedy: String) {
    table.fault("uplink", what, remedy);
}

fn is_id(id: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=ID_MAX).contains(&id.len()) && id.bytes().all(inner) && !matches!(id, "." | "..")
}

fn is_everybodys(id: &str) -> bool {
    EVERYBODYS.iter().any(|name| name.eq_ignore_ascii_case(id))
}
