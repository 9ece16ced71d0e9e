//! What the configuration says about a line of instruments, an instrument, and a point in its text.

use std::time::Duration;

use super::checksum::Checksum;
use crate::Section;
use crate::serial_port::PortSettings;
use crate::value::ValueKind;

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 256;

/// Settings of `serial-line`: those of the port, and `timeout`.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The serial port.
    pub port: PortSettings,
    /// Longest wait for the answer to a query, 10 ms to 60 s; 1 s unless said.
    pub timeout: Duration,
}

/// An instrument on the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What is sent to get an answer; `None` for an instrument that talks by itself.
    pub query: Option<Vec<u8>>,
    /// What ends its lines; see [`super::framing`].
    pub terminator: Vec<u8>,
    /// Only lines that begin so count, `$` and `!` aside: `WIMWV`. A point's `sentence` goes before it.
    pub select: Option<String>,
    /// Between two fields; blanks mean any run of blanks.
    pub separator: String,
    /// How its lines prove themselves.
    pub checksum: Checksum,
    /// Its numbers have a comma where others have a point.
    pub decimal_comma: bool,
    /// A free-running instrument counts as silent after this long without a sentence, 100 ms to 1 h; 10 s unless
    /// said. One sentence that does not come for so long, and for its period, and for twice the second longest
    /// of the last four times between two of it (at most 1 h), is missing.
    pub silent_after: Duration,
}

/// Where in the instrument's text a value stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Which text.
    pub place: Place,
    /// What it is read as.
    pub reads: Reads,
    /// The line it stands in, by its beginning; otherwise the one that the device selects.
    pub sentence: Option<String>,
    /// The value counts only if this field holds one of these words (`A` in NMEA, `ST` of a scale that stands still).
    pub valid: Option<(u8, Vec<String>)>,
}

/// Which text of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The field of this number, counted from 0; in NMEA sentences, 0 is the sentence's name.
    Field(u8),
    /// What follows this word.
    Key(String),
}

/// What a text is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// A 64-bit float; see [`super::number`].
    Number,
    /// A 64-bit integer.
    Integer,
    /// The text itself.
    Text,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            query: None,
            terminator: b"\r\n".to_vec(),
            select: None,
            separator: ",".into(),
            checksum: Checksum::None,
            decimal_comma: false,
            silent_after: Duration::from_secs(10),
        }
    }
}

impl Link {
    /// Takes the settings out of the link's table.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let port = PortSettings::from_section(section);
        let timeout = section.duration("timeout", Duration::from_millis(10)..=Duration::from_secs(60));
        Some(Self { port: port?, timeout: timeout.unwrap_or(Duration::from_secs(1)) })
    }
}

impl Device {
    /// Takes the settings out of the device's table; what is wrong is reported and its default used, so that
    /// the points are checked too.
    pub fn from_section(section: &mut dyn Section) -> Self {
        let default = Self::default();
        let query = bytes(section, "query", QUERY_BYTES_MAX);
        let terminator = bytes(section, "terminator", 4);
        let select = word(section, "select");
        let separator = section.text("separator");
        let checksum = section.choice("checksum", Checksum::CHOICES);
        let decimal_comma = section.flag("decimal_comma").unwrap_or(false);
        let silent_after =
            section.duration("silent_after", Duration::from_millis(100)..=Duration::from_secs(3_600));
        if separator.as_ref().is_some_and(String::is_empty) {
            section.fault(
                "separator",
                "the separator is empty".into(),
                "write `\",\"`, `\";\"` or `\" \"`".into(),
            );
        }
        if decimal_comma && separator.as_deref().unwrap_or(",") == "," {
            section.fault(
                "decimal_comma",
                "a comma cannot separate fields and stand in numbers at once".into(),
                "add the instrument's real separator, such as `separator = \";\"`".into(),
            );
        }
        if query.is_some() && silent_after.is_some() {
            section.fault(
                "silent_after",
                "an instrument with a query is silent when it does not answer within the link's timeout"
                    .into(),
                "remove `silent_after`, or `query` if the instrument talks by itself".into(),
            );
        }
        Self {
            query,
            terminator: terminator.unwrap_or(default.terminator),
            select,
            separator: separator.filter(|text| !text.is_empty()).unwrap_or(default.separator),
            checksum: checksum.map_or(default.checksum, Checksum::from_choice),
            decimal_comma,
            silent_after: silent_after.unwrap_or(default.silent_after),
        }
    }
}

