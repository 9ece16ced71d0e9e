//! Checksums at the end of a line.

/// How a line proves itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Not at all.
    #[default]
    None,
    /// NMEA 0183: `$...*hh`, the exclusive or of all bytes between `$` (or `!`) and `*`, two hexadecimal digits.
    Nmea,
    /// The last two characters are, in hexadecimal, the sum of all bytes before them, modulo 256.
    Sum8,
    /// The last two characters are, in hexadecimal, the exclusive or of all bytes before them.
    Xor8,
}

impl Checksum {
    /// The words in the configuration, in the order of the variants.
    pub const CHOICES: &'static [&'static str] = &["none", "nmea", "sum8", "xor8"];

    /// The variant of a word of [`Self::CHOICES`].
    pub(super) fn from_choice(index: usize) -> Self {
        match index {
            1 => Self::Nmea,
            2 => Self::Sum8,
            3 => Self::Xor8,
            _ => Self::None,
        }
    }

    /// The line without its checksum (and without `$` or `!`), or `None` if it does not prove itself.
    pub fn strip(self, line: &[u8]) -> Option<&[u8]> {
        match self {
            Self::None => Some(line),
            Self::Nmea => {
                let body = line.strip_prefix(b"$").or_else(|| line.strip_prefix(b"!"))?;
                let (body, given) = split_digits(body)?;
                let body = body.strip_suffix(b"*")?;
                (xor(body) == given).then_some(body)
            }
            Self::Sum8 => {
                let (body, given) = split_digits(line)?;
                let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                (sum == given).then_some(body)
            }
            Self::Xor8 => {
                let (body, given) = split_digits(line)?;
                (xor(body) == given).then_some(body)
            }
        }
    }

    /// The whole line for a body, as an instrument would send it.
    pub fn append(self, body: &[u8]) -> Vec<u8> {
        let mut line = body.to_vec();
        match self {
            Self::None => {}
            Self::Nmea => {
                line.insert(0, b'$');
                line.extend_from_slice(format!("*{:02X}", xor(body)).as_bytes());
            }
            Self::Sum8 => {
                let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                line.extend_from_slice(format!("{sum:02X}").as_bytes());
            }
            Self::Xor8 => line.extend_from_slice(format!("{:02X}", xor(body)).as_bytes()),
        }
        line
    }
}

fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

/// The line without its last two characters, and the number that these are in hexadecimal, in either case.
fn split_digits(line: &[u8]) -> Option<(&[u8], u8)> {
    let (body, [high, low]) = line.split_last_chunk::<2>()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((body, digit(*high)? << 4 | digit(*low)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sentences printed in public manuals and standards' examples, not made by this program.
    const REAL: &[&str] = &[
        "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47",
        "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A",
        "$WIMWV,214.8,R,0.1,K,A*28",
        "!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C",
    ];

    #[test]
    fn real_nmea_sentences_prove_themselves() {
        for line in REAL {
            assert!(Checksum::Nmea.strip(line.as_bytes()).is_some(), "{line}");
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_in_a_sentence_is_seen() {
        for line in REAL {
            for at in 0..line.len() {
                for bit in 0..8 {
                    let mut bytes = line.as_bytes().to_vec();
                    bytes[at] ^= 1 << bit;
                    // The digits of the checksum are read in either case, and `$` and `!` are both a beginning.
                    let same = bytes.eq_ignore_ascii_case(line.as_bytes()) && at + 2 >= line.len();
                    assert!(same || Checksum::Nmea.strip(&bytes).is_none(), "{}", bytes.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_sentence_without_its_checksum_is_not_believed() {
        for line in
            ["$WIMWV,214.8,R,0.1,K,A", "WIMWV,214.8*28", "$*", "$", "", "*00", "$WIMWV,214.8,R,0.1,K,A28"]
        {
            assert_eq!(Checksum::Nmea.strip(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn every_checksum_takes_what_it_made_itself() {
        for checksum in [Checksum::None, Checksum::Nmea, Checksum::Sum8, Checksum::Xor8] {
            assert_eq!(checksum.strip(&checksum.append(b"ST,GS,+ 12.34kg")), Some(&b"ST,GS,+ 12.34kg"[..]));
        }
        // 'A' + 'B' = 0x83, 'A' ^ 'B' = 0x03.
        assert_eq!(Checksum::Sum8.strip(b"AB83"), Some(&b"AB"[..]));
        assert_eq!(Checksum::Xor8.strip(b"AB03"), Some(&b"AB"[..]));
        assert_eq!(Checksum::Sum8.strip(b"AB84"), None);
    }
}
