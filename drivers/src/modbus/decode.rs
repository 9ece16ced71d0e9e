//! From the data bytes of an answer to values: bits, numbers in every order, text.
//!
//! Pure. The bytes' number has been checked against the request before; a value that would reach past them is
//! `None` all the same, never a panic.

use super::source::{Source, Type};
use crate::value::Value;

/// The raw value of `source` in the data of an answer that begins at address `first`: two bytes a register, the
/// high one first, or eight coils a byte, the first in its lowest bit (Modbus Application Protocol V1.1b3, 6.1 and 6.3).
pub(super) fn value(source: &Source, data: &[u8], first: u16) -> Option<Value> {
    let skip = usize::from(source.address.checked_sub(first)?);
    if source.table.is_bits() {
        let byte = data.get(skip / 8)?;
        return Some(Value::Bool(byte >> (skip % 8) & 1 == 1));
    }
    let length = 2 * usize::from(source.registers());
    let registers = data.get(2 * skip..)?.get(..length)?;
    if matches!(source.kind, Type::Text(_)) {
        let mut text = [0; 250];
        let text = text.get_mut(..length)?;
        text.copy_from_slice(registers);
        if source.order.swap_bytes {
            text.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        }
        return Some(Value::text(text));
    }
    let bits = match *registers {
        [high, low] if !source.order.swap_bytes => u64::from(u16::from_be_bytes([high, low])),
        _ => in_order(source, registers),
    };
    Some(number(source.kind, bits))
}

/// The registers as one big-endian number, right-aligned.
fn in_order(source: &Source, registers: &[u8]) -> u64 {
    let word = |pair: &[u8]| match *pair {
        [high, low] if source.order.swap_bytes => u64::from(u16::from_be_bytes([low, high])),
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    let words = registers.chunks_exact(2);
    if source.order.swap_words {
        words.rev().fold(0, |bits, pair| bits << 16 | word(pair))
    } else {
        words.fold(0, |bits, pair| bits << 16 | word(pair))
    }
}

/// The low bits of `bits` as what they mean.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // cutting and reinterpreting is the job
fn number(kind: Type, bits: u64) -> Value {
    match kind {
        Type::Bool => Value::Bool(bits & 1 == 1),
        Type::Bit(bit) => Value::Bool(bits >> (bit & 15) & 1 == 1),
        Type::U16 | Type::U32 | Type::U64 | Type::Text(_) => Value::Uint(bits),
        Type::I16 => Value::Int(i64::from(bits as u16 as i16)),
        Type::I32 => Value::Int(i64::from(bits as u32 as i32)),
        Type::I64 => Value::Int(bits as i64),
        Type::F32 => Value::F32(f32::from_bits(bits as u32)),
        Type::F64 => Value::F64(f64::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::source::{Order, Table};
    use super::*;

    fn source(kind: Type, order: Order) -> Source {
        Source { table: Table::Holding, address: 10, kind, order }
    }

    /// The order as a picture: which byte of the big-endian number stands at each place on the wire.
    fn picture(name: &str) -> Vec<usize> {
        name.bytes().map(|letter| usize::from(letter - b'A')).collect()
    }

    fn plain(kind: Type, big_endian: &[u8]) -> Value {
        match (kind, big_endian) {
            (Type::U16, &[a, b]) => Value::Uint(u64::from(u16::from_be_bytes([a, b]))),
            (Type::I16, &[a, b]) => Value::Int(i64::from(i16::from_be_bytes([a, b]))),
            (Type::U32, &[a, b, c, d]) => Value::Uint(u64::from(u32::from_be_bytes([a, b, c, d]))),
            (Type::I32, &[a, b, c, d]) => Value::Int(i64::from(i32::from_be_bytes([a, b, c, d]))),
            (Type::F32, &[a, b, c, d]) => Value::F32(f32::from_be_bytes([a, b, c, d])),
            (Type::U64, bytes) => Value::Uint(u64::from_be_bytes(bytes.try_into().unwrap())),
            (Type::I64, bytes) => Value::Int(i64::from_be_bytes(bytes.try_into().unwrap())),
            (Type::F64, bytes) => Value::F64(f64::from_be_bytes(bytes.try_into().unwrap())),
            other => panic!("{other:?}"),
        }
    }

    /// Equal, and equal as bits where both are not a number.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
            (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        }
    }

    proptest! {
        #[test]
        fn every_type_in_every_order_decodes_as_its_picture_says(
            number in any::<[u8; 8]>(), before in 0_u16..8, after in 0_usize..3,
        ) {
            for kind in [Type::U16, Type::I16, Type::U32, Type::I32, Type::U64, Type::I64, Type::F32, Type::F64] {
                for order in Order::ALL {
                    let length = usize::from(kind.items()) * 2;
                    let number = &number[..length];
                    let mut data = vec![0xee; usize::from(before) * 2];
                    data.extend(picture(order.words(kind.items())).iter().map(|&place| number[place]));
                    data.extend(vec![0xee; after * 2]);
                    let got = value(&source(kind, order), &data, 10 - before).unwrap();
                    prop_assert!(same(&got, &plain(kind, number)), "{:?} {:?}: {:?}", kind, order, got);
                }
            }
        }

        #[test]
        fn no_bytes_and_no_address_make_it_panic(
            data in prop::collection::vec(any::<u8>(), 0..40), first in 0_u16..40, length in 1_u16..126, bits: bool,
        ) {
            for kind in [Type::U16, Type::F64, Type::Text(length), Type::Bit(15), Type::Bool] {
                let table = if bits { Table::Coil } else { Table::Input };
                let source = Source { table, ..source(kind, Order::BIG) };
                if let Some(value) = value(&source, &data, first) {
                    prop_assert!(bits || usize::from(10 - first + kind.items()) * 2 <= data.len(), "{:?}", value);
                }
            }
        }
    }

    #[test]
    fn bits_are_counted_from_the_low_end() {
        let data = [0x80, 0x01]; // register 10: bits 15 and 0
        let bit = |bit| value(&source(Type::Bit(bit), Order::BIG), &data, 10);
        assert_eq!([bit(0), bit(1), bit(15)], [true, false, true].map(|b| Some(Value::Bool(b))));
        let coil = |address| {
            value(
                &Source { table: Table::Coil, address, kind: Type::Bool, order: Order::BIG },
                &[0x01, 0x02],
                8,
            )
        };
        assert_eq!([coil(8), coil(9), coil(17)], [true, false, true].map(|b| Some(Value::Bool(b))));
        assert_eq!(coil(24), None);
    }

    #[test]
    fn text_is_two_bytes_a_register_in_either_order() {
        let text = |order| value(&source(Type::Text(3), order), b"EM24\0\0", 10);
        assert_eq!(text(Order::BIG), Some(Value::Text("EM24".into())));
        let swapped = Order { swap_words: false, swap_bytes: true };
        assert_eq!(text(swapped), Some(Value::Text("ME42".into())));
        let short = value(&source(Type::Text(1), Order::BIG), b"OK", 10);
        assert_eq!(short, Some(Value::Text("OK".into())), "one register is text too");
    }
}
