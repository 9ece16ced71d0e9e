//! What is wrong with a bus or a device, and what to do.

use fieldspool_drivers::Cause;

use super::{Said, because, cause, grouped, is_network, who};
use crate::status::{BusStatus, DeviceStatus};

/// A line that is not open.
pub fn bus_down(bus: &BusStatus) -> Said {
    let what = if is_network(bus) {
        format!("Check the network cable, the power and the address of {}.", bus.place)
    } else {
        format!("Check the adapter and its cable at {}.", bus.place)
    };
    Said(format!("Bus {} is not open", bus.name), because(bus.error.as_deref(), &what))
}

/// Nobody on a line answers.
pub fn all_silent(bus: &BusStatus) -> Said {
    let what = if bus.devices.iter().any(|device| device.misheard) {
        format!("Something answers, but not what was asked. {}", misheard(bus))
    } else if is_network(bus) {
        format!("The connection to {} stands. Check the unit ids, then the line behind it.", bus.place)
    } else if talks(bus) {
        format!("Check the adapter and its cable at {}, then each as follows. {TALKS}", bus.place)
    } else {
        "Check the line first: power of the converter, A and B swapped, speed and format, terminators.".into()
    };
    Said(format!("None of the {} devices on bus {} answers", bus.devices.len(), bus.name), what)
}

/// One device is silent.
pub fn silent(bus: &BusStatus, device: &DeviceStatus, others_answer: bool) -> Said {
    if talks(bus) {
        // Nobody asks it, so what was not heard in time is no answer.
        return Said(format!("Nothing comes from {}", who(bus, device)), TALKS.to_owned());
    }
    let what = match (others_answer, is_network(bus)) {
        _ if device.misheard => misheard(bus),
        (true, true) => "Others on this bus answer: check its power, then its unit id.",
        (true, false) => "Others on this bus answer: check its power, then A/B, then its unit id.",
        (false, true) => "Check its power, then its unit id.",
        (false, false) => "Check its power, then A/B, then speed, format and unit id.",
    };
    // That it is silent has just been said.
    let why = device.error.as_deref().filter(|why| *why != "silent");
    Said(format!("{} does not answer", who(bus, device)), because(why, what))
}

/// What to look at where an instrument talks by itself, or to one query for all of it: it has no unit id, and mostly no A and B.
const TALKS: &str = "Check its power and that it is set to send (by itself, or to the configured query), then its cable (RS-232: \
    receive and transmit crossed, ground; RS-485: A/B), then speed and format of the port.";

fn talks(bus: &BusStatus) -> bool {
    bus.driver == "serial-line"
}

/// What to look at where something answers, but not what was asked.
fn misheard(bus: &BusStatus) -> &'static str {
    if is_network(bus) {
        "Check its unit id, for another device with the same one, a second master, another protocol on that port, or \
         a device that answers too late and needs a longer timeout."
    } else {
        "Check its unit id, for another device with the same one, a second master, wrong parity or speed, A and B \
         swapped, another protocol, or a device that answers too late and needs a longer timeout."
    }
}

/// A device answers, but some or all of its points have no value.
pub fn unusable(bus: &BusStatus, device: &DeviceStatus) -> Said {
    let why = device.unusable_cause.and_then(Cause::from_code);
    let reason = match (why.map(cause), device.unusable_of_cause) {
        (None, _) => String::new(),
        (Some(why), some) if (1..device.unusable).contains(&some) => {
            format!(", for several reasons; for {} of them: {why}", grouped(some))
        }
        (Some(why), _) => format!(": {why}"),
    };
    let what = match why {
        Some(Cause::Exception(4 | 6)) => "Look at the device itself: its display, its own alarms.",
        Some(Cause::Exception(10 | 11)) => {
            "Check the line behind the gateway in between, then power and unit id."
        }
        Some(Cause::Silent) if talks(bus) => {
            "It says other things: see whether it is set to send that sentence, and compare how the sentence begins."
        }
        Some(Cause::BadFrame) if talks(bus) => {
            "Its lines arrive damaged: compare the setting of the checksum with its manual, then the format of the port."
        }
        Some(Cause::Silent | Cause::BadFrame) => {
            "It answers other questions: compare the register map, and ask for fewer values at once."
        }
        Some(Cause::Sentinel) => {
            "Nothing to do if that is meant: an input without a sensor, a device at rest."
        }
        Some(Cause::NotANumber) => "Compare the register map (address, type, word order), then its sensors.",
        _ => "Compare the register map: address, table, type.",
    };
    let who = who(bus, device);
    let whole = device.unusable >= device.points;
    let said = match (whole, device.points, device.unusable) {
        (true, 1, _) => format!("{who} answers, but its only point has no usable value{reason}"),
        (true, n, _) => {
            format!("{who} answers, but none of its {} points has a usable value{reason}", grouped(n))
        }
        (false, n, 1) => format!("1 of {} points of {who} has no usable value{reason}", grouped(n)),
        (false, n, some) => {
            format!("{} of {} points of {who} have no usable value{reason}", grouped(some), grouped(n))
        }
    };
    Said(said, what.to_owned())
}

/// A line with hardly any time left.
pub fn busy(bus: &BusStatus) -> Said {
    Said(
        format!("Bus {} is in use {:.0} % of the time", bus.name, bus.load * 100.0),
        "At 100 % values come later than configured: choose longer periods, fewer values, or a higher speed. \
         \"fieldspool check --plan\" shows what costs how much."
            .into(),
    )
}

/// A line on which answers arrive damaged.
pub fn noisy(bus: &BusStatus, damaged: u64) -> Said {
    let share = damaged as f64 * 100.0 / bus.counters.requests.max(1) as f64;
    Said(
        format!("{share:.1} % of the answers on bus {} arrive damaged", bus.name),
        "Check for loose contacts, 120 Ω terminators at both ends only, a common ground, and distance to motor \
         cables."
            .into(),
    )
}

/// Answers without a question.
pub fn foreign(bus: &BusStatus) -> Said {
    Said(
        format!("Bus {} carries answers that nobody asked for", bus.name),
        "Is there a second master on the line, or two devices with one unit id? A device that answers too late \
         needs a longer timeout."
            .into(),
    )
}

/// Polls that do not fit.
pub fn misses(bus: &BusStatus, device: &DeviceStatus) -> Said {
    let all = device.polls + device.missed;
    Said(
        format!("{} was asked only {} of {} times", who(bus, device), grouped(device.polls), grouped(all)),
        "The bus cannot serve its period: choose a longer one. \"fieldspool check --plan\" shows the shares."
            .into(),
    )
}
