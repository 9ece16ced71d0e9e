//! One named value of a device: where it stands and how its raw value becomes a sample.
//!
//! Where it stands ([`Source`]) belongs to a protocol; what happens to the raw number ([`Scaling`]) is the same
//! for all. Deadband, heartbeat, label and unit are the daemon's business and do not appear here.

use std::sync::Arc;
use std::time::Duration;

use crate::value::{Cause, Sample, Value, ValueKind};
use crate::{Section, line, modbus};

/// A point as a driver needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// `[a-z][a-z0-9_]{0,63}`, unique in its device.
    pub name: Arc<str>,
    /// Where in the device the value stands.
    pub source: Source,
    /// From the raw value to the sample.
    pub scaling: Scaling,
    /// How often it is polled. Points of one device with one period are polled together and form one batch.
    pub period: Duration,
}

impl Point {
    /// The variant that every value of this point has. Scaling makes a 64-bit float of any number.
    pub fn kind(&self) -> ValueKind {
        let raw = match &self.source {
            Source::Modbus(source) => source.kind(),
            Source::Line(source) => source.kind(),
        };
        match raw {
            ValueKind::Bool | ValueKind::Text => raw,
            _ if self.scaling.is_identity() => raw,
            _ => ValueKind::F64,
        }
    }
}

/// Where in a device a value stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A register, part of one, or a coil.
    Modbus(modbus::Source),
    /// A field in an instrument's line of text.
    Line(line::Source),
}

/// `value = raw × scale + offset`, rounded to `decimals`; then sentinels and limits.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Scaling {
    /// Factor; `None` is 1.
    pub scale: Option<f64>,
    /// Added after the factor, in the point's unit; `None` is 0.
    pub offset: Option<f64>,
    /// Digits after the decimal point, 0 to 9: scaled values are rounded to them, half away from zero. An unscaled
    /// value is never rounded; there, `decimals` is a hint for display.
    pub decimals: Option<u8>,
    /// Raw values that mean "no value", compared before scaling. Beyond 2^53 one stands for every raw value that is the same float.
    pub sentinels: Vec<f64>,
    /// Below this, in the point's unit, a value is uncertain.
    pub min: Option<f64>,
    /// Above this, in the point's unit, a value is uncertain.
    pub max: Option<f64>,
}

impl Scaling {
    /// Reads `scale`, `offset`, `decimals`, `sentinels`, `min` and `max`; what is absent comes from `defaults`.
    pub fn from_section(section: &mut dyn Section, defaults: &Self) -> Self {
        let scale = section.number("scale");
        let offset = section.number("offset");
        let decimals = section.integer("decimals", 0..=9);
        let sentinels = section.numbers("sentinels");
        let (min, max) = (section.number("min"), section.number("max"));
        if scale == Some(0.0) {
            section.fault(
                "scale",
                "a scale of 0 makes every value 0".into(),
                "remove it, or write the factor".into(),
            );
        }
        if let (Some(low), Some(high)) = (min, max)
            && low > high
        {
            section.fault("min", format!("min {low} is above max {high}"), "swap them".into());
        }
        Self {
            scale: scale.or(defaults.scale),
            offset: offset.or(defaults.offset),
            decimals: decimals.and_then(|d| u8::try_from(d).ok()).or(defaults.decimals),
            sentinels: sentinels.unwrap_or_else(|| defaults.sentinels.clone()),
            min: min.or(defaults.min),
            max: max.or(defaults.max),
        }
    }

