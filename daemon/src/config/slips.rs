//! What a syntax error means to somebody who writes the file by hand: the parser's words, and the line they are about, in ours.
//!
//! A character that TOML does not take and nobody sees is named, and pointed to, before anything else is said: whatever the parser
//! stumbles over then follows from it. What a key's twin is, the parser does not say: it is looked for in the text.

use super::words::quoted;

/// A syntax error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slip {
    /// Byte of the text.
    pub(super) at: usize,
    pub(super) what: String,
    pub(super) remedy: String,
}

/// What the parser's `message` about the byte `at` of a text means.
pub(super) fn slip(message: &str, text: &str, at: usize) -> Slip {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if let Some((offset, (what, remedy))) = unseen(line) {
        return Slip { at: start + offset, what, remedy };
    }
    if let Some(offset) = foreign_comment(line) {
        let what = "a comment that does not begin with #".to_owned();
        return Slip { at: start + offset, what, remedy: "write # before it".to_owned() };
    }
    let (what, remedy) = if message.starts_with("duplicate key") {
        twice(text, start, at - start)
    } else {
        words(message, line)
    };
    Slip { at, what, remedy }
}

/// The first character of a line that no editor shows and TOML does not take there.
fn unseen(line: &str) -> Option<(usize, (String, String))> {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            ('"' | '\'', Some(open)) if open == c => quote = None,
            ('\t', _) => {}
            ('\r', _) => {
                let what = "a carriage return (U+000D) within a line";
                return Some((at, (what.to_owned(), "save the file with line ends of Unix (LF)".to_owned())));
            }
            (c, _) if c.is_control() => return Some((at, named("a control character", c))),
            // In a text they are somebody's wish.
            ('\u{a0}', None) => return Some((at, named("a no-break space", c))),
            (c, None) if is_invisible(c) => return Some((at, named("an invisible character", c))),
            _ => {}
        }
    }
    None
}

fn named(what: &str, c: char) -> (String, String) {
    let remedy = match c {
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => "write a plain space instead",
        _ => "remove it",
    };
    (format!("{what} (U+{:04X})", u32::from(c)), remedy.to_owned())
}

/// Spaces that are none for TOML, marks without width, and what turns the direction of writing.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
}

/// A key or a header that is there already. `start`: where its line begins; `column`: byte of the line at which its name stands.
fn twice(text: &str, start: usize, column: usize) -> (String, String) {
    let line = text[start..].lines().next().unwrap_or_default();
    let mut before = text[..start].lines().enumerate();
    if line.trim_start().starts_with('[') {
        let header = header(line);
        let first = before.find(|(_, other)| self::header(other) == header);
        let what = format!("the table {} twice{}", bare(header), first_on(first.map(|(number, _)| number)));
        return (what, "put its keys together under one of the two".to_owned());
    }
    let remedy = "keep one of the two".to_owned();
    let key = key_of(line);
    // Before its equals sign it is a key of the table around it, after it one of an inline table.
    if column < key.len() + (line.len() - line.trim_start().len()) {
        let first = before.fold(None, |first, (number, other)| {
            let is_header = other.trim_start().starts_with('[');
            let is_twin = other.contains('=') && key_of(other) == key;
            if is_header { None } else { first.or(is_twin.then_some(number)) }
        });
        return (format!("the key {} twice{}", bare(key), first_on(first)), remedy);
    }
    let name = line.get(column..).unwrap_or_default();
    let name = name.split(|c: char| c == '=' || c == '.' || c.is_whitespace()).next().unwrap_or_default();
    (format!("the key {} twice in one table", bare(name)), remedy)
}

fn first_on(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", first on line {}", line + 1))
}

/// The key of a line `key = value`.
fn key_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}

/// `[a.b]`, or nothing.
fn header(line: &str) -> &str {
    let line = line.trim();
    match line.rfind(']') {
        Some(end) if line.starts_with('[') => &line[..=end],
        _ => "",
    }
}

