//! `[page]`, or `page = false`.

use std::net::SocketAddr;

use fieldspool_drivers::Section;

use super::{Pointer, PointsTo, Reading, path};
use crate::config::document::Data;
use crate::config::table::Table;
use crate::config::words::quoted;
use crate::page::{CertificateFiles, PageConfig};

/// So many wrong names are told one by one.
const NAMED_MAX: usize = 5;

pub(super) fn read(top: &mut Table<'_>, reading: &mut Reading<'_>) -> Option<PageConfig> {
    match top.value("page").map(|node| &node.data) {
        Some(Data::Flag(on)) => return on.then(PageConfig::default),
        Some(Data::Table(_)) | None => {}
        Some(other) => {
            let what = format!("{} is neither a table nor false", other.words());
            top.fault("page", what, "write page = false for no page".to_owned());
            return None;
        }
    }
    let mut page = PageConfig::default();
    let Some(mut table) = top.table("page") else { return Some(page) };
    if let Some(Data::Integer(port)) = table.value("listen").map(|node| &node.data) {
        let port = if (1..=65_535).contains(port) { *port } else { 8480 };
        let remedy = format!("write \"127.0.0.1:{port}\", with the address before the port");
        table.fault("listen", "a number without an address".to_owned(), remedy);
    } else if let Some(addresses) = table.texts("listen") {
        page.listen = listeners(&mut table, &addresses);
    }
    if let Some(names) = table.texts("names") {
        let mut bad: Vec<&String> = names.iter().filter(|name| !is_host_name(name)).collect();
        bad.dedup();
        let more = bad.len().saturating_sub(NAMED_MAX);
        bad.truncate(NAMED_MAX);
        let mut said: Vec<String> = bad.into_iter().map(|name| quoted(name)).collect();
        if more > 0 {
            said.push(format!("{more} more"));
        }
        if let Some(last) = said.pop() {
            let what = match said.as_slice() {
                [] => format!("{last} is not a host name"),
                others => format!("{} and {last} are no host names", others.join(", ")),
            };
            table.fault(
                "names",
                what,
                "write names without port or scheme: \"gw1.plant7.example\"".to_owned(),
            );
        }
        page.names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    }
    page.certificate = certificate(&mut table, reading);
    table.finish();
    Some(page)
}

fn listeners(table: &mut Table<'_>, addresses: &[String]) -> Vec<SocketAddr> {
    let mut listen: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        match address.parse() {
            Ok(parsed) if !listen.contains(&parsed) => listen.push(parsed),
            Ok(_) => table.fault("listen", format!("{} twice", quoted(address)), "keep one".to_owned()),
            Err(_) => {
                let what = format!("{} is not an address with a port", quoted(address));
                let remedy = "write \"127.0.0.1:8480\", \"0.0.0.0:8480\" or \"[::]:8480\"".to_owned();
                table.fault("listen", what, remedy);
            }
        }
    }
    if addresses.is_empty() {
        table.fault("listen", "no address at all".to_owned(), "for no page write page = false".to_owned());
    }
    listen
}

fn certificate(table: &mut Table<'_>, reading: &mut Reading<'_>) -> Option<CertificateFiles> {
    let (cert, key) = (path(table, "cert"), path(table, "key"));
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if table.has(one) && !table.has(other) {
            table.fault(one, format!("{one} without {other}"), format!("add {other}, or remove {one}"));
        }
    }
    let (cert, key) = (cert?, key?);
    let (place, path) = table.spot("cert")?;
    let to = PointsTo::Identity { cert: cert.clone(), key: key.clone(), client: false };
    reading.pointers.push(Pointer { place, key: path, to });
    Some(CertificateFiles { cert, key })
}

pub(super) fn is_host_name(name: &str) -> bool {
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}
