//! The plant's physics as a pure function of time: the same second always gives the same values.
//!
//! A small pumping station: an incomer that feeds everything, a compressor that starts and stops, a tank that a pump
//! fills and the works empty, a weather station on the roof, a scale where bags are filled. Counters are the
//! integrals of what flows, so that energy and volume never run backwards and fit the powers shown.

use std::f64::consts::TAU;
use std::time::Duration;

/// Compressor: seconds on, seconds in a cycle.
const COMPRESSOR: (f64, f64) = (40.0, 70.0);
/// Pump: seconds on (the tank fills), seconds in a cycle.
const PUMP: (f64, f64) = (60.0, 150.0);
/// Bag at the scale: seconds to fill, seconds in a cycle.
const BAG: (f64, f64) = (18.0, 30.0);
/// Load that is always there, W.
const BASE_LOAD: f64 = 3_200.0;
/// Compressor under load, W.
const COMPRESSOR_LOAD: f64 = 11_000.0;
/// Pump, W, and its flow in m³/h.
const PUMP_LOAD: f64 = 4_000.0;
const PUMP_FLOW: f64 = 24.0;

/// An electrical feeder with three phases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feeder {
    /// Phase to neutral, V.
    pub voltage: [f64; 3],
    /// A.
    pub current: [f64; 3],
    /// Active power of each phase, W.
    pub power: [f64; 3],
    /// Power factor, 0 to 1.
    pub power_factor: f64,
    /// Hz.
    pub frequency: f64,
    /// Imported since the meter was mounted, kWh.
    pub energy: f64,
}

/// Everything in the plant that can be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    /// The whole plant.
    pub incomer: Feeder,
    /// The compressor's motor.
    pub compressor: Feeder,
    /// Its winding, °C.
    pub winding: f64,
    /// Its running time, hours.
    pub running_hours: f64,
    /// The compressor runs.
    pub compressor_on: bool,
    /// Tank, % of full.
    pub level: f64,
    /// Water in the tank, °C.
    pub water: f64,
    /// The pump runs.
    pub pump_on: bool,
    /// Into the tank, m³/h.
    pub flow: f64,
    /// Into the tank since mounting, m³.
    pub volume: f64,
    /// Pressure behind the pump, bar.
    pub pressure: f64,
    /// Air, °C.
    pub air: f64,
    /// Relative humidity, %.
    pub humidity: f64,
    /// Barometer, hPa.
    pub barometer: f64,
    /// Where the wind comes from, degrees.
    pub wind_direction: f64,
    /// m/s.
    pub wind_speed: f64,
    /// On the scale, kg.
    pub weight: f64,
    /// The scale stands still.
    pub weight_stable: bool,
}

/// The plant. Its age only shifts the counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plant;

impl Plant {
    /// What is to be measured `since` the plant's beginning.
    pub fn at(self, since: Duration) -> Values {
        let t = since.as_secs_f64();
        let compressor = cycle(t, COMPRESSOR);
        let pump = cycle(t + 20.0, PUMP);
        let bag = cycle(t, BAG);
        let wave = 400.0 * (t * TAU / 37.0).sin();
        let compressor_power =
            compressor.on.map_or(0.0, |x| COMPRESSOR_LOAD * (1.0 + 1.8 * (-x / 0.8).exp()));
        let pump_power = if pump.on.is_some() { PUMP_LOAD } else { 0.0 };
        let sag = (compressor_power / COMPRESSOR_LOAD).min(3.0);
        let volts = |phase: f64| {
            231.0 - 1.2 * sag + 1.5 * (t / 11.0 + phase * TAU / 3.0).sin() + noise(t, phase, 0.3)
        };
        let voltage = [volts(0.0), volts(1.0), volts(2.0)];
        let frequency = 50.0 + 0.02 * (t / 17.0).sin() + noise(t, 9.0, 0.004);
        // Joule to kWh.
        let kwh = |joule: f64| joule / 3.6e6;
        let waves = 400.0 * 37.0 / TAU * (1.0 - (t * TAU / 37.0).cos());
        let compressor_energy = kwh(COMPRESSOR_LOAD * (compressor.total + 1.8 * 0.8 * compressor.ramps(0.8)));
        let energy = compressor_energy + kwh((BASE_LOAD) * t + waves + PUMP_LOAD * pump.total);
        let total = BASE_LOAD + wave + compressor_power + pump_power;
        let motor = if compressor.on.is_some() { 0.86 } else { 0.0 };
        let filling = pump.on.map_or_else(|| 80.0 - 50.0 * pump.off_share, |x| 30.0 + 50.0 * x / PUMP.0);
        let flow = pump.on.map_or(0.0, |x| PUMP_FLOW * (1.0 - (-x / 2.0).exp()) + noise(t, 4.0, 0.15));
        let weight = bag.on.map_or(25.0, |x| 25.0 * x / BAG.0);
        Values {
            incomer: feeder(voltage, total, 0.94, frequency, 20_771.0 + energy),
            compressor: feeder(voltage, compressor_power, motor, frequency, 4_310.0 + compressor_energy),
            winding: winding(t) + noise(t, 3.0, 0.1),
            running_hours: 8_766.0 + compressor.total / 3_600.0,
            compressor_on: compressor.on.is_some(),
            level: filling + 0.3 * (t * TAU / 5.0).sin(),
            water: 11.5 + 0.8 * (t / 120.0).sin() + noise(t, 5.0, 0.05),
            pump_on: pump.on.is_some(),
            flow,
            volume: 152_480.0 + PUMP_FLOW / 3_600.0 * (pump.total - 2.0 * pump.ramps(2.0)),
            pressure: if pump.on.is_some() { 4.2 + noise(t, 6.0, 0.05) } else { 1.8 + noise(t, 6.0, 0.02) },
            air: 14.0 + 2.0 * (t / 300.0).sin() + noise(t, 7.0, 0.1),
            humidity: 62.0 - 6.0 * (t / 300.0).sin() + noise(t, 8.0, 0.4),
            barometer: 1_013.2 + 1.5 * (t / 900.0).sin(),
            wind_direction: (230.0 + 25.0 * (t / 23.0).sin() + noise(t, 10.0, 6.0)).rem_euclid(360.0),
            wind_speed: (4.5 + 2.0 * (t / 13.0).sin() + 1.2 * (t / 3.1).sin() + noise(t, 11.0, 0.5)).max(0.0),
            weight,
            weight_stable: bag.on.is_none(),
        }
    }
}

