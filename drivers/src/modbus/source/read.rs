//! A value's place, type and order as they are typed: names, aliases, a manual's numbers.

use super::super::settings::REGISTERS_MAX;
use super::{Defaults, NUMBERS, Order, Source, Table, Type};
use crate::Section;

const TYPE_NAMES: [&str; 10] = ["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "string", "bool"];

/// What manuals and other programs call them, in lower case without spaces and underscores.
const ALIASES: [(&str, &str); 38] = [
    ("float32", "f32"),
    ("float", "f32"),
    ("real", "f32"),
    ("real32", "f32"),
    ("single", "f32"),
    ("ieee754", "f32"),
    ("float64", "f64"),
    ("double", "f64"),
    ("lreal", "f64"),
    ("real64", "f64"),
    ("int16", "i16"),
    ("short", "i16"),
    ("int", "i16"),
    ("s16", "i16"),
    ("sint16", "i16"),
    ("signed", "i16"),
    ("uint16", "u16"),
    ("word", "u16"),
    ("uint", "u16"),
    ("ushort", "u16"),
    ("unsigned", "u16"),
    ("int32", "i32"),
    ("dint", "i32"),
    ("long", "i32"),
    ("s32", "i32"),
    ("sint32", "i32"),
    ("uint32", "u32"),
    ("dword", "u32"),
    ("udint", "u32"),
    ("ulong", "u32"),
    ("int64", "i64"),
    ("lint", "i64"),
    ("uint64", "u64"),
    ("ulint", "u64"),
    ("qword", "u64"),
    ("text", "string"),
    ("ascii", "string"),
    ("boolean", "bool"),
];

const ORDERS: [&str; 10] =
    ["ABCD", "CDAB", "BADC", "DCBA", "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA", "AB", "BA"];

impl Order {
    fn from_index(index: usize) -> Self {
        match index {
            9 => Self { swap_words: false, swap_bytes: true },
            8 => Self::BIG,
            _ => Self::ALL.get(index % 4).copied().unwrap_or_default(),
        }
    }
}

impl Defaults {
    /// Reads `type` and `order`.
    pub fn from_section(section: &mut dyn Section) -> Self {
        let kind = kind_named(section).filter(|kind| match kind {
            Named::Number(_) => true,
            Named::Text | Named::Bool => {
                section.fault(
                    "type",
                    "the default type must be a number".into(),
                    "write the type at the points that are strings or bits".into(),
                );
                false
            }
        });
        let order = section.choice("order", &ORDERS).map(Order::from_index);
        Self {
            kind: kind.and_then(|kind| if let Named::Number(kind) = kind { Some(kind) } else { None }),
            order,
        }
    }
}

/// A type as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Named {
    Number(Type),
    Text,
    Bool,
}

fn kind_named(section: &mut dyn Section) -> Option<Named> {
    let typed = section.text("type")?;
    if let Some((_, kind)) = NUMBERS.iter().find(|(name, _)| *name == typed) {
        return Some(Named::Number(*kind));
    }
    match typed.as_str() {
        "string" => return Some(Named::Text),
        "bool" => return Some(Named::Bool),
        _ => {}
    }
    let plain: String =
        typed.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).take(32).collect();
    let meant = ALIASES
        .iter()
        .find(|(alias, _)| *alias == plain)
        .map(|(_, name)| *name)
        .or_else(|| TYPE_NAMES.into_iter().find(|name| *name == plain));
    if let Some(name) = meant {
        let shown: String = typed.chars().take(32).collect();
        section.fault(
            "type",
            format!("`{}` is not a type", shown.escape_debug()),
            format!("did you mean `{name}`?"),
        );
    } else {
        // Not one of them: this reports the fault, with the nearest of them as a hint.
        let _always_a_fault = section.choice("type", &TYPE_NAMES);
    }
    None
}

/// Translates a manual's number: `30073` is input register 72. Five digits, or six from 100 001 on.
fn manual_number(number: i64) -> Option<(Table, u16)> {
    let (table, first) = match number {
        1..=9_999 => (Table::Coil, 1),
        10_001..=19_999 => (Table::Discrete, 10_001),
        30_001..=39_999 => (Table::Input, 30_001),
        40_001..=49_999 => (Table::Holding, 40_001),
        100_001..=165_536 => (Table::Discrete, 100_001),
        300_001..=365_536 => (Table::Input, 300_001),
        400_001..=465_536 => (Table::Holding, 400_001),
        _ => return None,
    };
    u16::try_from(number - first).ok().map(|address| (table, address))
}