    /// Whether a raw number passes unchanged.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none() && self.offset.is_none()
    }

    /// Whether every raw integer is a value without doubts.
    fn is_plain(&self) -> bool {
        self.is_identity() && self.sentinels.is_empty() && self.min.is_none() && self.max.is_none()
    }

    /// The sample of a raw value: sentinels, scaling, limits, in this order. Bool and text pass as they are.
    pub fn apply(&self, raw: Value) -> Sample {
        match raw {
            Value::Bool(_) | Value::Text(_) => return Sample::good(raw),
            Value::Int(_) | Value::Uint(_) if self.is_plain() => return Sample::good(raw),
            _ => {}
        }
        let Some(number) = raw.as_f64().filter(|number| number.is_finite()) else {
            return Sample::bad(Cause::NotANumber);
        };
        // A 32-bit float is compared as one: 3.4028235e38 in the file is not the same 64-bit number.
        #[allow(clippy::cast_possible_truncation, clippy::float_cmp)]
        let means_nothing = |sentinel: &f64| match raw {
            Value::F32(raw) => raw == *sentinel as f32,
            _ => number == *sentinel,
        };
        if self.sentinels.iter().any(means_nothing) {
            return Sample::bad(Cause::Sentinel);
        }
        let (value, number) = if self.is_identity() {
            (raw, number)
        } else {
            let (product, offset) = (number * self.scale.unwrap_or(1.0), self.offset.unwrap_or(0.0));
            let scaled = self.round(product + offset, product.abs() + offset.abs());
            (Value::F64(scaled), scaled)
        };
        if !number.is_finite() {
            Sample::bad(Cause::Overflow)
        } else if self.min.is_some_and(|min| number < min) {
            Sample::uncertain(value, Cause::BelowLimit)
        } else if self.max.is_some_and(|max| number > max) {
            Sample::uncertain(value, Cause::AboveLimit)
        } else {
            Sample::good(value)
        }
    }

    /// Rounds to `decimals`. `size` is the magnitude of what was added up: it bounds the errors made so far.
    fn round(&self, scaled: f64, size: f64) -> f64 {
        let Some(decimals) = self.decimals else { return scaled };
        let power = 10_f64.powi(i32::from(decimals.min(9)));
        let shifted = scaled * power;
        // Beyond 2^53 there is no digit left to round, and far beyond it the product overflows.
        if shifted.abs() >= 9e15 {
            return scaled;
        }
        // 1005 × 0.001 is a half in decimals and a hair less in binary. Factor, offset, product, sum and shift are
        // each off by at most half a unit in the last place, so what lies so close to a half was one. Dividing two
        // whole numbers gives the float nearest to the decimal.
        let hair = (size * power * 4.0 * f64::EPSILON).copysign(shifted);
        (shifted + hair).round() / power + 0.0 // never "-0"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against decimals done with whole numbers, in millionths.
        #[test]
        fn scaled_values_are_the_floats_nearest_to_the_rounded_decimals(
            raw in -100_000_i64..100_000, factor in -2_000_i64..2_000, factor_digits in 0_u32..4,
            offset in -2_000_000_i64..2_000_000, offset_digits in 0_u32..4, decimals in 0_u8..4,
        ) {
            prop_assume!(factor != 0);
            let float = |n: i64, digits: u32| format!("{n}e-{digits}").parse::<f64>().unwrap();
            let millionths = i128::from(raw * factor) * 10_i128.pow(6 - factor_digits)
                + i128::from(offset) * 10_i128.pow(6 - offset_digits);
            let unit = 10_i128.pow(6 - u32::from(decimals));
            let rounded = (millionths.abs() + unit / 2) / unit * millionths.signum();
            let expected: f64 = format!("{rounded}e-{decimals}").parse().unwrap();
            let scaling = Scaling {
                scale: Some(float(factor, factor_digits)),
                offset: Some(float(offset, offset_digits)),
                decimals: Some(decimals),
                ..Scaling::default()
            };
            let sample = scaling.apply(Value::Int(raw));
            prop_assert_eq!(sample.value.and_then(|value| value.as_f64()), Some(expected), "{}", millionths);
        }
    }

    fn scaling() -> Scaling {
        Scaling { scale: Some(0.1), decimals: Some(1), sentinels: vec![-32768.0], ..Scaling::default() }
    }

    #[test]
    fn scaled_values_are_rounded_to_their_decimals() {
        assert_eq!(scaling().apply(Value::Int(2_303)), Sample::good(Value::F64(230.3)));
        let thousandths = Scaling { scale: Some(0.001), decimals: Some(2), ..Scaling::default() };
        assert_eq!(
            thousandths.apply(Value::Uint(1_005)),
            Sample::good(Value::F64(1.01)),
            "a half in decimals"
        );
        let half = Scaling { scale: Some(0.5), decimals: Some(0), ..Scaling::default() };
        assert_eq!(half.apply(Value::Int(-5)), Sample::good(Value::F64(-3.0)));
    }

    #[test]
    fn an_unscaled_value_passes_untouched() {
        let plain = Scaling { decimals: Some(0), ..Scaling::default() };
        assert_eq!(plain.apply(Value::F32(1.25)), Sample::good(Value::F32(1.25)));
        assert_eq!(plain.apply(Value::Uint(u64::MAX)), Sample::good(Value::Uint(u64::MAX)));
    }

    #[test]
    fn sentinels_are_raw_values_and_mean_no_value() {
        assert_eq!(scaling().apply(Value::Int(-32_768)), Sample::bad(Cause::Sentinel));
        let float = Scaling { sentinels: vec![3.402_823_5e38], ..Scaling::default() };
        assert_eq!(float.apply(Value::F32(f32::MAX)), Sample::bad(Cause::Sentinel));
    }

    #[test]
    fn limits_make_a_value_uncertain_and_infinity_makes_it_bad() {
        let limited = Scaling { min: Some(0.0), max: Some(100.0), ..Scaling::default() };
        assert_eq!(limited.apply(Value::Int(-1)), Sample::uncertain(Value::Int(-1), Cause::BelowLimit));
        assert_eq!(limited.apply(Value::Int(101)), Sample::uncertain(Value::Int(101), Cause::AboveLimit));
        assert_eq!(limited.apply(Value::F32(f32::NAN)), Sample::bad(Cause::NotANumber));
        let huge = Scaling { scale: Some(f64::MAX), ..Scaling::default() };
        assert_eq!(huge.apply(Value::Int(10)), Sample::bad(Cause::Overflow));
    }
}
