//! One point: the driver reads where it stands and how it is scaled, the daemon reads the rest.

use std::sync::Arc;

use fieldspool_drivers::bus::{Defaults, Protocol};
use fieldspool_drivers::point::Point;
use fieldspool_drivers::{Section, ValueKind};

use super::bus::{HEARTBEAT, PERIOD};
use super::device::{Inherited, LABEL_MAX, parent};
use super::free_text;
use crate::config::Reporting;
use crate::config::document::Entry;
use crate::config::table::Table;
use crate::config::words::quoted;
use crate::model::PointInfo;

/// Longest unit, characters.
const UNIT_MAX: usize = 32;

/// Reads one point. `None` if it stands nowhere; its faults are reported all the same.
pub(super) fn read(
    entry: &Entry,
    mut table: Table<'_>,
    (protocol, defaults): (Protocol, &Defaults),
    inherited: Inherited,
) -> Option<(Point, PointInfo, Reporting)> {
    if !is_point_name(&entry.key) {
        let what = format!("{} cannot be the name of a point", quoted(&entry.key));
        let remedy =
            "write a lower-case letter, then up to 63 of a-z 0-9 _, and free text as label".to_owned();
        table.fault_at(entry.key_place.clone(), parent(table.path()), what, remedy);
    }
    let read = protocol.source_and_scaling(&mut table, defaults);
    let period = table.duration("period", PERIOD).unwrap_or(inherited.period);
    let label = free_text(&mut table, "label", LABEL_MAX);
    let unit = free_text(&mut table, "unit", UNIT_MAX);
    let json_string = table.choice("json", &["number", "string"]) == Some(1);
    let reporting = Reporting {
        deadband: table.number("deadband"),
        on_change: table.flag("on_change").unwrap_or(false),
        heartbeat: table.duration("heartbeat", HEARTBEAT).unwrap_or(inherited.heartbeat),
    };
    let read = read.map(|(source, scaling)| {
        let point = Point { name: Arc::from(entry.key.as_str()), source, scaling, period };
        let info = PointInfo {
            name: Arc::clone(&point.name),
            kind: point.kind(),
            unit,
            label,
            decimals: point.scaling.decimals,
            headline: false,
            period: Some(period),
            json_string,
        };
        meaning(&mut table, &point, &info, reporting.deadband);
        (point, info, reporting)
    });
    table.finish();
    read
}

fn meaning(table: &mut Table<'_>, point: &Point, info: &PointInfo, deadband: Option<f64>) {
    let kind = info.kind;
    if let Some(deadband) = deadband {
        if matches!(kind, ValueKind::Bool | ValueKind::Text) {
            let what = "a deadband needs a number".to_owned();
            table.fault("deadband", what, "use on_change = true".to_owned());
        } else if deadband < 0.0 {
            table.fault("deadband", format!("a deadband of {deadband}"), "write 0 or more".to_owned());
        }
    }
    if info.json_string && !matches!(kind, ValueKind::Int | ValueKind::Uint) {
        let what = "json = \"string\" is for integers without scale".to_owned();
        table.fault("json", what, "remove it".to_owned());
    }
    if !info.json_string && is_wide(table, point) {
        let what = "integers beyond 9007199254740992 lose digits in most JSON readers".to_owned();
        table.warn(
            "json",
            what,
            "if it grows so large, add json = \"string\"; json = \"number\" says it never does".to_owned(),
        );
    }
}

/// An unscaled 64-bit integer about which `json` says nothing.
fn is_wide(table: &Table<'_>, point: &Point) -> bool {
    use fieldspool_drivers::modbus::Type;
    use fieldspool_drivers::point::Source;
    let wide =
        matches!(&point.source, Source::Modbus(source) if matches!(source.kind, Type::U64 | Type::I64));
    wide && point.scaling.is_identity() && !table.has("json")
}

fn is_point_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