/// Reads the one key that says where: a table with a 0-based address, or `ref` with the manual's number.
fn place(section: &mut dyn Section) -> Option<(Table, u16)> {
    let mut found = Vec::new();
    for (key, table) in [
        ("input", Table::Input),
        ("holding", Table::Holding),
        ("coil", Table::Coil),
        ("discrete", Table::Discrete),
    ] {
        let address = section.integer(key, 0..=65_535).and_then(|address| u16::try_from(address).ok());
        if section.has(key) {
            found.push((key, address.map(|address| (table, address))));
        }
    }
    let number = section.integer("ref", 1..=465_536);
    if section.has("ref") {
        let place = number.and_then(manual_number);
        if let (Some(number), None) = (number, place) {
            section.fault(
                "ref",
                format!("{number} is not a register's number in a manual"),
                "manuals count coils from 1, discrete inputs from 10001, input registers from 30001 and holding \
                 registers from 40001; for an address that counts from 0 write `input = 0` or `holding = 0`"
                    .into(),
            );
        }
        found.push(("ref", place));
    }
    match found.as_slice() {
        [(_, place)] => *place,
        [] => {
            section.fault(
                "input",
                "the point says nowhere where it stands".into(),
                "add one of `input`, `holding`, `coil`, `discrete` (address from 0) or `ref` (the manual's number)"
                    .into(),
            );
            None
        }
        [(first, _), (second, _), ..] => {
            section.fault(
                second,
                format!("`{first}` and `{second}` both say where the point stands"),
                "keep one of them".into(),
            );
            None
        }
    }
}

impl Source {
    /// Reads `input | holding | coil | discrete | ref`, `type`, `bit`, `length`, `order`.
    pub fn from_section(section: &mut dyn Section, defaults: Defaults) -> Option<Self> {
        let place = place(section);
        let named = kind_named(section);
        let type_is_wrong = named.is_none() && section.has("type");
        let bit = section.integer("bit", 0..=15).and_then(|bit| u8::try_from(bit).ok());
        let length =
            section.integer("length", 1..=i64::from(REGISTERS_MAX)).and_then(|n| u16::try_from(n).ok());
        let order_named = section.choice("order", &ORDERS);
        let (table, address) = place?;
        if type_is_wrong
            || (bit.is_none() && section.has("bit"))
            || (length.is_none() && section.has("length"))
        {
            return None;
        }
        let kind = resolve(section, table, named, (bit, length), defaults)?;
        if length.is_some() && !matches!(kind, Type::Text(_)) {
            section.fault(
                "length",
                "only a string has a length".into(),
                "remove it, or add `type = \"string\"`".into(),
            );
        }
        let order = order_named.filter(|index| order_fits(section, kind, *index)).map(Order::from_index);
        let order = match (kind.items(), kind) {
            (2.., Type::Text(_)) | (1, _) => order.unwrap_or_default(),
            _ => order.or(defaults.order).unwrap_or_default(),
        };
        Some(Self { table, address, kind, order })
    }
}

/// Whether an order is one of a value of this type; says so if not. Four letters are a pattern for eight bytes, too.
fn order_fits(section: &mut dyn Section, kind: Type, index: usize) -> bool {
    let Some(name) = ORDERS.get(index) else { return false };
    let letters = name.len();
    let (fits, right) = match (kind, kind.items()) {
        (Type::Bool | Type::Bit(_), _) => (false, None),
        (Type::Text(_), _) | (_, 1) => (letters == 2, Some("`AB` or `BA`")),
        (_, 2) => (letters == 4, Some("`ABCD`, `CDAB`, `BADC` or `DCBA`")),
        _ => (letters >= 4, Some("`ABCDEFGH`, `GHEFCDAB`, `BADCFEHG` or `HGFEDCBA`")),
    };
    if !fits {
        let (what, remedy) = match right {
            None => (format!("a {} has no order", kind.name()), "remove it".to_owned()),
            Some(right) => (
                format!("`{name}` is not an order of a {}", kind.name()),
                format!("write {right}, or remove it"),
            ),
        };
        section.fault("order", what, remedy);
    }
    fits
}

/// The type from what was typed, the table, and the defaults.
fn resolve(
    section: &mut dyn Section,
    table: Table,
    named: Option<Named>,
    (bit, length): (Option<u8>, Option<u16>),
    defaults: Defaults,
) -> Option<Type> {
    if table.is_bits() {
        if bit.is_some() {
            section.fault("bit", format!("{} have no bits", table.words()), "remove it".into());
            return None;
        }
        if !matches!(named, None | Some(Named::Bool)) {
            let what = format!("{} are single bits", table.words());
            section.fault("type", what, "remove the type, or use `input` or `holding`".into());
            return None;
        }
        return Some(Type::Bool);
    }
    match (named, bit) {
        (None | Some(Named::Bool), Some(bit)) => Some(Type::Bit(bit)),
        (Some(Named::Number(_) | Named::Text), Some(_)) => {
            section.fault("bit", "one bit of a register is a bool".into(), "remove `type` or `bit`".into());
            None
        }
        (Some(Named::Bool), None) => {
            section.fault(
                "type",
                "a register has 16 bits".into(),
                "say which one: `bit = 0` to `bit = 15`".into(),
            );
            None
        }
        (Some(Named::Text), None) => {
            if length.is_none() {
                let remedy = "add `length`, in registers of two characters each".into();
                section.fault("length", "a string needs a length".into(), remedy);
            }
            length.map(Type::Text)
        }
        (Some(Named::Number(kind)), None) => Some(kind),
        (None, None) => Some(defaults.kind.unwrap_or(Type::U16)),
    }
}
