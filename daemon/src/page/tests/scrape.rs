//! `/metrics` to the letter of the text format, and what it says.

use super::texts::{NOW_US, well};
use super::*;

/// Name, labels and value.
type Sample = (String, Vec<(String, String)>, f64);

/// A strict reader of the text format: every line is a HELP, a TYPE or a sample of the family last announced, names
/// and labels are legal, values are numbers, no series comes twice.
pub(super) fn parse_metrics(text: &str) -> Vec<Sample> {
    let legal = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    assert!(text.ends_with('\n'));
    let (mut family, mut kind, mut samples) = (String::new(), String::new(), Vec::new());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("help");
            assert!(legal(name) && name.starts_with("fieldspool_") && !help.is_empty(), "{line}");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("type");
            assert_eq!(name, family);
            assert!(matches!(of, "gauge" | "counter"), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            of.clone_into(&mut kind);
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(name, family, "{line}");
            assert!(!kind.is_empty() && labels.iter().all(|(label, _)| legal(label)), "{line}");
            let value: f64 = value.parse().expect("a number");
            assert!(!samples.iter().any(|(n, l, _)| *n == name && *l == labels), "{line} twice");
            samples.push((name, labels, value));
        }
    }
    samples
}

fn sample(line: &str) -> (String, Vec<(String, String)>, &str) {
    let end = line.find(['{', ' ']).expect("name");
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    while let Some(after) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = after.split_once("=\"").expect("label");
        let (mut value, mut escape, mut length) = (String::new(), false, None);
        for (i, c) in quoted.char_indices() {
            match (escape, c) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(c),
                (true, _) => panic!("unknown escape in {line}"),
                (false, '"') => {
                    length = Some(i);
                    break;
                }
                (false, '\\') => {}
                (false, _) => value.push(c),
            }
            escape = !escape && c == '\\';
        }
        labels.push((label.to_owned(), value));
        rest = &quoted[length.expect("closing quote") + 1..];
    }
    let rest = rest.strip_prefix('}').unwrap_or(rest);
    (name.to_owned(), labels, rest.strip_prefix(' ').expect("a space"))
}

#[test]
fn metrics_are_the_text_format_to_the_letter() {
    let mut status = well();
    let odd = "a \"quoted\\ name\"\nwith lines";
    status.buses[0].name = odd.into();
    status.spool.hours_until_full = Some(31.5);
    status.spool.waiting = 7;
    let text = metrics::metrics(&status, &summary(&status, NOW_US), 3);
    let samples = parse_metrics(&text);
    let value = |name: &str, label: &str| {
        let found = samples
            .iter()
            .find(|(n, labels, _)| n == name && (label.is_empty() || labels.iter().any(|(_, v)| v == label)));
        found.unwrap_or_else(|| panic!("{name}")).2
    };
    assert!((value("fieldspool_bus_load_ratio", odd) - 0.4).abs() < 1e-9, "escapes read back");
    assert!((value("fieldspool_spool_waiting_readings", "") - 7.0).abs() < 1e-9);
    assert!((value("fieldspool_spool_full_in_seconds", "") - 113_400.0).abs() < 1e-6);
    assert!((value("fieldspool_device_turnaround_median_seconds", "meter-02") - 0.012).abs() < 1e-9);
    assert!((value("fieldspool_page_viewers", "") - 3.0).abs() < 1e-9);
}
