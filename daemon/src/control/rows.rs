//! Stored readings as text, one line a reading, oldest first: what `fieldspool spool export` writes.
//!
//! CSV (RFC 4180, header `time,clock,gateway,device,point,value,unit,quality,run,seq`) or JSON lines with the same
//! names. `value` is empty (CSV) or null (JSON) where there is none; `quality` is `good`, or the word and its reason.
//! Times are UTC. The daemon sends the rows of a batch as one item; the lines are made on this side of the socket.

use std::io::{self, Write};

use fieldspool_drivers::{Quality, Value};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::{Batch, ClockQuality};

/// Format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Comma-separated values, RFC 4180, with a header.
    Csv,
    /// JSON lines.
    Jsonl,
}

/// One reading on its way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When it was read, as stored, µs.
    wall_us: i64,
    clock: String,
    gateway: String,
    device: String,
    point: String,
    /// As it is printed.
    value: Option<String>,
    /// Text, to be quoted in JSON.
    textual: bool,
    unit: String,
    quality: String,
    run: String,
    seq: u64,
}

/// The rows of a batch.
pub fn rows(batch: &Batch) -> Vec<Row> {
    let row = |(index, reading): (usize, &crate::model::Reading)| {
        let meta = batch.shape.points.get(usize::from(reading.point))?;
        Some(Row {
            wall_us: batch.stamp.wall_us,
            clock: clock_word(batch.stamp.clock).into(),
            gateway: batch.shape.gateway.to_string(),
            device: batch.shape.device.to_string(),
            point: meta.name.to_string(),
            value: reading.sample.value.as_ref().map(value_text),
            textual: matches!(reading.sample.value, Some(Value::Text(_))),
            unit: meta.unit.to_string(),
            quality: quality_text(reading.sample.quality),
            run: batch.run.to_string(),
            seq: batch.seq + index as u64,
        })
    };
    batch.readings.iter().enumerate().filter_map(row).collect()
}

fn clock_word(clock: ClockQuality) -> &'static str {
    match clock {
        ClockQuality::Synced => "synced",
        ClockQuality::Unsynced => "unsynced",
        ClockQuality::Corrected => "corrected",
    }
}

/// `good`, `uncertain: above limit`, `bad: silent`.
pub fn quality_text(quality: Quality) -> String {
    match quality {
        Quality::Good => "good".into(),
        Quality::Uncertain(cause) => format!("uncertain: {cause}"),
        Quality::Bad(cause) => format!("bad: {cause}"),
    }
}

/// A value as text; numbers are numbers in JSON too, with the fewest digits that read back as the same value.
pub fn value_text(value: &Value) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::F32(f) => format!("{f:?}"),
        Value::F64(f) => format!("{f:?}"),
        Value::Text(text) => text.to_string(),
    }
}

/// The first line, if the format has one.
pub fn header(format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Csv => out.write_all(b"time,clock,gateway,device,point,value,unit,quality,run,seq\r\n"),
        Format::Jsonl => Ok(()),
    }
}

/// One line.
pub fn line(row: &Row, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let time = time_text(row.wall_us);
    let value = row.value.as_deref();
    match format {
        Format::Csv => {
            let seq = row.seq.to_string();
            let cells = [
                &time,
                &row.clock,
                &row.gateway,
                &row.device,
                &row.point,
                value.unwrap_or(""),
                &row.unit,
                &row.quality,
                &row.run,
                &seq,
            ];
            out.write_all(cells.map(csv_cell).join(",").as_bytes())?;
            out.write_all(b"\r\n")
        }
        Format::Jsonl => {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            let value = match value {
                None => "null".to_owned(),
                Some(text) if row.textual => quoted(text),
                Some(text) => text.to_owned(),
            };
            writeln!(
                out,
                r#"{{"time":"{time}","clock":"{}","gateway":{},"device":{},"point":{},"value":{value},"unit":{},"quality":"{}","run":"{}","seq":{}}}"#,
                row.clock,
                quoted(&row.gateway),
                quoted(&row.device),
                quoted(&row.point),
                quoted(&row.unit),
                row.quality,
                row.run,
                row.seq,
            )
        }
    }
}

fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// RFC 3339, UTC, six digits.
pub fn time_text(wall_us: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_us) * 1_000) else {
        return wall_us.to_string();
    };
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.microsecond()
    )
}

/// For people: `2026-11-20 14:02 UTC`.
pub fn minute_text(wall_us: i64) -> String {
    let text = time_text(wall_us);
    match (text.get(..10), text.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => text,
    }
}

/// A time as typed: RFC 3339, or a day (its beginning, UTC).
pub fn time_from(text: &str) -> Result<i64, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.replacen(' ', "T", 1) };
    let time = OffsetDateTime::parse(&whole, &Rfc3339).map_err(|_| {
        format!("{text:?} is not a time: write 2026-11-20, 2026-11-20T14:00:00Z or 2026-11-20T14:00:00+01:00")
    })?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000).map_err(|_| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Option<&str>, textual: bool) -> Row {
        Row {
            wall_us: 1_795_177_382_123_456,
            clock: "synced".into(),
            gateway: "gw".into(),
            device: "scale".into(),
            point: "text".into(),
            value: value.map(str::to_owned),
            textual,
            unit: "kg, net".into(),
            quality: "good".into(),
            run: "00000017-9f3c2a10".into(),
            seq: 7,
        }
    }

    fn text(row: &Row, format: Format) -> String {
        let mut out = Vec::new();
        line(row, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_quotes_what_would_break_a_row() {
        assert_eq!(
            text(&row(Some("say \"net\"\nx"), true), Format::Csv),
            "2026-11-20T12:23:02.123456Z,synced,gw,scale,text,\"say \"\"net\"\"\nx\",\"kg, net\",good,00000017-9f3c2a10,7\r\n"
        );
    }

    #[test]
    fn json_lines_keep_numbers_numbers_and_texts_texts() {
        for (value, textual, expected) in [
            (Some("1.5"), false, serde_json::json!(1.5)),
            (Some("18446744073709551615"), false, serde_json::json!(u64::MAX)),
            (Some("true"), false, serde_json::json!(true)),
            (Some("1.5\"\u{1}"), true, serde_json::json!("1.5\"\u{1}")),
            (None, false, serde_json::Value::Null),
        ] {
            let line: serde_json::Value =
                serde_json::from_str(&text(&row(value, textual), Format::Jsonl)).unwrap();
            assert_eq!(line["value"], expected);
            assert_eq!(line["seq"], 7);
        }
        assert_eq!(value_text(&Value::F32(0.1)), "0.1");
        assert_eq!(value_text(&Value::F64(1e300)), "1e300");
    }

    #[test]
    fn a_time_is_read_as_it_is_printed() {
        for us in [0, 1_795_177_382_123_456, -1, 4_102_444_800_000_000] {
            assert_eq!(time_from(&time_text(us)), Ok(us));
        }
        assert_eq!(time_from("2026-11-20"), time_from("2026-11-20T00:00:00Z"));
        assert_eq!(time_from("2026-11-20 01:00:00+01:00"), time_from("2026-11-20"));
        for text in ["", "yesterday", "2026-13-01", "2026-11-20T25:00:00Z"] {
            assert!(time_from(text).is_err(), "{text}");
        }
    }
}