/// As it stands there, unless it is long or odd.
fn bare(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.[]".contains(c);
    if name.len() <= 80 && name.chars().all(plain) { name.to_owned() } else { quoted(name) }
}

/// Where the line, outside of its texts, has a comment as other languages write it.
fn foreign_comment(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut spaced = true;
    for (at, c) in line.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('#', None) => return None,
            ('/' | ';', None) if spaced && (c == ';' || line[at..].starts_with("//")) => return Some(at),
            _ => {}
        }
        spaced = c.is_whitespace();
    }
    None
}

/// A number behind an equals sign that is written with a comma, such as `0,1`.
fn decimal_comma(line: &str) -> Option<&str> {
    line.split('=').skip(1).find_map(|value| {
        let value = value.trim_start();
        let end = value.find(|c: char| !c.is_ascii_digit() && !"+-,".contains(c)).unwrap_or(value.len());
        let (whole, part) = value[..end].split_once(',')?;
        let digits =
            |text: &str| !text.is_empty() && text.len() < 20 && text.bytes().all(|b| b.is_ascii_digit());
        (digits(whole.trim_start_matches(['+', '-'])) && digits(part)).then_some(&value[..end])
    })
}

/// What a syntax error means to somebody who writes the file by hand.
fn words(message: &str, line: &str) -> (String, String) {
    if line.contains(['\u{201c}', '\u{201d}', '\u{201e}']) {
        return ("typographic quotes".to_owned(), "use the plain ones: \"".to_owned());
    }
    if let Some(number) = decimal_comma(line) {
        return (format!("a comma in {number}"), format!("write {}", number.replace(',', ".")));
    }
    let value = line.split_once('=').map_or("", |(_, value)| value).split('#').next().unwrap_or("").trim();
    let quotable = value.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '/' || c == '.');
    if message.starts_with("unquoted keys cannot be empty") {
        return ("a value without a key".to_owned(), "write key = value".to_owned());
    }
    let lone = !value.contains(['"', '\'', ',', '{', '[']);
    if quotable && lone && !matches!(value, "true" | "false") {
        let what = format!(
            "{} without quotes",
            value.chars().take(60).flat_map(char::escape_debug).collect::<String>()
        );
        return match value {
            "yes" | "on" | "Yes" | "True" => (what, "write true".to_owned()),
            "no" | "off" | "No" | "False" => (what, "write false".to_owned()),
            _ if message.contains("leading zero") => {
                ("a number that begins with 0".to_owned(), "remove the 0".to_owned())
            }
            _ => (what, format!("write {}", quoted(value))),
        };
    }
    if !line.contains('=') && line.contains(':') && !line.trim_start().starts_with('[') {
        return ("a colon where an equals sign belongs".to_owned(), "write key = value".to_owned());
    }
    if message.starts_with("key with no value") || (value.is_empty() && line.trim_end().ends_with('=')) {
        return ("a key without a value".to_owned(), "write key = value".to_owned());
    }
    let translated = [
        (
            "string values must be quoted",
            "a text without quotes, or no comma",
            "quote texts, separate keys with commas",
        ),
        ("invalid literal string", "a text without its closing quote", "end it with '"),
        ("invalid multi-line basic string", "a text without its closing quotes", "end it with \"\"\""),
        ("invalid multi-line literal string", "a text without its closing quotes", "end it with '''"),
        ("invalid basic string", "a text without its closing quote", "end it with \""),
        ("unclosed table", "a table's name without its closing bracket", "end it with ]"),
        (
            "missing escaped value",
            "a backslash that means nothing",
            "write \\\\ for a backslash, or use single quotes",
        ),
    ];
    match translated.iter().find(|(theirs, ..)| message.starts_with(theirs)) {
        Some((_, what, remedy)) => ((*what).to_owned(), (*remedy).to_owned()),
        None => (message.to_owned(), "correct the syntax".to_owned()),
    }
}