impl Source {
    /// A number in field `field`.
    pub fn field(field: u8) -> Self {
        Self { place: Place::Field(field), reads: Reads::Number, sentence: None, valid: None }
    }

    /// Takes the place of a value out of a point's table.
    pub fn from_section(section: &mut dyn Section) -> Option<Self> {
        let field = section.integer("field", 0..=255).and_then(|field| u8::try_from(field).ok());
        let key = word(section, "key");
        let reads = section.choice("type", &["number", "integer", "text"]);
        let sentence = word(section, "sentence");
        let valid_field = section.integer("valid_field", 0..=255).and_then(|field| u8::try_from(field).ok());
        let valid = section.texts("valid");
        let place = match (section.has("field"), section.has("key")) {
            (true, true) => {
                section.fault(
                    "key",
                    "a point has a field or a key, not both".into(),
                    "remove one of them".into(),
                );
                None
            }
            (false, false) => {
                section.fault(
                    "field",
                    "the point does not say where its value stands".into(),
                    "add `field = 1` (counted from 0, the sentence's name) or `key = \"T\"`".into(),
                );
                None
            }
            _ => field.map(Place::Field).or_else(|| key.map(Place::Key)),
        };
        if section.has("valid_field") != section.has("valid") {
            let (there, missing) = if section.has("valid") {
                ("valid", "valid_field = 5")
            } else {
                ("valid_field", "valid = [\"A\"]")
            };
            section.fault(
                there,
                "`valid_field` and `valid` belong together".into(),
                format!("add `{missing}`"),
            );
        }
        Some(Self {
            place: place?,
            reads: match reads {
                Some(1) => Reads::Integer,
                Some(2) => Reads::Text,
                _ => Reads::Number,
            },
            sentence,
            valid: valid_field.zip(valid),
        })
    }

    /// The variant of the raw value.
    pub fn kind(&self) -> ValueKind {
        match self.reads {
            Reads::Number => ValueKind::F64,
            Reads::Integer => ValueKind::Int,
            Reads::Text => ValueKind::Text,
        }
    }
}

/// A text that must not be empty.
fn word(section: &mut dyn Section, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    if text.is_empty() {
        section.fault(key, format!("`{key}` is empty"), format!("write a word, or remove `{key}`"));
        return None;
    }
    Some(text)
}

/// A text with escapes, 1 to `longest` bytes.
fn bytes(section: &mut dyn Section, key: &'static str, longest: usize) -> Option<Vec<u8>> {
    let text = section.text(key)?;
    match unescape(&text) {
        Ok(bytes) if (1..=longest).contains(&bytes.len()) => Some(bytes),
        Ok(bytes) => {
            section.fault(
                key,
                format!("`{key}` has {} bytes, 1 to {longest} are possible", bytes.len()),
                "write what is sent on the line, no more".into(),
            );
            None
        }
        Err(escape) => {
            section.fault(
                key,
                format!("`{escape}` is not known"),
                "write \\r, \\n, \\t, \\\\ or \\x and two hexadecimal digits, in 'single quotes'".into(),
            );
            None
        }
    }
}

/// `\r`, `\n`, `\t`, `\\` and `\xNN` become their bytes; an unknown escape comes back as the error. In the
/// file, such texts stand in single quotes; in double quotes TOML itself has already taken `\r` and `\n`.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match letters.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = letters.by_ref().take(2).collect();
                let ascii = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                match u8::from_str_radix(&digits, 16) {
                    Ok(byte) if ascii => byte,
                    _ => return Err(format!("\\x{digits}")),
                }
            }
            other => return Err(other.map_or_else(|| "\\".into(), |other| format!("\\{other}"))),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_hold_any_byte() {
        assert_eq!(unescape("S\\r\\n"), Ok(b"S\r\n".to_vec()));
        assert_eq!(unescape("S\r\n"), Ok(b"S\r\n".to_vec()), "TOML took the escapes");
        assert_eq!(unescape("\\x05\\xfF\\\\"), Ok(vec![5, 0xff, b'\\']));
        for (text, culprit) in
            [("\\q", "\\q"), ("\\x1", "\\x1"), ("\\x+1", "\\x+1"), ("a\\", "\\"), ("\\xéé", "\\xéé")]
        {
            assert_eq!(unescape(text), Err(culprit.to_owned()));
        }
    }
}
