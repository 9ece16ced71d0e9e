//! Words: what was probably meant, quantities with their units, and text from outside made harmless for a message.

use std::time::Duration;

/// Text from a file, quoted, on one line and at most 60 characters long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    let rest = text.chars().count().saturating_sub(60);
    let more = if rest > 0 { format!("... ({rest} characters more)") } else { String::new() };
    shown.insert(0, '"');
    format!("{shown}{more}\"")
}

/// A message as one line: names of files may hold anything.
pub(super) fn one_line(words: &str) -> String {
    let mut line = String::with_capacity(words.len());
    for c in words.chars() {
        if c.is_control() { line.extend(c.escape_debug()) } else { line.push(c) }
    }
    line
}

/// A list for a sentence: `"a", "b" or "c"`.
pub(super) fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => quoted(only),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| quoted(word)).collect();
            format!("{} or {}", most.join(", "), quoted(last))
        }
    }
}

/// What people write who come from other programs, in lower case without `_` and `-`, and what we call it. A word
/// counts only where ours is among the choices.
const FOREIGN: &[(&str, &str)] = &[
    // keys
    ("slave", "unit_id"),
    ("slaveid", "unit_id"),
    ("slaveaddress", "unit_id"),
    ("id", "unit_id"),
    ("address", "unit_id"),
    ("unit", "unit_id"),
    ("station", "unit_id"),
    ("baud", "speed"),
    ("baudrate", "speed"),
    ("parity", "format"),
    ("databits", "format"),
    ("stopbits", "format"),
    ("device", "port"),
    ("tty", "port"),
    ("interval", "period"),
    ("scaninterval", "period"),
    ("pollinterval", "period"),
    ("poll", "period"),
    ("register", "holding"),
    ("inputregister", "input"),
    ("holdingregister", "holding"),
    ("multiplier", "scale"),
    ("factor", "scale"),
    ("gain", "scale"),
    ("precision", "decimals"),
    ("digits", "decimals"),
    ("datatype", "type"),
    ("format", "type"),
    ("byteorder", "order"),
    ("wordorder", "order"),
    ("endian", "order"),
    ("swap", "order"),
    ("nan", "sentinels"),
    ("nanvalue", "sentinels"),
    ("sentinel", "sentinels"),
    ("template", "profile"),
    ("description", "label"),
    ("title", "label"),
    ("name", "label"),
    ("url", "broker"),
    ("server", "broker"),
    ("host", "broker"),
    ("username", "user"),
    ("password", "password_file"),
    ("cafile", "ca"),
    ("tlsca", "ca"),
    ("certificate", "cert"),
    ("certfile", "cert"),
    ("tlscert", "cert"),
    ("keyfile", "key"),
    ("tlskey", "key"),
    ("clientid", "client_id"),
    ("keepalive", "keep_alive"),
    ("topics", "topic"),
    ("buses", "bus"),
    ("devices", "device"),
    ("point", "points"),
    ("registers", "points"),
    // links
    ("rtu", "modbus-rtu"),
    ("modbusserial", "modbus-rtu"),
    ("tcp", "modbus-tcp"),
    ("modbus", "modbus-tcp"),
    ("rtuovertcp", "modbus-rtu-tcp"),
    ("rtutcp", "modbus-rtu-tcp"),
    ("modbusrtuovertcp", "modbus-rtu-tcp"),
    ("serial", "serial-line"),
    ("line", "serial-line"),
    ("nmea", "serial-line"),
    // types
    ("float", "f32"),
    ("float32", "f32"),
    ("real", "f32"),
    ("single", "f32"),
    ("double", "f64"),
    ("float64", "f64"),
    ("lreal", "f64"),
    ("int16", "i16"),
    ("short", "i16"),
    ("int", "i16"),
    ("s16", "i16"),
    ("uint16", "u16"),
    ("word", "u16"),
    ("int32", "i32"),
    ("dint", "i32"),
    ("s32", "i32"),
    ("long", "i32"),
    ("uint32", "u32"),
    ("dword", "u32"),
    ("udint", "u32"),
    ("int64", "i64"),
    ("lint", "i64"),
    ("s64", "i64"),
    ("uint64", "u64"),
    ("qword", "u64"),
    ("ulint", "u64"),
    ("boolean", "bool"),
    ("ascii", "string"),
    ("text", "string"),
    ("str", "string"),
    // orders
    ("big", "ABCD"),
    ("bigendian", "ABCD"),
    ("be", "ABCD"),
    ("little", "DCBA"),
    ("littleendian", "DCBA"),
    ("le", "DCBA"),
    ("bigswap", "BADC"),
    ("byteswap", "BADC"),
    ("littleswap", "CDAB"),
    ("wordswap", "CDAB"),
];

/// Which of `choices` was probably meant.
pub(super) fn nearest<'a>(word: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long garbage is nobody's typing slip, and comparing it would cost its square.
    if word.len() > 64 {
        return None;
    }
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let word = plain(word);
    let mut best: Option<(usize, &'a str)> = None;
    let mut foreign = None;
    for choice in choices {
        let ours = plain(choice);
        let distance = strsim::damerau_levenshtein(&word, &ours);
        let allowed = match word.len().max(ours.len()) {
            0..=2 => 0,
            3..=5 => 1,
            6..=8 => 2,
            _ => 3,
        };
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, choice));
        }
        if FOREIGN.iter().any(|(theirs, ours)| *theirs == word && *ours == choice) {
            foreign.get_or_insert(choice);
        }
    }
    match best {
        Some((0, choice)) => Some(choice),
        near => foreign.or(near.map(|(_, choice)| choice)),
    }
}

/// `did you mean "x"?`, or what else to do.
pub(super) fn did_you_mean<'a>(
    word: &str,
    choices: impl IntoIterator<Item = &'a str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    nearest(word, choices).map_or_else(otherwise, |near| format!("did you mean {}?", quoted(near)))
}

/// A number followed by a unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit.trim()))
}

/// A duration as people write it: `250ms`, `1.5s`, `5min`, `2h`, `30d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let exact = Duration::try_from_secs_f64(number * seconds).ok()?;
    // 0.1 s and the like have no exact binary form: whole microseconds are what anybody means.
    Some(Duration::from_micros(u64::try_from((exact.as_nanos() + 500) / 1_000).ok()?))
}

/// A number of bytes as people write it: `512 MiB`, `1 GB`, `65536`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let bytes = number * factor as f64;
    // Below 2^53 every whole number is exact; nobody's spool is larger.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (bytes < 9e15).then_some(bytes as u64)
}

/// A duration in the largest unit that shows it whole.
pub(super) fn duration_words(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    if micros == 0 {
        return "0s".to_owned();
    }
    for (size, unit) in units {
        if micros.is_multiple_of(size) {
            return format!("{}{unit}", micros / size);
        }
    }
    format!("{micros}us")
}

/// A number of bytes in the largest binary unit that shows it whole.
pub(super) fn bytes_words(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}