/// Something that is on for a part of each cycle.
struct Cycle {
    /// Seconds since it went on; `None` while off.
    on: Option<f64>,
    /// How far the pause has gone, 0 to 1.
    off_share: f64,
    /// Seconds on since the beginning.
    total: f64,
    /// Times it went on and off again.
    completed: f64,
}

impl Cycle {
    /// The integral of `exp(-x / tau)` over all times on, as a multiple of `tau`.
    fn ramps(&self, tau: f64) -> f64 {
        self.completed + self.on.map_or(0.0, |x| 1.0 - (-x / tau).exp())
    }
}

fn cycle(t: f64, (on, length): (f64, f64)) -> Cycle {
    let whole = (t / length).floor();
    let x = t - whole * length;
    Cycle {
        on: (x < on).then_some(x),
        off_share: ((x - on) / (length - on)).clamp(0.0, 1.0),
        total: whole * on + x.min(on),
        completed: if x < on { whole } else { whole + 1.0 },
    }
}

fn feeder(voltage: [f64; 3], total: f64, power_factor: f64, frequency: f64, energy: f64) -> Feeder {
    let power = [total * 0.34, total * 0.335, total * 0.325];
    let mut current = [0.0; 3];
    for ((amps, watts), volts) in current.iter_mut().zip(power).zip(voltage) {
        *amps = if power_factor > 0.0 { watts / volts / power_factor } else { 0.0 };
    }
    Feeder { voltage, current, power, power_factor, frequency, energy }
}

/// Warms towards 105 °C while the compressor runs and cools towards 30 °C while it rests, in a steady rhythm.
fn winding(t: f64) -> f64 {
    let (on, length) = COMPRESSOR;
    let (hot, cold, warming, cooling) = (105.0, 30.0, 60.0_f64, 45.0_f64);
    let p = (-on / warming).exp();
    let q = (-(length - on) / cooling).exp();
    let lowest = (cold * (1.0 - q) + hot * (1.0 - p) * q) / (1.0 - p * q);
    let x = t.rem_euclid(length);
    if x < on {
        hot - (hot - lowest) * (-x / warming).exp()
    } else {
        let highest = hot - (hot - lowest) * p;
        cold + (highest - cold) * (-(x - on) / cooling).exp()
    }
}

/// A small disturbance that changes four times a second and is the same for the same time.
fn noise(t: f64, channel: f64, size: f64) -> f64 {
    let x = ((t * 4.0).floor() * 12.9898 + channel * 78.233).sin() * 43_758.545;
    size * 2.0 * (x - x.floor() - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour() -> impl Iterator<Item = Values> {
        (0..3_600).map(|second| Plant.at(Duration::from_secs(second)))
    }

    #[test]
    fn counters_never_run_backwards() {
        let mut before = Plant.at(Duration::ZERO);
        for now in hour() {
            assert!(now.incomer.energy >= before.incomer.energy);
            assert!(now.compressor.energy >= before.compressor.energy);
            assert!(now.volume >= before.volume && now.running_hours >= before.running_hours);
            before = now;
        }
    }

    #[test]
    fn the_incomers_energy_is_the_integral_of_its_power() {
        let steps = 36_000_u32;
        let joule: f64 = (0..steps)
            .map(|step| {
                Plant.at(Duration::from_millis(u64::from(step) * 100)).incomer.power.iter().sum::<f64>()
                    / 10.0
            })
            .sum();
        let counted =
            Plant.at(Duration::from_secs(3_600)).incomer.energy - Plant.at(Duration::ZERO).incomer.energy;
        assert!((joule / 3.6e6 - counted).abs() < 0.01 * counted, "{} {counted}", joule / 3.6e6);
    }

    #[test]
    fn values_stay_within_what_a_plant_can_do_and_move() {
        let mut starts = 0;
        let mut on = true;
        for values in hour() {
            assert!((20.0..100.0).contains(&values.winding), "{}", values.winding);
            assert!((25.0..85.0).contains(&values.level), "{}", values.level);
            assert!((0.0..30.0).contains(&values.wind_speed) && (0.0..=25.0).contains(&values.weight));
            assert!(values.incomer.voltage.iter().all(|v| (215.0..245.0).contains(v)));
            assert!(values.incomer.power.iter().sum::<f64>() > values.compressor.power.iter().sum::<f64>());
            starts += u32::from(values.compressor_on && !on);
            on = values.compressor_on;
        }
        assert!(starts > 30);
    }
}
