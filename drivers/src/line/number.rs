//! Numbers as scales and weather stations send them.
//!
//! ```text
//! text   = blanks [sign blanks] digits [point digits] [exponent] [blanks unit] blanks
//! sign   = "+" | "-"            a sign may stand apart from its number: "+  12.34 kg"
//! point  = "." or, if the device says `decimal_comma`, ","    never both: thousands separators are refused
//! unit   = a letter, "%", "'", "°" or any non-ASCII character, then letters, / ^ % . - ' and
//!                               single digits 2 or 3 (m2, m3/h, CO2), without blanks
//! ```
//!
//! At least one digit must stand before or after the point, at most 32 characters in all. Anything else is no
//! number: `1,234.5`, `12.3.4`, `12 34`, `12:30`, `------`, `OL`, `nan`, the empty field. To guess is to be wrong.

/// Longest number, without blanks and unit.
const DIGITS_MAX: usize = 32;

/// The number as plain text for the parsers of the standard library, without sign blanks, unit and comma.
fn plain(text: &str, decimal_comma: bool) -> Option<String> {
    let point = if decimal_comma { ',' } else { '.' };
    let text = text.trim_matches(is_blank);
    let mut plain = String::new();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('-') {
        plain.push('-');
        rest = after.trim_start_matches(is_blank);
    } else if let Some(after) = rest.strip_prefix('+') {
        rest = after.trim_start_matches(is_blank);
    }
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != point).unwrap_or(rest.len());
    let (digits, mut rest) = rest.split_at(end);
    if digits.matches(point).count() > 1 || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    plain.push_str(&digits.replace(point, "."));
    if let Some((exponent, after)) = exponent(rest) {
        plain.push_str(exponent);
        rest = after;
    }
    (plain.len() <= DIGITS_MAX && is_unit(rest.trim_matches(is_blank))).then_some(plain)
}

/// `e5`, `E-05` at the beginning of `rest`; a letter E without digits is a unit or a direction.
fn exponent(rest: &str) -> Option<(&str, &str)> {
    let mut after = rest.strip_prefix(['e', 'E'])?;
    after = after.strip_prefix(['+', '-']).unwrap_or(after);
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    (digits > 0).then(|| rest.split_at(rest.len() - after.len() + digits))
}

fn is_unit(text: &str) -> bool {
    let mut letters = text.chars();
    let begins =
        letters.next().is_none_or(|c| c.is_ascii_alphabetic() || matches!(c, '%' | '\'') || !c.is_ascii());
    // More digits would be another number, or the rest of a hexadecimal one: 0x10 must not pass for zero.
    begins
        && !text.as_bytes().windows(2).any(|pair| pair.iter().all(u8::is_ascii_digit))
        && letters.all(|c| c.is_ascii_alphabetic() || "23/^%.-'".contains(c) || !c.is_ascii())
}

pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{a0}')
}

/// Reads a number; infinite if it exceeds a 64-bit float.
pub fn number(text: &str, decimal_comma: bool) -> Option<f64> {
    plain(text, decimal_comma)?.parse().ok()
}

/// Reads an integer: no point, no exponent.
pub fn integer(text: &str, decimal_comma: bool) -> Option<i64> {
    plain(text, decimal_comma)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_instruments_send_them() {
        for (text, value) in [
            ("12.34", 12.34),
            ("+  12.34 kg", 12.34),
            ("-   12.34kg", -12.34),
            ("  0.0", 0.0),
            ("00012", 12.0),
            (".5", 0.5),
            ("12.", 12.0),
            ("23.5°C", 23.5),
            ("22.1 'C", 22.1),
            ("45.2 %RH", 45.2),
            ("1013.2hPa", 1013.2),
            ("7 m3/h", 7.0),
            ("1.5E-3", 0.0015),
            ("214.8E", 214.8),
            ("\t-4\u{a0}", -4.0),
        ] {
            assert_eq!(number(text, false), Some(value), "{text}");
        }
        assert_eq!(number("- 1,5 kg", true), Some(-1.5));
        assert_eq!(integer("+ 42 pcs", false), Some(42));
    }

    #[test]
    fn what_is_not_wholly_understood_is_no_number() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "kg",
            "------",
            "OL",
            "nan",
            "inf",
            "-inf",
            "1,234.5",
            "1,5",
            "12.3.4",
            "12 34",
            "12:30",
            "--5",
            "+-5",
            "5-",
            "12 A 15 B",
            "0x10",
            "0x22",
            "5V33",
            "1_000",
            "12.34,",
            "٣",
            "1.5.",
            "12/5",
            "=5",
        ] {
            assert_eq!(number(text, false), None, "{text}");
        }
        assert_eq!(number("1.234,5", true), None, "thousands separators are refused");
        assert_eq!(integer("12.0", false), None);
        assert_eq!(integer("99999999999999999999", false), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_never_to_nan(text in ".{0,80}", comma: bool) {
            prop_assert!(number(&text, comma).is_none_or(|value| !value.is_nan()));
            integer(&text, comma);
        }

        #[test]
        fn every_number_survives_a_sign_apart_and_a_unit(value in -1e12..1e12_f64, blanks in " {0,5}") {
            let (sign, size) = if value < 0.0 { ("-", -value) } else { ("+", value) };
            prop_assert_eq!(number(&format!("{sign}{blanks}{size} kg"), false), Some(value));
        }
    }
}
