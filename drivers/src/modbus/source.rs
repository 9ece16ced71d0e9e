//! Where in a Modbus device a value stands, and how its registers become a number: table, address, type, order.
//!
//! Addresses are always the 0-based address of the protocol. A manual's number (`ref = 40001`) is translated
//! here, and only here. Decoding itself is [`decode`](super::decode)'s.

use std::fmt;

use tokio_modbus::FunctionCode;

use super::settings::REGISTERS_MAX;
use crate::Section;
use crate::point::Scaling;
use crate::value::ValueKind;

/// One of the four tables of a device (Modbus Application Protocol V1.1b3, 4.3), by its read function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Function 1; the device's outputs, one bit each.
    Coil,
    /// Function 2; the device's inputs, one bit each.
    Discrete,
    /// Function 3; registers that can be written.
    Holding,
    /// Function 4; registers that can only be read.
    Input,
}

impl Table {
    /// The function code that reads it.
    pub fn function(self) -> u8 {
        match self {
            Self::Coil => FunctionCode::ReadCoils,
            Self::Discrete => FunctionCode::ReadDiscreteInputs,
            Self::Holding => FunctionCode::ReadHoldingRegisters,
            Self::Input => FunctionCode::ReadInputRegisters,
        }
        .value()
    }

    /// Whether it holds single bits.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// What its items are called, in the plural.
    pub fn words(self) -> &'static str {
        match self {
            Self::Coil => "coils",
            Self::Discrete => "discrete inputs",
            Self::Holding => "holding registers",
            Self::Input => "input registers",
        }
    }
}

/// How the items of a table become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the types
pub enum Type {
    /// A coil or discrete input.
    Bool,
    /// One bit of a register, 0 (least significant) to 15.
    Bit(u8),
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// Two bytes a register, this many registers, 1 to 125.
    Text(u16),
}

/// The names of the types in the configuration, `string` apart.
const NUMBERS: [(&str, Type); 8] = [
    ("u16", Type::U16),
    ("i16", Type::I16),
    ("u32", Type::U32),
    ("i32", Type::I32),
    ("u64", Type::U64),
    ("i64", Type::I64),
    ("f32", Type::F32),
    ("f64", Type::F64),
];

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

/// Order of bytes and words. `A` is the most significant byte; a device sends them in the order written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Order {
    /// The least significant word comes first.
    pub swap_words: bool,
    /// The two bytes of each word are swapped.
    pub swap_bytes: bool,
}

const ORDERS: [&str; 10] =
    ["ABCD", "CDAB", "BADC", "DCBA", "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA", "AB", "BA"];

impl Order {
    /// As the protocol has it: `ABCD`.
    pub const BIG: Self = Self { swap_words: false, swap_bytes: false };

    /// All four.
    pub const ALL: [Self; 4] = [
        Self::BIG,
        Self { swap_words: true, swap_bytes: false },
        Self { swap_words: false, swap_bytes: true },
        Self { swap_words: true, swap_bytes: true },
    ];

    fn from_index(index: usize) -> Self {
        match index {
            9 => Self { swap_words: false, swap_bytes: true },
            8 => Self::BIG,
            _ => Self::ALL.get(index % 4).copied().unwrap_or_default(),
        }
    }

    /// Its name for a value of `registers` registers.
    pub fn words(self, registers: u16) -> &'static str {
        let names = match registers {
            0 | 1 => ["AB", "AB", "BA", "BA"],
            2 => ["ABCD", "CDAB", "BADC", "DCBA"],
            _ => ["ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"],
        };
        let [big, words, bytes, both] = names;
        match (self.swap_words, self.swap_bytes) {
            (false, false) => big,
            (true, false) => words,
            (false, true) => bytes,
            (true, true) => both,
        }
    }
}

/// What a profile's `defaults` table says for its Modbus points. The order is about values of two and four
/// registers: devices that swap words still send a single register as the protocol has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Defaults {
    /// Type of a point that names none; never `Bool`, `Bit` or `Text`.
    pub kind: Option<Type>,
    /// Order of a point that names none.
    pub order: Option<Order>,
}

