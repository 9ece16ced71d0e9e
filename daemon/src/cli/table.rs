//! Plain tables for a terminal: columns as wide as their longest cell, the widest one cut when the terminal is too narrow.
//! No colour and no frames, so that the text can be copied into a mail.

use std::fmt::Write;

/// Between two columns.
const GAP: usize = 2;
/// No column is cut below this.
const COLUMN_LEAST: usize = 8;

/// Header and rows of equal length.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&title| title.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The table as text, at most `width` characters wide as far as columns can be cut. `None`: as wide as it is.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let longest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..columns).map(longest).collect();
        if let Some(width) = width {
            shrink(&mut widths, width);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                let _ = write!(line, "{:<width$}{:GAP$}", cut(cell, width), "");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Takes from the widest column until the sum fits or nothing can be taken any more.
fn shrink(widths: &mut [usize], room: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > COLUMN_LEAST => *widest -= 1,
            _ => return,
        }
    }
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks a sentence into lines of at most `width` characters, each after `indent` spaces but the first.
pub(super) fn wrapped(sentence: &str, indent: usize, width: Option<usize>) -> String {
    let room = width.unwrap_or(usize::MAX).max(indent + 20);
    let mut text = String::new();
    let mut column = indent;
    for word in sentence.split(' ') {
        let length = word.chars().count();
        if column > indent && column + 1 + length > room {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_the_terminal_by_cutting_its_widest_column() {
        let mut table = Table::new(&["Device", "Name"]);
        table.row(vec!["meter-01".into(), "The incomer of the northern hall".into()]);
        table.row(vec!["m2".into(), "Ofen".into()]);
        assert_eq!(
            table.text(None),
            "Device    Name\nmeter-01  The incomer of the northern hall\nm2        Ofen\n"
        );
        assert_eq!(table.text(Some(25)), "Device    Name\nmeter-01  The incomer of…\nm2        Ofen\n");
        assert!(table.text(Some(1)).lines().all(|line| line.chars().count() <= 18), "never below eight each");
    }

    #[test]
    fn a_sentence_breaks_between_words() {
        assert_eq!(wrapped("one two three four five six", 2, Some(22)), "one two three four\n  five six");
        assert_eq!(wrapped("one two", 0, None), "one two");
    }
}
