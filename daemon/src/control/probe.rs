//! Reading a device once: what to ask, and how to say what came. The daemon does it over its own bus; without a daemon the
//! command line does the same over a bus it opens itself.

use fieldspool_drivers::bus::Poll;
use fieldspool_drivers::point::{Point, Scaling, Source};

use super::PointNow;
use super::rows::{quality_text, value_text};
use crate::config::{Config, ConfiguredBus};

/// Which points of which device.
#[derive(Debug)]
pub struct Target<'a> {
    bus: &'a ConfiguredBus,
    /// Index of the device on its bus.
    pub device: usize,
    points: Vec<usize>,
}

impl<'a> Target<'a> {
    /// Finds a device on its bus, and one of its points or all. An error names what there is.
    pub fn find(bus: &'a ConfiguredBus, device: &str, point: Option<&str>) -> Result<Self, String> {
        let names: Vec<&str> = bus.spec.devices.iter().map(|device| &*device.name).collect();
        let index = names.iter().position(|name| *name == device);
        let (Some(index), Some(spec)) = (index, index.and_then(|index| bus.spec.devices.get(index))) else {
            return Err(unknown(("device", device), &format!(" on bus {}", bus.spec.name), &names));
        };
        let all: Vec<&str> = spec.points.iter().map(|point| &*point.name).collect();
        let wanted = |name: &&str| point.is_none_or(|point| *point == **name);
        let points: Vec<usize> =
            all.iter().enumerate().filter(|(_, name)| wanted(name)).map(|(at, _)| at).collect();
        match point {
            Some(point) if points.is_empty() => {
                Err(unknown(("point", point), &format!(" of {device}"), &all))
            }
            _ => Ok(Self { bus, device: index, points }),
        }
    }

    /// What to ask, one request round after the other. With `all_types` each size of each point is asked on its own,
    /// because a device may refuse registers behind the point.
    pub fn rounds(&self, all_types: bool) -> Vec<Vec<Point>> {
        let Some(device) = self.bus.spec.devices.get(self.device) else { return Vec::new() };
        let points = self.points.iter().filter_map(|&index| device.points.get(index));
        if !all_types {
            return vec![points.cloned().collect()];
        }
        points.flat_map(every_type).collect()
    }

    /// What came of one round, in words.
    pub fn say(&self, points: &[Point], poll: &Poll) -> Vec<PointNow> {
        let sample = |(index, sample): &(u16, fieldspool_drivers::Sample)| {
            let point = points.get(usize::from(*index))?;
            Some(PointNow {
                point: point.name.to_string(),
                place: place(&point.source),
                value: sample.value.as_ref().map(value_text),
                unit: self.unit(&point.name),
                quality: quality_text(sample.quality),
                read_as: read_as(&point.source),
            })
        };
        poll.samples.iter().filter_map(sample).collect()
    }

    fn unit(&self, point: &str) -> String {
        let spec = self.bus.spec.devices.get(self.device);
        let index = spec.and_then(|device| device.points.iter().position(|known| *known.name == *point));
        let info = self.bus.devices.get(self.device).zip(index).and_then(|(info, at)| info.points.get(at));
        info.map(|info| info.unit.to_string()).unwrap_or_default()
    }
}

/// The point in every type of the same size, size by size, unscaled.
fn every_type(point: &Point) -> Vec<Vec<Point>> {
    let Source::Modbus(source) = &point.source else { return vec![vec![point.clone()]] };
    let all = source.every_type();
    let sizes = all.chunk_by(|one, next| one.registers() == next.registers());
    let as_type = |source: &fieldspool_drivers::modbus::Source| Point {
        source: Source::Modbus(*source),
        scaling: Scaling::default(),
        ..point.clone()
    };
    sizes.map(|same| same.iter().map(as_type).collect()).collect()
}

fn place(source: &Source) -> String {
    match source {
        Source::Modbus(source) => source.to_string(),
        Source::Line(_) => String::new(),
    }
}

fn read_as(source: &Source) -> Option<(String, usize)> {
    let Source::Modbus(source) = source else { return None };
    let column = usize::from(source.order.swap_words) + 2 * usize::from(source.order.swap_bytes);
    Some((source.kind.name().to_owned(), column))
}

/// The bus of this name.
pub fn find_bus<'a>(config: &'a Config, bus: &str) -> Result<&'a ConfiguredBus, String> {
    let names: Vec<&str> = config.buses.iter().map(|known| &*known.spec.name).collect();
    let found = config.buses.iter().find(|known| *known.spec.name == *bus);
    found.map(|found| &**found).ok_or_else(|| unknown(("bus", bus), "", &names))
}

/// `there is no device meter on bus hall; did you mean meter1? There are: meter1, pump`. `within` begins with a space, or is empty.
pub fn unknown((what, wanted): (&str, &str), within: &str, names: &[impl AsRef<str>]) -> String {
    let wanted_shown = crate::log::escape(wanted);
    if names.is_empty() {
        return format!("there is no {what} {wanted_shown}{within}: none is configured");
    }
    let near = names.iter().map(|name| (strsim::damerau_levenshtein(name.as_ref(), wanted), name.as_ref()));
    let near = near.filter(|(distance, _)| *distance <= 2).min();
    let mean = near.map_or(".".to_owned(), |(_, name)| format!("; did you mean {name}?"));
    let listed: Vec<&str> = names.iter().map(AsRef::as_ref).take(20).collect();
    format!("there is no {what} {wanted_shown}{within}{mean} There are: {}", listed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_gets_its_neighbours() {
        assert_eq!(
            unknown(("bus", "hal"), "", &["hall", "cellar"]),
            "there is no bus hal; did you mean hall? There are: hall, cellar"
        );
        assert_eq!(unknown(("bus", "x\n"), "", &["hall"]), "there is no bus x\\n. There are: hall");
        assert_eq!(unknown(("bus", "x"), "", &[] as &[&str]), "there is no bus x: none is configured");
        let said = unknown(("device", "x"), " on bus hall", &["meter-01"]);
        assert_eq!(said, "there is no device x on bus hall. There are: meter-01");
    }
}