/// Where in a Modbus device a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Which table.
    pub table: Table,
    /// 0-based protocol address of the first register or of the bit.
    pub address: u16,
    /// What stands there.
    pub kind: Type,
    /// In which order its bytes come.
    pub order: Order,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = self.table.words().trim_end_matches('s');
        write!(f, "{one} {}", self.address)?;
        match self.kind {
            Type::Bit(bit) => write!(f, " bit {bit}"),
            Type::Bool => Ok(()),
            Type::Text(registers) => write!(f, " string of {registers} registers"),
            kind => write!(f, " {} {}", kind.name(), self.order.words(self.registers())),
        }
    }
}

impl Type {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool | Self::Bit(_) => "bool",
            Self::Text(_) => "string",
            number => NUMBERS.iter().find(|(_, kind)| *kind == number).map_or("u16", |(name, _)| name),
        }
    }

    /// How many registers (for `Bool`: coils) it takes.
    pub fn items(self) -> u16 {
        match self {
            Self::Bool | Self::Bit(_) | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
            Self::Text(registers) => registers,
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

    /// The variant of the raw value.
    pub fn kind(&self) -> ValueKind {
        match self.kind {
            Type::Bool | Type::Bit(_) => ValueKind::Bool,
            Type::U16 | Type::U32 | Type::U64 => ValueKind::Uint,
            Type::I16 | Type::I32 | Type::I64 => ValueKind::Int,
            Type::F32 => ValueKind::F32,
            Type::F64 => ValueKind::F64,
            Type::Text(_) => ValueKind::Text,
        }
    }

    /// How many registers or coils it takes, from [`address`](Self::address) on.
    pub fn registers(&self) -> u16 {
        self.kind.items()
    }

    /// The same registers read as every number type in every order: for the day when the manual is wrong.
    pub fn every_type(&self) -> Vec<Self> {
        if self.table.is_bits() {
            return vec![*self];
        }
        let mut all = Vec::new();
        for (_, kind) in NUMBERS {
            let orders = if kind.items() == 1 {
                &[Order::BIG, Order { swap_words: false, swap_bytes: true }][..]
            } else {
                &Order::ALL[..]
            };
            all.extend(orders.iter().map(|&order| Self { kind, order, ..*self }));
        }
        all
    }

    /// Brings what the configuration says about scaling into the terms of this type, and reports what cannot be.
    pub fn checked(&self, mut scaling: Scaling, section: &mut dyn Section) -> Scaling {
        let (low, high): (f64, f64) = match self.kind {
            Type::Bool | Type::Bit(_) | Type::Text(_) => {
                for key in ["scale", "offset", "sentinels", "min", "max"] {
                    if section.has(key) {
                        let what = format!("a {} has no `{key}`", self.kind.name());
                        section.fault(key, what, "remove it".into());
                    }
                }
                return Scaling::default();
            }
            Type::U16 => (0.0, f64::from(u16::MAX)),
            Type::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            Type::U32 => (0.0, f64::from(u32::MAX)),
            Type::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Type::U64 => (0.0, u64::MAX as f64),
            Type::I64 => (i64::MIN as f64, i64::MAX as f64),
            Type::F32 | Type::F64 => return scaling,
        };
        let given_here = section.has("sentinels");
        let width = high - low + 1.0;
        scaling.sentinels.retain_mut(|sentinel| {
            // Manuals write the bit pattern: 0x8000 of an i16 is -32768.
            if low < 0.0 && *sentinel > high && *sentinel < width {
                *sentinel -= width;
            }
            let possible = (low..=high).contains(sentinel) && sentinel.fract() == 0.0;
            if !possible && given_here {
                section.fault(
                    "sentinels",
                    format!("{sentinel} never occurs in a {}", self.kind.name()),
                    "write the raw value, before scale and offset".into(),
                );
            }
            possible
        });
        scaling
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
