//! From bytes to lines, in bounded memory whatever arrives.
//!
//! A terminator made of carriage returns and line feeds only means: each of the two ends a line, and empty lines
//! do not count; so CR, LF and CR LF instruments all work with the default. Any other terminator is taken literally.

use std::time::Instant;

use super::LINE_BYTES_MAX;

/// What the splitter finds in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole line without its terminator, 1 to [`LINE_BYTES_MAX`] bytes.
    Line {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Arrival of its first byte.
        began: Instant,
    },
    /// More than [`LINE_BYTES_MAX`] bytes without a terminator; everything up to the next one is skipped.
    TooLong,
}

/// Cuts a stream of bytes into lines.
#[derive(Clone, Debug)]
pub struct Splitter {
    terminator: Vec<u8>,
    /// In the middle of a line whose beginning was not heard, or that is too long.
    skipping: bool,
    line: Vec<u8>,
    began: Option<Instant>,
}

impl Splitter {
    /// A splitter that takes the next byte as the first of a line.
    pub fn new(terminator: &[u8]) -> Self {
        Self { terminator: terminator.to_vec(), skipping: false, line: Vec::new(), began: None }
    }

    /// Forgets what it has; the next byte is the first of a line.
    pub fn restart(&mut self) {
        self.skipping = false;
        self.line.clear();
        self.began = None;
    }

    /// Forgets what it has; the next byte may be in the middle of a line, which does not count.
    pub fn restart_within_a_line(&mut self) {
        self.restart();
        self.skipping = true;
    }

    /// Whether part of a line has arrived.
    pub fn is_within_a_line(&self) -> bool {
        self.skipping || !self.line.is_empty()
    }

    /// Takes bytes that arrived by `now` and hands each piece to `found`.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, mut found: impl FnMut(Piece)) {
        for byte in bytes {
            self.line.push(*byte);
            if let Some(end) = self.end_of_line() {
                self.line.truncate(end);
                let line = std::mem::take(&mut self.line);
                let began = self.began.take().unwrap_or(now);
                if !std::mem::take(&mut self.skipping) && !line.is_empty() {
                    found(Piece::Line { bytes: line, began });
                }
                continue;
            }
            if self.skipping {
                // Only as much as could be the beginning of the terminator.
                let keep = self.terminator.len().saturating_sub(1);
                self.line.drain(..self.line.len().saturating_sub(keep));
            } else if self.line.len() >= LINE_BYTES_MAX + self.ending() {
                self.restart_within_a_line();
                found(Piece::TooLong);
            } else {
                self.began.get_or_insert(now);
            }
        }
    }

    /// Where the line ends if the byte just pushed ended it.
    fn end_of_line(&self) -> Option<usize> {
        let ended = if self.is_lenient() {
            matches!(self.line.last(), Some(b'\r' | b'\n'))
        } else {
            self.line.ends_with(&self.terminator)
        };
        ended.then(|| self.line.len() - self.ending())
    }

    fn is_lenient(&self) -> bool {
        self.terminator.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// Length of what ends a line.
    fn ending(&self) -> usize {
        if self.is_lenient() { 1 } else { self.terminator.len() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn split(terminator: &[u8], stream: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::new(terminator);
        splitter.feed(stream, Instant::now(), |piece| {
            if let Piece::Line { bytes, .. } = piece {
                lines.push(bytes);
            }
        });
        lines
    }

    #[test]
    fn every_mix_of_carriage_return_and_line_feed_ends_a_line() {
        for stream in [&b"a\r\nb\r\n"[..], b"a\nb\n", b"a\rb\r", b"\r\n\r\na\n\rb\r\n"] {
            assert_eq!(split(b"\r\n", stream), [b"a", b"b"]);
        }
    }

    #[test]
    fn another_terminator_is_taken_literally() {
        assert_eq!(split(b"\x03", b"a\r\nb\x03c\x03d"), [&b"a\r\nb"[..], b"c"]);
        assert_eq!(split(b"END", b"aENbENDcEND"), [&b"aENb"[..], b"c"]);
    }

    #[test]
    fn a_line_without_end_is_dropped_whole_and_the_next_one_counts() {
        for terminator in [&b"\r\n"[..], b"END"] {
            let mut stream = vec![b'x'; 3 * LINE_BYTES_MAX];
            stream.extend_from_slice(terminator);
            stream.extend_from_slice(b"next");
            stream.extend_from_slice(terminator);
            assert_eq!(split(terminator, &stream), [b"next"]);
        }
    }

    #[test]
    fn the_longest_line_is_believed_and_one_byte_more_is_not() {
        let mut stream = vec![b'x'; LINE_BYTES_MAX];
        stream.push(b'\n');
        assert_eq!(split(b"\n", &stream).len(), 1);
        stream.insert(0, b'x');
        assert_eq!(split(b"\n", &stream).len(), 0);
    }

    #[test]
    fn a_line_whose_beginning_was_not_heard_does_not_count() {
        let mut splitter = Splitter::new(b"\r\n");
        splitter.restart_within_a_line();
        let mut lines = Vec::new();
        splitter.feed(b"2.34 kg\r\n 56.7 kg\r\n", Instant::now(), |piece| lines.push(piece));
        assert!(matches!(lines.as_slice(), [Piece::Line { bytes, .. }] if bytes == b" 56.7 kg"), "{lines:?}");
    }

    #[test]
    fn a_line_is_as_old_as_its_first_byte() {
        let start = Instant::now();
        let mut splitter = Splitter::new(b"\r\n");
        let mut seen = None;
        splitter.feed(b"12", start, |_| {});
        splitter.feed(b".5\r\n", start + Duration::from_secs(1), |piece| seen = Some(piece));
        assert_eq!(seen, Some(Piece::Line { bytes: b"12.5".to_vec(), began: start }));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_portions_give_the_same_lines_in_bounded_memory(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'E'), any::<u8>()], 0..4_000),
            cut in 1..200_usize,
            terminator in prop_oneof![Just(&b"\r\n"[..]), Just(&b"\n"[..]), Just(&b"EE"[..])],
        ) {
            let mut splitter = Splitter::new(terminator);
            let mut lines = Vec::new();
            for part in stream.chunks(cut) {
                splitter.feed(part, Instant::now(), |piece| {
                    if let Piece::Line { bytes, .. } = piece {
                        lines.push(bytes);
                    }
                });
                prop_assert!(splitter.line.len() <= LINE_BYTES_MAX + terminator.len());
            }
            for line in &lines {
                prop_assert!((1..=LINE_BYTES_MAX).contains(&line.len()));
            }
            prop_assert_eq!(lines, split(terminator, &stream));
        }
    }
}
