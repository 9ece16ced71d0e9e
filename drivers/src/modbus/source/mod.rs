//! Where in a Modbus device a value stands, and how its registers become a number: table, address, type, order.
//!
//! Addresses are always the 0-based address of the protocol. A manual's number (`ref = 40001`) is translated
//! here, and only here. Decoding itself is [`decode`](super::decode)'s.

mod read;

use std::fmt;

use tokio_modbus::FunctionCode;

use crate::Section;
use crate::point::Scaling;
use crate::value::{Value, ValueKind};

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

/// Order of bytes and words. `A` is the most significant byte; a device sends them in the order written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Order {
    /// The least significant word comes first.
    pub swap_words: bool,
    /// The two bytes of each word are swapped.
    pub swap_bytes: bool,
}

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

impl Source {
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
                for key in ["scale", "offset", "decimals", "sentinels", "min", "max"] {
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
        // As a float 0x8000000000000000 and 0x7fffffffffffffff are one number. Both are no readings.
        if self.kind == Type::I64 && scaling.sentinels.contains(&high) {
            scaling.sentinels.push(low);
        }
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
        self.reaches((low, high), &scaling, section);
        scaling
    }

    /// A limit that no raw value gets past the right way would make every value uncertain.
    fn reaches(&self, (low, high): (f64, f64), scaling: &Scaling, section: &mut dyn Section) {
        // As a reading is scaled, rounding and all.
        let plain = Scaling { min: None, max: None, sentinels: Vec::new(), ..scaling.clone() };
        let scaled = |raw: f64| plain.apply(Value::F64(raw)).value.and_then(|value| value.as_f64());
        let (Some(one), Some(other)) = (scaled(low), scaled(high)) else { return };
        let (low, high) = (one.min(other), one.max(other));
        let mut fault = |key: &'static str, limit: f64| {
            if section.has(key) {
                let shown = |end: f64| (end * 1e6).round() / 1e6;
                let (low, high) = (shown(low), shown(high));
                let what = format!("a {} goes from {low} to {high} here, never to {limit}", self.kind.name());
                section.fault(key, what, "compare type, scale and offset with the manual".into());
            }
        };
        if let Some(min) = scaling.min.filter(|min| *min > high) {
            fault("min", min);
        }
        if let Some(max) = scaling.max.filter(|max| *max < low) {
            fault("max", max);
        }
    }
}
