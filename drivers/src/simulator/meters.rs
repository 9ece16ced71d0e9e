//! How the plant's instruments show its values: register maps and sentences of real kinds.

use super::modbus::{Registers, Table};
use super::plant::{Feeder, Values};
use crate::line::Checksum;

/// The input registers of an Eastron SDM630-Modbus V2, as far as its protocol document lists live values: 32-bit
/// floats, high word first, at even addresses.
pub(super) fn sdm630(feeder: &Feeder) -> Registers {
    let mut registers = Registers::default();
    let mut set = |address, value| registers.set_f32(Table::Input, address, value);
    let factor = feeder.power_factor;
    let apparent = |watts: f64| if factor > 0.0 { watts / factor } else { 0.0 };
    let reactive = |watts: f64| (apparent(watts).powi(2) - watts.powi(2)).max(0.0).sqrt();
    let angle = if factor > 0.0 { factor.acos().to_degrees() } else { 0.0 };
    for (phase, ((volts, amps), watts)) in
        (0_u16..).zip(feeder.voltage.into_iter().zip(feeder.current).zip(feeder.power))
    {
        let offset = phase * 2;
        set(offset, volts);
        set(6 + offset, amps);
        set(12 + offset, watts);
        set(18 + offset, apparent(watts));
        set(24 + offset, reactive(watts));
        set(30 + offset, factor);
        set(36 + offset, angle);
        set(200 + offset, volts * 3.0_f64.sqrt());
    }
    let total: f64 = feeder.power.iter().sum();
    let average = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
    set(42, average(feeder.voltage));
    set(46, average(feeder.current));
    set(48, feeder.current.iter().sum());
    set(52, total);
    set(56, apparent(total));
    set(60, reactive(total));
    set(62, factor);
    set(66, angle);
    set(70, feeder.frequency);
    set(72, feeder.energy);
    set(74, 0.0);
    set(206, average(feeder.voltage) * 3.0_f64.sqrt());
    set(342, feeder.energy);
    registers
}

/// A tank transmitter: 0 level in tenths of a percent, 1 temperature in tenths of a degree; discrete input 0 is the
/// float switch "high", above 78 %.
pub(super) fn tank(values: &Values) -> Registers {
    let mut registers = Registers::default();
    registers.set_tenths(Table::Input, 0, values.level);
    registers.set_tenths(Table::Input, 1, values.water);
    registers.set(Table::Discrete, 0, u16::from(values.level > 78.0));
    registers
}

/// The pump station's controller: holding 0 flow (32-bit float), 2 volume in litres (32-bit integer, high word first),
/// 4 pressure in tenths of a bar, 5 winding temperature of the compressor in tenths, 6 its hours; coils 0 pump and 1
/// compressor run.
pub(super) fn pump_station(values: &Values) -> Registers {
    let mut registers = Registers::default();
    registers.set_f32(Table::Holding, 0, values.flow);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    registers.set_u32(Table::Holding, 2, (values.volume * 1_000.0) as u32);
    registers.set_tenths(Table::Holding, 4, values.pressure);
    registers.set_tenths(Table::Holding, 5, values.winding);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    registers.set(Table::Holding, 6, values.running_hours as u16);
    registers.set(Table::Coil, 0, u16::from(values.pump_on));
    registers.set(Table::Coil, 1, u16::from(values.compressor_on));
    registers
}

/// What a weather station says each second, NMEA 0183: wind, then everything else.
pub(super) fn weather(values: &Values) -> Vec<u8> {
    let wind = format!("WIMWV,{:.1},R,{:.1},M,A", values.wind_direction, values.wind_speed);
    let mda = format!(
        "WIMDA,{:.4},I,{:.4},B,{:.1},C,,,{:.1},,,,{:.1},T,,,{:.1},N,{:.1},M",
        values.barometer / 33.8639,
        values.barometer / 1_000.0,
        values.air,
        values.humidity,
        values.wind_direction,
        values.wind_speed * 1.943_84,
        values.wind_speed,
    );
    let mut text = Vec::new();
    for sentence in [wind, mda] {
        text.extend(Checksum::Nmea.append(sentence.as_bytes()));
        text.extend(b"\r\n");
    }
    text
}

/// What a scale answers: stable or not, gross, the weight with its sign apart.
pub(super) fn scale(values: &Values) -> Vec<u8> {
    let state = if values.weight_stable { "ST" } else { "US" };
    let sign = if values.weight < 0.0 { '-' } else { '+' };
    format!("{state},GS,{sign}{:>8.2} kg\r\n", values.weight.abs()).into_bytes()
}
