//! Any bytes from a line-oriented instrument, in any pieces: lines within their bound, the same however the bytes are cut, and
//! nothing panics on the way to a value.
//!
//! First byte: checksum and separator; second: where the stream is cut.
#![no_main]

use std::time::Instant;

use fieldspool_drivers::line::fields::extract;
use fieldspool_drivers::line::framing::{Piece, Splitter};
use fieldspool_drivers::line::{Checksum, Device, LINE_BYTES_MAX, Place, Reads, Source};
use libfuzzer_sys::fuzz_target;

const CHECKSUMS: [Checksum; 4] = [Checksum::None, Checksum::Nmea, Checksum::Sum8, Checksum::Xor8];
const TERMINATORS: [&[u8]; 3] = [b"\r\n", b"\x03", b"END"];

fuzz_target!(|data: &[u8]| {
    let [how, cut, stream @ ..] = data else { return };
    let how = usize::from(*how);
    let (checksum, separator) = (CHECKSUMS[how % 4], [",", " ", ";", "ab"][how / 4 % 4]);
    let terminator = TERMINATORS[how / 16 % 3];
    let whole = pieces(terminator, stream.chunks(stream.len().max(1)));
    assert!(whole == pieces(terminator, stream.chunks(usize::from(*cut) + 1)), "lines depend on the cuts");
    let device =
        Device { checksum, separator: separator.into(), decimal_comma: how & 64 == 64, ..Device::default() };
    for line in whole.iter().flatten() {
        assert!((1..=LINE_BYTES_MAX).contains(&line.len()));
        let Some(body) = checksum.strip(line) else { continue };
        for reads in [Reads::Number, Reads::Integer, Reads::Text] {
            for place in [Place::Field(0), Place::Field(3), Place::Key("kg".into())] {
                let valid = (how & 128 == 128).then(|| (1, vec!["A".into()]));
                let source = Source { place, reads, sentence: None, valid };
                let value = extract(body, &device, &source);
                assert!(value.is_err() || value.is_ok_and(|value| value.kind() == source.kind()));
            }
        }
    }
});

/// Lines, and `None` for one that was too long.
fn pieces<'a>(terminator: &[u8], chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Option<Vec<u8>>> {
    let mut splitter = Splitter::new(terminator);
    let mut found = Vec::new();
    let now = Instant::now();
    for chunk in chunks {
        splitter.feed(chunk, now, |piece| {
            found.push(match piece {
                Piece::Line { bytes, .. } => Some(bytes),
                Piece::TooLong => None,
            });
        });
    }
    found
}
