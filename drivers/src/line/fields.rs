//! From a believed line to the value of a point.
//!
//! Fields are counted from 0: in NMEA sentences field 0 is the sentence's name, so that a point's `field` is the
//! number in the instrument's manual. Bytes that are not UTF-8 are read as Latin-1 (the degree sign of older
//! instruments).

use std::borrow::Cow;

use super::number::{self, is_blank};
use super::settings::{Device, Place, Reads, Source};
use crate::value::{Cause, Value};

/// Longest text value, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// What the line says for `source`; the line has no checksum and no terminator any more.
pub fn extract(line: &[u8], device: &Device, source: &Source) -> Result<Value, Cause> {
    let line = to_text(line);
    let line = line.strip_prefix(['$', '!']).unwrap_or(&line);
    let fields = split(line, &device.separator);
    if let Some((field, accepted)) = &source.valid {
        let state = fields.get(usize::from(*field)).ok_or(Cause::Unreadable)?.trim_matches(is_blank);
        if !accepted.iter().any(|word| word == state) {
            return Err(Cause::Sentinel);
        }
    }
    let text = match &source.place {
        Place::Field(field) => fields.get(usize::from(*field)).map(Cow::as_ref),
        Place::Key(key) => after_key(line, key, &device.separator),
    };
    let text = text.ok_or(Cause::Unreadable)?;
    match source.reads {
        Reads::Text => Ok(Value::Text(clean(text).into())),
        Reads::Integer => {
            number::integer(text, device.decimal_comma).map(Value::Int).ok_or(Cause::Unreadable)
        }
        Reads::Number => match number::number(text, device.decimal_comma) {
            Some(value) if value.is_finite() => Ok(Value::F64(value)),
            Some(_) => Err(Cause::Overflow),
            None => Err(Cause::Unreadable),
        },
    }
}

/// Whether the line is the one that `sentence` selects: it begins with it, `$` and `!` aside.
pub(super) fn begins_with(line: &[u8], sentence: &str) -> bool {
    let bare = |bytes: &'_ [u8]| match bytes {
        [b'$' | b'!', ..] => 1,
        _ => 0,
    };
    let line = line.get(bare(line)..).unwrap_or_default();
    let sentence = sentence.as_bytes();
    line.starts_with(sentence.get(bare(sentence)..).unwrap_or_default())
}

/// Whether one line may begin with one of `some` and with one of `others`; `None` is any line.
pub(super) fn begin_alike(some: &[Option<&str>], others: &[Option<&str>]) -> bool {
    let alike = |one: Option<&str>, other: Option<&str>| match (one, other) {
        (Some(one), Some(other)) => begins_with(one.as_bytes(), other) || begins_with(other.as_bytes(), one),
        _ => true,
    };
    some.iter().any(|one| others.iter().any(|other| alike(*one, *other)))
}

fn to_text(line: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(line.iter().copied().map(char::from).collect()),
    }
}

/// A separator of blanks means any run of them; there, a sign that stands alone belongs to the number after it,
/// or `-   12.3` would read as 12.3.
fn split<'a>(line: &'a str, separator: &str) -> Vec<Cow<'a, str>> {
    if !separator.trim_matches(is_blank).is_empty() {
        return line.split(separator).map(Cow::Borrowed).collect();
    }
    let mut fields: Vec<Cow<'a, str>> = Vec::new();
    let mut sign = None;
    for word in line.split(is_blank).filter(|word| !word.is_empty()) {
        match (sign.take(), word) {
            (None, "+" | "-") => sign = Some(word),
            (None, word) => fields.push(Cow::Borrowed(word)),
            (Some(sign), word) => fields.push(Cow::Owned(format!("{sign}{word}"))),
        }
    }
    fields.extend(sign.map(Cow::Borrowed));
    fields
}

/// The text after the first `key` that stands as a word of its own, `=` or `:` skipped, up to the separator.
fn after_key<'a>(line: &'a str, key: &str, separator: &str) -> Option<&'a str> {
    let blanks = separator.trim_matches(is_blank).is_empty();
    line.match_indices(key).find_map(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let rest = rest.strip_prefix(key)?;
        // `T` is not found inside `RT=` or `Tmin=`, unless the key itself ends in a sign such as `T=`.
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let open =
            key.chars().next_back().is_some_and(word) && rest.chars().next().is_some_and(char::is_alphabetic);
        if before.chars().next_back().is_some_and(word) || open {
            return None;
        }
        let rest = rest.trim_start_matches(is_blank);
        let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
        if !blanks {
            return rest.split(separator).next();
        }
        let signed = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let number = signed.trim_start_matches(is_blank);
        let end = number.find(is_blank).unwrap_or(number.len());
        rest.get(..rest.len() - number.len() + end)
    })
}

