//! What the configuration may say, asked through a section made of a list.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::*;
use crate::bus::{Defaults, Protocol};
use crate::{Cause, Section};

/// A value as the file would hold it.
#[derive(Clone, Debug)]
enum Typed {
    Text(&'static str),
    Number(f64),
    Numbers(Vec<f64>),
}

/// A table of the configuration, and the faults found in it: (key, what and remedy).
#[derive(Debug, Default)]
struct Table_ {
    keys: BTreeMap<&'static str, Typed>,
    faults: Vec<(&'static str, String)>,
}

fn table(keys: &[(&'static str, Typed)]) -> Table_ {
    Table_ { keys: keys.iter().cloned().collect(), faults: Vec::new() }
}

impl Section for Table_ {
    fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        if let Typed::Text(text) = self.keys.get(key)? {
            return Some((*text).to_owned());
        }
        self.fault(key, "not text".into(), String::new());
        None
    }

    fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        match self.keys.get(key)? {
            #[allow(clippy::cast_possible_truncation)]
            Typed::Number(number) if range.contains(&(*number as i64)) => Some(*number as i64),
            _ => {
                self.fault(key, "not in range".into(), String::new());
                None
            }
        }
    }

    fn number(&mut self, key: &'static str) -> Option<f64> {
        match self.keys.get(key)? {
            Typed::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn flag(&mut self, _: &'static str) -> Option<bool> {
        None
    }

    fn duration(&mut self, _: &'static str, _: RangeInclusive<Duration>) -> Option<Duration> {
        None
    }

    fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Option<usize> {
        let text = self.text(key)?;
        let index = choices.iter().position(|choice| *choice == text);
        if index.is_none() {
            self.fault(key, format!("{text} is none of {choices:?}"), String::new());
        }
        index
    }

    fn numbers(&mut self, key: &'static str) -> Option<Vec<f64>> {
        match self.keys.get(key)? {
            Typed::Numbers(numbers) => Some(numbers.clone()),
            _ => None,
        }
    }

    fn texts(&mut self, _: &'static str) -> Option<Vec<String>> {
        None
    }

    fn warn(&mut self, key: &'static str, what: String, remedy: String) {
        self.fault(key, format!("warning: {what}"), remedy);
    }

    fn fault(&mut self, key: &'static str, what: String, remedy: String) {
        self.faults.push((key, format!("{what}; {remedy}")));
    }
}

use Typed::{Number, Numbers, Text};

fn point(keys: &[(&'static str, Typed)], defaults: &Defaults) -> (Option<(Source, Scaling)>, Table_) {
    let mut section = table(keys);
    let read =
        Protocol::Modbus.source_and_scaling(&mut section, defaults).map(|(source, scaling)| match source {
            point::Source::Modbus(source) => (source, scaling),
            point::Source::Line(_) => panic!(),
        });
    (read, section)
}

fn source(keys: &[(&'static str, Typed)]) -> Source {
    let (read, section) = point(keys, &Defaults::default());
    assert!(section.faults.is_empty(), "{:?}", section.faults);
    read.unwrap().0
}

fn fault(keys: &[(&'static str, Typed)]) -> String {
    let (_, section) = point(keys, &Defaults::default());
    assert_eq!(section.faults.len(), 1, "one fault for one mistake: {:?}", section.faults);
    format!("{}: {}", section.faults[0].0, section.faults[0].1)
}

#[test]
fn the_manuals_number_becomes_table_and_address() {
    for (number, table, address) in [
        (1.0, Table::Coil, 0),
        (9_999.0, Table::Coil, 9_998),
        (10_001.0, Table::Discrete, 0),
        (30_073.0, Table::Input, 72),
        (40_001.0, Table::Holding, 0),
        (49_999.0, Table::Holding, 9_998),
        (300_001.0, Table::Input, 0),
        (465_536.0, Table::Holding, 65_535),
        (165_536.0, Table::Discrete, 65_535),
    ] {
        let source = source(&[("ref", Number(number))]);
        assert_eq!((source.table, source.address), (table, address), "{number}");
    }
    for number in [10_000.0, 20_001.0, 30_000.0, 40_000.0, 50_001.0, 400_000.0] {
        assert!(fault(&[("ref", Number(number))]).contains("holding = 0"), "{number}");
    }
}

#[test]
fn types_orders_bits_and_strings_are_read() {
    assert_eq!(source(&[("input", Number(5.0))]).kind, Type::U16);
    let float = source(&[("holding", Number(5.0)), ("type", Text("f32")), ("order", Text("CDAB"))]);
    assert_eq!((float.kind, float.order.words(2)), (Type::F32, "CDAB"));
    for name in ["ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"] {
        let double = source(&[("input", Number(0.0)), ("type", Text("f64")), ("order", Text(name))]);
        assert_eq!(double.order.words(4), name);
    }
    assert_eq!(source(&[("input", Number(5.0)), ("bit", Number(15.0))]).kind, Type::Bit(15));
    assert_eq!(source(&[("coil", Number(5.0))]).kind, Type::Bool);
    let text = source(&[("input", Number(5.0)), ("type", Text("string")), ("length", Number(8.0))]);
    assert_eq!(text.kind, Type::Text(8));
}

#[test]
fn a_profiles_defaults_hold_where_they_can() {
    let mut section = table(&[("type", Text("f32")), ("order", Text("CDAB")), ("decimals", Number(2.0))]);
    let defaults = Protocol::Modbus.defaults(&mut section).unwrap();
    assert!(section.faults.is_empty());
    let with_defaults = |keys: &[(&'static str, Typed)]| point(keys, &defaults).0.unwrap();
    let (float, scaling) = with_defaults(&[("input", Number(0.0))]);
    assert_eq!((float.kind, float.order.words(2), scaling.decimals), (Type::F32, "CDAB", Some(2)));
    let (wide, _) = with_defaults(&[("input", Number(0.0)), ("type", Text("u64"))]);
    assert_eq!(wide.order.words(4), "GHEFCDAB");
    assert_eq!(with_defaults(&[("coil", Number(0.0))]).0.kind, Type::Bool);
    assert_eq!(with_defaults(&[("input", Number(0.0)), ("bit", Number(3.0))]).0.kind, Type::Bit(3));
    let (single, _) = with_defaults(&[("input", Number(0.0)), ("type", Text("i16"))]);
    assert_eq!(single.order, Order::BIG, "a single register comes as the protocol has it");
}

#[test]
fn a_limit_that_no_value_of_the_type_keeps_is_a_fault() {
    let u16 = |keys: &[(&'static str, Typed)]| fault(&[&[("input", Number(0.0))], keys].concat());
    assert!(
        u16(&[("min", Number(70_000.0))]).starts_with("min: a u16 goes from 0 to 65535 here, never to 70000")
    );
    let turned = [("scale", Number(-0.1)), ("offset", Number(6_553.6)), ("max", Number(0.0))];
    assert!(u16(&turned).starts_with("max: a u16 goes from 0.1 to 6553.6 here"));
    assert!(u16(&[("max", Number(-1.0))]).starts_with("max: "));
    // 0 to 65535 touches both.
    source(&[("input", Number(0.0)), ("min", Number(65_535.0))]);
    source(&[("input", Number(0.0)), ("max", Number(0.0))]);
    source(&[("input", Number(0.0)), ("type", Text("f32")), ("min", Number(1e30))]);
    // As floats 65535 × 0.001 - 40 is less than 25.535; a reading is rounded.
    let rounded = [("scale", Number(0.001)), ("offset", Number(-40.0)), ("min", Number(25.535))];
    source(&[&[("input", Number(0.0)), ("decimals", Number(3.0))], &rounded[..]].concat());
}

#[test]
fn names_from_manuals_are_answered_with_ours() {
    for (typed, name) in [
        ("FLOAT32", "f32"),
        ("REAL", "f32"),
        ("Float 64", "f64"),
        ("INT16", "i16"),
        ("WORD", "u16"),
        ("DWORD", "u32"),
        ("UINT_32", "u32"),
        ("U16", "u16"),
        ("ASCII", "string"),
    ] {
        let fault = fault(&[("input", Number(0.0)), ("type", Text(typed))]);
        assert!(fault.starts_with("type:") && fault.contains(&format!("did you mean `{name}`")), "{fault}");
    }
    assert!(fault(&[("input", Number(0.0)), ("type", Text("f23"))]).contains("none of"));
}

#[test]
fn each_mistake_is_one_fault_that_says_what_to_do() {
    let at = || ("input", Number(0.0));
    for (keys, words) in [
        (vec![("type", Text("f32"))], "add one of `input`"),
        (vec![at(), ("holding", Number(0.0))], "keep one"),
        (vec![at(), ("type", Text("bool"))], "bit = 0"),
        (vec![at(), ("type", Text("string"))], "`length`"),
        (vec![at(), ("length", Number(3.0))], "only a string"),
        (vec![at(), ("bit", Number(3.0)), ("type", Text("f32"))], "remove `type` or `bit`"),
        (vec![("coil", Number(0.0)), ("type", Text("f32"))], "single bits"),
        (vec![("coil", Number(0.0)), ("scale", Number(2.0))], "no `scale`"),
        (vec![("coil", Number(0.0)), ("decimals", Number(2.0))], "no `decimals`"),
        (vec![at(), ("scale", Number(0.0))], "scale of 0"),
        (vec![at(), ("min", Number(2.0)), ("max", Number(1.0))], "swap"),
        (vec![at(), ("sentinels", Numbers(vec![70_000.0]))], "never occurs in a u16"),
        (vec![("input", Number(70_000.0))], "not in range"),
    ] {
        let fault = fault(&keys);
        assert!(fault.contains(words), "{keys:?}: {fault}");
    }
}

#[test]
fn sentinels_may_be_bit_patterns_as_manuals_write_them() {
    let keys =
        [("input", Number(0.0)), ("type", Text("i16")), ("sentinels", Numbers(vec![32_768.0, 32_767.0]))];
    let (_, scaling) = point(&keys, &Defaults::default()).0.unwrap();
    assert_eq!(scaling.sentinels, [-32_768.0, 32_767.0]);
}

#[test]
fn sentinels_of_64_bits_are_met_although_they_are_typed_as_floats() {
    let scaling = |kind, sentinel| {
        let keys = [("input", Number(0.0)), ("type", Text(kind)), ("sentinels", Numbers(vec![sentinel]))];
        point(&keys, &Defaults::default()).0.unwrap().1
    };
    let bad = |sample: Sample| sample == Sample::bad(Cause::Sentinel);
    let all_ones = scaling("u64", 18_446_744_073_709_551_615.0);
    assert!(bad(all_ones.apply(Value::Uint(u64::MAX))));
    assert!(
        !bad(all_ones.apply(Value::Uint(u64::MAX - 2_048))) && !bad(all_ones.apply(Value::Uint(1 << 63)))
    );
    // 0x8000000000000000, as a manual has it and as the number that it is.
    for sentinel in [9_223_372_036_854_775_808.0, -9_223_372_036_854_775_808.0] {
        let least = scaling("i64", sentinel);
        assert!(bad(least.apply(Value::Int(i64::MIN))) && !bad(least.apply(Value::Int(i64::MIN + 2_048))));
    }
    assert!(bad(scaling("i64", i64::MAX as f64).apply(Value::Int(i64::MAX))));
}
