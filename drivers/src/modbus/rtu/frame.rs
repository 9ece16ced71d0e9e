//! What stands at the beginning of received bytes: a whole RTU frame, part of one, or noise.
//!
//! RTU frames carry no length: it follows from the function (Modbus Application Protocol V1.1b3, 6), and a check
//! sum that is right for some prefix proves little, because one prefix in 65 536 is. So structure is asked first, the
//! longest reading of it before the shorter ones, and the check sum last.

use super::crc;
use crate::modbus::transaction::Ask;

/// The request on the line.
pub(super) fn request(ask: Ask) -> [u8; 8] {
    let sum = crc::crc(&ask.body()).to_le_bytes();
    let mut frame = [0; 8];
    for (place, byte) in frame.iter_mut().zip(ask.body().into_iter().chain(sum)) {
        *place = byte;
    }
    frame
}

/// What a whole frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An answer with so many data bytes.
    Data { unit: u8, function: u8, data_bytes: u8 },
    /// An exception.
    Exception { unit: u8, function: u8, code: u8 },
    /// Somebody's request, or the answer to a write.
    Other,
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// A whole frame of so many bytes, its check sum right.
    Whole(usize, Meaning),
    /// It may become a frame when so many bytes more have come.
    Partial(usize),
    /// No frame begins so.
    Noise,
}

/// Reads the beginning of `bytes`. With `ended` nothing more will come: then a shorter reading may be taken
/// although a longer one would still be possible.
pub(super) fn head(bytes: &[u8], ended: bool) -> Head {
    let (unit, function) = match *bytes {
        [] => return Head::Partial(5),
        [_] => return Head::Partial(4),
        [unit, function, ..] => (unit, function),
    };
    let third = bytes.get(2).copied();
    if function & 0x80 != 0 {
        let code = third.unwrap_or_default();
        return one(bytes, 5, Meaning::Exception { unit, function: function & 0x7f, code });
    }
    match (function, third) {
        (1..=4, None) => Head::Partial(3),
        (1..=4, Some(data_bytes)) => {
            let registers = function >= 3;
            let possible = (1..=250).contains(&data_bytes) && !(registers && data_bytes % 2 == 1);
            let request = one(bytes, 8, Meaning::Other);
            if !possible {
                return request;
            }
            match one(bytes, usize::from(data_bytes) + 5, Meaning::Data { unit, function, data_bytes }) {
                Head::Noise => request,
                Head::Partial(_) if ended && matches!(request, Head::Whole(..)) => request,
                answer => answer,
            }
        }
        (5 | 6, _) => one(bytes, 8, Meaning::Other),
        (15 | 16, _) => match (one(bytes, 8, Meaning::Other), bytes.get(6)) {
            (Head::Noise, Some(&count)) if count <= 246 => one(bytes, usize::from(count) + 9, Meaning::Other),
            (answer, _) => answer,
        },
        _ => Head::Noise,
    }
}

fn one(bytes: &[u8], length: usize, meaning: Meaning) -> Head {
    match bytes.get(..length) {
        None => Head::Partial(length.saturating_sub(bytes.len())),
        Some(frame) if crc::is_right(frame) => Head::Whole(length, meaning),
        Some(_) => Head::Noise,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(body: &[u8]) -> Vec<u8> {
        [body, &crc::crc(body).to_le_bytes()].concat()
    }

    #[test]
    fn every_kind_of_frame_is_known_whole_and_in_part() {
        let data = Meaning::Data { unit: 1, function: 3, data_bytes: 4 };
        for (body, meaning) in [
            (&[1, 3, 4, 0, 1, 0, 2][..], data),
            (&[1, 0x83, 2], Meaning::Exception { unit: 1, function: 3, code: 2 }),
            (&[1, 3, 0, 52, 0, 10], Meaning::Other),
            (&[1, 6, 0, 1, 0, 2], Meaning::Other),
            (&[1, 16, 0, 1, 0, 2], Meaning::Other),
            (&[1, 16, 0, 1, 0, 2, 4, 9, 9, 9, 9], Meaning::Other),
        ] {
            let frame = sealed(body);
            let length = frame.len();
            assert_eq!(head(&frame, false), Head::Whole(length, meaning), "{body:?}");
            let followed = [&frame[..], &[7; 30]].concat();
            assert_eq!(head(&followed, false), Head::Whole(length, meaning), "{body:?}");
            if body.len() < 9 {
                for cut in 0..length {
                    assert!(
                        matches!(head(&frame[..cut], false), Head::Partial(1..)),
                        "{body:?} cut at {cut}"
                    );
                }
            }
        }
        assert_eq!(head(&[1, 99, 0, 0, 0, 0, 0, 0], false), Head::Noise);
    }

    #[test]
    fn a_request_that_looks_like_the_beginning_of_an_answer_is_known_when_nothing_follows() {
        let request = sealed(&[1, 3, 0x10, 0, 0, 1]); // read as an answer: 16 data bytes
        assert_eq!(head(&request, false), Head::Partial(13));
        assert_eq!(head(&request, true), Head::Whole(8, Meaning::Other));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_never_beyond_their_end(
            bytes in prop::collection::vec(any::<u8>(), 0..600), ended: bool,
        ) {
            match head(&bytes, ended) {
                Head::Whole(length, _) => prop_assert!(length <= bytes.len() && length <= 256),
                Head::Partial(missing) => prop_assert!(missing > 0 && bytes.len() + missing <= 256),
                Head::Noise => {}
            }
        }
    }
}