/// Text without blanks round it, control characters replaced, at most [`TEXT_BYTES_MAX`] bytes.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for c in text.trim_matches(is_blank).chars() {
        let c = if c.is_control() { '\u{fffd}' } else { c };
        if clean.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(line: &str, separator: &str, place: Place) -> Result<Value, Cause> {
        let device = Device { separator: separator.into(), ..Device::default() };
        let source = Source { place, ..Source::field(0) };
        extract(line.as_bytes(), &device, &source)
    }

    #[test]
    fn a_field_has_the_number_of_the_instruments_manual() {
        let line = "WIMWV,214.8,R,0.1,K,A";
        assert_eq!(number(line, ",", Place::Field(1)), Ok(Value::F64(214.8)));
        assert_eq!(number(line, ",", Place::Field(3)), Ok(Value::F64(0.1)));
        assert_eq!(number(line, ",", Place::Field(9)), Err(Cause::Unreadable), "past the end");
        assert_eq!(number("WIMWV,,R", ",", Place::Field(1)), Err(Cause::Unreadable), "empty field");
        assert_eq!(number("ST,GS,+  12.34 kg", ",", Place::Field(2)), Ok(Value::F64(12.34)));
        assert_eq!(number("12.5", ",", Place::Field(0)), Ok(Value::F64(12.5)));
    }

    #[test]
    fn a_sign_that_stands_alone_is_not_lost_between_blanks() {
        assert_eq!(number("S S   -   12.34 g", " ", Place::Field(2)), Ok(Value::F64(-12.34)));
        assert_eq!(number("T= - 2.5 'C RH= 40 %", " ", Place::Key("T".into())), Ok(Value::F64(-2.5)));
        assert_eq!(number("12.34 -", " ", Place::Field(1)), Err(Cause::Unreadable));
    }

    #[test]
    fn a_key_is_a_word_of_its_own() {
        let line = "0R1,Dn=236D,Dm=283D,Sn=0.0M,T=-4.5C";
        assert_eq!(number(line, ",", Place::Key("Dm".into())), Ok(Value::F64(283.0)));
        assert_eq!(number(line, ",", Place::Key("T".into())), Ok(Value::F64(-4.5)));
        assert_eq!(number(line, ",", Place::Key("n".into())), Err(Cause::Unreadable), "inside another word");
        assert_eq!(number("RH= 33.0 %RH T= 22.1 'C", " ", Place::Key("T".into())), Ok(Value::F64(22.1)));
        assert_eq!(number("Tmin=1,T21.5", ",", Place::Key("T".into())), Ok(Value::F64(21.5)));
        assert_eq!(number("T=", ",", Place::Key("T".into())), Err(Cause::Unreadable));
    }

    #[test]
    fn a_value_that_the_instrument_calls_invalid_is_no_value() {
        let device = Device::default();
        let source = Source { valid: Some((5, vec!["A".into()])), ..Source::field(1) };
        assert_eq!(extract(b"WIMWV,214.8,R,0.1,K,A", &device, &source), Ok(Value::F64(214.8)));
        assert_eq!(extract(b"WIMWV,214.8,R,0.1,K,V", &device, &source), Err(Cause::Sentinel));
        assert_eq!(extract(b"WIMWV,214.8", &device, &source), Err(Cause::Unreadable));
    }

    #[test]
    fn text_is_clean_and_latin_1_is_understood() {
        let device = Device::default();
        let source = Source { reads: Reads::Text, ..Source::field(1) };
        let text = |line: &[u8]| extract(line, &device, &source);
        assert_eq!(text(b"ID, SN-12\x07 "), Ok(Value::Text("SN-12\u{fffd}".into())));
        assert_eq!(text(b"ID,\xb0C"), Ok(Value::Text("°C".into())));
        let long = [b"ID,".as_slice(), "é".repeat(200).as_bytes()].concat();
        assert!(matches!(text(&long), Ok(Value::Text(text)) if text.len() == 256));
        assert_eq!(extract(b"23.5\xb0C", &device, &Source::field(0)), Ok(Value::F64(23.5)));
    }

    #[test]
    fn a_sentence_is_selected_with_or_without_its_dollar() {
        assert!(begins_with(b"$WIMWV,1", "WIMWV") && begins_with(b"WIMWV,1", "$WIMWV"));
        assert!(!begins_with(b"$WIMDA,1", "WIMWV") && !begins_with(b"", "WIMWV"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_finite_number_or_a_cause(
            line in proptest::collection::vec(any::<u8>(), 0..200),
            separator in prop_oneof![Just(","), Just(" "), Just("::")],
            field: u8,
            key in "[A-Za-z=°]{1,3}",
        ) {
            let device = Device { separator: separator.into(), ..Device::default() };
            for place in [Place::Field(field), Place::Field(field % 4), Place::Key(key)] {
                for reads in [Reads::Number, Reads::Integer, Reads::Text] {
                    let source = Source { place: place.clone(), reads, ..Source::field(0) };
                    match extract(&line, &device, &source) {
                        Ok(Value::F64(value)) => prop_assert!(value.is_finite()),
                        Ok(Value::Text(text)) => {
                            prop_assert!(text.len() <= 256 && !text.contains(char::is_control));
                        }
                        Ok(value) => prop_assert!(matches!(value, Value::Int(_))),
                        Err(cause) => {
                            prop_assert!(matches!(cause, Cause::Unreadable | Cause::Overflow));
                        }
                    }
                }
            }
        }
    }
}
